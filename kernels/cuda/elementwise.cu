// Adding lines and buffers, AdamW.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/update.cuh"
#include "kernels/cuda/warp.cuh"

enum { ELEMENT_THREADS = 256 };

__global__ void __launch_bounds__(ELEMENT_THREADS)
    scatter_add_kernel(float *out, const float *in, const int32_t *lines, Extent M, int N) {
    const int i = static_cast<int>(blockIdx.x);
    if (i >= extent_now(M)) { return; }
    for (int j = static_cast<int>(threadIdx.x); j < N; j += ELEMENT_THREADS) {
        const size_t width = static_cast<size_t>(N);
        out[static_cast<size_t>(lines[i]) * width + static_cast<size_t>(j)] +=
            in[static_cast<size_t>(i) * width + static_cast<size_t>(j)];
    }
}

void cuda_scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    cuda_launch(cuda, scatter_add_kernel, dim3(static_cast<unsigned>(M.most)), ELEMENT_THREADS, 0, out, in, lines, M,
                N);
    cuda_settle(cuda);
}

__global__ void __launch_bounds__(ELEMENT_THREADS) add_kernel(float *out, const float *in, size_t count) {
    const size_t i = static_cast<size_t>(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
    if (i < count) { out[i] += in[i]; }
}

void cuda_add(Device *device, float *out, const float *in, size_t count) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    cuda_launch(cuda, add_kernel, dim3(blocks_for(count, ELEMENT_THREADS)), ELEMENT_THREADS, 0, out, in, count);
}

__global__ void __launch_bounds__(ELEMENT_THREADS) adamw_kernel(Weights w, AdamW adamw, size_t count) {
    const size_t i = static_cast<size_t>(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
    if (i < count) { update_some<1>(w, i, 0, count, adamw); }
}

void cuda_adamw_update(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                       AdamW adamw, size_t count) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const Weights weights = {weight, first_moment, second_moment, gradient};
    cuda_launch(cuda, adamw_kernel, dim3(blocks_for(count, ELEMENT_THREADS)), ELEMENT_THREADS, 0, weights, adamw,
                count);
}
