// What the tests that write files share: a directory of their own that is removed at the end of the program, whatever
// happened in it, and whole files in and out without error handling (a failure fails the test).
#ifndef BERTUNE_SCRATCH_H
#define BERTUNE_SCRATCH_H

#include "tests/text_fixture.h"

enum { SCRATCH_PATH = 512 };

typedef struct {
    char text[SCRATCH_PATH];
} ScratchPath;

// The path of name inside the directory of this process, which is created when first asked for.
ScratchPath scratch(const char *name);

// Creates the directory of that name in it, empty even when there was one, and returns its path.
ScratchPath scratch_directory(const char *name);

// Writes a file; path is absolute.
void scratch_write(const char *path, const void *bytes, size_t length);

// Reads a file; release with free.
unsigned char *scratch_read(const char *path, size_t *length);

bool scratch_exists(const char *path);

// Entries of a directory, "." and ".." not counted.
int scratch_count(const char *directory);

#endif
