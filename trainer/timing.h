// Steps that are taken to be timed: what the parts of `bertune bench` share.
#ifndef BERTUNE_TIMING_H
#define BERTUNE_TIMING_H

#include "trainer/trainer.h"

// Collective. Takes warm_up steps and then `count` that are timed: seconds and tokens (count) receive those of each, of
// all ranks. The profile, if there is one, begins with the timed ones.
bool timing_steps(Trainer *trainer, int64_t warm_up, int64_t count, double *seconds, double *tokens, Error *error);

// Steps that are recorded are steady after so many.
enum { TIMING_WARM_UP_RECORDED = 64 };

// Sorts the values and gives the median.
double timing_median(double *values, int64_t count);

#endif
