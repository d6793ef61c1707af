// The few places where device code needs what C++ has not: each is one small function with a plain version, so that the
// same kernels are compiled for processors and tested there (tests/cuda_host). Instructions of compute capability 8.0
// have plain versions for older GPUs, too, which never run them: device_lacks refuses the precisions that need them.
#ifndef BERTUNE_PORTABLE_CUH
#define BERTUNE_PORTABLE_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __CUDACC__
// The block's dynamic shared memory, 16-byte aligned.
#define SHARED_MEMORY(type, name)                                   \
    extern __shared__ __align__(16) unsigned char shared_memory_[]; \
    type *name = reinterpret_cast<type *>(shared_memory_)
#else
#define __grid_constant__  // a parameter whose address is taken without a copy
#define SHARED_MEMORY(type, name) type *name = static_cast<type *>(cuda_host_dynamic_shared())
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define HAVE_AMPERE 1
#else
#define HAVE_AMPERE 0
#endif

// Begins to copy 4 or 16 bytes to shared memory, of which `valid` come from `from` and the others are zero; both
// addresses are multiples of the size.
template <int BYTES>
__device__ __forceinline__ void copy_begin(float *to, const float *from, int valid) {
#if HAVE_AMPERE
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(valid) : "memory");
    }
#elif defined(__CUDACC__)
    for (int i = 0; i < BYTES / 4; i++) { to[i] = 4 * i < valid ? from[i] : 0.0f; }
#else
    cuda_host_copy_async(to, from, BYTES, valid);
#endif
}

// Closes a group of copies that the thread has begun.
__device__ __forceinline__ void copy_commit() {
#if HAVE_AMPERE
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
    cuda_host_copy_commit();
#endif
}

// Waits for the thread's own copies but those of the last GROUPS groups.
template <int GROUPS>
__device__ __forceinline__ void copy_wait() {
#if HAVE_AMPERE
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#elif !defined(__CUDACC__)
    cuda_host_copy_wait(GROUPS);
#endif
}

// The nearest bfloat16 values, of two equally near ones the even: low in the lower half. Not-a-number stays so.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if HAVE_AMPERE
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    const float values[2] = {low, high};
    uint32_t halves[2];
    for (int i = 0; i < 2; i++) {
        const uint32_t bits = __float_as_uint(values[i]);
        const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
        halves[i] = nan ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    }
    return halves[0] | halves[1] << 16;
#endif
}

// The nearest number with TF32's 10 bits of mantissa, ties away from zero.
__device__ __forceinline__ uint32_t round_tf32(float value) {
#if HAVE_AMPERE
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#else
    const uint32_t bits = __float_as_uint(value);
    return (bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u;
#endif
}

// A warp's product of fragments, sum (16, 8) += a (16, words) b (words, 8), as mma.sync wants them. With group = lane /
// 4 and t = lane % 4: sum[0..1] line group, columns 2 t and 2 t + 1; sum[2..3] the same of line group + 8. Of the 8
// words along the depth, a[0] is word t of line group, a[1] of line group + 8, a[2] and a[3] word t + 4 of these; b[0]
// word t and b[1] word t + 4 of column group. A word is two bfloat16 or one TF32.
struct Fragments {
    float *sum;
    const uint32_t *a, *b;
};

#ifndef __CUDACC__
template <bool BF16>
void multiply_lanes(Fragments *lanes[32]) {
    enum { PARTS = BF16 ? 2 : 1 };
    float a[16][8 * PARTS], b[8][8 * PARTS];
    for (int lane = 0; lane < 32; lane++) {
        const int group = lane / 4, t = lane % 4;
        for (int part = 0; part < PARTS; part++) {
            const auto value = [part](uint32_t word) {
                return __uint_as_float(BF16 ? (part ? word & 0xFFFF0000u : word << 16) : word);
            };
            for (int i = 0; i < 4; i++) {
                a[group + 8 * (i % 2)][(t + 4 * (i / 2)) * PARTS + part] = value(lanes[lane]->a[i]);
            }
            for (int i = 0; i < 2; i++) { b[group][(t + 4 * i) * PARTS + part] = value(lanes[lane]->b[i]); }
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            const float *x = a[lane / 4 + 8 * (i / 2)], *y = b[lane % 4 * 2 + i % 2];
            float sum = 0.0f;
            for (int k = 0; k < 8 * PARTS; k++) { sum += x[k] * y[k]; }
            lanes[lane]->sum[i] += sum;
        }
    }
}
#endif

template <bool BF16>
__device__ __forceinline__ void multiply_fragments(float *sum, const uint32_t *a, const uint32_t *b) {
#if HAVE_AMPERE
    if (BF16) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#elif defined(__CUDACC__)
    __trap();
#else
    Fragments mine = {sum, a, b};
    cuda_host_warp_collective<Fragments>(&mine, multiply_lanes<BF16>);
#endif
}

#endif
