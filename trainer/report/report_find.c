// From directories to what lies in them: report_read of report.h.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "datasets/file.h"
#include "trainer/report/report.h"
#include "trainer/report/report_runs.h"

enum { DEPTH = 3 };  // below an argument

// What was found: directories with metrics.jsonl and with sweep.json.
typedef struct {
    char **runs, **sweeps;
    size_t run_count, sweep_count;
    struct stat *seen;
    size_t seen_count;
} Search;

// False when the same directory was met before, by another name or twice.
static bool is_new(Search *search, const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) { return false; }
    for (size_t i = 0; i < search->seen_count; i++) {
        const struct stat *other = &search->seen[i];
        if (other->st_dev == status.st_dev && other->st_ino == status.st_ino) { return false; }
    }
    search->seen = room_for(search->seen, search->seen_count, sizeof *search->seen);
    search->seen[search->seen_count++] = status;
    return true;
}

static void keep(char ***list, size_t *count, const char *path) {
    *list = room_for(*list, *count, sizeof **list);
    (*list)[(*count)++] = check_strdup(path);
}

static bool is_directory(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void search_below(Search *search, const char *path, int depth, bool *found) {
    const bool sweep = is_plain_file(path, "sweep.json"), run = is_plain_file(path, "metrics.jsonl");
    if (sweep || run) {
        *found = true;
        if (!is_new(search, path)) { return; }
        if (sweep) {
            keep(&search->sweeps, &search->sweep_count, path);
        } else {
            keep(&search->runs, &search->run_count, path);
        }
        return;
    }
    if (depth == 0) { return; }
    size_t count;
    char **names = directory_names(path, &count);
    for (size_t i = 0; i < count; i++) {
        char below[REPORT_PATH];
        const int length = snprintf(below, sizeof below, "%s/%s", path, names[i]);
        if ((size_t)length < sizeof below && is_directory(below)) { search_below(search, below, depth - 1, found); }
        free(names[i]);
    }
    free(names);
}

static bool search_argument(Search *search, const char *argument, Error *error) {
    char path[REPORT_PATH];
    struct stat status;
    bool found = false;
    if ((size_t)snprintf(path, sizeof path, "%s", argument) >= sizeof path || stat(path, &status) != 0) {
        return error_set(error, EX_NOINPUT, "%s: %s", argument, strerror(errno ? errno : ENAMETOOLONG));
    }
    if (!S_ISDIR(status.st_mode)) { return error_set(error, EX_NOINPUT, "%s: not a directory", path); }
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--) { path[length - 1] = 0; }
    search_below(search, path, DEPTH, &found);
    return found || error_set(error, EX_NOINPUT, "%s: no run (metrics.jsonl) and no sweep (sweep.json) in it", path);
}

static void search_free(Search *search) {
    for (size_t i = 0; i < search->run_count; i++) { free(search->runs[i]); }
    for (size_t i = 0; i < search->sweep_count; i++) { free(search->sweeps[i]); }
    free(search->runs);
    free(search->sweeps);
    free(search->seen);
}

static bool read_found(Report *report, const Search *search, Error *error) {
    bool ok = true;
    report->groups = check_calloc(search->sweep_count + 1, sizeof *report->groups);
    if (search->run_count) { ok = runs_read(&report->groups[report->count++], search->runs, search->run_count, error); }
    for (size_t i = 0; ok && i < search->sweep_count; i++) {
        ok = sweep_read(&report->groups[report->count++], search->sweeps[i], error);
    }
    return ok;
}

bool report_read(Report *report, char *const *directories, int count, Error *error) {
    *report = (Report){0};
    Search search = {0};
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        errno = 0;
        ok = search_argument(&search, directories[i], error);
    }
    ok = ok && read_found(report, &search, error);
    search_free(&search);
    if (!ok) { report_free(report); }
    return ok;
}
