// Stands in for kernels/cuda where it is not built.
#include "kernels/backend.h"

static const char why[] = "this bertune was built without the CUDA backend";

static const char *lacks(int index, Precision precision) {
    (void)index, (void)precision;
    return why;
}

static int count(const char **why_none) {
    *why_none = why;
    return 0;
}

static bool describe(int index, DeviceInfo *info, Error *error) {
    (void)index, (void)info;
    return error_set(error, EX_UNAVAILABLE, "%s", why);
}

static Device *open(int index, int threads, Precision precision, Error *error) {
    (void)index, (void)threads, (void)precision;
    error_set(error, EX_UNAVAILABLE, "%s", why);
    return NULL;
}

const Backend cuda_backend = {.kind = DEVICE_CUDA,
                              .name = "cuda",
                              .built = "not built",
                              .lacks = lacks,
                              .count = count,
                              .describe = describe,
                              .open = open};
