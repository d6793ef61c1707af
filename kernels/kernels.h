// The operations of a BERT classifier on one device. kernels/cpu implements them for processors (OpenMP, own matrix
// products), kernels/cuda for NVIDIA GPUs; kernels/backend.h lists what each must define, and a Device knows which it
// is. No MPI, no files, no BERT.
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
// Results have the same bits for every number of workers. On a GPU the one worker is the calling thread: operations are
// put into a queue in the order of the calls, and device_sync marks where the queue may not be reordered across.
#ifndef BERTUNE_KERNELS_H
#define BERTUNE_KERNELS_H

#include "kernels/check.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Device Device;

typedef enum { DEVICE_CPU, DEVICE_CUDA } DeviceKind;

// How the products of linear layers are computed. Bf16: their inputs are rounded to bfloat16 (nearest even) and summed
// in fp32; everything else, weights and attention included, stays fp32, but that a GPU computes the gradients of
// cls_attention's projections like those of linear layers.
typedef enum { PRECISION_FP32, PRECISION_TF32, PRECISION_BF16 } Precision;

// What devices of the kind were built for: "not built", or versions and architectures.
const char *device_built(DeviceKind kind);

// NULL where devices of the kind compute products with the precision, else what is lacking. index: of the GPU.
const char *device_lacks(DeviceKind kind, int index, Precision precision);

// The GPUs that this process may use, or 0 and why (a string that stays). Starts no GPU.
int device_count(DeviceKind kind, const char **why_none);

// One of them.
typedef struct {
    char name[256];
    unsigned char uuid[16];  // the same for every process that sees this GPU
    int major, minor;        // compute capability
    int multiprocessors;
    size_t memory;        // bytes
    uint64_t peers;       // bit i: GPU i reaches this one's memory directly
    int driver, runtime;  // CUDA versions, 13000 for 13.0
} DeviceInfo;
bool device_describe(DeviceKind kind, int index, DeviceInfo *info, Error *error);

// threads: of this process, at least 1, for the CPU; index: of the GPU. NULL with EX_UNAVAILABLE where the GPU cannot
// be used. Free with device_close.
Device *device_open(DeviceKind kind, int index, int threads, Precision precision, Error *error);
void device_close(Device *device);
DeviceKind device_kind(const Device *device);
const char *device_name(const Device *device);   // "cpu" or "cuda"
const char *device_model(const Device *device);  // the GPU's name, or the instruction set of fp32 products: "AVX-512"
int device_threads(const Device *device);        // workers

// Runs body(context) on every worker; device_sync waits until all have come there. Not nested.
void device_run(Device *device, void (*body)(void *context), void *context);
void device_sync(Device *device);
// True on one worker, the thread that called device_run: what only one may do, MPI above all. Of every kind of device.
bool device_leader(void);

// Zeroed memory of bytes, at least 64-byte aligned, or die.
void *device_alloc(Device *device, size_t bytes);
void device_free(Device *device, void *memory);
// By lines of 4 KiB.
void device_zero(Device *device, void *memory, size_t bytes);
// Not inside device_run. Return when the bytes are there.
void device_upload(Device *device, void *to, const void *host, size_t bytes);
void device_download(Device *device, void *host, const void *from, size_t bytes);

// Recorded steps, only on devices for which device_records is true. What body puts into the queue is recorded once, as
// a CUDA graph, and put there again by each device_replay; the caller does not wait for it.
typedef struct Recording Recording;
bool device_records(const Device *device);
Recording *device_record(Device *device, void (*body)(void *context), void *context);
void device_replay(Device *device, Recording *recording);
int device_record_nodes(const Device *device, const Recording *recording);  // launches and copies in it
void device_record_free(Device *device, Recording *recording);

// Host memory that the device copies to and from without the caller waiting.
void *device_alloc_host(Device *device, size_t bytes);
void device_free_host(Device *device, void *memory);
// Makes such of host memory that is there already, until it is unpinned.
void device_pin_host(Device *device, void *memory, size_t bytes);
void device_unpin_host(Device *device, void *memory);
// Puts a copy into the queue; `host` is of device_alloc_host and valid after device_wait for a later mark.
void device_download_later(Device *device, void *host, const void *from, size_t bytes);
// Marks the queue in slot 0 .. DEVICE_MARKS - 1; device_wait returns when all before that slot's last mark is done.
enum { DEVICE_MARKS = 4 };
void device_mark(Device *device, int slot);
void device_wait(Device *device, int slot);
bool device_done(Device *device, int slot);  // without waiting

// Measures of the machine, taken with all workers: the best of a few runs of a loop of fused multiply-adds
// in registers (FLOP/s) and of copying memory larger than its caches (bytes read and written, a second).
double device_peak_flops(Device *device);
double device_copy_bandwidth(Device *device);

// A number of lines or sequences. In a recorded step `now` points to it in device memory and `most` bounds it, so that
// the recording serves batches of every size; else `now` is NULL and the number is `most`.
typedef struct {
    int most;
    const int32_t *now;
} Extent;
static inline Extent extent(int count) {
    const Extent e = {count, NULL};
    return e;
}

// A factor that a recorded step reads from device memory.
typedef struct {
    float value;
    const float *now;  // where not NULL, instead of value
} Factor;

// Inverted dropout after BERT: an element is zero with the probability, else divided by 1 - probability. The random
// bits are Philox4x32-10 (Salmon et al., SC'11) of (seed; step, site, data row, element), see kernels/philox.h: the
// same on every device, for every number of ranks and batch cut, and drawn again in backward instead of being stored.
typedef struct {
    float probability;  // 0: no dropout
    uint64_t seed;
    uint32_t step;
    uint32_t site;        // which dropout of the model; below 2^16
    const uint32_t *now;  // where not NULL, the step is read there, in device memory
} Dropout;

// Names the lines of a matrix for dropout: line i belongs to data row rows[i], token positions[i].
typedef struct {
    const uint32_t *rows;      // (M)
    const int32_t *positions;  // (M)
} Lines;

// By lines. out[t] = word[ids[t]] + position[positions[t]] + type[0].
void embedding_forward(Device *device, float *out /* (T, H) */, const float *word /* (V, H) */,
                       const float *position /* (P, H) */, const float *type /* (H) */, const int32_t *ids /* (T) */,
                       const int32_t *positions /* (T) */, Extent T, int H);

// All lines. The gradients of the tables. Row `padding` of the word table gets none, as
// torch.nn.Embedding(padding_idx); -1: there is none.
void embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                        const int32_t *ids, const int32_t *positions, int padding, bool accumulate, int V, int P,
                        Extent T, int H);

// By lines. out = in with dropout; also its own backward. out may be in.
void dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, Extent M, int N);

// By lines. normalized = (in - mean) * rstd over each line, kept for backward with rstd (M); out = normalized * weight
// + bias. normalized may be in.
void layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in, const float *weight,
                       const float *bias, float epsilon, Extent M, int N);

// By lines. The end of both halves of a layer: layernorm_forward of residual + dropout(in). normalized may be in.
void residual_layernorm_forward(Device *device, float *out, float *normalized, float *rstd, const float *in,
                                const float *residual, const float *weight, const float *bias, float epsilon,
                                Lines lines, Dropout dropout, Extent M, int N);

// By lines.
void layernorm_backward_input(Device *device, float *din, const float *dout, const float *normalized, const float *rstd,
                              const float *weight, Extent M, int N);
// All lines.
void layernorm_backward_parameters(Device *device, float *dweight, float *dbias, const float *dout,
                                   const float *normalized, bool accumulate, Extent M, int N);

// By lines. out = in weight^T + bias.
void linear_forward(Device *device, float *out /* (M, N) */, const float *in /* (M, K) */,
                    const float *weight /* (N, K) */, const float *bias /* (N) */, Extent M, int N, int K);

// By lines. out = gelu(in weight^T + bias) with the error function, x Phi(x), not tanh; derivative (M, N) receives its
// derivative there unless it is NULL.
void linear_gelu_forward(Device *device, float *out, float *derivative, const float *in, const float *weight,
                         const float *bias, Extent M, int N, int K);

// By lines. din (M, K) = dout weight, plus residual (M, K) unless it is NULL. din may be residual.
void linear_backward_input(Device *device, float *din, const float *dout, const float *weight, const float *residual,
                           Extent M, int N, int K);

// By lines. din (M, K) = dout weight * derivative, element by element: also the backward of the GELU before this layer.
void linear_gelu_backward_input(Device *device, float *din, const float *dout, const float *weight,
                                const float *derivative, Extent M, int N, int K);

// All lines. dweight (N, K): dout^T in; dbias (N): column sums of dout.
void linear_backward_weight(Device *device, float *dweight, float *dbias, const float *dout, const float *in,
                            bool accumulate, Extent M, int N, int K);

// By lines.
void tanh_forward(Device *device, float *out, const float *in, Extent M, int N);
void tanh_backward(Device *device, float *din, const float *dout, const float *out, Extent M, int N);

// Sequence b has the lines starts[b] .. starts[b + 1] of the matrices with T lines, and is data row rows[b].
typedef struct {
    const int32_t *starts;  // (B + 1)
    const uint32_t *rows;   // (B)
    Extent B, T;
    int A, D;
    int longest;  // no sequence is longer
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
                                   const float *dcontext, ClsAttention saved, const float *q, bool accumulate, Extent B,
                                   int A, int D);

// By lines. losses[b] = -log softmax(logits[b])[labels[b]]; dlogits = scale * (softmax - one hot), unless dlogits is
// NULL.
void cross_entropy(Device *device, float *losses /* (B) */, float *dlogits /* (B, C) */, const float *logits,
                   const int32_t *labels, Factor scale, Extent B, int C);

// By lines of M, of all lines of `in` or `out`. out[i] = in[lines[i]] (M lines of N); out[lines[i]] += in[i] with
// distinct lines.
void gather_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N);
void scatter_add_lines(Device *device, float *out, const float *in, const int32_t *lines, Extent M, int N);

// By elements. out += in.
void add(Device *device, float *out, const float *in, size_t count);

// Not inside device_run. Sums of the squares of blocks of SQUARE_BLOCK elements, in double, into host memory: sums
// (square_blocks(count)).
enum { SQUARE_BLOCK = 8192 };
static inline size_t square_blocks(size_t count) { return (count + SQUARE_BLOCK - 1) / SQUARE_BLOCK; }
void square_sums(Device *device, double *sums, const float *in, size_t count);

// The sum of these, in their order.
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

// What follows is for recorded steps alone, where device_records is true.

// A step of a recorded run: which batch, and the numbers that change from step to step.
typedef struct {
    int32_t sequences, tokens;
    int64_t first_sequence, first_token;  // of its batch in the arrays of all steps
    uint32_t step;                        // key of its dropout
    float scale;                          // of its losses' gradient
    AdamW adamw;                          // gradient_scale: as if not clipped
} Step;

// The arrays of batches in device memory, of one step or of many end to end. starts of sequence b of step s, relative
// to the step's first token, is at index first_sequence + s + b: each step has one more than it has sequences.
typedef struct {
    int32_t *ids, *positions;  // (T)
    uint32_t *rows;            // (T)
    int32_t *starts;           // (B + 1)
    int32_t *labels;           // (B)
    uint32_t *sequence_rows;   // (B)
} BatchArrays;

// Copies step steps[*next] and its batch, of up to T.most tokens, to `step` and `batch`, which the operations of a
// recording work on.
void step_take(Device *device, Step *step, BatchArrays batch, const Step *steps, BatchArrays batches,
               const int32_t *next, Extent T);

// square_sums into device memory, and behind them the sum of the losses: sums (square_blocks(count) + 1).
void step_sums(Device *device, double *sums, const float *in, size_t count, const float *losses, Extent B);

// adamw_update with the factors of *step, scaled so that the norm of the gradient, the root of the sum of the `blocks`
// sums, is at most max_norm where that is not 0. Where *halted is not 0 or the norm or the loss is not finite, nothing
// is updated. decay: false as if weight_decay were 0.
void step_adamw(Device *device, float *weight, float *first_moment, float *second_moment, const float *gradient,
                const Step *step, const double *sums, size_t blocks, float max_norm, const int32_t *halted, bool decay,
                size_t count);

// Ends a step: what it computed goes to results[*next], *halted becomes 1 where the norm or the loss is not finite, and
// *next counts on.
typedef struct {
    double loss;     // sum over this rank's sequences
    double squares;  // sum of the squares of the gradient
} StepSums;
void step_end(Device *device, StepSums *results, int32_t *halted, int32_t *next, const double *sums, size_t blocks);

#ifdef __cplusplus
}
#endif
#endif
