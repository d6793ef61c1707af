// Labelled texts read from a CSV file.
#ifndef BERTUNE_TABLE_H
#define BERTUNE_TABLE_H

#include "kernels/check.h"

typedef struct {
    int64_t rows;
    char **texts;         // (rows) NUL-terminated copies
    size_t *lengths;      // (rows) bytes
    int32_t *labels;      // (rows); NULL when no label column was asked for
    int64_t *source_row;  // (rows) 0-based record of the CSV, header not counted
    int64_t skipped;      // bad records that were left out
    int64_t capacity;
    char source_sha256[65];
} Table;

// Reads path ("-": stdin). label_column may be NULL. A bad record (quoting, fields, label, UTF-8) is EX_DATAERR with
// file and line, or skipped and counted. Free with table_free.
bool table_read(Table *table, const char *path, const char *text_column, const char *label_column, bool skip_bad,
                Error *error);
void table_free(Table *table);

#endif
