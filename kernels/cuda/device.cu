// The GPU as a device: memory, the queue of operations and its marks, recorded steps.
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

int cuda_device_threads(const Device *device) {
    (void)device;
    return 1;
}

const char *cuda_device_model(const Device *device) { return cuda_device(const_cast<Device *>(device))->info.name; }

void cuda_device_run(Device *device, void (*body)(void *context), void *context) {
    CudaDevice *cuda = cuda_device(device);
    cuda->running = true;
    body(context);
    cuda_flush(cuda);
    cuda->running = false;
}

void cuda_device_sync(Device *device) { cuda_flush(cuda_device(device)); }

cudaStream_t cuda_stream(Device *device) {
    cuda_flush(cuda_device(device));
    return cuda_device(device)->stream;
}

// Device memory, not zeroed.
static void *allocate(CudaDevice *device, size_t bytes) {
    void *memory;
    const cudaError_t status = cudaMalloc(&memory, bytes ? bytes : 1);
    if (status == cudaSuccess) { return memory; }
    size_t left = 0, all = 0;
    cudaMemGetInfo(&left, &all);
    die(EX_UNAVAILABLE,
        "GPU %d (%s): cannot have %zu MiB of memory, %zu of %zu MiB are free: %s; use a smaller "
        "train.global_batch_size, more train.gradient_accumulation_steps or another GPU",
        device->index, device->info.name, bytes >> 20, left >> 20, all >> 20, cudaGetErrorString(status));
}

void *cuda_device_alloc(Device *device, size_t bytes) {
    CudaDevice *cuda = cuda_device(device);
    void *memory = allocate(cuda, bytes);
    CHECK_CUDA(cudaMemsetAsync(memory, 0, bytes, cuda->stream));
    return memory;
}

void cuda_device_free(Device *device, void *memory) {
    cuda_flush(cuda_device(device));
    CHECK_CUDA(cudaFree(memory));
}

void *cuda_work(CudaDevice *device, WorkUse use, size_t bytes) {
    WorkBlock *newest = device->work[use];
    if (!newest || newest->bytes < bytes) {
        WorkBlock *block = static_cast<WorkBlock *>(check_calloc(1, sizeof *block));
        block->older = newest;
        block->bytes = bytes;
        block->memory = allocate(device, bytes);
        device->work[use] = newest = block;
    }
    return newest->memory;
}

void cuda_device_zero(Device *device, void *memory, size_t bytes) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    CHECK_CUDA(cudaMemsetAsync(memory, 0, bytes, cuda->stream));
}

void cuda_device_upload(Device *device, void *to, const void *host, size_t bytes) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, cuda->stream));
    CHECK_CUDA(cudaStreamSynchronize(cuda->stream));
}

void cuda_device_download(Device *device, void *host, const void *from, size_t bytes) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, cuda->stream));
    CHECK_CUDA(cudaStreamSynchronize(cuda->stream));
}

void *cuda_device_alloc_host(Device *device, size_t bytes) {
    (void)device;
    void *memory;
    CHECK_CUDA(cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocDefault));
    return memory;
}

void cuda_device_free_host(Device *device, void *memory) {
    (void)device;
    CHECK_CUDA(cudaFreeHost(memory));
}

void cuda_device_pin_host(Device *device, void *memory, size_t bytes) {
    (void)device;
    CHECK_CUDA(cudaHostRegister(memory, bytes, cudaHostRegisterDefault));
}

void cuda_device_unpin_host(Device *device, void *memory) {
    (void)device;
    CHECK_CUDA(cudaHostUnregister(memory));
}

void cuda_device_download_later(Device *device, void *host, const void *from, size_t bytes) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, cuda->stream));
}

void cuda_device_mark(Device *device, int slot) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaEventRecord(cuda->marks[slot], cuda->stream));
}

void cuda_device_wait(Device *device, int slot) { CHECK_CUDA(cudaEventSynchronize(cuda_device(device)->marks[slot])); }

bool cuda_device_done(Device *device, int slot) {
    const cudaError_t status = cudaEventQuery(cuda_device(device)->marks[slot]);
    if (status != cudaErrorNotReady) { CHECK_CUDA(status); }
    return status == cudaSuccess;
}

struct Recording {
    cudaGraphExec_t graph;
    int nodes;
};

Recording *cuda_device_record(Device *device, void (*body)(void *context), void *context) {
    CudaDevice *cuda = cuda_device(device);
    Recording *recording = static_cast<Recording *>(check_calloc(1, sizeof *recording));
    cudaGraph_t graph;
    size_t nodes;
    cuda_flush(cuda);
    // Relaxed: work space may be allocated on the way.
    CHECK_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed));
    cuda_device_run(device, body, context);
    CHECK_CUDA(cudaStreamEndCapture(cuda->stream, &graph));
    CHECK_CUDA(cudaGraphGetNodes(graph, NULL, &nodes));
    CHECK_CUDA(cudaGraphInstantiate(&recording->graph, graph, cudaGraphInstantiateFlagUseNodePriority));
    CHECK_CUDA(cudaGraphDestroy(graph));
    recording->nodes = static_cast<int>(nodes);
    return recording;
}

void cuda_device_replay(Device *device, Recording *recording) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    CHECK_CUDA(cudaGraphLaunch(recording->graph, cuda->stream));
}

int cuda_device_record_nodes(const Device *device, const Recording *recording) {
    (void)device;
    return recording->nodes;
}

void cuda_device_record_free(Device *device, Recording *recording) {
    (void)device;
    if (!recording) { return; }
    CHECK_CUDA(cudaGraphExecDestroy(recording->graph));
    free(recording);
}
