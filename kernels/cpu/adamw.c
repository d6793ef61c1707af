// AdamW as torch.optim.AdamW computes it for CPU tensors, in the same order of roundings.
#include <math.h>

#include "kernels/cpu/cpu.h"

// No fused multiply-add here, so that every product is rounded, as torch's are.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

static MULTIVERSION void update_range(float *restrict weight, float *restrict first, float *restrict second,
                                      const float *restrict gradient, AdamW a, Range range) {
#pragma omp simd
    for (size_t i = range.begin; i < range.end; i++) {
        const float g = gradient[i] * a.gradient_scale;
        const float m = first[i] + a.rest1 * (g - first[i]);
        const float v = second[i] * a.beta2 + a.rest2 * g * g;
        first[i] = m;
        second[i] = v;
        weight[i] = weight[i] * a.decay - a.step_size * m / (sqrtf(v) / a.root_correction + a.epsilon);
    }
}

void cpu_adamw_update(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                      AdamW adamw, size_t count) {
    (void)device;
    update_range(weight, first_moment, second_moment, gradient, adamw, own_share(count, 64));
}
