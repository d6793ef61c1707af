// The claims and results of a sweep's workers: sweep_read_results of report.h.
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "datasets/file.h"
#include "trainer/report/report.h"
#include "trainer/report/report_json.h"

enum { STALE = 60 };  // seconds after which a claim without a sign of life is that of a lost worker

static const struct {
    const char *name;
    State state;
} states[] = {{"paused", STATE_PAUSED},
              {"finished", STATE_FINISHED},
              {"diverged", STATE_DIVERGED},
              {"failed", STATE_FAILED},
              {"stopped", STATE_STOPPED}};

static Segment *add_segment(Group *group, int64_t trial, int64_t epoch, const char *worker, double begin) {
    group->segments = room_for(group->segments, group->segment_count, sizeof *group->segments);
    Segment *segment = &group->segments[group->segment_count++];
    *segment = (Segment){.trial = trial,
                         .epoch = epoch,
                         .worker = check_strdup(worker ? worker : "?"),
                         .begin = begin,
                         .end = NAN,
                         .seen = NAN,
                         .state = STATE_RUNNING,
                         .metric = NAN};
    return segment;
}

// The entry of a trial, or of the winner.
static Entry *entry_of(Group *group, int64_t trial) { return trial == WINNER ? group->winner : &group->entries[trial]; }

static void add_winner(Group *group) {
    char directory[REPORT_PATH];
    if (group->winner) { return; }
    path_join(directory, sizeof directory, group->directory, "winner");
    Entry *added = group_add(group, "winner", directory);
    added->trial = WINNER;
    for (size_t i = 0; i < group->parameter_count; i++) { added->values[i] = check_strdup(""); }
    group->winner = check_calloc(1, sizeof *group->winner);
    *group->winner = *added;
    group->entry_count--;
}

// What the newest result of a trial says of it.
static void take_numbers(Entry *entry, Fields *fields, State state) {
    const int64_t epochs = fields_integer(fields, "epochs", 0, 0);
    const double seconds = fields_real(fields, "seconds"), metric = fields_real(fields, "metric");
    const double loss = fields_real(fields, "validation_loss"), accuracy = fields_real(fields, "accuracy");
    const double f1 = fields_real(fields, "f1");
    const char *cause = fields_text(fields, "error");
    const int64_t steps = fields_integer(fields, "steps", 0, 0);
    if (seconds > 0) { entry->seconds = (isnan(entry->seconds) ? 0 : entry->seconds) + seconds; }
    entry->state = state;
    entry->epochs = epochs;
    entry->steps = steps > entry->steps ? steps : entry->steps;
    entry->metric = state == STATE_DIVERGED || state == STATE_FAILED ? NAN : metric;
    entry->validation_loss = loss;
    entry->accuracy = accuracy;
    entry->f1 = f1;
    free(entry->error);
    entry->error = check_strdup(cause ? cause : "");
}

static double take_time(Fields *fields, const char *key) {
    const double time = fields_real(fields, key);
    if (time < 0 || time > 1e12) { fields_reject(fields, key, "seconds since 1970"); }
    return time;
}

static bool take_result(Group *group, Fields *fields, bool winner, int64_t *chosen) {
    int64_t trial = fields_integer(fields, "trial", WINNER, WINNER);
    if (!fields->ok) { return false; }
    if (trial >= (int64_t)group->entry_count || (trial < 0 && !winner)) {
        return fields_reject(fields, "trial", "a trial of sweep.json");
    }
    if (winner) {
        *chosen = trial;
        trial = WINNER;
        add_winner(group);
    }
    const char *status = fields_text(fields, "status");
    size_t s = 0;
    while (s < sizeof states / sizeof states[0] && (!status || strcmp(states[s].name, status) != 0)) { s++; }
    if (s == sizeof states / sizeof states[0]) {
        return fields_reject(fields, "status", "paused, finished, diverged or failed");
    }
    take_numbers(entry_of(group, trial), fields, states[s].state);
    const double begin = take_time(fields, "begin"), end = take_time(fields, "end");
    Segment *segment =
        add_segment(group, trial, fields_integer(fields, "epoch", 0, 0), fields_text(fields, "worker"), begin);
    segment->end = end > begin ? end : begin;
    segment->state = states[s].state;
    segment->metric = entry_of(group, trial)->metric;
    return fields->ok;
}

// NNNN-EEEE with an ending: the trial and the epoch of a claim or result.
static bool parse_name(const char *name, int64_t *trial, int64_t *epoch, const char **ending) {
    char *end;
    if (strncmp(name, "winner.", 7) == 0) {
        *trial = WINNER;
        *epoch = 0;
        *ending = name + 6;
        return true;
    }
    *trial = isdigit((unsigned char)name[0]) ? strtoll(name, &end, 10) : -1;
    if (*trial < 0 || end[0] != '-' || !isdigit((unsigned char)end[1])) { return false; }
    *epoch = strtoll(end + 1, &end, 10);
    *ending = end;
    return end[0] == '.';
}

// Sorted names are the results of a trial in the order of its epochs, where all have four digits; entries take what
// comes last.
static bool read_results(Group *group, int64_t *chosen, Error *error) {
    char directory[REPORT_PATH], path[REPORT_PATH];
    size_t count;
    bool ok = true;
    path_join(directory, sizeof directory, group->directory, "results");
    char **names = directory_names(directory, &count);
    for (size_t i = 0; i < count; i++) {
        int64_t trial, epoch;
        const char *ending;
        if (ok && parse_name(names[i], &trial, &epoch, &ending) && strcmp(ending, ".json") == 0) {
            path_join(path, sizeof path, directory, names[i]);
            json_t *json = object_read(path, 1 << 20, error);
            Fields fields = fields_of(json, path, error);
            ok = json && take_result(group, &fields, trial == WINNER, chosen);
            json_decref(json);
        }
        free(names[i]);
    }
    free(names);
    return ok;
}

// Whether a claim led to a result: that of the same piece of work, when the claim is the last one of it, or was made by
// the same worker at the same time but for what lies between a claim and the first step.
static bool has_result(const Group *group, size_t results, const Segment *claim, bool last) {
    for (size_t i = 0; i < results; i++) {
        const Segment *segment = &group->segments[i];
        const bool same = segment->trial == claim->trial && (claim->trial == WINNER || segment->epoch == claim->epoch);
        const bool by_it = strcmp(segment->worker, claim->worker) == 0 && fabs(segment->begin - claim->begin) < 5;
        if (same && (last || by_it)) { return true; }
    }
    return false;
}

static bool take_claim(Group *group, size_t results, const char *path, const Segment *piece, bool last, Error *error) {
    struct stat status;
    if (stat(path, &status) != 0 || status.st_size == 0) { return true; }  // given up just now, or being written
    json_t *json = object_read(path, 1 << 20, error);
    if (!json) { return false; }
    Fields fields = fields_of(json, path, error);
    Segment claim = *piece;
    const char *worker = fields_text(&fields, "worker");
    char name[1024];
    snprintf(name, sizeof name, "%s", worker ? worker : "?");
    claim.worker = name;
    claim.begin = take_time(&fields, "begin");
    claim.seen = take_time(&fields, "end");
    if (fields.ok && !isnan(claim.begin) && !has_result(group, results, &claim, last)) {
        Segment *segment = add_segment(group, claim.trial, claim.epoch, worker, claim.begin);
        segment->alive = isnan(claim.seen) && time(NULL) - status.st_mtime < STALE;
        segment->seen = fmax(claim.begin, isnan(claim.seen) ? (double)status.st_mtime : claim.seen);
    }
    json_decref(json);
    return fields.ok;
}

// Whether there is no claim behind this one: NNNN-EEEE.2 behind NNNN-EEEE.1.
static bool is_last_claim(const char *directory, const char *name, const char *ending) {
    char next[512];
    snprintf(next, sizeof next, "%.*s.%lld", (int)(ending - name), name, strtoll(ending + 1, NULL, 10) % 1000000 + 1);
    return !is_plain_file(directory, next);
}

static bool read_claims(Group *group, Error *error) {
    char directory[REPORT_PATH], path[REPORT_PATH];
    const size_t results = group->segment_count;
    size_t count;
    bool ok = true;
    path_join(directory, sizeof directory, group->directory, "claims");
    char **names = directory_names(directory, &count);
    for (size_t i = 0; i < count; i++) {
        int64_t trial, epoch;
        const char *ending;
        if (ok && parse_name(names[i], &trial, &epoch, &ending) && trial < (int64_t)group->entry_count &&
            !ending[1 + strspn(ending + 1, "0123456789")]) {
            const Segment piece = {.trial = trial, .epoch = epoch};
            path_join(path, sizeof path, directory, names[i]);
            ok = take_claim(group, results, path, &piece, is_last_claim(directory, names[i], ending), error);
        }
        free(names[i]);
    }
    free(names);
    return ok;
}

bool sweep_read_results(Group *group, int64_t *chosen, Error *error) {
    *chosen = WINNER;
    return read_results(group, chosen, error) && read_claims(group, error);
}
