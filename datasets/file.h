// Whole files in and out. What is written appears under its name complete and on disk, or not at all: bytes go to a
// hidden temporary name in the same directory, are fsynced, renamed, and the directory is fsynced.
#ifndef BERTUNE_FILE_H
#define BERTUNE_FILE_H

#include "kernels/check.h"

// Reads the file at path ("-": stdin) of at most limit bytes into *bytes with a NUL behind them; release with free.
// EX_NOINPUT when it is missing or a directory, EX_DATAERR when it is too large, EX_IOERR when reading fails.
bool file_read(char **bytes, size_t *length, const char *path, size_t limit, Error *error);

// Writes length bytes to path, replacing a file that is there. EX_CANTCREAT when the directory is missing or closed to
// us, EX_IOERR when writing fails (a full disk included); then nothing is left behind.
bool file_write(const char *path, const void *bytes, size_t length, Error *error);

// Size and XXH3-128 of a file.
typedef struct {
    size_t length;
    uint64_t high, low;
} FileHash;

typedef struct {
    const void *bytes;
    size_t length;
} FilePart;

// Writes the parts one behind the other and fsyncs the file, which stays under its own name: for files inside a
// temporary directory. hash, unless NULL, receives that of the bytes in memory, not of what the disk gives back, so
// that a file which the disk has spoilt is found.
bool file_write_parts(const char *path, const FilePart *parts, int count, FileHash *hash, Error *error);

// Reads the file piece by piece. EX_NOINPUT when it is missing or no plain file, EX_IOERR.
bool file_hash(FileHash *hash, const char *path, Error *error);

// Creates path and its missing parents, durably. EX_CANTCREAT, EX_IOERR.
bool directory_create(const char *path, Error *error);

// Makes renames and unlinks in the directory durable. EX_IOERR on failure.
bool directory_sync(const char *path, Error *error);

// Renames a complete temporary directory to its final name and makes that durable. A directory of that name is
// exchanged for the new one in one step where the file system can do that, and removed. EX_IOERR on failure: then what
// was there stays.
bool directory_publish(const char *temporary, const char *path, Error *error);

// Removes a directory and the plain files and links in it, or a link, as far as possible; no error when there is none.
// Nothing happens to what a link leads to.
void directory_remove(const char *path);

// Writes directory/name to path (a buffer of size bytes), or ends the program when it does not fit.
void path_join(char *path, size_t size, const char *directory, const char *name);

// The directory part of path ("." when there is none).
void path_parent(char *parent, size_t size, const char *path);

// Lower-case hexadecimal SHA-256 of the bytes.
void sha256_hex(char hex[65], const void *bytes, size_t length);

#endif
