// Micro-kernels for processors with AVX512-BF16: the products of two pairs are added to each fp32 sum by one
// instruction, VDPBF16PS (round to nearest even, denormals are zero). Compiled with -march=x86-64-v4 -mavx512bf16.
#include <immintrin.h>

#include "kernels/cpu/product.h"

static inline __m512 dot_pairs(__m512 sum, float pair, __m512 b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_ps(pair), (__m512bh)b);
}

// count <= 32 floats as bfloat16, the rest 0. The first 16 go to the low half.
static inline __m512i round_32(const float *in, size_t count) {
    const __mmask32 mask = count < 32 ? (__mmask32)((1u << count) - 1) : 0xFFFFFFFFu;
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, in);
    const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), in + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static void pair_columns(float *units, size_t units_line, const float *in, size_t in_line, size_t M, size_t K) {
    for (size_t i = 0; i < M; i++) {
        for (size_t k = 0; k < K; k += 32) {
            const size_t left = K - k, pairs = left < 32 ? (left + 1) / 2 : 16;
            _mm512_mask_storeu_epi32(units + i * units_line + k / 2, (__mmask16)((1u << pairs) - 1),
                                     round_32(in + i * in_line + k, left));
        }
    }
}

static void pair_lines(float *units, size_t units_line, const float *in, size_t in_line, size_t K, size_t N) {
    // The low half holds line 2 i, the high half line 2 i + 1: interleaved, they are pairs.
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (size_t k = 0; k < K; k += 2) {
        const float *first = in + k * in_line, *second = first + in_line;
        for (size_t j = 0; j < N; j += 16) {
            const __mmask16 mask = (__mmask16)(N - j < 16 ? (1u << (N - j)) - 1 : 0xFFFFu);
            const __m512 low = _mm512_maskz_loadu_ps(mask, first + j);
            const __m512 high = _mm512_maskz_loadu_ps(k + 1 < K ? mask : 0, second + j);
            const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(high, low);
            _mm512_mask_storeu_epi32(units + k / 2 * units_line + j, mask, _mm512_permutexvar_epi16(order, rounded));
        }
    }
}

#define KERNELS micro_bf16
#define NAME "AVX512-BF16"
#define LANES 16
#define VECTORS 4
#define MULTIPLY_ADD(sum, a, b) ((Vector)dot_pairs((__m512)(sum), (a), (__m512)(b)))
#define PAIRS .pair_columns = pair_columns, .pair_lines = pair_lines
#include "kernels/cpu/micro.h"
