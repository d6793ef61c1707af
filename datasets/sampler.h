// Which rows make which batch, as arithmetic: everything follows from (seed, epoch, batch), nothing is state.
// Every rank computes the same global order; a global batch is dealt to the ranks by token count.
#ifndef BERTUNE_SAMPLER_H
#define BERTUNE_SAMPLER_H

#include "kernels/check.h"

// order (rows) receives the rows of an epoch (0-based): a Fisher-Yates shuffle driven by Philox keyed by (seed, epoch),
// or 0, 1, 2, ... without shuffling.
void sampler_order(int64_t *order, int64_t rows, bool shuffle, uint64_t seed, int64_t epoch);

// Deals count rows with the given lengths (tokens) to bins: the longest first, each to the bin with the fewest tokens
// so far (longest processing time rule, Graham 1969; ties to the smaller row and bin). bin_of (count) receives the
// bins.
void sampler_deal(int32_t *bin_of, const int64_t *lengths, int count, int bins);

#endif
