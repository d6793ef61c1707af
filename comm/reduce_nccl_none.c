// What stands in for reduce_nccl.c in a build without the CUDA backend, where no device calls for it.
#include "comm/reducer.h"

Reducer *reducer_open_nccl(const Comm *comm, Device *device, size_t count, int replicas, Error *error) {
    (void)comm, (void)device, (void)count, (void)replicas;
    error_set(error, EX_UNAVAILABLE, "this bertune was built without the CUDA backend; use run.device=cpu");
    return NULL;
}
