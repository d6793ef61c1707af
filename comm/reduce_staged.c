// Sums gradients of GPUs in host memory: copies each there, lets reduce_shared.c sum them, and copies the sum back to
// every GPU.
#include "comm/reducer.h"

typedef struct {
    Reducer base;
    Device *processor;  // sums; NULL where there is one rank
    Reducer *host;      // what it sums
} Staged;

// Pins the host memory that this rank copies to and from, or ends that.
static void pin(const Staged *staged, bool on) {
    float *const windows[2] = {staged->host->gradient, staged->host->summed};
    const size_t bytes = staged->base.count * sizeof(float);
    const int count = bytes == 0 ? 0 : windows[0] == windows[1] ? 1 : 2;
    for (int i = 0; i < count; i++) {
        if (on) { device_pin_host(staged->base.device, windows[i], bytes); }
        if (!on) { device_unpin_host(staged->base.device, windows[i]); }
    }
}

static void staged_sum(Reducer *reducer) {
    Reducer *host = ((const Staged *)reducer)->host;
    const size_t bytes = reducer->count * sizeof(float);
    if (!host) { return; }
    device_download(reducer->device, host->gradient, reducer->gradient, bytes);
    reducer_sum(host);
    reducer_publish(host);  // every rank's slices are there
    device_upload(reducer->device, reducer->summed, host->summed, bytes);
    reducer_publish(host);  // every rank has read them from where rank 0 will copy its next gradient
}

static void staged_fix_order(Reducer *reducer) {
    const Staged *staged = (const Staged *)reducer;
    if (staged->host) { staged->host->tree = true; }
}

static void staged_close(Reducer *reducer) {
    Staged *staged = (Staged *)reducer;
    if (staged->host) {
        pin(staged, false);
        reducer_close(staged->host);
        device_close(staged->processor);
    }
    reducer_free(reducer);
}

Reducer *reducer_open_staged(const Comm *comm, Device *device, size_t count, int replicas) {
    static const ReducerCalls calls = {.close = staged_close, .sum = staged_sum, .fix_order = staged_fix_order};
    Staged *staged = check_calloc(1, sizeof *staged);
    reducer_alloc(&staged->base, comm, device, count, replicas);
    staged->base.calls = &calls;
    staged->base.in_queue = comm->size == 1;
    if (comm->size > 1) {
        Error error;
        staged->processor = device_open(DEVICE_CPU, 0, comm_threads(comm), PRECISION_FP32, &error);
        CHECK(staged->processor);
        staged->host = reducer_open_shared(comm, staged->processor, count, 0);
        pin(staged, true);
    }
    return &staged->base;
}
