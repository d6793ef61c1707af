// Graphs: a stream that captures collects nodes with what they come after, other streams join by waiting for its
// events and have to be joined to it again. A launch is one operation of a stream that runs all nodes: early as they
// were captured, late the last captured first of those that can.
#include <pthread.h>

#include <algorithm>
#include <queue>
#include <set>
#include <unordered_map>

#include "cuda_host.h"

struct Capture {
    CUgraph_st graph;
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    pthread_t owner;
    bool active, spoiled;
    std::vector<CUstream_st *> streams;
};

namespace {

using Nodes = std::vector<std::shared_ptr<CUgraphNode_st>>;

void run_late(const Nodes &nodes) {
    std::unordered_map<const CUgraphNode_st *, size_t> place;
    for (size_t i = 0; i < nodes.size(); i++) { place[nodes[i].get()] = i; }
    std::vector<size_t> missing(nodes.size());
    std::vector<std::vector<size_t>> followers(nodes.size());
    std::priority_queue<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
        missing[i] = nodes[i]->after.size();
        for (const CUgraphNode_st *earlier : nodes[i]->after) { followers[place[earlier]].push_back(i); }
        if (!missing[i]) { ready.push(i); }
    }
    while (!ready.empty()) {
        const size_t i = ready.top();
        ready.pop();
        nodes[i]->work();
        for (size_t follower : followers[i]) {
            if (--missing[follower] == 0) { ready.push(follower); }
        }
    }
}

void run_nodes(const Nodes &nodes) {
    if (order_is_late()) { return run_late(nodes); }
    for (const auto &node : nodes) { node->work(); }
}

void add_all(std::vector<CUgraphNode_st *> *nodes, const std::vector<CUgraphNode_st *> &more) {
    for (CUgraphNode_st *node : more) {
        if (std::find(nodes->begin(), nodes->end(), node) == nodes->end()) { nodes->push_back(node); }
    }
}

// Whether all that any stream captured comes before what the first stream's next node would come after.
bool is_joined(const Capture &capture) {
    std::set<const CUgraphNode_st *> before;
    std::vector<CUgraphNode_st *> open = capture.origin->capture_after;
    while (!open.empty()) {
        const CUgraphNode_st *node = open.back();
        open.pop_back();
        if (before.insert(node).second) { open.insert(open.end(), node->after.begin(), node->after.end()); }
    }
    for (const CUstream_st *stream : capture.streams) {
        for (const CUgraphNode_st *node : stream->capture_after) {
            if (!before.count(node)) { return false; }
        }
    }
    return true;
}

void begin_capture(CUstream_st *stream, const std::shared_ptr<Capture> &capture) {
    stream->capture = capture;
    stream->capture_after.clear();
    capture->streams.push_back(stream);
}

void end_capture(const std::shared_ptr<Capture> &capture) {
    capture->active = false;
    for (CUstream_st *stream : capture->streams) {
        stream->capture = nullptr;
        stream->capture_after.clear();
    }
    capture->streams.clear();
}

bool is_null_stream(const CUstream_st *stream) { return stream == stream_find(nullptr); }

}  // namespace

bool is_capturing(const CUstream_st *stream) { return stream->capture != nullptr; }

void capture_spoil(const std::shared_ptr<Capture> &capture) { capture->spoiled = true; }

cudaError_t capture_work(CUstream_st *stream, Work work) {
    if (stream->capture->spoiled) { return cudaErrorStreamCaptureInvalidated; }
    auto node = std::make_shared<CUgraphNode_st>();
    node->work = std::move(work);
    node->after = stream->capture_after;
    stream->capture_after = {node.get()};
    stream->capture->graph.nodes.push_back(node);
    return cudaSuccess;
}

cudaError_t capture_record(CUstream_st *stream, CUevent_st *event) {
    if (stream->capture->spoiled) { return cudaErrorStreamCaptureInvalidated; }
    event->record = nullptr;
    event->capture = stream->capture;
    event->capture_after = stream->capture_after;
    return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st *stream, const CUevent_st *event) {
    const std::shared_ptr<Capture> &capture = event->capture;
    if (!capture->active) { return cudaErrorCapturedEvent; }
    if (capture->spoiled) { return cudaErrorStreamCaptureInvalidated; }
    if (is_capturing(stream) && stream->capture != capture) {
        capture_spoil(stream->capture);
        capture_spoil(capture);
        return cudaErrorStreamCaptureMerge;
    }
    if (is_null_stream(stream)) {
        capture_spoil(capture);
        return cudaErrorStreamCaptureImplicit;
    }
    if (!is_capturing(stream)) { begin_capture(stream, capture); }
    add_all(&stream->capture_after, event->capture_after);
    return cudaSuccess;
}

cudaError_t capture_forbids(CUstream_st *stream) {
    for (CUstream_st *other : all_streams()) {
        if (!is_capturing(other)) { continue; }
        const bool implied = stream && is_null_stream(stream) && other->blocking;
        if (other != stream && !implied && (stream || other->device != current_device())) { continue; }
        capture_spoil(other->capture);
        return implied ? cudaErrorStreamCaptureImplicit : cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

cudaError_t capture_forbids_unsafe() {
    for (CUstream_st *stream : all_streams()) {
        if (!is_capturing(stream) || stream->capture->mode == cudaStreamCaptureModeRelaxed) { continue; }
        const bool own = pthread_equal(stream->capture->owner, pthread_self());
        if (stream->capture->mode == cudaStreamCaptureModeThreadLocal && !own) { continue; }
        capture_spoil(stream->capture);
        return cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    return api(__func__, [&] {
        CUstream_st *stream = stream_find(handle);
        if (!stream) { return cudaErrorInvalidResourceHandle; }
        if (is_null_stream(stream)) { return cudaErrorStreamCaptureUnsupported; }
        if (is_capturing(stream)) { return cudaErrorIllegalState; }
        auto capture = std::make_shared<Capture>();
        capture->origin = stream;
        capture->mode = mode;
        capture->owner = pthread_self();
        capture->active = true;
        begin_capture(stream, capture);
        return cudaSuccess;
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
    return api(__func__, [&] {
        *graph = nullptr;
        CUstream_st *stream = stream_find(handle);
        if (!stream) { return cudaErrorInvalidResourceHandle; }
        if (!is_capturing(stream)) { return cudaErrorIllegalState; }
        const std::shared_ptr<Capture> capture = stream->capture;
        if (stream != capture->origin) {
            capture_spoil(capture);
            return cudaErrorStreamCaptureUnmatched;
        }
        if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->owner, pthread_self())) {
            return cudaErrorStreamCaptureWrongThread;
        }
        const bool joined = is_joined(*capture);
        end_capture(capture);
        if (capture->spoiled) { return cudaErrorStreamCaptureInvalidated; }
        if (!joined) { return cudaErrorStreamCaptureUnjoined; }
        *graph = new CUgraph_st{std::move(capture->graph)};
        return cudaSuccess;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
    return api(__func__, [&] {
        const CUstream_st *stream = stream_find(handle);
        if (!stream) { return cudaErrorInvalidResourceHandle; }
        *status = !is_capturing(stream)      ? cudaStreamCaptureStatusNone
                  : stream->capture->spoiled ? cudaStreamCaptureStatusInvalidated
                                             : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    return api(__func__, [&] {
        if (!graph || (flags & ~static_cast<unsigned long long>(cudaGraphInstantiateFlagUseNodePriority))) {
            return cudaErrorInvalidValue;
        }
        *exec = new CUgraphExec_st{graph->nodes, nullptr};
        return cudaSuccess;
    });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    return api(__func__, [&] {
        if (!graph || !count) { return cudaErrorInvalidValue; }
        const size_t wanted = nodes ? std::min(*count, graph->nodes.size()) : 0;
        for (size_t i = 0; i < wanted; i++) { nodes[i] = graph->nodes[i].get(); }
        *count = graph->nodes.size();
        return cudaSuccess;
    });
}

// A launch also comes after the last one of the same exec.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
    return api(__func__, [&] {
        CUstream_st *stream = stream_find(handle);
        if (!exec) { return cudaErrorInvalidValue; }
        if (!stream) { return cudaErrorInvalidResourceHandle; }
        if (is_capturing(stream)) {
            capture_spoil(stream->capture);
            return cudaErrorStreamCaptureUnsupported;
        }
        const cudaError_t error = submit(
            handle, [nodes = exec->nodes] { run_nodes(nodes); }, exec->last);
        if (error == cudaSuccess) { exec->last = stream->last; }
        return error;
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return api(__func__, [&] {
        if (!graph) { return cudaErrorInvalidValue; }
        delete graph;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return api(__func__, [&] {
        if (!exec) { return cudaErrorInvalidValue; }
        delete exec;
        return cudaSuccess;
    });
}

}  // extern "C"
