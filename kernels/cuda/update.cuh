// AdamW of some elements, as torch.optim.AdamW computes it for CPU tensors: every product and sum is rounded, none are
// fused, so that the bits are those of the CPU backend.
#ifndef BERTUNE_UPDATE_CUH
#define BERTUNE_UPDATE_CUH

#include <cuda_runtime.h>

#include "kernels/kernels.h"

typedef struct {
    float *weight, *first, *second;
    const float *gradient;
} Weights;

// Elements i, i + stride, ... of COUNT, all of which are read before any is written.
template <int COUNT>
__device__ __forceinline__ void update_some(const Weights &w, size_t i, size_t stride, size_t count, const AdamW &a) {
    float gradient[COUNT], first[COUNT], second[COUNT], weight[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        const size_t at = i + static_cast<size_t>(k) * stride;
        if (at >= count) { break; }
        gradient[k] = w.gradient[at];
        first[k] = w.first[at];
        second[k] = w.second[at];
        weight[k] = w.weight[at];
    }
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        const size_t at = i + static_cast<size_t>(k) * stride;
        if (at >= count) { break; }
        const float g = __fmul_rn(gradient[k], a.gradient_scale);
        const float m = __fadd_rn(first[k], __fmul_rn(a.rest1, __fsub_rn(g, first[k])));
        const float v = __fadd_rn(__fmul_rn(second[k], a.beta2), __fmul_rn(__fmul_rn(a.rest2, g), g));
        const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), a.root_correction), a.epsilon);
        w.first[at] = m;
        w.second[at] = v;
        w.weight[at] = __fsub_rn(__fmul_rn(weight[k], a.decay), __fdiv_rn(__fmul_rn(a.step_size, m), root));
    }
}

#endif
