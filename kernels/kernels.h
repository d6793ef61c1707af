// The operations of a BERT classifier on one device. kernels/cpu defines them for processors (oneDNN, OpenMP); a folder
// beside it defines the same names for another device, and CMake links one of them. No MPI, no files, no BERT.
//
// Letters: B sequences, T tokens of all of them end to end, H hidden, A heads, D = H / A head size, F feed-forward,
//          V rows of the word table, P rows of the position table, L layers, C classes, M lines of a matrix.
// Argument order: device, outputs, saved for backward, inputs, sizes. A gradient is the name with `d` before it.
// Backward: parameter gradients are added to (+=), activation gradients are written (=).
// Matrices are row-major fp32 and every pointer is memory of the device unless it says otherwise.
// Results do not depend on the number of threads except in oneDNN's matrix products, and there to rounding.
#ifndef BERTUNE_KERNELS_H
#define BERTUNE_KERNELS_H

#include "kernels/check.h"

typedef struct Device Device;

// threads: of this process, at least 1. Free with device_close.
Device *device_open(int threads);
void device_close(Device *device);
const char *device_name(void);  // "cpu" or "cuda"
int device_threads(const Device *device);

// Zeroed memory of bytes, 64-byte aligned, or die.
void *device_alloc(Device *device, size_t bytes);
void device_free(Device *device, void *memory);
void device_zero(Device *device, void *memory, size_t bytes);
void device_upload(Device *device, void *to, const void *host, size_t bytes);
void device_download(Device *device, void *host, const void *from, size_t bytes);

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

// out[t] = word[ids[t]] + position[positions[t]] + type[0].
void embedding_forward(Device *device, float *out /* (T, H) */, const float *word /* (V, H) */,
                       const float *position /* (P, H) */, const float *type /* (H) */, const int32_t *ids /* (T) */,
                       const int32_t *positions /* (T) */, int T, int H);

// Row `padding` of the word table gets no gradient, as torch.nn.Embedding(padding_idx); -1: there is none.
void embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                        const int32_t *ids, const int32_t *positions, int padding, int T, int H);

// out = in with dropout; also its own backward. out may be in.
void dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, int M, int N);

// out = (in - mean) * rstd * weight + bias over each line; mean and rstd (M) are kept for backward.
void layernorm_forward(Device *device, float *out, float *mean, float *rstd, const float *in, const float *weight,
                       const float *bias, float epsilon, int M, int N);
void layernorm_backward(Device *device, float *din, float *dweight, float *dbias, const float *dout, const float *in,
                        const float *mean, const float *rstd, const float *weight, int M, int N);

// The end of both halves of a layer: sum = residual + dropout(in), out = layernorm(sum). sum may be in.
void residual_layernorm_forward(Device *device, float *out, float *sum, float *mean, float *rstd, const float *in,
                                const float *residual, const float *weight, const float *bias, float epsilon,
                                Lines lines, Dropout dropout, int M, int N);

// out = in weight^T + bias.
void linear_forward(Device *device, float *out /* (M, N) */, const float *in /* (M, K) */,
                    const float *weight /* (N, K) */, const float *bias /* (N) */, int M, int N, int K);

// din = dout weight, unless din is NULL; dweight += dout^T in; dbias += column sums of dout.
void linear_backward(Device *device, float *din /* (M, K) */, float *dweight, float *dbias, const float *dout,
                     const float *in, const float *weight, int M, int N, int K);

// GELU with the error function (not tanh): x Phi(x).
void gelu_forward(Device *device, float *out, const float *in, size_t count);
void gelu_backward(Device *device, float *din, const float *dout, const float *in, size_t count);

void tanh_forward(Device *device, float *out, const float *in, size_t count);
void tanh_backward(Device *device, float *din, const float *dout, const float *out, size_t count);

// Where the queries, keys and values of each sequence and head lie: head a of line i begins at base + i * stride + a *
// D. Sequence b has the query lines query_starts[b] .. query_starts[b + 1] and the key lines key_starts[b] ..
typedef struct {
    const int32_t *query_starts;   // (B + 1)
    const int32_t *key_starts;     // (B + 1)
    const uint32_t *rows;          // (B) data row of each sequence, for dropout
    int query_stride, key_stride;  // floats from a line to the next, of q and of both k and v
    int B, A, D;
} AttentionShape;

// out = dropout(softmax(q k^T / sqrt(D))) v per sequence and head. log_sum (A, query lines) is kept for backward.
// out (query lines, A D) is dense.
void attention_forward(Device *device, float *out, float *log_sum, const float *q, const float *k, const float *v,
                       AttentionShape shape, Dropout dropout);

// dq has q's stride, dk and dv have k's and v's.
void attention_backward(Device *device, float *dq, float *dk, float *dv, const float *dout, const float *out,
                        const float *log_sum, const float *q, const float *k, const float *v, AttentionShape shape,
                        Dropout dropout);

// losses[b] = -log softmax(logits[b])[labels[b]]; dlogits = scale * (softmax - one hot), unless dlogits is NULL.
void cross_entropy(Device *device, float *losses /* (B) */, float *dlogits /* (B, C) */, const float *logits,
                   const int32_t *labels, float scale, int B, int C);

// out[i] = in[lines[i]] (M lines of N).
void gather_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N);
// out[lines[i]] += in[i]; lines are distinct.
void scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, int M, int N);

// out += in.
void add(Device *device, float *out, const float *in, size_t count);

// Sum of squares, accumulated in double in a fixed order.
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
void adamw_update(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                  AdamW adamw, size_t count);

#endif
