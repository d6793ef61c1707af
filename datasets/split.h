// scikit-learn's train_test_split(rows, test_size=f, random_state=seed) row for row: numpy's RandomState(seed), a
// Mersenne Twister MT19937, permutes the rows; the first ceil(f * rows) of the permutation are the validation part, all
// others the training part, both in the permutation's order.
#ifndef BERTUNE_SPLIT_H
#define BERTUNE_SPLIT_H

#include "kernels/check.h"

// numpy.random.RandomState(seed).permutation(count) into order (room for count, at most 2^32 - 1).
void split_permutation(int64_t *order, int64_t count, uint32_t seed);

// Sizes as train_test_split computes them, 0 <= test_size < 1; 0 leaves the validation part empty. False with
// EX_CONFIG for another test_size and when the training part would be empty.
bool split_sizes(int64_t *train, int64_t *validation, int64_t rows, double test_size, Error *error);

// train (room for the training size) and validation (for the validation size) receive 0-based row numbers.
bool split_rows(int64_t *train, int64_t *validation, int64_t rows, double test_size, uint32_t seed, Error *error);

#endif
