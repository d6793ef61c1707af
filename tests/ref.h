// The referee of the kernels: every operation of kernels/kernels.h again, naive and in double, and the bench on which
// the tests run a kernel with one, two and three threads beside it. Shapes and argument order are those of kernels.h;
// a gradient is added to or written as there. Nothing here is fast, vectorised or shared with the kernels, except the
// generator of random bits in kernels/philox.h, which has known answers of its own.
#ifndef BERTUNE_REF_H
#define BERTUNE_REF_H

#include "kernels/kernels.h"

// 0, or 1 / (1 - probability), for element h of a line of N; and for query i, key j of a head.
double ref_keep_hidden(Dropout dropout, uint32_t row, int32_t position, int h, int N);
double ref_keep_attention(Dropout dropout, uint32_t row, int head, int i, int j);

void ref_embedding_forward(double *out, const double *word, const double *position, const double *type,
                           const int32_t *ids, const int32_t *positions, int T, int H);
void ref_embedding_backward(double *dword, double *dposition, double *dtype, const double *dout, const int32_t *ids,
                            const int32_t *positions, int padding, int T, int H);

void ref_dropout_apply(double *out, const double *in, Lines lines, Dropout dropout, int M, int N);

void ref_layernorm_forward(double *out, double *normalized, double *rstd, const double *in, const double *weight,
                           const double *bias, double epsilon, int M, int N);
void ref_residual_layernorm_forward(double *out, double *normalized, double *rstd, const double *in,
                                    const double *residual, const double *weight, const double *bias, double epsilon,
                                    Lines lines, Dropout dropout, int M, int N);
void ref_layernorm_backward_input(double *din, const double *dout, const double *normalized, const double *rstd,
                                  const double *weight, int M, int N);
void ref_layernorm_backward_parameters(double *dweight, double *dbias, const double *dout, const double *normalized,
                                       bool accumulate, int M, int N);

void ref_linear_forward(double *out, const double *in, const double *weight, const double *bias, int M, int N, int K);
void ref_linear_gelu_forward(double *out, double *derivative, const double *in, const double *weight,
                             const double *bias, int M, int N, int K);
void ref_linear_backward_input(double *din, const double *dout, const double *weight, const double *residual, int M,
                               int N, int K);
void ref_linear_gelu_backward_input(double *din, const double *dout, const double *weight, const double *derivative,
                                    int M, int N, int K);
void ref_linear_backward_weight(double *dweight, double *dbias, const double *dout, const double *in, bool accumulate,
                                int M, int N, int K);

void ref_tanh_forward(double *out, const double *in, int M, int N);
void ref_tanh_backward(double *din, const double *dout, const double *out, int M, int N);

void ref_attention_forward(double *out, double *log_sum, const double *qkv, Sequences sequences, Dropout dropout);
void ref_attention_backward(double *dqkv, const double *dout, const double *qkv, Sequences sequences, Dropout dropout);

// Plainly: keys and values are computed for every line of x, with the bias of the keys that the kernels leave out.
typedef struct {
    const double *key_weight, *key_bias, *value_weight, *value_bias;
} RefProjections;
typedef struct {
    double *key_weight, *key_bias, *value_weight, *value_bias;
} RefProjectionGradients;
void ref_cls_attention_forward(double *context, const double *q, const double *x, RefProjections projections,
                               Sequences sequences, Dropout dropout);
void ref_cls_attention_backward(double *dq, double *dx, RefProjectionGradients gradients, const double *dcontext,
                                const double *q, const double *x, RefProjections projections, bool accumulate,
                                Sequences sequences, Dropout dropout);

void ref_cross_entropy(double *losses, double *dlogits, const double *logits, const int32_t *labels, double scale,
                       int B, int C);

void ref_gather_lines(double *out, const double *in, const int32_t *lines, int M, int N);
void ref_scatter_add_lines(double *out, const double *in, const int32_t *lines, int M, int N);
void ref_add(double *out, const double *in, size_t count);
double ref_square_sum(const double *in, size_t count);
void ref_adamw_update(double *weight, double *first_moment, double *second_moment, const double *gradient, AdamW adamw,
                      size_t count);

// How far a float may lie from the referee's double: absolute + relative * |expected|.
typedef struct {
    double relative, absolute;
} Tolerance;

// Fails the test, naming the first element out of tolerance and how many there are. Not-a-number on either side fails.
void ref_check(const char *name, const float *actual, const double *expected, size_t count, Tolerance tolerance);

// Distance of two floats of one sign in units of the last place; huge when the signs differ or one is not-a-number.
int64_t ref_ulps(float a, float b);

// Uniform in -1 .. 1 and exact in float; the whole stream follows from the initial state.
double ref_random(uint64_t *state);

// The nearest bfloat16, of two equally near ones the even.
double ref_bfloat16(double value);

// One array twice: in device memory, and in double for the referee. Both hold the same values until an operation runs.
typedef struct {
    size_t count;
    float *device;
    double *host;
} Array;

// A device with one number of threads, and what the operations gave with the first number. The kind of device is that
// of the environment variable BERTUNE_TEST_DEVICE, cpu (unless it is set) or cuda; a GPU always has the one worker.
typedef struct {
    Device *device;
    Precision precision;
    uint64_t random;
    Array arrays[64];
    void *lists[16];
    int array_count, list_count;
    uint64_t *digests;  // of every output checked so far
    size_t digest_count, next_digest;
    bool recording;
} Bench;

// Runs the operation, or several with `;` between, on all workers of the bench's device: of the CPU as device_run does,
// of a GPU as outside of device_run, one operation at a time.
#define ON_WORKERS(bench, ...) \
    REF_PRAGMA(omp parallel num_threads(device_threads((bench)->device))) { __VA_ARGS__; }
#define REF_PRAGMA(...) _Pragma(#__VA_ARGS__)

// A CMocka test that calls function(bench) with 1, 2 and 3 threads, of a GPU three times; checked outputs must agree
// bit for bit. It is skipped where there is no such device or it lacks the precision.
#define BENCH_TEST_WITH(function, precision)                                                  \
    {                                                                                         \
#function " " #precision, bench_run, NULL, NULL, &(BenchTest) { function, precision } \
    }
#define BENCH_TEST(function) BENCH_TEST_WITH(function, PRECISION_FP32)
typedef struct {
    void (*run)(Bench *bench);
    Precision precision;
} BenchTest;
void bench_run(void **state);

// The bench for tests that need no comparison of threads; skips the test where there is no such device.
void bench_open(Bench *bench, int threads);
void bench_close(Bench *bench);

// Frees the arrays and lists made so far, so that a test can go through many shapes.
void bench_clear(Bench *bench);

// Random elements in -scale .. scale plus offset; or all of one value, for example NAN to see that it is overwritten.
Array bench_random(Bench *bench, size_t count, double scale, double offset);
Array bench_fill(Bench *bench, size_t count, double value);

// A copy of count 32-bit integers in device memory.
void *bench_list(Bench *bench, const void *values, size_t count);

// Copies host to device, rounded to float, after a test changed it.
void bench_upload(Bench *bench, Array array);
// The device's floats; free them.
float *bench_download(Bench *bench, Array array);

// The device's elements against the referee's, and bit for bit against the first run.
void bench_check(Bench *bench, const char *name, Array array, Tolerance tolerance);

#endif
