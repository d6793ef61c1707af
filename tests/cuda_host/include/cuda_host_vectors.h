// CUDA's vector types with their alignments, so that UBSan sees a misaligned access, and make_* functions.
#ifndef CUDA_HOST_VECTORS_H
#define CUDA_HOST_VECTORS_H

#define CUDA_HOST_VECTORS(type, name, align2, align4)                                             \
    struct __attribute__((aligned(align2))) name##2 {                                             \
        type x, y;                                                                                \
    };                                                                                            \
    struct name##3 {                                                                              \
        type x, y, z;                                                                             \
    };                                                                                            \
    struct __attribute__((aligned(align4))) name##4 {                                             \
        type x, y, z, w;                                                                          \
    };                                                                                            \
    inline constexpr name##2 make_##name##2(type x, type y) { return name##2 {x, y}; }            \
    inline constexpr name##3 make_##name##3(type x, type y, type z) { return name##3 {x, y, z}; } \
    inline constexpr name##4 make_##name##4(type x, type y, type z, type w) { return name##4 {x, y, z, w}; }

CUDA_HOST_VECTORS(signed char, char, 2, 4)
CUDA_HOST_VECTORS(unsigned char, uchar, 2, 4)
CUDA_HOST_VECTORS(short, short, 4, 8)
CUDA_HOST_VECTORS(unsigned short, ushort, 4, 8)
CUDA_HOST_VECTORS(int, int, 8, 16)
CUDA_HOST_VECTORS(float, float, 8, 16)
CUDA_HOST_VECTORS(double, double, 16, 16)
CUDA_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)
#undef CUDA_HOST_VECTORS

struct __attribute__((aligned(8))) uint2 {
    unsigned int x, y;
};
struct __attribute__((aligned(16))) uint4 {
    unsigned int x, y, z, w;
};
inline constexpr uint2 make_uint2(unsigned int x, unsigned int y) { return uint2{x, y}; }
inline constexpr uint3 make_uint3(unsigned int x, unsigned int y, unsigned int z) { return uint3{x, y, z}; }
inline constexpr uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
    return uint4{x, y, z, w};
}

#endif
