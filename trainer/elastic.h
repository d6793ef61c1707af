// The gradient of a step with the same bits on every number of ranks (train.determinism: elastic, after EasyScale,
// SC'23): the global batch is cut into virtual shards by a rule that knows no ranks, each shard is computed alone, and
// their gradients are summed in a fixed binary tree, of which a rank computes a subtree and the reducer the rest.
#ifndef BERTUNE_ELASTIC_H
#define BERTUNE_ELASTIC_H

#include "comm/reduce.h"
#include "trainer/batches.h"

typedef struct {
    const Comm *comm;
    Device *device;
    Reducer *reducer;
    size_t count;   // of the gradient
    int shards;     // of a global batch
    int levels;     // of this rank's subtree above its leaves
    float **sums;   // (levels + 1) device memory; the first is the reducer's gradient
    double *parts;  // scratch of elastic_squares and elastic_loss
} Elastic;

// Collective. EX_CONFIG where the ranks do not divide the shards into subtrees.
bool elastic_open(Elastic *elastic, const Comm *comm, Device *device, Reducer *reducer, size_t count, int64_t shards,
                  Error *error);
void elastic_close(Elastic *elastic);

// Where the gradient of this rank's shard `shard` (0-based) is to be written, before elastic_add.
float *elastic_leaf(const Elastic *elastic, int shard);
// Adds it to the tree. After the last shard the reducer's gradient is the subtree's sum.
void elastic_add(Elastic *elastic, int shard);

// Collective, after reducer_sum. The sum of the squares of the whole gradient.
double elastic_squares(Elastic *elastic);

// Collective. The sum of the losses of all shards, of which losses (shards / ranks) are this rank's.
double elastic_loss(Elastic *elastic, const double *losses);

#endif
