// What the writer and the reader of the data set file agree on; see dataset.h.
#ifndef BERTUNE_DATASET_FORMAT_H
#define BERTUNE_DATASET_FORMAT_H

#include <xxhash.h>

enum { DATASET_VERSION = 1 };

// The last 32 bytes of the file, behind the end of the HDF5 data.
typedef struct {
    char magic[16];
    unsigned char hash[16];  // XXH3-128 of all bytes before the trailer, canonical (big-endian)
} DatasetTrailer;

static const char dataset_trailer_magic[16] = "bertune xxh3-128";

#endif
