// Attention per sequence and head. A block takes ATT_TILE neighbouring lines of one head as queries, or in the second
// half of backward as keys, and goes through the lines of their sequences in chunks: scores of a tile with a whole
// sequence fit into shared memory. Only the logarithm of each softmax sum is kept; backward computes the probabilities
// again, as FlashAttention does (Dao et al., 2022), once for the queries' gradient and once for the keys' and values',
// so that no two blocks add to the same element.
#include <math.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

enum {
    ATT_TILE = 16,
    ATT_CHUNK = 32,
    ATT_THREADS = 128,
    ATT_DEPTH = 128,                                // largest size of a head
    ATT_SUMS = ATT_TILE * ATT_DEPTH / ATT_THREADS,  // of a thread
    ATT_ROWS = ATT_TILE * ATT_CHUNK / ATT_THREADS   // of a tile that a thread meets with its line of a chunk
};

// The part of one sequence that a block works on, for one head.
typedef struct {
    int first, length;  // lines of the sequence
    int begin, count;   // those of the tile, relative to first
    int head, D, H;
    uint32_t row;
} Part;

// lines (count, D) with D + 1 floats from line to line <- count lines of a matrix.
__device__ static void load_lines(float *lines, const float *from, size_t stride, int count, int D) {
    for (int i = static_cast<int>(threadIdx.x); i < count * D; i += ATT_THREADS) {
        lines[i / D * (D + 1) + i % D] = from[static_cast<size_t>(i / D) * stride + static_cast<size_t>(i % D)];
    }
}

// scores[r * pitch + c] = tile line r times chunk line c; c < columns.
__device__ static void score_chunk(float *scores, int pitch, const float *tile, const float *chunk, int columns,
                                   int D) {
    const int c = static_cast<int>(threadIdx.x) % ATT_CHUNK, r0 = static_cast<int>(threadIdx.x) / ATT_CHUNK * ATT_ROWS;
    if (c >= columns) { return; }
    float sums[ATT_ROWS] = {};
    for (int d = 0; d < D; d++) {
        const float y = chunk[c * (D + 1) + d];
#pragma unroll
        for (int r = 0; r < ATT_ROWS; r++) { sums[r] += tile[(r0 + r) * (D + 1) + d] * y; }
    }
    for (int r = 0; r < ATT_ROWS; r++) { scores[(r0 + r) * pitch + c] = sums[r]; }
}

// The thread's sums of factors (ATT_TILE, count) times chunk (count, D), of elements threadIdx.x, + ATT_THREADS, ...
__device__ static void add_chunk(float sums[ATT_SUMS], const float *factors, int pitch, const float *chunk, int count,
                                 int D) {
#pragma unroll
    for (int i = 0; i < ATT_SUMS; i++) {
        const int at = static_cast<int>(threadIdx.x) + i * ATT_THREADS, line = at / D, d = at % D;
        if (line >= ATT_TILE) { break; }
        for (int c = 0; c < count; c++) { sums[i] += factors[line * pitch + c] * chunk[c * (D + 1) + d]; }
    }
}

__device__ static void store_sums(float *out, size_t stride, const float sums[ATT_SUMS], int count, int D) {
#pragma unroll
    for (int i = 0; i < ATT_SUMS; i++) {
        const int at = static_cast<int>(threadIdx.x) + i * ATT_THREADS, line = at / D, d = at % D;
        if (line < count) { out[static_cast<size_t>(line) * stride + static_cast<size_t>(d)] = sums[i]; }
    }
}

// values[(query - query0) * query_pitch + (key - key0) * key_pitch] *= dropout's factor.
__device__ static void drop(float *values, const Dropout &dropout, const Part &part, int query0, int queries,
                            int query_pitch, int key0, int keys, int key_pitch) {
    if (!(dropout.probability > 0.0f)) { return; }
    const int quad0 = query0 / 4, quads = (query0 + queries + 3) / 4 - quad0;
    for (int i = static_cast<int>(threadIdx.x); i < quads * keys; i += ATT_THREADS) {
        const int quad = quad0 + i / keys, key = i % keys;
        float factors[4];
        dropout_factors(factors, dropout, part.row, part.head, quad, key0 + key);
        for (int q = 0; q < 4; q++) {
            const int query = 4 * quad + q - query0;
            if (query >= 0 && query < queries) { values[query * query_pitch + key * key_pitch] *= factors[q]; }
        }
    }
}

// run(part) for each sequence that the block's tile meets. A tile may end one and begin the next.
template <typename F>
__device__ __forceinline__ void for_parts(const Sequences &s, F run) {
    const int B = extent_now(s.B), lines = s.starts[B], head = static_cast<int>(blockIdx.y);
    const int begin = static_cast<int>(blockIdx.x) * ATT_TILE;
    const int end = begin + ATT_TILE < lines ? begin + ATT_TILE : lines;
    if (begin >= end) { return; }
    for (int b = sequence_of(s.starts, B, begin); b < B && s.starts[b] < end; b++) {
        const int first = s.starts[b], next = s.starts[b + 1];
        const int from = begin > first ? begin : first, to = end < next ? end : next;
        if (from >= to) { continue; }
        const Part part = {first, next - first, from - first, to - from, head, s.D, s.A * s.D, s.rows[b]};
        run(part);
        __syncthreads();
    }
}

typedef struct {
    float *out, *log_sum;
    const float *qkv;
    size_t lines;  // from head to head of log_sum
    Sequences sequences;
    Dropout dropout;
} AttentionForward;

// A warp a line: scores become probabilities; log_sum of the line.
__device__ static void softmax_lines(float *scores, int pitch, float *log_sum, int lines, int keys, float scale) {
    const int lane = static_cast<int>(threadIdx.x % WARP);
    for (int r = static_cast<int>(threadIdx.x / WARP); r < lines; r += ATT_THREADS / WARP) {
        float *s = scores + r * pitch;
        float largest = -INFINITY, sum = 0.0f;
        for (int j = lane; j < keys; j += WARP) {
            s[j] *= scale;
            largest = s[j] > largest ? s[j] : largest;
        }
        for (int distance = WARP / 2; distance; distance /= 2) {
            const float other = __shfl_xor_sync(0xFFFFFFFFu, largest, distance);
            largest = other > largest ? other : largest;
        }
        for (int j = lane; j < keys; j += WARP) {
            s[j] = expf(s[j] - largest);
            sum += s[j];
        }
        sum = warp_sum(sum);
        for (int j = lane; j < keys; j += WARP) { s[j] /= sum; }
        if (lane == 0) { log_sum[r] = largest + logf(sum); }
    }
}

__device__ static void forward_part(const AttentionForward &f, const Part &p, float *shared, int pitch) {
    float *tile = shared, *chunk = tile + ATT_TILE * (p.D + 1), *scores = chunk + ATT_CHUNK * (p.D + 1);
    const size_t stride = 3 * static_cast<size_t>(p.H), at = static_cast<size_t>(p.first + p.begin);
    const float *q = f.qkv + static_cast<size_t>(p.first) * stride + static_cast<size_t>(p.head * p.D);
    const float *k = q + p.H, *v = k + p.H;
    load_lines(tile, q + static_cast<size_t>(p.begin) * stride, stride, p.count, p.D);
    for (int c = 0; c < p.length; c += ATT_CHUNK) {
        const int count = p.length - c < ATT_CHUNK ? p.length - c : ATT_CHUNK;
        load_lines(chunk, k + static_cast<size_t>(c) * stride, stride, count, p.D);
        __syncthreads();
        score_chunk(scores + c, pitch, tile, chunk, count, p.D);
        __syncthreads();
    }
    softmax_lines(scores, pitch, f.log_sum + static_cast<size_t>(p.head) * f.lines + at, p.count, p.length,
                  1.0f / sqrtf(static_cast<float>(p.D)));
    __syncthreads();
    drop(scores, f.dropout, p, p.begin, p.count, pitch, 0, p.length, 1);
    float sums[ATT_SUMS] = {};
    for (int c = 0; c < p.length; c += ATT_CHUNK) {
        const int count = p.length - c < ATT_CHUNK ? p.length - c : ATT_CHUNK;
        load_lines(chunk, v + static_cast<size_t>(c) * stride, stride, count, p.D);
        __syncthreads();
        add_chunk(sums, scores + c, pitch, chunk, count, p.D);
        __syncthreads();
    }
    store_sums(f.out + at * static_cast<size_t>(p.H) + static_cast<size_t>(p.head * p.D), static_cast<size_t>(p.H),
               sums, p.count, p.D);
}

__global__ void __launch_bounds__(ATT_THREADS) attention_forward_kernel(const AttentionForward f) {
    SHARED_MEMORY(float, shared);
    for_parts(f.sequences, [&](const Part &part) { forward_part(f, part, shared, f.sequences.longest + 1); });
}

typedef struct {
    float *dqkv;
    const float *dout, *out, *log_sum, *qkv;
    size_t lines;
    Sequences sequences;
    Dropout dropout;
} AttentionBackward;

// dots[r] = the sum of dout * out of count lines: the softmax's Jacobian needs it.
__device__ static void dot_lines(float *dots, const float *dout, const float *out, int count, int H, int D) {
    const int lane = static_cast<int>(threadIdx.x % WARP);
    for (int r = static_cast<int>(threadIdx.x / WARP); r < count; r += ATT_THREADS / WARP) {
        float sum = 0.0f;
        for (int d = lane; d < D; d += WARP) {
            const size_t at = static_cast<size_t>(r) * static_cast<size_t>(H) + static_cast<size_t>(d);
            sum += dout[at] * out[at];
        }
        sum = warp_sum(sum);
        if (lane == 0) { dots[r] = sum; }
    }
}

// What one part of backward reads, at the part's first sequence line and head.
typedef struct {
    const float *q, *k, *v, *dout, *out, *log_sum;
    float *dq, *dk, *dv;
    size_t stride, H;
    float scale;
} BackwardLines;

__device__ static BackwardLines backward_lines_of(const AttentionBackward &b, const Part &p) {
    BackwardLines l;
    l.H = static_cast<size_t>(p.H);
    l.stride = 3 * l.H;
    const size_t head = static_cast<size_t>(p.head * p.D), first = static_cast<size_t>(p.first);
    l.q = b.qkv + first * l.stride + head;
    l.k = l.q + l.H;
    l.v = l.k + l.H;
    l.dq = b.dqkv + first * l.stride + head;
    l.dk = l.dq + l.H;
    l.dv = l.dk + l.H;
    l.dout = b.dout + first * l.H + head;
    l.out = b.out + first * l.H + head;
    l.log_sum = b.log_sum + static_cast<size_t>(p.head) * b.lines + first;
    l.scale = 1.0f / sqrtf(static_cast<float>(p.D));
    return l;
}

// The tile's lines as queries: dq.
__device__ static void backward_queries(const AttentionBackward &b, const Part &p, float *shared, int pitch) {
    const BackwardLines l = backward_lines_of(b, p);
    float *q = shared, *dout = q + ATT_TILE * (p.D + 1), *chunk = dout + ATT_TILE * (p.D + 1);
    float *dots = chunk + ATT_CHUNK * (p.D + 1), *scores = dots + ATT_CHUNK, *dscores = scores + ATT_TILE * pitch;
    const size_t begin = static_cast<size_t>(p.begin);
    load_lines(q, l.q + begin * l.stride, l.stride, p.count, p.D);
    load_lines(dout, l.dout + begin * l.H, l.H, p.count, p.D);
    dot_lines(dots, l.dout + begin * l.H, l.out + begin * l.H, p.count, p.H, p.D);
    for (int c = 0; c < p.length; c += ATT_CHUNK) {
        const int count = p.length - c < ATT_CHUNK ? p.length - c : ATT_CHUNK;
        load_lines(chunk, l.k + static_cast<size_t>(c) * l.stride, l.stride, count, p.D);
        __syncthreads();
        score_chunk(scores + c, pitch, q, chunk, count, p.D);
        __syncthreads();
        load_lines(chunk, l.v + static_cast<size_t>(c) * l.stride, l.stride, count, p.D);
        __syncthreads();
        score_chunk(dscores + c, pitch, dout, chunk, count, p.D);
        __syncthreads();
    }
    drop(dscores, b.dropout, p, p.begin, p.count, pitch, 0, p.length, 1);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < p.count * p.length; i += ATT_THREADS) {
        const int r = i / p.length, at = r * pitch + i % p.length;
        const float probability = expf(scores[at] * l.scale - l.log_sum[p.begin + r]);
        dscores[at] = probability * (dscores[at] - dots[r]) * l.scale;
    }
    float sums[ATT_SUMS] = {};
    for (int c = 0; c < p.length; c += ATT_CHUNK) {
        const int count = p.length - c < ATT_CHUNK ? p.length - c : ATT_CHUNK;
        load_lines(chunk, l.k + static_cast<size_t>(c) * l.stride, l.stride, count, p.D);
        __syncthreads();
        add_chunk(sums, dscores + c, pitch, chunk, count, p.D);
        __syncthreads();
    }
    store_sums(l.dq + begin * l.stride, l.stride, sums, p.count, p.D);
}

// The tile's lines as keys: dk and dv.
__device__ static void backward_keys(const AttentionBackward &b, const Part &p, float *shared) {
    enum { PITCH = ATT_CHUNK + 1 };
    const BackwardLines l = backward_lines_of(b, p);
    float *k = shared, *v = k + ATT_TILE * (p.D + 1), *q = v + ATT_TILE * (p.D + 1), *dout = q + ATT_CHUNK * (p.D + 1);
    float *dots = dout + ATT_CHUNK * (p.D + 1), *scores = dots + ATT_CHUNK, *dscores = scores + ATT_TILE * PITCH;
    float dk[ATT_SUMS] = {}, dv[ATT_SUMS] = {};
    const size_t begin = static_cast<size_t>(p.begin);
    load_lines(k, l.k + begin * l.stride, l.stride, p.count, p.D);
    load_lines(v, l.v + begin * l.stride, l.stride, p.count, p.D);
    for (int c = 0; c < p.length; c += ATT_CHUNK) {
        const int count = p.length - c < ATT_CHUNK ? p.length - c : ATT_CHUNK;
        const size_t at = static_cast<size_t>(c);
        load_lines(q, l.q + at * l.stride, l.stride, count, p.D);
        load_lines(dout, l.dout + at * l.H, l.H, count, p.D);
        dot_lines(dots, l.dout + at * l.H, l.out + at * l.H, count, p.H, p.D);
        __syncthreads();
        score_chunk(scores, PITCH, k, q, count, p.D);
        score_chunk(dscores, PITCH, v, dout, count, p.D);
        __syncthreads();
        drop(dscores, b.dropout, p, c, count, 1, p.begin, p.count, PITCH);
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < p.count * count; i += ATT_THREADS) {
            const int query = i % count, cell = i / count * PITCH + query;
            const float probability = expf(scores[cell] * l.scale - l.log_sum[c + query]);
            dscores[cell] = probability * (dscores[cell] - dots[query]) * l.scale;
            scores[cell] = probability;
        }
        __syncthreads();
        drop(scores, b.dropout, p, c, count, 1, p.begin, p.count, PITCH);
        __syncthreads();
        add_chunk(dv, scores, PITCH, dout, count, p.D);
        add_chunk(dk, dscores, PITCH, q, count, p.D);
        __syncthreads();
    }
    store_sums(l.dk + begin * l.stride, l.stride, dk, p.count, p.D);
    store_sums(l.dv + begin * l.stride, l.stride, dv, p.count, p.D);
}

__global__ void __launch_bounds__(ATT_THREADS) attention_backward_kernel(const AttentionBackward b) {
    SHARED_MEMORY(float, shared);
    if (blockIdx.z == 0) {
        for_parts(b.sequences, [&](const Part &part) { backward_queries(b, part, shared, b.sequences.longest + 1); });
    } else {
        for_parts(b.sequences, [&](const Part &part) { backward_keys(b, part, shared); });
    }
}

static dim3 attention_grid(const Sequences &s, unsigned halves) {
    CHECK(s.D <= ATT_DEPTH);
    return dim3(blocks_for(static_cast<size_t>(s.T.most), ATT_TILE), static_cast<unsigned>(s.A), halves);
}

// Floats of lines of a head in shared memory, and of a tile's scores.
static size_t line_floats(const Sequences &s, size_t lines) { return lines * (static_cast<size_t>(s.D) + 1); }
static size_t score_floats(size_t length) { return ATT_TILE * (length + 1); }

void cuda_attention_forward(Device *device, float *out, float *log_sum, const float *qkv, Sequences sequences,
                            Dropout dropout) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    const AttentionForward forward = {out, log_sum, qkv, static_cast<size_t>(sequences.T.most), sequences, dropout};
    const size_t floats =
        line_floats(sequences, ATT_TILE + ATT_CHUNK) + score_floats(static_cast<size_t>(sequences.longest));
    cuda_launch(cuda, attention_forward_kernel, attention_grid(sequences, 1), ATT_THREADS, floats * sizeof(float),
                forward);
    cuda_settle(cuda);
}

void cuda_attention_backward(Device *device, float *dqkv, const float *dout, const float *out, const float *log_sum,
                             const float *qkv, Sequences sequences, Dropout dropout) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    const AttentionBackward backward = {dqkv,      dout,   out, log_sum, qkv, static_cast<size_t>(sequences.T.most),
                                        sequences, dropout};
    const size_t queries = line_floats(sequences, 2 * ATT_TILE + ATT_CHUNK) + ATT_CHUNK +
                           2 * score_floats(static_cast<size_t>(sequences.longest));
    const size_t keys = line_floats(sequences, 2 * ATT_TILE + 2 * ATT_CHUNK) + ATT_CHUNK + 2 * score_floats(ATT_CHUNK);
    cuda_launch(cuda, attention_backward_kernel, attention_grid(sequences, 2), ATT_THREADS,
                (queries > keys ? queries : keys) * sizeof(float), backward);
    cuda_settle(cuda);
}
