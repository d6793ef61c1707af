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

// Launches the product with the largest tile that gives every multiprocessor a block: small batches are bound by
// latency, not by arithmetic. program: makes the input, or NULL. b_inner: operand b's neighbours along the depth are
// neighbours.
void linear_launch_fp32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner);
void linear_launch_tf32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner);
void linear_launch_bf16(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner);

// Bytes of shared memory that a program's lines of K need at least, whatever the precision.
size_t linear_resident_bytes(int K);

#endif
