// Successive halving that is asynchronous (ASHA; Li et al., MLSys 2020) and all the same has one outcome: whether a
// trial goes on past a rung is decided by the trials that are numbered below it, not by those that happened to be
// faster. So the same trials go on whatever the number of workers, whichever of them was killed, and in whatever order
// they worked; and a worker never waits while a trial that nobody has begun, or one that may go on, is left.
//
// Trial i goes on past a rung when it is among the best floor(n / eta), at least 1, of the first n that came to the
// rung by number: n is i's place among those, or 2 eta where that is more, or all there are where these are fewer.
#ifndef BERTUNE_SWEEP_HALVING_H
#define BERTUNE_SWEEP_HALVING_H

#include <stdbool.h>

typedef enum {
    SEGMENT_READY,  // to be trained
    SEGMENT_DONE,
    SEGMENT_WAITS,  // for others' results
    SEGMENT_NEVER   // its trial ended before
} SegmentState;

// What is known of a segment of a trial.
typedef struct {
    bool done, failed;
    double metric;  // better ones are larger; not a number is the worst
    double loss;    // of equals the one with less is better
} SegmentResult;

// Below 0 when a is better, above 0 when b is, 0 when they are alike.
int halving_compare(const SegmentResult *a, const SegmentResult *b);

// states and results (trials, most): of the segments 0 .. segments[trial] - 1 of each trial, the last of which ends at
// the trial's end and the others at rungs.
void halving_decide(SegmentState *states, const SegmentResult *results, const int *segments, int trials, int most,
                    double eta);

#endif
