// The one run-time seam between transports: a reducer owns the gradient buffer and sums it over the ranks. reduce_mpi.c
// sums in host memory with MPI; a file beside it does the same for another device.
#ifndef BERTUNE_REDUCE_H
#define BERTUNE_REDUCE_H

#include "comm/comm.h"
#include "kernels/kernels.h"

typedef struct Reducer Reducer;

// Collective. A buffer of count floats in device memory, zeroed. Free with reducer_close (collective).
Reducer *reducer_open(const Comm *comm, Device *device, size_t count);
void reducer_close(Reducer *reducer);

// The gradient of this rank, (count).
float *reducer_gradient(Reducer *reducer);

// Collective. Every rank's buffer becomes the sum over the ranks, the same bits on all of them and in every run with
// the same ranks.
void reducer_sum(Reducer *reducer);

#endif
