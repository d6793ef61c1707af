// What linear.cu asks of the kernels of linear layers, which are compiled for each precision in a file of their own.
#ifndef BERTUNE_LINEAR_CUH
#define BERTUNE_LINEAR_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/product.cuh"

// What becomes of the sums.
typedef struct {
    float *out;           // (M, N)
    const float *bias;    // (N) or NULL
    const float *add;     // (M, N) or NULL
    const float *factor;  // (M, N) or NULL: multiplied last
    bool gelu;
    float *derivative;  // (M, N) of the GELU, or NULL
} Finish;

typedef struct {
    Operand a, b;
    Extent M;
    int N, K;
    Finish finish;
} Linear;

typedef Tile<2, 4, 1, 1> SmallTile;  // 32 x 32
typedef Tile<2, 4, 2, 2> LargeTile;  // 64 x 64
typedef Tile<2, 4, 4, 4> HugeTile;   // 128 x 128, not in fp32
typedef enum { TILE_SMALL, TILE_LARGE, TILE_HUGE } TileSize;

// Floats from line to line of the lines that the program leaves in shared memory.
template <Precision P>
__host__ __device__ constexpr int resident_pitch(int K) {
    return slice_pitch<P, true>((K + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH);
}

// Bytes of shared memory of a product whose lines of K a program leaves there.
template <typename T, Precision P, bool B_INNER>
constexpr size_t linear_shared(int K) {
    return TileProduct<T, P, true, B_INNER, true>::SHARED +
           sizeof(float) * T::M * (static_cast<size_t>(resident_pitch<P>(K)) + LINE_SMALL);
}

// Launch the product. program: makes the input, or NULL, as with huge tiles. b_inner: operand b's neighbours along the
// depth are neighbours.
void linear_launch_fp32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size);
void linear_launch_tf32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size);
void linear_launch_bf16(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size);

#endif
