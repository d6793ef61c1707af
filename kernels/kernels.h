// The operations of a BERT classifier on one device. kernels/cpu defines them for processors (OpenMP, own matrix
// products); a folder beside it defines the same names for another device, and CMake links one of them. No MPI, no
// files, no BERT.
//
// Letters: B sequences, T tokens of all of them end to end, H hidden, A heads, D = H / A head size, F feed-forward,
//          V rows of the word table, P rows of the position table, L layers, C classes, M lines of a matrix.
// Argument order: device, outputs, saved for backward, inputs, sizes. A gradient is the name with `d` before it.
// Backward: parameter gradients are added to (+=) where `accumulate` is true or there is no such argument, else
// written; activation gradients are written (=). Matrices are row-major fp32 and every pointer is memory of the device
// unless it says otherwise.
//
// Workers: a body given to device_run is run by all workers of the device at once, and they share the work of every
// operation that they call with the same arguments. Outside of device_run the caller is the only worker. Operations
// come in two kinds:
//   by lines    a worker computes its own share of the M lines, the same share in every operation with the same M, so
//               that these follow each other without a device_sync;
//   all lines   a worker reads the lines of all: device_sync before, and before its inputs or outputs are used again.
// Results have the same bits for every number of workers.
#ifndef BERTUNE_KERNELS_H
#define BERTUNE_KERNELS_H

#include "kernels/check.h"

typedef struct Device Device;

// How the products of linear layers are computed. Bf16: their inputs are rounded to bfloat16 (nearest even) and summed
// in fp32; everything else, weights and attention included, stays fp32.
typedef enum { PRECISION_FP32, PRECISION_TF32, PRECISION_BF16 } Precision;

// NULL where the device computes products with the precision, else what it lacks.
const char *device_lacks(Precision precision);

// threads: of this process, at least 1. Free with device_close.
Device *device_open(int threads, Precision precision);
void device_close(Device *device);
const char *device_name(void);  // "cpu" or "cuda"
int device_threads(const Device *device);
const char *device_instructions(void);  // the instruction set that fp32 products use: "AVX-512", ...

// Runs body(context) on every worker; device_sync waits until all have come there. Not nested.
void device_run(Device *device, void (*body)(void *context), void *context);
void device_sync(Device *device);
// True on one worker, the thread that called device_run: what only one may do, MPI above all.
bool device_leader(void);

// Zeroed memory of bytes, 64-byte aligned, or die.
void *device_alloc(Device *device, size_t bytes);
void device_free(Device *device, void *memory);
// By lines of 4 KiB.
void device_zero(Device *device, void *memory, size_t bytes);
void device_upload(Device *device, void *to, const void *host, size_t bytes);
void device_download(Device *device, void *host, const void *from, size_t bytes);

// Measures of the machine, taken with all workers: the best of a few runs of a loop of fused multiply-adds
// in registers (FLOP/s) and of copying memory larger than its caches (bytes read and written, a second).
double device_peak_flops(Device *device);
double device_copy_bandwidth(Device *device);

// Inverted dropout after BERT: an element is zero with the probability, else divided by 1 - probability. The random
// bits are Philox4x32-10 (Salmon et al., SC'11) of (seed; step, site, data row, element), see kernels/philox.h: the
// same on every device, for every number of ranks and batch cut, and drawn again in backward instead of being stored.
typedef struct {
    float probability;  // 0: no dropout
    uint64_t seed;
    uint32_t step;
    uint32_t site;  // which dropout of the model; below 2^16
} Dropout;

// Names the lines of a matrix for dropout: line i belongs to data row rows[i], token positions[i].
typedef struct {
    const uint32_t *rows;      // (M)
    const int32_t *positions;  // (M)
} Lines;

// By lines. out[t] = word[ids[t]] + position[positions[t]] + type[0].
void embedding_forward(Device *device, float *out /* (T, H) */, const float *word /* (V, H) */,
                       const float *position /* (P, H) */, const float *type /* (H) */, const int32_t *ids /* (T) */,
                       const int32_t *positions /* (T) */, int T, int H);

// All lines. Row `padding` of the word table gets no gradient, as torch.nn.Embedding(padding_idx); -1: there is none.
void embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                        const int32_t *ids, const int32_t *positions, int padding, int T, int H);

// By lines. out = in with dropout; also its own backward. out may be in.
void dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, int M, int N);

// By lines. normalized = (in - mean) * rstd over each line, kept for backward with rstd (M); out = normalized * weight
// + bias. normalized may be in.
void layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in, const float *weight,
                       const float *bias, float epsilon, int M, int N);

// By lines. The end of both halves of a layer: layernorm_forward of residual + dropout(in). normalized may be in.
void residual_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                                const float *residual, const float *weight, const float *bias, float epsilon,
                                Lines lines, Dropout dropout, int M, int N);

// By lines.
void layernorm_backward_input(Device *device, float *din, const float *dout, const float *normalized, const float *rstd,
                              const float *weight, int M, int N);
// All lines.
void layernorm_backward_parameters(Device *device, float *dweight, float *dbias, const float *dout,
                                   const float *normalized, bool accumulate, int M, int N);

// By lines. out = in weight^T + bias.
void linear_forward(Device *device, float *out /* (M, N) */, const float *in /* (M, K) */,
                    const float *weight /* (N, K) */, const float *bias /* (N) */, int M, int N, int K);

// By lines. out = gelu(in weight^T + bias) with the error function, x Phi(x), not tanh; derivative (M, N) receives its
// derivative there unless it is NULL.
void linear_gelu_forward(Device *device, float *out, float *derivative, const float *in, const float *weight,
                         const float *bias, int M, int N, int K);

// By lines. din (M, K) = dout weight, plus residual (M, K) unless it is NULL. din may be residual.
void linear_backward_input(Device *device, float *din, const float *dout, const float *weight, const float *residual,
                           int M, int N, int K);

// By lines. din (M, K) = dout weight * derivative, element by element: also the backward of the GELU before this layer.
void linear_gelu_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                const float *derivative, int M, int N, int K);

// All lines. dweight (N, K): dout^T in; dbias (N): column sums of dout.
void linear_backward_weight(Device *device, float *dweight, float *dbias, const float *dout, const float *in,
                            bool accumulate, int M, int N, int K);

// By lines.
void tanh_forward(Device *device, float *out, const float *in, int M, int N);
void tanh_backward(Device *device, float *din, const float *dout, const float *out, int M, int N);

// Sequence b has the lines starts[b] .. starts[b + 1] of the matrices with T lines, and is data row rows[b].
typedef struct {
    const int32_t *starts;  // (B + 1)
    const uint32_t *rows;   // (B)
    int B, A, D;
} Sequences;

// All lines. out (T, H) = dropout(softmax(q k^T / sqrt(D))) v per sequence and head; qkv (T, 3 H) holds the queries,
// keys and values of all heads side by side. log_sum (A, T) is kept for backward.
void attention_forward(Device *device, float *out, float *log_sum, const float *qkv, Sequences sequences,
                       Dropout dropout);
void attention_backward(Device *device, float *dqkv, const float *dout, const float *out, const float *log_sum,
                        const float *qkv, Sequences sequences, Dropout dropout);

// Attention whose only queries are the first lines of the sequences ([CLS]): context (B, H) from x (T, H) with the
// projections of keys and values, without computing these: q (Wk x + bk) is (q Wk) x and the same for every x, so that
// softmax loses it, and sum p (Wv x + bv) is Wv (sum p x) + bv sum p. Exact but for rounding, at a fraction of the
// products (the matrix absorption of DeepSeek-V2, 2024, in another place). H = A D.
typedef struct {
    float *attended;  // (B, A, H) q Wk
    float *mixed;     // (B, A, H) sum p x, after dropout
    float *kept;      // (B, A) sum p, after dropout
    float *log_sum;   // (B, A)
} ClsAttention;

typedef struct {
    const float *key_weight, *value_weight;  // (H, H), lines are outputs
    const float *value_bias;                 // (H)
} ClsProjections;

// By lines of B; of all lines of x.
void cls_attention_forward(Device *device, float *context, ClsAttention saved, const float *q /* (B, H) */,
                           const float *x, ClsProjections projections, Sequences sequences, Dropout dropout);

// By lines of B: dq (B, H), and dx of the sequences' T lines. dattended and dmixed (B, A, H) are for the weights' part.
void cls_attention_backward(Device *device, float *dq, float *dx, float *dattended, float *dmixed,
                            const float *dcontext, ClsAttention saved, const float *x, ClsProjections projections,
                            Sequences sequences, Dropout dropout);

// All lines. The gradients of the key and value projections, weights (H, H) and biases (H).
typedef struct {
    float *key_weight, *key_bias, *value_weight, *value_bias;
} ClsProjectionGradients;
void cls_attention_backward_weight(Device *device, ClsProjectionGradients gradients, const float *dattended,
                                   const float *dcontext, ClsAttention saved, const float *q, bool accumulate, int B,
                                   int A, int D);

// By lines. losses[b] = -log softmax(logits[b])[labels[b]]; dlogits = scale * (softmax - one hot), unless dlogits is
// NULL.
void cross_entropy(Device *device, float *losses /* (B) */, float *dlogits /* (B, C) */, const float *logits,
                   const int32_t *labels, float scale, int B, int C);

// By lines of M, of all lines of `in` or `out`. out[i] = in[lines[i]] (M lines of N); out[lines[i]] += in[i] with
// distinct lines.
void gather_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N);
void scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N);

// By elements. out += in.
void add(Device *device, float *out, const float *in, size_t count);

// Not inside device_run. Sum of squares, accumulated in double in an order that depends on count alone.
double square_sum(Device *device, const float *in, size_t count);

// One step of torch.optim.AdamW (decoupled weight decay, Loshchilov & Hutter) over count elements.
typedef struct {
    float gradient_scale;       // multiplies the gradient first (clipping)
    float decay;                // (float)(1 - lr * weight_decay)
    float rest1, beta2, rest2;  // 1 - beta1, beta2, 1 - beta2, each rounded from double
    float step_size;            // lr / (1 - beta1^t)
    float root_correction;      // sqrt(1 - beta2^t)
    float epsilon;
} AdamW;
// By elements.
void adamw_update(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                  AdamW adamw, size_t count);

#endif
