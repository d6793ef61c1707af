// See sweep_board.h. Results are here, claims in sweep_claim.c.
#include "trainer/sweep/sweep_board.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/progress.h"

static const char *const status_names[] = {"paused", "finished", "diverged", "failed"};

const char *trial_status_name(TrialStatus status) { return status_names[status]; }

double board_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool same_sweep(const char *path, const char *json, Error *error) {
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, (size_t)1 << 30, error)) { return false; }
    const bool same = strcmp(text, json) == 0;
    free(text);
    return same || error_set(error, EX_CONFIG,
                             "%s: the directory holds another sweep (or one with other values); use another dir", path);
}

static bool create(const Sweep *sweep, Error *error) {
    static const char *const parts[] = {"claims", "results", "trials"};
    char path[RUN_PATH];
    for (int i = 0; i < 3; i++) {
        path_join(path, sizeof path, sweep->dir, parts[i]);
        if (!directory_create(path, error)) { return false; }
    }
    char *json = sweep_to_json(sweep);
    path_join(path, sizeof path, sweep->dir, "sweep.json");
    const bool ok =
        access(path, F_OK) == 0 ? same_sweep(path, json, error) : file_write(path, json, strlen(json), error);
    free(json);
    return ok;
}

// The longest first, so that all workers end at about the same time. But rungs wait for trials of lower numbers.
static int *find_order(const Sweep *sweep) {
    int *order = check_calloc((size_t)sweep->trials, sizeof *order);
    int64_t *epochs = check_calloc((size_t)sweep->trials, sizeof *epochs);
    for (int t = 0; t < sweep->trials; t++) {
        int at = t;
        while (sweep->rungs == 0 && at > 0 && epochs[at - 1] < sweep->epochs[t]) {
            order[at] = order[at - 1];
            epochs[at] = epochs[at - 1];
            at--;
        }
        order[at] = t;
        epochs[at] = sweep->epochs[t];
    }
    free(epochs);
    return order;
}

bool board_open(Board *board, const Sweep *sweep, const char *worker, int ranks, Error *error) {
    memset(board, 0, sizeof *board);
    board->sweep = sweep;
    board->ranks = ranks;
    snprintf(board->worker, sizeof board->worker, "%s", worker);
    board->segments = check_calloc((size_t)sweep->trials, sizeof *board->segments);
    for (int t = 0; t < sweep->trials; t++) {
        board->segments[t] = sweep_segments(sweep, t);
        board->most = board->segments[t] > board->most ? board->segments[t] : board->most;
    }
    board->order = find_order(sweep);
    const size_t count = (size_t)sweep->trials * (size_t)board->most;
    board->results = check_calloc(count, sizeof *board->results);
    board->states = check_calloc(count, sizeof *board->states);
    return create(sweep, error);
}

void board_close(Board *board) {
    free(board->segments);
    free(board->order);
    free(board->results);
    free(board->states);
    free(board->sightings);
    memset(board, 0, sizeof *board);
}

static void result_path(const Board *board, int trial, int segment, char path[RUN_PATH]) {
    char name[64];
    snprintf(name, sizeof name, "results/%04d-%04lld.json", trial,
             trial == BOARD_WINNER ? 0LL : (long long)sweep_segment_epoch(board->sweep, trial, segment));
    path_join(path, RUN_PATH, board->sweep->dir, trial == BOARD_WINNER ? "results/winner.json" : name);
}

double board_number(const json_t *json, const char *key) {
    const json_t *value = json_object_get(json, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static bool parse_result(TrialResult *result, const char *path, Error *error) {
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, 1 << 20, error)) { return false; }
    json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    const char *status = json_string_value(json_object_get(json, "status"));
    const char *failure = json_string_value(json_object_get(json, "error"));
    int found = -1;
    for (int i = 0; status && i < 4; i++) {
        if (strcmp(status_names[i], status) == 0) { found = i; }
    }
    const bool ok = found >= 0 && json_is_integer(json_object_get(json, "epochs")) &&
                    json_is_integer(json_object_get(json, "steps"));
    if (ok) {
        *result = (TrialResult){.known = true,
                                .status = (TrialStatus)found,
                                .epochs = json_integer_value(json_object_get(json, "epochs")),
                                .steps = json_integer_value(json_object_get(json, "steps")),
                                .metric = board_number(json, "metric"),
                                .validation_loss = board_number(json, "validation_loss"),
                                .accuracy = board_number(json, "accuracy"),
                                .f1 = board_number(json, "f1"),
                                .begin = board_number(json, "begin"),
                                .end = board_number(json, "end")};
        snprintf(result->error, sizeof result->error, "%s", failure ? failure : "");
    }
    json_decref(json);
    free(text);
    return ok ||
           error_set(error, EX_DATAERR, "%s: not a result of a trial; remove it to have the trial trained again", path);
}

bool board_look(Board *board, int trial, int segment, Error *error) {
    char path[RUN_PATH];
    TrialResult *result = board_result(board, trial, segment);
    result_path(board, trial, segment, path);
    return result->known || access(path, F_OK) != 0 || parse_result(result, path, error);
}

SegmentResult board_merit(const Board *board, const TrialResult *result) {
    const bool failed = result->status == TRIAL_DIVERGED || result->status == TRIAL_FAILED;
    SegmentResult merit = {.done = result->known, .failed = result->known && failed, .metric = NAN, .loss = NAN};
    if (!result->known || failed) { return merit; }
    merit.metric = board->sweep->maximize ? result->metric : -result->metric;
    merit.loss = result->validation_loss;
    return merit;
}

static void decide(Board *board) {
    const Sweep *sweep = board->sweep;
    const size_t count = (size_t)sweep->trials * (size_t)board->most;
    SegmentResult *known = check_calloc(count, sizeof *known);
    for (size_t i = 0; i < count; i++) { known[i] = board_merit(board, &board->results[i]); }
    halving_decide(board->states, known, board->segments, sweep->trials, board->most, sweep->rungs ? sweep->eta : 1.0);
    free(known);
}

// Whether a result may have come since the last look. Two changes within the grain of the file system's clock look like
// one, so that the directory is looked through until the last one is a while ago.
static bool is_changed(Board *board) {
    const double grain = 2.0;
    char path[RUN_PATH];
    struct stat status;
    path_join(path, sizeof path, board->sweep->dir, "results");
    if (stat(path, &status) != 0) { return true; }
    const struct timespec *now = &status.st_mtim, *then = &board->changed;
    if (now->tv_sec != then->tv_sec || now->tv_nsec != then->tv_nsec) {
        board->changed = *now;
        board->changed_since = seconds_now();
        board->settled = false;
    }
    const bool look = !board->settled;
    board->settled = seconds_now() - board->changed_since > grain;
    return look;
}

bool board_read(Board *board, Error *error) {
    if (!is_changed(board)) { return true; }
    for (int t = 0; t < board->sweep->trials; t++) {
        for (int s = 0; s < board->segments[t]; s++) {
            if (!board_look(board, t, s, error)) { return false; }
            if (!board_result(board, t, s)->known) { break; }
        }
    }
    decide(board);
    return board_look(board, BOARD_WINNER, 0, error);
}

bool board_settled(const Board *board) {
    for (int t = 0; t < board->sweep->trials; t++) {
        for (int s = 0; s < board->segments[t]; s++) {
            const SegmentState state = board->states[(size_t)t * (size_t)board->most + (size_t)s];
            if (state == SEGMENT_READY || state == SEGMENT_WAITS) { return false; }
        }
    }
    return true;
}

int board_best(const Board *board) {
    int best = -1;
    SegmentResult best_merit = {0};
    for (int t = 0; t < board->sweep->trials; t++) {
        const TrialResult *end = board_result(board, t, board->segments[t] - 1);
        if (!end->known || end->status != TRIAL_FINISHED || isnan(end->metric)) { continue; }
        const SegmentResult merit = board_merit(board, end);
        if (best < 0 || halving_compare(&merit, &best_merit) < 0) {
            best = t;
            best_merit = merit;
        }
    }
    return best;
}

void board_tidy(const Sweep *sweep) {
    static const char *const parts[] = {"claims", "results"};
    for (int i = 0; i < 2; i++) {
        char directory[RUN_PATH], path[RUN_PATH];
        path_join(directory, sizeof directory, sweep->dir, parts[i]);
        DIR *entries = opendir(directory);
        for (struct dirent *entry; entries && (entry = readdir(entries));) {
            if (!strstr(entry->d_name, ".tmp-")) { continue; }
            path_join(path, sizeof path, directory, entry->d_name);
            unlink(path);
        }
        if (entries) { closedir(entries); }
    }
}

static void put_real(json_t *json, const char *key, double value) {
    json_object_set_new(json, key, isfinite(value) ? json_real(value) : json_null());
}

bool board_publish(Board *board, Claim *claim, const TrialResult *result, Error *error) {
    char path[RUN_PATH];
    const bool winner = claim->trial == BOARD_WINNER;
    json_t *json = json_object();
    json_object_set_new(json, "trial", json_integer(winner ? board_best(board) : claim->trial));
    json_object_set_new(
        json, "epoch",
        json_integer(winner ? result->epochs : sweep_segment_epoch(board->sweep, claim->trial, claim->segment)));
    json_object_set_new(json, "rung", json_integer(claim->segment));
    json_object_set_new(json, "status", json_string(status_names[result->status]));
    json_object_set_new(json, "epochs", json_integer(result->epochs));
    json_object_set_new(json, "steps", json_integer(result->steps));
    put_real(json, "metric", result->metric);
    put_real(json, "validation_loss", result->validation_loss);
    put_real(json, "accuracy", result->accuracy);
    put_real(json, "f1", result->f1);
    put_real(json, "begin", result->begin);
    put_real(json, "end", result->end);
    put_real(json, "seconds", result->end - result->begin);
    json_object_set_new(json, "worker", json_string(board->worker));
    json_object_set_new(json, "ranks", json_integer(board->ranks));
    json_object_set_new(json, "error", json_string(result->error));
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    CHECK(text);
    json_decref(json);
    result_path(board, claim->trial, claim->segment, path);
    const bool ok = file_write(path, text, strlen(text), error);
    free(text);
    board_release(claim);
    return ok;
}
