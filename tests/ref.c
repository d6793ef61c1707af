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

void ref_layernorm_forward(double *out, double *mean, double *rstd, const double *in, const double *weight,
                           const double *bias, double epsilon, int M, int N) {
    for (int i = 0; i < M; i++) {
        double sum = 0.0, squares = 0.0;
        for (int j = 0; j < N; j++) { sum += in[i * N + j]; }
        mean[i] = sum / N;
        for (int j = 0; j < N; j++) { squares += pow(in[i * N + j] - mean[i], 2.0); }
        rstd[i] = 1.0 / sqrt(squares / N + epsilon);
        for (int j = 0; j < N; j++) { out[i * N + j] = (in[i * N + j] - mean[i]) * rstd[i] * weight[j] + bias[j]; }
    }
}

// With n the normalised line and g = dout * weight: din = rstd * (g - average of g - n * average of g n).
void ref_layernorm_backward(double *din, double *dweight, double *dbias, const double *dout, const double *in,
                            const double *mean, const double *rstd, const double *weight, int M, int N) {
    for (int i = 0; i < M; i++) {
        double average = 0.0, projection = 0.0;
        for (int j = 0; j < N; j++) {
            const double d = dout[i * N + j], n = (in[i * N + j] - mean[i]) * rstd[i];
            dweight[j] += d * n;
            dbias[j] += d;
            average += d * weight[j] / N;
            projection += d * weight[j] * n / N;
        }
        for (int j = 0; j < N; j++) {
            const double n = (in[i * N + j] - mean[i]) * rstd[i];
            din[i * N + j] = rstd[i] * (dout[i * N + j] * weight[j] - average - n * projection);
        }
    }
}

void ref_residual_layernorm_forward(double *out, double *sum, double *mean, double *rstd, const double *in,
                                    const double *residual, const double *weight, const double *bias, double epsilon,
                                    Lines lines, Dropout dropout, int M, int N) {
    ref_dropout_apply(sum, in, lines, dropout, M, N);
    ref_add(sum, residual, (size_t)M * (size_t)N);
    ref_layernorm_forward(out, mean, rstd, sum, weight, bias, epsilon, M, N);
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

void ref_linear_backward(double *din, double *dweight, double *dbias, const double *dout, const double *in,
                         const double *weight, int M, int N, int K) {
    for (int i = 0; din && i < M * K; i++) { din[i] = 0.0; }
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            const double d = dout[i * N + j];
            dbias[j] += d;
            for (int k = 0; k < K; k++) { dweight[j * K + k] += d * in[i * K + k]; }
            for (int k = 0; din && k < K; k++) { din[i * K + k] += d * weight[j * K + k]; }
        }
    }
}

static double normal_cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

void ref_gelu_forward(double *out, const double *in, size_t count) {
    for (size_t i = 0; i < count; i++) { out[i] = in[i] * normal_cdf(in[i]); }
}

void ref_gelu_backward(double *din, const double *dout, const double *in, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const double density = exp(-0.5 * in[i] * in[i]) / sqrt(2.0 * M_PI);
        din[i] = dout[i] * (normal_cdf(in[i]) + in[i] * density);
    }
}

void ref_tanh_forward(double *out, const double *in, size_t count) {
    for (size_t i = 0; i < count; i++) { out[i] = tanh(in[i]); }
}

void ref_tanh_backward(double *din, const double *dout, const double *out, size_t count) {
    for (size_t i = 0; i < count; i++) { din[i] = dout[i] * (1.0 - out[i] * out[i]); }
}

// One query of one head: its place in the arrays and its keys.
typedef struct {
    size_t query, log_sum, out;  // first element of the query, its log sum, first element of its output
    size_t key;                  // first element of the sequence's first key
    int b, head, i, keys;
} Query;

static Query query_at(const AttentionShape *s, int b, int head, int i) {
    const int line = s->query_starts[b] + i, lines = s->query_starts[s->B];
    return (Query){.query = (size_t)(line * s->query_stride + head * s->D),
                   .log_sum = (size_t)(head * lines + line),
                   .out = (size_t)((line * s->A + head) * s->D),
                   .key = (size_t)(s->key_starts[b] * s->key_stride + head * s->D),
                   .b = b,
                   .head = head,
                   .i = i,
                   .keys = s->key_starts[b + 1] - s->key_starts[b]};
}

// Calls visit for every query of every head of every sequence.
static void each_query(const AttentionShape *s, void (*visit)(void *context, Query query), void *context) {
    for (int b = 0; b < s->B; b++) {
        for (int head = 0; head < s->A; head++) {
            for (int i = 0; i < s->query_starts[b + 1] - s->query_starts[b]; i++) {
                visit(context, query_at(s, b, head, i));
            }
        }
    }
}

static double dot(const double *a, const double *b, int D) {
    double sum = 0.0;
    for (int d = 0; d < D; d++) { sum += a[d] * b[d]; }
    return sum;
}

typedef struct {
    double *out, *log_sum, *dq, *dk, *dv;
    const double *dout, *q, *k, *v;
    const AttentionShape *shape;
    Dropout dropout;
    double *probabilities;  // of one query, before dropout
} Attention;

// Fills the probabilities of one query and returns its log sum.
static double softmax(const Attention *a, Query query) {
    const AttentionShape *s = a->shape;
    double *p = a->probabilities, largest = -INFINITY, sum = 0.0;
    for (int j = 0; j < query.keys; j++) {
        p[j] = dot(a->q + query.query, a->k + query.key + (size_t)(j * s->key_stride), s->D) / sqrt(s->D);
        largest = fmax(largest, p[j]);
    }
    for (int j = 0; j < query.keys; j++) { sum += exp(p[j] - largest); }
    for (int j = 0; j < query.keys; j++) { p[j] = exp(p[j] - largest) / sum; }
    return largest + log(sum);
}

static void forward_query(void *context, Query query) {
    const Attention *a = context;
    const AttentionShape *s = a->shape;
    double *out = a->out + query.out;
    a->log_sum[query.log_sum] = softmax(a, query);
    for (int d = 0; d < s->D; d++) { out[d] = 0.0; }
    for (int j = 0; j < query.keys; j++) {
        const double *v = a->v + query.key + (size_t)(j * s->key_stride);
        const double p = a->probabilities[j] * ref_keep_attention(a->dropout, s->rows[query.b], query.head, query.i, j);
        for (int d = 0; d < s->D; d++) { out[d] += p * v[d]; }
    }
}

void ref_attention_forward(double *out, double *log_sum, const double *q, const double *k, const double *v,
                           AttentionShape shape, Dropout dropout) {
    Attention a = {.out = out, .log_sum = log_sum, .q = q, .k = k, .v = v, .shape = &shape, .dropout = dropout};
    a.probabilities = check_calloc((size_t)shape.key_starts[shape.B], sizeof(double));
    each_query(&shape, forward_query, &a);
    free(a.probabilities);
}

// dscore_j = p_j (dp_j - sum over l of p_l dp_l), where dp = keep * (dout . v).
static void backward_query(void *context, Query query) {
    const Attention *a = context;
    const AttentionShape *s = a->shape;
    const double *dout = a->dout + query.out, *q = a->q + query.query, *p = a->probabilities;
    double average = 0.0, *dp = a->probabilities + query.keys;
    softmax(a, query);
    for (int j = 0; j < query.keys; j++) {
        const size_t at = query.key + (size_t)(j * s->key_stride);
        const double kept = ref_keep_attention(a->dropout, s->rows[query.b], query.head, query.i, j);
        for (int d = 0; d < s->D; d++) { a->dv[at + (size_t)d] += p[j] * kept * dout[d]; }
        dp[j] = kept * dot(dout, a->v + at, s->D);
        average += p[j] * dp[j];
    }
    for (int j = 0; j < query.keys; j++) {
        const size_t at = query.key + (size_t)(j * s->key_stride);
        const double dscore = p[j] * (dp[j] - average) / sqrt(s->D);
        for (int d = 0; d < s->D; d++) {
            a->dq[query.query + (size_t)d] += dscore * a->k[at + (size_t)d];
            a->dk[at + (size_t)d] += dscore * q[d];
        }
    }
}

static void zero_lines(double *lines, int count, int stride, int width) {
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < width; j++) { lines[i * stride + j] = 0.0; }
    }
}

// out and log_sum are not needed: the probabilities are computed again in full.
void ref_attention_backward(double *dq, double *dk, double *dv, const double *dout, const double *out,
                            const double *log_sum, const double *q, const double *k, const double *v,
                            AttentionShape shape, Dropout dropout) {
    (void)out, (void)log_sum;
    const int queries = shape.query_starts[shape.B], keys = shape.key_starts[shape.B], H = shape.A * shape.D;
    zero_lines(dq, queries, shape.query_stride, H);
    zero_lines(dk, keys, shape.key_stride, H);
    zero_lines(dv, keys, shape.key_stride, H);
    Attention a = {.dq = dq, .dk = dk, .dv = dv, .dout = dout, .q = q, .k = k, .v = v, .shape = &shape};
    a.dropout = dropout;
    a.probabilities = check_calloc(2 * (size_t)keys, sizeof(double));
    each_query(&shape, backward_query, &a);
    free(a.probabilities);
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

static void bench_start(Bench *bench, int threads) {
    bench->device = device_open(threads);
    bench->random = 1;
    bench->next_digest = 0;
}

void bench_open(Bench *bench, int threads) {
    *bench = (Bench){.recording = true};
    bench_start(bench, threads);
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
        bench_start(&bench, threads);
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
        fail_msg("%s: differs with %d threads", name, device_threads(bench->device));
    }
    bench->next_digest++;
}

void bench_check_rounded(Bench *bench, const char *name, Array array, Tolerance tolerance) {
    float *values = bench_download(bench, array);
    ref_check(name, values, array.host, array.count, tolerance);
    free(values);
}

void bench_check(Bench *bench, const char *name, Array array, Tolerance tolerance) {
    bench_check_rounded(bench, name, array, tolerance);
    float *values = bench_download(bench, array);
    compare_threads(bench, name, values, array.count);
    free(values);
}
