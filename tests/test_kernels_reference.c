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
    double out[MN], sum[MN], mean[M], rstd[M];
    ref_residual_layernorm_forward(out, sum, mean, rstd, n->in, n->residual, n->weight, n->bias, 1e-3, lines, dropout,
                                   M, N);
    return sum_of_products(out, n->dout, MN);
}

// Dropout, the residual connection and layer normalisation, differentiated together.
static void test_residual_layernorm(void **state) {
    (void)state;
    Norm n;
    double out[MN], sum[MN], mean[M], rstd[M], dsum[MN], din[MN], dweight[N] = {0}, dbias[N] = {0};
    fill((double *)&n, sizeof n / sizeof(double));
    ref_residual_layernorm_forward(out, sum, mean, rstd, n.in, n.residual, n.weight, n.bias, 1e-3, lines, dropout, M,
                                   N);
    ref_layernorm_backward(dsum, dweight, dbias, n.dout, sum, mean, rstd, n.weight, M, N);
    ref_dropout_apply(din, dsum, lines, dropout, M, N);
    check_gradient("din", din, n.in, MN, norm_loss, &n);
    check_gradient("dresidual", dsum, n.residual, MN, norm_loss, &n);
    check_gradient("dweight", dweight, n.weight, N, norm_loss, &n);
    check_gradient("dbias", dbias, n.bias, N, norm_loss, &n);
}

typedef struct {
    double in[M * K], weight[N * K], bias[N], dout[MN];
} Linear;

static double linear_loss(void *context) {
    const Linear *l = context;
    double out[MN];
    ref_linear_forward(out, l->in, l->weight, l->bias, M, N, K);
    return sum_of_products(out, l->dout, MN);
}

static void test_linear(void **state) {
    (void)state;
    Linear l;
    double din[M * K], dweight[N * K] = {0}, dbias[N] = {0};
    fill((double *)&l, sizeof l / sizeof(double));
    ref_linear_backward(din, dweight, dbias, l.dout, l.in, l.weight, M, N, K);
    check_gradient("din", din, l.in, M * K, linear_loss, &l);
    check_gradient("dweight", dweight, l.weight, N * K, linear_loss, &l);
    check_gradient("dbias", dbias, l.bias, N, linear_loss, &l);
}

typedef struct {
    double in[MN], dout[MN];
    void (*forward)(double *out, const double *in, size_t count);
} Activation;

static double activation_loss(void *context) {
    const Activation *a = context;
    double out[MN];
    a->forward(out, a->in, MN);
    return sum_of_products(out, a->dout, MN);
}

static void test_activations(void **state) {
    (void)state;
    Activation a = {.forward = ref_gelu_forward};
    double out[MN], din[MN];
    fill(a.in, MN);
    fill(a.dout, MN);
    ref_gelu_backward(din, a.dout, a.in, MN);
    check_gradient("gelu", din, a.in, MN, activation_loss, &a);
    a.forward = ref_tanh_forward;
    ref_tanh_forward(out, a.in, MN);
    ref_tanh_backward(din, a.dout, out, MN);
    check_gradient("tanh", din, a.in, MN, activation_loss, &a);
}

// Two sequences of 3 and 2 keys, the first with 2 queries and the second with 1; lines with gaps.
enum { HEADS = 2, DEPTH = 3, QUERIES = 3, KEYS = 5, QUERY_STRIDE = 7, KEY_STRIDE = 8, WIDTH = HEADS * DEPTH };
static const int32_t query_starts[] = {0, 2, 3}, key_starts[] = {0, 3, 5};
static const AttentionShape shape = {query_starts, key_starts, data_rows,  QUERY_STRIDE,
                                     KEY_STRIDE,   .B = 2,     .A = HEADS, .D = DEPTH};

typedef struct {
    double q[QUERIES * QUERY_STRIDE], k[KEYS * KEY_STRIDE], v[KEYS * KEY_STRIDE], dout[QUERIES * WIDTH];
} Heads;

static double attention_loss(void *context) {
    const Heads *h = context;
    double out[QUERIES * WIDTH], log_sum[HEADS * QUERIES];
    ref_attention_forward(out, log_sum, h->q, h->k, h->v, shape, dropout);
    return sum_of_products(out, h->dout, QUERIES * WIDTH);
}

static void test_attention(void **state) {
    (void)state;
    Heads h, gradient = {0};
    fill((double *)&h, sizeof h / sizeof(double));
    ref_attention_backward(gradient.q, gradient.k, gradient.v, h.dout, NULL, NULL, h.q, h.k, h.v, shape, dropout);
    check_gradient("dq", gradient.q, h.q, QUERIES * QUERY_STRIDE, attention_loss, &h);
    check_gradient("dk", gradient.k, h.k, KEYS * KEY_STRIDE, attention_loss, &h);
    check_gradient("dv", gradient.v, h.v, KEYS * KEY_STRIDE, attention_loss, &h);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_embedding, seed_random),
        cmocka_unit_test_setup(test_residual_layernorm, seed_random),
        cmocka_unit_test_setup(test_linear, seed_random),
        cmocka_unit_test_setup(test_activations, seed_random),
        cmocka_unit_test_setup(test_attention, seed_random),
        cmocka_unit_test_setup(test_cross_entropy, seed_random),
        cmocka_unit_test_setup(test_gather_scatter, seed_random),
        cmocka_unit_test(test_adamw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
