// See nccl_api.h.
#include <dlfcn.h>
#include <string.h>

#include "comm/nccl_api.h"

static const struct {
    const char *name;
    size_t place;
} functions[] = {
#define FUNCTION(name) \
    { #name, offsetof(Nccl, name) }
    FUNCTION(ncclGetVersion),  FUNCTION(ncclGetUniqueId),  FUNCTION(ncclCommInitRank),
    FUNCTION(ncclAllReduce),   FUNCTION(ncclCommAbort),    FUNCTION(ncclCommGetAsyncError),
    FUNCTION(ncclCommDestroy), FUNCTION(ncclGetLastError), FUNCTION(ncclGetErrorString),
#undef FUNCTION
};

static bool load(Nccl *nccl, Error *error) {
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);  // stays: NCCL keeps threads
    if (!library) { return error_set(error, EX_UNAVAILABLE, "%s", dlerror()); }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) {
            return error_set(error, EX_UNAVAILABLE, "libnccl.so.2 has no %s: NCCL 2.13 or newer is needed",
                             functions[i].name);
        }
        memcpy((char *)nccl + functions[i].place, &function, sizeof function);
    }
    const int result = nccl->ncclGetVersion(&nccl->version);
    return result == NCCL_SUCCESS ||
           error_set(error, EX_UNAVAILABLE, "libnccl.so.2: %s", nccl->ncclGetErrorString(result));
}

const Nccl *nccl_load(Error *error) {
    static Nccl loaded;
    static bool done = false;
    done = done || load(&loaded, error);
    return done ? &loaded : NULL;
}
