// See replicas.h.
#include "trainer/replicas.h"

#include <stdlib.h>
#include <xxhash.h>

static uint64_t hash_of(Device *device, const float *parameters, size_t count) {
    const size_t bytes = count * sizeof *parameters;
    if (device_kind(device) == DEVICE_CPU) { return XXH3_64bits(parameters, bytes); }
    float *copy = check_calloc(count, sizeof *copy);
    device_download(device, copy, parameters, bytes);
    const uint64_t hash = XXH3_64bits(copy, bytes);
    free(copy);
    return hash;
}

bool replicas_alike(const Comm *comm, Device *device, const float *parameters, size_t count, int64_t step,
                    Error *error) {
    if (comm->size == 1) { return true; }
    const uint64_t own = hash_of(device, parameters, count);
    uint64_t first = own;
    comm_broadcast(comm, &first, sizeof first);
    const bool alike =
        own == first ||
        error_set(error, EX_SOFTWARE,
                  "a bug: at step %lld the weights of rank %d (%s) have hash %016llx, those of rank 0 "
                  "%016llx; no checkpoint of them is written",
                  (long long)step, comm->rank, comm->host, (unsigned long long)own, (unsigned long long)first);
    return comm_agree(comm, alike, error);
}
