// Sums gradients in host memory. The buffers of a node's ranks lie in shared memory, and so do the replicas: each rank
// adds up one slice of every bucket from all buffers of its node into rank 0's, and sums it with the ranks of its
// number on other nodes. Nothing is copied back: the same slice of the replicas is updated by the same rank.
#include <stdatomic.h>
#include <stdlib.h>

#include "comm/reducer.h"

// From which element on a rank's gradient is final; a cache line of its own.
typedef struct {
    _Alignas(64) _Atomic size_t begin;
} Mark;

typedef struct {
    Reducer base;
    SharedMemory memory;  // gradients, replicas, marks
    float **gradients;    // (local_size)
    Mark *marks;          // (local_size)
    int done, target;     // buckets summed, and to be summed now; decided by the leader
    MPI_Comm peers;       // the ranks of this local rank, one a node
    MPI_Request requests[REDUCER_BUCKETS];
} Shared;

// The next buckets that are final on all ranks of the node, as far as the marks tell.
static int buckets_final(const Shared *shared) {
    size_t begin = 0;
    for (int i = 0; i < shared->base.comm->local_size; i++) {
        const size_t mark = atomic_load_explicit(&shared->marks[i].begin, memory_order_acquire);
        begin = mark > begin ? mark : begin;
    }
    int final = shared->done;
    while (final < REDUCER_BUCKETS && reducer_part(shared->base.count, REDUCER_BUCKETS, final, 0, 1).begin >= begin) {
        final++;
    }
    return final;
}

// All workers. Adds up this rank's slice of the buckets up to target, in a binary tree over the local ranks.
static void sum_buckets(Shared *shared) {
    Device *device = shared->base.device;
    const int ranks = shared->base.comm->local_size;
    device_sync(device);
    for (int b = shared->done; b < shared->target; b++) {
        const Slice slice = shared->base.slices[b];
        for (int step = 1; step < ranks; step *= 2) {
            for (int i = 0; i + step < ranks; i += 2 * step) {
                add(device, shared->gradients[i] + slice.begin, shared->gradients[i + step] + slice.begin,
                    slice.end - slice.begin);
            }
        }
    }
    device_sync(device);
}

// The tree goes on over the nodes, whose number is a power of two: by recursive doubling, so that all have the sum.
static void sum_nodes(const Shared *shared, Slice slice) {
    const int node = shared->base.comm->node, count = narrow_int((int64_t)(slice.end - slice.begin));
    float *mine = shared->gradients[0] + slice.begin, *other = check_calloc((size_t)count, sizeof *other);
    for (int step = 1; step < shared->base.comm->nodes; step *= 2) {
        CHECK_MPI(MPI_Sendrecv(mine, count, MPI_FLOAT, node ^ step, 0, other, count, MPI_FLOAT, node ^ step, 0,
                               shared->peers, MPI_STATUS_IGNORE));
        for (int i = 0; i < count; i++) { mine[i] += other[i]; }
    }
    free(other);
}

// The leader alone, after sum_buckets: starts the sum over the nodes. The order of buckets is the same everywhere.
static void pass_on(Shared *shared) {
    for (; shared->done < shared->target; shared->done++) {
        const Slice slice = shared->base.slices[shared->done];
        if (shared->base.comm->nodes == 1 || shared->peers == MPI_COMM_NULL) { continue; }
        CHECK(slice.end - slice.begin <= INT32_MAX);
        if (shared->base.tree) {
            sum_nodes(shared, slice);
            continue;
        }
        CHECK_MPI(MPI_Iallreduce(MPI_IN_PLACE, shared->gradients[0] + slice.begin, (int)(slice.end - slice.begin),
                                 MPI_FLOAT, MPI_SUM, shared->peers, &shared->requests[shared->done]));
    }
}

static void shared_ready(Reducer *reducer, size_t begin) {
    Shared *shared = (Shared *)reducer;
    if (reducer->comm->size == 1 || (reducer->tree && reducer->comm->nodes > 1)) { return; }
    if (device_leader()) {
        atomic_store_explicit(&shared->marks[reducer->comm->local_rank].begin, begin, memory_order_release);
        shared->target = buckets_final(shared);
    }
    sum_buckets(shared);
    if (device_leader()) { pass_on(shared); }
}

static void sum_rest(void *context) { sum_buckets(context); }

static void shared_sum(Reducer *reducer) {
    Shared *shared = (Shared *)reducer;
    if (reducer->comm->size == 1) { return; }
    comm_shared_sync(reducer->comm, &shared->memory);
    shared->target = REDUCER_BUCKETS;
    device_run(reducer->device, sum_rest, shared);
    pass_on(shared);
    CHECK_MPI(MPI_Waitall(REDUCER_BUCKETS, shared->requests, MPI_STATUSES_IGNORE));
    shared->done = 0;
}

static void shared_publish(Reducer *reducer) {
    Shared *shared = (Shared *)reducer;
    atomic_store(&shared->marks[reducer->comm->local_rank].begin, SIZE_MAX);
    comm_shared_sync(reducer->comm, &shared->memory);
}

static void shared_complete(Reducer *reducer) { comm_shared_sync(reducer->comm, &((Shared *)reducer)->memory); }

static void shared_close(Reducer *reducer) {
    Shared *shared = (Shared *)reducer;
    if (shared->peers != MPI_COMM_NULL) { CHECK_MPI(MPI_Comm_free(&shared->peers)); }
    comm_shared_free(&shared->memory);
    free(shared->gradients);
    free(shared);
}

static void lay_out(Shared *shared, int replicas) {
    Reducer *base = &shared->base;
    const size_t spacing = (base->count + 1023) / 1024 * 1024;  // floats, whole pages
    const size_t ranks = (size_t)base->comm->local_size, buffers = ranks + (size_t)replicas;
    shared->memory = comm_shared_alloc(base->comm, spacing * buffers * sizeof(float) + ranks * sizeof *shared->marks);
    shared->gradients = check_calloc(buffers, sizeof *shared->gradients);
    for (size_t i = 0; i < buffers; i++) { shared->gradients[i] = (float *)shared->memory.base + spacing * i; }
    shared->marks = (Mark *)((float *)shared->memory.base + spacing * buffers);
    base->gradient = shared->gradients[base->comm->local_rank];
    base->summed = shared->gradients[0];
    base->replicas = shared->gradients + ranks;
    base->replica_count = replicas;
}

Reducer *reducer_open_shared(const Comm *comm, Device *device, size_t count, int replicas) {
    static const ReducerCalls calls = {.close = shared_close,
                                       .ready = shared_ready,
                                       .sum = shared_sum,
                                       .publish = shared_publish,
                                       .complete = shared_complete};
    Shared *shared = check_calloc(1, sizeof *shared);
    shared->base = (Reducer){.calls = &calls,
                             .comm = comm,
                             .device = device,
                             .count = count,
                             .fills = comm->local_rank == 0,
                             .counts = comm->node == 0};  // the other nodes hold the same sums
    lay_out(shared, replicas);
    int sharers = comm->local_size;  // the smallest number of ranks on any node; higher local ranks own no slice
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &sharers, 1, MPI_INT, MPI_MIN, comm->world));
    const bool owner = comm->local_rank < sharers;
    CHECK_MPI(MPI_Comm_split(comm->world, owner ? comm->local_rank : MPI_UNDEFINED, comm->node, &shared->peers));
    for (int b = 0; b < REDUCER_BUCKETS; b++) {
        shared->requests[b] = MPI_REQUEST_NULL;
        if (owner) { shared->base.slices[b] = reducer_part(count, REDUCER_BUCKETS, b, comm->local_rank, sharers); }
    }
    shared->base.slice_count = owner ? REDUCER_BUCKETS : 0;
    reducer_publish(&shared->base);
    return &shared->base;
}
