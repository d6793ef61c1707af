// Streams, events and launches. Everything submitted is an operation that knows what it comes after. Early, it is run
// when it is submitted; late, when something waits for it, and then nothing is run that it does not need.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cuda_host.h"
#include "cuda_runtime.h"

namespace {

thread_local bool runs_host_function = false;

// What all streams and events are kept in; destructors may still call, so it is never destroyed.
struct Everything {
    std::vector<CUstream_st *> streams;
    std::vector<CUevent_st *> events;
    std::vector<CUstream_st *> null_streams;            // one a device
    std::vector<std::pair<int, OperationPtr>> orphans;  // of destroyed streams, with their device
};
Everything &everything() {
    static auto *const one = new Everything;
    return *one;
}

CUstream_st *null_stream(int device) {
    auto &all = everything().null_streams;
    while (static_cast<int>(all.size()) <= device) {
        all.push_back(new CUstream_st{static_cast<int>(all.size()), true, nullptr, nullptr, {}});
    }
    return all[static_cast<size_t>(device)];
}

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

void run_operation(Operation *operation) {
    if (operation->work) {
        open_device_memory(true);
        operation->work();
        open_device_memory(false);
    }
    operation->work = nullptr;
    operation->after.clear();
    operation->time = now();
    operation->done = true;
}

const OperationPtr *unfinished(const std::vector<OperationPtr> &operations) {
    for (const OperationPtr &operation : operations) {
        if (!operation->done) { return &operation; }
    }
    return nullptr;
}

// The null stream comes after all blocking streams, and they after it.
void add_legacy_order(const CUstream_st *stream, std::vector<OperationPtr> *after) {
    if (!stream->blocking) { return; }
    const CUstream_st *null = null_stream(stream->device);
    if (stream != null) {
        if (null->last) { after->push_back(null->last); }
        return;
    }
    for (const CUstream_st *other : everything().streams) {
        if (other->blocking && other->device == stream->device && other->last) { after->push_back(other->last); }
    }
}

cudaError_t make_stream(cudaStream_t *stream, unsigned flags) {
    if (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) { return cudaErrorInvalidValue; }
    *stream = new CUstream_st{current_device(), !(flags & cudaStreamNonBlocking), nullptr, nullptr, {}};
    everything().streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t make_event(cudaEvent_t *event, unsigned flags) {
    *event = new CUevent_st{!(flags & cudaEventDisableTiming), nullptr, nullptr, {}};
    everything().events.push_back(*event);
    return cudaSuccess;
}

// Whether a poll finds it done; if not, makes some progress, so that polling ends.
cudaError_t query(const OperationPtr &operation) {
    if (!operation || operation->done) { return cudaSuccess; }
    OperationPtr next = operation;
    while (const OperationPtr *needed = unfinished(next->after)) { next = OperationPtr(*needed); }
    run_operation(next.get());
    return cudaErrorNotReady;
}

// The error of waiting for an event that does not exist or was recorded while capturing.
cudaError_t check_event(cudaEvent_t event) {
    if (!event_exists(event)) { return cudaErrorInvalidResourceHandle; }
    if (!event->capture) { return cudaSuccess; }
    capture_spoil(event->capture);
    return cudaErrorCapturedEvent;
}

cudaError_t check_launch(const cudaLaunchConfig_t &config, const void *kernel) {
    const dim3 grid = config.gridDim, threads = config.blockDim;
    if (!kernel) { return cudaErrorInvalidDeviceFunction; }
    if (!grid.x || !grid.y || !grid.z || !threads.x || !threads.y || !threads.z) {
        return cudaErrorInvalidConfiguration;
    }
    if (grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff) { return cudaErrorInvalidConfiguration; }
    if (threads.x > 1024 || threads.y > 1024 || threads.z > 64 || threads.x * threads.y * threads.z > 1024) {
        return cudaErrorInvalidConfiguration;
    }
    if (config.dynamicSmemBytes > largest_dynamic_shared(kernel)) { return cudaErrorInvalidValue; }
    for (unsigned i = 0; i < config.numAttrs; i++) {
        const cudaLaunchAttributeID id = config.attrs[i].id;
        if (id != cudaLaunchAttributeIgnore && id != cudaLaunchAttributeProgrammaticStreamSerialization) {
            return cudaErrorNotSupported;
        }
    }
    return cudaSuccess;
}

}  // namespace

bool in_host_function() { return runs_host_function; }

const std::vector<CUstream_st *> &all_streams() { return everything().streams; }

CUstream_st *stream_find(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) { return null_stream(current_device()); }
    const auto &all = everything().streams;
    return std::find(all.begin(), all.end(), handle) == all.end() ? nullptr : handle;
}

bool event_exists(cudaEvent_t event) {
    const auto &all = everything().events;
    return std::find(all.begin(), all.end(), event) != all.end();
}

cudaError_t submit(cudaStream_t handle, Work work, const OperationPtr &extra) {
    CUstream_st *stream = stream_find(handle);
    if (!stream) { return cudaErrorInvalidResourceHandle; }
    if (is_capturing(stream)) { return capture_work(stream, std::move(work)); }
    if (stream == null_stream(stream->device)) {
        for (CUstream_st *other : everything().streams) {
            if (!other->blocking || other->device != stream->device || !is_capturing(other)) { continue; }
            capture_spoil(other->capture);
            return cudaErrorStreamCaptureImplicit;
        }
    }
    auto operation = std::make_shared<Operation>();
    operation->work = std::move(work);
    if (extra) { operation->after.push_back(extra); }
    if (stream->last) { operation->after.push_back(stream->last); }
    add_legacy_order(stream, &operation->after);
    stream->last = operation;
    if (!order_is_late()) { finish_operation(operation); }
    return cudaSuccess;
}

// Not by recursion: late, thousands may wait for each other.
void finish_operation(const OperationPtr &operation) {
    std::vector<OperationPtr> path;
    if (operation && !operation->done) { path.push_back(operation); }
    while (!path.empty()) {
        const OperationPtr next = path.back(), *needed = unfinished(next->after);
        if (needed) {
            path.push_back(*needed);
        } else {
            run_operation(next.get());
            path.pop_back();
        }
    }
}

cudaError_t finish(cudaStream_t handle) {
    CUstream_st *stream = stream_find(handle);
    if (!stream) { return cudaErrorInvalidResourceHandle; }
    const cudaError_t forbidden = capture_forbids(stream);
    if (forbidden != cudaSuccess) { return forbidden; }
    finish_operation(stream->last);
    return cudaSuccess;
}

void finish_device(int device) {
    finish_operation(null_stream(device)->last);
    for (size_t i = everything().streams.size(); i-- > 0;) {  // the youngest first: any order is right
        const CUstream_st *stream = everything().streams[i];
        if (stream->device == device) { finish_operation(stream->last); }
    }
    auto &orphans = everything().orphans;
    for (const auto &orphan : orphans) {
        if (orphan.first == device) { finish_operation(orphan.second); }
    }
    orphans.erase(std::remove_if(orphans.begin(), orphans.end(), [](const auto &o) { return o.second->done; }),
                  orphans.end());
}

cudaError_t cuda_host_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> thread) {
    return api("cudaLaunchKernelEx", [&] {
        const cudaError_t error = check_launch(*config, kernel);
        if (error != cudaSuccess) { return error; }
        const CUstream_st *stream = stream_find(config->stream);
        if (!stream || stream->device != current_device()) { return cudaErrorInvalidResourceHandle; }
        const Kernel launched = {kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes,
                                 std::move(thread)};
        return submit(config->stream, [launched] {
            const cudaError_t fault = injected("kernel");
            if (fault != cudaSuccess) { return fail_device(fault); }
            run_kernel(launched);
        });
    });
}

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return api(__func__, [&] { return make_stream(stream, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    return api(__func__, [&] { return make_stream(stream, flags); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned int flags, int) {
    return api(__func__, [&] { return make_stream(stream, flags); });
}

// Returns at once; what is submitted still runs, at the latest when the device is waited for.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    return api(__func__, [&] {
        auto &all = everything().streams;
        const auto found = std::find(all.begin(), all.end(), handle);
        if (found == all.end()) { return cudaErrorInvalidResourceHandle; }
        const cudaError_t forbidden = capture_forbids(handle);
        if (forbidden != cudaSuccess) { return forbidden; }
        if (handle->last && !handle->last->done) { everything().orphans.push_back({handle->device, handle->last}); }
        all.erase(found);
        delete handle;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return api(__func__, [&] { return finish(stream); });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    return api(__func__, [&] {
        CUstream_st *stream = stream_find(handle);
        if (!stream) { return cudaErrorInvalidResourceHandle; }
        const cudaError_t forbidden = capture_forbids(stream);
        return forbidden != cudaSuccess ? forbidden : query(stream->last);
    });
}

cudaError_t cudaDeviceSynchronize(void) {
    return api(__func__, [&] {
        const cudaError_t forbidden = capture_forbids(nullptr);
        if (forbidden == cudaSuccess) { finish_device(current_device()); }
        return forbidden;
    });
}

// Of an event recorded when called: a later record does not count, and one never recorded makes nobody wait.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int) {
    return api(__func__, [&] {
        CUstream_st *stream = stream_find(handle);
        if (!stream || !event_exists(event)) { return cudaErrorInvalidResourceHandle; }
        if (event->capture) { return capture_wait(stream, event); }
        if (!event->record) { return cudaSuccess; }
        if (!is_capturing(stream)) { return submit(handle, nullptr, event->record); }
        capture_spoil(stream->capture);
        return cudaErrorStreamCaptureIsolation;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return api(__func__, [&] { return make_event(event, 0); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    return api(__func__, [&] { return make_event(event, flags); });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    return api(__func__, [&] {
        CUstream_st *stream = stream_find(handle);
        if (!stream || !event_exists(event)) { return cudaErrorInvalidResourceHandle; }
        if (is_capturing(stream)) { return capture_record(stream, event); }
        const cudaError_t error = submit(handle, nullptr);
        if (error != cudaSuccess) { return error; }
        event->capture = nullptr;
        event->record = stream->last;
        return cudaSuccess;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return api(__func__, [&] {
        const cudaError_t error = check_event(event);
        if (error == cudaSuccess) { finish_operation(event->record); }
        return error;
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return api(__func__, [&] {
        const cudaError_t error = check_event(event);
        return error != cudaSuccess ? error : query(event->record);
    });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    return api(__func__, [&] {
        for (cudaEvent_t event : {start, end}) {
            const cudaError_t error = check_event(event);
            if (error != cudaSuccess) { return error; }
            if (!event->timed || !event->record) { return cudaErrorInvalidResourceHandle; }
            if (!event->record->done) { return cudaErrorNotReady; }
        }
        *milliseconds = static_cast<float>(end->record->time - start->record->time);
        return cudaSuccess;
    });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return api(__func__, [&] {
        if (!event_exists(event)) { return cudaErrorInvalidResourceHandle; }
        auto &all = everything().events;
        all.erase(std::find(all.begin(), all.end(), event));
        delete event;
        return cudaSuccess;
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *user_data) {
    return api(__func__, [&] {
        if (!function) { return cudaErrorInvalidValue; }
        return submit(stream, [function, user_data] {
            runs_host_function = true;
            function(user_data);
            runs_host_function = false;
        });
    });
}

}  // extern "C"
