// MANIFEST: the last file to be written of a directory that must be whole, one line of XXH3-128, size and name for each
// of its files.
#ifndef BERTUNE_MANIFEST_H
#define BERTUNE_MANIFEST_H

#include "datasets/file.h"

typedef struct {
    char text[2048];
} Manifest;

// Writes directory/name, durably, and lists it.
bool manifest_write(Manifest *manifest, const char *directory, const char *name, const void *bytes, size_t length,
                    Error *error);

// Lists a file that has been written.
void manifest_add(Manifest *manifest, const char *name, const FileHash *hash);

// Writes directory/MANIFEST.
bool manifest_finish(const Manifest *manifest, const char *directory, Error *error);

// True when the directory's MANIFEST lists the files of these names, in this order and no others, and every byte of
// them is as it was written. EX_NOINPUT when there is no such directory, else EX_DATAERR: which file is damaged, and
// how.
bool manifest_verify(const char *directory, const char *const *names, int count, Error *error);

#endif
