// From rows to batches in host memory: which rows of a step this rank computes, and their tokens end to end.
#ifndef BERTUNE_BATCHES_H
#define BERTUNE_BATCHES_H

#include "datasets/dataset.h"
#include "trainer/bert.h"

// Makes a batch of the given rows of reviews. word_row maps a vocabulary id to a row of the word table, NULL: the same.
void batch_fill(Batch *batch, const Reviews *reviews, const int32_t *word_row, const int64_t *rows, int count);

// How an epoch's rows are cut into global batches, and these dealt to ranks and micro-batches.
typedef struct {
    const Reviews *reviews;
    int64_t batch_size;  // global
    int rank, size, micro_batches;
    bool contiguous;  // a rank's micro-batches are neighbouring shards of the batch
    bool shuffle;
    uint64_t seed;
    int64_t steps;            // of an epoch; the last batch may be smaller
    int64_t *order;           // (rows) of the epoch at hand
    int64_t *lengths, *mine;  // (batch_size) scratch
    int32_t *bins;            // (batch_size) scratch
} Batches;

void batches_init(Batches *batches, const Reviews *reviews, int64_t batch_size, int micro_batches, int rank, int size,
                  bool shuffle, uint64_t seed);
void batches_free(Batches *batches);

// Cuts each global batch into `shards` parts, whatever the number of ranks, which are one rank's after the other's.
void batches_shard(Batches *batches, int shards, int rank);

// Takes up an epoch (0-based) and gives the largest micro-batch of this rank in it.
void batches_epoch(Batches *batches, int64_t epoch, int *most_sequences, int *most_tokens);

// The rows of all ranks in a step (0-based within the epoch): *rows points to *count of them.
void batches_global(const Batches *batches, int64_t step, const int64_t **rows, int *count);

// Deals a step; then batches_micro gives the rows of this rank's micro-batch: a pointer valid until the next call.
void batches_deal(Batches *batches, int64_t step);
const int64_t *batches_micro(Batches *batches, int64_t step, int micro, int *count);

#endif
