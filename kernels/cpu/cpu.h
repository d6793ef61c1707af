// What the files of the CPU backend share: the device, run-time choice of the instruction set, splitting work.
#ifndef BERTUNE_CPU_H
#define BERTUNE_CPU_H

#include "kernels/kernels.h"

struct Device {
    int threads;
    float **scratch;           // per thread, 64-byte aligned
    size_t *scratch_capacity;  // floats
};

// At least count floats for the calling thread of a parallel region; what they held before is lost.
float *device_scratch(Device *device, size_t count);

// Compiles a function for AVX-512, AVX2 and the baseline and picks at run time. Only for leaf functions without OpenMP
// constructs but `omp simd`: an outlined parallel region would be compiled for the baseline alone.
// Their names must be unique in the library, although they are static: clang 14 exports the functions that pick.
#if defined(__x86_64__) && defined(__GNUC__)
#define MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSION
#endif

// The part of count items, in whole multiples of grain, that belongs to one of `parts` workers.
typedef struct {
    size_t begin, end;
} Range;

static inline Range range_of(size_t count, size_t grain, int part, int parts) {
    size_t blocks = (count + grain - 1) / grain;
    size_t begin = blocks * (size_t)part / (size_t)parts * grain;
    size_t end = blocks * (size_t)(part + 1) / (size_t)parts * grain;
    return (Range){begin < count ? begin : count, end < count ? end : count};
}

// Runs the statement that follows once per worker, with `range` bound to the worker's part of count.
#define FOR_RANGES(device, count, grain)                                                                             \
    _Pragma("omp parallel for schedule(static) num_threads((device)->threads)") for (                                \
        int worker = 0; worker < (device)->threads;                                                                  \
        worker++) for (Range range = range_of((count), (grain), worker, (device)->threads); range.begin < range.end; \
                       range.begin = range.end)

#endif
