// Dropout's random bits: Philox's known answers, the rate and the mean, that masks of other steps, sites, seeds, rows,
// positions and heads are unrelated, and that a data row's mask does not depend on the batch around it. Values against
// the referee at many sizes, also in place.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels/philox.h"
#include "tests/ref.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const Dropout usual = {.probability = 0.1f, .seed = 0xFEDCBA9876543210u, .step = 17, .site = 5};

static void check_philox(Philox random, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    assert_true(random.lane[0] == a && random.lane[1] == b && random.lane[2] == c && random.lane[3] == d);
}

// Random123's kat_vectors for philox4x32-10.
static void test_known_answers(void **state) {
    (void)state;
    const uint32_t ones = 0xFFFFFFFFu;
    check_philox(philox(0, 0, 0, 0, 0, 0), 0x6627E8D5u, 0xE169C58Du, 0xBC57AC4Cu, 0x9B00DBD8u);
    check_philox(philox(ones, ones, ones, ones, ones, ones), 0x408F276Du, 0x41C83B0Eu, 0xA20BC7C6u, 0x6D5451FDu);
    check_philox(philox(0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u, 0xA4093822u, 0x299F31D0u), 0xD16CFE09u,
                 0x94FDCCEBu, 0x5001E420u, 0x24126EA1u);
}

static void test_threshold(void **state) {
    (void)state;
    assert_int_equal(philox_threshold(0.0f), 0);
    assert_int_equal(philox_threshold(0.5f), 0x80000000u);
    assert_int_equal(philox_threshold(1.0f), 0xFFFFFFFFu);
}

static void values_case(Bench *bench, int M, int N, bool in_place, float probability) {
    int32_t positions[64];
    uint32_t rows[64];
    for (int i = 0; i < M; i++) {
        positions[i] = i * 7 % 512;
        rows[i] = 0xFFFFFFF0u + (uint32_t)i / 3;
    }
    const Lines lines = {rows, positions};
    const Lines device_lines = {bench_list(bench, rows, (size_t)M), bench_list(bench, positions, (size_t)M)};
    Dropout dropout = usual;
    dropout.probability = probability;
    Array in = bench_random(bench, (size_t)M * (size_t)N, 1.0, 0.0);
    Array out = in_place ? in : bench_fill(bench, in.count, (double)NAN);
    ON_WORKERS(bench, dropout_apply(bench->device, out.device, in.device, device_lines, dropout, extent(M), N));
    ref_dropout_apply(out.host, in.host, lines, dropout, M, N);
    bench_check(bench, "dropout_apply", out, (Tolerance){2e-7, 0.0});
    bench_clear(bench);
}

static void values(Bench *bench) {
    const int sizes[] = {1,  2,  3,   4,   5,   15,  16,  17,  32,  33,  48,  63,
                         64, 65, 127, 128, 129, 255, 256, 257, 384, 768, 1024};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        values_case(bench, (int)i + 1, sizes[i], false, 0.3f);
        values_case(bench, (int)i + 1, sizes[i], true, 0.3f);
        values_case(bench, 3, sizes[i], i % 2 == 0, 0.0f);
    }
}

enum { M = 64, N = 768, COUNT = M * N };

// Dropout of ones for data row `row` (every line the same row) and positions from first_position on; free it.
static float *mask_of(Dropout dropout, uint32_t row, int32_t first_position) {
    Bench bench;
    bench_open(&bench, 2);
    uint32_t rows[M];
    int32_t positions[M];
    for (int i = 0; i < M; i++) {
        rows[i] = row;
        positions[i] = first_position + i;
    }
    const Lines lines = {bench_list(&bench, rows, M), bench_list(&bench, positions, M)};
    Array ones = bench_fill(&bench, COUNT, 1.0);
    ON_WORKERS(&bench, dropout_apply(bench.device, ones.device, ones.device, lines, dropout, extent(M), N));
    float *mask = bench_download(&bench, ones);
    bench_close(&bench);
    return mask;
}

// Whether a count of hits in `trials` with the probability is within five standard deviations of its mean.
static bool plausible(double hits, double trials, double probability) {
    return fabs(hits - trials * probability) <= 5.0 * sqrt(trials * probability * (1.0 - probability));
}

static size_t count_zeros(const float *a, size_t count) {
    size_t zeros = 0;
    for (size_t i = 0; i < count; i++) { zeros += a[i] == 0.0f; }
    return zeros;
}

static size_t count_common_zeros(const float *a, const float *b, size_t count) {
    size_t zeros = 0;
    for (size_t i = 0; i < count; i++) { zeros += a[i] == 0.0f && b[i] == 0.0f; }
    return zeros;
}

// The mean of the mask is 1 within the bounds of the rate, since what is kept has one value.
static void test_rate_and_mean(void **state) {
    (void)state;
    const float probabilities[] = {0.001f, 0.1f, 0.5f, 0.9f};
    for (size_t i = 0; i < LENGTH(probabilities); i++) {
        Dropout dropout = usual;
        dropout.probability = probabilities[i];
        float *mask = mask_of(dropout, 3, 0);
        assert_true(plausible((double)count_zeros(mask, COUNT), COUNT, (double)probabilities[i]));
        for (int h = 0; h < 4; h++) {  // each lane of the generator by itself
            size_t zeros = 0;
            for (int line = 0; line < M; line++) { zeros += count_zeros(mask + line * N + h * (N / 4), N / 4); }
            assert_true(plausible((double)zeros, COUNT / 4.0, (double)probabilities[i]));
        }
        for (size_t j = 0; j < COUNT; j++) {
            assert_true(mask[j] == 0.0f || mask[j] == 1.0f / (1.0f - probabilities[i]));
        }
        free(mask);
    }
}

static void check_unrelated(const float *mask, float *other) {
    assert_true(plausible((double)count_common_zeros(mask, other, COUNT), COUNT, 0.25));
    free(other);
}

static void test_masks_are_unrelated(void **state) {
    (void)state;
    Dropout dropout = usual, step = usual, site = usual, low_seed = usual, high_seed = usual;
    dropout.probability = step.probability = site.probability = low_seed.probability = high_seed.probability = 0.5f;
    step.step++;
    site.site++;
    low_seed.seed++;
    high_seed.seed += (uint64_t)1 << 32;
    float *mask = mask_of(dropout, 3, 0);
    check_unrelated(mask, mask_of(step, 3, 0));
    check_unrelated(mask, mask_of(site, 3, 0));
    check_unrelated(mask, mask_of(low_seed, 3, 0));
    check_unrelated(mask, mask_of(high_seed, 3, 0));
    check_unrelated(mask, mask_of(dropout, 4, 0));
    check_unrelated(mask, mask_of(dropout, 3, 1));
    float *again = mask_of(dropout, 3, 0);
    assert_memory_equal(mask, again, COUNT * sizeof *mask);
    free(again);
    assert_true(plausible((double)count_common_zeros(mask, mask + 1, COUNT - 1), COUNT - 1, 0.25));
    assert_true(plausible((double)count_common_zeros(mask, mask + N, COUNT - N), COUNT - N, 0.25));
    free(mask);
}

// Lines 10 and 11 of one batch are lines 1 and 0 of another.
static void test_batch_does_not_matter(void **state) {
    (void)state;
    Bench bench;
    bench_open(&bench, 3);
    const uint32_t rows[] = {8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 70, 71}, few_rows[] = {71, 70};
    const int32_t positions[] = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0}, few_positions[] = {0, 5};
    const Lines many = {bench_list(&bench, rows, 12), bench_list(&bench, positions, 12)};
    const Lines few = {bench_list(&bench, few_rows, 2), bench_list(&bench, few_positions, 2)};
    Array big = bench_fill(&bench, 12 * N, 1.0), small = bench_fill(&bench, 2 * N, 1.0);
    ON_WORKERS(&bench, dropout_apply(bench.device, big.device, big.device, many, usual, extent(12), N);
               dropout_apply(bench.device, small.device, small.device, few, usual, extent(2), N));
    float *a = bench_download(&bench, big), *b = bench_download(&bench, small);
    assert_memory_equal(a + 10 * N, b + N, N * sizeof *a);
    assert_memory_equal(a + 11 * N, b, N * sizeof *a);
    free(a);
    free(b);
    bench_close(&bench);
}

enum { HEADS = 2, D = 64, H = HEADS * D, MOST_LINES = 3 * D };

// Attention of B sequences of D lines with even probabilities and unit values: line i of head a is row i of the mask
// over keys, divided by D. Free it.
static float *attention_mask_of(const uint32_t *rows, int B) {
    Bench bench;
    bench_open(&bench, 2);
    const int32_t starts[] = {0, D, 2 * D, 3 * D};
    const int32_t *device_starts = bench_list(&bench, starts, (size_t)B + 1);
    Array qkv = bench_fill(&bench, MOST_LINES * 3 * H, 0.0);
    for (size_t i = 0; i < MOST_LINES * H; i++) {
        qkv.host[i / H * 3 * H + 2 * H + i % H] = i / H % D == i % D ? D : 0.0;
    }
    bench_upload(&bench, qkv);
    Array out = bench_fill(&bench, (size_t)(B * D * H), 0.0), log_sum = bench_fill(&bench, MOST_LINES * HEADS, 0.0);
    const Sequences sequences = {
        device_starts, bench_list(&bench, rows, (size_t)B), extent(B), extent((int)B * D), HEADS, D, D};
    Dropout dropout = usual;
    dropout.probability = 0.5f;
    ON_WORKERS(&bench, attention_forward(bench.device, out.device, log_sum.device, qkv.device, sequences, dropout));
    float *mask = bench_download(&bench, out);
    bench_close(&bench);
    return mask;
}

static void test_attention_masks(void **state) {
    (void)state;
    float *three = attention_mask_of((uint32_t[]){5, 6, 7}, 3), *two = attention_mask_of((uint32_t[]){7, 5}, 2);
    const size_t count = (size_t)D * H, last = 2 * count;
    assert_memory_equal(three + last, two, count * sizeof *two);   // row 7
    assert_memory_equal(three, two + count, count * sizeof *two);  // row 5
    assert_true(plausible((double)count_zeros(three, 3 * count), 3.0 * (double)count, 0.5));
    const double trials = (double)count;
    assert_true(plausible((double)count_common_zeros(three, three + count, count), trials, 0.25));  // rows
    assert_true(plausible((double)count_common_zeros(three, three + D, count), trials, 0.25));      // heads
    assert_true(plausible((double)count_common_zeros(three, three + H, count), trials, 0.25));      // queries
    assert_true(plausible((double)count_common_zeros(three, three + 4 * H, count), trials, 0.25));  // next counter
    assert_true(plausible((double)count_common_zeros(three, three + 1, count), trials, 0.25));      // keys
    free(three);
    free(two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_threshold),
        BENCH_TEST(values),
        cmocka_unit_test(test_rate_and_mean),
        cmocka_unit_test(test_masks_are_unrelated),
        cmocka_unit_test(test_batch_does_not_matter),
        cmocka_unit_test(test_attention_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
