// AdamW against torch.optim.AdamW in float32 (tests/fixtures/make_adamw.py) and against the referee in double.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/fixtures/adamw.h"
#include "tests/ref.h"

// The kernel's constants of step t (from 1), rounded as the trainer does.
static AdamW adamw_of_step(int t, float gradient_scale) {
    const double rate = adamw_rates[t - 1];
    return (AdamW){.gradient_scale = gradient_scale,
                   .decay = (float)(1.0 - rate * adamw_weight_decay),
                   .rest1 = (float)(1.0 - adamw_beta1),
                   .beta2 = (float)adamw_beta2,
                   .rest2 = (float)(1.0 - adamw_beta2),
                   .step_size = (float)(rate / (1.0 - pow(adamw_beta1, t))),
                   .root_correction = (float)sqrt(1.0 - pow(adamw_beta2, t)),
                   .epsilon = (float)adamw_epsilon};
}

static Array array_of(Bench *bench, const float *values, size_t count) {
    Array array = bench_fill(bench, count, 0.0);
    for (size_t i = 0; i < count; i++) { array.host[i] = (double)values[i]; }
    bench_upload(bench, array);
    return array;
}

static void check_ulps(Bench *bench, const char *name, Array array, const float *expected, int64_t most) {
    float *values = bench_download(bench, array);
    for (size_t i = 0; i < array.count; i++) {
        const int64_t ulps = ref_ulps(values[i], expected[i]);
        if (ulps > most) {
            fail_msg("%s %zu is %a, not torch's %a (%lld ulp)", name, i, (double)values[i], (double)expected[i],
                     (long long)ulps);
        }
    }
    free(values);
}

static void as_torch(Bench *bench) {
    Array weight = array_of(bench, adamw_before, ADAMW_COUNT);
    Array first = bench_fill(bench, ADAMW_COUNT, 0.0), second = bench_fill(bench, ADAMW_COUNT, 0.0);
    for (int t = 1; t <= ADAMW_STEPS; t++) {
        Array gradient = array_of(bench, adamw_gradients + (t - 1) * ADAMW_COUNT, ADAMW_COUNT);
        ON_WORKERS(bench, adamw_update(bench->device, weight.device, first.device, second.device, gradient.device,
                                       adamw_of_step(t, 1.0f), ADAMW_COUNT));
    }
    check_ulps(bench, "weight", weight, adamw_after, 2);
    check_ulps(bench, "second moment", second, adamw_second_moment, 2);
    // Its sum may cancel, which makes the last place small beside what was rounded.
    for (size_t i = 0; i < ADAMW_COUNT; i++) { first.host[i] = (double)adamw_first_moment[i]; }
    bench_check(bench, "first moment", first, (Tolerance){1e-6, 1e-9});
}

// Without a gradient a weight is only multiplied, and that bit for bit as torch does.
static void decay_alone(Bench *bench) {
    Array weight = bench_random(bench, 1000, 0.1, 0.0), gradient = bench_fill(bench, 1000, 0.0);
    weight.host[0] = (double)adamw_before[0];
    bench_upload(bench, weight);
    Array first = bench_fill(bench, 1000, 0.0), second = bench_fill(bench, 1000, 0.0);
    for (int t = 1; t <= ADAMW_STEPS; t++) {
        const AdamW step = adamw_of_step(t, 0.37f);
        ON_WORKERS(bench, adamw_update(bench->device, weight.device, first.device, second.device, gradient.device, step,
                                       1000));
        for (size_t i = 0; i < 1000; i++) { weight.host[i] = (float)weight.host[i] * step.decay; }
    }
    bench_check(bench, "weight", weight, (Tolerance){0.0, 0.0});
    bench_check(bench, "first moment", first, (Tolerance){0.0, 0.0});
    assert_true((float)weight.host[0] == adamw_after[0]);
}

static void as_referee(Bench *bench) {
    const size_t counts[] = {1, 3, 15, 16, 17, 33, 63, 64, 65, 127, 128, 129, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        const size_t count = counts[c];
        Array weight = bench_random(bench, count, 0.05, 0.0);
        Array first = bench_fill(bench, count, 0.0), second = bench_fill(bench, count, 0.0);
        for (int t = 1; t <= ADAMW_STEPS; t++) {
            const AdamW step = adamw_of_step(t, 0.37f);
            Array gradient = bench_random(bench, count, 0.01, 0.001);
            ON_WORKERS(bench, adamw_update(bench->device, weight.device, first.device, second.device, gradient.device,
                                           step, count));
            ref_adamw_update(weight.host, first.host, second.host, gradient.host, step, count);
        }
        bench_check(bench, "weight", weight, (Tolerance){1e-6, 1e-8});
        bench_check(bench, "first moment", first, (Tolerance){1e-6, 1e-9});
        bench_check(bench, "second moment", second, (Tolerance){2e-6, 0.0});
        bench_clear(bench);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {BENCH_TEST(as_torch), BENCH_TEST(decay_alone), BENCH_TEST(as_referee)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
