// See sweep_table.h.
#include "trainer/sweep/sweep_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/number.h"

typedef struct {
    int trial;
    const char *status;
    int rank;  // of the status: the lower the better
    int64_t epochs, steps;
    double metric;
    SegmentResult merit;
    const char *error;
} Line;

static Line line_of(const Board *board, int trial) {
    Line line = {.trial = trial, .status = "waiting", .rank = 4, .metric = NAN, .error = ""};
    line.merit = board_merit(board, &(TrialResult){0});
    for (int s = 0; s < board->segments[trial]; s++) {
        const TrialResult *result = board_result(board, trial, s);
        if (!result->known) { break; }
        const bool stopped = result->status == TRIAL_PAUSED && s + 1 < board->segments[trial] &&
                             board->states[trial * board->most + s + 1] == SEGMENT_NEVER;
        line.status = stopped ? "stopped" : trial_status_name(result->status);
        line.rank = (int)(result->status == TRIAL_FINISHED ? 0 : result->status == TRIAL_PAUSED ? 1 : 2);
        line.epochs = result->epochs;
        line.steps = result->steps;
        line.metric = result->metric;
        line.error = result->error;
        line.merit = board_merit(board, result);
    }
    return line;
}

// Those trained to their end, then those that went farthest; the best first.
static int by_merit(const void *left, const void *right) {
    const Line *a = left, *b = right;
    if (a->rank != b->rank) { return a->rank - b->rank; }
    if (a->rank == 1 && a->epochs != b->epochs) { return a->epochs < b->epochs ? 1 : -1; }
    const int order = halving_compare(&a->merit, &b->merit);
    return order ? order : a->trial - b->trial;
}

static Line *sorted_lines(const Board *board) {
    const int trials = board->sweep->trials;
    Line *lines = check_calloc((size_t)trials, sizeof *lines);
    for (int t = 0; t < trials; t++) { lines[t] = line_of(board, t); }
    qsort(lines, (size_t)trials, sizeof *lines, by_merit);
    return lines;
}

static const char *value_of(const Sweep *sweep, int trial, int key) {
    return sweep->values[trial * sweep->key_count + key];
}

// Whether trials differ in the key.
static bool varies(const Sweep *sweep, int key) {
    for (int t = 1; t < sweep->trials; t++) {
        if (strcmp(value_of(sweep, t, key), value_of(sweep, 0, key)) != 0) { return true; }
    }
    return false;
}

// Without its section, where that is clear.
static const char *name_of(const Sweep *sweep, int key) {
    const char *name = strchr(sweep->keys[key]->key, '.') + 1;
    for (int k = 0; k < sweep->key_count; k++) {
        if (k != key && strcmp(strchr(sweep->keys[k]->key, '.') + 1, name) == 0) { return sweep->keys[key]->key; }
    }
    return name;
}

// Columns wide enough for the keys' names and values, but the last.
static int width_of(const Sweep *sweep, int key) {
    bool last = true;
    for (int k = key + 1; k < sweep->key_count; k++) { last = last && !varies(sweep, k); }
    if (last) { return 0; }
    size_t width = strlen(name_of(sweep, key));
    for (int t = 0; t < sweep->trials; t++) {
        const size_t length = strlen(value_of(sweep, t, key));
        if (length > width) { width = length; }
    }
    return (int)width;
}

static void print_keys(const Sweep *sweep, FILE *out) {
    for (int k = 0; k < sweep->key_count; k++) {
        if (varies(sweep, k)) { fprintf(out, "  %-*s", width_of(sweep, k), name_of(sweep, k)); }
    }
    fputc('\n', out);
}

static void print_values(const Sweep *sweep, int trial, FILE *out) {
    for (int k = 0; k < sweep->key_count; k++) {
        if (varies(sweep, k)) { fprintf(out, "  %-*s", width_of(sweep, k), value_of(sweep, trial, k)); }
    }
}

static void print_steps(const Board *board, const Line *lines, FILE *out) {
    double did = 0.0, all = 0.0;
    for (int i = 0; i < board->sweep->trials; i++) {
        did += (double)lines[i].steps;
        if (lines[i].epochs) {
            all += (double)lines[i].steps / (double)lines[i].epochs * (double)board->sweep->epochs[lines[i].trial];
        }
    }
    if (board->sweep->rungs && all > 0) {
        fprintf(out, "steps: %.0f of the %.0f that all trials to their ends would take (%.1f %%)\n", did, all,
                100.0 * did / all);
    }
}

void sweep_table_print(const Board *board, FILE *out) {
    const Sweep *sweep = board->sweep;
    Line *lines = sorted_lines(board);
    const int best = board_best(board), width = (int)strlen(sweep->metric);
    fprintf(out, "trial  status    epochs  %s", sweep->metric);
    print_keys(sweep, out);
    for (int i = 0; i < sweep->trials; i++) {
        const Line *line = &lines[i];
        char metric[32] = "-";
        if (!isnan(line->metric)) { snprintf(metric, sizeof metric, "%.4f", line->metric); }
        fprintf(out, "%5d  %-8s  %6lld  %-*s", line->trial, line->status, (long long)line->epochs, width, metric);
        print_values(sweep, line->trial, out);
        fprintf(out, "%s%s\n", line->error[0] ? "  " : "", line->error);
    }
    print_steps(board, lines, out);
    free(lines);
    if (best < 0) {
        fprintf(out, "no trial was trained to its end\n");
    } else if (!sweep->dev) {
        fprintf(out, "best: trial %d, %s/trials/%04d/final\n", best, sweep->dir, best);
    } else if (board->winner.status == TRIAL_FINISHED) {
        fprintf(out, "winner: trial %d, trained on all training rows: %s %.4f", best, sweep->metric,
                board->winner.metric);
        if (strcmp(sweep->metric, "accuracy") != 0) { fprintf(out, ", accuracy %.4f", board->winner.accuracy); }
        fprintf(out, " on the validation rows, %s/winner/final\n", sweep->dir);
    } else {
        fprintf(out, "winner: trial %d; its training on all rows %s: %s\n", best,
                trial_status_name(board->winner.status), board->winner.error);
    }
}

static void put_field(FILE *out, const char *text) {
    const bool quotes = strpbrk(text, ",\"\r\n") != NULL;
    if (quotes) { fputc('"', out); }
    for (; *text; text++) { fprintf(out, "%s%c", *text == '"' ? "\"" : "", *text); }
    if (quotes) { fputc('"', out); }
}

bool sweep_table_write(const Board *board, Error *error) {
    const Sweep *sweep = board->sweep;
    char *text = NULL, path[RUN_PATH];
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    CHECK(out);
    fprintf(out, "trial,status,epochs,%s", sweep->metric);
    for (int k = 0; k < sweep->key_count; k++) { fprintf(out, ",%s", sweep->keys[k]->key); }
    Line *lines = sorted_lines(board);
    for (int i = 0; i < sweep->trials; i++) {
        const Line *line = &lines[i];
        fprintf(out, "\n%d,%s,%lld,%s", line->trial, line->status, (long long)line->epochs,
                isnan(line->metric) ? "" : number_format(line->metric).text);
        for (int k = 0; k < sweep->key_count; k++) {
            fputc(',', out);
            put_field(out, value_of(sweep, line->trial, k));
        }
    }
    fputc('\n', out);
    CHECK(fclose(out) == 0);
    free(lines);
    path_join(path, sizeof path, sweep->dir, "table.csv");
    const bool ok = file_write(path, text, length, error);
    free(text);
    return ok;
}

void sweep_table_plan(const Sweep *sweep, FILE *out) {
    fprintf(out, "trial  epochs");
    print_keys(sweep, out);
    for (int t = 0; t < sweep->trials; t++) {
        fprintf(out, "%5d  %6lld", t, (long long)sweep->epochs[t]);
        print_values(sweep, t, out);
        fputc('\n', out);
    }
}
