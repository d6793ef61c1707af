// Attention against the referee: lengths around the vector and block widths, all lines as queries or only the first of
// each sequence, with and without dropout, very large scores, not-a-number. Lines lie as in the model: queries, keys
// and values side by side in one matrix, or the queries apart and dense; gaps must stay untouched.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

enum { GAP = 3, MOST_SEQUENCES = 8 };

static const Tolerance usual = {1e-5, 1e-5};
static const Dropout no_dropout = {.probability = 0.0f};
static const Dropout some_dropout = {.probability = 0.2f, .seed = 0x123456789ABCDEFu, .step = 4, .site = 11};

// A batch: its shape for the referee and for the device, and q, k, v somewhere in two arrays that may be the same.
typedef struct {
    AttentionShape host, device;
    Array queries, keys;
    size_t k, v;  // where in keys; q is at the start of queries
    int32_t query_starts[MOST_SEQUENCES + 1], key_starts[MOST_SEQUENCES + 1];
    uint32_t rows[MOST_SEQUENCES];
} Batch;

static size_t query_lines(const Batch *b) { return (size_t)b->query_starts[b->host.B]; }

static size_t width_of(const Batch *b) { return (size_t)(b->host.A * b->host.D); }

// lengths end with 0. first_only: one query per sequence, in a matrix of its own.
static void make_batch(Bench *bench, Batch *b, const int *lengths, int A, int D, bool first_only, double scale) {
    int B = 0;
    *b = (Batch){0};
    for (; lengths[B]; B++) {
        b->key_starts[B + 1] = b->key_starts[B] + lengths[B];
        b->query_starts[B + 1] = b->query_starts[B] + (first_only ? 1 : lengths[B]);
        b->rows[B] = (uint32_t)(100 - 3 * B);
    }
    const int H = A * D, stride = (first_only ? 2 : 3) * H + GAP;
    b->host = (AttentionShape){b->query_starts, b->key_starts, b->rows, first_only ? H : stride, stride, B, A, D};
    b->device = b->host;
    b->device.query_starts = bench_list(bench, b->query_starts, (size_t)B + 1);
    b->device.key_starts = bench_list(bench, b->key_starts, (size_t)B + 1);
    b->device.rows = bench_list(bench, b->rows, (size_t)B);
    b->queries = bench_random(bench, query_lines(b) * (size_t)b->host.query_stride, scale, 0.0);
    b->keys = first_only ? bench_random(bench, (size_t)(b->key_starts[B] * stride), scale, 0.0) : b->queries;
    b->k = first_only ? 0 : (size_t)H;
    b->v = b->k + (size_t)H;
}

// Runs both directions of kernel and referee and compares; the arrays stay on the bench.
static void check_batch(Bench *bench, const Batch *b, Dropout dropout, Tolerance forward, Tolerance backward) {
    const float *q = b->queries.device, *k = b->keys.device + b->k, *v = b->keys.device + b->v;
    const double *hq = b->queries.host, *hk = b->keys.host + b->k, *hv = b->keys.host + b->v;
    Array out = bench_fill(bench, query_lines(b) * width_of(b), (double)NAN);
    Array log_sum = bench_fill(bench, query_lines(b) * (size_t)b->host.A, (double)NAN);
    attention_forward(bench->device, out.device, log_sum.device, q, k, v, b->device, dropout);
    ref_attention_forward(out.host, log_sum.host, hq, hk, hv, b->host, dropout);
    bench_check(bench, "attention_forward", out, forward);
    bench_check(bench, "attention_forward: log_sum", log_sum, usual);

    Array dout = bench_random(bench, out.count, 1.0, 0.0), dqueries = bench_fill(bench, b->queries.count, 7.0);
    const bool together = b->keys.device == b->queries.device;
    Array dkeys = together ? dqueries : bench_fill(bench, b->keys.count, 7.0);
    attention_backward(bench->device, dqueries.device, dkeys.device + b->k, dkeys.device + b->v, dout.device,
                       out.device, log_sum.device, q, k, v, b->device, dropout);
    ref_attention_backward(dqueries.host, dkeys.host + b->k, dkeys.host + b->v, dout.host, out.host, log_sum.host, hq,
                           hk, hv, b->host, dropout);
    bench_check(bench, "attention_backward: dq", dqueries, backward);
    bench_check(bench, "attention_backward: dk, dv", dkeys, backward);
}

static void attention_case(Bench *bench, const int *lengths, int A, int D, bool first_only, Dropout dropout) {
    Batch b;
    make_batch(bench, &b, lengths, A, D, first_only, 1.5);
    check_batch(bench, &b, dropout, usual, usual);
    bench_clear(bench);
}

static void short_sequences(Bench *bench) {
    const int lengths[] = {1, 2, 15, 16, 17, 40, 3, 0}, sizes[] = {8, 16, 32, 64};
    for (int i = 0; i < 4; i++) {
        attention_case(bench, lengths, i + 1, sizes[i], false, no_dropout);
        attention_case(bench, lengths, 3, sizes[i], false, some_dropout);
        attention_case(bench, lengths, 3, sizes[i], true, no_dropout);
        attention_case(bench, lengths, i + 1, sizes[i], true, some_dropout);
    }
}

static void awkward_heads(Bench *bench) {
    const int lengths[] = {5, 33, 1, 0}, sizes[] = {1, 3, 17, 31, 65};
    for (int i = 0; i < 5; i++) { attention_case(bench, lengths, 2, sizes[i], i % 2 == 0, some_dropout); }
}

static void long_sequences(Bench *bench) {
    attention_case(bench, (int[]){128, 200, 0}, 2, 64, false, some_dropout);
    attention_case(bench, (int[]){512, 0}, 1, 32, false, no_dropout);
    attention_case(bench, (int[]){512, 129, 0}, 1, 16, false, some_dropout);
    attention_case(bench, (int[]){512, 200, 512, 0}, 2, 64, true, some_dropout);
}

// Scores reach 1e4 in size, where a float's last place is 1e-3: so uncertain are log_sum and the probabilities.
static void large_scores(Bench *bench) {
    const Tolerance forward = {1e-3, 0.1}, backward = {1e-3, 1.0};
    Batch b;
    make_batch(bench, &b, (int[]){40, 17, 1, 0}, 2, 16, false, 120.0);
    check_batch(bench, &b, some_dropout, forward, backward);
}

// All scores are 1e4 or all are -1e4, so that the probabilities are even.
static void even_large_scores(Bench *bench) {
    const Tolerance forward = {1e-5, 1e-5}, backward = {1e-3, 1e-3};
    for (double sign = -1.0; sign <= 1.0; sign += 2.0) {
        Batch b;
        make_batch(bench, &b, (int[]){40, 0}, 1, 16, true, 1.0);
        for (size_t i = 0; i < b.queries.count; i++) { b.queries.host[i] = sign * 2500.0; }
        for (size_t line = 0; line < 40; line++) {
            for (size_t d = 0; d < 16; d++) { b.keys.host[line * (size_t)b.host.key_stride + d] = 1.0; }
        }
        bench_upload(bench, b.queries);
        bench_upload(bench, b.keys);
        check_batch(bench, &b, no_dropout, forward, backward);
        bench_clear(bench);
    }
}

// The [CLS] line alone gives what it gives among all queries, dropout included: the last layer counts on it.
static void first_query_alone(Bench *bench) {
    enum { LENGTH = 37, A = 2, D = 16, H = A * D };
    const int32_t starts[2] = {0, LENGTH}, one[2] = {0, 1};
    Batch all;
    make_batch(bench, &all, (int[]){LENGTH, 0}, A, D, false, 1.5);
    AttentionShape alone = all.device;
    alone.query_starts = bench_list(bench, one, 2);
    alone.key_starts = bench_list(bench, starts, 2);
    Array out_all = bench_fill(bench, LENGTH * H, 0.0), log_sum = bench_fill(bench, LENGTH * A, 0.0);
    Array out = bench_fill(bench, H, 0.0);
    const float *q = all.queries.device;
    attention_forward(bench->device, out_all.device, log_sum.device, q, q + H, q + 2 * H, all.device, some_dropout);
    attention_forward(bench->device, out.device, log_sum.device, q, q + H, q + 2 * H, alone, some_dropout);
    float *expected = bench_download(bench, out_all);
    for (int i = 0; i < H; i++) { out.host[i] = (double)expected[i]; }
    free(expected);
    bench_check(bench, "first query alone", out, (Tolerance){1e-6, 1e-6});
}

// Counts not-a-number among the H outputs of a line from column begin to end; elsewhere there must be none.
static void check_line(const float *out, size_t line, size_t H, size_t begin, size_t end) {
    for (size_t h = 0; h < H; h++) { assert_int_equal(!!isnan(out[line * H + h]), h >= begin && h < end); }
}

// A not-a-number in a query reaches that line of its head; in a key or a value, all lines of its sequence.
static void nan_in_attention(Bench *bench) {
    enum { A = 2, D = 8, H = A * D, STRIDE = 3 * H + GAP, LINE = 4 };
    for (size_t part = 0; part < 3; part++) {
        Batch b;
        make_batch(bench, &b, (int[]){3, 5, 2, 0}, A, D, false, 1.0);
        b.queries.host[LINE * STRIDE + part * H + D + 1] = (double)NAN;  // second head, second sequence
        bench_upload(bench, b.queries);
        Array out = bench_fill(bench, 10 * H, 0.0), log_sum = bench_fill(bench, 10 * A, 0.0);
        const float *q = b.queries.device;
        attention_forward(bench->device, out.device, log_sum.device, q, q + H, q + 2 * H, b.device, no_dropout);
        float *values = bench_download(bench, out);
        for (size_t line = 0; line < 10; line++) {
            const bool reached = part == 0 ? line == LINE : line >= 3 && line < 8;
            const size_t begin = part == 2 ? D + 1 : D, end = part == 2 ? D + 2 : H;
            check_line(values, line, H, begin, reached ? end : begin);
        }
        free(values);
        bench_clear(bench);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        BENCH_TEST(short_sequences),  BENCH_TEST(awkward_heads),     BENCH_TEST(long_sequences),
        BENCH_TEST(large_scores),     BENCH_TEST(even_large_scores), BENCH_TEST(first_query_alone),
        BENCH_TEST(nan_in_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
