// Writing, loading and checking one checkpoint; see checkpoint.h. Which to keep is in checkpoint_list.c.
#include "trainer/checkpoint.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "datasets/file.h"
#include "trainer/safetensors.h"

static const char *const checkpoint_files[] = {
    "config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "optimizer.safetensors", "state.json"};
enum { CHECKPOINT_FILES = sizeof checkpoint_files / sizeof checkpoint_files[0], FILE_LIMIT_SHIFT = 40 };

static bool write_optimizer(const Snapshot *snapshot, const char *directory, Error *error) {
    const Layout *layout = &snapshot->bert->layout;
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "optimizer.safetensors");
    TensorView *views = check_calloc(2 * (size_t)layout->count, sizeof *views);
    char(*names)[160] = check_calloc(2 * (size_t)layout->count, sizeof *names);
    for (int i = 0; i < 2 * layout->count; i++) {
        const Tensor *tensor = &layout->tensors[i % layout->count];
        const bool first = i < layout->count;
        snprintf(names[i], sizeof names[i], "%s.%s", first ? "exp_avg" : "exp_avg_sq", tensor->name);
        views[i] = (TensorView){names[i], tensor->rows, tensor->columns,
                                (first ? snapshot->first_moment : snapshot->second_moment) + tensor->offset};
    }
    const bool ok = safetensors_write(path, views, 2 * layout->count, error);
    free(names);
    free(views);
    return ok;
}

static bool write_state(const Progress *progress, const char *directory, Error *error) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "state.json");
    json_t *json = json_pack(
        "{si,sI,sf,sf,sI,sI,sI,sI,sb,ss,ss}", "format_version", 1, "step", (json_int_t)progress->step, "epoch_loss",
        progress->epoch_loss, "best_accuracy", progress->best_accuracy, "best_step", (json_int_t)progress->best_step,
        "train_rows", (json_int_t)progress->train_rows, "global_batch_size", (json_int_t)progress->global_batch_size,
        "seed", (json_int_t)progress->seed, "shuffle", (int)progress->shuffle, "source_sha256", progress->source_sha256,
        "vocabulary_sha256", progress->vocabulary_sha256);
    char *text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    CHECK(text);
    const bool ok = file_write_plain(path, text, strlen(text), error);
    free(text);
    return ok;
}

// "hash  size  name\n" of one file of the directory.
static bool manifest_line(char *line, size_t size, const char *directory, const char *name, Error *error) {
    char path[PATH_MAX], *bytes;
    size_t length;
    path_join(path, sizeof path, directory, name);
    if (!file_read(&bytes, &length, path, (size_t)1 << FILE_LIMIT_SHIFT, error)) { return false; }
    const XXH128_hash_t hash = XXH3_128bits(bytes, length);
    free(bytes);
    snprintf(line, size, "%016llx%016llx  %zu  %s\n", (unsigned long long)hash.high64, (unsigned long long)hash.low64,
             length, name);
    return true;
}

static bool manifest_text(char *text, size_t size, const char *directory, Error *error) {
    text[0] = 0;
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        const size_t used = strlen(text);
        if (!manifest_line(text + used, size - used, directory, checkpoint_files[i], error)) { return false; }
    }
    return true;
}

static bool write_manifest(const char *directory, Error *error) {
    char path[PATH_MAX], text[2048];
    path_join(path, sizeof path, directory, "MANIFEST");
    return manifest_text(text, sizeof text, directory, error) && file_write_plain(path, text, strlen(text), error);
}

bool checkpoint_verify(const char *path, Error *error) {
    char manifest[PATH_MAX], found[2048], *text;
    size_t length;
    path_join(manifest, sizeof manifest, path, "MANIFEST");
    if (!file_read(&text, &length, manifest, sizeof found - 1, error)) { return false; }
    bool ok = manifest_text(found, sizeof found, path, error);
    const char *wanted = text;
    for (int i = 0; ok && i < CHECKPOINT_FILES; i++) {
        const char *line = found;
        for (int skip = 0; skip < i; skip++) { line += strcspn(line, "\n") + 1; }
        const size_t width = strcspn(line, "\n") + 1;
        if (strncmp(wanted, line, width) != 0) {
            ok = error_set(error, EX_DATAERR, "%s/%s: damaged: size or hash differ from the MANIFEST", path,
                           checkpoint_files[i]);
        }
        wanted += ok ? width : 0;
    }
    if (ok && *wanted) { ok = error_set(error, EX_DATAERR, "%s: damaged: bytes behind the last line", manifest); }
    free(text);
    return ok;
}

bool checkpoint_save(const Snapshot *snapshot, const char *directory, Error *error) {
    char name[64], temporary[PATH_MAX], path[PATH_MAX];
    snprintf(name, sizeof name, ".tmp-step-%08lld-%ld", (long long)snapshot->progress.step, (long)getpid());
    path_join(temporary, sizeof temporary, directory, name);
    snprintf(name, sizeof name, "step-%08lld", (long long)snapshot->progress.step);
    path_join(path, sizeof path, directory, name);
    directory_remove(temporary);
    const bool ok = directory_create(temporary, error) &&
                    model_write(snapshot->model, snapshot->weights, snapshot->bert, temporary, error) &&
                    write_optimizer(snapshot, temporary, error) && write_state(&snapshot->progress, temporary, error) &&
                    write_manifest(temporary, error) && directory_publish(temporary, path, error);
    if (!ok) { directory_remove(temporary); }
    return ok;
}

bool checkpoint_write_final(const Snapshot *snapshot, const char *run_directory, Error *error) {
    char temporary[PATH_MAX], path[PATH_MAX];
    path_join(temporary, sizeof temporary, run_directory, ".tmp-final");
    path_join(path, sizeof path, run_directory, "final");
    directory_remove(temporary);
    const bool ok = directory_create(temporary, error) &&
                    model_write(snapshot->model, snapshot->weights, snapshot->bert, temporary, error) &&
                    directory_publish(temporary, path, error);
    if (!ok) { directory_remove(temporary); }
    return ok;
}

void checkpoint_remove_final(const char *run_directory) {
    char old[PATH_MAX], path[PATH_MAX];
    path_join(old, sizeof old, run_directory, ".trash-final");
    path_join(path, sizeof path, run_directory, "final");
    directory_remove(old);
    if (rename(path, old) == 0) { directory_remove(old); }
}

static bool read_moments(Snapshot *snapshot, const char *directory, Error *error) {
    const Layout *layout = &snapshot->bert->layout;
    char path[PATH_MAX], name[160];
    path_join(path, sizeof path, directory, "optimizer.safetensors");
    SafeTensors file;
    if (!safetensors_open(&file, path, error)) { return false; }
    bool ok = true;
    for (int i = 0; ok && i < 2 * layout->count; i++) {
        const Tensor *tensor = &layout->tensors[i % layout->count];
        const bool first = i < layout->count;
        snprintf(name, sizeof name, "%s.%s", first ? "exp_avg" : "exp_avg_sq", tensor->name);
        const SafeTensor *found = safetensors_find(&file, name);
        ok = found && found->dtype == DTYPE_F32 && found->elements == tensor->count;
        if (ok) {
            float *to = (first ? snapshot->first_moment : snapshot->second_moment) + tensor->offset;
            safetensors_read(found, to, 0, tensor->count);
        } else {
            error_set(error, EX_DATAERR, "%s: tensor `%s` is missing or of another size", path, name);
        }
    }
    safetensors_close(&file);
    return ok;
}

static bool read_state(Progress *progress, const char *directory, Error *error) {
    char path[PATH_MAX], *text;
    size_t length;
    path_join(path, sizeof path, directory, "state.json");
    if (!file_read(&text, &length, path, 1 << 20, error)) { return false; }
    json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    int version = 0, shuffle = 0;
    json_int_t step, best_step, rows, batch, seed;
    const char *source, *vocabulary;
    bool ok = json_unpack(json, "{si,sI,sF,sF,sI,sI,sI,sI,sb,ss,ss}", "format_version", &version, "step", &step,
                          "epoch_loss", &progress->epoch_loss, "best_accuracy", &progress->best_accuracy, "best_step",
                          &best_step, "train_rows", &rows, "global_batch_size", &batch, "seed", &seed, "shuffle",
                          &shuffle, "source_sha256", &source, "vocabulary_sha256", &vocabulary) == 0 &&
              version == 1 && step >= 0;
    if (ok) {
        progress->step = step;
        progress->best_step = best_step;
        progress->train_rows = rows;
        progress->global_batch_size = batch;
        progress->seed = seed;
        progress->shuffle = shuffle;
        snprintf(progress->source_sha256, sizeof progress->source_sha256, "%s", source);
        snprintf(progress->vocabulary_sha256, sizeof progress->vocabulary_sha256, "%s", vocabulary);
    }
    json_decref(json);
    return ok || error_set(error, EX_DATAERR, "%s: not the state of a checkpoint of this version", path);
}

bool checkpoint_load(Snapshot *snapshot, const char *path, Error *error) {
    char fresh[1024];
    if (!checkpoint_verify(path, error) || !read_state(&snapshot->progress, path, error) ||
        !read_moments(snapshot, path, error) ||
        !weights_load(snapshot->weights, snapshot->bert, &snapshot->model->config, path, 0, fresh, sizeof fresh,
                      error)) {
        return false;
    }
    return !fresh[0] || error_set(error, EX_DATAERR, "%s/model.safetensors: tensor `%s` is missing", path, fresh);
}
