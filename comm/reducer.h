// What the transports of reduce.h have in common; for the files that implement them.
#ifndef BERTUNE_REDUCER_H
#define BERTUNE_REDUCER_H

#include "comm/reduce.h"

// What a transport does. NULL: there is nothing to do.
typedef struct {
    void (*close)(Reducer *reducer);  // and frees it
    void (*ready)(Reducer *reducer, size_t begin);
    void (*sum)(Reducer *reducer);
    void (*publish)(Reducer *reducer);
    void (*check)(Reducer *reducer);
    void (*fix_order)(Reducer *reducer);
    void (*complete)(Reducer *reducer);
} ReducerCalls;

// Every transport's own begins with this.
struct Reducer {
    const ReducerCalls *calls;
    const Comm *comm;
    Device *device;
    size_t count;
    float *gradient, *summed;
    float **replicas;
    int replica_count;
    bool fills;  // this rank writes the replicas in reducer_fill
    bool in_queue, counts, tree;
    Slice slices[REDUCER_BUCKETS];
    int slice_count;
};

// Collective. The transports.
Reducer *reducer_open_shared(const Comm *comm, Device *device, size_t count, int replicas);
Reducer *reducer_open_staged(const Comm *comm, Device *device, size_t count, int replicas);
Reducer *reducer_open_nccl(const Comm *comm, Device *device, size_t count, int replicas, Error *error);

// Elements of part `part` of `parts` of one of the buckets; bucket 0 is the end of the buffer. All begin at whole cache
// lines.
Slice reducer_part(size_t count, int buckets, int bucket, int part, int parts);

// For devices with memory of their own: every rank holds everything, in memory of its device.
void reducer_alloc(Reducer *reducer, const Comm *comm, Device *device, size_t count, int replicas);
void reducer_free(Reducer *reducer);

#endif
