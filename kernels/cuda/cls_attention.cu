// Attention of each sequence's first line alone, with the projections of keys and values absorbed; see kernels.h. A
// block a sequence and head: one query makes vectors of all matrices.
#include <math.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

enum { CLS_THREADS = 256, CLS_WARPS = CLS_THREADS / WARP, CLS_LINES = 4 };

// One sequence and head.
typedef struct {
    size_t b, a, A, D, H;
    size_t first, length;
    uint32_t row;
} Head;

__device__ static Head head_of(const Sequences &s) {
    Head h;
    h.a = blockIdx.y;
    h.b = blockIdx.x;
    h.A = static_cast<size_t>(s.A);
    h.D = static_cast<size_t>(s.D);
    h.H = h.A * h.D;
    h.first = static_cast<size_t>(s.starts[h.b]);
    h.length = static_cast<size_t>(s.starts[h.b + 1]) - h.first;
    h.row = s.rows[h.b];
    return h;
}

// out (H) and its copy in memory = in (D) times the head's lines of the weight (H, H).
__device__ static void through_head(float *out, float *copy, const float *in, const float *weight, const Head &h) {
    for (size_t i = threadIdx.x; i < h.H; i += CLS_THREADS) {
        float sum = 0.0f;
#pragma unroll 16
        for (size_t d = 0; d < h.D; d++) { sum += in[d] * weight[(h.a * h.D + d) * h.H + i]; }
        out[i] = copy[i] = sum;
    }
}

__device__ static float lane_dot(const float *x, const float *y, size_t count) {
    float sum = 0.0f;
#pragma unroll 8
    for (size_t i = threadIdx.x % WARP; i < count; i += WARP) { sum += x[i] * y[i]; }
    return warp_sum(sum);
}

// out[d] = the head's line d of the weight times in (H), plus factor times bias where there is one.
__device__ static void back_through_head(float *out, const float *in, const float *weight, const float *bias,
                                         float factor, const Head &h) {
    for (size_t d = threadIdx.x / WARP; d < h.D; d += CLS_WARPS) {
        const float sum = lane_dot(weight + (h.a * h.D + d) * h.H, in, h.H);
        if (threadIdx.x % WARP == 0) { out[d] = sum + (bias ? factor * bias[h.a * h.D + d] : 0.0f); }
    }
}

// sums (H) and their copy in memory = factors (length) times the sequence's lines of x.
__device__ static void mix_lines(float *sums, float *copy, const float *factors, const float *x, const Head &h) {
    for (size_t i = threadIdx.x; i < h.H; i += CLS_THREADS) {
        float sum = 0.0f;
#pragma unroll 8
        for (size_t j = 0; j < h.length; j++) { sum += factors[j] * x[(h.first + j) * h.H + i]; }
        sums[i] = copy[i] = sum;
    }
}

__device__ static float key_factor(const Dropout &dropout, const Head &h, size_t key) {
    if (!(dropout.probability > 0.0f)) { return 1.0f; }
    float factors[4];
    dropout_factors(factors, dropout, h.row, static_cast<int>(h.a), 0, static_cast<int>(key));
    return factors[0];
}

// By one warp. p (length): scores become probabilities after dropout; *kept is their sum, *log_sum the logarithm of the
// softmax's.
__device__ static void softmax_line(float *p, float *kept, float *log_sum, const Dropout &dropout, const Head &h,
                                    float scale) {
    const size_t lane = threadIdx.x % WARP;
    float largest = -INFINITY, sum = 0.0f, left = 0.0f;
    for (size_t j = lane; j < h.length; j += WARP) {
        p[j] *= scale;
        largest = p[j] > largest ? p[j] : largest;
    }
    for (int distance = WARP / 2; distance; distance /= 2) {
        const float other = __shfl_xor_sync(0xFFFFFFFFu, largest, distance);
        largest = other > largest ? other : largest;
    }
    for (size_t j = lane; j < h.length; j += WARP) {
        p[j] = expf(p[j] - largest);
        sum += p[j];
    }
    sum = warp_sum(sum);
    for (size_t j = lane; j < h.length; j += WARP) {
        p[j] = p[j] / sum * key_factor(dropout, h, j);
        left += p[j];
    }
    left = warp_sum(left);
    if (lane == 0) {
        *kept = left;
        *log_sum = largest + logf(sum);
    }
}

typedef struct {
    float *context;
    ClsAttention saved;
    const float *q, *x;
    ClsProjections projections;
    Sequences sequences;
    Dropout dropout;
} ClsForward;

__global__ void __launch_bounds__(CLS_THREADS) cls_attention_forward_kernel(const ClsForward f) {
    SHARED_MEMORY(float, shared);
    if (static_cast<int>(blockIdx.x) >= extent_now(f.sequences.B)) { return; }
    const Head h = head_of(f.sequences);
    const size_t at = h.b * h.A + h.a;
    float *attended = shared, *mixed = attended + h.H, *kept = mixed + h.H, *p = kept + 1;
    through_head(attended, f.saved.attended + at * h.H, f.q + h.b * h.H + h.a * h.D, f.projections.key_weight, h);
    __syncthreads();
    for (size_t j = threadIdx.x / WARP; j < h.length; j += CLS_WARPS) {
        const float score = lane_dot(attended, f.x + (h.first + j) * h.H, h.H);
        if (threadIdx.x % WARP == 0) { p[j] = score; }
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        softmax_line(p, kept, f.saved.log_sum + at, f.dropout, h, 1.0f / sqrtf(static_cast<float>(h.D)));
        if (threadIdx.x == 0) { f.saved.kept[at] = *kept; }
    }
    __syncthreads();
    mix_lines(mixed, f.saved.mixed + at * h.H, p, f.x, h);
    __syncthreads();
    back_through_head(f.context + h.b * h.H + h.a * h.D, mixed, f.projections.value_weight, f.projections.value_bias,
                      *kept, h);
}

// What backward keeps of a line and head for the gradient of the line.
typedef struct {
    float dscore, kept;  // factors of attended and of dmixed
} ClsFactors;

typedef struct {
    float *dq, *dattended, *dmixed;
    ClsFactors *factors;  // (T, A)
    const float *dcontext, *x;
    ClsAttention saved;
    ClsProjections projections;
    Sequences sequences;
    Dropout dropout;
} ClsBackward;

// By one warp. dscores (length): gradients of the probabilities become those of the scores before scaling.
__device__ static void softmax_line_backward(float *dscores, const float *p, const ClsBackward &b, const Head &h,
                                             float scale) {
    const size_t lane = threadIdx.x % WARP;
    float mean = 0.0f;
    for (size_t j = lane; j < h.length; j += WARP) {
        dscores[j] *= key_factor(b.dropout, h, j);
        mean += p[j] * dscores[j];
    }
    mean = warp_sum(mean);
    for (size_t j = lane; j < h.length; j += WARP) {
        dscores[j] = p[j] * (dscores[j] - mean) * scale;
        const ClsFactors factors = {dscores[j], p[j] * key_factor(b.dropout, h, j)};
        b.factors[(h.first + j) * h.A + h.a] = factors;
    }
}

__global__ void __launch_bounds__(CLS_THREADS) cls_attention_backward_kernel(const ClsBackward b) {
    SHARED_MEMORY(float, shared);
    if (static_cast<int>(blockIdx.x) >= extent_now(b.sequences.B)) { return; }
    const Head h = head_of(b.sequences);
    const size_t at = h.b * h.A + h.a;
    const float scale = 1.0f / sqrtf(static_cast<float>(h.D)), log_sum = b.saved.log_sum[at];
    float *dmixed = shared, *dattended = dmixed + h.H, *p = dattended + h.H, *dscores = p + b.sequences.longest;
    const float *dcontext = b.dcontext + h.b * h.H + h.a * h.D, *attended = b.saved.attended + at * h.H;
    through_head(dmixed, b.dmixed + at * h.H, dcontext, b.projections.value_weight, h);
    __syncthreads();
    const float dkept = lane_dot(dcontext, b.projections.value_bias + h.a * h.D, h.D);
    for (size_t j = threadIdx.x / WARP; j < h.length; j += CLS_WARPS) {
        const float *line = b.x + (h.first + j) * h.H;
        const float score = lane_dot(attended, line, h.H), dp = lane_dot(dmixed, line, h.H) + dkept;
        if (threadIdx.x % WARP == 0) {
            p[j] = expf(score * scale - log_sum);
            dscores[j] = dp;
        }
    }
    __syncthreads();
    if (threadIdx.x < WARP) { softmax_line_backward(dscores, p, b, h, scale); }
    __syncthreads();
    mix_lines(dattended, b.dattended + at * h.H, dscores, b.x, h);
    __syncthreads();
    back_through_head(b.dq + h.b * h.H + h.a * h.D, dattended, b.projections.key_weight, NULL, 0.0f, h);
}

typedef struct {
    float *dx;
    const ClsFactors *factors;
    const float *attended, *dmixed;  // (B, A, H)
    Sequences sequences;
} ClsLines;

// A warp a line of x.
__global__ void __launch_bounds__(CLS_LINES *WARP) cls_attention_lines_kernel(const ClsLines l) {
    const int B = extent_now(l.sequences.B), A = l.sequences.A, H = A * l.sequences.D;
    const int t = static_cast<int>(blockIdx.x * CLS_LINES + threadIdx.x / WARP);
    if (t >= l.sequences.starts[B]) { return; }
    const size_t b = static_cast<size_t>(sequence_of(l.sequences.starts, B, t)), line = static_cast<size_t>(t);
    for (size_t i = threadIdx.x % WARP; i < static_cast<size_t>(H); i += WARP) {
        float sum = 0.0f;
        for (size_t a = 0; a < static_cast<size_t>(A); a++) {
            const size_t at = (b * static_cast<size_t>(A) + a) * static_cast<size_t>(H) + i;
            const ClsFactors factors = l.factors[line * static_cast<size_t>(A) + a];
            sum += factors.dscore * l.attended[at] + factors.kept * l.dmixed[at];
        }
        l.dx[line * static_cast<size_t>(H) + i] = sum;
    }
}

static dim3 heads_grid(const Sequences &s) { return dim3(static_cast<unsigned>(s.B.most), static_cast<unsigned>(s.A)); }

void cuda_cls_attention_forward(Device *device, float *context, ClsAttention saved, const float *q, const float *x,
                                ClsProjections projections, Sequences sequences, Dropout dropout) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    const size_t H = static_cast<size_t>(sequences.A * sequences.D);
    const ClsForward forward = {context, saved, q, x, projections, sequences, dropout};
    cuda_launch(cuda, cls_attention_forward_kernel, heads_grid(sequences), CLS_THREADS,
                (2 * H + 1 + static_cast<size_t>(sequences.longest)) * sizeof(float), forward);
    cuda_settle(cuda);
}

void cuda_cls_attention_backward(Device *device, float *dq, float *dx, float *dattended, float *dmixed,
                                 const float *dcontext, ClsAttention saved, const float *x, ClsProjections projections,
                                 Sequences sequences, Dropout dropout) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    const size_t H = static_cast<size_t>(sequences.A * sequences.D), T = static_cast<size_t>(sequences.T.most);
    ClsFactors *factors =
        static_cast<ClsFactors *>(cuda_work(cuda, WORK_CLS, T * static_cast<size_t>(sequences.A) * sizeof *factors));
    const ClsBackward backward = {dq, dattended, dmixed, factors, dcontext, x, saved, projections, sequences, dropout};
    cuda_launch(cuda, cls_attention_backward_kernel, heads_grid(sequences), CLS_THREADS,
                (2 * H + 2 * static_cast<size_t>(sequences.longest)) * sizeof(float), backward);
    const ClsLines lines = {dx, factors, saved.attended, dmixed, sequences};
    cuda_launch(cuda, cls_attention_lines_kernel, dim3(blocks_for(T, CLS_LINES)), CLS_LINES * WARP, 0, lines);
    cuda_settle(cuda);
}
