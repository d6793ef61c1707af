// See ref.h. First the operations, in the order of kernels.h, then the bench.
#include "tests/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels/philox.h"

static double keep(Dropout dropout, uint32_t bits) {
    return bits < philox_threshold(dropout.probability) ? 0.0 : 1.0 / (1.0 - (double)dropout.probability);
}

double ref_keep_hidden(Dropout dropout, uint32_t row, int32_t position, int h, int N) {
    if (dropout.probability == 0.0f) { return 1.0; }
    const int quarter = (N + 3) / 4;
    const Philox random = philox((uint32_t)(position * quarter + h % quarter), row, dropout.step, dropout.site,
                                 (uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32));
    return keep(dropout, random.lane[h / quarter]);
}

double ref_keep_attention(Dropout dropout, uint32_t row, int head, int i, int j) {
    if (dropout.probability == 0.0f) { return 1.0; }
    const Philox random =
        philox((uint32_t)(i / 4 * 65536 + j), row, dropout.step, dropout.site + 65536 * (uint32_t)head,
               (uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32));
    return keep(dropout, random.lane[i % 4]);
}

void ref_embedding_forward(double *out, const double *word, const double *position, const double *type,
                           const int32_t *ids, const int32_t *positions, int T, int H) {
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < H; h++) {
            out[t * H + h] = word[ids[t] * H + h] + position[positions[t] * H + h] + type[h];
        }
    }
}

void ref_embedding_backward(double *dword, double *dposition, double *dtype, const double *dout, const int32_t *ids,
                            const int32_t *positions, int padding, int T, int H) {
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < H; h++) {
            if (ids[t] != padding) { dword[ids[t] * H + h] += dout[t * H + h]; }
            dposition[positions[t] * H + h] += dout[t * H + h];
            dtype[h] += dout[t * H + h];
        }
    }
}

void ref_dropout_apply(double *out, const double *in, Lines lines, Dropout dropout, int M, int N) {
    for (int i = 0; i < M; i++) {
        for (int h = 0; h < N; h++) {
            out[i * N + h] = in[i * N + h] * ref_keep_hidden(dropout, lines.rows[i], lines.positions[i], h, N);
        }
    }
}

void ref_layernorm_forward(double *out, double *normalized, double *rstd, const double *in, const double *weight,
                           const double *bias, double epsilon, int M, int N) {
    for (int i = 0; i < M; i++) {
        double mean = 0.0, squares = 0.0;
        for (int j = 0; j < N; j++) { mean += in[i * N + j] / N; }
        for (int j = 0; j < N; j++) { squares += pow(in[i * N + j] - mean, 2.0); }
        rstd[i] = 1.0 / sqrt(squares / N + epsilon);
        for (int j = 0; j < N; j++) {
            normalized[i * N + j] = (in[i * N + j] - mean) * rstd[i];
            out[i * N + j] = normalized[i * N + j] * weight[j] + bias[j];
        }
    }
}

void ref_residual_layernorm_forward(double *out, double *normalized, double *rstd, const double *in,
                                    const double *residual, const double *weight, const double *bias, double epsilon,
                                    Lines lines, Dropout dropout, int M, int N) {
    ref_dropout_apply(normalized, in, lines, dropout, M, N);
    ref_add(normalized, residual, (size_t)M * (size_t)N);
    ref_layernorm_forward(out, normalized, rstd, normalized, weight, bias, epsilon, M, N);
}

// With n the normalised line and g = dout * weight: din = rstd * (g - average of g - n * average of g n).
void ref_layernorm_backward_input(double *din, const double *dout, const double *normalized, const double *rstd,
                                  const double *weight, int M, int N) {
    for (int i = 0; i < M; i++) {
        const double *n = normalized + i * N, *d = dout + i * N;
        double average = 0.0, projection = 0.0;
        for (int j = 0; j < N; j++) {
            average += d[j] * weight[j] / N;
            projection += d[j] * weight[j] * n[j] / N;
        }
        for (int j = 0; j < N; j++) { din[i * N + j] = rstd[i] * (d[j] * weight[j] - average - n[j] * projection); }
    }
}

static void zero_unless(bool accumulate, double *values, int count) {
    for (int i = 0; !accumulate && i < count; i++) { values[i] = 0.0; }
}

void ref_layernorm_backward_parameters(double *dweight, double *dbias, const double *dout, const double *normalized,
                                       bool accumulate, int M, int N) {
    zero_unless(accumulate, dweight, N);
    zero_unless(accumulate, dbias, N);
    for (int i = 0; i < M * N; i++) {
        dweight[i % N] += dout[i] * normalized[i];
        dbias[i % N] += dout[i];
    }
}

void ref_linear_forward(double *out, const double *in, const double *weight, const double *bias, int M, int N, int K) {
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = bias[j];
            for (int k = 0; k < K; k++) { sum += in[i * K + k] * weight[j * K + k]; }
            out[i * N + j] = sum;
        }
    }
}

static double normal_cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

static double normal_density(double x) { return exp(-0.5 * x * x) / sqrt(2.0 * M_PI); }

void ref_linear_gelu_forward(double *out, double *derivative, const double *in, const double *weight,
                             const double *bias, int M, int N, int K) {
    ref_linear_forward(out, in, weight, bias, M, N, K);
    for (int i = 0; i < M * N; i++) {
        const double x = out[i];
        if (derivative) { derivative[i] = normal_cdf(x) + x * normal_density(x); }
        out[i] = x * normal_cdf(x);
    }
}

void ref_linear_backward_input(double *din, const double *dout, const double *weight, const double *residual, int M,
                               int N, int K) {
    for (int i = 0; i < M; i++) {
        for (int k = 0; k < K; k++) {
            double sum = residual ? residual[i * K + k] : 0.0;
            for (int j = 0; j < N; j++) { sum += dout[i * N + j] * weight[j * K + k]; }
            din[i * K + k] = sum;
        }
    }
}

void ref_linear_gelu_backward_input(double *din, const double *dout, const double *weight, const double *derivative,
                                    int M, int N, int K) {
    ref_linear_backward_input(din, dout, weight, NULL, M, N, K);
    for (int i = 0; i < M * K; i++) { din[i] *= derivative[i]; }
}

void ref_linear_backward_weight(double *dweight, double *dbias, const double *dout, const double *in, bool accumulate,
                                int M, int N, int K) {
    zero_unless(accumulate, dweight, N * K);
    zero_unless(accumulate, dbias, N);
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            dbias[j] += dout[i * N + j];
            for (int k = 0; k < K; k++) { dweight[j * K + k] += dout[i * N + j] * in[i * K + k]; }
        }
    }
}

void ref_tanh_forward(double *out, const double *in, int M, int N) {
    for (int i = 0; i < M * N; i++) { out[i] = tanh(in[i]); }
}

void ref_tanh_backward(double *din, const double *dout, const double *out, int M, int N) {
    for (int i = 0; i < M * N; i++) { din[i] = dout[i] * (1.0 - out[i] * out[i]); }
}

// Either all lines are queries, and q, k and v lie side by side in one matrix; or each sequence has one query, q is
// (B, H) and k and v are (T, H).
typedef struct {
    double *out, *log_sum, *dq, *dk, *dv;
    const double *dout, *q, *k, *v;
    bool first_only;
    const Sequences *sequences;
    Dropout dropout;
    double *probabilities;  // of one query, before dropout; behind them their gradients
} Attention;

// One query of one head: its place in the arrays and its keys.
typedef struct {
    size_t query, log_sum, out, key, key_stride;  // first elements; key: of the sequence's first line, in k and in v
    int b, head, i, keys;
} Query;

static Query query_at(const Attention *a, int b, int head, int i) {
    const Sequences *s = a->sequences;
    const int H = s->A * s->D, stride = a->first_only ? H : 3 * H, column = head * s->D;
    const int line = a->first_only ? b : s->starts[b] + i, lines = a->first_only ? s->B.most : s->starts[s->B.most];
    return (Query){.query = (size_t)(line * stride + column),
                   .log_sum = (size_t)(head * lines + line),
                   .out = (size_t)(line * H + column),
                   .key = (size_t)(s->starts[b] * stride + column),
                   .key_stride = (size_t)stride,
                   .b = b,
                   .head = head,
                   .i = i,
                   .keys = s->starts[b + 1] - s->starts[b]};
}

// Calls visit for every query of every head of every sequence.
static void each_query(Attention a, void (*visit)(const Attention *a, Query query)) {
    const Sequences *s = a.sequences;
    a.probabilities = check_calloc(2 * (size_t)s->starts[s->B.most], sizeof(double));
    for (int b = 0; b < s->B.most; b++) {
        const int queries = a.first_only ? 1 : s->starts[b + 1] - s->starts[b];
        for (int head = 0; head < s->A; head++) {
            for (int i = 0; i < queries; i++) { visit(&a, query_at(&a, b, head, i)); }
        }
    }
    free(a.probabilities);
}

static double dot(const double *a, const double *b, int D) {
    double sum = 0.0;
    for (int d = 0; d < D; d++) { sum += a[d] * b[d]; }
    return sum;
}

// Fills the probabilities of one query and returns its log sum.
static double softmax(const Attention *a, Query query) {
    const int D = a->sequences->D;
    double *p = a->probabilities, largest = -INFINITY, sum = 0.0;
    for (int j = 0; j < query.keys; j++) {
        p[j] = dot(a->q + query.query, a->k + query.key + (size_t)j * query.key_stride, D) / sqrt(D);
        largest = fmax(largest, p[j]);
    }
    for (int j = 0; j < query.keys; j++) { sum += exp(p[j] - largest); }
    for (int j = 0; j < query.keys; j++) { p[j] = exp(p[j] - largest) / sum; }
    return largest + log(sum);
}

static void forward_query(const Attention *a, Query query) {
    const int D = a->sequences->D;
    const uint32_t row = a->sequences->rows[query.b];
    double *out = a->out + query.out;
    const double log_sum = softmax(a, query);
    if (a->log_sum) { a->log_sum[query.log_sum] = log_sum; }
    for (int d = 0; d < D; d++) { out[d] = 0.0; }
    for (int j = 0; j < query.keys; j++) {
        const double *v = a->v + query.key + (size_t)j * query.key_stride;
        const double p = a->probabilities[j] * ref_keep_attention(a->dropout, row, query.head, query.i, j);
        for (int d = 0; d < D; d++) { out[d] += p * v[d]; }
    }
}

// dscore_j = p_j (dp_j - sum over l of p_l dp_l), where dp = keep * (dout . v).
static void backward_query(const Attention *a, Query query) {
    const int D = a->sequences->D;
    const uint32_t row = a->sequences->rows[query.b];
    const double *dout = a->dout + query.out, *q = a->q + query.query, *p = a->probabilities;
    double average = 0.0, *dp = a->probabilities + query.keys;
    softmax(a, query);
    for (int j = 0; j < query.keys; j++) {
        const size_t at = query.key + (size_t)j * query.key_stride;
        const double kept = ref_keep_attention(a->dropout, row, query.head, query.i, j);
        for (int d = 0; d < D; d++) { a->dv[at + (size_t)d] += p[j] * kept * dout[d]; }
        dp[j] = kept * dot(dout, a->v + at, D);
        average += p[j] * dp[j];
    }
    for (int j = 0; j < query.keys; j++) {
        const size_t at = query.key + (size_t)j * query.key_stride;
        const double dscore = p[j] * (dp[j] - average) / sqrt(D);
        for (int d = 0; d < D; d++) {
            a->dq[query.query + (size_t)d] += dscore * a->k[at + (size_t)d];
            a->dk[at + (size_t)d] += dscore * q[d];
        }
    }
}

void ref_attention_forward(double *out, double *log_sum, const double *qkv, Sequences sequences, Dropout dropout) {
    const int H = sequences.A * sequences.D;
    each_query((Attention){.out = out,
                           .log_sum = log_sum,
                           .q = qkv,
                           .k = qkv + H,
                           .v = qkv + 2 * H,
                           .sequences = &sequences,
                           .dropout = dropout},
               forward_query);
}

void ref_attention_backward(double *dqkv, const double *dout, const double *qkv, Sequences sequences, Dropout dropout) {
    const int H = sequences.A * sequences.D;
    zero_unless(false, dqkv, sequences.starts[sequences.B.most] * 3 * H);
    each_query((Attention){.dq = dqkv,
                           .dk = dqkv + H,
                           .dv = dqkv + 2 * H,
                           .dout = dout,
                           .q = qkv,
                           .k = qkv + H,
                           .v = qkv + 2 * H,
                           .sequences = &sequences,
                           .dropout = dropout},
               backward_query);
}

// The keys (T, H) and behind them the values; free them.
static double *project(const double *x, RefProjections projections, int T, int H) {
    double *keys = check_calloc((size_t)(2 * T * H), sizeof *keys);
    ref_linear_forward(keys, x, projections.key_weight, projections.key_bias, T, H, H);
    ref_linear_forward(keys + T * H, x, projections.value_weight, projections.value_bias, T, H, H);
    return keys;
}

void ref_cls_attention_forward(double *context, const double *q, const double *x, RefProjections projections,
                               Sequences sequences, Dropout dropout) {
    const int T = sequences.starts[sequences.B.most], H = sequences.A * sequences.D;
    double *keys = project(x, projections, T, H);
    each_query((Attention){.out = context,
                           .q = q,
                           .k = keys,
                           .v = keys + T * H,
                           .first_only = true,
                           .sequences = &sequences,
                           .dropout = dropout},
               forward_query);
    free(keys);
}

void ref_cls_attention_backward(double *dq, double *dx, RefProjectionGradients gradients, const double *dcontext,
                                const double *q, const double *x, RefProjections projections, bool accumulate,
                                Sequences sequences, Dropout dropout) {
    const int T = sequences.starts[sequences.B.most], H = sequences.A * sequences.D;
    double *keys = project(x, projections, T, H), *dkeys = check_calloc((size_t)(2 * T * H), sizeof *dkeys);
    zero_unless(false, dq, sequences.B.most * H);
    each_query((Attention){.dq = dq,
                           .dk = dkeys,
                           .dv = dkeys + T * H,
                           .dout = dcontext,
                           .q = q,
                           .k = keys,
                           .v = keys + T * H,
                           .first_only = true,
                           .sequences = &sequences,
                           .dropout = dropout},
               backward_query);
    ref_linear_backward_input(dx, dkeys, projections.key_weight, NULL, T, H, H);
    ref_linear_backward_input(dx, dkeys + T * H, projections.value_weight, dx, T, H, H);
    ref_linear_backward_weight(gradients.key_weight, gradients.key_bias, dkeys, x, accumulate, T, H, H);
    ref_linear_backward_weight(gradients.value_weight, gradients.value_bias, dkeys + T * H, x, accumulate, T, H, H);
    free(keys);
    free(dkeys);
}

void ref_cross_entropy(double *losses, double *dlogits, const double *logits, const int32_t *labels, double scale,
                       int B, int C) {
    for (int b = 0; b < B; b++) {
        const double *x = logits + b * C;
        double largest = x[0], sum = 0.0;
        for (int c = 0; c < C; c++) { largest = fmax(largest, x[c]); }
        for (int c = 0; c < C; c++) { sum += exp(x[c] - largest); }
        losses[b] = largest - x[labels[b]] + log(sum);
        for (int c = 0; dlogits && c < C; c++) {
            dlogits[b * C + c] = scale * (exp(x[c] - largest) / sum - (c == labels[b] ? 1.0 : 0.0));
        }
    }
}

void ref_gather_lines(double *out, const double *in, const int32_t *lines, int M, int N) {
    for (int i = 0; i < M * N; i++) { out[i] = in[lines[i / N] * N + i % N]; }
}

void ref_scatter_add_lines(double *out, const double *in, const int32_t *lines, int M, int N) {
    for (int i = 0; i < M * N; i++) { out[lines[i / N] * N + i % N] += in[i]; }
}

void ref_add(double *out, const double *in, size_t count) {
    for (size_t i = 0; i < count; i++) { out[i] += in[i]; }
}

double ref_square_sum(const double *in, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) { sum += in[i] * in[i]; }
    return sum;
}

void ref_adamw_update(double *weight, double *first_moment, double *second_moment, const double *gradient, AdamW adamw,
                      size_t count) {
    for (size_t i = 0; i < count; i++) {
        const double g = gradient[i] * (double)adamw.gradient_scale;
        first_moment[i] += (double)adamw.rest1 * (g - first_moment[i]);
        second_moment[i] = second_moment[i] * (double)adamw.beta2 + (double)adamw.rest2 * g * g;
        const double root = sqrt(second_moment[i]) / (double)adamw.root_correction + (double)adamw.epsilon;
        weight[i] = weight[i] * (double)adamw.decay - (double)adamw.step_size * first_moment[i] / root;
    }
}

static bool within(double actual, double expected, Tolerance tolerance) {
    if (isnan(actual) || isnan(expected)) { return false; }
    if (isinf(expected)) { return actual == expected; }
    return fabs(actual - expected) <= tolerance.absolute + tolerance.relative * fabs(expected);
}

void ref_check(const char *name, const float *actual, const double *expected, size_t count, Tolerance tolerance) {
    size_t wrong = 0, first = 0;
    for (size_t i = count; i-- > 0;) {
        if (!within(actual[i], expected[i], tolerance)) {
            wrong++;
            first = i;
        }
    }
    if (wrong) {
        fail_msg("%s: %zu of %zu out of tolerance; element %zu is %.9g, not %.17g", name, wrong, count, first,
                 (double)actual[first], expected[first]);
    }
}

int64_t ref_ulps(float a, float b) {
    int32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    if (isnan(a) || isnan(b) || (x < 0) != (y < 0)) { return a == b ? 0 : INT64_MAX; }
    return llabs((long long)x - y);
}

// splitmix64 (Steele, Lea and Flood, 2014).
double ref_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 40) / 8388608.0 - 1.0;
}

double ref_bfloat16(double value) {
    int exponent;
    const double fraction = frexp(value, &exponent);  // 8 bits of 0.1xxxxxxx are kept
    return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

static DeviceKind device_under_test(void) {
    const char *name = getenv("BERTUNE_TEST_DEVICE");
    if (!name || strcmp(name, "cpu") == 0) { return DEVICE_CPU; }
    if (strcmp(name, "cuda") != 0) { fail_msg("BERTUNE_TEST_DEVICE: expected cpu or cuda, found `%s`", name); }
    return DEVICE_CUDA;
}

static void bench_start(Bench *bench, int threads, Precision precision) {
    const DeviceKind kind = device_under_test();
    const char *lack;
    Error error;
    if (device_count(kind, &lack) > 0) { lack = device_lacks(kind, 0, precision); }
    if (lack) {
        print_message("skipped: %s\n", lack);
        skip();
    }
    bench->device = device_open(kind, 0, threads, precision, &error);
    if (!bench->device) { fail_msg("%s", error.text); }
    bench->precision = precision;
    bench->random = 1;
    bench->next_digest = 0;
}

void bench_open(Bench *bench, int threads) {
    *bench = (Bench){.recording = true};
    bench_start(bench, threads, PRECISION_FP32);
}

void bench_clear(Bench *bench) {
    for (int i = 0; i < bench->array_count; i++) {
        device_free(bench->device, bench->arrays[i].device);
        free(bench->arrays[i].host);
    }
    for (int i = 0; i < bench->list_count; i++) { device_free(bench->device, bench->lists[i]); }
    bench->array_count = bench->list_count = 0;
}

void bench_close(Bench *bench) {
    bench_clear(bench);
    device_close(bench->device);
    free(bench->digests);
}

void bench_run(void **state) {
    const BenchTest *test = *state;
    Bench bench = {.recording = true};
    for (int threads = 1; threads <= 3; threads++) {
        bench_start(&bench, threads, test->precision);
        test->run(&bench);
        assert_int_equal(bench.next_digest, bench.digest_count);
        bench.recording = false;
        bench_clear(&bench);
        if (threads < 3) { device_close(bench.device); }
    }
    bench_close(&bench);
}

static Array bench_array(Bench *bench, size_t count) {
    CHECK(bench->array_count < (int)(sizeof bench->arrays / sizeof *bench->arrays));
    Array array = {count, device_alloc(bench->device, count * sizeof(float)), check_calloc(count, sizeof(double))};
    bench->arrays[bench->array_count++] = array;
    return array;
}

Array bench_random(Bench *bench, size_t count, double scale, double offset) {
    Array array = bench_array(bench, count);
    for (size_t i = 0; i < count; i++) { array.host[i] = (float)(offset + scale * ref_random(&bench->random)); }
    bench_upload(bench, array);
    return array;
}

Array bench_fill(Bench *bench, size_t count, double value) {
    Array array = bench_array(bench, count);
    for (size_t i = 0; i < count; i++) { array.host[i] = value; }
    bench_upload(bench, array);
    return array;
}

void *bench_list(Bench *bench, const void *values, size_t count) {
    CHECK(bench->list_count < (int)(sizeof bench->lists / sizeof *bench->lists));
    void *list = device_alloc(bench->device, count * sizeof(int32_t));
    device_upload(bench->device, list, values, count * sizeof(int32_t));
    return bench->lists[bench->list_count++] = list;
}

void bench_upload(Bench *bench, Array array) {
    float *values = check_calloc(array.count, sizeof *values);
    for (size_t i = 0; i < array.count; i++) { values[i] = (float)array.host[i]; }
    device_upload(bench->device, array.device, values, array.count * sizeof *values);
    free(values);
}

float *bench_download(Bench *bench, Array array) {
    float *values = check_calloc(array.count, sizeof *values);
    device_download(bench->device, values, array.device, array.count * sizeof *values);
    return values;
}

// FNV-1a over the bits of the floats.
static uint64_t digest_of(const float *values, size_t count) {
    uint64_t digest = 0xCBF29CE484222325u;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        digest = (digest ^ bits) * 0x100000001B3u;
    }
    return digest;
}

static void compare_threads(Bench *bench, const char *name, const float *values, size_t count) {
    const uint64_t digest = digest_of(values, count);
    if (bench->recording) {
        bench->digests = check_realloc(bench->digests, bench->digest_count + 1, sizeof *bench->digests);
        bench->digests[bench->digest_count++] = digest;
    } else if (bench->next_digest >= bench->digest_count || bench->digests[bench->next_digest] != digest) {
        fail_msg("%s: differs from the first run, now with %d threads", name, device_threads(bench->device));
    }
    bench->next_digest++;
}

void bench_check(Bench *bench, const char *name, Array array, Tolerance tolerance) {
    float *values = bench_download(bench, array);
    ref_check(name, values, array.host, array.count, tolerance);
    compare_threads(bench, name, values, array.count);
    free(values);
}
