// The referee itself: each backward function of tests/ref.c against central differences of its forward function, in
// double, on small shapes. The loss is the sum of dout * out, so that dout is its gradient.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

enum { M = 3, N = 6, K = 5, MN = M * N };

static uint64_t random_state;

static void fill(double *values, size_t count) {
    for (size_t i = 0; i < count; i++) { values[i] = ref_random(&random_state); }
}

static double sum_of_products(const double *a, const double *b, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) { sum += a[i] * b[i]; }
    return sum;
}

// Compares gradient with the differences of loss(context) as each element of x, which context reads, is moved.
static void check_gradient(const char *name, const double *gradient, double *x, size_t count, double (*loss)(void *),
                           void *context) {
    const double step = 1e-5;
    for (size_t i = 0; i < count; i++) {
        const double at = x[i];
        x[i] = at + step;
        const double above = loss(context);
        x[i] = at - step;
        const double numeric = (above - loss(context)) / (2.0 * step);
        x[i] = at;
        if (!(fabs(numeric - gradient[i]) <= 1e-8 * (1.0 + fabs(numeric)))) {
            fail_msg("%s: gradient %zu is %.12g, difference quotient %.12g", name, i, gradient[i], numeric);
        }
    }
}

static const int32_t token_ids[M] = {2, 0, 2}, token_positions[M] = {0, 1, 1};

typedef struct {
    double word[4 * N], position[2 * N], type[N], dout[MN];
} Embedding;

static double embedding_loss(void *context) {
    const Embedding *e = context;
    double out[MN];
    ref_embedding_forward(out, e->word, e->position, e->type, token_ids, token_positions, M, N);
    return sum_of_products(out, e->dout, MN);
}

static void test_embedding(void **state) {
    (void)state;
    Embedding e;
    double dword[4 * N] = {0}, dposition[2 * N] = {0}, dtype[N] = {0};
    fill((double *)&e, sizeof e / sizeof(double));
    ref_embedding_backward(dword, dposition, dtype, e.dout, token_ids, token_positions, -1, M, N);
    check_gradient("dword", dword, e.word, 4 * N, embedding_loss, &e);
    check_gradient("dposition", dposition, e.position, 2 * N, embedding_loss, &e);
    check_gradient("dtype", dtype, e.type, N, embedding_loss, &e);
    ref_embedding_backward(dword, dposition, dtype, e.dout, token_ids, token_positions, 2, M, N);
    check_gradient("dword of padding", dword + 2 * N, e.word + 2 * N, N, embedding_loss, &e);
}

static const uint32_t data_rows[M] = {7, 7, 1};
static const Lines lines = {data_rows, token_positions};
static const Dropout dropout = {.probability = 0.4f, .seed = 5, .step = 2, .site = 3};

typedef struct {
    double in[MN], residual[MN], weight[N], bias[N], dout[MN];
} Norm;

static double norm_loss(void *context) {
    const Norm *n = context;
    double out[MN], normalized[MN], rstd[M];
    ref_residual_layernorm_forward(out, normalized, rstd, n->in, n->residual, n->weight, n->bias, 1e-3, lines, dropout,
                                   M, N);
    return sum_of_products(out, n->dout, MN);
}

// Dropout, the residual connection and layer normalisation, differentiated together.
static void test_residual_layernorm(void **state) {
    (void)state;
    Norm n;
    double out[MN], normalized[MN], rstd[M], dsum[MN], din[MN], dweight[N], dbias[N];
    fill((double *)&n, sizeof n / sizeof(double));
    ref_residual_layernorm_forward(out, normalized, rstd, n.in, n.residual, n.weight, n.bias, 1e-3, lines, dropout, M,
                                   N);
    ref_layernorm_backward_input(dsum, n.dout, normalized, rstd, n.weight, M, N);
    ref_layernorm_backward_parameters(dweight, dbias, n.dout, normalized, false, M, N);
    ref_dropout_apply(din, dsum, lines, dropout, M, N);
    check_gradient("din", din, n.in, MN, norm_loss, &n);
    check_gradient("dresidual", dsum, n.residual, MN, norm_loss, &n);
    check_gradient("dweight", dweight, n.weight, N, norm_loss, &n);
    check_gradient("dbias", dbias, n.bias, N, norm_loss, &n);
}

// The two layers of a feed-forward network with the GELU between, and its input again behind them.
typedef struct {
    double in[M * K], up[N * K], up_bias[N], down[K * N], down_bias[K], dout[M * K];
} FeedForward;

static double feed_forward_loss(void *context) {
    const FeedForward *f = context;
    double between[MN], out[M * K];
    ref_linear_gelu_forward(between, NULL, f->in, f->up, f->up_bias, M, N, K);
    ref_linear_forward(out, between, f->down, f->down_bias, M, K, N);
    ref_add(out, f->in, M * K);
    return sum_of_products(out, f->dout, M * K);
}

static void test_feed_forward(void **state) {
    (void)state;
    FeedForward f;
    double between[MN], derivative[MN], dbetween[MN], din[M * K], dup[N * K], dup_bias[N], ddown[K * N], ddown_bias[K];
    fill((double *)&f, sizeof f / sizeof(double));
    ref_linear_gelu_forward(between, derivative, f.in, f.up, f.up_bias, M, N, K);
    ref_linear_backward_weight(ddown, ddown_bias, f.dout, between, false, M, K, N);
    ref_linear_gelu_backward_input(dbetween, f.dout, f.down, derivative, M, K, N);
    ref_linear_backward_weight(dup, dup_bias, dbetween, f.in, false, M, N, K);
    ref_linear_backward_input(din, dbetween, f.up, f.dout, M, N, K);
    check_gradient("ddown", ddown, f.down, K * N, feed_forward_loss, &f);
    check_gradient("ddown_bias", ddown_bias, f.down_bias, K, feed_forward_loss, &f);
    check_gradient("dup", dup, f.up, N * K, feed_forward_loss, &f);
    check_gradient("dup_bias", dup_bias, f.up_bias, N, feed_forward_loss, &f);
    check_gradient("din", din, f.in, M * K, feed_forward_loss, &f);
}

// Gradients that are added to are twice those that were written.
static void test_accumulation(void **state) {
    (void)state;
    FeedForward f;
    double dweight[N * K], dbias[N], dnorm[N], dnorm_bias[N];
    fill((double *)&f, sizeof f / sizeof(double));
    for (int accumulate = 0; accumulate <= 1; accumulate++) {
        ref_linear_backward_weight(dweight, dbias, f.up, f.in, accumulate, M, N, K);
        ref_layernorm_backward_parameters(dnorm, dnorm_bias, f.up, f.down, accumulate, M, N);
    }
    double once[N * K], once_bias[N], norm_once[N], norm_bias_once[N];
    ref_linear_backward_weight(once, once_bias, f.up, f.in, false, M, N, K);
    ref_layernorm_backward_parameters(norm_once, norm_bias_once, f.up, f.down, false, M, N);
    for (int i = 0; i < N * K; i++) { assert_true(fabs(dweight[i] - 2.0 * once[i]) < 1e-14); }
    for (int j = 0; j < N; j++) {
        assert_true(fabs(dbias[j] - 2.0 * once_bias[j]) < 1e-14);
        assert_true(fabs(dnorm[j] - 2.0 * norm_once[j]) < 1e-14);
        assert_true(fabs(dnorm_bias[j] - 2.0 * norm_bias_once[j]) < 1e-14);
    }
}

typedef struct {
    double in[MN], dout[MN];
} Tanh;

static double tanh_loss(void *context) {
    const Tanh *t = context;
    double out[MN];
    ref_tanh_forward(out, t->in, M, N);
    return sum_of_products(out, t->dout, MN);
}

static void test_tanh(void **state) {
    (void)state;
    Tanh t;
    double out[MN], din[MN];
    fill((double *)&t, sizeof t / sizeof(double));
    ref_tanh_forward(out, t.in, M, N);
    ref_tanh_backward(din, t.dout, out, M, N);
    check_gradient("tanh", din, t.in, MN, tanh_loss, &t);
}

enum { SEQUENCES = 2, T = 5, HEADS = 2, DEPTH = 3, WIDTH = HEADS * DEPTH };
static const int32_t starts[] = {0, 3, T};
static const Sequences sequences = {starts, data_rows, {SEQUENCES, NULL}, {T, NULL}, HEADS, DEPTH, T};

typedef struct {
    double qkv[T * 3 * WIDTH], dout[T * WIDTH];
} Heads;

static double attention_loss(void *context) {
    const Heads *h = context;
    double out[T * WIDTH], log_sum[HEADS * T];
    ref_attention_forward(out, log_sum, h->qkv, sequences, dropout);
    return sum_of_products(out, h->dout, T * WIDTH);
}

static void test_attention(void **state) {
    (void)state;
    Heads h;
    double dqkv[T * 3 * WIDTH];
    fill((double *)&h, sizeof h / sizeof(double));
    ref_attention_backward(dqkv, h.dout, h.qkv, sequences, dropout);
    check_gradient("dqkv", dqkv, h.qkv, T * 3 * WIDTH, attention_loss, &h);
}

typedef struct {
    double q[SEQUENCES * WIDTH], x[T * WIDTH], key_weight[WIDTH * WIDTH], key_bias[WIDTH];
    double value_weight[WIDTH * WIDTH], value_bias[WIDTH], dcontext[SEQUENCES * WIDTH];
} Cls;

static void cls_context(double *context, const Cls *c) {
    const RefProjections projections = {c->key_weight, c->key_bias, c->value_weight, c->value_bias};
    ref_cls_attention_forward(context, c->q, c->x, projections, sequences, dropout);
}

static double cls_loss(void *context) {
    const Cls *c = context;
    double out[SEQUENCES * WIDTH];
    cls_context(out, c);
    return sum_of_products(out, c->dcontext, SEQUENCES * WIDTH);
}

// The gradient of the keys' bias is 0, which the difference quotients confirm.
static void test_cls_attention(void **state) {
    (void)state;
    Cls c, gradient;
    fill((double *)&c, sizeof c / sizeof(double));
    const RefProjections projections = {c.key_weight, c.key_bias, c.value_weight, c.value_bias};
    const RefProjectionGradients gradients = {gradient.key_weight, gradient.key_bias, gradient.value_weight,
                                              gradient.value_bias};
    ref_cls_attention_backward(gradient.q, gradient.x, gradients, c.dcontext, c.q, c.x, projections, false, sequences,
                               dropout);
    check_gradient("dq", gradient.q, c.q, SEQUENCES * WIDTH, cls_loss, &c);
    check_gradient("dx", gradient.x, c.x, T * WIDTH, cls_loss, &c);
    check_gradient("dkey_weight", gradient.key_weight, c.key_weight, WIDTH * WIDTH, cls_loss, &c);
    check_gradient("dkey_bias", gradient.key_bias, c.key_bias, WIDTH, cls_loss, &c);
    check_gradient("dvalue_weight", gradient.value_weight, c.value_weight, WIDTH * WIDTH, cls_loss, &c);
    check_gradient("dvalue_bias", gradient.value_bias, c.value_bias, WIDTH, cls_loss, &c);
    for (int h = 0; h < WIDTH; h++) { assert_true(fabs(gradient.key_bias[h]) < 1e-15); }
}

// Any bias of the keys gives the same, which is why the kernels do not take it.
static void test_key_bias_is_lost(void **state) {
    (void)state;
    Cls c;
    double before[SEQUENCES * WIDTH], after[SEQUENCES * WIDTH];
    fill((double *)&c, sizeof c / sizeof(double));
    cls_context(before, &c);
    for (int h = 0; h < WIDTH; h++) { c.key_bias[h] = 5.0 * ref_random(&random_state); }
    cls_context(after, &c);
    for (int i = 0; i < SEQUENCES * WIDTH; i++) { assert_true(fabs(after[i] - before[i]) < 1e-13); }
}

// The same as attention of all lines gives for the first.
static void test_cls_is_first_query(void **state) {
    (void)state;
    Cls c;
    Heads h;
    double context[SEQUENCES * WIDTH], out[T * WIDTH], log_sum[HEADS * T], keys[T * WIDTH], values[T * WIDTH];
    fill((double *)&c, sizeof c / sizeof(double));
    fill((double *)&h, sizeof h / sizeof(double));
    cls_context(context, &c);
    ref_linear_forward(keys, c.x, c.key_weight, c.key_bias, T, WIDTH, WIDTH);
    ref_linear_forward(values, c.x, c.value_weight, c.value_bias, T, WIDTH, WIDTH);
    for (int i = 0; i < T * WIDTH; i++) {
        double *line = h.qkv + i / WIDTH * 3 * WIDTH + i % WIDTH;
        line[WIDTH] = keys[i];
        line[2 * WIDTH] = values[i];
    }
    for (int b = 0; b < SEQUENCES; b++) {
        memcpy(h.qkv + starts[b] * 3 * WIDTH, c.q + b * WIDTH, WIDTH * sizeof(double));
    }
    ref_attention_forward(out, log_sum, h.qkv, sequences, dropout);
    for (int b = 0; b < SEQUENCES; b++) {
        assert_memory_equal(out + starts[b] * WIDTH, context + b * WIDTH, WIDTH * sizeof(double));
    }
}

static const int32_t labels[M] = {5, 0, 2};

static double cross_entropy_loss(void *context) {
    double losses[M], sum = 0.0;
    ref_cross_entropy(losses, NULL, context, labels, 0.0, M, N);
    for (int i = 0; i < M; i++) { sum += 0.25 * losses[i]; }
    return sum;
}

static void test_cross_entropy(void **state) {
    (void)state;
    double logits[MN], dlogits[MN], losses[M];
    fill(logits, MN);
    ref_cross_entropy(losses, dlogits, logits, labels, 0.25, M, N);
    check_gradient("dlogits", dlogits, logits, MN, cross_entropy_loss, logits);
}

// <gather x, y> = <x, scatter y>.
static void test_gather_scatter(void **state) {
    (void)state;
    const int32_t picked[2] = {2, 0};
    double x[MN], y[2 * N], gathered[2 * N], scattered[MN] = {0};
    fill(x, MN);
    fill(y, 2 * N);
    ref_gather_lines(gathered, x, picked, 2, N);
    ref_scatter_add_lines(scattered, y, picked, 2, N);
    assert_true(fabs(sum_of_products(gathered, y, 2 * N) - sum_of_products(x, scattered, MN)) < 1e-14);
    assert_true(gathered[N] == x[0] && scattered[2 * N] == y[0]);
}

// The first step of Adam is lr * sign(gradient) whatever the gradient's size, if epsilon is small beside it.
static void test_adamw(void **state) {
    (void)state;
    double weight[2] = {1.0, -2.0}, first[2] = {0.0, 0.0}, second[2] = {0.0, 0.0};
    const double gradient[2] = {3.0, -0.5};
    const AdamW step = {.gradient_scale = 1.0f,
                        .decay = 0.75f,
                        .rest1 = 0.125f,
                        .beta2 = 0.9375f,
                        .rest2 = 0.0625f,
                        .step_size = 0.5f / 0.125f,
                        .root_correction = 0.25f};
    ref_adamw_update(weight, first, second, gradient, step, 2);
    assert_true(weight[0] == 0.75 - 0.5 && weight[1] == -1.5 + 0.5);
    assert_true(first[0] == 0.375 && second[1] == 0.015625);
}

static int seed_random(void **state) {
    (void)state;
    random_state = 1;
    return 0;
}

static void test_bfloat16(void **state) {
    (void)state;
    const double pairs[][2] = {{0.0, 0.0},
                               {1.0, 1.0},
                               {-1.5, -1.5},
                               {1.00390625, 1.0},
                               {1.01171875, 1.015625},
                               {1.0040, 1.0078125},
                               {-1.0040, -1.0078125},
                               {0x1.ffp7, 256.0},
                               {3.0e-20, 0x1.1cp-65}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (ref_bfloat16(pairs[i][0]) != pairs[i][1]) {
            fail_msg("%.9g became %a, not %a", pairs[i][0], ref_bfloat16(pairs[i][0]), pairs[i][1]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_embedding, seed_random),
        cmocka_unit_test_setup(test_residual_layernorm, seed_random),
        cmocka_unit_test_setup(test_feed_forward, seed_random),
        cmocka_unit_test_setup(test_accumulation, seed_random),
        cmocka_unit_test_setup(test_tanh, seed_random),
        cmocka_unit_test_setup(test_attention, seed_random),
        cmocka_unit_test_setup(test_cls_attention, seed_random),
        cmocka_unit_test_setup(test_key_bias_is_lost, seed_random),
        cmocka_unit_test_setup(test_cls_is_first_query, seed_random),
        cmocka_unit_test_setup(test_cross_entropy, seed_random),
        cmocka_unit_test_setup(test_gather_scatter, seed_random),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
