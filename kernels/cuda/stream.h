// What other parts of the program that speak CUDA themselves (comm/reduce_nccl.c) may know of the CUDA backend.
#ifndef BERTUNE_STREAM_H
#define BERTUNE_STREAM_H

#include <cuda_runtime_api.h>

#include "kernels/kernels.h"

// Ends with EX_UNAVAILABLE and CUDA's own words when the call fails.
#define CHECK_CUDA(call)                                                                                   \
    do {                                                                                                   \
        const cudaError_t status_ = (call);                                                                \
        if (status_ != cudaSuccess) { die(EX_UNAVAILABLE, "%s: %s", #call, cudaGetErrorString(status_)); } \
    } while (0)

#ifdef __cplusplus
extern "C" {
#endif

// Puts all operations called so far into the device's stream, which is the result.
cudaStream_t cuda_stream(Device *device);

#ifdef __cplusplus
}
#endif
#endif
