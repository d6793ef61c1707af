// Every operation but attention and the optimiser against the referee, at sizes around the vector widths, with one, two
// and three threads. Outputs that are written, not added to, start as not-a-number.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const int sizes[] = {1, 3, 15, 16, 17, 33, 63, 64, 65, 127, 128, 129};
static const int widths[] = {1, 3, 8, 15, 16, 17, 32, 48, 63, 65, 127, 128, 129, 256, 384};
static const Tolerance exact = {0.0, 0.0}, tight = {1e-6, 1e-6}, sums = {1e-5, 2e-5};

static Array empty(Bench *bench, int lines, int width) {
    return bench_fill(bench, (size_t)lines * (size_t)width, (double)NAN);
}

static Array random_lines(Bench *bench, int lines, int width, double scale) {
    return bench_random(bench, (size_t)lines * (size_t)width, scale, 0.0);
}

// Indices below limit in an order without pattern.
static void fill_indices(int32_t *indices, int count, int limit) {
    for (int i = 0; i < count; i++) { indices[i] = i * 37 % 101 % limit; }
}

static void embedding_case(Bench *bench, int T, int H) {
    enum { WORDS = 11, POSITIONS = 7, PADDING = 3 };
    int32_t ids[256], positions[256];
    fill_indices(ids, T, WORDS);
    fill_indices(positions, T, POSITIONS);
    int32_t *device_ids = bench_list(bench, ids, (size_t)T), *at = bench_list(bench, positions, (size_t)T);
    Array word = random_lines(bench, WORDS, H, 1.0), position = random_lines(bench, POSITIONS, H, 1.0);
    Array type = random_lines(bench, 1, H, 1.0), out = empty(bench, T, H);
    embedding_forward(bench->device, out.device, word.device, position.device, type.device, device_ids, at, T, H);
    ref_embedding_forward(out.host, word.host, position.host, type.host, ids, positions, T, H);
    bench_check(bench, "embedding_forward", out, tight);

    Array dout = random_lines(bench, T, H, 1.0);  // added to the tables, which serve as their own gradients
    for (int padding = -1; padding <= PADDING; padding += PADDING + 1) {
        embedding_backward(bench->device, word.device, position.device, type.device, dout.device, device_ids, at,
                           padding, T, H);
        ref_embedding_backward(word.host, position.host, type.host, dout.host, ids, positions, padding, T, H);
    }
    bench_check(bench, "embedding_backward: dword", word, sums);
    bench_check(bench, "embedding_backward: dposition", position, sums);
    bench_check(bench, "embedding_backward: dtype", type, sums);
    bench_clear(bench);
}

static void embedding(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) { embedding_case(bench, 33, widths[i]); }
    for (size_t i = 0; i < LENGTH(sizes); i++) { embedding_case(bench, sizes[i], 48); }
}

static void layernorm_case(Bench *bench, int M, int N, float epsilon) {
    Device *device = bench->device;
    Array in = bench_random(bench, (size_t)M * (size_t)N, 2.0, 0.5), weight = random_lines(bench, 1, N, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = empty(bench, M, N);
    Array mean = empty(bench, M, 1), rstd = empty(bench, M, 1);
    layernorm_forward(device, out.device, mean.device, rstd.device, in.device, weight.device, bias.device, epsilon, M,
                      N);
    ref_layernorm_forward(out.host, mean.host, rstd.host, in.host, weight.host, bias.host, (double)epsilon, M, N);
    bench_check(bench, "layernorm_forward", out, sums);
    bench_check(bench, "layernorm_forward: mean", mean, sums);
    bench_check(bench, "layernorm_forward: rstd", rstd, sums);

    Array dout = random_lines(bench, M, N, 1.0), din = empty(bench, M, N);
    Array dweight = random_lines(bench, 1, N, 1.0), dbias = random_lines(bench, 1, N, 1.0);
    layernorm_backward(device, din.device, dweight.device, dbias.device, dout.device, in.device, mean.device,
                       rstd.device, weight.device, M, N);
    ref_layernorm_backward(din.host, dweight.host, dbias.host, dout.host, in.host, mean.host, rstd.host, weight.host, M,
                           N);
    bench_check(bench, "layernorm_backward: din", din, sums);
    bench_check(bench, "layernorm_backward: dweight", dweight, sums);
    bench_check(bench, "layernorm_backward: dbias", dbias, sums);
    bench_clear(bench);
}

static void layernorm(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) { layernorm_case(bench, 5, widths[i], 1e-3f); }
    for (size_t i = 0; i < LENGTH(sizes); i++) { layernorm_case(bench, sizes[i], 32, 1e-12f); }
}

static void residual_layernorm_case(Bench *bench, int M, int N, float probability, bool in_place) {
    const Dropout dropout = {.probability = probability, .seed = 42, .step = 3, .site = 9};
    int32_t positions[256], rows[256];
    fill_indices(positions, M, 100);
    fill_indices(rows, M, 90);
    const Lines lines = {(uint32_t *)rows, positions};
    const Lines device_lines = {bench_list(bench, rows, (size_t)M), bench_list(bench, positions, (size_t)M)};
    Array in = random_lines(bench, M, N, 1.0), residual = random_lines(bench, M, N, 2.0);
    Array weight = random_lines(bench, 1, N, 1.0), bias = random_lines(bench, 1, N, 1.0);
    Array sum = in_place ? in : empty(bench, M, N), out = empty(bench, M, N);
    Array mean = empty(bench, M, 1), rstd = empty(bench, M, 1);
    residual_layernorm_forward(bench->device, out.device, sum.device, mean.device, rstd.device, in.device,
                               residual.device, weight.device, bias.device, 1e-3f, device_lines, dropout, M, N);
    ref_residual_layernorm_forward(out.host, sum.host, mean.host, rstd.host, in.host, residual.host, weight.host,
                                   bias.host, (double)1e-3f, lines, dropout, M, N);
    bench_check(bench, "residual_layernorm_forward", out, sums);
    bench_check(bench, "residual_layernorm_forward: sum", sum, tight);
    bench_check(bench, "residual_layernorm_forward: mean", mean, sums);
    bench_check(bench, "residual_layernorm_forward: rstd", rstd, sums);
    bench_clear(bench);
}

static void residual_layernorm(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) {
        residual_layernorm_case(bench, 17, widths[i], 0.25f, false);
        residual_layernorm_case(bench, 17, widths[i], 0.25f, true);
        residual_layernorm_case(bench, 17, widths[i], 0.0f, i % 2 == 0);
    }
}

static void linear_case(Bench *bench, int M, int N, int K) {
    Device *device = bench->device;
    const Tolerance products = {1e-5, 1e-6 * (10 + K + N + M)};
    Array in = random_lines(bench, M, K, 1.0), weight = random_lines(bench, N, K, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = empty(bench, M, N);
    linear_forward(device, out.device, in.device, weight.device, bias.device, M, N, K);
    ref_linear_forward(out.host, in.host, weight.host, bias.host, M, N, K);
    bench_check_rounded(bench, "linear_forward", out, products);

    Array dout = random_lines(bench, M, N, 1.0), din = empty(bench, M, K);
    Array dweight = random_lines(bench, N, K, 1.0), dbias = random_lines(bench, 1, N, 1.0);
    linear_backward(device, din.device, dweight.device, dbias.device, dout.device, in.device, weight.device, M, N, K);
    linear_backward(device, NULL, dweight.device, dbias.device, dout.device, in.device, weight.device, M, N, K);
    for (int i = 0; i < 2; i++) {
        ref_linear_backward(din.host, dweight.host, dbias.host, dout.host, in.host, weight.host, M, N, K);
    }
    bench_check_rounded(bench, "linear_backward: din", din, products);
    bench_check_rounded(bench, "linear_backward: dweight", dweight, products);
    bench_check(bench, "linear_backward: dbias", dbias, sums);
    bench_clear(bench);
}

static void linear(Bench *bench) {
    const int shapes[][2] = {{1, 1}, {2, 384}, {3, 15}, {8, 32}, {33, 48}, {129, 65}, {256, 64}};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        for (size_t j = i % 2; j < LENGTH(shapes); j += 2) { linear_case(bench, sizes[i], shapes[j][0], shapes[j][1]); }
    }
}

// A rank may have no line at all.
static void linear_of_nothing(Bench *bench) {
    Array weight = random_lines(bench, 3, 5, 1.0), bias = random_lines(bench, 1, 3, 1.0), none = empty(bench, 0, 1);
    linear_forward(bench->device, none.device, none.device, weight.device, bias.device, 0, 3, 5);
    linear_backward(bench->device, none.device, weight.device, bias.device, none.device, none.device, weight.device, 0,
                    3, 5);
    bench_check(bench, "dweight of no lines", weight, exact);
    bench_check(bench, "dbias of no lines", bias, exact);
}

static void activation_case(Bench *bench, size_t count) {
    Device *device = bench->device;
    Array in = bench_random(bench, count, 6.0, 0.0), dout = bench_random(bench, count, 1.0, 0.0);
    Array out = bench_fill(bench, count, (double)NAN), din = bench_fill(bench, count, (double)NAN);
    gelu_forward(device, out.device, in.device, count);
    ref_gelu_forward(out.host, in.host, count);
    bench_check(bench, "gelu_forward", out, tight);
    gelu_backward(device, din.device, dout.device, in.device, count);
    ref_gelu_backward(din.host, dout.host, in.host, count);
    bench_check(bench, "gelu_backward", din, tight);
    tanh_forward(device, out.device, in.device, count);
    ref_tanh_forward(out.host, in.host, count);
    bench_check(bench, "tanh_forward", out, tight);
    tanh_backward(device, din.device, dout.device, out.device, count);
    ref_tanh_backward(din.host, dout.host, out.host, count);
    bench_check(bench, "tanh_backward", din, tight);
    bench_clear(bench);
}

static void activations(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) { activation_case(bench, (size_t)sizes[i]); }
    activation_case(bench, 5000);
}

static void cross_entropy_case(Bench *bench, int B, int C, double scale) {
    int32_t labels[256];
    fill_indices(labels, B, C);
    const int32_t *device_labels = bench_list(bench, labels, (size_t)B);
    Array logits = random_lines(bench, B, C, scale), losses = empty(bench, B, 1), dlogits = empty(bench, B, C);
    cross_entropy(bench->device, losses.device, dlogits.device, logits.device, device_labels, 0.125f, B, C);
    ref_cross_entropy(losses.host, dlogits.host, logits.host, labels, 0.125, B, C);
    bench_check(bench, "cross_entropy", losses, tight);
    bench_check(bench, "cross_entropy: dlogits", dlogits, tight);
    Array only_losses = empty(bench, B, 1);
    cross_entropy(bench->device, only_losses.device, NULL, logits.device, device_labels, 1.0f, B, C);
    memcpy(only_losses.host, losses.host, (size_t)B * sizeof(double));
    bench_check(bench, "cross_entropy without gradient", only_losses, tight);
    bench_clear(bench);
}

static void cross_entropies(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        cross_entropy_case(bench, sizes[i], 2, 3.0);
        cross_entropy_case(bench, sizes[i], 5, 1e4);
    }
    cross_entropy_case(bench, 17, 77, 3.0);
}

static void lines_case(Bench *bench, int M, int N) {
    int32_t picked[256];
    for (int i = 0; i < M; i++) { picked[i] = 2 * (M - 1 - i); }
    const int32_t *device_picked = bench_list(bench, picked, (size_t)M);
    Array all = random_lines(bench, 2 * M, N, 1.0), some = empty(bench, M, N);
    gather_lines(bench->device, some.device, all.device, device_picked, M, N);
    ref_gather_lines(some.host, all.host, picked, M, N);
    bench_check(bench, "gather_lines", some, exact);
    Array more = random_lines(bench, M, N, 1.0);
    scatter_add_lines(bench->device, all.device, more.device, device_picked, M, N);
    ref_scatter_add_lines(all.host, more.host, picked, M, N);
    bench_check(bench, "scatter_add_lines", all, tight);
    const size_t count = (size_t)M * (size_t)N;
    add(bench->device, some.device, more.device, count);
    ref_add(some.host, more.host, count);
    bench_check(bench, "add", some, tight);
    bench_clear(bench);
}

static void moving_lines(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) { lines_case(bench, sizes[i], widths[i]); }
}

static void test_square_sum(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 15, 17, 129, 8191, 8192, 8193, 30000};
    double first_sums[LENGTH(counts)];
    for (int threads = 1; threads <= 3; threads++) {
        Bench bench;
        bench_open(&bench, threads);
        for (size_t i = 0; i < LENGTH(counts); i++) {
            Array in = bench_random(&bench, counts[i], 100.0, 0.0);
            const double sum = square_sum(bench.device, in.device, counts[i]);
            const double truth = ref_square_sum(in.host, counts[i]);
            assert_true(fabs(sum - truth) <= 1e-12 * truth);
            if (threads == 1) { first_sums[i] = sum; }
            assert_true(sum == first_sums[i]);
        }
        bench_close(&bench);
    }
}

// What GELU and its derivative tend to; both multiply infinity by 0 at minus infinity, as PyTorch does.
static void gelu_extremes(Bench *bench) {
    const double values[] = {0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0, 30.0, -30.0, 100.0, -100.0, 1e30, -1e30};
    Array in = bench_fill(bench, LENGTH(values), 0.0), dout = bench_fill(bench, LENGTH(values), 1.0);
    Array out = empty(bench, LENGTH(values), 1), din = empty(bench, LENGTH(values), 1);
    memcpy(in.host, values, sizeof values);
    bench_upload(bench, in);
    gelu_forward(bench->device, out.device, in.device, in.count);
    ref_gelu_forward(out.host, in.host, in.count);
    bench_check(bench, "gelu_forward of extremes", out, tight);
    gelu_backward(bench->device, din.device, dout.device, in.device, in.count);
    ref_gelu_backward(din.host, dout.host, in.host, in.count);
    bench_check(bench, "gelu_backward of extremes", din, tight);
}

// Fails unless exactly the elements begin .. end are not-a-number.
static void check_nans(Bench *bench, const char *name, Array array, size_t begin, size_t end) {
    float *values = bench_download(bench, array);
    for (size_t i = 0; i < array.count; i++) {
        if (isnan(values[i]) != (i >= begin && i < end)) {
            fail_msg("%s: element %zu is %g", name, i, (double)values[i]);
        }
    }
    free(values);
}

enum { M = 3, N = 33, BAD = N + 20 };  // a not-a-number in line 1 of 3

static Array random_with_nan(Bench *bench, double nan_value) {
    Array in = random_lines(bench, M, N, 1.0);
    in.host[BAD] = nan_value;
    bench_upload(bench, in);
    return in;
}

static void nan_in_activations(Bench *bench) {
    for (double sign = -1.0; sign <= 1.0; sign += 2.0) {
        Array in = random_with_nan(bench, sign * (double)NAN), ones = bench_fill(bench, in.count, 1.0);
        Array out = bench_fill(bench, in.count, 0.0);
        gelu_forward(bench->device, out.device, in.device, in.count);
        check_nans(bench, "gelu_forward", out, BAD, BAD + 1);
        gelu_backward(bench->device, out.device, ones.device, in.device, in.count);
        check_nans(bench, "gelu_backward", out, BAD, BAD + 1);
        gelu_backward(bench->device, out.device, in.device, ones.device, in.count);
        check_nans(bench, "gelu_backward: dout", out, BAD, BAD + 1);
        tanh_forward(bench->device, out.device, in.device, in.count);
        check_nans(bench, "tanh_forward", out, BAD, BAD + 1);
        bench_clear(bench);
    }
}

static void nan_in_lines(Bench *bench) {
    Array in = random_with_nan(bench, (double)NAN), weight = random_lines(bench, N, N, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = bench_fill(bench, in.count, 0.0);
    Array mean = bench_fill(bench, M, 0.0), rstd = bench_fill(bench, M, 0.0);
    layernorm_forward(bench->device, out.device, mean.device, rstd.device, in.device, weight.device, bias.device,
                      1e-12f, M, N);
    check_nans(bench, "layernorm_forward", out, N, 2 * N);
    linear_forward(bench->device, out.device, in.device, weight.device, bias.device, M, N, N);
    check_nans(bench, "linear_forward", out, N, 2 * N);
    linear_backward(bench->device, out.device, weight.device, bias.device, in.device, in.device, weight.device, M, N,
                    N);
    check_nans(bench, "linear_backward: dbias", bias, BAD - N, BAD - N + 1);
    assert_true(isnan(square_sum(bench->device, in.device, in.count)));
}

static void nan_in_logits(Bench *bench) {
    const int32_t labels[M] = {0, 0, 32};
    const int32_t *device_labels = bench_list(bench, labels, M);
    Array in = random_with_nan(bench, (double)NAN), losses = bench_fill(bench, M, 0.0);
    Array dlogits = bench_fill(bench, in.count, 0.0);
    cross_entropy(bench->device, losses.device, dlogits.device, in.device, device_labels, 1.0f, M, N);
    check_nans(bench, "cross_entropy", losses, 1, 2);
    check_nans(bench, "cross_entropy: dlogits", dlogits, N, 2 * N);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        BENCH_TEST(embedding),       BENCH_TEST(layernorm),          BENCH_TEST(residual_layernorm),
        BENCH_TEST(linear),          BENCH_TEST(linear_of_nothing),  BENCH_TEST(activations),
        BENCH_TEST(cross_entropies), BENCH_TEST(moving_lines),       cmocka_unit_test(test_square_sum),
        BENCH_TEST(gelu_extremes),   BENCH_TEST(nan_in_activations), BENCH_TEST(nan_in_lines),
        BENCH_TEST(nan_in_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
