// Fully connected layers: oneDNN's sgemm (row-major, threads by OpenMP) and the bias.
#include <dnnl.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

// C (M, N) = op(A) op(B) + beta C.
static void product(char transpose_a, char transpose_b, int M, int N, int K, const float *A, int lda, const float *B,
                    int ldb, float beta, float *C) {
    if (M == 0 || N == 0) { return; }
    dnnl_status_t status = dnnl_sgemm(transpose_a, transpose_b, M, N, K, 1.0f, A, lda, B, ldb, beta, C, N);
    if (status != dnnl_success) { die(EX_SOFTWARE, "dnnl_sgemm(%d, %d, %d): status %d", M, N, K, (int)status); }
}

void linear_forward(Device *device, float *out, const float *in, const float *weight, const float *bias, int M, int N,
                    int K) {
    FOR_RANGES(device, (size_t)M, 1) for (size_t i = range.begin; i < range.end; i++) {
        memcpy(out + i * (size_t)N, bias, (size_t)N * sizeof(float));
    }
    product('N', 'T', M, N, K, in, K, weight, K, 1.0f, out);
}

static MULTIVERSION void column_sums(float *sums, const float *in, Range columns, size_t M, size_t N) {
    for (size_t i = 0; i < M; i++) {
#pragma omp simd
        for (size_t j = columns.begin; j < columns.end; j++) { sums[j] += in[i * N + j]; }
    }
}

void linear_backward(Device *device, float *din, float *dweight, float *dbias, const float *dout, const float *in,
                     const float *weight, int M, int N, int K) {
    product('T', 'N', N, K, M, dout, N, in, K, 1.0f, dweight);
    FOR_RANGES(device, (size_t)N, 16) column_sums(dbias, dout, range, (size_t)M, (size_t)N);
    if (din) { product('N', 'N', M, K, N, dout, N, weight, K, 0.0f, din); }
}
