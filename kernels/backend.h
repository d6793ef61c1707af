// The seam between kernels.h and what implements it: each backend defines every function of the list under its own name
// with the prefix cpu_ or cuda_, and a table of them. kernels.c passes each call on to the table of its Device.
#ifndef BERTUNE_BACKEND_H
#define BERTUNE_BACKEND_H

#include "kernels/kernels.h"

// Functions that take a Device.
#define BACKEND_OPERATIONS(X)        \
    X(device_close)                  \
    X(device_model)                  \
    X(device_threads)                \
    X(device_run)                    \
    X(device_sync)                   \
    X(device_alloc)                  \
    X(device_free)                   \
    X(device_zero)                   \
    X(device_upload)                 \
    X(device_download)               \
    X(device_peak_flops)             \
    X(device_copy_bandwidth)         \
    X(embedding_forward)             \
    X(embedding_backward)            \
    X(dropout_apply)                 \
    X(layernorm_forward)             \
    X(residual_layernorm_forward)    \
    X(layernorm_backward_input)      \
    X(layernorm_backward_parameters) \
    X(linear_forward)                \
    X(linear_gelu_forward)           \
    X(linear_backward_input)         \
    X(linear_gelu_backward_input)    \
    X(linear_backward_weight)        \
    X(tanh_forward)                  \
    X(tanh_backward)                 \
    X(attention_forward)             \
    X(attention_backward)            \
    X(cls_attention_forward)         \
    X(cls_attention_backward)        \
    X(cls_attention_backward_weight) \
    X(cross_entropy)                 \
    X(gather_lines)                  \
    X(scatter_add_lines)             \
    X(add)                           \
    X(square_sums)                   \
    X(adamw_update)

// The same, of devices that record steps; NULL in the tables of others.
#define BACKEND_RECORDING(X) \
    X(device_record)         \
    X(device_replay)         \
    X(device_record_nodes)   \
    X(device_record_free)    \
    X(device_alloc_host)     \
    X(device_free_host)      \
    X(device_pin_host)       \
    X(device_unpin_host)     \
    X(device_download_later) \
    X(device_mark)           \
    X(device_wait)           \
    X(device_done)           \
    X(step_take)             \
    X(step_sums)             \
    X(step_adamw)            \
    X(step_end)

#define BACKEND_TYPE(name) typedef __typeof__(name) name##_function;
BACKEND_OPERATIONS(BACKEND_TYPE)
BACKEND_RECORDING(BACKEND_TYPE)
#define BACKEND_MEMBER(name) name##_function *name;
typedef struct {
    DeviceKind kind;
    const char *name, *built;
    const char *(*lacks)(int index, Precision precision);
    int (*count)(const char **why_none);
    bool (*describe)(int index, DeviceInfo *info, Error *error);
    Device *(*open)(int index, int threads, Precision precision, Error *error);
    BACKEND_OPERATIONS(BACKEND_MEMBER)
    BACKEND_RECORDING(BACKEND_MEMBER)
} Backend;

// Every backend's Device begins with this.
struct Device {
    const Backend *backend;
};

#ifdef __cplusplus
extern "C" {
#endif
extern const Backend cpu_backend;
// What stands in for the CUDA backend where it is not built counts no GPUs and says so.
extern const Backend cuda_backend;
#ifdef __cplusplus
}
#endif

#endif
