// tanh, the pooler's activation; the GELU is part of linear.c.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vecmath.h"

static MULTIVERSION void tanh_range(float *out, const float *in, Range range) {
#pragma omp simd
    for (size_t i = range.begin; i < range.end; i++) { out[i] = fast_tanh(in[i]); }
}

static Range elements(Extent M, int N) {
    const Range lines = own_share(count_of(M), 1);
    return (Range){lines.begin * (size_t)N, lines.end * (size_t)N};
}

void cpu_tanh_forward(Device *device, float *out, const float *in, Extent M, int N) {
    (void)device;
    tanh_range(out, in, elements(M, N));
}

void cpu_tanh_backward(Device *device, float *din, const float *dout, const float *out, Extent M, int N) {
    (void)device;
    const Range range = elements(M, N);
    for (size_t i = range.begin; i < range.end; i++) { din[i] = dout[i] * (1.0f - out[i] * out[i]); }
}
