// Which GPUs there are, opening one, and the table of what this backend defines.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

int cuda_device_count(const char **why_none) {
    int count = 0, driver = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0) { return count; }
    cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        *why_none = "there is no NVIDIA driver";
    } else if (status == cudaErrorInsufficientDriver) {
        *why_none = "the NVIDIA driver is older than CUDA " TEXT(CUDART_VERSION) " needs: update the driver";
    } else {
        *why_none = status == cudaSuccess || status == cudaErrorNoDevice
                        ? "there is no GPU, or CUDA_VISIBLE_DEVICES hides it"
                        : cudaGetErrorString(status);
    }
    return 0;
}

static bool unavailable(Error *error, int index, const char *what, cudaError_t status) {
    return error_set(error, EX_UNAVAILABLE,
                     "GPU %d: %s: %s; choose another with CUDA_VISIBLE_DEVICES, or use "
                     "run.device=cpu",
                     index, what, cudaGetErrorString(status));
}

bool cuda_device_describe(int index, DeviceInfo *info, Error *error) {
    cudaDeviceProp properties;
    const cudaError_t status = cudaGetDeviceProperties(&properties, index);
    if (status != cudaSuccess) { return unavailable(error, index, "cannot be asked", status); }
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%s", properties.name);
    memcpy(info->uuid, &properties.uuid, sizeof info->uuid);
    info->major = properties.major;
    info->minor = properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    info->memory = properties.totalGlobalMem;
    const char *none;
    for (int i = 0, count = cuda_device_count(&none); i < count && i < 64; i++) {
        int reaches = 0;
        if (i != index && cudaDeviceCanAccessPeer(&reaches, i, index) == cudaSuccess && reaches) {
            info->peers |= static_cast<uint64_t>(1) << i;
        }
    }
    CHECK_CUDA(cudaDriverGetVersion(&info->driver));
    CHECK_CUDA(cudaRuntimeGetVersion(&info->runtime));
    return true;
}

const char *cuda_device_lacks(int index, Precision precision) {
    DeviceInfo info;
    Error error;
    if (precision == PRECISION_FP32) { return NULL; }
    if (!cuda_device_describe(index, &info, &error)) { return "there is no such GPU"; }
    return info.major >= 8 ? NULL : "bf16 and tf32 need a GPU of compute capability 8.0 or later";
}

Device *cuda_device_open(int index, int threads, Precision precision, Error *error) {
    (void)threads;
    DeviceInfo info;
    int shared = 0;
    if (!cuda_device_describe(index, &info, error)) { return NULL; }
    const char *lacks = cuda_device_lacks(index, precision);
    if (lacks) {
        error_set(error, EX_UNAVAILABLE, "GPU %d (%s): %s", index, info.name, lacks);
        return NULL;
    }
    cudaError_t status = cudaSetDevice(index);
    if (status == cudaSuccess) { status = cudaFree(NULL); }  // begins to use the GPU
    if (status == cudaSuccess) {
        status = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
    }
    if (status != cudaSuccess) {
        unavailable(error, index, "cannot be used", status);
        return NULL;
    }
    CudaDevice *device = static_cast<CudaDevice *>(check_calloc(1, sizeof *device));
    device->base.backend = &cuda_backend;
    device->index = index;
    device->precision = precision;
    device->info = info;
    device->shared_limit = static_cast<size_t>(shared);
    CHECK_CUDA(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
    for (int i = 0; i < DEVICE_MARKS; i++) {
        CHECK_CUDA(cudaEventCreateWithFlags(&device->marks[i], cudaEventDisableTiming));
    }
    return &device->base;
}

void cuda_device_close(Device *device) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaStreamSynchronize(cuda->stream));
    for (int use = 0; use < WORKS; use++) {
        for (WorkBlock *block = cuda->work[use]; block;) {
            WorkBlock *older = block->older;
            CHECK_CUDA(cudaFree(block->memory));
            free(block);
            block = older;
        }
    }
    for (int i = 0; i < DEVICE_MARKS; i++) { CHECK_CUDA(cudaEventDestroy(cuda->marks[i])); }
    CHECK_CUDA(cudaStreamDestroy(cuda->stream));
    free(cuda);
}

#define ENTRY(name) cuda_##name,
const Backend cuda_backend = {DEVICE_CUDA,
                              "cuda",
                              "built (" BERTUNE_CUDA_VERSION "; " BERTUNE_CUDA_CODE ")",
                              cuda_device_lacks,
                              cuda_device_count,
                              cuda_device_describe,
                              cuda_device_open,
                              BACKEND_OPERATIONS(ENTRY) BACKEND_RECORDING(ENTRY)};
