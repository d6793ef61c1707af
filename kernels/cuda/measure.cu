// The GPU's own limits, for the reports of bench: arithmetic in registers, copies in memory.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

enum { MEASURE_THREADS = 256, CHAINS = 8 };

// Independent chains of multiply-adds.
__global__ void __launch_bounds__(MEASURE_THREADS) plain_kernel(float *out, int rounds) {
    float sums[CHAINS];
    const float x = 1.0f + 1e-7f * static_cast<float>(threadIdx.x), y = 1e-9f;
    for (int i = 0; i < CHAINS; i++) { sums[i] = static_cast<float>(i); }
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < CHAINS; i++) { sums[i] = fmaf(sums[i], x, y); }
    }
    float sum = 0.0f;
    for (int i = 0; i < CHAINS; i++) { sum += sums[i]; }
    if (sum == 0.125f) { *out = sum; }  // keeps the compiler from leaving it all out
}

// The same on the tensor cores.
template <bool BF16>
__global__ void __launch_bounds__(MEASURE_THREADS) tensor_kernel(float *out, int rounds) {
    float sums[CHAINS][4] = {};
    const uint32_t a[4] = {threadIdx.x, 0, 0, 0}, b[2] = {0, threadIdx.x};
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < CHAINS; i++) { multiply_fragments<BF16>(sums[i], a, b); }
    }
    float sum = 0.0f;
    for (int i = 0; i < CHAINS; i++) { sum += sums[i][0] + sums[i][3]; }
    if (sum == 0.125f) { *out = sum; }
}

typedef struct {
    void (*run)(CudaDevice *device, float *memory, size_t size);
    double work;  // of size 1
} Measure;

// The best of a few runs of a size that takes some milliseconds: work a second.
static double rate_of(CudaDevice *device, float *memory, Measure measure, size_t size, size_t largest) {
    enum { RUNS = 5 };
    const double enough = 2.0;  // milliseconds
    cudaEvent_t begin, end;
    double best = 0.0;
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    for (int run = 0; run < RUNS;) {
        float milliseconds;
        CHECK_CUDA(cudaEventRecord(begin, device->stream));
        measure.run(device, memory, size);
        CHECK_CUDA(cudaEventRecord(end, device->stream));
        CHECK_CUDA(cudaEventSynchronize(end));
        CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
        if (static_cast<double>(milliseconds) < enough && size < largest) {
            size *= 2;
            continue;
        }
        const double rate = measure.work * static_cast<double>(size) / (1e-3 * static_cast<double>(milliseconds));
        best = rate > best ? rate : best;
        run++;
    }
    CHECK_CUDA(cudaEventDestroy(begin));
    CHECK_CUDA(cudaEventDestroy(end));
    return best;
}

static void run_arithmetic(CudaDevice *device, float *memory, size_t size) {
    const dim3 grid(8 * static_cast<unsigned>(device->info.multiprocessors));
    const int rounds = static_cast<int>(size);
    if (device->precision == PRECISION_FP32) {
        cuda_launch(device, plain_kernel, grid, MEASURE_THREADS, 0, memory, rounds);
    } else if (device->precision == PRECISION_TF32) {
        cuda_launch(device, tensor_kernel<false>, grid, MEASURE_THREADS, 0, memory, rounds);
    } else {
        cuda_launch(device, tensor_kernel<true>, grid, MEASURE_THREADS, 0, memory, rounds);
    }
}

double cuda_device_peak_flops(Device *device) {
    CudaDevice *cuda = cuda_device(device);
    const double threads = 8.0 * cuda->info.multiprocessors * MEASURE_THREADS;
    const double depth = cuda->precision == PRECISION_BF16 ? 16 : 8;
    const double each = cuda->precision == PRECISION_FP32 ? 2.0 : 2.0 * 16 * 8 * depth / 32;  // of a chain and thread
    float *memory = static_cast<float *>(cuda_device_alloc(device, sizeof *memory));
    const Measure measure = {run_arithmetic, threads * each * CHAINS};
    const double rate = rate_of(cuda, memory, measure, 16, 1 << 20);
    cuda_device_free(device, memory);
    return rate;
}

static void run_copy(CudaDevice *device, float *memory, size_t size) {
    CHECK_CUDA(cudaMemcpyAsync(memory, reinterpret_cast<char *>(memory) + size, size, cudaMemcpyDeviceToDevice,
                               device->stream));
}

double cuda_device_copy_bandwidth(Device *device) {
    const size_t most = static_cast<size_t>(1) << 29;  // larger than any cache
    const size_t bytes = 2 * most < cuda_device(device)->info.memory / 8 ? most : 1 << 20;
    float *memory = static_cast<float *>(cuda_device_alloc(device, 2 * bytes));
    const Measure measure = {run_copy, 2.0};
    const double rate = rate_of(cuda_device(device), memory, measure, bytes, bytes);
    cuda_device_free(device, memory);
    return rate;
}
