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

// Begins to copy a slice: outputs first .. first + WIDTH - 1 of `outputs`, depths from `depth` of K; zero beyond.
template <Precision P, bool INNER, int WIDTH>
__device__ __forceinline__ void slice_begin(float *slice, Operand op, int first, int outputs, int depth, int K) {
    constexpr int LINES = INNER ? WIDTH : TILE_DEPTH, LENGTH = INNER ? TILE_DEPTH : WIDTH;
    constexpr int PITCH = slice_pitch<P, INNER>(LENGTH);
    const int line0 = INNER ? first : depth, lines = INNER ? outputs : K;
    const int at0 = INNER ? depth : first, length = INNER ? K : outputs;
    for (int chunk = static_cast<int>(threadIdx.x); chunk < LINES * LENGTH / 4; chunk += static_cast<int>(blockDim.x)) {
        const int line = chunk / (LENGTH / 4), at = chunk % (LENGTH / 4) * 4;
        const int left = line0 + line < lines ? length - at0 - at : 0, valid = left < 0 ? 0 : left < 4 ? left : 4;
        const float *from = valid ? op.at + static_cast<size_t>(line0 + line) * op.line + (at0 + at) : op.at;
        float *to = slice + line * PITCH + at;
        if (op.vector) {
            copy_begin<16>(to, from, 4 * valid);
        } else {
            for (int i = 0; i < 4; i++) { copy_begin<4>(to + i, i < valid ? from + i : op.at, i < valid ? 4 : 0); }
        }
    }
}

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
// with a.line as its pitch.
template <typename T, Precision P, bool A_INNER, bool B_INNER, bool RESIDENT>
struct TileProduct {
    static constexpr int A_SIZE = RESIDENT ? 0 : slice_size<P, A_INNER>(T::M), B_SIZE = slice_size<P, B_INNER>(T::N);
    static constexpr int STAGE = A_SIZE + B_SIZE;
    static constexpr size_t SHARED = sizeof(float) * TILE_STAGES * STAGE;  // bytes

    // Begins to copy slice `s` of both operands; beyond the last an empty group, so that groups can be counted.
    static __device__ __forceinline__ void begin(float *shared, Operand a, Operand b, const Place &place, int s) {
        if (s * TILE_DEPTH < place.K) {
            float *stage = shared + s % TILE_STAGES * STAGE;
            if (!RESIDENT) { slice_begin<P, A_INNER, T::M>(stage, a, place.line, place.M, s * TILE_DEPTH, place.K); }
            slice_begin<P, B_INNER, T::N>(stage + A_SIZE, b, place.column, place.N, s * TILE_DEPTH, place.K);
        }
        copy_commit();
    }

    static __device__ __forceinline__ void begin_first(float *shared, Operand a, Operand b, const Place &place) {
        for (int s = 0; s < TILE_STAGES - 1; s++) { begin(shared, a, b, place, s); }
    }

    // After begin_first. Ends without a barrier.
    static __device__ __forceinline__ void finish(Sums<T> *sums, float *shared, Operand a, Operand b,
                                                  const Place &place) {
        const int slices = (place.K + TILE_DEPTH - 1) / TILE_DEPTH;
        for (int s = 0; s < slices; s++) {
            copy_wait<TILE_STAGES - 2>();
            __syncthreads();
            begin(shared, a, b, place, s + TILE_STAGES - 1);
            const float *stage = shared + s % TILE_STAGES * STAGE;
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

// store(line, column, sum) for each of the warp's outputs that the matrix has.
template <typename T, typename F>
__device__ __forceinline__ void for_sums(const Sums<T> &sums, const Place &place, F store) {
    const int line0 = place.line + warp_line<T>() + static_cast<int>(threadIdx.x % WARP / 4);
    const int column0 = place.column + warp_column<T>() + static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
    for (int l = 0; l < T::LINES; l++) {
#pragma unroll
        for (int p = 0; p < T::PANELS; p++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int line = line0 + l * 16 + i / 2 * 8, column = column0 + p * 8 + i % 2;
                if (line < place.M && column < place.N) { store(line, column, sums.at[l][p][i]); }
            }
        }
    }
}

__host__ __device__ static inline Operand operand(const float *at, size_t line) {
    const Operand op = {at, line, line % 4 == 0 && reinterpret_cast<uintptr_t>(at) % 16 == 0};
    return op;
}

#endif
