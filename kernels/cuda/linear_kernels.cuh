// The kernels of linear layers, for the file of one precision. When a line program makes the input, the product's
// blocks run it on their lines and keep these in shared memory as the first operand; the blocks of the first columns
// also store what it stores.
#ifndef BERTUNE_LINEAR_KERNELS_CUH
#define BERTUNE_LINEAR_KERNELS_CUH

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/lines_run.cuh"

// The GELU and its derivative, in one copy of their code.
__device__ __attribute__((noinline)) static float2 gelu_of(float x) {
    const float below = 0.5f * erfcf(-x * 0.70710678118654752f);
    return make_float2(x * below, below + x * 0.39894228040143268f * expf(-0.5f * x * x));
}

// The outputs of one fragment: what they need of memory is read before any is written.
__device__ __forceinline__ void finish_fragment(const Linear &linear, const Place &place, const int lines[2],
                                                const int columns[2], const float sums[4]) {
    const Finish &finish = linear.finish;
    float x[4], factor[4];
    size_t at[4];
    bool there[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        there[i] = lines[i / 2] < place.M && columns[i % 2] < place.N;
        at[i] = static_cast<size_t>(lines[i / 2]) * static_cast<size_t>(place.N) + static_cast<size_t>(columns[i % 2]);
        x[i] = sums[i] + (finish.bias && there[i] ? finish.bias[columns[i % 2]] : 0.0f) +
               (finish.add && there[i] ? finish.add[at[i]] : 0.0f);
        factor[i] = finish.factor && there[i] ? finish.factor[at[i]] : 1.0f;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (!there[i]) { continue; }
        if (finish.gelu) {
            const float2 gelu = gelu_of(x[i]);
            if (finish.derivative) { finish.derivative[at[i]] = gelu.y; }
            x[i] = gelu.x;
        }
        finish.out[at[i]] = x[i] * factor[i];
    }
}

template <typename T>
__device__ __forceinline__ Place place_of(const Linear &linear) {
    const Place place = {static_cast<int>(blockIdx.x) * T::M, static_cast<int>(blockIdx.y) * T::N, extent_now(linear.M),
                         linear.N, linear.K};
    return place;
}

template <typename T>
__device__ __forceinline__ void finish_all(const Linear &linear, const Sums<T> &sums, const Place &place) {
    for_fragments<T>(sums, place, [&](const int lines[2], const int columns[2], const float values[4]) {
        finish_fragment(linear, place, lines, columns, values);
    });
}

template <typename T, Precision P, bool B_INNER>
__global__ void __launch_bounds__(T::THREADS) linear_kernel(const Linear linear) {
    SHARED_MEMORY(float, shared);
    typedef TileProduct<T, P, true, B_INNER, false> Product;
    const Place place = place_of<T>(linear);
    if (place.line >= place.M) { return; }
    Sums<T> sums = {};
    Product(shared, linear.a, linear.b, place).finish(&sums);
    finish_all<T>(linear, sums, place);
}

template <typename T, Precision P, bool B_INNER>
__global__ void __launch_bounds__(T::THREADS, T::M < 128 ? 2 : 1)
    lines_linear_kernel(const __grid_constant__ LineProgram program, const Linear linear) {
    SHARED_MEMORY(float, shared);
    typedef TileProduct<T, P, true, B_INNER, true> Product;
    const Place place = place_of<T>(linear);
    if (place.line >= place.M) { return; }
    float *small = shared + TILE_STAGES * Product::STAGE, *rows = small + T::M * LINE_SMALL;
    const LineTile tile = {rows, small, resident_pitch<P>(linear.K), T::M};
    const Operand a = {rows, static_cast<size_t>(tile.pitch), false};
    Sums<T> sums = {};
    Product product(shared, a, linear.b, place);
    lines_run(&program, tile, place.line, tile.pitch, blockIdx.y == 0);
    product.finish(&sums);
    finish_all<T>(linear, sums, place);
}

template <typename T, Precision P, bool B_INNER>
static void launch_tile(CudaDevice *device, const LineProgram *program, const Linear &linear) {
    const dim3 grid(blocks_for(static_cast<size_t>(linear.M.most), T::M),
                    blocks_for(static_cast<size_t>(linear.N), T::N));
    if constexpr (T::M < HugeTile::M) {
        if (program) {
            cuda_launch(device, lines_linear_kernel<T, P, B_INNER>, grid, T::THREADS,
                        linear_shared<T, P, B_INNER>(linear.K), *program, linear);
            return;
        }
    }
    cuda_launch(device, linear_kernel<T, P, B_INNER>, grid, T::THREADS, TileProduct<T, P, true, B_INNER, false>::SHARED,
                linear);
}

template <Precision P, bool B_INNER>
static void launch_precision(CudaDevice *device, const LineProgram *program, const Linear &linear, TileSize size) {
    if (size == TILE_SMALL) {
        launch_tile<SmallTile, P, B_INNER>(device, program, linear);
    } else if (size == TILE_LARGE || P == PRECISION_FP32) {
        launch_tile<LargeTile, P, B_INNER>(device, program, linear);
    } else if constexpr (P != PRECISION_FP32) {
        launch_tile<HugeTile, P, B_INNER>(device, program, linear);
    }
}

#endif
