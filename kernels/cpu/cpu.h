// What the files of the CPU backend share: the device, its workers, run-time choice of the instruction set.
// Workers are the threads of an OpenMP region that device_run opens.
#ifndef BERTUNE_CPU_H
#define BERTUNE_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/product.h"

// cpu_device_close, ...: what backend.c makes a table of.
#define CPU_DECLARE(name) __typeof__(name) cpu_##name;
BACKEND_OPERATIONS(CPU_DECLARE)

// Two scratch buffers a worker, so that an operation can hold one while a product inside it uses the other.
typedef enum { SCRATCH_OPERATION, SCRATCH_PRODUCT, SCRATCHES } ScratchUse;

typedef struct {
    float *memory;    // 64-byte aligned
    size_t capacity;  // floats
} Scratch;

typedef struct {
    Device base;
    int threads;
    const MicroKernels *fp32;     // for what is computed in fp32 whatever the precision
    const MicroKernels *kernels;  // for the layers' products
    Scratch (*scratch)[SCRATCHES];
} CpuDevice;

// The device as what it is, which must be of this backend.
static inline CpuDevice *cpu_device(const Device *device) {
    CHECK(device->backend == &cpu_backend);
    return (CpuDevice *)device;
}

// Nothing records steps here, so that every number is known.
static inline size_t count_of(Extent extent) {
    CHECK(!extent.now);
    return (size_t)extent.most;
}

// At least count floats for the calling worker; what they held before is lost.
float *device_scratch(CpuDevice *device, ScratchUse use, size_t count);

// product_compute with the calling worker's scratch.
void device_product(CpuDevice *device, const MicroKernels *kernels, Product product);

// Compiles a function for AVX-512, AVX2 and the baseline and picks at run time. Only for leaf functions without OpenMP
// constructs but `omp simd`: an outlined parallel region would be compiled for the baseline alone.
// Their names must be unique in the library, although they are static: clang 14 exports the functions that pick.
// ThreadSanitizer gets the baseline alone: it is not ready yet when the choice is made, and blind to wide vectors.
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#define WITH_TSAN __has_feature(thread_sanitizer)
#else
#define WITH_TSAN 0
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !WITH_TSAN
#define MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSION
#endif

typedef struct {
    size_t begin, end;
} Range;

// The calling worker's part of count items, in whole multiples of grain.
Range own_share(size_t count, size_t grain);

#endif
