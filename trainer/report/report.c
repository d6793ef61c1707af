// Entries and groups: what all ways of showing a report share. See report.h.
#include "trainer/report/report.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "datasets/file.h"

void *room_for(void *items, size_t count, size_t size) {
    if (count & (count - 1)) { return items; }
    return check_realloc(items, count ? 2 * count : 1, size);
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

char **directory_names(const char *path, size_t *count) {
    struct dirent **entries;
    const int found = scandir(path, &entries, visible, by_bytes);
    *count = found > 0 ? (size_t)found : 0;
    char **names = check_calloc(*count, sizeof *names);
    for (size_t i = 0; i < *count; i++) {
        names[i] = check_strdup(entries[i]->d_name);
        free(entries[i]);
    }
    if (found >= 0) { free(entries); }
    return names;
}

bool is_plain_file(const char *directory, const char *name) {
    char path[REPORT_PATH];
    struct stat status;
    path_join(path, sizeof path, directory, name);
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

static const char *behind_section(const char *parameter) {
    const char *dot = strchr(parameter, '.');
    return dot && dot[1] ? dot + 1 : parameter;
}

const char *group_parameter_name(const Group *group, size_t parameter) {
    const char *name = behind_section(group->parameters[parameter]);
    for (size_t i = 0; i < group->parameter_count; i++) {
        if (i != parameter && strcmp(behind_section(group->parameters[i]), name) == 0) {
            return group->parameters[parameter];
        }
    }
    return name;
}

Entry *group_add(Group *group, const char *name, const char *directory) {
    group->entries = room_for(group->entries, group->entry_count, sizeof *group->entries);
    Entry *entry = &group->entries[group->entry_count++];
    *entry = (Entry){
        .name = check_strdup(name),
        .directory = check_strdup(directory),
        .values = check_calloc(group->parameter_count, sizeof *entry->values),
        .state = STATE_WAITING,
        .metric = NAN,
        .validation_loss = NAN,
        .accuracy = NAN,
        .f1 = NAN,
        .seconds = NAN,
        .samples_per_second = NAN,
        .error = check_strdup(""),
    };
    return entry;
}

void entry_take_history(Entry *entry) {
    const History *history = &entry->history;
    if (history->step_count) { entry->steps = history->steps[history->step_count - 1].step; }
    if (history->step_seconds > 0) {
        entry->samples_per_second = (double)history->samples / history->step_seconds;
        entry->seconds = history->step_seconds;
    }
    if (history->ended && history->starts == 1) { entry->seconds = history->end_seconds; }
    if (!history->epoch_count) { return; }
    const EpochLine *last = &history->epochs[history->epoch_count - 1];
    entry->epochs = last->epoch;
    entry->metric = last->metric;
    entry->validation_loss = last->validation_loss;
    entry->accuracy = last->accuracy;
    entry->f1 = last->f1;
}

static bool is_lost(const Entry *entry) { return entry->state == STATE_DIVERGED || entry->state == STATE_FAILED; }

// For qsort_r: those that were lost last, before them those without a metric; better metrics first, of equal ones the
// lower loss; then in the order of names, which is that of trials.
static int compare(const void *a, const void *b, void *maximize) {
    const Entry *left = a, *right = b;
    const int none = isnan(left->metric) - isnan(right->metric), lost = is_lost(left) - is_lost(right);
    if (lost || none) { return lost ? lost : none; }
    if (left->metric != right->metric && !isnan(left->metric)) {
        return (left->metric > right->metric) == *(const bool *)maximize ? -1 : 1;
    }
    const double loss = isnan(left->validation_loss) ? INFINITY : left->validation_loss;
    const double other = isnan(right->validation_loss) ? INFINITY : right->validation_loss;
    if (loss != other) { return loss < other ? -1 : 1; }
    if (left->trial != right->trial) { return left->trial < right->trial ? -1 : 1; }
    return strcmp(left->name, right->name);
}

void group_rank(Group *group, int64_t winner) {
    const size_t count = group->entry_count;
    if (count) { qsort_r(group->entries, count, sizeof *group->entries, compare, &group->maximize); }
    size_t finished = count, chosen = count;
    for (size_t i = count; i-- > 0;) {
        if (group->entries[i].state == STATE_FINISHED && !isnan(group->entries[i].metric)) { finished = i; }
        if (group->sweep && group->entries[i].trial == winner) { chosen = i; }
    }
    const size_t first = count && !isnan(group->entries[0].metric) ? 0 : count;
    group->best = chosen < count ? chosen : finished < count ? finished : first;
}

static void entry_free(Entry *entry, size_t parameters) {
    for (size_t i = 0; i < parameters; i++) { free(entry->values[i]); }
    free(entry->values);
    free(entry->name);
    free(entry->directory);
    free(entry->error);
    history_free(&entry->history);
}

void group_free(Group *group) {
    for (size_t i = 0; i < group->entry_count; i++) { entry_free(&group->entries[i], group->parameter_count); }
    if (group->winner) { entry_free(group->winner, group->parameter_count); }
    for (size_t i = 0; i < group->segment_count; i++) { free(group->segments[i].worker); }
    for (size_t i = 0; i < group->parameter_count; i++) { free(group->parameters[i]); }
    free(group->winner);
    free(group->entries);
    free(group->segments);
    free(group->parameters);
    free(group->title);
    free(group->directory);
    free(group->split);
    free(group->metric);
    *group = (Group){0};
}

void report_free(Report *report) {
    for (size_t i = 0; i < report->count; i++) { group_free(&report->groups[i]); }
    free(report->groups);
    *report = (Report){0};
}
