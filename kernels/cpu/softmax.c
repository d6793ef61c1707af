// See softmax.h. What is compiled for several instruction sets stays inside this file: clang 14 gives such functions no
// name that others could call.
#include "kernels/cpu/softmax.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vecmath.h"
#include "kernels/philox.h"

// Times scale in place; gives the largest. Not-a-number is not the largest, but stays in the line.
static inline __attribute__((always_inline)) float scale_line(float *s, float scale, size_t keys) {
    enum { LANES = 16 };
    float lanes[LANES], largest = -INFINITY;
    for (size_t l = 0; l < LANES; l++) { lanes[l] = -INFINITY; }
    const size_t whole = keys / LANES * LANES;
    for (size_t j = 0; j < whole; j += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            s[j + l] *= scale;
            lanes[l] = s[j + l] > lanes[l] ? s[j + l] : lanes[l];
        }
    }
    for (size_t j = whole; j < keys; j++) {
        s[j] *= scale;
        lanes[j - whole] = s[j] > lanes[j - whole] ? s[j] : lanes[j - whole];
    }
    for (size_t l = 0; l < LANES; l++) { largest = lanes[l] > largest ? lanes[l] : largest; }
    return largest;
}

static MULTIVERSION void softmax_lines(float *scores, float *log_sum, float scale, size_t queries, size_t keys,
                                       size_t width) {
    for (size_t i = 0; i < queries; i++) {
        float *s = scores + i * width;
        const float largest = scale_line(s, scale, keys);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < keys; j++) {
            s[j] = fast_exp(s[j] - largest);
            sum += s[j];
        }
        const float inverse = 1.0f / sum;
#pragma omp simd
        for (size_t j = 0; j < keys; j++) { s[j] *= inverse; }
        for (size_t j = keys; j < width; j++) { s[j] = 0.0f; }
        log_sum[i] = largest + logf(sum);
    }
}

void softmax_forward(float *scores, float *log_sum, float scale, size_t queries, size_t keys, size_t width) {
    softmax_lines(scores, log_sum, scale, queries, keys, width);
}

static MULTIVERSION void softmax_lines_again(float *scores, const float *log_sum, float scale, size_t queries,
                                             size_t keys, size_t width) {
    for (size_t i = 0; i < queries; i++) {
        float *s = scores + i * width;
#pragma omp simd
        for (size_t j = 0; j < keys; j++) { s[j] = fast_exp(s[j] * scale - log_sum[i]); }
        for (size_t j = keys; j < width; j++) { s[j] = 0.0f; }
    }
}

void softmax_again(float *scores, const float *log_sum, float scale, size_t queries, size_t keys, size_t width) {
    softmax_lines_again(scores, log_sum, scale, queries, keys, width);
}

static MULTIVERSION void softmax_mask_lines(float *mask, Dropout dropout, uint32_t row, uint32_t head, size_t queries,
                                            size_t keys, size_t width) {
    const uint32_t threshold = philox_threshold(dropout.probability);
    const float keep = 1.0f / (1.0f - dropout.probability);
    const uint32_t k0 = (uint32_t)dropout.seed, k1 = (uint32_t)(dropout.seed >> 32), site = dropout.site | head << 16;
    memset(mask, 0, queries * width * sizeof *mask);
    for (size_t i = 0; i < queries; i += 4) {
        float *m = mask + i * width;
        const size_t lines = queries - i;
#pragma omp simd
        for (size_t j = 0; j < keys; j++) {
            const Philox r = philox((uint32_t)j | (uint32_t)(i / 4) << 16, row, dropout.step, site, k0, k1);
            m[j] = r.lane[0] < threshold ? 0.0f : keep;
            if (lines > 1) { m[j + width] = r.lane[1] < threshold ? 0.0f : keep; }
            if (lines > 2) { m[j + 2 * width] = r.lane[2] < threshold ? 0.0f : keep; }
            if (lines > 3) { m[j + 3 * width] = r.lane[3] < threshold ? 0.0f : keep; }
        }
    }
}

void softmax_dropout_mask(float *mask, Dropout dropout, uint32_t row, uint32_t head, size_t queries, size_t keys,
                          size_t width) {
    softmax_mask_lines(mask, dropout, row, head, queries, keys, width);
}

static MULTIVERSION void softmax_multiply_all(float *out, const float *in, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) { out[i] *= in[i]; }
}

void softmax_multiply(float *out, const float *in, size_t count) { softmax_multiply_all(out, in, count); }
