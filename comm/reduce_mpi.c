// Sums gradients in host memory. The buffers of a node's ranks lie in shared memory, so that each rank adds up one
// slice of all of them, exchanges it with the ranks of its number on other nodes, and stores it in every buffer of its
// node: a reduce-scatter, an all-reduce between nodes and an all-gather, without a copy through MPI inside a node.
#include <stdlib.h>
#include <string.h>

#include "comm/reduce.h"

struct Reducer {
    const Comm *comm;
    Device *device;
    size_t count;
    SharedMemory memory;
    float **gradients;  // (local_size)
    int slices;         // the smallest number of ranks on any node; higher local ranks own no slice
    MPI_Comm peers;     // the ranks of this local rank, one a node
};

Reducer *reducer_open(const Comm *comm, Device *device, size_t count) {
    Reducer *reducer = check_calloc(1, sizeof *reducer);
    const size_t spacing = (count + 1023) / 1024 * 1024;  // floats, whole pages
    *reducer = (Reducer){.comm = comm, .device = device, .count = count, .slices = comm->local_size};
    reducer->memory = comm_shared_alloc(comm, spacing * (size_t)comm->local_size * sizeof(float));
    reducer->gradients = check_calloc((size_t)comm->local_size, sizeof *reducer->gradients);
    for (int i = 0; i < comm->local_size; i++) {
        reducer->gradients[i] = (float *)reducer->memory.base + spacing * (size_t)i;
    }
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &reducer->slices, 1, MPI_INT, MPI_MIN, comm->world));
    const int color = comm->local_rank < reducer->slices ? comm->local_rank : MPI_UNDEFINED;
    CHECK_MPI(MPI_Comm_split(comm->world, color, comm->rank, &reducer->peers));
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

static void sum_slice(Reducer *reducer, size_t begin, size_t count) {
    enum { BLOCK = 1 << 14 };  // floats that stay in the cache between being added up and being stored
    const Comm *comm = reducer->comm;
    for (size_t at = begin; at < begin + count; at += BLOCK) {
        const size_t block = begin + count - at < BLOCK ? begin + count - at : BLOCK;
        // Always in the order of the local ranks, whoever adds: rank 0's buffer is the accumulator.
        float *sum = reducer->gradients[0] + at;
        for (int i = 1; i < comm->local_size; i++) { add(reducer->device, sum, reducer->gradients[i] + at, block); }
        if (comm->nodes > 1) {
            CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, sum, (int)block, MPI_FLOAT, MPI_SUM, reducer->peers));
        }
        for (int i = 1; i < comm->local_size; i++) { memcpy(reducer->gradients[i] + at, sum, block * sizeof(float)); }
    }
}

void reducer_sum(Reducer *reducer) {
    const Comm *comm = reducer->comm;
    if (comm->size == 1) { return; }
    comm_shared_sync(comm, &reducer->memory);
    if (comm->local_rank < reducer->slices) {
        const size_t slice = (reducer->count + (size_t)reducer->slices - 1) / (size_t)reducer->slices;
        const size_t begin = slice * (size_t)comm->local_rank;
        if (begin < reducer->count) {
            sum_slice(reducer, begin, reducer->count - begin < slice ? reducer->count - begin : slice);
        }
    }
    comm_shared_sync(comm, &reducer->memory);
}
