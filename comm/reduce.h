// The one run-time seam between transports: a reducer owns the gradient buffer and sums it over the ranks while
// backward still runs, and owns what all ranks hold alike: weights and moments.
//   REDUCE_SHARED  of CPUs (reduce_shared.c): in memory that the ranks of a node share, and with MPI between nodes.
//   Each
//                  rank updates only the part of the replicas whose gradient it has summed (the optimiser states are
//                  partitioned as in ZeRO, Rajbhandari et al., 2020).
//   REDUCE_STAGED  of GPUs, shared by ranks or without NCCL (reduce_staged.c): the gradients are copied to host memory
//                  and back. Everything is in the GPU's memory, and each rank updates all of it.
//   REDUCE_NCCL    of GPUs, one a rank (reduce_nccl.c): as staged, but the sum is put into the queue, beside backward.
#ifndef BERTUNE_REDUCE_H
#define BERTUNE_REDUCE_H

#include "comm/comm.h"
#include "kernels/kernels.h"

typedef struct Reducer Reducer;

typedef enum { REDUCE_SHARED, REDUCE_STAGED, REDUCE_NCCL } Transport;

typedef struct {
    size_t begin, end;
} Slice;

enum { REDUCER_BUCKETS = 4 };  // parts of the gradient that are summed one after the other, the last elements first

// Collective. Buffers of count floats in device memory, zeroed: a gradient and `replicas` others. NULL on every rank
// where the transport cannot be used. Free with reducer_close (collective), after recordings in which it is summed.
Reducer *reducer_open(const Comm *comm, Device *device, Transport transport, size_t count, int replicas, Error *error);
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

// True where reducer_ready and reducer_sum do no more than put work into the device's queue, so that both may be
// recorded (device_record).
bool reducer_in_queue(const Reducer *reducer);

// Collective. From now on the gradients are summed in a binary tree over the ranks in the order of Comm.part, for which
// the nodes and the ranks of each are the same power of two; EX_CONFIG where they are not. Not of REDUCE_NCCL.
bool reducer_fix_order(Reducer *reducer, Error *error);

// The slices of the sum that this rank holds after reducer_sum, at most REDUCER_BUCKETS; it must update the replicas
// there. All ranks of a node together hold every element, the same bits on every node and in every run with the same
// ranks.
const Slice *reducer_slices(const Reducer *reducer, int *count);
// The buffer in which they lie, (count), only they valid; after reducer_complete all of it.
const float *reducer_summed(const Reducer *reducer);
// Collective. Waits until every slice is there.
void reducer_complete(Reducer *reducer);
// True on ranks whose slices together hold every element once.
bool reducer_counts(const Reducer *reducer);

// Collective. What the ranks wrote to the replicas before, all see after; and the gradients may be written again.
void reducer_publish(Reducer *reducer);

// While the caller waits for a device whose queue holds sums: ends all ranks with EX_PEER_LOST where one can no longer
// be had because a rank or the network is lost.
void reducer_check(Reducer *reducer);

#endif
