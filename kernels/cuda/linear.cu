// Linear layers, alone and fused with the GELU between the two of a feed-forward network, as matrix products with
// something to finish them; few outputs are a step of a line program instead.
#include "kernels/cuda/linear.cuh"

template <typename T>
static bool fills(const CudaDevice *device, const Linear &linear) {
    const size_t blocks = static_cast<size_t>(blocks_for(static_cast<size_t>(linear.M.most), T::M)) *
                          blocks_for(static_cast<size_t>(linear.N), T::N);
    return 2 * blocks >= static_cast<size_t>(device->info.multiprocessors);
}

// The largest tile that gives every second multiprocessor a block: small batches are bound by latency, not by
// arithmetic.
static TileSize choose_tile(const CudaDevice *device, const Linear &linear) {
    const size_t limit = device->shared_limit;
    if (device->precision != PRECISION_FP32 && fills<HugeTile>(device, linear) &&
        TileProduct<HugeTile, PRECISION_TF32, true, false, false>::SHARED <= limit) {
        return TILE_HUGE;
    }
    const bool large =
        fills<LargeTile>(device, linear) && TileProduct<LargeTile, PRECISION_TF32, true, false, false>::SHARED <= limit;
    return large ? TILE_LARGE : TILE_SMALL;
}

// Many blocks would all run the program of few lines: huge tiles leave it to a launch of its own.
static bool takes_lines(const CudaDevice *device, const Linear &linear, TileSize size) {
    const size_t shared = size == TILE_SMALL ? linear_shared<SmallTile, PRECISION_BF16, true>(linear.K)
                                             : linear_shared<LargeTile, PRECISION_BF16, true>(linear.K);
    return size != TILE_HUGE && shared <= device->shared_limit;
}

static void launch(CudaDevice *device, const float *in, const Linear &linear, bool b_inner) {
    LineProgram program;
    const float *const others[2] = {linear.finish.add, linear.finish.factor};
    const TileSize size = choose_tile(device, linear);
    if (!takes_lines(device, linear, size)) { lines_flush(device); }
    const bool taken = lines_take(device, &program, in, linear.M, linear.K, linear.finish.out, others);
    const LineProgram *first = taken ? &program : NULL;
    switch (device->precision) {
        case PRECISION_FP32:
            linear_launch_fp32(device, first, linear, b_inner, size);
            break;
        case PRECISION_TF32:
            linear_launch_tf32(device, first, linear, b_inner, size);
            break;
        case PRECISION_BF16:
            linear_launch_bf16(device, first, linear, b_inner, size);
            break;
    }
    cuda_settle(device);
}

// out (M, N) = in weight^T; without in where a line program makes it.
static Linear forward_product(float *out, const float *in, const float *weight, const float *bias, Extent M, int N,
                              int K) {
    Linear linear = {operand(in, static_cast<size_t>(K)), operand(weight, static_cast<size_t>(K)), M, N, K, {}};
    linear.finish.out = out;
    linear.finish.bias = bias;
    return linear;
}

// Few outputs, as of a classifier: a step of a line program.
static void small_forward(CudaDevice *device, float *out, const float *in, const float *weight, const float *bias,
                          Extent M, int N, int K) {
    LineProgram *program = lines_continue(device, in, false, M, K, 1);
    LineStep *step = lines_add(program, LINE_LINEAR_SMALL);
    step->classes = N;
    step->rounded = device->precision == PRECISION_BF16;
    step->in[0] = weight;
    step->in[1] = bias;
    step->out[0] = out;
    program->last = out;
    program->last_small = true;
    cuda_settle(device);
}

void cuda_linear_forward(Device *device, float *out, const float *in, const float *weight, const float *bias, Extent M,
                         int N, int K) {
    if (N <= LINE_SMALL) {
        small_forward(cuda_device(device), out, in, weight, bias, M, N, K);
    } else {
        launch(cuda_device(device), in, forward_product(out, in, weight, bias, M, N, K), true);
    }
}

void cuda_linear_gelu_forward(Device *device, float *out, float *derivative, const float *in, const float *weight,
                              const float *bias, Extent M, int N, int K) {
    Linear linear = forward_product(out, in, weight, bias, M, N, K);
    linear.finish.gelu = true;
    linear.finish.derivative = derivative;
    launch(cuda_device(device), in, linear, true);
}

// din (M, K) = dout weight: in the letters of a product, K outputs and N depths.
static Linear backward_product(float *din, const float *dout, const float *weight, Extent M, int N, int K) {
    Linear linear = {operand(dout, static_cast<size_t>(N)), operand(weight, static_cast<size_t>(K)), M, K, N, {}};
    linear.finish.out = din;
    return linear;
}

static void small_backward(CudaDevice *device, float *din, const float *dout, const float *weight, Extent M, int N,
                           int K) {
    LineProgram *program = lines_continue(device, dout, true, M, N, 2);
    program->N = K;
    LineStep *step = lines_add(program, LINE_BACKWARD_SMALL);
    step->classes = N;
    step->rounded = device->precision == PRECISION_BF16;
    step->in[0] = weight;
    lines_store(program, din);
    cuda_settle(device);
}

void cuda_linear_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                const float *residual, Extent M, int N, int K) {
    if (N <= LINE_SMALL && !residual) {
        small_backward(cuda_device(device), din, dout, weight, M, N, K);
        return;
    }
    Linear linear = backward_product(din, dout, weight, M, N, K);
    linear.finish.add = residual;
    launch(cuda_device(device), dout, linear, false);
}

void cuda_linear_gelu_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                     const float *derivative, Extent M, int N, int K) {
    Linear linear = backward_product(din, dout, weight, M, N, K);
    linear.finish.factor = derivative;
    launch(cuda_device(device), dout, linear, false);
}
