// What a run wrote into metrics.jsonl, read back.
#ifndef BERTUNE_REPORT_HISTORY_H
#define BERTUNE_REPORT_HISTORY_H

#include "kernels/check.h"

// Numbers are NAN where the file says null (not finite) or nothing.
typedef struct {
    int64_t step;
    double loss, learning_rate, gradient_norm;
    double elapsed;  // seconds of all steps so far
} StepLine;

typedef struct {
    int64_t epoch, step;  // the step after which it was evaluated
    double train_loss, validation_loss, validation_accuracy, accuracy, f1;
    double metric;  // the one asked for by name
    double elapsed;
} EpochLine;

typedef struct {
    StepLine *steps;
    EpochLine *epochs;
    size_t step_count, epoch_count;
    int64_t samples;
    double step_seconds;  // sum over the steps
    int64_t starts;       // processes that worked on the run
    int64_t world_size;   // ranks of the last of them
    int64_t total_steps;  // 0: not said
    bool ended;           // there is an end
    double end_seconds;   // of the process that ended the run
    int64_t *confusion;   // (classes, classes) of the last epoch: label, prediction; or NULL
    size_t classes;
    double modified;  // unix seconds of the last change of the file
} History;

// Reads path; metric names the number of the epoch lines that `metric` takes. A last line that was cut short is left
// out: the run may be going on. EX_NOINPUT when the file is missing, EX_DATAERR names file and line. Free with
// history_free, also an empty one.
bool history_read(History *history, const char *path, const char *metric, Error *error);
void history_free(History *history);

// Index of the epoch's line; epoch_count when there is none.
size_t history_find_epoch(const History *history, int64_t epoch);

#endif
