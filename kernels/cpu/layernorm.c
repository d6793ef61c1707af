// Layer normalisation, alone and behind dropout and a residual connection. The parameters' gradients are summed over
// column slices, so that they do not depend on the number of workers.
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dropout.h"

static MULTIVERSION void forward_line(float *out, float *normalized, float *rstd, const float *x, const float *weight,
                                      const float *bias, float epsilon, size_t N) {
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < N; j++) { sum += x[j]; }
    const float m = sum / (float)N;
#pragma omp simd reduction(+ : squares)
    for (size_t j = 0; j < N; j++) { squares += (x[j] - m) * (x[j] - m); }
    const float r = 1.0f / sqrtf(squares / (float)N + epsilon);
#pragma omp simd
    for (size_t j = 0; j < N; j++) {
        const float n = (x[j] - m) * r;
        normalized[j] = n;
        out[j] = n * weight[j] + bias[j];
    }
    *rstd = r;
}

void cpu_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                           const float *weight, const float *bias, float epsilon, Extent M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    const Range lines = own_share(count_of(M), 1);
    for (size_t i = lines.begin; i < lines.end; i++) {
        forward_line(out + i * width, normalized + i * width, rstd + i, in + i * width, weight, bias, epsilon, width);
    }
}

static MULTIVERSION void add_line(float *restrict out, const float *restrict in, size_t N) {
#pragma omp simd
    for (size_t j = 0; j < N; j++) { out[j] += in[j]; }
}

void cpu_residual_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                                    const float *residual, const float *weight, const float *bias, float epsilon,
                                    Lines lines, Dropout dropout, Extent M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    const Range range = own_share(count_of(M), 1);
    for (size_t i = range.begin; i < range.end; i++) {
        float *sum = normalized + i * width;
        dropout_line(sum, in + i * width, lines.rows[i], lines.positions[i], dropout, width);
        add_line(sum, residual + i * width, width);
        forward_line(out + i * width, sum, rstd + i, sum, weight, bias, epsilon, width);
    }
}

static MULTIVERSION void backward_lines(float *din, const float *dout, const float *normalized, const float *rstd,
                                        const float *weight, Range lines, size_t N) {
    for (size_t i = lines.begin; i < lines.end; i++) {
        const float *n = normalized + i * N, *d = dout + i * N;
        const float r = rstd[i];
        float sum = 0.0f, projection = 0.0f;
#pragma omp simd reduction(+ : sum, projection)
        for (size_t j = 0; j < N; j++) {
            sum += d[j] * weight[j];
            projection += d[j] * weight[j] * n[j];
        }
        sum /= (float)N;
        projection /= (float)N;
#pragma omp simd
        for (size_t j = 0; j < N; j++) { din[i * N + j] = (d[j] * weight[j] - sum - n[j] * projection) * r; }
    }
}

void cpu_layernorm_backward_input(Device *device, float *din, const float *dout, const float *normalized,
                                  const float *rstd, const float *weight, Extent M, int N) {
    (void)device;
    backward_lines(din, dout, normalized, rstd, weight, own_share(count_of(M), 1), (size_t)N);
}

static MULTIVERSION void parameter_columns(float *dweight, float *dbias, const float *dout, const float *normalized,
                                           Range columns, size_t M, size_t N) {
    for (size_t i = 0; i < M; i++) {
        const float *n = normalized + i * N, *d = dout + i * N;
#pragma omp simd
        for (size_t j = columns.begin; j < columns.end; j++) {
            dweight[j] += d[j] * n[j];
            dbias[j] += d[j];
        }
    }
}

void cpu_layernorm_backward_parameters(Device *device, float *dweight, float *dbias, const float *dout,
                                       const float *normalized, bool accumulate, Extent M, int N) {
    (void)device;
    const Range columns = own_share((size_t)N, 1);
    if (!accumulate) {
        memset(dweight + columns.begin, 0, (columns.end - columns.begin) * sizeof *dweight);
        memset(dbias + columns.begin, 0, (columns.end - columns.begin) * sizeof *dbias);
    }
    parameter_columns(dweight, dbias, dout, normalized, columns, count_of(M), (size_t)N);
}
