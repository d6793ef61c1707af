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
    int32_t *next;
} Take;

template <typename X>
__device__ static void copy_part(X *to, const X *from, int count) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += STEP_THREADS) { to[i] = from[i]; }
}

// One block, since it counts on what all read.
__global__ void __launch_bounds__(STEP_THREADS) take_kernel(const Take take) {
    const int32_t index = *take.next;
    const Step step = take.steps[index];
    const BatchArrays &to = take.batch, &from = take.batches;
    copy_part(to.ids, from.ids + step.first_token, step.tokens);
    copy_part(to.positions, from.positions + step.first_token, step.tokens);
    copy_part(to.rows, from.rows + step.first_token, step.tokens);
    copy_part(to.starts, from.starts + step.first_sequence + index, step.sequences + 1);
    copy_part(to.labels, from.labels + step.first_sequence, step.sequences);
    copy_part(to.sequence_rows, from.sequence_rows + step.first_sequence, step.sequences);
    __syncthreads();
    if (threadIdx.x == 0) {
        *take.step = step;
        *take.next = index + 1;
    }
}

void cuda_step_take(Device *device, Step *step, BatchArrays batch, const Step *steps, BatchArrays batches,
                    int32_t *next) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const Take take = {step, batch, batches, steps, next};
    cuda_launch(cuda, take_kernel, dim3(1), STEP_THREADS, 0, take);
}

// The sum of the sums, by all threads of a block, in an order that depends on their number alone.
__device__ static double total_of(const double *sums, size_t count) {
    __shared__ double parts[STEP_THREADS];
    double sum = 0.0;
    for (size_t i = threadIdx.x; i < count; i += STEP_THREADS) { sum += sums[i]; }
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = STEP_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) { parts[threadIdx.x] += parts[threadIdx.x + half]; }
        __syncthreads();
    }
    return parts[0];
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
    const double squares = total_of(u.sums, u.blocks), norm = sqrt(squares);
    if (*u.halted || !isfinite(norm)) { return; }
    AdamW adamw = u.step->adamw;
    if (u.max_norm > 0.0f) {
        const double scale = static_cast<double>(u.max_norm) / (norm + 1e-6);
        adamw.gradient_scale = scale < 1.0 ? static_cast<float>(scale) : 1.0f;
    }
    if (!u.decay) { adamw.decay = 1.0f; }
    const size_t begin = static_cast<size_t>(blockIdx.x) * STEP_THREADS * UPDATE_EACH + threadIdx.x;
#pragma unroll
    for (int k = 0; k < UPDATE_EACH; k++) {
        const size_t i = begin + static_cast<size_t>(k) * STEP_THREADS;
        if (i < u.count) { update_one(u.weights, i, adamw); }
    }
}

void cuda_step_adamw(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                     const Step *step, const double *sums, size_t blocks, float max_norm, const int32_t *halted,
                     bool decay, size_t count) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const Update update = {
        {weight, first_moment, second_moment, gradient}, step, sums, blocks, count, max_norm, halted, decay};
    cuda_launch(cuda, step_adamw_kernel, dim3(blocks_for(count, STEP_THREADS * UPDATE_EACH)), STEP_THREADS, 0, update);
}

typedef struct {
    StepSums *results;
    int32_t *halted;
    const int32_t *next;
    const float *losses;
    Extent B;
    const double *sums;
    size_t blocks;
} End;

__global__ void __launch_bounds__(STEP_THREADS) end_kernel(const End end) {
    const double squares = total_of(end.sums, end.blocks);
    if (threadIdx.x != 0) { return; }
    double loss = 0.0;
    for (int b = 0; b < extent_now(end.B); b++) { loss += static_cast<double>(end.losses[b]); }
    const StepSums result = {loss, squares};
    end.results[*end.next - 1] = result;
    if (!isfinite(loss) || !isfinite(squares)) { *end.halted = 1; }
}

void cuda_step_end(Device *device, StepSums *results, int32_t *halted, const int32_t *next, const float *losses,
                   Extent B, const double *sums, size_t blocks) {
    CudaDevice *cuda = cuda_device(device);
    cuda_flush(cuda);
    const End end = {results, halted, next, losses, B, sums, blocks};
    cuda_launch(cuda, end_kernel, dim3(1), STEP_THREADS, 0, end);
}
