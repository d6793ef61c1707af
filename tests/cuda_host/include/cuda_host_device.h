// What a kernel may use under the host emulation: qualifiers, built-in variables, barriers, warp functions, arithmetic
// and copies to shared memory. What makes threads wait takes the caller's place, for the report of a deadlock.
#ifndef CUDA_HOST_DEVICE_H
#define CUDA_HOST_DEVICE_H

#include <cuda_runtime_api.h>
#include <math.h>

#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one after another, so one copy serves all of them.
#define __shared__ static

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// The block's dynamic shared memory: of exactly the size asked for, full of NaN when the block begins.
void *cuda_host_dynamic_shared();

// The index of the running thread in its warp.
unsigned cuda_host_lane();

#define CUDA_HOST_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Waits for all threads of the block that have not ended; the votes of all are added up for each.
int cuda_host_barrier(int vote, const char *what, const char *file, int line);

// Waits for the lanes of mask. The last to come calls body once with what each lane brought (null where a lane of the
// mask has ended) and the lanes that came; then all go on.
typedef void (*CudaHostBody)(void *const *lanes, unsigned came);
void cuda_host_gather(unsigned mask, void *mine, CudaHostBody body, const char *what, const char *file, int line);

// Ends the process with a message that names kernel, block and thread.
[[noreturn]] void cuda_host_fault(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

inline void __syncthreads(CUDA_HOST_PLACE) { cuda_host_barrier(0, "__syncthreads", file, line); }
inline int __syncthreads_count(int predicate, CUDA_HOST_PLACE) {
    return cuda_host_barrier(predicate != 0, "__syncthreads_count", file, line);
}
inline int __syncthreads_or(int predicate, CUDA_HOST_PLACE) {
    return cuda_host_barrier(predicate != 0, "__syncthreads_or", file, line) != 0;
}
inline int __syncthreads_and(int predicate, CUDA_HOST_PLACE) {
    return cuda_host_barrier(predicate == 0, "__syncthreads_and", file, line) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffff, CUDA_HOST_PLACE) {
    cuda_host_gather(
        mask, nullptr, [](void *const *, unsigned) {}, "__syncwarp", file, line);
}

// One lane's part of a shuffle.
template <typename T>
struct CudaHostShuffle {
    T given;
    int source;
    T taken;
};

// What a shuffle takes from a lane that did not come is undefined: here, all bits set.
template <typename T>
void cuda_host_shuffle_body(void *const *lanes, unsigned came) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(came >> lane & 1)) { continue; }
        auto *mine = static_cast<CudaHostShuffle<T> *>(lanes[lane]);
        if (came >> mine->source & 1) {
            mine->taken = static_cast<CudaHostShuffle<T> *>(lanes[mine->source])->given;
        } else {
            memset(&mine->taken, 0xff, sizeof(T));
        }
    }
}

// width lanes from segment on are a shuffle's own world; from outside of it a lane takes its own value.
struct CudaHostSegment {
    int lane, first, last;
};
inline CudaHostSegment cuda_host_segment(int width, const char *file, int line) {
    if (width < 1 || width > 32 || (width & (width - 1))) { cuda_host_fault(file, line, "shuffle of width %d", width); }
    const int lane = static_cast<int>(cuda_host_lane()), first = lane & -width;
    return {lane, first, first + width - 1};
}

template <typename T>
T cuda_host_shuffle(unsigned mask, T value, int source, const char *what, const char *file, int line) {
    CudaHostShuffle<T> mine = {value, source, value};
    cuda_host_gather(mask, &mine, cuda_host_shuffle_body<T>, what, file, line);
    return mine.taken;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_HOST_PLACE) {
    const CudaHostSegment s = cuda_host_segment(width, file, line);
    return cuda_host_shuffle(mask, value, s.first + (source & (width - 1)), "__shfl_sync", file, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_PLACE) {
    const CudaHostSegment s = cuda_host_segment(width, file, line);
    const int source = s.lane - static_cast<int>(delta & 31);
    return cuda_host_shuffle(mask, value, source < s.first ? s.lane : source, "__shfl_up_sync", file, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_PLACE) {
    const CudaHostSegment s = cuda_host_segment(width, file, line);
    const int source = s.lane + static_cast<int>(delta & 31);
    return cuda_host_shuffle(mask, value, source > s.last ? s.lane : source, "__shfl_down_sync", file, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_HOST_PLACE) {
    const CudaHostSegment s = cuda_host_segment(width, file, line);
    const int source = s.lane ^ (lanes & 31);
    return cuda_host_shuffle(mask, value, source > s.last ? s.lane : source, "__shfl_xor_sync", file, line);
}

struct CudaHostVote {
    unsigned yes;  // in: this lane's, out: of all lanes
    unsigned came;
};
inline CudaHostVote cuda_host_vote(unsigned mask, bool yes, const char *what, const char *file, int line) {
    CudaHostVote mine = {yes, 0};
    const CudaHostBody count = [](void *const *lanes, unsigned came) {
        unsigned all = 0;
        for (int lane = 0; lane < 32; lane++) {
            if (came >> lane & 1) { all |= static_cast<CudaHostVote *>(lanes[lane])->yes << lane; }
        }
        for (int lane = 0; lane < 32; lane++) {
            if (came >> lane & 1) { *static_cast<CudaHostVote *>(lanes[lane]) = {all, came}; }
        }
    };
    cuda_host_gather(mask, &mine, count, what, file, line);
    return mine;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_PLACE) {
    return cuda_host_vote(mask, predicate != 0, "__ballot_sync", file, line).yes;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_PLACE) {
    return cuda_host_vote(mask, predicate != 0, "__any_sync", file, line).yes != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_HOST_PLACE) {
    const CudaHostVote vote = cuda_host_vote(mask, predicate != 0, "__all_sync", file, line);
    return vote.yes == vote.came;
}

// One operation of a whole warp, such as a tensor core's: the last of 32 lanes to come runs body over what all brought.
template <typename T>
void cuda_host_warp_collective(T *mine, void (*body)(T *lanes[32]), CUDA_HOST_PLACE) {
    struct Lane {
        T *mine;
        void (*body)(T *lanes[32]);
    } lane = {mine, body};
    const CudaHostBody call = [](void *const *lanes, unsigned came) {
        if (came != 0xffffffff) { cuda_host_fault("", 0, "collective of a warp with lanes 0x%08x only", came); }
        T *typed[32];
        for (int i = 0; i < 32; i++) { typed[i] = static_cast<Lane *>(lanes[i])->mine; }
        static_cast<Lane *>(lanes[0])->body(typed);
    };
    cuda_host_gather(0xffffffff, &lane, call, "warp collective", file, line);
}

// Copies to shared memory as cp.async makes them: bytes (4, 8 or 16) are written, the first valid_bytes of them read,
// the rest zero. Until the thread itself has waited, the destination is NaN: both those who read too early and those
// who still needed what was there before see it.
void cuda_host_copy_async(void *shared, const void *global, int bytes, int valid_bytes, CUDA_HOST_PLACE);
void cuda_host_copy_commit();
// Waits for all but the last groups_left groups that this thread committed.
void cuda_host_copy_wait(int groups_left);

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void cudaGridDependencySynchronize() {}
inline void cudaTriggerProgrammaticLaunchCompletion() {}

template <typename To, typename From>
To cuda_host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return cuda_host_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_host_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_host_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_host_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_host_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_host_bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}

// Each rounded once: build with -ffp-contract=off.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
// The C library has declared functions of these names for itself.
#define __expf expf
#define __logf logf
#define __log2f log2f

template <typename T>
T __ldg(const T *from) {
    return *from;
}
template <typename T>
T __ldcg(const T *from) {
    return *from;
}
template <typename T>
T __ldcs(const T *from) {
    return *from;
}
template <typename T>
void __stcg(T *to, T value) {
    *to = value;
}
template <typename T>
void __stcs(T *to, T value) {
    *to = value;
}

// Threads change only where they wait, so plain reading and writing is atomic.
template <typename T>
T atomicAdd(T *at, T value) {
    const T old = *at;
    *at = old + value;
    return old;
}
template <typename T>
T atomicExch(T *at, T value) {
    const T old = *at;
    *at = value;
    return old;
}
template <typename T>
T atomicMax(T *at, T value) {
    const T old = *at;
    *at = old < value ? value : old;
    return old;
}

// min and max between any two of CUDA's types, of which the wider, else the unsigned one is the result's.
#define CUDA_HOST_MIN_MAX(result, left, right)                                                                    \
    inline constexpr result min(left a, right b) {                                                                \
        return static_cast<result>(b) < static_cast<result>(a) ? static_cast<result>(b) : static_cast<result>(a); \
    }                                                                                                             \
    inline constexpr result max(left a, right b) {                                                                \
        return static_cast<result>(a) < static_cast<result>(b) ? static_cast<result>(b) : static_cast<result>(a); \
    }
#define CUDA_HOST_MIN_MAX_SIGNS(type)                              \
    CUDA_HOST_MIN_MAX(type, type, type)                            \
    CUDA_HOST_MIN_MAX(unsigned type, unsigned type, unsigned type) \
    CUDA_HOST_MIN_MAX(unsigned type, unsigned type, type)          \
    CUDA_HOST_MIN_MAX(unsigned type, type, unsigned type)
CUDA_HOST_MIN_MAX_SIGNS(int)
CUDA_HOST_MIN_MAX_SIGNS(long)
CUDA_HOST_MIN_MAX_SIGNS(long long)
#undef CUDA_HOST_MIN_MAX_SIGNS
#undef CUDA_HOST_MIN_MAX

// Of a number and a NaN, the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

#endif
