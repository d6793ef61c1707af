// Texts given as lines of a file or as arguments, checked to be UTF-8.
#ifndef BERTUNE_LINES_H
#define BERTUNE_LINES_H

#include "kernels/check.h"

typedef struct {
    int64_t count;
    char **texts;     // (count) NUL-terminated; a NUL inside a line is EX_DATAERR
    size_t *lengths;  // (count) bytes
    char *storage;    // what texts point into, or NULL
} TextLines;

// Lines of path ("-": stdin) without LF or CRLF; a last line without newline counts. EX_DATAERR names the line.
bool lines_read(TextLines *lines, const char *path, Error *error);

// Borrows the texts.
bool lines_take(TextLines *lines, char **texts, int count, Error *error);

void lines_free(TextLines *lines);

#endif
