// Passes every function of kernels.h on to the backend of its device.
#include <stdlib.h>

#include "kernels/backend.h"

static const Backend *backend_of(DeviceKind kind) { return kind == DEVICE_CUDA ? &cuda_backend : &cpu_backend; }

const char *device_built(DeviceKind kind) { return backend_of(kind)->built; }

const char *device_lacks(DeviceKind kind, int index, Precision precision) {
    return backend_of(kind)->lacks(index, precision);
}

int device_count(DeviceKind kind, const char **why_none) { return backend_of(kind)->count(why_none); }

bool device_describe(DeviceKind kind, int index, DeviceInfo *info, Error *error) {
    return backend_of(kind)->describe(index, info, error);
}

Device *device_open(DeviceKind kind, int index, int threads, Precision precision, Error *error) {
    return backend_of(kind)->open(index, threads, precision, error);
}

DeviceKind device_kind(const Device *device) { return device->backend->kind; }

const char *device_name(const Device *device) { return device->backend->name; }

bool device_records(const Device *device) { return device->backend->device_record != NULL; }

void device_close(Device *device) {
    if (device) { device->backend->device_close(device); }
}

const char *device_model(const Device *device) { return device->backend->device_model(device); }

int device_threads(const Device *device) { return device->backend->device_threads(device); }

void device_run(Device *device, void (*body)(void *context), void *context) {
    device->backend->device_run(device, body, context);
}

void device_sync(Device *device) { device->backend->device_sync(device); }

void *device_alloc(Device *device, size_t bytes) { return device->backend->device_alloc(device, bytes); }

void device_free(Device *device, void *memory) { device->backend->device_free(device, memory); }

void device_zero(Device *device, void *memory, size_t bytes) { device->backend->device_zero(device, memory, bytes); }

void device_upload(Device *device, void *to, const void *host, size_t bytes) {
    device->backend->device_upload(device, to, host, bytes);
}

void device_download(Device *device, void *host, const void *from, size_t bytes) {
    device->backend->device_download(device, host, from, bytes);
}

Recording *device_record(Device *device, void (*body)(void *context), void *context) {
    return device->backend->device_record(device, body, context);
}

void device_replay(Device *device, Recording *recording) { device->backend->device_replay(device, recording); }

int device_record_nodes(const Device *device, const Recording *recording) {
    return device->backend->device_record_nodes(device, recording);
}

void device_record_free(Device *device, Recording *recording) {
    device->backend->device_record_free(device, recording);
}

void *device_alloc_host(Device *device, size_t bytes) { return device->backend->device_alloc_host(device, bytes); }

void device_free_host(Device *device, void *memory) { device->backend->device_free_host(device, memory); }

void device_pin_host(Device *device, void *memory, size_t bytes) {
    device->backend->device_pin_host(device, memory, bytes);
}

void device_unpin_host(Device *device, void *memory) { device->backend->device_unpin_host(device, memory); }

void device_download_later(Device *device, void *host, const void *from, size_t bytes) {
    device->backend->device_download_later(device, host, from, bytes);
}

void device_mark(Device *device, int slot) { device->backend->device_mark(device, slot); }

bool device_done(Device *device, int slot) { return device->backend->device_done(device, slot); }

void device_wait(Device *device, int slot) { device->backend->device_wait(device, slot); }

double device_peak_flops(Device *device) { return device->backend->device_peak_flops(device); }

double device_copy_bandwidth(Device *device) { return device->backend->device_copy_bandwidth(device); }

void embedding_forward(Device *device, float *out, const float *word, const float *position, const float *type,
                       const int32_t *ids, const int32_t *positions, Extent T, int H) {
    device->backend->embedding_forward(device, out, word, position, type, ids, positions, T, H);
}

void embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                        const int32_t *ids, const int32_t *positions, int padding, bool accumulate, int V, int P,
                        Extent T, int H) {
    device->backend->embedding_backward(device, dword, dposition, dtype, dout, ids, positions, padding, accumulate, V,
                                        P, T, H);
}

void dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, Extent M, int N) {
    device->backend->dropout_apply(device, out, in, lines, dropout, M, N);
}

void layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in, const float *weight,
                       const float *bias, float epsilon, Extent M, int N) {
    device->backend->layernorm_forward(device, out, normalized, rstd, in, weight, bias, epsilon, M, N);
}

void residual_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                                const float *residual, const float *weight, const float *bias, float epsilon,
                                Lines lines, Dropout dropout, Extent M, int N) {
    device->backend->residual_layernorm_forward(device, out, normalized, rstd, in, residual, weight, bias, epsilon,
                                                lines, dropout, M, N);
}

void layernorm_backward_input(Device *device, float *din, const float *dout, const float *normalized, const float *rstd,
                              const float *weight, Extent M, int N) {
    device->backend->layernorm_backward_input(device, din, dout, normalized, rstd, weight, M, N);
}

void layernorm_backward_parameters(Device *device, float *dweight, float *dbias, const float *dout,
                                   const float *normalized, bool accumulate, Extent M, int N) {
    device->backend->layernorm_backward_parameters(device, dweight, dbias, dout, normalized, accumulate, M, N);
}

void linear_forward(Device *device, float *out, const float *in, const float *weight, const float *bias, Extent M,
                    int N, int K) {
    device->backend->linear_forward(device, out, in, weight, bias, M, N, K);
}

void linear_gelu_forward(Device *device, float *out, float *derivative, const float *in, const float *weight,
                         const float *bias, Extent M, int N, int K) {
    device->backend->linear_gelu_forward(device, out, derivative, in, weight, bias, M, N, K);
}

void linear_backward_input(Device *device, float *din, const float *dout, const float *weight, const float *residual,
                           Extent M, int N, int K) {
    device->backend->linear_backward_input(device, din, dout, weight, residual, M, N, K);
}

void linear_gelu_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                const float *derivative, Extent M, int N, int K) {
    device->backend->linear_gelu_backward_input(device, din, dout, weight, derivative, M, N, K);
}

void linear_backward_weight(Device *device, float *dweight, float *dbias, const float *dout, const float *in,
                            bool accumulate, Extent M, int N, int K) {
    device->backend->linear_backward_weight(device, dweight, dbias, dout, in, accumulate, M, N, K);
}

void tanh_forward(Device *device, float *out, const float *in, Extent M, int N) {
    device->backend->tanh_forward(device, out, in, M, N);
}

void tanh_backward(Device *device, float *din, const float *dout, const float *out, Extent M, int N) {
    device->backend->tanh_backward(device, din, dout, out, M, N);
}

void attention_forward(Device *device, float *out, float *log_sum, const float *qkv, Sequences sequences,
                       Dropout dropout) {
    device->backend->attention_forward(device, out, log_sum, qkv, sequences, dropout);
}

void attention_backward(Device *device, float *dqkv, const float *dout, const float *out, const float *log_sum,
                        const float *qkv, Sequences sequences, Dropout dropout) {
    device->backend->attention_backward(device, dqkv, dout, out, log_sum, qkv, sequences, dropout);
}

void cls_attention_forward(Device *device, float *context, ClsAttention saved, const float *q, const float *x,
                           ClsProjections projections, Sequences sequences, Dropout dropout) {
    device->backend->cls_attention_forward(device, context, saved, q, x, projections, sequences, dropout);
}

void cls_attention_backward(Device *device, float *dq, float *dx, float *dattended, float *dmixed,
                            const float *dcontext, ClsAttention saved, const float *x, ClsProjections projections,
                            Sequences sequences, Dropout dropout) {
    device->backend->cls_attention_backward(device, dq, dx, dattended, dmixed, dcontext, saved, x, projections,
                                            sequences, dropout);
}

void cls_attention_backward_weight(Device *device, ClsProjectionGradients gradients, const float *dattended,
                                   const float *dcontext, ClsAttention saved, const float *q, bool accumulate, Extent B,
                                   int A, int D) {
    device->backend->cls_attention_backward_weight(device, gradients, dattended, dcontext, saved, q, accumulate, B, A,
                                                   D);
}

void cross_entropy(Device *device, float *losses, float *dlogits, const float *logits, const int32_t *labels,
                   Factor scale, Extent B, int C) {
    device->backend->cross_entropy(device, losses, dlogits, logits, labels, scale, B, C);
}

void gather_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    device->backend->gather_lines(device, out, in, lines, M, N);
}

void scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    device->backend->scatter_add_lines(device, out, in, lines, M, N);
}

void add(Device *device, float *out, const float *in, size_t count) { device->backend->add(device, out, in, count); }

void square_sums(Device *device, double *sums, const float *in, size_t count) {
    device->backend->square_sums(device, sums, in, count);
}

double square_sum(Device *device, const float *in, size_t count) {
    const size_t blocks = square_blocks(count);
    double *sums = check_calloc(blocks, sizeof *sums), sum = 0.0;
    square_sums(device, sums, in, count);
    for (size_t b = 0; b < blocks; b++) { sum += sums[b]; }
    free(sums);
    return sum;
}

void adamw_update(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                  AdamW adamw, size_t count) {
    device->backend->adamw_update(device, weight, first_moment, second_moment, gradient, adamw, count);
}

void step_take(Device *device, Step *step, BatchArrays batch, const Step *steps, BatchArrays batches,
               const int32_t *next, Extent T) {
    device->backend->step_take(device, step, batch, steps, batches, next, T);
}

void step_sums(Device *device, double *sums, const float *in, size_t count, const float *losses, Extent B) {
    device->backend->step_sums(device, sums, in, count, losses, B);
}

void step_adamw(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                const Step *step, const double *sums, size_t blocks, float max_norm, const int32_t *halted, bool decay,
                size_t count) {
    device->backend->step_adamw(device, weight, first_moment, second_moment, gradient, step, sums, blocks, max_norm,
                                halted, decay, count);
}

void step_end(Device *device, StepSums *results, int32_t *halted, int32_t *next, const double *sums, size_t blocks) {
    device->backend->step_end(device, results, halted, next, sums, blocks);
}
