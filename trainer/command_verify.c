// `bertune verify`: are the bytes of checkpoints, runs, models and data sets those that were written?
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/dataset.h"
#include "trainer/checkpoint.h"
#include "trainer/commands.h"
#include "trainer/safetensors.h"

static const char usage[] =
    "Usage: bertune verify PATH ...\n"
    "Checks every byte of checkpoints, model directories of `bertune train` (final/), run directories (all "
    "checkpoints\n"
    "and final/) and data sets against the hashes that were written with them. One line each, `ok` or `damaged` with "
    "the\n"
    "file and what is wrong with it.\n\n"
    "Exit code: 0 all are whole; 65 something is damaged; 66 something is missing.\n\n"
    "  --help, --version\n";

// What has been found so far.
typedef struct {
    int damaged, missing;
} Findings;

static bool exists(const char *directory, const char *name) {
    char path[PATH_MAX];
    struct stat status;
    path_join(path, sizeof path, directory, name);
    return stat(path, &status) == 0;
}

static void say_ok(const char *path, const char *what) { printf("%s: ok: %s\n", path, what); }

// The error's words without the path and the word that stand in the line already.
static void say_error(Findings *findings, const char *path, const Error *error) {
    const char *text = error->text, *word = "damaged: ";
    const size_t length = strlen(path);
    if (strncmp(text, path, length) == 0 && (text[length] == '/' || text[length] == ':')) {
        text += length + (text[length] == '/' ? 1 : 2);
    }
    const bool missing = error->code == EX_NOINPUT;
    const char *again = strstr(text, word);
    const int before = again ? (int)(again - text) : (int)strcspn(text, "\n");
    const char *rest = again ? again + strlen(word) : "";
    printf("%s: %s: %.*s%.*s\n", path, missing ? "missing" : "damaged", before, text, (int)strcspn(rest, "\n"), rest);
    *(missing ? &findings->missing : &findings->damaged) += 1;
}

static bool verify_data(const char *path, char *what, size_t size, Error *error) {
    static const char *const groups[] = {"train", "validation", "dev"};
    Dataset dataset;
    if (!dataset_verify(path, error)) { return false; }
    bool ok = dataset_open(&dataset, path, H5P_DEFAULT, error);
    snprintf(what, size, "data set");
    for (size_t i = 0; ok && i < sizeof groups / sizeof groups[0]; i++) {
        Reviews reviews;
        if (!dataset_has_group(&dataset, groups[i])) { continue; }
        ok = dataset_read(&dataset, groups[i], &reviews, error);
        if (!ok) { break; }
        const size_t used = strlen(what);
        snprintf(what + used, size - used, ", %lld %s rows", (long long)reviews.rows, groups[i]);
        reviews_free(&reviews);
    }
    dataset_close(&dataset);
    return ok;
}

// A model directory of another program has no hashes.
static bool verify_form(const char *path, Error *error) {
    char weights[PATH_MAX];
    Model model;
    SafeTensors file;
    path_join(weights, sizeof weights, path, "model.safetensors");
    if (!model_open(&model, path, false, error)) { return false; }
    const bool ok = safetensors_open(&file, weights, error);
    if (ok) { safetensors_close(&file); }
    model_close(&model);
    return ok;
}

static bool verify_model(const char *path, const char **what, Error *error) {
    if (exists(path, "MANIFEST")) {
        *what = "model";
        return checkpoint_verify_final(path, error);
    }
    *what = "model without a MANIFEST: only its form was checked";
    const bool ok = verify_form(path, error);
    if (!ok) { error->code = EX_DATAERR; }
    return ok;
}

// A job that trains may remove a checkpoint meanwhile.
static void verify_checkpoints(Findings *findings, const char *directory, int *found) {
    int count;
    int64_t *steps = checkpoint_steps(directory, &count);
    for (int i = count - 1; i >= 0; i--) {
        char path[PATH_MAX], name[64];
        Error error;
        snprintf(name, sizeof name, "step-%08lld", (long long)steps[i]);
        path_join(path, sizeof path, directory, name);
        if (checkpoint_verify(path, &error)) {
            say_ok(path, "checkpoint");
        } else if (error.code != EX_NOINPUT) {
            say_error(findings, path, &error);
        }
        (*found)++;
    }
    free(steps);
}

static void verify_run(Findings *findings, const char *path) {
    char below[PATH_MAX];
    const char *what;
    Error error;
    int found = 0;
    path_join(below, sizeof below, path, "checkpoints");
    verify_checkpoints(findings, below, &found);
    path_join(below, sizeof below, path, "final");
    if (exists(path, "final")) {
        found++;
        if (verify_model(below, &what, &error)) {
            say_ok(below, what);
        } else {
            say_error(findings, below, &error);
        }
    }
    if (!found) { say_ok(path, "run without a checkpoint"); }
}

static bool is_checkpoint(const char *path) {
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, "step-", 5) == 0 || exists(path, "state.json") ||
           exists(path, "optimizer.safetensors");
}

static void verify_directory(Findings *findings, const char *path) {
    Error error;
    const char *what = "checkpoint";
    bool ok;
    if (is_checkpoint(path)) {
        ok = checkpoint_verify(path, &error);
    } else if (exists(path, "MANIFEST") || exists(path, "config.json")) {
        ok = verify_model(path, &what, &error);
    } else if (exists(path, "checkpoints") || exists(path, "metrics.jsonl") || exists(path, "final")) {
        verify_run(findings, path);
        return;
    } else {
        ok = error_set(&error, EX_NOINPUT, "%s: neither a checkpoint nor a run, a model or a data set", path);
    }
    if (ok) {
        say_ok(path, what);
    } else {
        say_error(findings, path, &error);
    }
}

static void verify(Findings *findings, const char *argument) {
    char path[PATH_MAX], what[256];
    struct stat status;
    Error error;
    snprintf(path, sizeof path, "%s", argument);
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--) { path[length - 1] = 0; }
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        verify_directory(findings, path);
    } else if (verify_data(path, what, sizeof what, &error)) {
        say_ok(path, what);
    } else {
        say_error(findings, path, &error);
    }
}

int command_verify(int argc, char **argv) {
    Findings findings = {0};
    Error error;
    int first, code;
    if (!plain_arguments("verify", usage, argc, argv, &first, &code)) { return code; }
    if (argc <= first) { return usage_error("verify", "expected a PATH"); }
    if (!check_single_process("verify", &error)) {
        print_error(&error);
        return error.code;
    }
    for (int i = first; i < argc; i++) { verify(&findings, argv[i]); }
    return findings.damaged ? EX_DATAERR : findings.missing ? EX_NOINPUT : EX_OK;
}
