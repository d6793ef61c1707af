// The safetensors format (huggingface/safetensors): 8 bytes of header length, a JSON header, the tensors' bytes.
// Read with all the rules of its specification enforced; nothing in a file can make this code touch other memory.
#ifndef BERTUNE_SAFETENSORS_H
#define BERTUNE_SAFETENSORS_H

#include "datasets/file.h"

enum { SAFETENSORS_MAX_DIMENSIONS = 8 };

typedef enum { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_OTHER } Dtype;

typedef struct {
    char *name;
    Dtype dtype;
    int dimensions;
    int64_t shape[SAFETENSORS_MAX_DIMENSIONS];
    size_t elements;
    const unsigned char *data;
} SafeTensor;

typedef struct {
    char *path;
    char *bytes;  // the whole file
    SafeTensor *tensors;
    int count;
} SafeTensors;

// Reads the file into memory. EX_NOINPUT when missing, EX_DATAERR with the rule that is broken. Free with
// safetensors_close.
bool safetensors_open(SafeTensors *file, const char *path, Error *error);
void safetensors_close(SafeTensors *file);

// The tensor of that name, or NULL.
const SafeTensor *safetensors_find(const SafeTensors *file, const char *name);

// Converts elements first .. first + count - 1 to fp32. The tensor's dtype is one of the four floating-point ones.
void safetensors_read(const SafeTensor *tensor, float *out, size_t first, size_t count);

// One fp32 tensor to write: columns 0 means one-dimensional.
typedef struct {
    const char *name;
    int64_t rows, columns;
    const float *data;
} TensorView;

// Writes the tensors in the given order with the metadata {"format": "pt"} to a plain file that is fsynced. hash may be
// NULL (file_write_parts).
bool safetensors_write(const char *path, const TensorView *tensors, int count, FileHash *hash, Error *error);

#endif
