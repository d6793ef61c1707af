// Transposes a matrix of 32-bit elements into a panel that is padded with zeros.
#ifndef BERTUNE_TRANSPOSE_H
#define BERTUNE_TRANSPOSE_H

#include <stddef.h>

// to[k * width + j] = from[j * line + k] for N lines of K; columns N .. width - 1 become 0.
void transpose(float *to, size_t width, const float *from, size_t line, size_t N, size_t K);

#endif
