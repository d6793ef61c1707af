// See prepare.h.
#include "trainer/prepare.h"

#include <errno.h>
#include <limits.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/dataset.h"
#include "datasets/file.h"
#include "datasets/split.h"
#include "datasets/tokenizer.h"
#include "datasets/utf8.h"
#include "datasets/vocabulary_build.h"
#include "trainer/number.h"
#include "trainer/progress.h"
#include "trainer/stop.h"
#include "trainer/table.h"

// The rows of each part, as numbers of the table.
typedef struct {
    int64_t *train, *validation, *dev;
    int64_t train_rows, validation_rows, dev_rows;
    int64_t *positions;  // (train_rows + dev_rows) of these among the training rows before the cut, NULL: not cut
} Parts;

typedef struct {
    const PrepareOptions *options;
    Table table;
    Parts parts;
    Tokenizer tokenizer;
    char *built;  // the vocabulary that was learned, or NULL
    size_t built_length;
    DatasetInfo info;
    int64_t unknown, tokens;
} Work;

// --dev-size cuts from the training rows by the rule and seed that cut the validation rows from all.
static bool split_parts(Parts *parts, const PrepareOptions *options, int64_t rows, Error *error) {
    if (!split_sizes(&parts->train_rows, &parts->validation_rows, rows, options->test_size, error)) { return false; }
    parts->train = check_calloc((size_t)parts->train_rows, sizeof *parts->train);
    parts->validation = check_calloc((size_t)parts->validation_rows, sizeof *parts->validation);
    CHECK(split_rows(parts->train, parts->validation, rows, options->test_size, options->split_seed, error));
    if (options->dev_size == 0) { return true; }
    const int64_t all = parts->train_rows;
    if (!split_sizes(&parts->train_rows, &parts->dev_rows, all, options->dev_size, error)) { return false; }
    int64_t *order = parts->train;
    int64_t *positions = check_calloc((size_t)(parts->train_rows + parts->dev_rows), sizeof *positions);
    CHECK(split_rows(positions, positions + parts->train_rows, all, options->dev_size, options->split_seed, error));
    parts->train = check_calloc((size_t)parts->train_rows, sizeof *parts->train);
    parts->dev = check_calloc((size_t)parts->dev_rows, sizeof *parts->dev);
    for (int64_t i = 0; i < parts->train_rows; i++) { parts->train[i] = order[positions[i]]; }
    for (int64_t i = 0; i < parts->dev_rows; i++) { parts->dev[i] = order[positions[parts->train_rows + i]]; }
    free(order);
    parts->positions = positions;
    return true;
}

static bool learn_vocabulary(Work *work, Error *error) {
    const Parts *parts = &work->parts;
    const char **texts = check_calloc((size_t)parts->train_rows, sizeof *texts);
    size_t *lengths = check_calloc((size_t)parts->train_rows, sizeof *lengths);
    for (int64_t i = 0; i < parts->train_rows; i++) {
        texts[i] = work->table.texts[parts->train[i]];
        lengths[i] = work->table.lengths[parts->train[i]];
    }
    work->tokenizer.options = tokenizer_default_options();
    const bool ok = vocabulary_build(&work->built, &work->built_length, &work->tokenizer.options, texts, lengths,
                                     parts->train_rows, work->options->build_size, error) &&
                    vocabulary_parse(&work->tokenizer.vocabulary, work->options->vocabulary_out, work->built,
                                     work->built_length, error);
    free(texts);
    free(lengths);
    return ok;
}

static bool open_vocabulary(Work *work, Error *error) {
    const Vocabulary *vocabulary = &work->tokenizer.vocabulary;
    const bool ok = work->options->build_size ? learn_vocabulary(work, error)
                                              : tokenizer_open(&work->tokenizer, work->options->vocabulary, error);
    if (!ok) { return false; }
    memcpy(work->info.vocabulary_sha256, vocabulary->sha256, sizeof work->info.vocabulary_sha256);
    work->info.vocabulary_size = vocabulary->size;
    return true;
}

// Names the labels: those given, or 消极 and 积极 for two, or LABEL_0, LABEL_1, ...
static bool name_labels(Work *work, Error *error) {
    DatasetInfo *info = &work->info;
    const char *names = work->options->label_names;
    int32_t largest = 0, named = 0;
    for (int64_t i = 0; i < work->table.rows; i++) {
        largest = work->table.labels[i] > largest ? work->table.labels[i] : largest;
    }
    if (!names && largest <= 1) { names = "消极,积极"; }
    info->classes = largest + 1;
    for (const char *c = names; c && *c; c++) { named += *c == ',' || !c[1]; }
    if (names && named < info->classes) {
        return error_set(error, EX_DATAERR, "%s: label %d occurs, but --label-names has %d names", work->options->csv,
                         largest, named);
    }
    if (named > DATASET_MAX_CLASSES) {
        return error_set(error, EX_USAGE, "--label-names: %d names, at most %d", named, DATASET_MAX_CLASSES);
    }
    if (names) { info->classes = named; }
    info->label_names = check_calloc((size_t)info->classes, sizeof *info->label_names);
    for (int32_t c = 0; c < info->classes; c++) {
        const size_t length = names ? strcspn(names, ",") : 0;
        size_t bad;
        if (names && (length == 0 || length >= DATASET_NAME_SIZE || !utf8_valid(names, length, &bad))) {
            return error_set(error, EX_USAGE, "--label-names: expected names of 1 to %d bytes of UTF-8",
                             DATASET_NAME_SIZE - 1);
        }
        if (names) {
            snprintf(info->label_names[c], DATASET_NAME_SIZE, "%.*s", (int)length, names);
            names += length + (names[length] == ',');
        } else {
            snprintf(info->label_names[c], DATASET_NAME_SIZE, "LABEL_%d", c);
        }
        for (int32_t other = 0; other < c; other++) {
            if (strcmp(info->label_names[other], info->label_names[c]) == 0) {
                return error_set(error, EX_USAGE, "--label-names: `%s` stands twice", info->label_names[c]);
            }
        }
    }
    return true;
}

// Tokenizes the given rows of the table; the token arrays are laid end to end afterwards.
static void tokenize_part(Work *work, Reviews *reviews, const int64_t *rows, int64_t count, ProgressBar *bar,
                          int64_t *done) {
    const int most = work->options->max_length;
    int32_t **ids = check_calloc((size_t)count, sizeof *ids);
    reviews->rows = count;
    reviews->offsets = check_calloc((size_t)count + 1, sizeof *reviews->offsets);
#pragma omp parallel
    {
        int32_t *scratch = check_calloc((size_t)most, sizeof *scratch);
#pragma omp for schedule(dynamic, 256)
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = rows[i];
            const int length =
                tokenizer_encode(&work->tokenizer, work->table.texts[row], work->table.lengths[row], most, scratch);
            ids[i] = check_calloc((size_t)length, sizeof **ids);
            memcpy(ids[i], scratch, (size_t)length * sizeof **ids);
            reviews->offsets[i + 1] = length;
#pragma omp atomic
            (*done)++;
            if (i % 256 == 0 && omp_get_thread_num() == 0) {
                progress_update(bar, *done, work->table.rows, (double)*done, "");
            }
        }
        free(scratch);
    }
    for (int64_t i = 0; i < count; i++) { reviews->offsets[i + 1] += reviews->offsets[i]; }
    reviews->token_count = reviews->offsets[count];
    reviews->tokens = check_calloc((size_t)reviews->token_count, sizeof *reviews->tokens);
    reviews->labels = check_calloc((size_t)count, sizeof *reviews->labels);
    reviews->source_row = check_calloc((size_t)count, sizeof *reviews->source_row);
    for (int64_t i = 0; i < count; i++) {
        const int64_t length = reviews->offsets[i + 1] - reviews->offsets[i];
        memcpy(reviews->tokens + reviews->offsets[i], ids[i], (size_t)length * sizeof **ids);
        reviews->labels[i] = work->table.labels[rows[i]];
        reviews->source_row[i] = work->table.source_row[rows[i]];
        free(ids[i]);
    }
    free(ids);
}

// The sorted ids that occur, and [PAD].
static void find_active(Work *work, const Reviews *parts, int count) {
    const Vocabulary *vocabulary = &work->tokenizer.vocabulary;
    DatasetInfo *info = &work->info;
    bool *used = check_calloc((size_t)vocabulary->size, sizeof *used);
    used[vocabulary->pad] = true;
    for (int p = 0; p < count; p++) {
        for (int64_t t = 0; t < parts[p].token_count; t++) {
            used[parts[p].tokens[t]] = true;
            work->unknown += parts[p].tokens[t] == vocabulary->unk;
        }
        work->tokens += parts[p].token_count;
    }
    info->active = check_calloc((size_t)vocabulary->size, sizeof *info->active);
    for (int32_t id = 0; id < vocabulary->size; id++) {
        if (used[id]) { info->active[info->active_count++] = id; }
    }
    free(used);
}

// The learned vocabulary is written behind the data set; if that fails, neither stays.
static bool write_outputs(Work *work, const Reviews *reviews, Error *error) {
    static const char *const names[] = {"train", "validation", "dev"};
    const Reviews *groups[3];
    const char *group_names[3];
    int count = 0;
    for (int p = 0; p < 3; p++) {
        if (reviews[p].rows == 0) { continue; }
        groups[count] = &reviews[p];
        group_names[count++] = names[p];
    }
    stop_write_begin();
    const bool first = dataset_write(work->options->out, &work->info, groups, group_names, count, error);
    const bool ok = first && !stop_write_asked() &&
                    (!work->built || file_write(work->options->vocabulary_out, work->built, work->built_length, error));
    if (first && !ok) { unlink(work->options->out); }
    stop_write_end(ok);
    return ok;
}

static bool check_place(const char *path, Error *error) {
    char parent[PATH_MAX];
    struct stat status;
    path_parent(parent, sizeof parent, path);
    if (stat(parent, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return error_set(error, EX_CANTCREAT, "%s: no directory %s", path, parent);
    }
    if (access(parent, W_OK) != 0) { return error_set(error, EX_CANTCREAT, "%s: %s", path, strerror(errno)); }
    return true;
}

static bool same_file(const char *a, const char *b) {
    struct stat first, second;
    if (!a || !b) { return false; }
    return strcmp(a, b) == 0 || (stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
                                 first.st_ino == second.st_ino);
}

// Nothing that is read, and no other output, may be overwritten.
static bool check_distinct(const PrepareOptions *options, Error *error) {
    const char *const outputs[] = {options->out, options->vocabulary_out};
    for (int i = 0; i < 2; i++) {
        if (same_file(outputs[i], options->csv) || same_file(outputs[i], options->vocabulary) ||
            (i && same_file(outputs[i], options->out))) {
            return error_set(error, EX_USAGE, "%s: named twice, as output and as another file", outputs[i]);
        }
    }
    return true;
}

static void describe(const Work *work, double seconds) {
    const Parts *parts = &work->parts;
    printf("%s: %lld rows (%lld training, %lld validation", work->options->out, (long long)work->table.rows,
           (long long)parts->train_rows, (long long)parts->validation_rows);
    if (parts->dev_rows) { printf(", %lld dev", (long long)parts->dev_rows); }
    if (work->table.skipped) { printf("; %lld bad rows skipped", (long long)work->table.skipped); }
    printf("), %lld tokens, %.1f a row, %.1f %% [UNK]\n", (long long)work->tokens,
           (double)work->tokens / (double)work->table.rows, 100.0 * (double)work->unknown / (double)work->tokens);
    printf("%s: %d tokens, %d of them occur; tokenized and written in %.2f s\n",
           work->built ? work->options->vocabulary_out : work->options->vocabulary, work->info.vocabulary_size,
           work->info.active_count, seconds);
}

static bool tokenize_and_write(Work *work, Error *error) {
    const double begin = seconds_now();
    const Parts *parts = &work->parts;
    const int64_t *rows[3] = {parts->train, parts->validation, parts->dev};
    const int64_t counts[3] = {parts->train_rows, parts->validation_rows, parts->dev_rows};
    Reviews reviews[3] = {0};
    ProgressBar bar;
    int64_t done = 0;
    progress_start(&bar, "tokenize", "rows", 0);
    for (int p = 0; p < 3; p++) { tokenize_part(work, &reviews[p], rows[p], counts[p], &bar, &done); }
    progress_clear(&bar);
    if (parts->positions) {
        reviews[0].position = parts->positions;
        reviews[2].position = parts->positions + parts->train_rows;
    }
    find_active(work, reviews, 3);
    const bool ok = write_outputs(work, reviews, error);
    for (int p = 0; p < 3; p++) { reviews_free(&reviews[p]); }
    if (ok) { describe(work, seconds_now() - begin); }
    return ok;
}

bool prepare_run(const PrepareOptions *options, Error *error) {
    Work work = {.options = options};
    if (!check_distinct(options, error) || !check_place(options->out, error) ||
        (options->vocabulary_out && !check_place(options->vocabulary_out, error)) ||
        !table_read(&work.table, options->csv, options->text_column, options->label_column, options->skip_bad_rows,
                    error)) {
        return false;
    }
    DatasetInfo *info = &work.info;
    memcpy(info->source_sha256, work.table.source_sha256, sizeof info->source_sha256);
    info->max_length = options->max_length;
    snprintf(info->split_rule, sizeof info->split_rule,
             "sklearn.model_selection.train_test_split test_size=%s random_state=%u; dev_size=%s of the training rows",
             number_format(options->test_size).text, options->split_seed, number_format(options->dev_size).text);
    const bool ok = split_parts(&work.parts, options, work.table.rows, error) && name_labels(&work, error) &&
                    open_vocabulary(&work, error) && tokenize_and_write(&work, error);
    table_free(&work.table);
    tokenizer_free(&work.tokenizer);
    free(work.parts.train);
    free(work.parts.validation);
    free(work.parts.dev);
    free(work.parts.positions);
    free(work.built);
    free(info->active);
    free(info->label_names);
    return ok;
}
