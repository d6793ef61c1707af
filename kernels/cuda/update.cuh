// AdamW of one element, as torch.optim.AdamW computes it for CPU tensors: every product and sum is rounded, none are
// fused, so that the bits are those of the CPU backend.
#ifndef BERTUNE_UPDATE_CUH
#define BERTUNE_UPDATE_CUH

#include <cuda_runtime.h>

#include "kernels/kernels.h"

typedef struct {
    float *weight, *first, *second;
    const float *gradient;
} Weights;

__device__ __forceinline__ void update_one(const Weights &w, size_t i, const AdamW &a) {
    const float g = __fmul_rn(w.gradient[i], a.gradient_scale), old = w.first[i];
    const float m = __fadd_rn(old, __fmul_rn(a.rest1, __fsub_rn(g, old)));
    const float v = __fadd_rn(__fmul_rn(w.second[i], a.beta2), __fmul_rn(__fmul_rn(a.rest2, g), g));
    w.first[i] = m;
    w.second[i] = v;
    const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), a.root_correction), a.epsilon);
    w.weight[i] = __fsub_rn(__fmul_rn(w.weight[i], a.decay), __fdiv_rn(__fmul_rn(a.step_size, m), root));
}

#endif
