// What the files of the CUDA backend share: the device with its queue, launching, work space.
//
// One thread of the host fills one stream. Two kinds of operations are held back for a while, so that a step is few
// launches: operations by lines are collected in a line program (lines.cuh), which the product that reads its last
// output takes over as its first part; and gradients of parameters are collected in a group (group.cuh) that is one
// launch at the next device_sync, before which their inputs may not be touched.
#ifndef BERTUNE_CUDA_H
#define BERTUNE_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/lines.cuh"
#include "kernels/cuda/stream.h"

// Memory of the device for intermediate results. What a use has been given stays valid: recordings hold on to it.
typedef enum { WORK_SQUARES, WORK_CLS, WORK_EMBEDDING, WORKS } WorkUse;

typedef struct WorkBlock {
    struct WorkBlock *older;
    size_t bytes;
    void *memory;
} WorkBlock;

struct CudaDevice {
    Device base;
    int index;
    Precision precision;
    DeviceInfo info;
    size_t shared_limit;  // bytes of shared memory that a block may have
    cudaStream_t stream;
    cudaEvent_t marks[DEVICE_MARKS];
    bool running;  // in device_run or device_record: operations may be held back
    bool lines_pending;
    LineProgram lines;
    Group group;
    WorkBlock *work[WORKS];
};

static inline CudaDevice *cuda_device(Device *device) { return reinterpret_cast<CudaDevice *>(device); }

// Launches what is held back: the line program alone, or all.
void lines_flush(CudaDevice *device);
void group_flush(CudaDevice *device);
static inline void cuda_flush(CudaDevice *device) {
    lines_flush(device);
    group_flush(device);
}

// Every operation ends with this: outside of device_run nothing is held back.
static inline void cuda_settle(CudaDevice *device) {
    if (!device->running) { cuda_flush(device); }
}

// At least bytes of work space, the same for every call that asks for no more.
void *cuda_work(CudaDevice *device, WorkUse use, size_t bytes);

// kernel<<<grid, block, shared, the device's stream>>>(arguments...), unless the grid is empty.
template <typename... Parameters, typename... Arguments>
void cuda_launch(CudaDevice *device, void (*kernel)(Parameters...), dim3 grid, unsigned block, size_t shared,
                 Arguments... arguments) {
    enum { PLAIN_LIMIT = 48 << 10 };  // bytes that need no leave
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) { return; }
    if (shared > device->shared_limit) {
        die(EX_UNAVAILABLE,
            "GPU %d (%s) has %zu bytes of shared memory a block, %zu are needed: shorter sequences would do",
            device->index, device->info.name, device->shared_limit, shared);
    }
    if (shared > PLAIN_LIMIT) {
        CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(device->shared_limit)));
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    config.stream = device->stream;
    CHECK_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

static inline unsigned blocks_for(size_t count, size_t each) {
    return static_cast<unsigned>((count + each - 1) / each);
}

static inline bool same_extent(Extent a, Extent b) { return a.most == b.most && a.now == b.now; }

extern "C" {
#define DECLARE_CUDA(name) __typeof__(name) cuda_##name;
BACKEND_OPERATIONS(DECLARE_CUDA)
BACKEND_RECORDING(DECLARE_CUDA)
#undef DECLARE_CUDA
const char *cuda_device_lacks(int index, Precision precision);
int cuda_device_count(const char **why_none);
bool cuda_device_describe(int index, DeviceInfo *info, Error *error);
Device *cuda_device_open(int index, int threads, Precision precision, Error *error);
}

#endif
