// See report_history.h.
#include "trainer/report/report_history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "datasets/dataset.h"
#include "datasets/file.h"
#include "trainer/report/report.h"
#include "trainer/report/report_json.h"

static void take_step(History *history, Fields *fields) {
    const double seconds = fields_real(fields, "seconds");
    history->steps = room_for(history->steps, history->step_count, sizeof *history->steps);
    history->step_seconds += seconds > 0 ? seconds : 0;
    history->samples += fields_integer(fields, "samples", 0, 0);
    history->steps[history->step_count++] = (StepLine){
        .step = fields_integer(fields, "step", 0, 0),
        .loss = fields_real(fields, "loss"),
        .learning_rate = fields_real(fields, "learning_rate"),
        .gradient_norm = fields_real(fields, "grad_norm"),
        .elapsed = history->step_seconds,
    };
}

// A square of counts, that of the epoch read last.
static void take_confusion(History *history, Fields *fields) {
    const json_t *lines = fields_array(fields, "confusion");
    const size_t classes = json_array_size(lines);
    if (!lines) { return; }
    free(history->confusion);
    history->confusion = NULL;
    history->classes = 0;
    if (classes < 1 || classes > DATASET_MAX_CLASSES) {
        fields_reject(fields, "confusion", "a square of counts");
        return;
    }
    history->confusion = check_calloc(classes * classes, sizeof *history->confusion);
    history->classes = classes;
    for (size_t i = 0; i < classes * classes; i++) {
        const json_t *line = json_array_get(lines, i / classes), *count = json_array_get(line, i % classes);
        history->confusion[i] = json_integer_value(count);
        if (!json_is_integer(count) || json_array_size(line) != classes || history->confusion[i] < 0 ||
            history->confusion[i] > (int64_t)1 << 40) {
            fields_reject(fields, "confusion", "a square of counts");
            return;
        }
    }
}

static void take_epoch(History *history, Fields *fields, const char *metric) {
    const StepLine *last = history->step_count ? &history->steps[history->step_count - 1] : NULL;
    history->epochs = room_for(history->epochs, history->epoch_count, sizeof *history->epochs);
    history->epochs[history->epoch_count++] = (EpochLine){
        .epoch = fields_integer(fields, "epoch", 0, 0),
        .step = last ? last->step : 0,
        .train_loss = fields_real(fields, "train_loss"),
        .validation_loss = fields_real(fields, "validation_loss"),
        .validation_accuracy = fields_real(fields, "validation_accuracy"),
        .accuracy = fields_real(fields, "accuracy"),
        .f1 = fields_real(fields, "f1"),
        .metric = fields_real(fields, metric),
        .elapsed = last ? last->elapsed : 0,
    };
    take_confusion(history, fields);
}

// Events that are not known are those of a newer program.
static bool take_line(History *history, const json_t *json, const char *place, const char *metric, Error *error) {
    Fields fields = fields_of(json, place, error);
    const char *event = fields_text(&fields, "event");
    if (!event) { return fields_reject(&fields, "event", "a text"); }
    if (strcmp(event, "step") == 0) {
        take_step(history, &fields);
    } else if (strcmp(event, "epoch") == 0) {
        take_epoch(history, &fields, metric);
    } else if (strcmp(event, "start") == 0) {
        history->starts++;
        history->world_size = fields_integer(&fields, "world_size", 0, 1);
        history->total_steps = fields_integer(&fields, "total_steps", 0, 0);
        history->ended = false;
    } else if (strcmp(event, "end") == 0) {
        history->ended = true;
        history->end_seconds = fields_real(&fields, "seconds");
    }
    return fields.ok;
}

static bool take_lines(History *history, const char *path, const char *text, size_t length, const char *metric,
                       Error *error) {
    const char *end = text + length;
    int64_t number = 1;
    for (const char *line = text, *next; line < end; line = next, number++) {
        char place[REPORT_PATH + 32];
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        next = newline ? newline + 1 : end;
        snprintf(place, sizeof place, "%s:%lld", path, (long long)number);
        json_t *json = object_parse(line, (size_t)(next - line), place, error);
        if (!json && !newline) { return true; }  // being written, or cut short by a crash
        const bool ok = json && take_line(history, json, place, metric, error);
        json_decref(json);
        if (!ok) { return false; }
    }
    return true;
}

bool history_read(History *history, const char *path, const char *metric, Error *error) {
    *history = (History){.end_seconds = NAN};
    struct stat status;
    char *text;
    size_t length;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        return error_set(error, EX_NOINPUT, "%s: not a plain file", path);
    }
    if (!file_read(&text, &length, path, (size_t)1 << 32, error)) { return false; }
    history->modified = (double)status.st_mtim.tv_sec + 1e-9 * (double)status.st_mtim.tv_nsec;
    const bool ok = take_lines(history, path, text, length, metric, error);
    free(text);
    if (!ok) { history_free(history); }
    return ok;
}

void history_free(History *history) {
    free(history->steps);
    free(history->epochs);
    free(history->confusion);
    *history = (History){0};
}

size_t history_find_epoch(const History *history, int64_t epoch) {
    size_t i = 0;
    while (i < history->epoch_count && history->epochs[i].epoch != epoch) { i++; }
    return i;
}
