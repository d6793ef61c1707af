// See report_runs.h.
#include "trainer/report/report_runs.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/commands.h"
#include "trainer/config_options.h"

bool run_is_locked(const char *directory) {
    char path[REPORT_PATH];
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    path_join(path, sizeof path, directory, ".lock");
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const bool locked = file >= 0 && fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (file >= 0) { close(file); }
    return locked;
}

static State state_of(const Entry *entry) {
    const History *history = &entry->history;
    if (history->ended) { return STATE_FINISHED; }
    if (run_is_locked(entry->directory)) { return STATE_RUNNING; }
    const bool lost = history->step_count && isnan(history->steps[history->step_count - 1].loss);
    return lost ? STATE_DIVERGED : STATE_INTERRUPTED;
}

// What changes nothing of the result does not tell runs apart.
static bool tells_apart(const Option *option) { return strncmp(option->key, "run.", 4) != 0; }

// The keys in which two of the configurations differ. A run without a readable config.yaml has none of them.
static void take_parameters(Group *group, const Config *configs, const bool *known) {
    for (int o = 0; o < config_option_count; o++) {
        const Option *option = &config_options[o];
        char first[CONFIG_TEXT_SIZE] = "", text[CONFIG_TEXT_SIZE];
        bool differ = false, any = false;
        for (size_t i = 0; i < group->entry_count; i++) {
            if (!known[i]) { continue; }
            option_format(&configs[i], option, any ? text : first, sizeof text);
            differ = differ || (any && strcmp(first, text) != 0);
            any = true;
        }
        if (!differ || !tells_apart(option)) { continue; }
        const size_t column = group->parameter_count;
        group->parameters = room_for(group->parameters, column, sizeof *group->parameters);
        group->parameters[group->parameter_count++] = check_strdup(option->key);
        for (size_t i = 0; i < group->entry_count; i++) {
            Entry *entry = &group->entries[i];
            text[0] = 0;
            if (known[i]) { option_format(&configs[i], option, text, sizeof text); }
            entry->values = check_realloc(entry->values, column + 1, sizeof *entry->values);
            entry->values[column] = check_strdup(text);
        }
    }
}

static void read_configs(Group *group) {
    Config *configs = check_calloc(group->entry_count, sizeof *configs);
    bool *known = check_calloc(group->entry_count, sizeof *known);
    for (size_t i = 0; i < group->entry_count; i++) {
        char path[REPORT_PATH];
        Error error;
        path_join(path, sizeof path, group->entries[i].directory, "config.yaml");
        if (!is_plain_file(group->entries[i].directory, "config.yaml")) { continue; }
        known[i] = config_read(&configs[i], path, &error);
        if (!known[i]) {
            fprintf(stderr, "bertune: warning: the report lacks the parameters of a run: %s\n", error.text);
        }
    }
    take_parameters(group, configs, known);
    free(configs);
    free(known);
}

bool runs_read(Group *group, char *const *directories, size_t count, Error *error) {
    *group = (Group){.title = check_strdup(count == 1 ? directories[0] : ""),
                     .directory = check_strdup(""),
                     .split = check_strdup(""),
                     .metric = check_strdup("validation_accuracy"),
                     .maximize = true,
                     .done = true};
    for (size_t i = 0; i < count; i++) {
        char path[REPORT_PATH];
        Entry *entry = group_add(group, directories[i], directories[i]);
        path_join(path, sizeof path, directories[i], "metrics.jsonl");
        if (!history_read(&entry->history, path, group->metric, error)) { return false; }
        entry->trial = (int64_t)i;
        entry_take_history(entry);
        entry->state = state_of(entry);
    }
    read_configs(group);
    group_rank(group, WINNER);
    return true;
}
