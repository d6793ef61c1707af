// Which checkpoints there are, which is the newest valid one, which may go; see checkpoint.h.
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/checkpoint.h"

static int descending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

int64_t *checkpoint_steps(const char *directory, int *count) {
    int64_t *steps = NULL;
    *count = 0;
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        long long step;
        char name[64];
        if (sscanf(entry->d_name, "step-%lld", &step) != 1) { continue; }
        snprintf(name, sizeof name, "step-%08lld", step);
        if (strcmp(name, entry->d_name) != 0) { continue; }
        steps = check_realloc(steps, (size_t)*count + 1, sizeof *steps);
        steps[(*count)++] = step;
    }
    if (entries) { closedir(entries); }
    if (*count) { qsort(steps, (size_t)*count, sizeof *steps, descending); }
    return steps;
}

static void step_path(char *path, size_t size, const char *directory, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    path_join(path, size, directory, name);
}

bool checkpoint_newest(char *path, size_t size, const char *directory, int *damaged) {
    int count;
    int64_t *steps = checkpoint_steps(directory, &count);
    bool found = false;
    *damaged = 0;
    for (int i = 0; !found && i < count; i++) {
        Error error;
        step_path(path, size, directory, steps[i]);
        found = checkpoint_verify(path, &error);
        if (!found && error.code != EX_NOINPUT) {  // not one that a running job has just removed
            fprintf(stderr, "bertune: warning: %s; trying the checkpoint before it\n", error.text);
            (*damaged)++;
        }
    }
    free(steps);
    return found;
}

// Removes a checkpoint so that neither a crash nor a power cut leaves half of one under its name.
static void discard(const char *directory, int64_t step) {
    char path[PATH_MAX], trash[PATH_MAX], name[64];
    Error error;
    step_path(path, sizeof path, directory, step);
    snprintf(name, sizeof name, ".trash-step-%08lld", (long long)step);
    path_join(trash, sizeof trash, directory, name);
    directory_remove(trash);
    if (rename(path, trash) == 0 && directory_sync(directory, &error)) { directory_remove(trash); }
}

static void point_best(const char *directory, int64_t step) {
    char target[64], temporary[PATH_MAX], path[PATH_MAX];
    snprintf(target, sizeof target, "step-%08lld", (long long)step);
    path_join(temporary, sizeof temporary, directory, ".tmp-best");
    path_join(path, sizeof path, directory, "best");
    unlink(temporary);
    if (symlink(target, temporary) != 0 || rename(temporary, path) != 0) {
        fprintf(stderr, "bertune: warning: %s: cannot set the link\n", path);
    }
}

int checkpoint_remove_leftovers(const char *directory) {
    static const char *const starts[] = {".tmp-step-", ".trash-step-", ".tmp-best"};
    int removed = 0;
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
            char path[PATH_MAX];
            if (strncmp(entry->d_name, starts[i], strlen(starts[i])) != 0) { continue; }
            path_join(path, sizeof path, directory, entry->d_name);
            if (unlink(path) != 0) { directory_remove(path); }
            removed++;
        }
    }
    if (entries) { closedir(entries); }
    return removed;
}

void checkpoint_cut_back(const char *directory, int64_t step) {
    int count;
    int64_t *steps = checkpoint_steps(directory, &count);
    for (int i = 0; i < count; i++) {
        if (steps[i] > step) { discard(directory, steps[i]); }
    }
    free(steps);
    char best[PATH_MAX];
    path_join(best, sizeof best, directory, "best");
    if (access(best, F_OK) != 0) { unlink(best); }  // it pointed at one of those
}

void checkpoint_retain(const char *directory, int64_t limit, int64_t best_step) {
    int count;
    int64_t *steps = checkpoint_steps(directory, &count);
    for (int i = 0; i < count; i++) {
        if (steps[i] == best_step) { point_best(directory, best_step); }
    }
    for (int i = 0; i < count; i++) {
        if (i >= limit && steps[i] != best_step) { discard(directory, steps[i]); }
    }
    free(steps);
}
