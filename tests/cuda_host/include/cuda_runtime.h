// The CUDA runtime of the host emulation for C++17: its C functions, the launch of kernels, and what kernels may use.
// See ../README.md.
#ifndef CUDA_HOST_RUNTIME_H
#define CUDA_HOST_RUNTIME_H

#include <cuda_runtime_api.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_host_device.h"
#include "cuda_host_vectors.h"

cudaError_t cuda_host_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> thread);

// The arguments are copied now; run by every thread of the grid when the stream comes to it.
template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Params...), Args &&...args) {
    static_assert((std::is_trivially_copyable_v<Params> && ...), "CUDA copies kernel arguments by their bytes");
    return cuda_host_launch(
        config, reinterpret_cast<const void *>(kernel),
        [kernel, values = std::tuple<Params...>(std::forward<Args>(args)...)] { std::apply(kernel, values); });
}

template <typename T>
cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}
template <typename T>
cudaError_t cudaMalloc(T **memory, size_t bytes) {
    return cudaMalloc(reinterpret_cast<void **>(memory), bytes);
}
template <typename T>
cudaError_t cudaMallocHost(T **memory, size_t bytes) {
    return cudaMallocHost(reinterpret_cast<void **>(memory), bytes);
}
template <typename T>
cudaError_t cudaHostAlloc(T **memory, size_t bytes, unsigned int flags) {
    return cudaHostAlloc(reinterpret_cast<void **>(memory), bytes, flags);
}

#endif
