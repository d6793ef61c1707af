// The divergence rule: silent on healthy courses of the loss, quick when one leaves, the same when it is taken up
// again.
#include <math.h>

#include "kernels/philox.h"
#include "tests/text_fixture.h"
#include "trainer/divergence.h"

enum { STEPS = 3000, WINDOW = 100 };

// The loss of a step of a run that learns: from chance to `end`, noisy batches.
static double healthy(uint32_t run, uint32_t step, double end) {
    const uint32_t *r = philox(run, step, 0, 0, 5, 0).lane;
    const double noise = ((double)r[0] + (double)r[1] - (double)r[2] - (double)r[3]) / 4294967296.0;
    const double mean = end + (0.693 - end) * exp(-(double)step / 300.0);
    return fmax(0.0, mean * (1.0 + 0.8 * noise)) + (r[0] % 50 == 0 ? 0.5 : 0.0);
}

static void test_healthy(void **state) {
    (void)state;
    Error error;
    for (uint32_t run = 0; run < 100; run++) {
        Divergence divergence = {0};
        const double end = run % 3 == 0 ? 1e-4 : 0.01 + 0.3 * run / 100.0;
        for (uint32_t step = 0; step < STEPS; step++) {
            if (!divergence_check(&divergence, step + 1, healthy(run, step, end), 2.0, WINDOW, &error)) {
                fail_msg("run %u: %s", run, error.text);
            }
        }
        assert_int_equal(divergence.steps, STEPS);
        assert_true(divergence.best < 0.5);
    }
}

// The step at which a run that leaves its course at `from` is ended; 0: it is not.
static int64_t ended(double factor, int64_t from, double loss, Error *error) {
    Divergence divergence = {0};
    for (int64_t step = 1; step <= STEPS; step++) {
        const double now = step < from ? healthy(1, (uint32_t)step, 0.2) : loss;
        if (!divergence_check(&divergence, step, now, factor, WINDOW, error)) { return step; }
    }
    return 0;
}

static void test_divergence(void **state) {
    (void)state;
    Error error;
    for (int64_t from = WINDOW + 1; from < STEPS; from += 97) {
        const int64_t at = ended(2.0, from, 3.0, &error);
        if (at < from || at > from + WINDOW) { fail_msg("from %lld: %lld", (long long)from, (long long)at); }
        assert_error(&error, EX_DIVERGED, "train.divergence_factor 2)");
    }
    assert_int_equal(ended(0.0, 200, 1000.0, &error), 0);
    assert_int_equal(ended(1e6, 200, 1000.0, &error), 0);
    assert_int_equal(ended(2.0, 2, 3.0, &error), 0);  // bad from the beginning: nothing better has been seen
}

static void test_mean(void **state) {
    (void)state;
    Divergence divergence = {0};
    Error error;
    const double losses[] = {4, 2, 3, 1, 1};
    const double means[] = {4, 3, 3, 3 + (1.0 - 3) / 3, 3 + (1.0 - 3) / 3 + (1 - (3 + (1.0 - 3) / 3)) / 3};
    for (int i = 0; i < 5; i++) {
        assert_true(divergence_check(&divergence, i + 1, losses[i], 1.5, 3, &error));
        assert_true(fabs(divergence.mean - means[i]) < 1e-15);
        assert_true(divergence.best == (i < 2 ? 0 : divergence.mean));
    }
    const Divergence saved = divergence;  // as a checkpoint keeps it
    assert_false(divergence_check(&divergence, 6, 100, 1.5, 3, &error));
    divergence = saved;
    assert_true(divergence_check(&divergence, 6, 2.5, 1.5, 3, &error));
    assert_true(divergence.best == saved.best && divergence.mean > saved.mean);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
