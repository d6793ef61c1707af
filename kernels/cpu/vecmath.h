// exp, tanh and the normal distribution in fp32 as straight-line code that compilers vectorise inside a loop, where
// libm's calls would not be. Errors, with and without fused multiply-add (tests/test_kernels_vecmath.c measures them
// over the whole range): exp and tanh below 1.5 ulp; the normal probability below 1.3e-7, the density below
// 1.4 * 2^-23 max(1, x^2) of itself for |x| < 13.2.
// The coefficients are least-squares fits on Chebyshev nodes, made by tests/fixtures/make_vecmath.py.
#ifndef BERTUNE_VECMATH_H
#define BERTUNE_VECMATH_H

#include <stdint.h>

typedef union {
    float value;
    uint32_t bits;
} FloatBits;

// e^x; 0 below -87.3 (no denormals), infinity above 88; not-a-number stays.
static inline float fast_exp(float x) {
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
    const float clamped = x < -87.3f ? -87.3f : x;
    const FloatBits n = {.value = clamped * 1.44269504f + shifter};
    const float whole = n.value - shifter;
    float r = clamped - whole * 0.693359375f;  // ln 2 in two parts, the first exact in 9 bits
    r = r - whole * -2.12194440e-4f;
    float p = 1.39421489e-3f;
    p = p * r + 8.36377615e-3f;
    p = p * r + 4.16663636e-2f;
    p = p * r + 1.66665734e-1f;
    p = p * r + 5.00000003e-1f;
    p = p * r * r + r;
    const FloatBits power = {.bits = (n.bits - 0x4B400000u + 127u) << 23};  // 2^whole
    const float result = x < -87.3f ? 0.0f : (p + 1.0f) * power.value;
    return x > 88.0f ? __builtin_inff() : result;
}

// The standard normal distribution at x: the probability of a value below, and the density.
typedef struct {
    float below, density;
} Normal;

// Mills' ratio, P(X > y) / density(y), is smooth in u = 0.4 y / (1 + 0.4 y). Not-a-number stays.
static inline Normal fast_normal(float x) {
    const float absolute = __builtin_fabsf(x),
                y = absolute < 6.2f ? absolute : 6.2f;  // further out the tail is below 3e-10
    const float u = 0.4f * y / (1.0f + 0.4f * y), peak = fast_exp(-0.5f * x * x);
    float ratio = -3.50709440e-2f;
    ratio = ratio * u + 1.03001023e-1f;
    ratio = ratio * u + -6.26985430e-2f;
    ratio = ratio * u + -1.33987195e-2f;
    ratio = ratio * u + -1.10586434e-1f;
    ratio = ratio * u + 5.10992641e-2f;
    ratio = ratio * u + 5.65051722e-1f;
    ratio = ratio * u + -9.97353358e-1f;
    const float tail = peak * (ratio * u + 0.5f);
    return (Normal){x < 0.0f ? tail : 1.0f - tail, 0.39894228f * peak};
}

// The hyperbolic tangent; not-a-number stays.
static inline float fast_tanh(float x) {
    float t = __builtin_fabsf(x), s = x * x;
    float small = -5.67240939e-3f;
    small = small * s + 2.06031351e-2f;
    small = small * s + -5.37252275e-2f;
    small = small * s + 1.33311857e-1f;
    small = small * s + -3.33332634e-1f;
    small = small * s * x + x;
    float c = t < 10.0f ? t : 10.0f;  // tanh(10) rounds to 1
    float large = __builtin_copysignf(1.0f - 2.0f / (fast_exp(2.0f * c) + 1.0f), x);
    float result = t < 0.625f ? small : large;
    return x != x ? x : result;
}

#endif
