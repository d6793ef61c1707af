// A part of the data set in memory that the ranks of a node share: every rank reads its own rows of the file
// collectively, then the nodes exchange what they have read, since a shuffled batch needs any row.
#ifndef BERTUNE_SHARDS_H
#define BERTUNE_SHARDS_H

#include "comm/comm.h"
#include "datasets/dataset.h"

typedef struct {
    Reviews reviews;       // its arrays lie in the shared memory below
    int64_t first, count;  // the rows that this rank read
    SharedMemory offsets, tokens, labels, source_row;
} Shards;

// Collective. Reads a group ("train", "validation", "dev"). False on every rank when any failed. Free with
// shards_close.
bool shards_open(Shards *shards, const Comm *comm, const Dataset *dataset, const char *group, Error *error);

// Collective. Reads "train" and "dev" as the one part that they were before they were cut, row for row.
bool shards_open_uncut(Shards *shards, const Comm *comm, const Dataset *dataset, Error *error);

// Collective.
void shards_close(Shards *shards);

#endif
