// See transpose.h: blocks of 8 x 8 go through registers.
#include "kernels/cpu/transpose.h"

#include <string.h>

#include "kernels/cpu/cpu.h"

typedef float Octet __attribute__((vector_size(32)));
typedef float OctetInMemory __attribute__((vector_size(32), aligned(4), may_alias));

#define INTERLEAVE_1(a, b, half) \
    __builtin_shufflevector(a, b, half, half + 8, half + 1, half + 9, half + 4, half + 12, half + 5, half + 13)
#define INTERLEAVE_2(a, b, half) \
    __builtin_shufflevector(a, b, half, half + 1, half + 8, half + 9, half + 4, half + 5, half + 12, half + 13)
#define INTERLEAVE_4(a, b, half) \
    __builtin_shufflevector(a, b, half, half + 1, half + 2, half + 3, half + 8, half + 9, half + 10, half + 11)

// to[k * width + j] = from[j * line + k] for j, k < 8, in three rounds: element, pairs and quadruples of neighbours.
static inline __attribute__((always_inline)) void transpose_8x8(float *to, size_t width, const float *from,
                                                                size_t line) {
    Octet in[8], pairs[8], quads[8];
    for (size_t j = 0; j < 8; j++) { in[j] = (Octet) * (const OctetInMemory *)(from + j * line); }
    for (size_t j = 0; j < 8; j += 2) {
        pairs[j] = INTERLEAVE_1(in[j], in[j + 1], 0);
        pairs[j + 1] = INTERLEAVE_1(in[j], in[j + 1], 2);
    }
    for (size_t j = 0; j < 8; j += 4) {
        for (size_t i = 0; i < 2; i++) {
            quads[j + 2 * i] = INTERLEAVE_2(pairs[j + i], pairs[j + i + 2], 0);
            quads[j + 2 * i + 1] = INTERLEAVE_2(pairs[j + i], pairs[j + i + 2], 2);
        }
    }
    for (size_t k = 0; k < 4; k++) {
        *(OctetInMemory *)(to + k * width) = INTERLEAVE_4(quads[k], quads[k + 4], 0);
        *(OctetInMemory *)(to + (k + 4) * width) = INTERLEAVE_4(quads[k], quads[k + 4], 4);
    }
}

static MULTIVERSION void transpose_lines(float *to, size_t width, const float *from, size_t line, size_t N, size_t K) {
    const size_t whole_n = N / 8 * 8, whole_k = K / 8 * 8;
    for (size_t j = 0; j < whole_n; j += 8) {
        for (size_t k = 0; k < whole_k; k += 8) { transpose_8x8(to + k * width + j, width, from + j * line + k, line); }
    }
    for (size_t k = 0; k < K; k++) {
        for (size_t j = k < whole_k ? whole_n : 0; j < N; j++) { to[k * width + j] = from[j * line + k]; }
        if (N < width) { memset(to + k * width + N, 0, (width - N) * sizeof *to); }
    }
}

void transpose(float *to, size_t width, const float *from, size_t line, size_t N, size_t K) {
    transpose_lines(to, width, from, line, N, K);
}
