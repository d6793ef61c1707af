// The device's part of line programs; see lines.cuh. A lane owns the elements h = q Q + c of a line, q = 0 .. 3, for
// c = lane, lane + 32, ...: the four that share a Philox counter (kernels/philox.h), so that most steps need no
// exchange between lanes. A warp takes LINE_ROWS lines at the same time and reads what a step needs of all of them
// before it uses any: the lines' memory is waited for once.
#ifndef BERTUNE_LINES_RUN_CUH
#define BERTUNE_LINES_RUN_CUH

#include "kernels/cuda/lines.cuh"
#include "kernels/cuda/portable.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/philox.h"

enum { LINE_ROWS = 4 };

// The lines of a tile that a warp works on, which follow each other: k < count <= LINE_ROWS.
struct Rows {
    float *rows, *smalls;
    size_t first;  // line of the matrices
    int pitch, count, N;
    __device__ float *at(int k) const { return rows + k * pitch; }            // (N) in shared memory
    __device__ float *small(int k) const { return smalls + k * LINE_SMALL; }  // (LINE_SMALL)
    __device__ size_t line(int k) const { return first + static_cast<size_t>(k); }
};

__device__ __forceinline__ int lane_of() { return static_cast<int>(threadIdx.x % WARP); }

// use(k, h, value) for the lane's elements h of all rows k, with value = read(k, h); what it reads of several rows is
// read before the first use.
template <typename Read, typename Use>
__device__ __forceinline__ void for_elements(const Rows &rows, Read read, Use use) {
    const int quarter = (rows.N + 3) / 4;
    for (int c = lane_of(); c < quarter; c += WARP) {
        float values[LINE_ROWS][4];
#pragma unroll
        for (int k = 0; k < LINE_ROWS; k++) {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int h = q * quarter + c;
                values[k][q] = k < rows.count && h < rows.N ? read(k, h) : 0.0f;
            }
        }
#pragma unroll
        for (int k = 0; k < LINE_ROWS; k++) {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int h = q * quarter + c;
                if (k < rows.count && h < rows.N) { use(k, h, values[k][q]); }
            }
        }
    }
}

// The warp's sums of the lanes' values, of all rows at the same time.
__device__ __forceinline__ void warp_sums(float values[LINE_ROWS]) {
    for (int distance = WARP / 2; distance; distance /= 2) {
#pragma unroll
        for (int k = 0; k < LINE_ROWS; k++) { values[k] += __shfl_xor_sync(0xFFFFFFFFu, values[k], distance); }
    }
}

__device__ inline void rows_dropout(const Rows &rows, const LineStep &step) {
    const Dropout dropout = step.dropout;
    if (!(dropout.probability > 0.0f)) { return; }
    const uint32_t threshold = philox_threshold(dropout.probability), now = dropout.now ? *dropout.now : dropout.step;
    const uint32_t k0 = static_cast<uint32_t>(dropout.seed), k1 = static_cast<uint32_t>(dropout.seed >> 32);
    const float scale = 1.0f / (1.0f - dropout.probability);
    const int quarter = (rows.N + 3) / 4;
    uint32_t data_row[LINE_ROWS], first[LINE_ROWS];
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) {
        if (k >= rows.count) { break; }
        data_row[k] = step.lines.rows[rows.line(k)];
        first[k] = static_cast<uint32_t>(step.lines.positions[rows.line(k)]) * static_cast<uint32_t>(quarter);
    }
    for (int c = lane_of(); c < quarter; c += WARP) {
#pragma unroll
        for (int k = 0; k < LINE_ROWS; k++) {
            if (k >= rows.count) { break; }
            const Philox bits = philox(first[k] + static_cast<uint32_t>(c), data_row[k], now, dropout.site, k0, k1);
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int h = q * quarter + c;
                if (h < rows.N) { rows.at(k)[h] = bits.lane[q] < threshold ? 0.0f : rows.at(k)[h] * scale; }
            }
        }
    }
}

__device__ inline void rows_norm(const Rows &rows, const LineStep &step, bool store) {
    const float N = static_cast<float>(rows.N);
    float mean[LINE_ROWS] = {}, rstd[LINE_ROWS] = {};
    const auto row = [&](int k, int h) { return rows.at(k)[h]; };
    for_elements(rows, row, [&](int k, int, float x) { mean[k] += x; });
    warp_sums(mean);
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) { mean[k] /= N; }
    for_elements(rows, row, [&](int k, int, float x) { rstd[k] += (x - mean[k]) * (x - mean[k]); });
    warp_sums(rstd);
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) {
        rstd[k] = 1.0f / sqrtf(rstd[k] / N + step.epsilon);
        if (store && k < rows.count && lane_of() == 0) { step.out[1][rows.line(k)] = rstd[k]; }
    }
    for_elements(rows, row, [&](int k, int h, float x) {
        const float n = (x - mean[k]) * rstd[k];
        if (store) { step.out[0][rows.line(k) * static_cast<size_t>(rows.N) + static_cast<size_t>(h)] = n; }
        rows.at(k)[h] = n * __ldg(step.in[0] + h) + __ldg(step.in[1] + h);
    });
}

__device__ inline void rows_norm_backward(const Rows &rows, const LineStep &step) {
    const float N = static_cast<float>(rows.N), *weight = step.in[2];
    float rstd[LINE_ROWS] = {}, sum[LINE_ROWS] = {}, projection[LINE_ROWS] = {};
    const auto normalized = [&](int k, int h) {
        return step.in[0][rows.line(k) * static_cast<size_t>(rows.N) + static_cast<size_t>(h)];
    };
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) {
        if (k < rows.count) { rstd[k] = step.in[1][rows.line(k)]; }
    }
    for_elements(rows, normalized, [&](int k, int h, float n) {
        const float x = rows.at(k)[h] * __ldg(weight + h);
        sum[k] += x;
        projection[k] += x * n;
    });
    warp_sums(sum);
    warp_sums(projection);
    for_elements(rows, normalized, [&](int k, int h, float n) {
        rows.at(k)[h] = (rows.at(k)[h] * __ldg(weight + h) - sum[k] / N - n * (projection[k] / N)) * rstd[k];
    });
}

__device__ __forceinline__ float rounded_if(bool rounded, float value) {
    return rounded ? __uint_as_float(pack_bf16(value, 0.0f) << 16) : value;
}

__device__ inline void rows_linear_small(const Rows &rows, const LineStep &step, bool store) {
    for (int c = 0; c < step.classes; c++) {
        const float *weight = step.in[0] + static_cast<size_t>(c) * static_cast<size_t>(rows.N);
        float sums[LINE_ROWS] = {};
        for_elements(
            rows, [&](int k, int h) { return rounded_if(step.rounded, rows.at(k)[h]); },
            [&](int k, int h, float x) { sums[k] += x * rounded_if(step.rounded, weight[h]); });
        warp_sums(sums);
#pragma unroll
        for (int k = 0; k < LINE_ROWS; k++) {
            if (k >= rows.count || lane_of() != k) { continue; }
            const size_t at = rows.line(k) * static_cast<size_t>(step.classes) + static_cast<size_t>(c);
            rows.small(k)[c] = sums[k] + step.in[1][c];
            if (store) { step.out[0][at] = rows.small(k)[c]; }
        }
    }
}

__device__ inline void rows_backward_small(const Rows &rows, const LineStep &step) {
    __syncwarp();
    for_elements(
        rows,
        [&](int k, int h) {
            float sum = 0.0f;
            for (int c = 0; c < step.classes; c++) {
                const size_t at = static_cast<size_t>(c) * static_cast<size_t>(rows.N) + static_cast<size_t>(h);
                sum += rounded_if(step.rounded, rows.small(k)[c]) * rounded_if(step.rounded, step.in[0][at]);
            }
            return sum;
        },
        [&](int k, int h, float x) { rows.at(k)[h] = x; });
}

// One lane a line, in double: the classes are few.
__device__ inline void rows_cross_entropy(const Rows &rows, const LineStep &step, bool store) {
    __syncwarp();
    const int k = lane_of(), C = step.classes;
    if (k >= rows.count) { return; }
    const size_t line = rows.line(k), at = line * static_cast<size_t>(C);
    const float *x = step.in[0] ? step.in[0] + at : rows.small(k);
    const int label = step.index[0][line];
    double largest = x[0], sum = 0.0;
    for (int c = 1; c < C; c++) { largest = x[c] > largest ? x[c] : largest; }
    for (int c = 0; c < C; c++) { sum += exp(x[c] - largest); }
    if (store) { step.out[0][line] = static_cast<float>(largest + log(sum) - x[label]); }
    if (!step.out[1]) { return; }
    const float scale = step.scale.now ? *step.scale.now : step.scale.value;
    for (int c = 0; c < C; c++) {
        const double probability = exp(x[c] - largest) / sum;
        const float gradient = static_cast<float>(scale * (probability - (c == label)));
        if (store) { step.out[1][at + static_cast<size_t>(c)] = gradient; }
        if (C <= LINE_SMALL) { rows.small(k)[c] = gradient; }
    }
}

__device__ inline void rows_embed(const Rows &rows, const LineStep &step) {
    const float *word[LINE_ROWS], *position[LINE_ROWS];
    const size_t N = static_cast<size_t>(rows.N);
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) {
        if (k >= rows.count) { break; }
        word[k] = step.in[0] + static_cast<size_t>(step.index[0][rows.line(k)]) * N;
        position[k] = step.in[1] + static_cast<size_t>(step.index[1][rows.line(k)]) * N;
    }
    for_elements(
        rows, [&](int k, int h) { return word[k][h] + step.in[2][h] + position[k][h]; },
        [&](int k, int h, float x) { rows.at(k)[h] = x; });
}

__device__ inline void rows_load(const Rows &rows, const LineStep &step) {
    const float *from[LINE_ROWS];
#pragma unroll
    for (int k = 0; k < LINE_ROWS; k++) {
        if (k >= rows.count) { break; }
        const size_t line = step.index[0] ? static_cast<size_t>(step.index[0][rows.line(k)]) : rows.line(k);
        from[k] = step.in[0] + line * static_cast<size_t>(rows.N);
    }
    for_elements(
        rows, [&](int k, int h) { return from[k][h]; }, [&](int k, int h, float x) { rows.at(k)[h] = x; });
}

__device__ inline void rows_step(const Rows &rows, const LineStep &step, bool store) {
    const size_t N = static_cast<size_t>(rows.N);
    const auto row = [&](int k, int h) { return rows.at(k)[h]; };
    const auto other = [&](int k, int h) { return step.in[0][rows.line(k) * N + static_cast<size_t>(h)]; };
    switch (step.kind) {
        case LINE_LOAD:
            rows_load(rows, step);
            break;
        case LINE_EMBED:
            rows_embed(rows, step);
            break;
        case LINE_DROPOUT:
            rows_dropout(rows, step);
            break;
        case LINE_ADD:
            for_elements(rows, other, [&](int k, int h, float x) { rows.at(k)[h] += x; });
            break;
        case LINE_TANH:
            for_elements(rows, row, [&](int k, int h, float x) { rows.at(k)[h] = tanhf(x); });
            break;
        case LINE_TANH_BACKWARD:
            for_elements(rows, other, [&](int k, int h, float x) { rows.at(k)[h] *= 1.0f - x * x; });
            break;
        case LINE_NORM:
            rows_norm(rows, step, store);
            break;
        case LINE_NORM_BACKWARD:
            rows_norm_backward(rows, step);
            break;
        case LINE_STORE:
            if (!store) { break; }
            for_elements(rows, row,
                         [&](int k, int h, float x) { step.out[0][rows.line(k) * N + static_cast<size_t>(h)] = x; });
            break;
        case LINE_LOAD_SMALL:
            for (int k = 0; k < rows.count && lane_of() < step.classes; k++) {
                const size_t at = rows.line(k) * static_cast<size_t>(step.classes) + static_cast<size_t>(lane_of());
                rows.small(k)[lane_of()] = step.in[0][at];
            }
            break;
        case LINE_LINEAR_SMALL:
            rows_linear_small(rows, step, store);
            break;
        case LINE_BACKWARD_SMALL:
            rows_backward_small(rows, step);
            break;
        case LINE_CROSS_ENTROPY:
            rows_cross_entropy(rows, step, store);
            break;
    }
}

// By all threads of a block. Runs the program on lines first .. first + count - 1; rows and columns that the matrix
// does not have become zero, up to `width` columns. store: also write outputs. Ends without a barrier: a row is
// complete for the warp that ran it.
__device__ __attribute__((noinline)) static void lines_run(const LineProgram *program, LineTile tile, int first,
                                                           int width, bool store) {
    const int warp = static_cast<int>(threadIdx.x / WARP), warps = static_cast<int>(blockDim.x / WARP);
    const int left = extent_now(program->M) - first, valid = left < tile.count ? left : tile.count;
    for (int r0 = warp * LINE_ROWS; r0 < tile.count; r0 += warps * LINE_ROWS) {
        const int count = valid - r0 < LINE_ROWS ? valid - r0 : LINE_ROWS;
        const Rows rows = {tile.rows + r0 * tile.pitch,     tile.small + r0 * LINE_SMALL,
                           static_cast<size_t>(first + r0), tile.pitch,
                           count < 0 ? 0 : count,           program->N};
        for (int k = 0; k < LINE_ROWS && r0 + k < tile.count; k++) {
            for (int h = (k < rows.count ? rows.N : 0) + lane_of(); h < width; h += WARP) { rows.at(k)[h] = 0.0f; }
        }
        for (int s = 0; s < program->count; s++) { rows_step(rows, program->steps[s], store); }
    }
}

#endif
