// Attention per sequence and head. A block takes ATT_TILE lines of one sequence and head as queries, or in the second
// half of backward as keys, and goes through the lines of the sequence in chunks: scores of a tile with a whole
// sequence fit into shared memory, and most sequences are one chunk. Only the logarithm of each softmax sum is kept;
// backward computes the probabilities again, as FlashAttention does (Dao et al., 2022), once for the queries' gradient
// and once for the keys' and values', so that no two blocks add to the same element.
#include <math.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

enum {
    ATT_TILE = 16,
    ATT_THREADS = 256,
    ATT_DEPTH = 256,                                // largest size of a head
    ATT_SUMS = ATT_TILE * ATT_DEPTH / ATT_THREADS,  // of a thread, most
    ATT_CHUNK = 64,                                 // lines, where shared memory is large enough; else
    ATT_CHUNK_SMALL = 32
};

// The part of one sequence that a block works on, for one head.
typedef struct {
    int first, length;  // lines of the sequence
    int begin, count;   // those of the tile, relative to first
    int head, D, H;
    uint32_t row;
} Part;

// Floats from line to line in shared memory: of lines of a head, zero up to a multiple of 4, and of scores. Neither
// makes eight lanes that read 16 bytes each of neighbouring lines meet in a bank.
__host__ __device__ constexpr int line_pitch(int D) { return (D + 3) / 4 * 4 + 4; }
__host__ __device__ constexpr int score_pitch(int length) {
    return (length + ATT_CHUNK - 1) / ATT_CHUNK * ATT_CHUNK + 4;
}

// Begins to copy `count` lines of a matrix, and zeros up to `all` lines.
template <int DEPTH>
__device__ static void begin_lines(float *lines, const float *from, size_t stride, int count, int all, int run_time_D) {
    const int D = DEPTH ? DEPTH : run_time_D, quads = (D + 3) / 4, pitch = line_pitch(D);
    for (int i = static_cast<int>(threadIdx.x); i < all * quads; i += ATT_THREADS) {
        const int line = i / quads, at = i % quads * 4, valid = line >= count ? 0 : D - at < 4 ? D - at : 4;
        const float *source = from + (valid ? static_cast<size_t>(line) * stride + static_cast<size_t>(at) : 0);
        if (DEPTH) {
            copy_begin<16>(lines + line * pitch + at, source, 4 * valid);
        } else {
            for (int k = 0; k < 4; k++) {
                copy_begin<4>(lines + line * pitch + at + k, k < valid ? source + k : from, k < valid ? 4 : 0);
            }
        }
    }
}

// Waits for all copies of the block but the last `GROUPS` groups.
template <int GROUPS>
__device__ __forceinline__ void finish_lines() {
    copy_wait<GROUPS>();
    __syncthreads();
}

// scores[r * pitch + c] = tile line r times chunk line c, for all CHUNK lines: zero where the chunk is.
template <int DEPTH, int CHUNK>
__device__ static void score_chunk(float *scores, int pitch, const float *tile, const float *chunk, int run_time_D) {
    constexpr int ROWS = ATT_TILE * CHUNK / ATT_THREADS;  // of the tile that a thread meets with its line of the chunk
    const int D = DEPTH ? DEPTH : run_time_D, lines = line_pitch(D);
    const int c = static_cast<int>(threadIdx.x) % CHUNK, r0 = static_cast<int>(threadIdx.x) / CHUNK * ROWS;
    float sums[ROWS] = {};
    for (int d = 0; d < D; d += 4) {
        const float4 y = *reinterpret_cast<const float4 *>(chunk + c * lines + d);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float4 x = *reinterpret_cast<const float4 *>(tile + (r0 + r) * lines + d);
            sums[r] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) { scores[(r0 + r) * pitch + c] = sums[r]; }
}

// The thread's sums of factors (ATT_TILE, count) times chunk (count, D), of elements threadIdx.x, +
// ATT_THREADS,
// ...; lines behind `count` are zero in both.
template <int DEPTH>
__device__ static void add_chunk(float sums[ATT_SUMS], const float *factors, int pitch, const float *chunk, int count,
                                 int run_time_D) {
    const int D = DEPTH ? DEPTH : run_time_D, lines = line_pitch(D);
#pragma unroll
    for (int i = 0; i < (DEPTH ? ATT_TILE * DEPTH / ATT_THREADS : ATT_SUMS); i++) {
        const int at = static_cast<int>(threadIdx.x) + i * ATT_THREADS, line = at / D, d = at % D;
        if (!DEPTH && line >= ATT_TILE) { break; }
        float sum = sums[i];
        for (int c = 0; c < count; c += 4) {
            const float4 x = *reinterpret_cast<const float4 *>(factors + line * pitch + c);
            const float *y = chunk + c * lines + d;
            sum += x.x * y[0] + x.y * y[lines] + x.z * y[2 * lines] + x.w * y[3 * lines];
        }
        sums[i] = sum;
    }
}

template <int DEPTH>
__device__ static void store_sums(float *out, size_t stride, const float sums[ATT_SUMS], int count, int run_time_D) {
    const int D = DEPTH ? DEPTH : run_time_D;
#pragma unroll
    for (int i = 0; i < (DEPTH ? ATT_TILE * DEPTH / ATT_THREADS : ATT_SUMS); i++) {
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

// The block's part, or one without lines. Sequence b has the tiles starts[b] / ATT_TILE + b and following: places
// enough for its own, and found without a list.
__device__ static Part part_of(const Sequences &s) {
    const int B = extent_now(s.B), block = static_cast<int>(blockIdx.x);
    int low = 0, high = B;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (s.starts[middle] / ATT_TILE + middle <= block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Part part = {};
    if (B == 0) { return part; }
    const int first = s.starts[low], length = s.starts[low + 1] - first;
    const int begin = (block - first / ATT_TILE - low) * ATT_TILE, left = length - begin;
    part.first = first;
    part.length = length;
    part.begin = begin;
    part.count = left < 0 ? 0 : left < ATT_TILE ? left : ATT_TILE;
    part.head = static_cast<int>(blockIdx.y);
    part.D = s.D;
    part.H = s.A * s.D;
    part.row = s.rows[low];
    return part;
}

typedef struct {
    float *out, *log_sum;
    const float *qkv;
    size_t lines;  // from head to head of log_sum
    Sequences sequences;
    Dropout dropout;
} AttentionForward;

// A warp a line: scores become probabilities, zero behind the keys; log_sum of the line.
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
        for (int j = lane; j < (keys + 3) / 4 * 4; j += WARP) { s[j] = j < keys ? s[j] / sum : 0.0f; }
        if (lane == 0) { log_sum[r] = largest + logf(sum); }
    }
}

template <int DEPTH, int CHUNK>
__device__ static void forward_part(const AttentionForward &f, const Part &p, float *shared, int pitch) {
    const int lines = line_pitch(p.D);
    float *tile = shared, *keys = tile + ATT_TILE * lines, *values = keys + CHUNK * lines;
    float *scores = values + CHUNK * lines;
    const size_t stride = 3 * static_cast<size_t>(p.H), at = static_cast<size_t>(p.first + p.begin);
    const float *q = f.qkv + static_cast<size_t>(p.first) * stride + static_cast<size_t>(p.head * p.D);
    const float *k = q + p.H, *v = k + p.H;
    const auto left = [&](int c) { return p.length - c < CHUNK ? p.length - c : CHUNK; };
    begin_lines<DEPTH>(tile, q + static_cast<size_t>(p.begin) * stride, stride, p.count, ATT_TILE, p.D);
    begin_lines<DEPTH>(keys, k, stride, left(0), CHUNK, p.D);
    copy_commit();
    begin_lines<DEPTH>(values, v, stride, left(0), CHUNK, p.D);
    copy_commit();
    finish_lines<1>();
    for (int c = 0; c < p.length; c += CHUNK) {
        if (c > 0) {
            begin_lines<DEPTH>(keys, k + static_cast<size_t>(c) * stride, stride, left(c), CHUNK, p.D);
            copy_commit();
            finish_lines<0>();
        }
        score_chunk<DEPTH, CHUNK>(scores + c, pitch, tile, keys, p.D);
        __syncthreads();
    }
    softmax_lines(scores, pitch, f.log_sum + static_cast<size_t>(p.head) * f.lines + at, p.count, p.length,
                  1.0f / sqrtf(static_cast<float>(p.D)));
    __syncthreads();
    drop(scores, f.dropout, p, p.begin, p.count, pitch, 0, p.length, 1);
    finish_lines<0>();
    float sums[ATT_SUMS] = {};
    for (int c = 0; c < p.length; c += CHUNK) {
        if (c > 0) {
            __syncthreads();
            begin_lines<DEPTH>(values, v + static_cast<size_t>(c) * stride, stride, left(c), CHUNK, p.D);
            copy_commit();
            finish_lines<0>();
        }
        add_chunk<DEPTH>(sums, scores + c, pitch, values, left(c), p.D);
    }
    store_sums<DEPTH>(f.out + at * static_cast<size_t>(p.H) + static_cast<size_t>(p.head * p.D),
                      static_cast<size_t>(p.H), sums, p.count, p.D);
}

template <int DEPTH, int CHUNK>
__global__ void __launch_bounds__(ATT_THREADS) attention_forward_kernel(const AttentionForward f) {
    SHARED_MEMORY(float, shared);
    const Part part = part_of(f.sequences);
    if (part.count > 0) { forward_part<DEPTH, CHUNK>(f, part, shared, score_pitch(f.sequences.longest)); }
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
template <int DEPTH, int CHUNK>
__device__ static void backward_queries(const AttentionBackward &b, const Part &p, float *shared, int pitch) {
    const BackwardLines l = backward_lines_of(b, p);
    const int lines = line_pitch(p.D);
    float *q = shared, *dout = q + ATT_TILE * lines, *keys = dout + ATT_TILE * lines, *values = keys + CHUNK * lines;
    float *dots = values + CHUNK * lines, *scores = dots + CHUNK, *dscores = scores + ATT_TILE * pitch;
    const size_t begin = static_cast<size_t>(p.begin);
    const auto left = [&](int c) { return p.length - c < CHUNK ? p.length - c : CHUNK; };
    const auto begin_chunk = [&](float *chunk, const float *from, int c) {
        begin_lines<DEPTH>(chunk, from + static_cast<size_t>(c) * l.stride, l.stride, left(c), CHUNK, p.D);
    };
    begin_lines<DEPTH>(q, l.q + begin * l.stride, l.stride, p.count, ATT_TILE, p.D);
    begin_lines<DEPTH>(dout, l.dout + begin * l.H, l.H, p.count, ATT_TILE, p.D);
    for (int c = 0; c < p.length; c += CHUNK) {
        begin_chunk(keys, l.k, c);
        begin_chunk(values, l.v, c);
        copy_commit();
        if (c == 0) { dot_lines(dots, l.dout + begin * l.H, l.out + begin * l.H, p.count, p.H, p.D); }
        finish_lines<0>();
        score_chunk<DEPTH, CHUNK>(scores + c, pitch, q, keys, p.D);
        score_chunk<DEPTH, CHUNK>(dscores + c, pitch, dout, values, p.D);
        __syncthreads();
    }
    drop(dscores, b.dropout, p, p.begin, p.count, pitch, 0, p.length, 1);
    __syncthreads();
    const int padded = (p.length + 3) / 4 * 4;
    for (int i = static_cast<int>(threadIdx.x); i < p.count * padded; i += ATT_THREADS) {
        const int r = i / padded, key = i % padded, at = r * pitch + key;
        const float probability = key < p.length ? expf(scores[at] * l.scale - l.log_sum[p.begin + r]) : 0.0f;
        dscores[at] = key < p.length ? probability * (dscores[at] - dots[r]) * l.scale : 0.0f;
    }
    __syncthreads();
    float sums[ATT_SUMS] = {};
    for (int c = 0; c < p.length; c += CHUNK) {
        if (p.length > CHUNK) {
            begin_chunk(keys, l.k, c);
            copy_commit();
            finish_lines<0>();
        }
        add_chunk<DEPTH>(sums, dscores + c, pitch, keys, left(c), p.D);
        __syncthreads();
    }
    store_sums<DEPTH>(l.dq + begin * l.stride, l.stride, sums, p.count, p.D);
}

// The tile's lines as keys: dk and dv.
template <int DEPTH, int CHUNK>
__device__ static void backward_keys(const AttentionBackward &b, const Part &p, float *shared) {
    constexpr int PITCH = score_pitch(CHUNK);
    const BackwardLines l = backward_lines_of(b, p);
    const int lines = line_pitch(p.D);
    float *k = shared, *v = k + ATT_TILE * lines, *q = v + ATT_TILE * lines, *dout = q + CHUNK * lines;
    float *dots = dout + CHUNK * lines, *scores = dots + CHUNK, *dscores = scores + ATT_TILE * PITCH;
    float dk[ATT_SUMS] = {}, dv[ATT_SUMS] = {};
    const size_t begin = static_cast<size_t>(p.begin);
    begin_lines<DEPTH>(k, l.k + begin * l.stride, l.stride, p.count, ATT_TILE, p.D);
    begin_lines<DEPTH>(v, l.v + begin * l.stride, l.stride, p.count, ATT_TILE, p.D);
    for (int c = 0; c < p.length; c += CHUNK) {
        const int count = p.length - c < CHUNK ? p.length - c : CHUNK, padded = (count + 3) / 4 * 4;
        const size_t at = static_cast<size_t>(c);
        begin_lines<DEPTH>(q, l.q + at * l.stride, l.stride, count, CHUNK, p.D);
        begin_lines<DEPTH>(dout, l.dout + at * l.H, l.H, count, CHUNK, p.D);
        copy_commit();
        dot_lines(dots, l.dout + at * l.H, l.out + at * l.H, count, p.H, p.D);
        finish_lines<0>();
        score_chunk<DEPTH, CHUNK>(scores, PITCH, k, q, p.D);
        score_chunk<DEPTH, CHUNK>(dscores, PITCH, v, dout, p.D);
        __syncthreads();
        drop(dscores, b.dropout, p, c, count, 1, p.begin, p.count, PITCH);
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < p.count * padded; i += ATT_THREADS) {
            const int query = i % padded, cell = i / padded * PITCH + query;
            const float probability = query < count ? expf(scores[cell] * l.scale - l.log_sum[c + query]) : 0.0f;
            dscores[cell] = query < count ? probability * (dscores[cell] - dots[query]) * l.scale : 0.0f;
            scores[cell] = probability;
        }
        __syncthreads();
        drop(scores, b.dropout, p, c, count, 1, p.begin, p.count, PITCH);
        __syncthreads();
        add_chunk<DEPTH>(dv, scores, PITCH, dout, count, p.D);
        add_chunk<DEPTH>(dk, dscores, PITCH, q, count, p.D);
        __syncthreads();
    }
    store_sums<DEPTH>(l.dk + begin * l.stride, l.stride, dk, p.count, p.D);
    store_sums<DEPTH>(l.dv + begin * l.stride, l.stride, dv, p.count, p.D);
}

template <int DEPTH, int CHUNK>
__global__ void __launch_bounds__(ATT_THREADS) attention_backward_kernel(const AttentionBackward b) {
    SHARED_MEMORY(float, shared);
    const Part part = part_of(b.sequences);
    if (part.count == 0) { return; }
    if (blockIdx.z == 0) {
        backward_queries<DEPTH, CHUNK>(b, part, shared, score_pitch(b.sequences.longest));
    } else {
        backward_keys<DEPTH, CHUNK>(b, part, shared);
    }
}

static dim3 attention_grid(const Sequences &s, unsigned halves) {
    if (s.D > ATT_DEPTH) {
        die(EX_UNAVAILABLE, "heads of more than %d are not computed on GPUs: use the CPU", ATT_DEPTH);
    }
    const unsigned tiles = static_cast<unsigned>(s.T.most / ATT_TILE + s.B.most);
    return dim3(tiles, static_cast<unsigned>(s.A), halves);
}

// Bytes of shared memory of `tiles` tiles of lines, two chunks, `scores` tiles of scores and the chunk's dots.
static size_t shared_bytes(const Sequences &s, int tiles, int chunk, int scores, int longest) {
    const int lines = (tiles * ATT_TILE + 2 * chunk) * line_pitch(s.D);
    return sizeof(float) * static_cast<size_t>(lines + scores * ATT_TILE * score_pitch(longest) + chunk);
}

// The size of heads that kernels are compiled for, the most common one; copies of 16 bytes need lines of 16 bytes.
enum { USUAL_DEPTH = 64 };

// kernel<DEPTH, CHUNK>, with the larger chunk where it fits.
template <typename Kernel, typename Arguments>
static void launch_attention(CudaDevice *device, Kernel usual, Kernel usual_small, Kernel any, Kernel any_small,
                             const Arguments &arguments, unsigned halves, int tiles, int scores, int longest) {
    const Sequences &s = arguments.sequences;
    const size_t large = shared_bytes(s, tiles, ATT_CHUNK, scores, longest);
    const size_t small = shared_bytes(s, tiles, ATT_CHUNK_SMALL, scores, longest);
    const bool fits = large <= device->shared_limit;
    const Kernel kernel = s.D == USUAL_DEPTH ? fits ? usual : usual_small : fits ? any : any_small;
    lines_flush(device);
    cuda_launch(device, kernel, attention_grid(s, halves), ATT_THREADS, fits ? large : small, arguments);
    cuda_settle(device);
}

void cuda_attention_forward(Device *device, float *out, float *log_sum, const float *qkv, Sequences sequences,
                            Dropout dropout) {
    const AttentionForward forward = {out, log_sum, qkv, static_cast<size_t>(sequences.T.most), sequences, dropout};
    launch_attention(cuda_device(device), attention_forward_kernel<USUAL_DEPTH, ATT_CHUNK>,
                     attention_forward_kernel<USUAL_DEPTH, ATT_CHUNK_SMALL>, attention_forward_kernel<0, ATT_CHUNK>,
                     attention_forward_kernel<0, ATT_CHUNK_SMALL>, forward, 1, 1, 1, sequences.longest);
}

void cuda_attention_backward(Device *device, float *dqkv, const float *dout, const float *out, const float *log_sum,
                             const float *qkv, Sequences sequences, Dropout dropout) {
    const AttentionBackward backward = {dqkv,      dout,   out, log_sum, qkv, static_cast<size_t>(sequences.T.most),
                                        sequences, dropout};
    launch_attention(cuda_device(device), attention_backward_kernel<USUAL_DEPTH, ATT_CHUNK>,
                     attention_backward_kernel<USUAL_DEPTH, ATT_CHUNK_SMALL>, attention_backward_kernel<0, ATT_CHUNK>,
                     attention_backward_kernel<0, ATT_CHUNK_SMALL>, backward, 2, 2, 2,
                     sequences.longest > ATT_CHUNK ? sequences.longest : ATT_CHUNK);
}
