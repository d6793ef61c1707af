// The device's part of line programs; see lines.cuh. A lane owns the elements h = q Q + c of a line, q = 0 .. 3, for
// c = lane, lane + 32, ...: the four that share a Philox counter (kernels/philox.h), so that most steps need no
// exchange between lanes.
#ifndef BERTUNE_LINES_RUN_CUH
#define BERTUNE_LINES_RUN_CUH

#include "kernels/cuda/lines.cuh"
#include "kernels/cuda/portable.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/philox.h"

// f(h) for the lane's elements of a line of N.
template <typename F>
__device__ __forceinline__ void for_elements(int N, F f) {
    const int quarter = (N + 3) / 4;
    for (int c = static_cast<int>(threadIdx.x % WARP); c < quarter; c += WARP) {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const int h = q * quarter + c;
            if (h < N) { f(h); }
        }
    }
}

__device__ inline void line_dropout(float *row, const LineStep &step, int i, int N) {
    const Dropout dropout = step.dropout;
    if (!(dropout.probability > 0.0f)) { return; }
    const uint32_t threshold = philox_threshold(dropout.probability), now = dropout.now ? *dropout.now : dropout.step;
    const float scale = 1.0f / (1.0f - dropout.probability);
    const int quarter = (N + 3) / 4;
    const uint32_t first = static_cast<uint32_t>(step.lines.positions[i]) * static_cast<uint32_t>(quarter);
    for (int c = static_cast<int>(threadIdx.x % WARP); c < quarter; c += WARP) {
        const Philox bits = philox(first + static_cast<uint32_t>(c), step.lines.rows[i], now, dropout.site,
                                   static_cast<uint32_t>(dropout.seed), static_cast<uint32_t>(dropout.seed >> 32));
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const int h = q * quarter + c;
            if (h < N) { row[h] = bits.lane[q] < threshold ? 0.0f : row[h] * scale; }
        }
    }
}

__device__ inline void line_norm(float *row, const LineStep &step, size_t i, int N, bool store) {
    float sum = 0.0f, squares = 0.0f;
    for_elements(N, [&](int h) { sum += row[h]; });
    const float mean = warp_sum(sum) / static_cast<float>(N);
    for_elements(N, [&](int h) { squares += (row[h] - mean) * (row[h] - mean); });
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(N) + step.epsilon);
    float *normalized = step.out[0] + i * static_cast<size_t>(N);
    for_elements(N, [&](int h) {
        const float n = (row[h] - mean) * rstd;
        if (store) { normalized[h] = n; }
        row[h] = n * step.in[0][h] + step.in[1][h];
    });
    if (store && threadIdx.x % WARP == 0) { step.out[1][i] = rstd; }
}

__device__ inline void line_norm_backward(float *row, const LineStep &step, size_t i, int N) {
    const float *normalized = step.in[0] + i * static_cast<size_t>(N), *weight = step.in[2];
    const float rstd = step.in[1][i];
    float sum = 0.0f, projection = 0.0f;
    for_elements(N, [&](int h) {
        sum += row[h] * weight[h];
        projection += row[h] * weight[h] * normalized[h];
    });
    sum = warp_sum(sum) / static_cast<float>(N);
    projection = warp_sum(projection) / static_cast<float>(N);
    for_elements(N, [&](int h) { row[h] = (row[h] * weight[h] - sum - normalized[h] * projection) * rstd; });
}

__device__ __forceinline__ float rounded_if(bool rounded, float value) {
    return rounded ? __uint_as_float(pack_bf16(value, 0.0f) << 16) : value;
}

__device__ inline void line_linear_small(const float *row, float *small, const LineStep &step, size_t i, int N,
                                         bool store) {
    for (int c = 0; c < step.classes; c++) {
        const float *weight = step.in[0] + static_cast<size_t>(c) * static_cast<size_t>(N);
        float sum = 0.0f;
        for_elements(N, [&](int h) { sum += rounded_if(step.rounded, row[h]) * rounded_if(step.rounded, weight[h]); });
        sum = warp_sum(sum) + step.in[1][c];
        if (threadIdx.x % WARP == 0) {
            small[c] = sum;
            if (store) { step.out[0][i * static_cast<size_t>(step.classes) + static_cast<size_t>(c)] = sum; }
        }
    }
}

__device__ inline void line_backward_small(float *row, const float *small, const LineStep &step, int N) {
    __syncwarp();
    for_elements(N, [&](int h) {
        float sum = 0.0f;
        for (int c = 0; c < step.classes; c++) {
            const float weight = step.in[0][static_cast<size_t>(c) * static_cast<size_t>(N) + static_cast<size_t>(h)];
            sum += rounded_if(step.rounded, small[c]) * rounded_if(step.rounded, weight);
        }
        row[h] = sum;
    });
}

// One lane, in double: the classes are few.
__device__ inline void line_cross_entropy(float *small, const LineStep &step, size_t i, bool store) {
    __syncwarp();
    if (threadIdx.x % WARP != 0) { return; }
    const int C = step.classes;
    const size_t at = i * static_cast<size_t>(C);
    const float *x = step.in[0] ? step.in[0] + at : small;
    const int label = step.index[0][i];
    double largest = x[0], sum = 0.0;
    for (int c = 1; c < C; c++) { largest = x[c] > largest ? x[c] : largest; }
    for (int c = 0; c < C; c++) { sum += exp(x[c] - largest); }
    if (store) { step.out[0][i] = static_cast<float>(largest + log(sum) - x[label]); }
    if (!step.out[1]) { return; }
    const float scale = step.scale.now ? *step.scale.now : step.scale.value;
    for (int c = 0; c < C; c++) {
        const double probability = exp(x[c] - largest) / sum;
        const float gradient = static_cast<float>(scale * (probability - (c == label)));
        if (store) { step.out[1][at + static_cast<size_t>(c)] = gradient; }
        if (C <= LINE_SMALL) { small[c] = gradient; }
    }
}

__device__ inline void line_embed(float *row, const LineStep &step, int i, int N) {
    const float *word = step.in[0] + static_cast<size_t>(step.index[0][i]) * static_cast<size_t>(N);
    const float *position = step.in[1] + static_cast<size_t>(step.index[1][i]) * static_cast<size_t>(N);
    for_elements(N, [&](int h) { row[h] = word[h] + step.in[2][h] + position[h]; });
}

__device__ inline void line_step(float *row, float *small, const LineStep &step, int line, int N, bool store) {
    const size_t i = static_cast<size_t>(line), at = i * static_cast<size_t>(N);
    switch (step.kind) {
        case LINE_LOAD: {
            const float *in = step.in[0] + (step.index[0] ? static_cast<size_t>(step.index[0][i]) * N : at);
            for_elements(N, [&](int h) { row[h] = in[h]; });
            break;
        }
        case LINE_EMBED:
            line_embed(row, step, line, N);
            break;
        case LINE_DROPOUT:
            line_dropout(row, step, line, N);
            break;
        case LINE_ADD:
            for_elements(N, [&](int h) { row[h] += step.in[0][at + h]; });
            break;
        case LINE_TANH:
            for_elements(N, [&](int h) { row[h] = tanhf(row[h]); });
            break;
        case LINE_TANH_BACKWARD:
            for_elements(N, [&](int h) { row[h] *= 1.0f - step.in[0][at + h] * step.in[0][at + h]; });
            break;
        case LINE_NORM:
            line_norm(row, step, i, N, store);
            break;
        case LINE_NORM_BACKWARD:
            line_norm_backward(row, step, i, N);
            break;
        case LINE_STORE:
            if (store) {
                for_elements(N, [&](int h) { step.out[0][at + h] = row[h]; });
            }
            break;
        case LINE_LOAD_SMALL:
            if (static_cast<int>(threadIdx.x % WARP) < step.classes) {
                small[threadIdx.x % WARP] = step.in[0][i * static_cast<size_t>(step.classes) + threadIdx.x % WARP];
            }
            break;
        case LINE_LINEAR_SMALL:
            line_linear_small(row, small, step, i, N, store);
            break;
        case LINE_BACKWARD_SMALL:
            line_backward_small(row, small, step, N);
            break;
        case LINE_CROSS_ENTROPY:
            line_cross_entropy(small, step, i, store);
            break;
    }
}

// By all threads of a block. Runs the program on lines first .. first + count - 1; rows and columns that the matrix
// does not have become zero, up to `width` columns. store: also write outputs. Ends without a barrier: a row is
// complete for the warp row % warps.
__device__ __attribute__((noinline)) static void lines_run(const LineProgram *program, LineTile tile, int first,
                                                           int width, bool store) {
    const int N = program->N, lane = static_cast<int>(threadIdx.x % WARP), warp = static_cast<int>(threadIdx.x / WARP);
    const int warps = static_cast<int>(blockDim.x / WARP), left = extent_now(program->M) - first;
    const int rows = left < tile.count ? left : tile.count;
    for (int r = warp; r < tile.count; r += warps) {
        for (int h = (r < rows ? N : 0) + lane; h < width; h += WARP) { tile.rows[r * tile.pitch + h] = 0.0f; }
    }
    // Steps outside and rows inside, so that the rows' memory is read at the same time.
    for (int s = 0; s < program->count; s++) {
        for (int r = warp; r < rows; r += warps) {
            line_step(tile.rows + r * tile.pitch, tile.small + r * LINE_SMALL, program->steps[s], first + r, N, store);
        }
    }
}

#endif
