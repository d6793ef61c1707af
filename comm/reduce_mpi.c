// Sums gradients in host memory. The buffers of a node's ranks lie in shared memory, and so do the replicas: each rank
// adds up one slice of every bucket from all buffers of its node into rank 0's, and sums it with the ranks of its
// number on other nodes. Nothing is copied back: the same slice of the replicas is updated by the same rank.
#include <stdatomic.h>
#include <stdlib.h>

#include "comm/reduce.h"

// From which element on a rank's gradient is final; a cache line of its own.
typedef struct {
    _Alignas(64) _Atomic size_t begin;
} Mark;

struct Reducer {
    const Comm *comm;
    Device *device;
    size_t count;
    SharedMemory memory;  // gradients, replicas, marks
    float **gradients;    // (local_size)
    float **replicas;
    Mark *marks;  // (local_size)
    int sharers;  // the smallest number of ranks on any node; higher local ranks own no slice
    size_t bucket_begin[REDUCER_BUCKETS];
    Slice slices[REDUCER_BUCKETS];  // this rank's
    int done, target;               // buckets summed, and to be summed now; decided by the leader
    MPI_Comm peers;                 // the ranks of this local rank, one a node
    MPI_Request requests[REDUCER_BUCKETS];
};

// Buckets and slices begin at whole cache lines.
static void cut(Reducer *reducer) {
    enum { LINE = 16 };  // floats
    const size_t lines = (reducer->count + LINE - 1) / LINE, sharers = (size_t)reducer->sharers;
    const size_t rank = (size_t)reducer->comm->local_rank;
    for (size_t b = 0; b < REDUCER_BUCKETS; b++) {  // bucket 0 is the end of the buffer
        const size_t first = lines * (REDUCER_BUCKETS - 1 - b) / REDUCER_BUCKETS;
        const size_t width = lines * (REDUCER_BUCKETS - b) / REDUCER_BUCKETS - first;
        reducer->bucket_begin[b] = first * LINE;
        if (rank >= sharers) { continue; }
        const size_t begin = (first + width * rank / sharers) * LINE,
                     end = (first + width * (rank + 1) / sharers) * LINE;
        reducer->slices[b] =
            (Slice){begin < reducer->count ? begin : reducer->count, end < reducer->count ? end : reducer->count};
    }
}

Reducer *reducer_open(const Comm *comm, Device *device, size_t count, int replicas) {
    Reducer *reducer = check_calloc(1, sizeof *reducer);
    const size_t spacing = (count + 1023) / 1024 * 1024;  // floats, whole pages
    const size_t ranks = (size_t)comm->local_size, buffers = ranks + (size_t)replicas;
    *reducer = (Reducer){.comm = comm, .device = device, .count = count, .sharers = comm->local_size};
    reducer->memory = comm_shared_alloc(comm, spacing * buffers * sizeof(float) + ranks * sizeof *reducer->marks);
    reducer->gradients = check_calloc(buffers, sizeof *reducer->gradients);
    reducer->replicas = reducer->gradients + ranks;
    for (size_t i = 0; i < buffers; i++) { reducer->gradients[i] = (float *)reducer->memory.base + spacing * i; }
    reducer->marks = (Mark *)((float *)reducer->memory.base + spacing * buffers);
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &reducer->sharers, 1, MPI_INT, MPI_MIN, comm->world));
    const int color = comm->local_rank < reducer->sharers ? comm->local_rank : MPI_UNDEFINED;
    CHECK_MPI(MPI_Comm_split(comm->world, color, comm->rank, &reducer->peers));
    for (int b = 0; b < REDUCER_BUCKETS; b++) { reducer->requests[b] = MPI_REQUEST_NULL; }
    cut(reducer);
    reducer_publish(reducer);
    return reducer;
}

void reducer_close(Reducer *reducer) {
    if (!reducer) { return; }
    if (reducer->peers != MPI_COMM_NULL) { CHECK_MPI(MPI_Comm_free(&reducer->peers)); }
    comm_shared_free(&reducer->memory);
    free(reducer->gradients);
    free(reducer);
}

float *reducer_gradient(Reducer *reducer) { return reducer->gradients[reducer->comm->local_rank]; }

float *reducer_replica(Reducer *reducer, int index) { return reducer->replicas[index]; }

void reducer_fill(Reducer *reducer, int index, const float *host) {
    if (reducer->comm->local_rank == 0) {
        device_upload(reducer->device, reducer->replicas[index], host, reducer->count * sizeof *host);
    }
    comm_shared_sync(reducer->comm, &reducer->memory);
}

const Slice *reducer_slices(const Reducer *reducer, int *count) {
    *count = reducer->comm->local_rank < reducer->sharers ? REDUCER_BUCKETS : 0;
    return reducer->slices;
}

const float *reducer_summed(const Reducer *reducer) { return reducer->gradients[0]; }

// The next buckets that are final on all ranks of the node, as far as the marks tell.
static int buckets_final(const Reducer *reducer) {
    size_t begin = 0;
    for (int i = 0; i < reducer->comm->local_size; i++) {
        const size_t mark = atomic_load_explicit(&reducer->marks[i].begin, memory_order_acquire);
        begin = mark > begin ? mark : begin;
    }
    int final = reducer->done;
    while (final < REDUCER_BUCKETS && reducer->bucket_begin[final] >= begin) { final++; }
    return final;
}

// All workers. Adds up this rank's slice of the buckets up to target, always in the order of the local ranks.
static void sum_buckets(Reducer *reducer) {
    device_sync(reducer->device);
    for (int b = reducer->done; b < reducer->target; b++) {
        const Slice slice = reducer->slices[b];
        for (int i = 1; i < reducer->comm->local_size; i++) {
            add(reducer->device, reducer->gradients[0] + slice.begin, reducer->gradients[i] + slice.begin,
                slice.end - slice.begin);
        }
    }
    device_sync(reducer->device);
}

// The leader alone, after sum_buckets: starts the sum over the nodes. The order of buckets is the same everywhere.
static void pass_on(Reducer *reducer) {
    for (; reducer->done < reducer->target; reducer->done++) {
        const Slice slice = reducer->slices[reducer->done];
        if (reducer->comm->nodes == 1 || reducer->peers == MPI_COMM_NULL) { continue; }
        CHECK(slice.end - slice.begin <= INT32_MAX);
        CHECK_MPI(MPI_Iallreduce(MPI_IN_PLACE, reducer->gradients[0] + slice.begin, (int)(slice.end - slice.begin),
                                 MPI_FLOAT, MPI_SUM, reducer->peers, &reducer->requests[reducer->done]));
    }
}

void reducer_ready(Reducer *reducer, size_t begin) {
    if (reducer->comm->size == 1) { return; }
    if (device_leader()) {
        atomic_store_explicit(&reducer->marks[reducer->comm->local_rank].begin, begin, memory_order_release);
        reducer->target = buckets_final(reducer);
    }
    sum_buckets(reducer);
    if (device_leader()) { pass_on(reducer); }
}

static void sum_rest(void *context) { sum_buckets(context); }

void reducer_sum(Reducer *reducer) {
    if (reducer->comm->size == 1) { return; }
    comm_shared_sync(reducer->comm, &reducer->memory);
    reducer->target = REDUCER_BUCKETS;
    device_run(reducer->device, sum_rest, reducer);
    pass_on(reducer);
    CHECK_MPI(MPI_Waitall(REDUCER_BUCKETS, reducer->requests, MPI_STATUSES_IGNORE));
    reducer->done = 0;
}

void reducer_publish(Reducer *reducer) {
    atomic_store(&reducer->marks[reducer->comm->local_rank].begin, SIZE_MAX);
    comm_shared_sync(reducer->comm, &reducer->memory);
}
