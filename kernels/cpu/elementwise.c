// Moving and adding whole lines, sums over a buffer.
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

void cpu_gather_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    const Range range = own_share(count_of(M), 1);
    for (size_t i = range.begin; i < range.end; i++) {
        memcpy(out + i * width, in + (size_t)lines[i] * width, width * sizeof(float));
    }
}

static MULTIVERSION void add_range(float *restrict out, const float *restrict in, Range range) {
#pragma omp simd
    for (size_t i = range.begin; i < range.end; i++) { out[i] += in[i]; }
}

void cpu_scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    const Range range = own_share(count_of(M), 1);
    for (size_t i = range.begin; i < range.end; i++) {
        add_range(out + (size_t)lines[i] * width, in + i * width, (Range){0, width});
    }
}

void cpu_add(Device *device, float *out, const float *in, size_t count) {
    (void)device;
    add_range(out, in, own_share(count, 64));
}

static MULTIVERSION double block_square_sum(const float *in, size_t count) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) { sum += (double)in[i] * (double)in[i]; }
    return sum;
}

typedef struct {
    const float *in;
    double *sums;
    size_t count, blocks;
} Squares;

static void sum_blocks(void *context) {
    const Squares *squares = context;
    const Range range = own_share(squares->blocks, 1);
    for (size_t b = range.begin; b < range.end; b++) {
        const size_t left = squares->count - b * SQUARE_BLOCK;
        squares->sums[b] = block_square_sum(squares->in + b * SQUARE_BLOCK, left < SQUARE_BLOCK ? left : SQUARE_BLOCK);
    }
}

void cpu_square_sums(Device *device, double *sums, const float *in, size_t count) {
    Squares squares = {in, sums, count, square_blocks(count)};
    device_run(device, sum_blocks, &squares);
}
