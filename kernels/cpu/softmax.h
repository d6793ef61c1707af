// The softmax between the two products of attention, on lines of one sequence and head.
#ifndef BERTUNE_CPU_SOFTMAX_H
#define BERTUNE_CPU_SOFTMAX_H

#include "kernels/kernels.h"

// Scores (queries, width), of which the first `keys` count, times scale become probabilities; log_sum (queries)
// receives log sum exp of each line. The rest of a line becomes 0.
void softmax_forward(float *scores, float *log_sum, float scale, size_t queries, size_t keys, size_t width);

// The same probabilities again from the scores and the kept log sums.
void softmax_again(float *scores, const float *log_sum, float scale, size_t queries, size_t keys, size_t width);

// mask (queries, width): 0 or 1 / (1 - probability) in the first `keys` of a line, else 0; `row` and `head` name the
// bits.
void softmax_dropout_mask(float *mask, Dropout dropout, uint32_t row, uint32_t head, size_t queries, size_t keys,
                          size_t width);

// out *= in, element by element.
void softmax_multiply(float *out, const float *in, size_t count);

#endif
