// What the sources of the host emulation share: the frame of every API function, the allocations, the operations of
// streams and how a kernel is run. See README.md.
#ifndef CUDA_HOST_H
#define CUDA_HOST_H

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_HOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_HOST_ASAN 1
#endif
#endif

// device.cpp
using Work = std::function<void()>;
using Call = std::function<cudaError_t()>;

// Runs body as the API function name: alone among all threads, after injected faults and earlier failures of kernels,
// and keeps its error for cudaGetLastError.
cudaError_t api(const char *name, const Call &body);
// The same, of functions that need no device.
cudaError_t api_without_device(const char *name, const Call &body);
// The error to inject into this call of name, by CUDA_HOST_FAIL.
cudaError_t injected(const char *name);
// Makes error the result of every later call, as a kernel's fault does.
void fail_device(cudaError_t error);

bool order_is_late();
bool guards_memory();
int device_count();
int current_device();
// Whether this thread runs a function of cudaLaunchHostFunc, which may not call the runtime.
bool in_host_function();
size_t device_bytes();
size_t largest_shared();  // of a block that asked for it

// memory.cpp
enum class MemoryKind { pageable, pinned, device };
MemoryKind memory_kind(const void *memory);
// Whether memory lies in no allocation, or bytes from it on lie in the same one.
bool memory_holds(const void *memory, size_t bytes);
// Lets the host touch device memory or, with AddressSanitizer, not: only operations may.
void open_device_memory(bool open);
size_t largest_dynamic_shared(const void *kernel);

// block.cpp
struct Kernel {
    const void *address;
    dim3 grid, block;
    size_t shared;
    Work thread;
};
void run_kernel(const Kernel &kernel);

// stream.cpp
// One operation of a stream: run once, after all of after.
struct Operation {
    Work work;
    std::vector<std::shared_ptr<Operation>> after;
    bool done = false;
    double time = 0;  // when it was run, in milliseconds
};
using OperationPtr = std::shared_ptr<Operation>;

struct Capture;
struct CUstream_st {
    int device;
    bool blocking;  // on the null stream
    OperationPtr last;
    std::shared_ptr<Capture> capture;             // when capturing
    std::vector<CUgraphNode_st *> capture_after;  // what the next node comes after
};

struct CUevent_st {
    bool timed;
    OperationPtr record;
    std::shared_ptr<Capture> capture;  // when last recorded while capturing
    std::vector<CUgraphNode_st *> capture_after;
};

// The stream of a handle; null for one that does not exist.
CUstream_st *stream_find(cudaStream_t handle);
bool event_exists(cudaEvent_t event);
// Appends work to the stream or, while it captures, to the graph. Also after extra, outside of a capture.
cudaError_t submit(cudaStream_t stream, Work work, const OperationPtr &extra = nullptr);
// Runs what is submitted to stream, and before it what that needs.
cudaError_t finish(cudaStream_t stream);
void finish_operation(const OperationPtr &operation);
void finish_device(int device);
const std::vector<CUstream_st *> &all_streams();

// graph.cpp
struct CUgraphNode_st {
    Work work;
    std::vector<CUgraphNode_st *> after;
};
struct CUgraph_st {
    std::vector<std::shared_ptr<CUgraphNode_st>> nodes;  // as captured
};
struct CUgraphExec_st {
    std::vector<std::shared_ptr<CUgraphNode_st>> nodes;
    OperationPtr last;
};

bool is_capturing(const CUstream_st *stream);
cudaError_t capture_work(CUstream_st *stream, Work work);
cudaError_t capture_record(CUstream_st *stream, CUevent_st *event);
cudaError_t capture_wait(CUstream_st *stream, const CUevent_st *event);
// The error of a call that may not be made while this stream, or for null any of the device's, captures; it spoils the
// capture.
cudaError_t capture_forbids(CUstream_st *stream);
// The same of a call that may not be made by a thread that captures, unless relaxed.
cudaError_t capture_forbids_unsafe();
void capture_spoil(const std::shared_ptr<Capture> &capture);

#endif
