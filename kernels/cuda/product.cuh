// The tile of a matrix product, out (M, N) = a (M, K) b (K, N), that one block computes: operands come in slices of
// TILE_DEPTH through shared memory, several slices ahead, and are multiplied by fragments of 16 by 8 outputs. Operands
// lie in fp32; for tensor cores they are rounded to bfloat16 or TF32 on the way from shared memory to registers. In
// PRECISION_FP32 the same fragments are computed with plain multiply-adds.
#ifndef BERTUNE_PRODUCT_CUH
#define BERTUNE_PRODUCT_CUH

#include "kernels/cuda/portable.cuh"
#include "kernels/cuda/warp.cuh"

enum { TILE_DEPTH = 32, TILE_STAGES = 4 };

// An operand in global memory. INNER, everywhere below: neighbours along the depth are neighbours in memory, element
// (i, k) is at[i * line + k]; else it is at[k * line + i].
typedef struct {
    const float *at;
    size_t line;
    bool vector;  // lines begin at 16 bytes
} Operand;

// A block of ROWS * COLUMNS warps computes (ROWS * LINES * 16, COLUMNS * PANELS * 8) outputs, each warp LINES by PANELS
// fragments.
template <int ROWS, int COLUMNS, int LINES_, int PANELS_>
struct Tile {
    static constexpr int LINES = LINES_, PANELS = PANELS_, WARPS = ROWS * COLUMNS, THREADS = WARPS * WARP;
    static constexpr int COLUMN_WARPS = COLUMNS, M = ROWS * LINES * 16, N = COLUMNS * PANELS * 8;
};

// Floats from line to line of an operand's slice in shared memory, such that the lanes of a warp find their fragments
// in different banks; `length` floats are used.
template <Precision P, bool INNER>
__host__ __device__ constexpr int slice_pitch(int length) {
    return length + (INNER ? P == PRECISION_BF16 ? 8 : 4 : P == PRECISION_TF32 ? 8 : 4);
}

// Floats of shared memory that one slice of an operand takes that is WIDTH wide along the output.
template <Precision P, bool INNER>
__host__ __device__ constexpr int slice_size(int width) {
    return INNER ? width * slice_pitch<P, true>(TILE_DEPTH) : TILE_DEPTH * slice_pitch<P, false>(width);
}

// Copies the slices of an operand, one after the other: outputs first .. first + WIDTH - 1 of `outputs`, zero beyond,
// and depths below K. Each of the THREADS threads copies the same CHUNKS places of every slice.
template <Precision P, bool INNER, int WIDTH, int THREADS>
struct SliceCopy {
    static constexpr int LENGTH = INNER ? TILE_DEPTH : WIDTH, CHUNKS = WIDTH * TILE_DEPTH / 4 / THREADS;
    static constexpr int PITCH = slice_pitch<P, INNER>(LENGTH);
    const float *from[CHUNKS];  // of the next slice
    int valid[CHUNKS];          // elements along the output
    int depth[CHUNKS];          // of the next slice's place
    const float *anywhere;
    size_t advance;  // from depth to depth
    int K;
    bool vector;

    __device__ __forceinline__ SliceCopy(Operand op, int first, int outputs, int depths)
        : anywhere(op.at), advance(INNER ? 1 : op.line), K(depths), vector(op.vector) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const int chunk = static_cast<int>(threadIdx.x) + i * THREADS;
            const int line = chunk / (LENGTH / 4), at = chunk % (LENGTH / 4) * 4;
            const int output = first + (INNER ? line : at), left = outputs - output;
            depth[i] = INNER ? at : line;
            valid[i] = left < 0 ? 0 : left < 4 ? left : 4;
            from[i] = op.at + (INNER ? static_cast<size_t>(output) * op.line + static_cast<size_t>(at)
                                     : static_cast<size_t>(line) * op.line + static_cast<size_t>(output));
        }
    }

    // Begins to copy the next slice.
    __device__ __forceinline__ void begin(float *slice) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const int chunk = static_cast<int>(threadIdx.x) + i * THREADS, left = K - depth[i];
            const int along = left < 0 ? 0 : left < 4 ? left : 4;
            const int count = INNER ? valid[i] ? along : 0 : left > 0 ? valid[i] : 0;
            float *to = slice + chunk / (LENGTH / 4) * PITCH + chunk % (LENGTH / 4) * 4;
            const float *source = count ? from[i] : anywhere;
            if (vector) {
                copy_begin<16>(to, source, 4 * count);
            } else {
                for (int k = 0; k < 4; k++) {
                    copy_begin<4>(to + k, k < count ? source + k : anywhere, k < count ? 4 : 0);
                }
            }
            from[i] += TILE_DEPTH * advance;
            depth[i] += TILE_DEPTH;
        }
    }
};

// Element (i, k) of a slice.
template <bool INNER>
__device__ __forceinline__ float slice_at(const float *slice, int pitch, int i, int k) {
    return INNER ? slice[i * pitch + k] : slice[k * pitch + i];
}

// Word `word` (see portable.cuh) of output i, `depth` elements into the slice.
template <Precision P, bool INNER>
__device__ __forceinline__ uint32_t slice_word(const float *slice, int pitch, int i, int depth, int word) {
    if (P == PRECISION_TF32) { return round_tf32(slice_at<INNER>(slice, pitch, i, depth + word)); }
    if (INNER) {
        const float2 pair = *reinterpret_cast<const float2 *>(slice + i * pitch + depth + 2 * word);
        return pack_bf16(pair.x, pair.y);
    }
    return pack_bf16(slice_at<false>(slice, pitch, i, depth + 2 * word),
                     slice_at<false>(slice, pitch, i, depth + 2 * word + 1));
}

// What a warp computes of a tile; sum[line][panel][..] as in portable.cuh.
template <typename T>
struct Sums {
    float at[T::LINES][T::PANELS][4];
};

// The warp's first line and column in the tile.
template <typename T>
__device__ __forceinline__ int warp_line() {
    return static_cast<int>(threadIdx.x / WARP) / T::COLUMN_WARPS * T::LINES * 16;
}
template <typename T>
__device__ __forceinline__ int warp_column() {
    return static_cast<int>(threadIdx.x / WARP) % T::COLUMN_WARPS * T::PANELS * 8;
}

template <typename T, bool A_INNER, bool B_INNER>
__device__ __forceinline__ void multiply_plain(Sums<T> *sums, const float *a, int a_pitch, const float *b,
                                               int b_pitch) {
    const int group = static_cast<int>(threadIdx.x % WARP / 4), t = static_cast<int>(threadIdx.x % 4);
    const int line = warp_line<T>() + group, column = warp_column<T>() + 2 * t;
#pragma unroll 4
    for (int k = 0; k < TILE_DEPTH; k++) {
        float x[T::LINES][2], y[T::PANELS][2];
#pragma unroll
        for (int i = 0; i < 2 * T::LINES; i++) { x[i / 2][i % 2] = slice_at<A_INNER>(a, a_pitch, line + 8 * i, k); }
#pragma unroll
        for (int i = 0; i < 2 * T::PANELS; i++) {
            y[i / 2][i % 2] = slice_at<B_INNER>(b, b_pitch, column + i / 2 * 8 + i % 2, k);
        }
#pragma unroll
        for (int l = 0; l < T::LINES; l++) {
#pragma unroll
            for (int p = 0; p < T::PANELS; p++) {
#pragma unroll
                for (int i = 0; i < 4; i++) { sums->at[l][p][i] += x[l][i / 2] * y[p][i % 2]; }
            }
        }
    }
}

template <typename T, Precision P, bool A_INNER, bool B_INNER>
__device__ __forceinline__ void multiply_tensor(Sums<T> *sums, const float *a, int a_pitch, const float *b,
                                                int b_pitch) {
    constexpr int SLAB = P == PRECISION_BF16 ? 16 : 8;  // depths of a fragment
    const int group = static_cast<int>(threadIdx.x % WARP / 4), t = static_cast<int>(threadIdx.x % 4);
    const int line = warp_line<T>() + group, column = warp_column<T>() + group;
#pragma unroll
    for (int k = 0; k < TILE_DEPTH; k += SLAB) {
        uint32_t x[T::LINES][4], y[T::PANELS][2];
#pragma unroll
        for (int i = 0; i < 4 * T::LINES; i++) {
            x[i / 4][i % 4] = slice_word<P, A_INNER>(a, a_pitch, line + i / 4 * 16 + i % 2 * 8, k, t + i % 4 / 2 * 4);
        }
#pragma unroll
        for (int i = 0; i < 2 * T::PANELS; i++) {
            y[i / 2][i % 2] = slice_word<P, B_INNER>(b, b_pitch, column + i / 2 * 8, k, t + i % 2 * 4);
        }
#pragma unroll
        for (int l = 0; l < T::LINES; l++) {
#pragma unroll
            for (int p = 0; p < T::PANELS; p++) { multiply_fragments<P == PRECISION_BF16>(sums->at[l][p], x[l], y[p]); }
        }
    }
}

// Where the tile lies, and the sizes of the whole product.
typedef struct {
    int line, column;
    int M, N, K;
} Place;

// RESIDENT: operand a is not copied but lies in shared memory already, (T::M, K rounded up to whole slices), INNER,
// with a.line as its pitch. STAGES slices are in shared memory.
template <typename T, Precision P, bool A_INNER, bool B_INNER, bool RESIDENT, int STAGES = TILE_STAGES>
struct TileProduct {
    static constexpr int A_SIZE = RESIDENT ? 0 : slice_size<P, A_INNER>(T::M), B_SIZE = slice_size<P, B_INNER>(T::N);
    static constexpr int STAGE = A_SIZE + B_SIZE;
    static constexpr size_t SHARED = sizeof(float) * STAGES * STAGE;  // bytes

    float *shared;
    Operand a;
    SliceCopy<P, A_INNER, T::M, T::THREADS> a_copy;
    SliceCopy<P, B_INNER, T::N, T::THREADS> b_copy;
    int slices, begun;

    // Begins to copy the first slices.
    __device__ __forceinline__ TileProduct(float *memory, Operand first, Operand second, const Place &place)
        : shared(memory),
          a(first),
          a_copy(first, place.line, place.M, place.K),
          b_copy(second, place.column, place.N, place.K),
          slices((place.K + TILE_DEPTH - 1) / TILE_DEPTH),
          begun(0) {
        for (int s = 0; s < STAGES - 1; s++) { begin(); }
    }

    // Begins to copy the next slice of both operands; beyond the last an empty group, so that groups can be counted.
    __device__ __forceinline__ void begin() {
        if (begun < slices) {
            float *stage = shared + begun % STAGES * STAGE;
            if (!RESIDENT) { a_copy.begin(stage); }
            b_copy.begin(stage + A_SIZE);
        }
        begun++;
        copy_commit();
    }

    // Ends without a barrier.
    __device__ __forceinline__ void finish(Sums<T> *sums) {
        for (int s = 0; s < slices; s++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            begin();
            const float *stage = shared + s % STAGES * STAGE;
            const float *x = RESIDENT ? a.at + s * TILE_DEPTH : stage, *y = stage + A_SIZE;
            const int x_pitch =
                RESIDENT ? static_cast<int>(a.line) : slice_pitch<P, A_INNER>(A_INNER ? TILE_DEPTH : T::M);
            constexpr int Y_PITCH = slice_pitch<P, B_INNER>(B_INNER ? TILE_DEPTH : T::N);
            if constexpr (P == PRECISION_FP32) {
                multiply_plain<T, A_INNER, B_INNER>(sums, x, x_pitch, y, Y_PITCH);
            } else {
                multiply_tensor<T, P, A_INNER, B_INNER>(sums, x, x_pitch, y, Y_PITCH);
            }
        }
    }
};

// use(lines, columns, sums) for the four outputs of each of the warp's fragments, by lanes: sums[i] is at line
// lines[i / 2], column columns[i % 2], which the matrix may not have.
template <typename T, typename F>
__device__ __forceinline__ void for_fragments(const Sums<T> &sums, const Place &place, F use) {
    const int line0 = place.line + warp_line<T>() + static_cast<int>(threadIdx.x % WARP / 4);
    const int column0 = place.column + warp_column<T>() + static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
    for (int l = 0; l < T::LINES; l++) {
#pragma unroll
        for (int p = 0; p < T::PANELS; p++) {
            const int lines[2] = {line0 + l * 16, line0 + l * 16 + 8},
                      columns[2] = {column0 + p * 8, column0 + p * 8 + 1};
            use(lines, columns, sums.at[l][p]);
        }
    }
}

__host__ __device__ static inline Operand operand(const float *at, size_t line) {
    const Operand op = {at, line, line % 4 == 0 && reinterpret_cast<uintptr_t>(at) % 16 == 0};
    return op;
}

#endif
