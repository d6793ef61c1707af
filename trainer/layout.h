// The parameters of a model as named, shaped parts of one flat buffer. The table alone drives allocation, import,
// export, checkpoints, weight decay and messages; gradients and moments are buffers of the same layout.
#ifndef BERTUNE_LAYOUT_H
#define BERTUNE_LAYOUT_H

#include "kernels/check.h"

typedef struct {
    char name[128];   // of the tensor in a Hugging Face file, for example bert.pooler.dense.weight
    int64_t rows;     // as trained here; the tables of the embeddings may hold fewer rows than in the file
    int64_t columns;  // 0: one-dimensional, of `rows` elements
    size_t offset;    // of the first element in the buffer
    size_t count;     // elements
    bool decay;       // biases and normalisation weights: false (for the scope no_bias_norm)
} Tensor;

typedef struct {
    Tensor *tensors;
    int count;
    size_t total;  // elements
} Layout;

// Appends a tensor and returns its offset. Neighbours lie without a gap, so that tensors added one after the other can
// be read as one.
size_t layout_add(Layout *layout, int64_t rows, int64_t columns, bool decay, const char *name_format, ...)
    __attribute__((format(printf, 5, 6)));

void layout_free(Layout *layout);

#endif
