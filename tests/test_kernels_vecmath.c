// exp, tanh and the normal distribution of kernels/cpu/vecmath.h against libm's in double: samples of all finite
// floats, denser where the functions bend, and every float near the places where the code changes its ways. Compiled
// for the baseline and, where the processor has it, with fused multiply-add, which rounds differently.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels/cpu/vecmath.h"

#define MOST_ULPS 1.5           // exp and tanh
#define MOST_DENSITY 1.4        // of itself, times 2^-23 max(1, x^2)
#define MOST_BELOW 1.3e-7       // the probability, absolute
#define MOST_BELOW_LEFT 2.5e-6  // the same of itself, for -6 <= x < 0

enum { BLOCK = 1024, VARIANTS = 2 };

typedef struct {
    float exp[BLOCK], tanh[BLOCK], below[BLOCK], density[BLOCK];
} Values;

// The largest errors so far, in the units of the bounds above.
typedef struct {
    double exp, tanh, density, below, below_left;
} Errors;

typedef struct {
    size_t count;
    float x[BLOCK];
    Values values[VARIANTS];
    Errors most;
} Sweep;

#define COMPUTE(values, x)                         \
    for (int i = 0; i < BLOCK; i++) {              \
        const Normal normal = fast_normal((x)[i]); \
        (values)->exp[i] = fast_exp((x)[i]);       \
        (values)->tanh[i] = fast_tanh((x)[i]);     \
        (values)->below[i] = normal.below;         \
        (values)->density[i] = normal.density;     \
    }

static void compute_plain(Values *values, const float *x) { COMPUTE(values, x) }

#if defined(__x86_64__)
__attribute__((target("fma,avx2"))) static void compute_fused(Values *values, const float *x) { COMPUTE(values, x) }
static int has_fused(void) { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2"); }
#else
static void compute_fused(Values *values, const float *x) { compute_plain(values, x); }
static int has_fused(void) { return 0; }
#endif

// Distance from the true value in units of the last place of a float of its size.
static double ulps_off(float actual, double truth) {
    int exponent;
    frexp(truth, &exponent);
    return fabs(actual - truth) / ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

// Raises *most to the error, which must not be above the bound.
static void check(const char *name, float x, float actual, double error, double bound, double *most) {
    if (!(error <= bound)) {
        fail_msg("%s(%a) is %a: error %.4g, above %.4g", name, (double)x, (double)actual, error, bound);
    }
    *most = fmax(*most, error);
}

static void check_exp(Errors *most, float x, float actual) {
    if (x > 88.0f) { return; }  // outside of the domain
    if (x < -87.3f) {
        if (actual != 0.0f) { fail_msg("fast_exp(%a) is %g", (double)x, (double)actual); }
        return;
    }
    check("fast_exp", x, actual, ulps_off(actual, exp(x)), MOST_ULPS, &most->exp);
}

// Beyond 13.2 the square's half is below exp's domain and the density is 0, where it is below 5e-39.
static void check_normal(Errors *most, float x, float below, float density) {
    const double y = x, true_density = exp(-0.5 * y * y) / sqrt(2.0 * M_PI), true_below = 0.5 * erfc(-y * M_SQRT1_2);
    if (fabs(y) < 13.2) {
        const double error = fabs(density / true_density - 1.0) / (0x1p-23 * fmax(1.0, y * y));
        check("fast_normal: density", x, density, error, MOST_DENSITY, &most->density);
    } else if (fabs(density - true_density) > 5e-39) {
        fail_msg("fast_normal(%a): density %g", y, (double)density);
    }
    check("fast_normal: below", x, below, fabs(below - true_below), MOST_BELOW, &most->below);
    if (y < 0.0 && y >= -6.0) {
        const double relative = fabs(below / true_below - 1.0);
        check("fast_normal: below, of itself,", x, below, relative, MOST_BELOW_LEFT, &most->below_left);
    }
}

static void check_block(Sweep *s) {
    const int variants = has_fused() ? 2 : 1;
    memset(s->x + s->count, 0, (BLOCK - s->count) * sizeof *s->x);
    compute_plain(&s->values[0], s->x);
    if (variants == 2) { compute_fused(&s->values[1], s->x); }
    for (size_t i = 0; i < s->count; i++) {
        const double true_tanh = tanh(s->x[i]);
        for (int v = 0; v < variants; v++) {
            const Values *values = &s->values[v];
            check_exp(&s->most, s->x[i], values->exp[i]);
            check("fast_tanh", s->x[i], values->tanh[i], ulps_off(values->tanh[i], true_tanh), MOST_ULPS,
                  &s->most.tanh);
            check_normal(&s->most, s->x[i], values->below[i], values->density[i]);
        }
    }
    s->count = 0;
}

static void push(Sweep *s, float x) {
    s->x[s->count++] = x;
    if (s->count == BLOCK) { check_block(s); }
}

// Every step-th float from begin up to end, and its negative.
static void push_range(Sweep *s, float begin, float end, uint32_t step) {
    const FloatBits first = {.value = begin}, behind = {.value = end};
    for (uint32_t bits = first.bits; bits < behind.bits; bits += step) {
        const FloatBits x = {.bits = bits};
        push(s, x.value);
        push(s, -x.value);
    }
}

static void finish_sweep(Sweep *s) {
    check_block(s);
    const Errors *e = &s->most;
    print_message(
        "largest errors: exp %.3f ulp, tanh %.3f ulp; density %.3f * 2^-23 max(1, x^2) of itself; "
        "probability %.3g, of itself %.3g down to -6\n",
        e->exp, e->tanh, e->density, e->below, e->below_left);
}

static void test_whole_range(void **state) {
    (void)state;
    static Sweep sweep;
    push_range(&sweep, 0.0f, INFINITY, 3989);
    push_range(&sweep, 0x1p-14f, 128.0f, 97);
    finish_sweep(&sweep);
}

// Where the branches meet, where rounding to a multiple of ln 2 changes sides, where errors are largest, and the ends.
static void test_breakpoints(void **state) {
    (void)state;
    static Sweep sweep;
    const float points[] = {87.3f,     88.0f,       0.625f,     0.631044f,  10.0f,     6.2f,
                            13.2f,     0.34657359f, 1.0397208f, 1.7328680f, 0.270923f, 1.0f,
                            0.927941f, 4.8890f,     5.84124f,   0.831526f,  86.989972f};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        const FloatBits point = {.value = points[i]};
        const FloatBits begin = {.bits = point.bits - 10000}, end = {.bits = point.bits + 10000};
        push_range(&sweep, begin.value, end.value, 1);
    }
    finish_sweep(&sweep);
}

static void check_at_infinity(float x) {
    const float side = x > 0.0f ? 1.0f : 0.0f;
    assert_true(fast_normal(x).below == side && fast_normal(x).density == 0.0f);
    assert_true(fast_tanh(x) == 2.0f * side - 1.0f);
}

static void test_special_values(void **state) {
    (void)state;
    assert_true(fast_exp(0.0f) == 1.0f && fast_exp(-0.0f) == 1.0f);
    assert_true(fast_exp(1e-30f) == 1.0f && fast_exp(-1e-30f) == 1.0f);
    assert_true(fast_exp(-100.0f) == 0.0f && fast_exp(-INFINITY) == 0.0f);
    assert_true(fast_tanh(0.0f) == 0.0f && fast_tanh(-0.0f) == 0.0f);
    assert_true(fast_tanh(1e-30f) == 1e-30f && fast_tanh(-1e-30f) == -1e-30f);
    assert_true(fast_normal(0.0f).below == 0.5f && fast_normal(-0.0f).below == 0.5f);
    const float large[] = {14.0f, 30.0f, 100.0f, 3e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        check_at_infinity(large[i]);
        check_at_infinity(-large[i]);
    }
    const float nans[] = {NAN, -NAN};
    for (int i = 0; i < 2; i++) {
        assert_true(isnan(fast_exp(nans[i])) && isnan(fast_tanh(nans[i])));
        assert_true(isnan(fast_normal(nans[i]).below) && isnan(fast_normal(nans[i]).density));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_range),
        cmocka_unit_test(test_breakpoints),
        cmocka_unit_test(test_special_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
