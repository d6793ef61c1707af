// Comma-separated values after RFC 4180: quoted fields, "" inside quotes, newlines inside quotes, LF or CRLF, a UTF-8
// byte order mark before the first field, a last line with or without its newline. Blank lines are skipped, as Python's
// csv and pandas do. The text is parsed in place of a buffer that the caller keeps; fields are copied out unquoted.
#ifndef BERTUNE_CSV_H
#define BERTUNE_CSV_H

#include "kernels/check.h"

typedef struct {
    const char *name;     // shown in messages; borrowed
    const char *text;     // borrowed, need not end with NUL
    size_t length;        // bytes
    size_t position;      // of the next record
    int64_t line;         // 1-based line of the next record
    int64_t record_line;  // 1-based line on which the record last read begins
    char *storage;        // the unquoted bytes of the record, fields NUL-terminated one after the other
    size_t storage_capacity;
    char **fields;    // fields[i] points into storage
    size_t *lengths;  // bytes of fields[i] without the NUL
    size_t count;     // fields of the record last read
    size_t field_capacity;
} Csv;

typedef enum { CSV_RECORD, CSV_END, CSV_BAD } CsvResult;

// Starts at the beginning of text (a byte order mark is skipped). csv_free releases the storage.
void csv_init(Csv *csv, const char *name, const char *text, size_t length);

// Reads the next record; its fields stay valid until the next call. CSV_BAD: error says `name:line: ...` (a quote in an
// unquoted field, text behind a closing quote, a quote never closed, a carriage return without line feed outside
// quotes, a NUL byte, invalid UTF-8; code EX_DATAERR) and reading can go on behind the damaged record. A quote never
// closed damages one line only: reading goes on with the next line.
CsvResult csv_next(Csv *csv, Error *error);

void csv_free(Csv *csv);

#endif
