// Device functions that all kernels share.
#ifndef BERTUNE_WARP_CUH
#define BERTUNE_WARP_CUH

#include <cuda_runtime.h>

#include "kernels/kernels.h"

enum { WARP = 32 };

__device__ __forceinline__ int extent_now(Extent e) { return e.now ? *e.now : e.most; }

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = WARP / 2; distance; distance /= 2) { value += __shfl_xor_sync(0xFFFFFFFFu, value, distance); }
    return value;
}

#endif
