// See timing.h.
#include "trainer/timing.h"

#include <stdlib.h>

bool timing_steps(Trainer *trainer, int64_t warm_up, int64_t count, double *seconds, double *tokens, Error *error) {
    const int64_t per_epoch = trainer->batches.steps;
    for (int64_t i = -warm_up; i < count; i++) {
        if (i == 0 && trainer->profile) { profile_reset(trainer->profile); }
        if (trainer->progress.step % per_epoch == 0) {
            trainer_begin_epoch(trainer, trainer->progress.step / per_epoch);
        }
        StepResult result;
        if (!trainer_step(trainer, &result, error)) { return false; }
        if (i < 0) { continue; }
        seconds[i] = result.seconds;
        tokens[i] = (double)result.tokens;
    }
    return true;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double timing_median(double *values, int64_t count) {
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}
