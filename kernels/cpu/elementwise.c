// Moving and adding whole lines, sums over a buffer.
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

void gather_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    for (size_t i = 0; i < (size_t)M; i++) {
        memcpy(out + i * width, in + (size_t)lines[i] * width, width * sizeof(float));
    }
}

void scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    for (size_t i = 0; i < (size_t)M; i++) {
        for (size_t j = 0; j < width; j++) { out[(size_t)lines[i] * width + j] += in[i * width + j]; }
    }
}

static MULTIVERSION void add_range(float *restrict out, const float *restrict in, Range range) {
    for (size_t i = range.begin; i < range.end; i++) { out[i] += in[i]; }
}

void add(Device *device, float *out, const float *in, size_t count) {
    FOR_RANGES(device, count, 64) add_range(out, in, range);
}

enum { BLOCK = 8192 };  // of elements, summed in one order whatever the number of threads

static MULTIVERSION double block_square_sum(const float *in, size_t count) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) { sum += (double)in[i] * (double)in[i]; }
    return sum;
}

double square_sum(Device *device, const float *in, size_t count) {
    const size_t blocks = (count + BLOCK - 1) / BLOCK;
    double *sums = check_calloc(blocks, sizeof *sums);
    FOR_RANGES(device, blocks, 1) for (size_t b = range.begin; b < range.end; b++) {
        const size_t left = count - b * BLOCK;
        sums[b] = block_square_sum(in + b * BLOCK, left < BLOCK ? left : BLOCK);
    }
    double sum = 0.0;
    for (size_t b = 0; b < blocks; b++) { sum += sums[b]; }
    free(sums);
    return sum;
}
