// GELU with the error function, and tanh.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vecmath.h"

static const float root_half = 0.70710678f;        // 1 / sqrt(2)
static const float density_at_zero = 0.39894228f;  // 1 / sqrt(2 pi)

static MULTIVERSION void gelu_range(float *restrict out, const float *restrict in, Range range) {
#pragma omp simd
    for (size_t i = range.begin; i < range.end; i++) { out[i] = in[i] * (0.5f + 0.5f * fast_erf(in[i] * root_half)); }
}

void gelu_forward(Device *device, float *out, const float *in, size_t count) {
    FOR_RANGES(device, count, 64) gelu_range(out, in, range);
}

// d/dx x Phi(x) = Phi(x) + x phi(x).
static MULTIVERSION void gelu_gradient(float *din, const float *dout, const float *in, Range range) {
#pragma omp simd
    for (size_t i = range.begin; i < range.end; i++) {
        const float x = in[i], phi = density_at_zero * fast_exp(-0.5f * x * x);
        din[i] = dout[i] * (0.5f + 0.5f * fast_erf(x * root_half) + x * phi);
    }
}

void gelu_backward(Device *device, float *din, const float *dout, const float *in, size_t count) {
    FOR_RANGES(device, count, 64) gelu_gradient(din, dout, in, range);
}

// The pooler's (B, H) is too small for threads or vectors to matter.
void tanh_forward(Device *device, float *out, const float *in, size_t count) {
    (void)device;
    for (size_t i = 0; i < count; i++) { out[i] = tanhf(in[i]); }
}

void tanh_backward(Device *device, float *din, const float *dout, const float *out, size_t count) {
    (void)device;
    for (size_t i = 0; i < count; i++) { din[i] = dout[i] * (1.0f - out[i] * out[i]); }
}
