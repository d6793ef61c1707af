// Attention per sequence and head, each a task of its own whose scores stay in the worker's scratch. Only the logarithm
// of each softmax sum is kept; backward computes the probabilities again, as FlashAttention does (Dao et al., 2022),
// and draws the same dropout bits.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/softmax.h"

// One sequence and head, addressed in matrices whose lines hold 3 H floats (qkv) or H (out).
typedef struct {
    size_t first, length, width;  // lines, their number, and that rounded up to whole vectors
    size_t head, D, H;
    uint32_t row;
} Task;

static Task task_of(const Sequences *s, size_t b, size_t head) {
    Task t = {.first = (size_t)s->starts[b],
              .length = (size_t)(s->starts[b + 1] - s->starts[b]),
              .head = head,
              .D = (size_t)s->D,
              .H = (size_t)(s->A * s->D),
              .row = s->rows[b]};
    t.width = (t.length + MICRO_LANES - 1) / MICRO_LANES * MICRO_LANES;
    return t;
}

// Two products of a task: the work grows with both the square of the length and the length.
static size_t cost_of(const Sequences *s, size_t b) {
    const size_t length = (size_t)(s->starts[b + 1] - s->starts[b]);
    return length * (length + 32);
}

// Calls run(context, task) for the calling worker's tasks: a contiguous part of them with its share of the cost, so
// that a worker mostly meets lines which it computed itself.
static void run_own_tasks(const Sequences *s, void (*run)(void *context, Task task), void *context) {
    const size_t B = count_of(s->B), A = (size_t)s->A;
    size_t total = 0, before = 0;
    for (size_t b = 0; b < B; b++) { total += cost_of(s, b) * A; }
    const Range own = own_share(total, 1);
    for (size_t b = 0; b < B; b++) {
        const size_t cost = cost_of(s, b);
        for (size_t head = 0; head < A; head++, before += cost) {
            const size_t middle = before + cost / 2;
            if (middle >= own.begin && middle < own.end) { run(context, task_of(s, b, head)); }
        }
    }
}

typedef struct {
    CpuDevice *device;
    float *out, *log_sum;
    const float *qkv;
    size_t lines;
    Dropout dropout;
} Forward;

// scores (length, width) = x y^T of two matrices of the task with lines of x_line and y_line floats.
static void score_product(CpuDevice *device, float *scores, const float *x, size_t x_line, const float *y,
                          size_t y_line, Task t) {
    device_product(device, device->fp32,
                   (Product){.out = scores,
                             .out_line = t.width,
                             .roomy = true,
                             .a = x,
                             .a_line = x_line,
                             .a_step = 1,
                             .b = y,
                             .b_step = 1,
                             .b_column = y_line,
                             .M = t.length,
                             .N = t.length,
                             .K = t.D});
}

// out (length, D) = scores x, or scores^T x.
static void value_product(CpuDevice *device, float *out, size_t out_line, const float *scores, bool transposed,
                          const float *x, size_t x_line, Task t) {
    device_product(device, device->fp32,
                   (Product){.out = out,
                             .out_line = out_line,
                             .a = scores,
                             .a_line = transposed ? 1 : t.width,
                             .a_step = transposed ? t.width : 1,
                             .b = x,
                             .b_step = x_line,
                             .b_column = 1,
                             .M = t.length,
                             .N = t.D,
                             .K = t.length});
}

static void forward_task(void *context, Task t) {
    const Forward *f = context;
    const size_t stride = 3 * t.H, scores = t.length * t.width;
    const float *q = f->qkv + t.first * stride + t.head * t.D, *k = q + t.H, *v = k + t.H;
    float *p = device_scratch(f->device, SCRATCH_OPERATION, 2 * scores), *mask = p + scores;
    score_product(f->device, p, q, stride, k, stride, t);
    softmax_forward(p, f->log_sum + t.head * f->lines + t.first, 1.0f / sqrtf((float)t.D), t.length, t.length, t.width);
    if (f->dropout.probability > 0.0f) {
        softmax_dropout_mask(mask, f->dropout, t.row, (uint32_t)t.head, t.length, t.length, t.width);
        softmax_multiply(p, mask, scores);
    }
    value_product(f->device, f->out + t.first * t.H + t.head * t.D, t.H, p, false, v, stride, t);
}

void cpu_attention_forward(Device *device, float *out, float *log_sum, const float *qkv, Sequences sequences,
                           Dropout dropout) {
    Forward forward = {cpu_device(device), out, log_sum, qkv, (size_t)sequences.starts[count_of(sequences.B)], dropout};
    run_own_tasks(&sequences, forward_task, &forward);
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
    CpuDevice *device;
    float *dqkv;
    const float *dout, *out, *log_sum, *qkv;
    size_t lines;
    Dropout dropout;
} Backward;

static void backward_task(void *context, Task t) {
    const Backward *b = context;
    const size_t stride = 3 * t.H, scores = t.length * t.width;
    const size_t at = t.first * t.H + t.head * t.D, qkv_at = t.first * stride + t.head * t.D;
    const float scale = 1.0f / sqrtf((float)t.D);
    const float *q = b->qkv + qkv_at, *k = q + t.H, *v = k + t.H, *dout = b->dout + at;
    float *dq = b->dqkv + qkv_at, *dk = dq + t.H, *dv = dk + t.H;
    float *p = device_scratch(b->device, SCRATCH_OPERATION, 3 * scores), *dp = p + scores, *mask = dp + scores;

    score_product(b->device, p, q, stride, k, stride, t);
    softmax_again(p, b->log_sum + t.head * b->lines + t.first, scale, t.length, t.length, t.width);
    score_product(b->device, dp, dout, t.H, v, stride, t);
    const bool dropping = b->dropout.probability > 0.0f;
    if (dropping) {
        softmax_dropout_mask(mask, b->dropout, t.row, (uint32_t)t.head, t.length, t.length, t.width);
        softmax_multiply(dp, mask, scores);
    }
    softmax_gradient(dp, p, dout, b->out + at, scale, t.H, t.D, t.length, t.width);
    if (dropping) { softmax_multiply(p, mask, scores); }
    value_product(b->device, dv, stride, p, true, dout, t.H, t);
    value_product(b->device, dk, stride, dp, true, q, stride, t);
    value_product(b->device, dq, stride, dp, false, k, stride, t);
}

void cpu_attention_backward(Device *device, float *dqkv, const float *dout, const float *out, const float *log_sum,
                            const float *qkv, Sequences sequences, Dropout dropout) {
    Backward backward = {
        cpu_device(device), dqkv, dout, out, log_sum, qkv, (size_t)sequences.starts[count_of(sequences.B)], dropout};
    run_own_tasks(&sequences, backward_task, &backward);
}
