// The divergence rule: a run whose loss has risen far above what it once was is not worth going on with.
#ifndef BERTUNE_DIVERGENCE_H
#define BERTUNE_DIVERGENCE_H

#include "kernels/check.h"

// Part of a checkpoint, so that a run that goes on is judged like one that was never interrupted.
typedef struct {
    double mean;    // of the losses of about the last `window` steps: of all so far, then exponentially weighted
    double best;    // the lowest mean of a whole window
    int64_t steps;  // taken up
} Divergence;

// Takes up the loss of a step. False, with EX_DIVERGED, when the mean is more than factor (0: never) times the best
// one. Best means below DIVERGENCE_FLOOR count as that: they are so near to nothing that a few hard rows multiply them.
#define DIVERGENCE_FLOOR 0.1
bool divergence_check(Divergence *divergence, int64_t step, double loss, double factor, int64_t window, Error *error);

#endif
