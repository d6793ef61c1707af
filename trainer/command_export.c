// `bertune export`: the model of a run as a plain Hugging Face directory.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/checkpoint.h"
#include "trainer/classifier.h"
#include "trainer/commands.h"
#include "trainer/stop.h"

static const char usage[] =
    "Usage: bertune export RUN DIR\n"
    "Writes the model of a run to a new Hugging Face directory that holds nothing else: config.json, vocab.txt,\n"
    "tokenizer_config.json, special_tokens_map.json, model.safetensors. RUN is a run directory (its final/, else its\n"
    "newest valid checkpoint), a checkpoint or a model directory; where it has a MANIFEST, its bytes are checked "
    "first.\n"
    "DIR must not be there yet, or be empty.\n\n"
    "  --help, --version\n";

// The tokenizer knows these names and no others.
static const char special_tokens[] =
    "{\n  \"cls_token\": \"[CLS]\",\n  \"mask_token\": \"[MASK]\",\n  \"pad_token\": \"[PAD]\",\n"
    "  \"sep_token\": \"[SEP]\",\n  \"unk_token\": \"[UNK]\"\n}\n";

typedef struct {
    char source[PATH_MAX], target[PATH_MAX], temporary[PATH_MAX];
    Model model;
    Bert bert;
    Weights weights;
} Export;

static bool has(const char *directory, const char *name) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, name);
    return access(path, F_OK) == 0;
}

// A model of another program has no hashes.
static bool verify(const char *source, Error *error) {
    if (has(source, "state.json") || has(source, "optimizer.safetensors")) { return checkpoint_verify(source, error); }
    return !has(source, "MANIFEST") || checkpoint_verify_final(source, error);
}

static bool is_empty(const char *path) {
    DIR *entries = opendir(path);
    bool empty = entries != NULL;
    for (struct dirent *entry; empty && (entry = readdir(entries));) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (entries) { closedir(entries); }
    return empty;
}

// Whether a directory can be put at target; finds the temporary name beside it.
static bool check_target(Export *work, const char *argument, Error *error) {
    char parent[PATH_MAX], name[PATH_MAX];
    struct stat status;
    size_t length = strlen(argument);
    while (length > 1 && argument[length - 1] == '/') { length--; }
    if (length >= sizeof work->target) { return error_set(error, EX_CANTCREAT, "the path of DIR is too long"); }
    snprintf(work->target, sizeof work->target, "%.*s", (int)length, argument);
    if (lstat(work->target, &status) == 0 && (!S_ISDIR(status.st_mode) || !is_empty(work->target))) {
        return error_set(error, EX_CANTCREAT, "%s: is there already and not an empty directory", work->target);
    }
    path_parent(parent, sizeof parent, work->target);
    if (stat(parent, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return error_set(error, EX_CANTCREAT, "%s: no directory %s", work->target, parent);
    }
    const char *slash = strrchr(work->target, '/');
    snprintf(name, sizeof name, ".%s.tmp-%ld", slash ? slash + 1 : work->target, (long)getpid());
    path_join(work->temporary, sizeof work->temporary, parent, name);
    return true;
}

// rename puts a directory in the place of an empty one, and of nothing else.
static bool publish(const Export *work, Error *error) {
    char parent[PATH_MAX];
    path_parent(parent, sizeof parent, work->target);
    if (!directory_sync(work->temporary, error)) { return false; }
    if (rename(work->temporary, work->target) != 0) {
        return error_set(error, EX_CANTCREAT, "%s: cannot create: %s", work->target, strerror(errno));
    }
    return directory_sync(parent, error);
}

static bool write_directory(Export *work, Error *error) {
    Manifest written = {0};
    directory_remove(work->temporary);
    stop_write_begin();
    const bool ok = directory_create(work->temporary, error) &&
                    model_write(&work->model, &work->weights, &work->bert, work->temporary, &written, error) &&
                    manifest_write(&written, work->temporary, "special_tokens_map.json", special_tokens,
                                   strlen(special_tokens), error) &&
                    !stop_write_asked() && publish(work, error);
    if (!ok) { directory_remove(work->temporary); }
    stop_write_end(ok);
    return ok;
}

static void report(const Export *work) {
    static const char *const files[] = {"config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json",
                                        "model.safetensors"};
    printf("%s: the model of %s, %d labels\n", work->target, work->source, work->model.config.classes);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[PATH_MAX];
        struct stat status;
        path_join(path, sizeof path, work->target, files[i]);
        if (stat(path, &status) == 0) { printf("%12lld  %s\n", (long long)status.st_size, files[i]); }
    }
}

static bool export(Export *work, const char *run, const char *directory, Error *error) {
    const bool ok = check_target(work, directory, error) &&
                    classifier_find(work->source, sizeof work->source, run, error) && verify(work->source, error) &&
                    classifier_read(&work->model, &work->bert, &work->weights, work->source, error) &&
                    write_directory(work, error);
    if (ok) { report(work); }
    weights_free(&work->weights);
    bert_free(&work->bert);
    model_close(&work->model);
    return ok;
}

int command_export(int argc, char **argv) {
    int first, code;
    if (!plain_arguments("export", usage, argc, argv, &first, &code)) { return code; }
    if (argc - first != 2) { return usage_error("export", "expected RUN and DIR"); }
    Export work = {0};
    Error error;
    if (check_single_process("export", &error) && export(&work, argv[first], argv[first + 1], &error)) { return EX_OK; }
    print_error(&error);
    return error.code;
}
