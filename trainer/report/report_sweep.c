// A sweep directory: sweep.json and the runs of the trials. See report.h.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/number.h"
#include "trainer/report/report.h"
#include "trainer/report/report_json.h"

enum { TRIALS = 100000, PARAMETERS = 256 };

// A value of a parameter as text; NULL where it is none.
static char *value_text(const json_t *value) {
    char integer[32];
    if (!value || json_is_null(value)) { return check_strdup(""); }
    if (json_is_string(value)) { return check_strdup(json_string_value(value)); }
    if (json_is_boolean(value)) { return check_strdup(json_is_true(value) ? "true" : "false"); }
    if (json_is_real(value)) { return check_strdup(number_format(json_real_value(value)).text); }
    snprintf(integer, sizeof integer, "%lld", (long long)json_integer_value(value));
    return json_is_integer(value) ? check_strdup(integer) : NULL;
}

static bool take_names(Group *group, Fields *fields) {
    const json_t *names = fields_array(fields, "parameters");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (!name || i == PARAMETERS) { return fields_reject(fields, "parameters", "a list of at most 256 names"); }
        group->parameters = room_for(group->parameters, i, sizeof *group->parameters);
        group->parameters[group->parameter_count++] = check_strdup(name);
    }
    return fields->ok;
}

static bool take_trial(Group *group, Fields *fields, size_t index) {
    char name[32], directory[REPORT_PATH];
    if (fields_integer(fields, "trial", 0, -1) != (int64_t)index) {
        return fields_reject(fields, "trial", "the trials in order, from 0");
    }
    const json_t *values = fields_object(fields, "parameters");
    snprintf(name, sizeof name, "trials/%04zu", index);
    path_join(directory, sizeof directory, group->directory, name);
    Entry *entry = group_add(group, name + strlen("trials/"), directory);
    entry->trial = (int64_t)index;
    for (size_t i = 0; i < group->parameter_count; i++) {
        entry->values[i] = value_text(json_object_get(values, group->parameters[i]));
        if (!entry->values[i]) { return fields_reject(fields, group->parameters[i], "a text, number or truth value"); }
    }
    return fields->ok;
}

static bool take_trials(Group *group, Fields *fields, Error *error) {
    const json_t *trials = fields_array(fields, "trials");
    if (!trials || json_array_size(trials) > TRIALS) { return fields_reject(fields, "trials", "a list of trials"); }
    for (size_t i = 0; fields->ok && i < json_array_size(trials); i++) {
        char place[REPORT_PATH + 64];
        snprintf(place, sizeof place, "%s: trial %zu", fields->place, i);
        Fields trial = fields_of(json_array_get(trials, i), place, error);
        if (!json_is_object(trial.json)) { return fields_reject(fields, "trials", "a list of objects"); }
        if (!take_trial(group, &trial, i)) { return false; }
    }
    return fields->ok;
}

static bool take_plan(Group *group, const json_t *json, const char *path, Error *error) {
    Fields fields = fields_of(json, path, error);
    const char *slash = strrchr(group->directory, '/');
    const char *name = fields_text(&fields, "name"), *split = fields_text(&fields, "split");
    Fields metric = fields_of(fields_object(&fields, "metric"), path, error);
    const char *metric_name = fields_text(&metric, "name"), *goal = fields_text(&metric, "goal");
    group->title = check_strdup(name && name[0] ? name : slash && slash[1] ? slash + 1 : group->directory);
    group->split = check_strdup(split ? split : "");
    group->metric = check_strdup(metric_name ? metric_name : "");
    group->maximize = goal && strcmp(goal, "maximize") == 0;
    if (!fields.ok || !metric.ok) { return false; }
    if (!metric_name || !metric_name[0]) { return fields_reject(&fields, "metric", "an object with name and goal"); }
    if (!goal || (!group->maximize && strcmp(goal, "minimize") != 0)) {
        return fields_reject(&metric, "goal", "maximize or minimize");
    }
    return take_names(group, &fields) && take_trials(group, &fields, error);
}

static bool read_plan(Group *group, Error *error) {
    char path[REPORT_PATH];
    path_join(path, sizeof path, group->directory, "sweep.json");
    json_t *json = object_read(path, (size_t)256 << 20, error);
    const bool ok = json && take_plan(group, json, path, error);
    json_decref(json);
    return ok;
}

// What results do not tell, or not yet.
static void complete(Entry *entry) {
    const Entry told = *entry;
    entry_take_history(entry);
    if (told.state != STATE_WAITING) {
        entry->metric = told.metric;
        entry->validation_loss = told.validation_loss;
        entry->accuracy = told.accuracy;
        entry->f1 = told.f1;
        entry->epochs = told.epochs;
        entry->steps = told.steps ? told.steps : entry->steps;
    }
    if (!isnan(told.seconds)) { entry->seconds = told.seconds; }
}

static bool read_history(Group *group, Entry *entry, Error *error) {
    char path[REPORT_PATH];
    if (!is_plain_file(entry->directory, "metrics.jsonl")) { return true; }
    path_join(path, sizeof path, entry->directory, "metrics.jsonl");
    if (!history_read(&entry->history, path, group->metric, error)) { return false; }
    complete(entry);
    return true;
}

static bool read_histories(Group *group, Error *error) {
    bool ok = true;
    for (size_t i = 0; ok && i < group->entry_count; i++) { ok = read_history(group, &group->entries[i], error); }
    return ok && (!group->winner || read_history(group, group->winner, error));
}

// A claim without a result is work that goes on or was broken off. Once all is done, what was paused never goes on.
static void settle_states(Group *group) {
    for (size_t i = 0; i < group->segment_count && !group->done; i++) {
        const Segment *segment = &group->segments[i];
        Entry *entry = segment->trial == WINNER ? group->winner : &group->entries[segment->trial];
        if (!isnan(segment->end) || !entry) { continue; }
        const bool waits = entry->state == STATE_WAITING || entry->state == STATE_INTERRUPTED;
        if (segment->alive && (waits || entry->state == STATE_PAUSED)) { entry->state = STATE_RUNNING; }
        if (!segment->alive && entry->state == STATE_WAITING) { entry->state = STATE_INTERRUPTED; }
    }
    for (size_t i = 0; i < group->entry_count && group->done; i++) {
        if (group->entries[i].state == STATE_PAUSED) { group->entries[i].state = STATE_STOPPED; }
    }
}

// Parameters in which no trials differ say nothing here; sweep.json has them.
static void drop_constant(Group *group) {
    size_t kept = 0;
    for (size_t p = 0; p < group->parameter_count; p++) {
        bool varies = false;
        for (size_t i = 1; i < group->entry_count && !varies; i++) {
            varies = strcmp(group->entries[i].values[p], group->entries[0].values[p]) != 0;
        }
        if (!varies) { free(group->parameters[p]); }
        if (varies) { group->parameters[kept] = group->parameters[p]; }
        for (size_t i = 0; i < group->entry_count; i++) {
            char **values = group->entries[i].values;
            if (!varies) { free(values[p]); }
            if (varies) { values[kept] = values[p]; }
        }
        kept += varies;
    }
    group->parameter_count = kept;
}

bool sweep_read(Group *group, const char *directory, Error *error) {
    *group = (Group){.sweep = true, .directory = check_strdup(directory)};
    int64_t chosen;
    if (!read_plan(group, error)) { return false; }
    drop_constant(group);
    if (!sweep_read_results(group, &chosen, error)) { return false; }
    if (!read_histories(group, error)) { return false; }
    group->done = is_plain_file(directory, "table.csv") || (group->winner && group->winner->state == STATE_FINISHED);
    settle_states(group);
    if (group->winner && chosen >= 0) {
        for (size_t i = 0; i < group->parameter_count; i++) {
            free(group->winner->values[i]);
            group->winner->values[i] = check_strdup(group->entries[chosen].values[i]);
        }
    }
    group_rank(group, chosen);
    return true;
}
