// Building and launching line programs (lines.cuh), and the operations of kernels.h that are nothing else.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/lines_run.cuh"
#include "kernels/cuda/portable.cuh"

enum { LINES_WARPS = 2, LINES_BLOCK = LINES_WARPS * LINE_ROWS };  // warps and lines of a block

__global__ void __launch_bounds__(LINES_WARPS *WARP) lines_kernel(const __grid_constant__ LineProgram program) {
    SHARED_MEMORY(float, shared);
    const LineTile tile = {shared + LINES_BLOCK * LINE_SMALL, shared, program.N, LINES_BLOCK};
    lines_run(&program, tile, static_cast<int>(blockIdx.x) * LINES_BLOCK, program.N, true);
}

void lines_flush(CudaDevice *device) {
    if (!device->lines_pending) { return; }
    device->lines_pending = false;
    const LineProgram *program = &device->lines;
    const size_t width = static_cast<size_t>(program->N) + LINE_SMALL;
    cuda_launch(device, lines_kernel, dim3(blocks_for(static_cast<size_t>(program->M.most), LINES_BLOCK)),
                LINES_WARPS * WARP, LINES_BLOCK * width * sizeof(float), *program);
}

LineProgram *lines_begin(CudaDevice *device, Extent M, int N) {
    lines_flush(device);
    device->lines = LineProgram{};
    device->lines.M = M;
    device->lines.N = N;
    device->lines_pending = true;
    return &device->lines;
}

LineStep *lines_add(LineProgram *program, LineKind kind) {
    CHECK(program->count < LINE_STEPS);
    LineStep *step = &program->steps[program->count++];
    *step = LineStep{};
    step->kind = kind;
    return step;
}

void lines_store(LineProgram *program, float *out) {
    lines_add(program, LINE_STORE)->out[0] = out;
    program->last = out;
    program->last_small = false;
}

LineProgram *lines_continue(CudaDevice *device, const float *in, bool small, Extent M, int N, int room) {
    LineProgram *program = &device->lines;
    if (device->lines_pending && program->last == in && program->last_small == small && same_extent(program->M, M) &&
        (small || program->N == N) && program->count + room <= LINE_STEPS) {
        return program;
    }
    program = lines_begin(device, M, small ? 0 : N);
    LineStep *load = lines_add(program, small ? LINE_LOAD_SMALL : LINE_LOAD);
    load->in[0] = in;
    load->classes = N;
    program->last = in;
    program->last_small = small;
    return program;
}

static bool writes(const LineProgram *program, const float *memory) {
    for (int s = 0; memory && s < program->count; s++) {
        if (program->steps[s].out[0] == memory || program->steps[s].out[1] == memory) { return true; }
    }
    return false;
}

static bool reads(const LineProgram *program, const float *memory) {
    for (int s = 0; s < program->count; s++) {
        for (int i = 0; i < 3; i++) {
            if (program->steps[s].in[i] == memory) { return true; }
        }
    }
    return false;
}

static bool repeatable(const LineProgram *program, const float *out, const float *const others[2]) {
    if (reads(program, out) || writes(program, others[0]) || writes(program, others[1])) { return false; }
    for (int s = 0; s < program->count; s++) {
        for (int i = 0; i < 3; i++) {
            if (writes(program, program->steps[s].in[i])) { return false; }
        }
    }
    return true;
}

bool lines_take(CudaDevice *device, LineProgram *taken, const float *in, Extent M, int N, const float *out,
                const float *const others[2]) {
    const LineProgram *program = &device->lines;
    if (!device->lines_pending || program->last != in || program->last_small || !same_extent(program->M, M) ||
        program->N != N || !repeatable(program, out, others)) {
        lines_flush(device);
        return false;
    }
    *taken = *program;
    device->lines_pending = false;
    return true;
}

void cuda_embedding_forward(Device *device, float *out, const float *word, const float *position, const float *type,
                            const int32_t *ids, const int32_t *positions, Extent T, int H) {
    LineProgram *program = lines_begin(cuda_device(device), T, H);
    LineStep *embed = lines_add(program, LINE_EMBED);
    embed->in[0] = word;
    embed->in[1] = position;
    embed->in[2] = type;
    embed->index[0] = ids;
    embed->index[1] = positions;
    lines_store(program, out);
    cuda_settle(cuda_device(device));
}

static void add_dropout(LineProgram *program, Lines lines, Dropout dropout) {
    LineStep *step = lines_add(program, LINE_DROPOUT);
    step->lines = lines;
    step->dropout = dropout;
}

void cuda_dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), in, false, M, N, 2);
    add_dropout(program, lines, dropout);
    lines_store(program, out);
    cuda_settle(cuda_device(device));
}

static void add_norm(LineProgram *program, float *out, float *normalized, float *rstd, const float *weight,
                     const float *bias, float epsilon) {
    LineStep *norm = lines_add(program, LINE_NORM);
    norm->out[0] = normalized;
    norm->out[1] = rstd;
    norm->in[0] = weight;
    norm->in[1] = bias;
    norm->epsilon = epsilon;
    lines_store(program, out);
}

// The input of a normalisation in place is overwritten by it: what stored it there before need not.
static void drop_store(LineProgram *program, const float *memory) {
    if (program->count == 0) { return; }
    const LineStep *last = &program->steps[program->count - 1];
    if (last->kind == LINE_STORE && last->out[0] == memory) { program->count--; }
}

void cuda_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                            const float *weight, const float *bias, float epsilon, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), in, false, M, N, 2);
    if (normalized == in) { drop_store(program, in); }
    add_norm(program, out, normalized, rstd, weight, bias, epsilon);
    cuda_settle(cuda_device(device));
}

void cuda_residual_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                                     const float *residual, const float *weight, const float *bias, float epsilon,
                                     Lines lines, Dropout dropout, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), in, false, M, N, 4);
    add_dropout(program, lines, dropout);
    lines_add(program, LINE_ADD)->in[0] = residual;
    add_norm(program, out, normalized, rstd, weight, bias, epsilon);
    cuda_settle(cuda_device(device));
}

void cuda_layernorm_backward_input(Device *device, float *din, const float *dout, const float *normalized,
                                   const float *rstd, const float *weight, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), dout, false, M, N, 2);
    LineStep *norm = lines_add(program, LINE_NORM_BACKWARD);
    norm->in[0] = normalized;
    norm->in[1] = rstd;
    norm->in[2] = weight;
    lines_store(program, din);
    cuda_settle(cuda_device(device));
}

void cuda_tanh_forward(Device *device, float *out, const float *in, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), in, false, M, N, 2);
    lines_add(program, LINE_TANH);
    lines_store(program, out);
    cuda_settle(cuda_device(device));
}

void cuda_tanh_backward(Device *device, float *din, const float *dout, const float *out, Extent M, int N) {
    LineProgram *program = lines_continue(cuda_device(device), dout, false, M, N, 2);
    lines_add(program, LINE_TANH_BACKWARD)->in[0] = out;
    lines_store(program, din);
    cuda_settle(cuda_device(device));
}

void cuda_cross_entropy(Device *device, float *losses, float *dlogits, const float *logits, const int32_t *labels,
                        Factor scale, Extent B, int C) {
    CudaDevice *cuda = cuda_device(device);
    const bool small = C <= LINE_SMALL;
    LineProgram *program = small ? lines_continue(cuda, logits, true, B, C, 1) : lines_begin(cuda, B, 0);
    LineStep *step = lines_add(program, LINE_CROSS_ENTROPY);
    step->classes = C;
    step->in[0] = small ? NULL : logits;
    step->out[0] = losses;
    step->out[1] = dlogits;
    step->index[0] = labels;
    step->scale = scale;
    program->last = small ? dlogits : NULL;
    program->last_small = small;
    cuda_settle(cuda);
}

void cuda_gather_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N) {
    LineProgram *program = lines_begin(cuda_device(device), M, N);
    LineStep *load = lines_add(program, LINE_LOAD);
    load->in[0] = in;
    load->index[0] = lines;
    lines_store(program, out);
    cuda_settle(cuda_device(device));
}
