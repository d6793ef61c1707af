// exp and erf of kernels/cpu/vecmath.h against libm's in double: every 97th of all finite floats, and every float near
// the places where the code changes its ways. Compiled for the baseline and, where the processor has it, with fused
// multiply-add, which rounds differently.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels/cpu/vecmath.h"

#define MOST_ULPS 1.5  // what vecmath.h states

enum { BLOCK = 1024, VARIANTS = 2 };

typedef struct {
    size_t count;
    float x[BLOCK], exp[VARIANTS][BLOCK], erf[VARIANTS][BLOCK];
    double most_exp, most_erf;  // largest errors so far, in units of the last place
} Sweep;

static void compute_plain(float *exps, float *erfs, const float *x) {
    for (int i = 0; i < BLOCK; i++) { exps[i] = fast_exp(x[i]); }
    for (int i = 0; i < BLOCK; i++) { erfs[i] = fast_erf(x[i]); }
}

#if defined(__x86_64__)
__attribute__((target("fma,avx2"))) static void compute_fused(float *exps, float *erfs, const float *x) {
    for (int i = 0; i < BLOCK; i++) { exps[i] = fast_exp(x[i]); }
    for (int i = 0; i < BLOCK; i++) { erfs[i] = fast_erf(x[i]); }
}
static int has_fused(void) { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2"); }
#else
static void compute_fused(float *exps, float *erfs, const float *x) { compute_plain(exps, erfs, x); }
static int has_fused(void) { return 0; }
#endif

// Distance from the true value in units of the last place of a float of its size.
static double ulps_off(float actual, double truth) {
    int exponent;
    frexp(truth, &exponent);
    return fabs(actual - truth) / ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

static void check_exp(Sweep *s, float x, float actual, double truth) {
    if (x < -87.3f || x > 88.72f) {
        if (actual != (x < 0.0f ? 0.0f : INFINITY)) { fail_msg("fast_exp(%a) is %g", (double)x, (double)actual); }
        return;
    }
    const double off = ulps_off(actual, truth);
    if (!(off <= MOST_ULPS)) { fail_msg("fast_exp(%a) is %a: off by %.3f ulp", (double)x, (double)actual, off); }
    s->most_exp = fmax(s->most_exp, off);
}

static void check_erf(Sweep *s, float x, float actual, double truth) {
    const double off = ulps_off(actual, truth);
    if (!(off <= MOST_ULPS)) { fail_msg("fast_erf(%a) is %a: off by %.3f ulp", (double)x, (double)actual, off); }
    s->most_erf = fmax(s->most_erf, off);
}

static void check_block(Sweep *s) {
    const int variants = has_fused() ? 2 : 1;
    memset(s->x + s->count, 0, (BLOCK - s->count) * sizeof *s->x);
    compute_plain(s->exp[0], s->erf[0], s->x);
    if (variants == 2) { compute_fused(s->exp[1], s->erf[1], s->x); }
    for (size_t i = 0; i < s->count; i++) {
        const double true_exp = exp(s->x[i]), true_erf = erf(s->x[i]);
        for (int v = 0; v < variants; v++) {
            check_exp(s, s->x[i], s->exp[v][i], true_exp);
            check_erf(s, s->x[i], s->erf[v][i], true_erf);
        }
    }
    s->count = 0;
}

static void push(Sweep *s, float x) {
    s->x[s->count++] = x;
    if (s->count == BLOCK) { check_block(s); }
}

static void test_whole_range(void **state) {
    (void)state;
    static Sweep sweep;
    for (uint32_t bits = 0; bits < 0x7F800000u; bits += 97) {
        const FloatBits x = {.bits = bits};
        push(&sweep, x.value);
        push(&sweep, -x.value);
    }
    check_block(&sweep);
    print_message("largest errors: exp %.3f ulp, erf %.3f ulp\n", sweep.most_exp, sweep.most_erf);
}

// Where the branches meet, where rounding to a multiple of ln 2 changes sides, and the float range's ends.
static void test_breakpoints(void **state) {
    (void)state;
    static Sweep sweep;
    const float points[] = {87.3f,      88.72f,     0.9375f, 4.0f, 3.8325069f, 0.34657359f,
                            1.0397208f, 1.7328680f, 1.0f,    2.0f, 86.989972f, 88.376266f};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        const FloatBits point = {.value = points[i]};
        for (uint32_t bits = point.bits - 20000; bits < point.bits + 20000; bits++) {
            const FloatBits x = {.bits = bits};
            push(&sweep, x.value);
            push(&sweep, -x.value);
        }
    }
    check_block(&sweep);
    print_message("largest errors: exp %.3f ulp, erf %.3f ulp\n", sweep.most_exp, sweep.most_erf);
}

static void test_special_values(void **state) {
    (void)state;
    assert_true(fast_exp(0.0f) == 1.0f && fast_exp(-0.0f) == 1.0f);
    assert_true(fast_exp(1e-30f) == 1.0f && fast_exp(-1e-30f) == 1.0f);
    assert_true(fast_exp(100.0f) == INFINITY && fast_exp(INFINITY) == INFINITY);
    assert_true(fast_exp(-100.0f) == 0.0f && fast_exp(-INFINITY) == 0.0f);
    assert_true(fast_erf(0.0f) == 0.0f && !signbit(fast_erf(0.0f)));
    assert_true(fast_erf(-0.0f) == 0.0f && signbit(fast_erf(-0.0f)));
    assert_true(fabsf(fast_erf(-1e-30f) + 1.1283792e-30f) < 2e-37f);
    const float large[] = {4.0f, 5.0f, 30.0f, 100.0f, 3e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_true(fast_erf(large[i]) == 1.0f && fast_erf(-large[i]) == -1.0f);
    }
    assert_true(isnan(fast_exp(NAN)) && isnan(fast_exp(-NAN)) && isnan(fast_erf(NAN)) && isnan(fast_erf(-NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_range),
        cmocka_unit_test(test_breakpoints),
        cmocka_unit_test(test_special_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
