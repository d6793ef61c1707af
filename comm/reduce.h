// The one run-time seam between transports: a reducer owns the gradient buffer and sums it over the ranks while
// backward still runs, and owns what all ranks hold alike: weights and moments. Each rank updates only the part of
// these whose gradient it has summed (the optimiser states are partitioned as in ZeRO, Rajbhandari et al., 2020).
// reduce_mpi.c sums in host memory with MPI; a file beside it does the same for another device.
#ifndef BERTUNE_REDUCE_H
#define BERTUNE_REDUCE_H

#include "comm/comm.h"
#include "kernels/kernels.h"

typedef struct Reducer Reducer;

typedef struct {
    size_t begin, end;
} Slice;

enum { REDUCER_BUCKETS = 4 };  // parts of the gradient that are summed one after the other, the last elements first

// Collective. Buffers of count floats in device memory, zeroed: a gradient and `replicas` others. Free with
// reducer_close (collective).
Reducer *reducer_open(const Comm *comm, Device *device, size_t count, int replicas);
void reducer_close(Reducer *reducer);

// The gradient of this rank, (count).
float *reducer_gradient(Reducer *reducer);

// Buffer `index` (count), which holds the same on every rank: one copy for a node where its ranks can share memory.
float *reducer_replica(Reducer *reducer, int index);

// Collective. Every rank passes the same host memory (count); the replica holds it afterwards.
void reducer_fill(Reducer *reducer, int index, const float *host);

// By all workers of a body in device_run, at the same points on every rank. The gradient is final from element `begin`
// on: buckets in which this is so on every rank of the node are summed now. Never waits for another rank.
void reducer_ready(Reducer *reducer, size_t begin);

// Collective. The whole gradient is final: sums what is left.
void reducer_sum(Reducer *reducer);

// The slices of the sum that this rank holds after reducer_sum, at most REDUCER_BUCKETS; it must update the replicas
// there. All ranks of a node together hold every element once, the same bits on every node and in every run with the
// same ranks.
const Slice *reducer_slices(const Reducer *reducer, int *count);
// The buffer in which they lie, (count), only they valid.
const float *reducer_summed(const Reducer *reducer);

// Collective. What the ranks wrote to the replicas before, all see after; and the gradients may be written again.
void reducer_publish(Reducer *reducer);

#endif
