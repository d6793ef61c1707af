// Writing, loading and checking one checkpoint; see checkpoint.h. Which to keep is in checkpoint_list.c.
#include "trainer/checkpoint.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/safetensors.h"

enum { STATE_VERSION = 1 };

static const char *const checkpoint_files[] = {
    "config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "optimizer.safetensors", "state.json"};
// final/ has the first ones, those of the model.
enum { CHECKPOINT_FILES = sizeof checkpoint_files / sizeof checkpoint_files[0], FINAL_FILES = 4 };

static bool write_optimizer(const Snapshot *snapshot, const char *directory, Manifest *manifest, Error *error) {
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
    FileHash hash;
    const bool ok = safetensors_write(path, views, 2 * layout->count, &hash, error);
    if (ok) { manifest_add(manifest, "optimizer.safetensors", &hash); }
    free(names);
    free(views);
    return ok;
}

static bool write_state(const Progress *progress, const char *directory, Manifest *manifest, Error *error) {
    const Divergence *divergence = &progress->divergence;
    json_t *json = json_pack(
        "{si,sI,sf,sf,sI,sI,sI,sI,sI,sb,ss,ss,sf,sf,sI}", "format_version", STATE_VERSION, "step",
        (json_int_t)progress->step, "epoch_loss", progress->epoch_loss, "best_accuracy", progress->best_accuracy,
        "best_step", (json_int_t)progress->best_step, "train_rows", (json_int_t)progress->train_rows,
        "global_batch_size", (json_int_t)progress->global_batch_size, "seed", (json_int_t)progress->seed,
        "virtual_shards", (json_int_t)progress->virtual_shards, "shuffle", (int)progress->shuffle, "source_sha256",
        progress->source_sha256, "vocabulary_sha256", progress->vocabulary_sha256, "loss_mean", divergence->mean,
        "loss_best_mean", divergence->best, "loss_steps", (json_int_t)divergence->steps);
    CHECK(json);
    char *text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    CHECK(text);
    const bool ok = manifest_write(manifest, directory, "state.json", text, strlen(text), error);
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
    Manifest manifest = {0};
    const bool ok = directory_create(temporary, error) &&
                    model_write(snapshot->model, snapshot->weights, snapshot->bert, temporary, &manifest, error) &&
                    write_optimizer(snapshot, temporary, &manifest, error) &&
                    write_state(&snapshot->progress, temporary, &manifest, error) &&
                    manifest_finish(&manifest, temporary, error) && directory_publish(temporary, path, error);
    if (!ok) { directory_remove(temporary); }
    return ok;
}

bool checkpoint_write_final(const Snapshot *snapshot, const char *run_directory, Error *error) {
    char temporary[PATH_MAX], path[PATH_MAX];
    path_join(temporary, sizeof temporary, run_directory, ".tmp-final");
    path_join(path, sizeof path, run_directory, "final");
    directory_remove(temporary);
    Manifest manifest = {0};
    const bool ok = directory_create(temporary, error) &&
                    model_write(snapshot->model, snapshot->weights, snapshot->bert, temporary, &manifest, error) &&
                    manifest_finish(&manifest, temporary, error) && directory_publish(temporary, path, error);
    if (!ok) { directory_remove(temporary); }
    return ok;
}

bool checkpoint_verify_final(const char *path, Error *error) {
    return manifest_verify(path, checkpoint_files, FINAL_FILES, error);
}

void checkpoint_remove_final(const char *run_directory) {
    char old[PATH_MAX], path[PATH_MAX];
    Error error;
    path_join(old, sizeof old, run_directory, ".trash-final");
    path_join(path, sizeof path, run_directory, "final");
    directory_remove(old);
    if (rename(path, old) == 0 && directory_sync(run_directory, &error)) { directory_remove(old); }
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

static bool bad_state(const char *path, const char *how, Error *error) {
    return error_set(error, EX_DATAERR, "%s: damaged: %s", path, how);
}

static bool unpack_state(Progress *progress, json_t *json, const char *path, Error *error) {
    int version = 0, shuffle = 0;
    json_int_t step, best_step, rows, batch, seed, shards = SHARDS_UNKNOWN, loss_steps = 0;
    const char *source, *vocabulary;
    if (json_unpack(json, "{si}", "format_version", &version) != 0) { return bad_state(path, "no state", error); }
    if (version != STATE_VERSION) {
        return error_set(error, EX_DATAERR, "%s: format_version %d; this version of bertune reads %d", path, version,
                         STATE_VERSION);
    }
    *progress = (Progress){0};
    Divergence *divergence = &progress->divergence;
    if (json_unpack(json, "{sI,sF,sF,sI,sI,sI,sI,s?I,sb,ss,ss,s?F,s?F,s?I}", "step", &step, "epoch_loss",
                    &progress->epoch_loss, "best_accuracy", &progress->best_accuracy, "best_step", &best_step,
                    "train_rows", &rows, "global_batch_size", &batch, "seed", &seed, "virtual_shards", &shards,
                    "shuffle", &shuffle, "source_sha256", &source, "vocabulary_sha256", &vocabulary, "loss_mean",
                    &divergence->mean, "loss_best_mean", &divergence->best, "loss_steps", &loss_steps) != 0 ||
        step < 0 || loss_steps < 0 || (shards < 0 && json_object_get(json, "virtual_shards"))) {
        return bad_state(path, "a value is missing or of another kind", error);
    }
    progress->step = step;
    progress->best_step = best_step;
    progress->train_rows = rows;
    progress->global_batch_size = batch;
    progress->seed = seed;
    progress->virtual_shards = shards;
    progress->shuffle = shuffle;
    divergence->steps = loss_steps;
    snprintf(progress->source_sha256, sizeof progress->source_sha256, "%s", source);
    snprintf(progress->vocabulary_sha256, sizeof progress->vocabulary_sha256, "%s", vocabulary);
    return true;
}

static bool read_state(Progress *progress, const char *directory, Error *error) {
    char path[PATH_MAX], *text;
    size_t length;
    path_join(path, sizeof path, directory, "state.json");
    if (!file_read(&text, &length, path, 1 << 20, error)) { return false; }
    json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const bool ok = unpack_state(progress, json, path, error);
    json_decref(json);
    return ok;
}

// A directory named step-N holds step N, unless somebody has renamed it.
static bool check_name(const char *path, int64_t step, Error *error) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') { length--; }
    size_t begin = length;
    while (begin > 0 && path[begin - 1] != '/') { begin--; }
    char name[64];
    long long named;
    snprintf(name, sizeof name, "%.*s", narrow_int((int64_t)(length - begin)), path + begin);
    if (sscanf(name, "step-%lld", &named) != 1 || named == step) { return true; }
    return error_set(error, EX_DATAERR, "%s: damaged: state.json is of step %lld", path, (long long)step);
}

bool checkpoint_verify(const char *path, Error *error) {
    Progress progress;
    return manifest_verify(path, checkpoint_files, CHECKPOINT_FILES, error) && read_state(&progress, path, error) &&
           check_name(path, progress.step, error);
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
