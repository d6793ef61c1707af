// Word, position and type embeddings. Backward gives each worker a slice of columns and lets it walk all tokens in
// order: no atomics, and the same sums for any number of workers.
#include <string.h>

#include "kernels/cpu/cpu.h"

static MULTIVERSION void embed_lines(float *out, const float *word, const float *position, const float *type,
                                     const int32_t *ids, const int32_t *positions, Range lines, size_t H) {
    for (size_t t = lines.begin; t < lines.end; t++) {
        const float *w = word + (size_t)ids[t] * H, *p = position + (size_t)positions[t] * H;
#pragma omp simd
        for (size_t h = 0; h < H; h++) { out[t * H + h] = w[h] + type[h] + p[h]; }
    }
}

void cpu_embedding_forward(Device *device, float *out, const float *word, const float *position, const float *type,
                           const int32_t *ids, const int32_t *positions, Extent T, int H) {
    (void)device;
    embed_lines(out, word, position, type, ids, positions, own_share(count_of(T), 1), (size_t)H);
}

static MULTIVERSION void scatter_columns(float *dword, float *dposition, float *dtype, const float *dout,
                                         const int32_t *ids, const int32_t *positions, int padding, Range columns,
                                         size_t T, size_t H) {
    for (size_t t = 0; t < T; t++) {
        float *w = dword + (size_t)ids[t] * H, *p = dposition + (size_t)positions[t] * H;
        const float *d = dout + t * H;
        if (ids[t] != padding) {
#pragma omp simd
            for (size_t h = columns.begin; h < columns.end; h++) { w[h] += d[h]; }
        }
#pragma omp simd
        for (size_t h = columns.begin; h < columns.end; h++) { p[h] += d[h]; }
#pragma omp simd
        for (size_t h = columns.begin; h < columns.end; h++) { dtype[h] += d[h]; }
    }
}

static void zero_columns(float *lines, Range columns, size_t count, size_t H) {
    for (size_t i = 0; i < count; i++) {
        memset(lines + i * H + columns.begin, 0, (columns.end - columns.begin) * sizeof *lines);
    }
}

void cpu_embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                            const int32_t *ids, const int32_t *positions, int padding, bool accumulate, int V, int P,
                            Extent T, int H) {
    (void)device;
    const size_t width = (size_t)H;
    const Range columns = own_share(width, 16);
    if (!accumulate) {
        zero_columns(dword, columns, (size_t)V, width);
        zero_columns(dposition, columns, (size_t)P, width);
        zero_columns(dtype, columns, 1, width);
    }
    scatter_columns(dword, dposition, dtype, dout, ids, positions, padding, columns, count_of(T), width);
}
