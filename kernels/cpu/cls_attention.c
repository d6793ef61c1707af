// Attention of each sequence's first line alone, with the projections of keys and values absorbed; see kernels.h. One
// query a head makes vectors of all matrices, so that the sequences' lines are read a few times and nothing is packed.
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/softmax.h"

// out (B, A, H) = in (B, A, D) weight, where head a meets lines a D .. a D + D - 1 of the weight (H, H).
static void through_heads(CpuDevice *device, float *out, const float *in, const float *weight, Range own,
                          const Sequences *s) {
    const size_t A = (size_t)s->A, D = (size_t)s->D, H = A * D;
    for (size_t a = 0; a < A; a++) {
        device_product(device, device->fp32,
                       (Product){.out = out + (own.begin * A + a) * H,
                                 .out_line = A * H,
                                 .a = in + own.begin * H + a * D,
                                 .a_line = H,
                                 .a_step = 1,
                                 .b = weight + a * D * H,
                                 .b_step = H,
                                 .b_column = 1,
                                 .M = own.end - own.begin,
                                 .N = H,
                                 .K = D});
    }
}

// out (B, A, D) = in (B, A, H) weight^T, likewise.
static void back_through_heads(CpuDevice *device, float *out, const float *in, const float *weight, Range own,
                               const Sequences *s) {
    const size_t A = (size_t)s->A, D = (size_t)s->D, H = A * D;
    for (size_t a = 0; a < A; a++) {
        device_product(device, device->fp32,
                       (Product){.out = out + own.begin * H + a * D,
                                 .out_line = H,
                                 .a = in + (own.begin * A + a) * H,
                                 .a_line = A * H,
                                 .a_step = 1,
                                 .b = weight + a * D * H,
                                 .b_step = 1,
                                 .b_column = H,
                                 .M = own.end - own.begin,
                                 .N = D,
                                 .K = H});
    }
}

static MULTIVERSION float dot(const float *a, const float *b, size_t count) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) { sum += a[i] * b[i]; }
    return sum;
}

static MULTIVERSION void add_scaled(float *restrict out, float factor, const float *restrict in, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) { out[i] += factor * in[i]; }
}

static float sum_of(const float *values, size_t count) {
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++) { sum += values[i]; }
    return sum;
}

// p (length): probabilities of one sequence and head before dropout is applied; mask: 1 or dropout's factors.
static void draw_mask(float *mask, Dropout dropout, uint32_t row, size_t head, size_t length) {
    if (dropout.probability > 0.0f) {
        softmax_dropout_mask(mask, dropout, row, (uint32_t)head, 1, length, length);
    } else {
        for (size_t j = 0; j < length; j++) { mask[j] = 1.0f; }
    }
}

static void forward_head(float *mixed, float *kept, float *log_sum, const float *attended, const float *x, uint32_t row,
                         size_t head, size_t length, size_t H, size_t D, Dropout dropout, float *scratch) {
    float *p = scratch, *mask = scratch + length;
    for (size_t j = 0; j < length; j++) { p[j] = dot(attended, x + j * H, H); }
    softmax_forward(p, log_sum, 1.0f / sqrtf((float)D), 1, length, length);
    draw_mask(mask, dropout, row, head, length);
    softmax_multiply(p, mask, length);
    *kept = sum_of(p, length);
    memset(mixed, 0, H * sizeof *mixed);
    for (size_t j = 0; j < length; j++) { add_scaled(mixed, p[j], x + j * H, H); }
}

void cpu_cls_attention_forward(Device *device, float *context, ClsAttention saved, const float *q, const float *x,
                               ClsProjections projections, Sequences sequences, Dropout dropout) {
    CpuDevice *cpu = cpu_device(device);
    const size_t A = (size_t)sequences.A, D = (size_t)sequences.D, H = A * D;
    const Range own = own_share(count_of(sequences.B), 1);
    through_heads(cpu, saved.attended, q, projections.key_weight, own, &sequences);
    for (size_t b = own.begin; b < own.end; b++) {
        const size_t first = (size_t)sequences.starts[b], length = (size_t)sequences.starts[b + 1] - first;
        float *scratch = device_scratch(cpu, SCRATCH_OPERATION, 2 * length);
        for (size_t a = 0; a < A; a++) {
            const size_t at = b * A + a;
            forward_head(saved.mixed + at * H, saved.kept + at, saved.log_sum + at, saved.attended + at * H,
                         x + first * H, sequences.rows[b], a, length, H, D, dropout, scratch);
        }
    }
    back_through_heads(cpu, context, saved.mixed, projections.value_weight, own, &sequences);
    for (size_t b = own.begin; b < own.end; b++) {
        for (size_t a = 0; a < A; a++) {
            add_scaled(context + b * H + a * D, saved.kept[b * A + a], projections.value_bias + a * D, D);
        }
    }
}

typedef struct {
    float *dx, *dattended;
    const float *dmixed, *attended, *x;
    float dkept, log_sum;
    uint32_t row;
    size_t head, length, H, D;
} HeadBackward;

static void backward_head(const HeadBackward *t, Dropout dropout, float *scratch) {
    const size_t length = t->length, H = t->H;
    const float scale = 1.0f / sqrtf((float)t->D);
    float *p = scratch, *mask = p + length, *dp = mask + length;
    for (size_t j = 0; j < length; j++) {
        p[j] = dot(t->attended, t->x + j * H, H);
        dp[j] = dot(t->dmixed, t->x + j * H, H) + t->dkept;
    }
    softmax_again(p, &t->log_sum, scale, 1, length, length);
    draw_mask(mask, dropout, t->row, t->head, length);
    softmax_multiply(dp, mask, length);
    const float mean = dot(p, dp, length);
    memset(t->dattended, 0, H * sizeof *t->dattended);
    for (size_t j = 0; j < length; j++) {
        const float dscore = p[j] * (dp[j] - mean) * scale;
        add_scaled(t->dattended, dscore, t->x + j * H, H);
        add_scaled(t->dx + j * H, dscore, t->attended, H);
        add_scaled(t->dx + j * H, p[j] * mask[j], t->dmixed, H);
    }
}

void cpu_cls_attention_backward(Device *device, float *dq, float *dx, float *dattended, float *dmixed,
                                const float *dcontext, ClsAttention saved, const float *x, ClsProjections projections,
                                Sequences sequences, Dropout dropout) {
    CpuDevice *cpu = cpu_device(device);
    const size_t A = (size_t)sequences.A, D = (size_t)sequences.D, H = A * D;
    const Range own = own_share(count_of(sequences.B), 1);
    through_heads(cpu, dmixed, dcontext, projections.value_weight, own, &sequences);
    for (size_t b = own.begin; b < own.end; b++) {
        const size_t first = (size_t)sequences.starts[b], length = (size_t)sequences.starts[b + 1] - first;
        float *scratch = device_scratch(cpu, SCRATCH_OPERATION, 3 * length);
        memset(dx + first * H, 0, length * H * sizeof *dx);
        for (size_t a = 0; a < A; a++) {
            const size_t at = b * A + a;
            const HeadBackward head = {dx + first * H,
                                       dattended + at * H,
                                       dmixed + at * H,
                                       saved.attended + at * H,
                                       x + first * H,
                                       dot(dcontext + b * H + a * D, projections.value_bias + a * D, D),
                                       saved.log_sum[at],
                                       sequences.rows[b],
                                       a,
                                       length,
                                       H,
                                       D};
            backward_head(&head, dropout, scratch);
        }
    }
    back_through_heads(cpu, dq, dattended, projections.key_weight, own, &sequences);
}

// dweight (H, H), lines a D .. a D + D - 1: in^T other over the sequences, for the lines that are the worker's own.
static void weight_product(CpuDevice *device, float *dweight, const float *in, const float *other, bool accumulate,
                           size_t B, size_t A, size_t D) {
    const size_t H = A * D;
    const Range own = own_share(H, 1);
    for (size_t begin = own.begin; begin < own.end;) {
        const size_t a = begin / D, end = (a + 1) * D < own.end ? (a + 1) * D : own.end;
        device_product(device, device->fp32,
                       (Product){.out = dweight + begin * H,
                                 .out_line = H,
                                 .add = accumulate ? dweight + begin * H : NULL,
                                 .add_line = H,
                                 .a = in + begin,
                                 .a_line = 1,
                                 .a_step = H,
                                 .b = other + a * H,
                                 .b_step = A * H,
                                 .b_column = 1,
                                 .M = end - begin,
                                 .N = H,
                                 .K = B});
        begin = end;
    }
}

void cpu_cls_attention_backward_weight(Device *device, ClsProjectionGradients gradients, const float *dattended,
                                       const float *dcontext, ClsAttention saved, const float *q, bool accumulate,
                                       Extent B, int A, int D) {
    CpuDevice *cpu = cpu_device(device);
    const size_t sequences = count_of(B), heads = (size_t)A, depth = (size_t)D, H = heads * depth;
    const Range own = own_share(H, 1);
    weight_product(cpu, gradients.key_weight, q, dattended, accumulate, sequences, heads, depth);
    weight_product(cpu, gradients.value_weight, dcontext, saved.mixed, accumulate, sequences, heads, depth);
    for (size_t h = own.begin; h < own.end; h++) {
        if (!accumulate) { gradients.key_bias[h] = gradients.value_bias[h] = 0.0f; }
        for (size_t b = 0; b < sequences; b++) {
            gradients.value_bias[h] += dcontext[b * H + h] * saved.kept[b * heads + h / depth];
        }
    }
}
