// Fully connected layers, alone and fused with the GELU between the two of a feed-forward network.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vecmath.h"

static void layer_product(Device *device, Product product) {
    CpuDevice *cpu = cpu_device(device);
    device_product(cpu, cpu->kernels, product);
}

// The worker's lines of in weight^T + bias.
static Product forward_product(float *out, const float *in, const float *weight, const float *bias, Extent M, int N,
                               int K) {
    const size_t width = (size_t)N, depth = (size_t)K;
    const Range lines = own_share(count_of(M), 1);
    return (Product){.out = out + lines.begin * width,
                     .out_line = width,
                     .add = bias,
                     .a = in + lines.begin * depth,
                     .a_line = depth,
                     .a_step = 1,
                     .b = weight,
                     .b_step = 1,
                     .b_column = depth,
                     .M = lines.end - lines.begin,
                     .N = width,
                     .K = depth};
}

void cpu_linear_forward(Device *device, float *out, const float *in, const float *weight, const float *bias, Extent M,
                        int N, int K) {
    layer_product(device, forward_product(out, in, weight, bias, M, N, K));
}

static MULTIVERSION void gelu_tile(float *out, size_t stride, size_t lines, size_t columns) {
    for (size_t i = 0; i < lines; i++, out += stride) {
#pragma omp simd
        for (size_t j = 0; j < columns; j++) { out[j] *= fast_normal(out[j]).below; }
    }
}

// d/dx x Phi(x) = Phi(x) + x phi(x).
static MULTIVERSION void gelu_derivative_tile(float *restrict out, float *restrict derivative, size_t stride,
                                              size_t lines, size_t columns) {
    for (size_t i = 0; i < lines; i++, out += stride, derivative += stride) {
#pragma omp simd
        for (size_t j = 0; j < columns; j++) {
            const float x = out[j];
            const Normal normal = fast_normal(x);
            derivative[j] = normal.below + x * normal.density;
            out[j] = x * normal.below;
        }
    }
}

// The derivative goes to the operand, if there is one.
static void finish_gelu(const Product *p, size_t line, size_t column, size_t lines, size_t columns) {
    const size_t at = line * p->out_line + column;
    if (p->finish_operand) {
        gelu_derivative_tile(p->out + at, p->finish_operand + at, p->out_line, lines, columns);
    } else {
        gelu_tile(p->out + at, p->out_line, lines, columns);
    }
}

void cpu_linear_gelu_forward(Device *device, float *out, float *derivative, const float *in, const float *weight,
                             const float *bias, Extent M, int N, int K) {
    Product product = forward_product(out, in, weight, bias, M, N, K);
    product.finish = finish_gelu;
    product.finish_operand = derivative ? derivative + (product.out - out) : NULL;
    layer_product(device, product);
}

// The worker's lines of dout weight.
static Product backward_product(float *din, const float *dout, const float *weight, Extent M, int N, int K) {
    const size_t width = (size_t)N, depth = (size_t)K;
    const Range lines = own_share(count_of(M), 1);
    return (Product){.out = din + lines.begin * depth,
                     .out_line = depth,
                     .a = dout + lines.begin * width,
                     .a_line = width,
                     .a_step = 1,
                     .b = weight,
                     .b_step = depth,
                     .b_column = 1,
                     .M = lines.end - lines.begin,
                     .N = depth,
                     .K = width};
}

void cpu_linear_backward_input(Device *device, float *din, const float *dout, const float *weight,
                               const float *residual, Extent M, int N, int K) {
    Product product = backward_product(din, dout, weight, M, N, K);
    product.add = residual ? residual + (product.out - din) : NULL;
    product.add_line = product.out_line;
    layer_product(device, product);
}

static MULTIVERSION void multiply_tile(float *restrict out, const float *restrict factor, size_t stride, size_t lines,
                                       size_t columns) {
    for (size_t i = 0; i < lines; i++, out += stride, factor += stride) {
#pragma omp simd
        for (size_t j = 0; j < columns; j++) { out[j] *= factor[j]; }
    }
}

static void finish_multiply(const Product *p, size_t line, size_t column, size_t lines, size_t columns) {
    const size_t at = line * p->out_line + column;
    multiply_tile(p->out + at, p->finish_operand + at, p->out_line, lines, columns);
}

void cpu_linear_gelu_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                    const float *derivative, Extent M, int N, int K) {
    Product product = backward_product(din, dout, weight, M, N, K);
    product.finish = finish_multiply;
    product.finish_operand = (float *)(derivative + (product.out - din));
    layer_product(device, product);
}

static MULTIVERSION void column_sums(float *sums, const float *in, Range columns, size_t M, size_t N) {
    for (size_t i = 0; i < M; i++) {
#pragma omp simd
        for (size_t j = columns.begin; j < columns.end; j++) { sums[j] += in[i * N + j]; }
    }
}

void cpu_linear_backward_weight(Device *device, float *dweight, float *dbias, const float *dout, const float *in,
                                bool accumulate, Extent M, int N, int K) {
    const size_t width = (size_t)N, depth = (size_t)K;
    const Range outputs = own_share(width, 1);
    const Product product = {.out = dweight + outputs.begin * depth,
                             .out_line = depth,
                             .add = accumulate ? dweight + outputs.begin * depth : NULL,
                             .add_line = depth,
                             .a = dout + outputs.begin,
                             .a_line = 1,
                             .a_step = width,
                             .b = in,
                             .b_step = depth,
                             .b_column = 1,
                             .M = outputs.end - outputs.begin,
                             .N = depth,
                             .K = count_of(M)};
    layer_product(device, product);
    if (!accumulate) {
        for (size_t j = outputs.begin; j < outputs.end; j++) { dbias[j] = 0.0f; }
    }
    column_sums(dbias, dout, outputs, count_of(M), width);
}
