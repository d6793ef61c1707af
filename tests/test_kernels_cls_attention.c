// Attention of the sequences' first lines alone, with the projections of keys and values absorbed, against the referee,
// which computes keys and values plainly and adds a bias to the keys. The weights' gradients are written and added to.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

enum { MOST_SEQUENCES = 8 };

static const Tolerance usual = {1e-5, 1e-5}, none = {0.0, 1e-12};
static const Dropout no_dropout = {.probability = 0.0f};
static const Dropout some_dropout = {.probability = 0.2f, .seed = 0x123456789ABCDEFu, .step = 4, .site = 11};

typedef struct {
    Sequences host, device;
    int32_t starts[MOST_SEQUENCES + 1];
    uint32_t rows[MOST_SEQUENCES];
    size_t B, T, H;
    Array q, x, key_weight, key_bias, value_weight, value_bias;
    Array attended, mixed, kept, log_sum;
} Batch;

static Array empty(Bench *bench, size_t count) { return bench_fill(bench, count, (double)NAN); }

// lengths end with 0. Scores and contexts are about as large as scale.
static void make_batch(Bench *bench, Batch *b, const int *lengths, int A, int D, double scale) {
    int B = 0;
    *b = (Batch){0};
    for (; lengths[B]; B++) {
        b->starts[B + 1] = b->starts[B] + lengths[B];
        b->rows[B] = (uint32_t)(100 - 3 * B);
    }
    b->B = (size_t)B;
    b->T = (size_t)b->starts[B];
    b->H = (size_t)(A * D);
    b->host = (Sequences){b->starts, b->rows, extent(B), extent((int)b->T), A, D, (int)b->T};
    b->device = (Sequences){bench_list(bench, b->starts, b->B + 1),
                            bench_list(bench, b->rows, b->B),
                            extent(B),
                            extent((int)b->T),
                            A,
                            D,
                            (int)b->T};
    const double weights = 2.0 / sqrt((double)b->H);
    b->q = bench_random(bench, b->B * b->H, scale, 0.0);
    b->x = bench_random(bench, b->T * b->H, 1.5, 0.0);
    b->key_weight = bench_random(bench, b->H * b->H, weights, 0.0);
    b->key_bias = bench_random(bench, b->H, 1.0, 0.0);
    b->value_weight = bench_random(bench, b->H * b->H, weights, 0.0);
    b->value_bias = bench_random(bench, b->H, 1.0, 0.0);
    b->attended = empty(bench, b->B * (size_t)A * b->H);
    b->mixed = empty(bench, b->B * (size_t)A * b->H);
    b->kept = empty(bench, b->B * (size_t)A);
    b->log_sum = empty(bench, b->B * (size_t)A);
}

static RefProjections ref_projections(const Batch *b) {
    return (RefProjections){b->key_weight.host, b->key_bias.host, b->value_weight.host, b->value_bias.host};
}

static ClsProjections projections(const Batch *b) {
    return (ClsProjections){b->key_weight.device, b->value_weight.device, b->value_bias.device};
}

static ClsAttention saved(const Batch *b) {
    return (ClsAttention){b->attended.device, b->mixed.device, b->kept.device, b->log_sum.device};
}

static void check_forward(Bench *bench, const Batch *b, Dropout dropout, Tolerance tolerance) {
    Array context = empty(bench, b->B * b->H);
    ON_WORKERS(bench, cls_attention_forward(bench->device, context.device, saved(b), b->q.device, b->x.device,
                                            projections(b), b->device, dropout));
    ref_cls_attention_forward(context.host, b->q.host, b->x.host, ref_projections(b), b->host, dropout);
    bench_check(bench, "cls_attention_forward", context, tolerance);
}

// Backward of what check_forward saved.
static void check_backward(Bench *bench, const Batch *b, bool accumulate, Dropout dropout, Tolerance tolerance) {
    Device *device = bench->device;
    const int A = b->host.A, D = b->host.D;
    Array dcontext = bench_random(bench, b->B * b->H, 1.0, 0.0), dq = empty(bench, b->q.count);
    Array dx = empty(bench, b->x.count), dattended = empty(bench, b->attended.count);
    Array dmixed = empty(bench, b->mixed.count), gradients[4];
    for (int i = 0; i < 4; i++) {
        const size_t count = i % 2 ? b->H : b->H * b->H;
        gradients[i] = accumulate ? bench_random(bench, count, 1.0, 0.0) : empty(bench, count);
    }
    const ClsProjectionGradients device_gradients = {gradients[0].device, gradients[1].device, gradients[2].device,
                                                     gradients[3].device};
    ON_WORKERS(
        bench, cls_attention_backward(device, dq.device, dx.device, dattended.device, dmixed.device, dcontext.device,
                                      saved(b), b->x.device, projections(b), b->device, dropout);
        device_sync(device); cls_attention_backward_weight(device, device_gradients, dattended.device, dcontext.device,
                                                           saved(b), b->q.device, accumulate, b->host.B, A, D));
    const RefProjectionGradients host = {gradients[0].host, gradients[1].host, gradients[2].host, gradients[3].host};
    ref_cls_attention_backward(dq.host, dx.host, host, dcontext.host, b->q.host, b->x.host, ref_projections(b),
                               accumulate, b->host, dropout);
    bench_check(bench, "cls_attention_backward: dq", dq, tolerance);
    bench_check(bench, "cls_attention_backward: dx", dx, tolerance);
    bench_check(bench, "cls_attention_backward_weight: key_weight", gradients[0], tolerance);
    bench_check(bench, "cls_attention_backward_weight: key_bias", gradients[1], none);
    bench_check(bench, "cls_attention_backward_weight: value_weight", gradients[2], tolerance);
    bench_check(bench, "cls_attention_backward_weight: value_bias", gradients[3], tolerance);
}

static void cls_case(Bench *bench, const int *lengths, int A, int D, Dropout dropout) {
    Batch b;
    make_batch(bench, &b, lengths, A, D, 1.5);
    check_forward(bench, &b, dropout, usual);
    check_backward(bench, &b, false, dropout, usual);
    check_backward(bench, &b, true, dropout, usual);
    bench_clear(bench);
}

static const int all_lengths[] = {1, 2, 15, 16, 17, 33, 128, 0};

static void heads(Bench *bench) {
    const int shapes[][2] = {{1, 8}, {4, 16}, {2, 64}, {8, 8}, {3, 32}};
    for (int i = 0; i < 5; i++) {
        cls_case(bench, all_lengths, shapes[i][0], shapes[i][1], i % 2 ? no_dropout : some_dropout);
    }
    cls_case(bench, all_lengths, 4, 16, no_dropout);
}

static void awkward_heads(Bench *bench) {
    const int shapes[][2] = {{1, 1}, {1, 3}, {2, 17}, {3, 5}, {7, 9}, {5, 1}};
    for (int i = 0; i < 6; i++) { cls_case(bench, all_lengths, shapes[i][0], shapes[i][1], some_dropout); }
}

// Fewer sequences than workers, and none.
static void few_sequences(Bench *bench) {
    cls_case(bench, (int[]){33, 0}, 2, 16, some_dropout);
    cls_case(bench, (int[]){512, 17, 0}, 2, 16, some_dropout);
    cls_case(bench, (int[]){0}, 2, 16, some_dropout);
}

// Scores of some hundreds, where a float's last place is 3e-5: so uncertain are the probabilities.
static void large_scores(Bench *bench) {
    Batch b;
    make_batch(bench, &b, (int[]){40, 17, 1, 0}, 2, 16, 300.0);
    check_forward(bench, &b, some_dropout, (Tolerance){1e-3, 1e-3});
    check_backward(bench, &b, false, some_dropout, (Tolerance){1e-3, 3e-2});
}

// The context stays within what the values of one head allow, also where every probability but one vanishes.
static void even_large_scores(Bench *bench) {
    for (double sign = -1.0; sign <= 1.0; sign += 2.0) {
        Batch b;
        make_batch(bench, &b, (int[]){40, 3, 0}, 2, 8, 1.0);
        for (size_t i = 0; i < b.q.count; i++) { b.q.host[i] = sign * 2500.0; }
        for (size_t i = 0; i < b.x.count; i++) { b.x.host[i] = 1.0; }
        bench_upload(bench, b.q);
        bench_upload(bench, b.x);
        check_forward(bench, &b, no_dropout, usual);
        bench_clear(bench);
    }
}

// A not-a-number in a line reaches the context of its sequence; in a query, that of its head.
static void nan_in_cls_attention(Bench *bench) {
    enum { A = 2, D = 8, H = A * D, SEQUENCES = 3 };
    for (int part = 0; part < 2; part++) {
        Batch b;
        make_batch(bench, &b, (int[]){3, 5, 2, 0}, A, D, 1.0);
        Array in = part ? b.q : b.x, context = empty(bench, SEQUENCES * H);
        in.host[(part ? 1 : 4) * H + D + 1] = (double)NAN;  // of the second sequence; second head
        bench_upload(bench, in);
        ON_WORKERS(bench, cls_attention_forward(bench->device, context.device, saved(&b), b.q.device, b.x.device,
                                                projections(&b), b.device, no_dropout));
        float *values = bench_download(bench, context);
        for (int i = 0; i < SEQUENCES * H; i++) {
            assert_int_equal(!!isnan(values[i]), i >= H + (part ? D : 0) && i < 2 * H);
        }
        free(values);
        bench_clear(bench);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        BENCH_TEST(heads),        BENCH_TEST(awkward_heads),     BENCH_TEST(few_sequences),
        BENCH_TEST(large_scores), BENCH_TEST(even_large_scores), BENCH_TEST(nan_in_cls_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
