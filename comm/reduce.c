// Passes the calls of reduce.h on to the transport.
#include <stdlib.h>

#include "comm/reducer.h"

Reducer *reducer_open(const Comm *comm, Device *device, Transport transport, size_t count, int replicas, Error *error) {
    CHECK((transport == REDUCE_SHARED) == (device_kind(device) == DEVICE_CPU));
    switch (transport) {
        case REDUCE_SHARED:
            return reducer_open_shared(comm, device, count, replicas);
        case REDUCE_STAGED:
            return reducer_open_staged(comm, device, count, replicas);
        default:
            return reducer_open_nccl(comm, device, count, replicas, error);
    }
}

void reducer_close(Reducer *reducer) {
    if (reducer) { reducer->calls->close(reducer); }
}

float *reducer_gradient(Reducer *reducer) { return reducer->gradient; }

float *reducer_replica(Reducer *reducer, int index) { return reducer->replicas[index]; }

void reducer_fill(Reducer *reducer, int index, const float *host) {
    if (reducer->fills) {
        device_upload(reducer->device, reducer->replicas[index], host, reducer->count * sizeof *host);
    }
    reducer_publish(reducer);
}

void reducer_ready(Reducer *reducer, size_t begin) {
    if (reducer->calls->ready) { reducer->calls->ready(reducer, begin); }
}

void reducer_sum(Reducer *reducer) {
    if (reducer->calls->sum) { reducer->calls->sum(reducer); }
}

bool reducer_in_queue(const Reducer *reducer) { return reducer->in_queue; }

const Slice *reducer_slices(const Reducer *reducer, int *count) {
    *count = reducer->slice_count;
    return reducer->slices;
}

const float *reducer_summed(const Reducer *reducer) { return reducer->summed; }

bool reducer_counts(const Reducer *reducer) { return reducer->counts; }

void reducer_publish(Reducer *reducer) {
    if (reducer->calls->publish) { reducer->calls->publish(reducer); }
}

void reducer_check(Reducer *reducer) {
    if (reducer->calls->check) { reducer->calls->check(reducer); }
}

void reducer_complete(Reducer *reducer) {
    if (reducer->calls->complete) { reducer->calls->complete(reducer); }
}

bool reducer_fix_order(Reducer *reducer, Error *error) {
    const Comm *comm = reducer->comm;
    int sizes[2] = {comm->local_size, -comm->local_size};
    comm_largest(comm, sizes, 2);
    const bool even = sizes[0] == -sizes[1] && (comm->local_size & (comm->local_size - 1)) == 0;
    if (!even || (comm->nodes & (comm->nodes - 1)) != 0) {
        return error_set(error, EX_CONFIG,
                         "train.determinism: elastic needs a power of two of nodes with the same power of two of ranks "
                         "on each; these are %d ranks on %d node%s",
                         comm->size, comm->nodes, comm->nodes == 1 ? "" : "s");
    }
    reducer->tree = true;
    if (reducer->calls->fix_order) { reducer->calls->fix_order(reducer); }
    return true;
}

Slice reducer_part(size_t count, int buckets, int bucket, int part, int parts) {
    enum { LINE = 16 };  // floats
    const size_t lines = (count + LINE - 1) / LINE, all = (size_t)buckets, b = (size_t)bucket, p = (size_t)part,
                 ps = (size_t)parts;
    const size_t first = lines * (all - 1 - b) / all;
    const size_t width = lines * (all - b) / all - first;
    const size_t begin = (first + width * p / ps) * LINE, end = (first + width * (p + 1) / ps) * LINE;
    return (Slice){begin < count ? begin : count, end < count ? end : count};
}

void reducer_alloc(Reducer *reducer, const Comm *comm, Device *device, size_t count, int replicas) {
    const size_t bytes = count * sizeof(float);
    reducer->comm = comm;
    reducer->device = device;
    reducer->count = count;
    reducer->gradient = reducer->summed = device_alloc(device, bytes);
    reducer->replicas = check_calloc((size_t)replicas, sizeof *reducer->replicas);
    reducer->replica_count = replicas;
    for (int i = 0; i < replicas; i++) { reducer->replicas[i] = device_alloc(device, bytes); }
    reducer->fills = true;
    reducer->counts = comm->rank == 0;
    reducer->slices[0] = (Slice){0, count};
    reducer->slice_count = 1;
}

void reducer_free(Reducer *reducer) {
    for (int i = 0; i < reducer->replica_count; i++) { device_free(reducer->device, reducer->replicas[i]); }
    device_free(reducer->device, reducer->gradient);
    free(reducer->replicas);
    free(reducer);
}
