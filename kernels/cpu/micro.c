// Which micro-kernels this processor runs.
#include "kernels/cpu/cpu.h"

extern const MicroKernels micro_avx512, micro_avx2, micro_baseline, micro_bf16;

const MicroKernels *const *micro_supported(void) {
    static const MicroKernels *supported[5];
    size_t count = 0;
#if defined(__x86_64__) && !WITH_TSAN
    __builtin_cpu_init();
    const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (v4) { supported[count++] = &micro_avx512; }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) { supported[count++] = &micro_avx2; }
    supported[count++] = &micro_baseline;
    if (v4 && __builtin_cpu_supports("avx512bf16")) { supported[count++] = &micro_bf16; }
#else
    supported[count++] = &micro_baseline;
#endif
    return supported;
}

const MicroKernels *micro_best(bool pairs) {
    const MicroKernels *const *kernels = micro_supported();
    while (*kernels && ((*kernels)->pair_lines != NULL) != pairs) { kernels++; }
    return *kernels;
}
