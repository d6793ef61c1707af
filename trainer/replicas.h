// That all ranks hold the same weights is what lets rank 0 alone write them; here it is checked.
#ifndef BERTUNE_REPLICAS_H
#define BERTUNE_REPLICAS_H

#include "comm/comm.h"
#include "kernels/kernels.h"

// Collective. False with EX_SOFTWARE on all ranks, naming one that differs, unless the count parameters in the memory
// of each rank's device have the hash of rank 0's.
bool replicas_alike(const Comm *comm, Device *device, const float *parameters, size_t count, int64_t step,
                    Error *error);

#endif
