// Inverted dropout of one line, for the operations that fuse it with others.
#ifndef BERTUNE_CPU_DROPOUT_H
#define BERTUNE_CPU_DROPOUT_H

#include "kernels/kernels.h"

// out (N) = in (N) with dropout, of data row `row` and token `position`; a copy where the probability is 0. out may be
// in.
void dropout_line(float *out, const float *in, uint32_t row, int32_t position, Dropout dropout, size_t N);

#endif
