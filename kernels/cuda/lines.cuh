// Line programs: operations that work line by line, run one after the other on a line that stays in shared memory. The
// operations of kernels.h that are "by lines" append their steps to the device's pending program as long as each reads
// what the one before it wrote; the program then runs as a kernel of its own, a warp a line, or as the first part of
// the matrix product that reads its last output (product.cuh).
#ifndef BERTUNE_LINES_CUH
#define BERTUNE_LINES_CUH

#include <cuda_runtime.h>

#include "kernels/kernels.h"

typedef enum {
    LINE_LOAD,            // line = in[0]; with index: line index[0] of it
    LINE_EMBED,           // line = rows of the three tables in[], of which index[] are the lines of the first two
    LINE_DROPOUT,         // line = dropout(line)
    LINE_ADD,             // line += in[0]
    LINE_TANH,            // line = tanh(line)
    LINE_TANH_BACKWARD,   // line *= 1 - in[0]^2
    LINE_NORM,            // out[0], out[1] = normalized, rstd; line = normalized * in[0] + in[1]
    LINE_NORM_BACKWARD,   // from normalized, rstd, weight in in[0], in[1], in[2]
    LINE_STORE,           // out[0] = line
    LINE_LOAD_SMALL,      // small = in[0] (M, classes)
    LINE_LINEAR_SMALL,    // small = out[0] = line in[0]^T + in[1] (classes, N), (classes)
    LINE_BACKWARD_SMALL,  // line = small in[0]
    LINE_CROSS_ENTROPY  // losses out[0], gradient small = out[1] unless NULL; of in[0], or of small where that is NULL
} LineKind;

typedef struct {
    LineKind kind;
    int classes;
    bool rounded;  // the small products see bfloat16 operands
    float epsilon;
    const float *in[3];
    float *out[2];
    const int32_t *index[2];
    Lines lines;
    Dropout dropout;
    Factor scale;
} LineStep;

enum {
    LINE_STEPS = 10,
    LINE_SMALL = 16  // most classes that a program keeps beside its line
};

typedef struct {
    Extent M;
    int N;  // 0: there is no line yet, only the small one
    int count;
    const float *last;  // the output in the line, or in the small one
    bool last_small;
    LineStep steps[LINE_STEPS];
} LineProgram;

typedef struct CudaDevice CudaDevice;

// The pending program, if `in` (M, N) is its last output and it takes `room` more steps; else a new one that begins
// with loading `in`.
LineProgram *lines_continue(CudaDevice *device, const float *in, bool small, Extent M, int N, int room);
// A new program without steps.
LineProgram *lines_begin(CudaDevice *device, Extent M, int N);
// Appends a step of the kind, zeroed.
LineStep *lines_add(LineProgram *program, LineKind kind);
// Appends the storing of the line to out.
void lines_store(LineProgram *program, float *out);

// Moves the pending program into *taken, when `in` (M, N) is its last output and several blocks may run it at the same
// time with only one storing: neither what it reads nor what the product reads besides (`others`, NULL is none) is
// written by it or is the product's `out`. Else launches it.
bool lines_take(CudaDevice *device, LineProgram *taken, const float *in, Extent M, int N, const float *out,
                const float *const others[2]);

// The rows of a tile in shared memory, and beside each LINE_SMALL floats.
typedef struct {
    float *rows, *small;
    int pitch;  // floats from row to row
    int count;
} LineTile;

// lines_run is in lines_run.cuh.

#endif
