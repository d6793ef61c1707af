// Layer normalisation, alone and behind dropout and a residual connection. The parameters' gradients are summed in a
// second pass over column slices, so that they do not depend on the number of threads.
#include <math.h>

#include "kernels/cpu/cpu.h"

static MULTIVERSION void forward_lines(float *out, float *mean, float *rstd, const float *in, const float *weight,
                                       const float *bias, float epsilon, Range lines, size_t N) {
    for (size_t i = lines.begin; i < lines.end; i++) {
        const float *x = in + i * N;
        float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < N; j++) { sum += x[j]; }
        const float m = sum / (float)N;
#pragma omp simd reduction(+ : squares)
        for (size_t j = 0; j < N; j++) { squares += (x[j] - m) * (x[j] - m); }
        const float r = 1.0f / sqrtf(squares / (float)N + epsilon);
#pragma omp simd
        for (size_t j = 0; j < N; j++) { out[i * N + j] = (x[j] - m) * r * weight[j] + bias[j]; }
        mean[i] = m;
        rstd[i] = r;
    }
}

void layernorm_forward(Device *device, float *out, float *mean, float *rstd, const float *in, const float *weight,
                       const float *bias, float epsilon, int M, int N) {
    FOR_RANGES(device, (size_t)M, 1) forward_lines(out, mean, rstd, in, weight, bias, epsilon, range, (size_t)N);
}

static MULTIVERSION void backward_lines(float *din, const float *dout, const float *in, const float *mean,
                                        const float *rstd, const float *weight, Range lines, size_t N) {
    for (size_t i = lines.begin; i < lines.end; i++) {
        const float *x = in + i * N, *d = dout + i * N;
        const float m = mean[i], r = rstd[i];
        float sum = 0.0f, projection = 0.0f;
#pragma omp simd reduction(+ : sum, projection)
        for (size_t j = 0; j < N; j++) {
            sum += d[j] * weight[j];
            projection += d[j] * weight[j] * ((x[j] - m) * r);
        }
        sum /= (float)N;
        projection /= (float)N;
#pragma omp simd
        for (size_t j = 0; j < N; j++) { din[i * N + j] = (d[j] * weight[j] - sum - (x[j] - m) * r * projection) * r; }
    }
}

static MULTIVERSION void backward_columns(float *dweight, float *dbias, const float *dout, const float *in,
                                          const float *mean, const float *rstd, Range columns, size_t M, size_t N) {
    for (size_t i = 0; i < M; i++) {
        const float *x = in + i * N, *d = dout + i * N;
        const float m = mean[i], r = rstd[i];
#pragma omp simd
        for (size_t j = columns.begin; j < columns.end; j++) {
            dweight[j] += d[j] * ((x[j] - m) * r);
            dbias[j] += d[j];
        }
    }
}

void layernorm_backward(Device *device, float *din, float *dweight, float *dbias, const float *dout, const float *in,
                        const float *mean, const float *rstd, const float *weight, int M, int N) {
    FOR_RANGES(device, (size_t)N, 16)
    backward_columns(dweight, dbias, dout, in, mean, rstd, range, (size_t)M, (size_t)N);
    FOR_RANGES(device, (size_t)M, 1) backward_lines(din, dout, in, mean, rstd, weight, range, (size_t)N);
}

void residual_layernorm_forward(Device *device, float *out, float *sum, float *mean, float *rstd, const float *in,
                                const float *residual, const float *weight, const float *bias, float epsilon,
                                Lines lines, Dropout dropout, int M, int N) {
    dropout_apply(device, sum, in, lines, dropout, M, N);
    add(device, sum, residual, (size_t)M * (size_t)N);
    layernorm_forward(device, out, mean, rstd, sum, weight, bias, epsilon, M, N);
}
