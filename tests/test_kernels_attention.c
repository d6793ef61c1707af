// Attention against the referee: lengths around the vector and block widths, with and without dropout, very large
// scores, not-a-number.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

enum { MOST_SEQUENCES = 8 };

static const Tolerance usual = {1e-5, 1e-5};
static const Dropout no_dropout = {.probability = 0.0f};
static const Dropout some_dropout = {.probability = 0.2f, .seed = 0x123456789ABCDEFu, .step = 4, .site = 11};

typedef struct {
    Sequences host, device;
    Array qkv;
    int32_t starts[MOST_SEQUENCES + 1];
    uint32_t rows[MOST_SEQUENCES];
    size_t lines, H;
} Batch;

// lengths end with 0.
static void make_batch(Bench *bench, Batch *b, const int *lengths, int A, int D, double scale) {
    int B = 0;
    *b = (Batch){0};
    for (; lengths[B]; B++) {
        b->starts[B + 1] = b->starts[B] + lengths[B];
        b->rows[B] = (uint32_t)(100 - 3 * B);
    }
    b->lines = (size_t)b->starts[B];
    b->H = (size_t)(A * D);
    b->host = (Sequences){b->starts, b->rows, extent(B), extent((int)b->lines), A, D, b->starts[B]};
    b->device = (Sequences){bench_list(bench, b->starts, (size_t)B + 1),
                            bench_list(bench, b->rows, (size_t)B),
                            extent(B),
                            extent((int)b->lines),
                            A,
                            D,
                            b->starts[B]};
    b->qkv = bench_random(bench, b->lines * 3 * b->H, scale, 0.0);
}

// Runs both directions of kernel and referee and compares; the arrays stay on the bench.
static void check_batch(Bench *bench, const Batch *b, Dropout dropout, Tolerance forward, Tolerance backward) {
    Device *device = bench->device;
    Array out = bench_fill(bench, b->lines * b->H, (double)NAN);
    Array log_sum = bench_fill(bench, b->lines * (size_t)b->host.A, (double)NAN);
    ON_WORKERS(bench, attention_forward(device, out.device, log_sum.device, b->qkv.device, b->device, dropout));
    ref_attention_forward(out.host, log_sum.host, b->qkv.host, b->host, dropout);
    bench_check(bench, "attention_forward", out, forward);
    bench_check(bench, "attention_forward: log_sum", log_sum, usual);

    Array dout = bench_random(bench, out.count, 1.0, 0.0), dqkv = bench_fill(bench, b->qkv.count, (double)NAN);
    ON_WORKERS(bench, attention_backward(device, dqkv.device, dout.device, out.device, log_sum.device, b->qkv.device,
                                         b->device, dropout));
    ref_attention_backward(dqkv.host, dout.host, b->qkv.host, b->host, dropout);
    bench_check(bench, "attention_backward", dqkv, backward);
}

static void attention_case(Bench *bench, const int *lengths, int A, int D, Dropout dropout) {
    Batch b;
    make_batch(bench, &b, lengths, A, D, 1.5);
    check_batch(bench, &b, dropout, usual, usual);
    bench_clear(bench);
}

static void short_sequences(Bench *bench) {
    const int lengths[] = {1, 2, 15, 16, 17, 40, 3, 0}, sizes[] = {8, 16, 32, 64};
    for (int i = 0; i < 4; i++) {
        attention_case(bench, lengths, i + 1, sizes[i], no_dropout);
        attention_case(bench, lengths, 3, sizes[i], some_dropout);
    }
}

static void awkward_heads(Bench *bench) {
    const int lengths[] = {5, 33, 1, 0}, sizes[] = {1, 3, 17, 31, 65};
    for (int i = 0; i < 5; i++) { attention_case(bench, lengths, 2, sizes[i], some_dropout); }
}

static void long_sequences(Bench *bench) {
    attention_case(bench, (int[]){128, 200, 0}, 2, 64, some_dropout);
    attention_case(bench, (int[]){512, 0}, 1, 32, no_dropout);
    attention_case(bench, (int[]){512, 129, 0}, 1, 16, some_dropout);
}

// Scores reach 1e4 in size, where a float's last place is 1e-3: so uncertain are log_sum and the probabilities.
static void large_scores(Bench *bench) {
    const Tolerance forward = {1e-3, 0.1}, backward = {1e-3, 1.0};
    Batch b;
    make_batch(bench, &b, (int[]){40, 17, 1, 0}, 2, 16, 120.0);
    check_batch(bench, &b, some_dropout, forward, backward);
}

// All scores are 1e4 or all are -1e4, so that the probabilities are even.
static void even_large_scores(Bench *bench) {
    const Tolerance forward = {1e-5, 1e-5}, backward = {1e-3, 1e-3};
    for (double sign = -1.0; sign <= 1.0; sign += 2.0) {
        Batch b;
        make_batch(bench, &b, (int[]){40, 0}, 1, 16, 1.0);
        for (size_t line = 0; line < b.lines; line++) {
            double *q = b.qkv.host + line * 3 * b.H, *k = q + b.H;
            for (size_t h = 0; h < b.H; h++) {
                q[h] = sign * 2500.0;
                k[h] = 1.0;
            }
        }
        bench_upload(bench, b.qkv);
        check_batch(bench, &b, no_dropout, forward, backward);
        bench_clear(bench);
    }
}

// A rank may have no sequence at all.
static void no_sequences(Bench *bench) {
    Batch b;
    make_batch(bench, &b, (int[]){0}, 2, 16, 1.0);
    check_batch(bench, &b, some_dropout, usual, usual);
}

// Counts not-a-number among the H outputs of a line from column begin to end; elsewhere there must be none.
static void check_line(const float *out, size_t line, size_t H, size_t begin, size_t end) {
    for (size_t h = 0; h < H; h++) { assert_int_equal(!!isnan(out[line * H + h]), h >= begin && h < end); }
}

// A not-a-number in a query reaches that line of its head; in a key or a value, all lines of its sequence.
static void nan_in_attention(Bench *bench) {
    enum { A = 2, D = 8, H = A * D, LINE = 4 };
    for (size_t part = 0; part < 3; part++) {
        Batch b;
        make_batch(bench, &b, (int[]){3, 5, 2, 0}, A, D, 1.0);
        b.qkv.host[LINE * 3 * H + part * H + D + 1] = (double)NAN;  // second head, second sequence
        bench_upload(bench, b.qkv);
        Array out = bench_fill(bench, 10 * H, 0.0), log_sum = bench_fill(bench, 10 * A, 0.0);
        attention_forward(bench->device, out.device, log_sum.device, b.qkv.device, b.device, no_dropout);
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
        BENCH_TEST(large_scores),     BENCH_TEST(even_large_scores), BENCH_TEST(no_sequences),
        BENCH_TEST(nan_in_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
