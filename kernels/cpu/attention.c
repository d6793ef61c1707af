// Attention per sequence and head, each a task of its own with all its matrices in the worker's scratch. Only the
// logarithm of each softmax sum is kept; backward computes the probabilities again, as FlashAttention does (Dao et al.,
// 2022), and draws the same dropout bits.
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vecmath.h"
#include "kernels/philox.h"

enum { LANES = 16, BLOCK_LINES = 4 };

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(LANES * sizeof(float))));

static size_t round_up(size_t n) { return (n + LANES - 1) / LANES * LANES; }

// C (M, N) = A (M, K) B (K, N) from scratch matrices; N is a multiple of LANES and C, B have lines of ldc, ldb floats.
// A is addressed by two strides, so that it can be read transposed.
static MULTIVERSION void small_product(float *C, size_t ldc, const float *A, size_t a_line, size_t a_column,
                                       const float *B, size_t ldb, size_t M, size_t N, size_t K) {
    for (size_t i = 0; i < M; i += BLOCK_LINES) {
        const float *a[BLOCK_LINES];
        for (size_t r = 0; r < BLOCK_LINES; r++) { a[r] = A + (i + r < M ? i + r : M - 1) * a_line; }
        for (size_t j = 0; j < N; j += LANES) {
            Vector c0 = {0}, c1 = {0}, c2 = {0}, c3 = {0};
            for (size_t k = 0; k < K; k++) {
                const Vector b = *(const Vector *)(B + k * ldb + j);
                const size_t at = k * a_column;
                c0 += a[0][at] * b;
                c1 += a[1][at] * b;
                c2 += a[2][at] * b;
                c3 += a[3][at] * b;
            }
            *(Vector *)(C + i * ldc + j) = c0;
            if (i + 1 < M) { *(Vector *)(C + (i + 1) * ldc + j) = c1; }
            if (i + 2 < M) { *(Vector *)(C + (i + 2) * ldc + j) = c2; }
            if (i + 3 < M) { *(Vector *)(C + (i + 3) * ldc + j) = c3; }
        }
    }
}

// lines (M, D) with a stride into dense lines of width floats, the surplus columns zero.
static void pack(float *to, const float *from, size_t stride, size_t M, size_t D, size_t width) {
    for (size_t i = 0; i < M; i++) {
        memcpy(to + i * width, from + i * stride, D * sizeof(float));
        memset(to + i * width + D, 0, (width - D) * sizeof(float));
    }
}

// The transpose (D, width) of lines (M, D), the surplus columns zero.
static void pack_transposed(float *to, const float *from, size_t stride, size_t M, size_t D, size_t width) {
    for (size_t d = 0; d < D; d++) {
        for (size_t i = 0; i < M; i++) { to[d * width + i] = from[i * stride + d]; }
        memset(to + d * width + M, 0, (width - M) * sizeof(float));
    }
}

static void unpack(float *to, size_t stride, const float *from, size_t M, size_t D, size_t width) {
    for (size_t i = 0; i < M; i++) { memcpy(to + i * stride, from + i * width, D * sizeof(float)); }
}

// Scores (queries, width) become probabilities; log_sum receives log sum exp of each line.
static MULTIVERSION void softmax_lines(float *scores, float *log_sum, float scale, size_t queries, size_t keys,
                                       size_t width) {
    for (size_t i = 0; i < queries; i++) {
        float *s = scores + i * width;
        float largest = -INFINITY, sum = 0.0f;
        for (size_t j = 0; j < keys; j++) {
            s[j] *= scale;
            largest = s[j] > largest || s[j] != s[j] ? s[j] : largest;
        }
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

// The same probabilities again from the scores and the kept log sums.
static MULTIVERSION void recompute_lines(float *scores, const float *log_sum, float scale, size_t queries, size_t keys,
                                         size_t width) {
    for (size_t i = 0; i < queries; i++) {
        float *s = scores + i * width;
#pragma omp simd
        for (size_t j = 0; j < keys; j++) { s[j] = fast_exp(s[j] * scale - log_sum[i]); }
        for (size_t j = keys; j < width; j++) { s[j] = 0.0f; }
    }
}

// mask (queries, width): 0 or 1 / (1 - probability).
static MULTIVERSION void dropout_mask(float *mask, Dropout dropout, uint32_t row, uint32_t head, size_t queries,
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

static MULTIVERSION void multiply(float *out, const float *in, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) { out[i] *= in[i]; }
}

// One sequence and head.
typedef struct {
    size_t query, key;      // first lines
    size_t queries, keys;   // how many
    size_t width;           // keys, rounded up
    size_t head, D, depth;  // depth: D, rounded up
    uint32_t row;
} Task;

static Task task_of(const AttentionShape *shape, int task) {
    const int b = task / shape->A;
    Task t = {.query = (size_t)shape->query_starts[b],
              .key = (size_t)shape->key_starts[b],
              .queries = (size_t)(shape->query_starts[b + 1] - shape->query_starts[b]),
              .keys = (size_t)(shape->key_starts[b + 1] - shape->key_starts[b]),
              .head = (size_t)(task % shape->A),
              .D = (size_t)shape->D,
              .depth = round_up((size_t)shape->D),
              .row = shape->rows[b]};
    t.width = round_up(t.keys);
    return t;
}

static void forward_task(Device *device, float *out, float *log_sum, const float *q, const float *k, const float *v,
                         const AttentionShape *shape, Dropout dropout, Task t) {
    const size_t qs = (size_t)shape->query_stride, ks = (size_t)shape->key_stride, H = (size_t)shape->A * t.D;
    const size_t scores = t.queries * t.width;
    float *keys = device_scratch(device, 2 * scores + t.depth * t.width + t.keys * t.depth + t.queries * t.depth);
    float *values = keys + t.depth * t.width, *result = values + t.keys * t.depth;
    float *p = result + t.queries * t.depth, *mask = p + scores;
    pack_transposed(keys, k + t.key * ks + t.head * t.D, ks, t.keys, t.D, t.width);
    pack(values, v + t.key * ks + t.head * t.D, ks, t.keys, t.D, t.depth);
    small_product(p, t.width, q + t.query * qs + t.head * t.D, qs, 1, keys, t.width, t.queries, t.width, t.D);
    softmax_lines(p, log_sum + t.query, 1.0f / sqrtf((float)t.D), t.queries, t.keys, t.width);
    if (dropout.probability > 0.0f) {
        dropout_mask(mask, dropout, t.row, (uint32_t)t.head, t.queries, t.keys, t.width);
        multiply(p, mask, scores);
    }
    small_product(result, t.depth, p, t.width, 1, values, t.depth, t.queries, t.depth, t.keys);
    unpack(out + t.query * H + t.head * t.D, H, result, t.queries, t.D, t.depth);
}

void attention_forward(Device *device, float *out, float *log_sum, const float *q, const float *k, const float *v,
                       AttentionShape shape, Dropout dropout) {
    const size_t lines = (size_t)shape.query_starts[shape.B];
#pragma omp parallel for schedule(dynamic) num_threads(device->threads)
    for (int i = 0; i < shape.B * shape.A; i++) {
        const Task t = task_of(&shape, i);
        forward_task(device, out, log_sum + t.head * lines, q, k, v, &shape, dropout, t);
    }
}

// dscores = p * (dp - dot) * scale per line, where dot = sum of dout * out: the softmax's Jacobian. dp holds the
// gradient of the probabilities and becomes that of the unscaled scores.
static MULTIVERSION void softmax_gradient(float *dp, const float *p, const float *dout, const float *out, float scale,
                                          size_t H, size_t D, size_t queries, size_t width) {
    for (size_t i = 0; i < queries; i++) {
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (size_t d = 0; d < D; d++) { dot += dout[i * H + d] * out[i * H + d]; }
#pragma omp simd
        for (size_t j = i * width; j < (i + 1) * width; j++) { dp[j] = p[j] * (dp[j] - dot) * scale; }
    }
}

typedef struct {
    float *dq, *dk, *dv;
    const float *dout, *out, *log_sum, *q, *k, *v;
} Backward;

static void backward_task(Device *device, Backward b, const AttentionShape *shape, Dropout dropout, Task t) {
    const size_t qs = (size_t)shape->query_stride, ks = (size_t)shape->key_stride, H = (size_t)shape->A * t.D;
    const size_t scores = t.queries * t.width, lines = t.queries > t.keys ? t.queries : t.keys, at = t.head * t.D;
    const float scale = 1.0f / sqrtf((float)t.D);
    const float *q = b.q + t.query * qs + at, *k = b.k + t.key * ks + at, *v = b.v + t.key * ks + at;
    const float *dout = b.dout + t.query * H + at, *out = b.out + t.query * H + at;
    float *p = device_scratch(device, 3 * scores + t.depth * t.width + 2 * lines * t.depth);
    float *dp = p + scores, *mask = dp + scores, *transposed = mask + scores;
    float *packed = transposed + t.depth * t.width, *result = packed + lines * t.depth;

    pack_transposed(transposed, k, ks, t.keys, t.D, t.width);
    small_product(p, t.width, q, qs, 1, transposed, t.width, t.queries, t.width, t.D);
    recompute_lines(p, b.log_sum + t.query, scale, t.queries, t.keys, t.width);
    pack_transposed(transposed, v, ks, t.keys, t.D, t.width);
    small_product(dp, t.width, dout, H, 1, transposed, t.width, t.queries, t.width, t.D);
    const bool dropping = dropout.probability > 0.0f;
    if (dropping) {
        dropout_mask(mask, dropout, t.row, (uint32_t)t.head, t.queries, t.keys, t.width);
        multiply(dp, mask, scores);
    }
    softmax_gradient(dp, p, dout, out, scale, H, t.D, t.queries, t.width);
    if (dropping) { multiply(p, mask, scores); }

    pack(packed, dout, H, t.queries, t.D, t.depth);
    small_product(result, t.depth, p, 1, t.width, packed, t.depth, t.keys, t.depth, t.queries);
    unpack(b.dv + t.key * ks + at, ks, result, t.keys, t.D, t.depth);
    pack(packed, q, qs, t.queries, t.D, t.depth);
    small_product(result, t.depth, dp, 1, t.width, packed, t.depth, t.keys, t.depth, t.queries);
    unpack(b.dk + t.key * ks + at, ks, result, t.keys, t.D, t.depth);
    pack(packed, k, ks, t.keys, t.D, t.depth);
    small_product(result, t.depth, dp, t.width, 1, packed, t.depth, t.queries, t.depth, t.keys);
    unpack(b.dq + t.query * qs + at, qs, result, t.queries, t.D, t.depth);
}

void attention_backward(Device *device, float *dq, float *dk, float *dv, const float *dout, const float *out,
                        const float *log_sum, const float *q, const float *k, const float *v, AttentionShape shape,
                        Dropout dropout) {
    const size_t lines = (size_t)shape.query_starts[shape.B];
#pragma omp parallel for schedule(dynamic) num_threads(device->threads)
    for (int i = 0; i < shape.B * shape.A; i++) {
        const Task t = task_of(&shape, i);
        const Backward b = {dq, dk, dv, dout, out, log_sum + t.head * lines, q, k, v};
        backward_task(device, b, &shape, dropout, t);
    }
}
