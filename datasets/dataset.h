// The data set file: tokenized reviews in HDF5, written by `bertune prepare`, read by every rank in parts.
//
// Groups /train, /validation and, when cut, /dev hold `tokens` (all rows end to end), `offsets` (rows + 1), `labels`
// and `source_row`; where /dev was cut from /train, both also `position`. /vocabulary/active is the sorted list of
// token ids that occur, and [PAD]. Chunked with Fletcher-32. Behind the HDF5 bytes stands a trailer with their XXH3-128
// (the HDF5 library never sees it), which is checked before a byte reaches the library: libhdf5 is not safe on hostile
// files. No MPI here: a caller that reads in parallel hands in its property lists.
#ifndef BERTUNE_DATASET_H
#define BERTUNE_DATASET_H

#include <hdf5.h>

#include "kernels/check.h"

// Reviews end to end: row i is tokens[offsets[i]] .. tokens[offsets[i + 1]] with [CLS] and [SEP].
typedef struct {
    int64_t rows;
    int64_t token_count;
    int64_t *offsets;     // (rows + 1)
    int32_t *tokens;      // (token_count) vocabulary ids
    int32_t *labels;      // (rows)
    int64_t *source_row;  // (rows) 0-based row of the CSV, header not counted
    // (rows) of /train and /dev: where the row stood among the training rows before /dev was cut; NULL: not cut, or not
    // read. Borrowed.
    const int64_t *position;
} Reviews;

enum { DATASET_MAX_CLASSES = 1024, DATASET_NAME_SIZE = 64 };

typedef struct {
    char vocabulary_sha256[65], source_sha256[65];
    int32_t vocabulary_size;
    int32_t max_length;  // tokens of the longest row allowed
    int32_t classes;
    char (*label_names)[DATASET_NAME_SIZE];  // (classes)
    char split_rule[256];
    int32_t active_count;
    int32_t *active;  // (active_count) sorted token ids
} DatasetInfo;

typedef struct {
    char path[4096];
    hid_t file;
    DatasetInfo info;
} Dataset;

// Writes the groups that have rows; names: "train", "validation", "dev". EX_CANTCREAT or EX_IOERR, nothing left behind.
bool dataset_write(const char *path, const DatasetInfo *info, const Reviews *const *groups, const char *const *names,
                   int count, Error *error);

// Checks the trailer without the HDF5 library: EX_NOINPUT when the file is missing, EX_DATAERR when it is no HDF5 file
// or its bytes have changed. A file that ends where its HDF5 data end (written by another tool) passes.
bool dataset_verify(const char *path, Error *error);

// Opens a verified file and reads its attributes and active vocabulary. access: H5P_DEFAULT, or a file access list for
// parallel reading (then collective over its communicator). Close with dataset_close also after a failure.
bool dataset_open(Dataset *dataset, const char *path, hid_t access, Error *error);
void dataset_close(Dataset *dataset);

bool dataset_has_group(const Dataset *dataset, const char *group);

// rows and token_count of a group; EX_DATAERR when it is missing or its parts do not fit together.
bool dataset_sizes(const Dataset *dataset, const char *group, Reviews *reviews, Error *error);

// Reads rows first .. first + count - 1 of the group to their places in reviews, whose arrays are allocated for the
// whole group; offsets[first + count] is read too. Everything read is checked (order, lengths, ids, labels):
// EX_DATAERR. transfer: H5P_DEFAULT or a collective transfer list.
bool dataset_read_rows(const Dataset *dataset, const char *group, Reviews *reviews, int64_t first, int64_t count,
                       hid_t transfer, Error *error);

// Reads position (rows): 0 to total - 1 and no two alike within the group, else EX_DATAERR.
bool dataset_read_position(const Dataset *dataset, const char *group, int64_t *position, int64_t rows, int64_t total,
                           Error *error);

// The whole group into memory of its own; release with reviews_free.
bool dataset_read(const Dataset *dataset, const char *group, Reviews *reviews, Error *error);

// Allocates the arrays for rows and token_count, which the caller has set.
void reviews_alloc(Reviews *reviews);
void reviews_free(Reviews *reviews);

#endif
