// `bertune bench --advise`: measures the constants of the model of scaling.h on the ranks that are there, and predicts
// with it. advise.c measures, advise_print.c says it.
#ifndef BERTUNE_ADVISE_H
#define BERTUNE_ADVISE_H

#include "trainer/scaling.h"
#include "trainer/trainer.h"

enum { ADVISE_BATCHES = 3, ADVISE_SUMS = 4 };

// A step of one rank by itself.
typedef struct {
    double rows, tokens, seconds;
} TimedBatch;

// What a step makes ranks tell each other: the sum of a gradient of so many bytes, and of its loss.
typedef struct {
    double bytes, seconds;  // over all ranks
    double node_seconds;    // over the ranks of a node; 0: not measured
} TimedSum;

typedef struct {
    const Trainer *trainer;
    // Measured. Means over the ranks.
    TimedBatch batches[ADVISE_BATCHES];
    TimedSum sums[ADVISE_SUMS];
    int batch_count, sum_count;  // no sums of one rank
    double update;               // AdamW of all weights by one rank; 0: not apart from the rest
    double step;                 // of global_batch_size rows on all ranks
    // Modelled, where there are sums.
    ScalingModel model;
    bool network;  // the ranks are on several nodes, so that the network between these was measured
    ScalingPoint strong[SCALING_POINTS], weak[SCALING_POINTS];
} Advice;

// Collective. Measures, and prints on rank 0. `steps` are timed of each kind. EX_CONFIG where the model says nothing
// about the configuration.
bool advise(Trainer *trainer, int64_t steps, bool json, Error *error);

// Rank 0 only.
void advise_print_text(const Advice *advice);
void advise_print_json(const Advice *advice);

#endif
