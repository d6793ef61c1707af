// What a recorded step does besides forward and backward: it takes its batch from those of the whole run, clips and
// updates without asking the host, and leaves its figures for it.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/update.cuh"
#include "kernels/cuda/warp.cuh"

enum { STEP_THREADS = 256, UPDATE_EACH = 4 };  // elements of a thread in an update

typedef struct {
    Step *step;
    BatchArrays batch, batches;
    const Step *steps;
    const int32_t *next;
} Take;

__global__ void __launch_bounds__(STEP_THREADS) take_kernel(const Take take) {
    const int32_t index = *take.next;
    const Step step = take.steps[index];
    const BatchArrays &to = take.batch, &from = take.batches;
    const int i = static_cast<int>(blockIdx.x * STEP_THREADS + threadIdx.x);
    if (i < step.tokens) {
        const int32_t id = from.ids[step.first_token + i], position = from.positions[step.first_token + i];
        const uint32_t row = from.rows[step.first_token + i];
        to.ids[i] = id;
        to.positions[i] = position;
        to.rows[i] = row;
    }
    if (i < step.sequences) {
        const int32_t start = from.starts[step.first_sequence + index + i],
                      label = from.labels[step.first_sequence + i];
        const uint32_t row = from.sequence_rows[step.first_sequence + i];
        to.starts[i] = start;
        to.labels[i] = label;
        to.sequence_rows[i] = row;
    }
    if (i == 0) {
        to.starts[step.sequences] = step.tokens;
        *take.step = step;
    }
}

void cuda_step_take(Device *device, Step *step, BatchArrays batch, const Step *steps, BatchArrays batches,
                    const int32_t *next, Extent T) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const Take take = {step, batch, batches, steps, next};
    cuda_launch(cuda, take_kernel, dim3(blocks_for(static_cast<size_t>(T.most), STEP_THREADS)), STEP_THREADS, 0, take);
}

// The block's sum of the threads' values, in an order that depends on their number alone.
__device__ static double block_sum(double value) {
    __shared__ double parts[STEP_THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = STEP_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) { parts[threadIdx.x] += parts[threadIdx.x + half]; }
        __syncthreads();
    }
    return parts[0];
}

typedef struct {
    double *sums;
    const float *in, *losses;
    size_t count;
    Extent B;  // of the losses, for the last block; most is 0 without losses
} SumsOf;

__global__ void __launch_bounds__(STEP_THREADS) sums_kernel(const SumsOf s) {
    const size_t begin = static_cast<size_t>(blockIdx.x) * SQUARE_BLOCK, all = s.count;
    double sum = 0.0;
    if (begin < all) {
        const size_t end = begin + SQUARE_BLOCK < all ? begin + SQUARE_BLOCK : all;
#pragma unroll 8
        for (size_t i = begin + threadIdx.x; i < end; i += STEP_THREADS) {
            sum += static_cast<double>(s.in[i]) * static_cast<double>(s.in[i]);
        }
    } else {
        const int B = extent_now(s.B);
        for (int b = static_cast<int>(threadIdx.x); b < B; b += STEP_THREADS) {
            sum += static_cast<double>(s.losses[b]);
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) { s.sums[blockIdx.x] = sum; }
}

static void launch_sums(CudaDevice *device, const SumsOf &sums, unsigned extra) {
    cuda_flush(device);
    cuda_launch(device, sums_kernel, dim3(blocks_for(sums.count, SQUARE_BLOCK) + extra), STEP_THREADS, 0, sums);
}

void cuda_step_sums(Device *device, double *sums, const float *in, size_t count, const float *losses, Extent B) {
    const SumsOf all = {sums, in, losses, count, B};
    launch_sums(cuda_device(device), all, 1);
}

void cuda_square_sums(Device *device, double *sums, const float *in, size_t count) {
    const size_t bytes = square_blocks(count) * sizeof *sums;
    double *work = static_cast<double *>(cuda_work(cuda_device(device), WORK_SQUARES, bytes));
    const SumsOf squares = {work, in, NULL, count, {0, NULL}};
    launch_sums(cuda_device(device), squares, 0);
    cuda_device_download(device, sums, work, bytes);
}

// The sum of the sums, by all threads of a block.
__device__ static double total_of(const double *sums, size_t count) {
    double sum = 0.0;
    for (size_t i = threadIdx.x; i < count; i += STEP_THREADS) { sum += sums[i]; }
    return block_sum(sum);
}

typedef struct {
    Weights weights;
    const Step *step;
    const double *sums;
    size_t blocks, count;
    float max_norm;
    const int32_t *halted;
    bool decay;
} Update;

__global__ void __launch_bounds__(STEP_THREADS) step_adamw_kernel(const Update u) {
    const double norm = sqrt(total_of(u.sums, u.blocks));
    if (*u.halted || !isfinite(norm) || !isfinite(u.sums[u.blocks])) { return; }
    AdamW adamw = u.step->adamw;
    if (u.max_norm > 0.0f) {
        const double scale = static_cast<double>(u.max_norm) / (norm + 1e-6);
        adamw.gradient_scale = scale < 1.0 ? static_cast<float>(scale) : 1.0f;
    }
    if (!u.decay) { adamw.decay = 1.0f; }
    const size_t stride = static_cast<size_t>(gridDim.x) * STEP_THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * STEP_THREADS + threadIdx.x; i < u.count;
         i += UPDATE_EACH * stride) {
        update_some<UPDATE_EACH>(u.weights, i, stride, u.count, adamw);
    }
}

void cuda_step_adamw(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                     const Step *step, const double *sums, size_t blocks, float max_norm, const int32_t *halted,
                     bool decay, size_t count) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const Update update = {
        {weight, first_moment, second_moment, gradient}, step, sums, blocks, count, max_norm, halted, decay};
    // Each block adds up all sums: few blocks.
    const unsigned needed = blocks_for(count, STEP_THREADS * UPDATE_EACH);
    const unsigned most = 16 * static_cast<unsigned>(cuda->info.multiprocessors);
    cuda_launch(cuda, step_adamw_kernel, dim3(needed < most ? needed : most), STEP_THREADS, 0, update);
}

typedef struct {
    StepSums *results;
    int32_t *halted, *next;
    const double *sums;
    size_t blocks;
} End;

__global__ void __launch_bounds__(STEP_THREADS) end_kernel(const End end) {
    const double squares = total_of(end.sums, end.blocks), loss = end.sums[end.blocks];
    if (threadIdx.x != 0) { return; }
    const StepSums result = {loss, squares};
    end.results[*end.next] = result;
    *end.next += 1;
    if (!isfinite(loss) || !isfinite(squares)) { *end.halted = 1; }
}

void cuda_step_end(Device *device, StepSums *results, int32_t *halted, int32_t *next, const double *sums,
                   size_t blocks) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const End end = {results, halted, next, sums, blocks};
    cuda_launch(cuda, end_kernel, dim3(1), STEP_THREADS, 0, end);
}
