// metrics.jsonl: one JSON object a line, appended and flushed; and stdout's lines of an epoch. Rank 0 only.
#ifndef BERTUNE_METRICS_H
#define BERTUNE_METRICS_H

#include <jansson.h>
#include <stdio.h>

#include "kernels/check.h"
#include "trainer/evaluation.h"

typedef struct {
    FILE *file;
    char path[4096];
} Metrics;

// Opens the file for appending. Lines that tell of anything after `step` and so many epochs are removed first, and a
// last line that a crash cut short. EX_CANTCREAT, EX_IOERR.
bool metrics_open(Metrics *metrics, const char *path, int64_t step, int64_t epochs, Error *error);
void metrics_close(Metrics *metrics);

// The last epoch line of a run; release with json_decref. NULL: EX_NOINPUT when the file is missing, EX_DATAERR when it
// has none.
json_t *metrics_last_epoch(const char *path, Error *error);

// Begins an object: {"event": name. Values follow, then metrics_end writes the line (or ends the run with EX_IOERR).
void metrics_begin(Metrics *metrics, const char *event);
void metrics_integer(Metrics *metrics, const char *key, int64_t value);
void metrics_text(Metrics *metrics, const char *key, const char *value);
// A number that is not finite becomes null, and "<key>_not_finite": true follows.
void metrics_real(Metrics *metrics, const char *key, double value);
void metrics_confusion(Metrics *metrics, const Scores *scores);
// Takes over the value.
void metrics_json(Metrics *metrics, const char *key, json_t *value);
void metrics_end(Metrics *metrics);

// Makes the lines so far durable (or ends the run with EX_IOERR).
void metrics_sync(const Metrics *metrics);

#endif
