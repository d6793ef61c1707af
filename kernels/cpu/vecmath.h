// exp and erf in fp32 as straight-line code that compilers vectorise inside a loop, where libm's calls would not be.
// Both err by less than 1.5 ulp, with and without fused multiply-add (tests/test_kernels_vecmath.c measures it over the
// whole range).
// The coefficients are least-squares fits on Chebyshev nodes, made by tests/fixtures/make_vecmath.py.
#ifndef BERTUNE_VECMATH_H
#define BERTUNE_VECMATH_H

#include <stdint.h>

typedef union {
    float value;
    uint32_t bits;
} FloatBits;

// e^x; 0 below -87.3 (no denormals), infinity above 88.72, not-a-number stays.
static inline float fast_exp(float x) {
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
    float clamped = x < -87.3f ? -87.3f : x > 88.72f ? 88.72f : x;
    FloatBits n = {.value = clamped * 1.44269504f + shifter};
    float whole = n.value - shifter;
    float r = clamped - whole * 0.693359375f;  // ln 2 in two parts, the first exact in 9 bits
    r = r - whole * -2.12194440e-4f;
    float p = 1.39421489e-3f;
    p = p * r + 8.36377615e-3f;
    p = p * r + 4.16663636e-2f;
    p = p * r + 1.66665734e-1f;
    p = p * r + 5.00000003e-1f;
    p = p * r * r + r;
    // 2^whole in two factors, since whole reaches 128.
    int32_t exponent = (int32_t)(n.bits - 0x4B400000u), half = exponent >> 1;
    FloatBits low = {.bits = (uint32_t)(half + 127) << 23}, high = {.bits = (uint32_t)(exponent - half + 127) << 23};
    float result = (p + 1.0f) * low.value * high.value;
    result = x < -87.3f ? 0.0f : result;
    result = x > 88.72f ? __builtin_inff() : result;
    return x != x ? x : result;
}

// The error function; not-a-number stays.
static inline float fast_erf(float x) {
    float t = __builtin_fabsf(x), s = x * x;
    float small = 8.29660128e-5f;
    small = small * s + -8.12580418e-4f;
    small = small * s + 5.19959961e-3f;
    small = small * s + -2.68588511e-2f;
    small = small * s + 1.12836863e-1f;
    small = small * s + -3.76126332e-1f;
    small = small * s + 1.28379167e-1f;
    small = small * x + x;
    float c = t < 4.0f ? t : 4.0f;  // erf(4) rounds to 1
    float large = -1.92953108e-4f;
    large = large * c + 3.01397179e-3f;
    large = large * c + -2.21104655e-2f;
    large = large * c + 1.03690298e-1f;
    large = large * c + 6.37456839e-1f;
    large = large * c + 1.12751277f;
    large = large * c + 2.35043065e-4f;
    large = __builtin_copysignf(1.0f - fast_exp(-large), x);
    float result = t < 0.9375f ? small : large;
    return x != x ? x : result;
}

#endif
