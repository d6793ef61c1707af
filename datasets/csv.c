// See csv.h. One pass over the bytes of a record copies the fields out; a record that breaks a rule is skipped up to a
// newline, so one damaged line costs one message and never the rest of the file.
#include "datasets/csv.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/utf8.h"

// Where the reader stands inside a record; csv itself moves on when the record is complete.
typedef struct {
    size_t position;
    size_t stored;  // bytes in storage
} Cursor;

void csv_init(Csv *csv, const char *name, const char *text, size_t length) {
    *csv = (Csv){.name = name, .text = text, .length = length, .line = 1};
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { csv->position = 3; }
}

void csv_free(Csv *csv) {
    free(csv->storage);
    free(csv->fields);
    free(csv->lengths);
    *csv = (Csv){0};
}

static bool at_newline(const Csv *csv, size_t position) {
    if (position >= csv->length) { return false; }
    if (csv->text[position] == '\r') { position++; }
    return position < csv->length && csv->text[position] == '\n';
}

static int64_t count_lines(const char *text, size_t length) {
    int64_t lines = 0;
    const char *end = text + length;
    for (const char *at = text; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++) { lines++; }
    return lines;
}

static void go_on_at(Csv *csv, size_t position) {
    csv->line += count_lines(csv->text + csv->position, position - csv->position);
    csv->position = position;
}

// Reports what is wrong at `damage` and goes on behind the first newline at or behind `from`.
static CsvResult fail(Csv *csv, size_t damage, size_t from, const char *what, Error *error) {
    int64_t line = csv->line + count_lines(csv->text + csv->position, damage - csv->position);
    const char *newline = from < csv->length ? memchr(csv->text + from, '\n', csv->length - from) : NULL;
    go_on_at(csv, newline ? (size_t)(newline - csv->text) + 1 : csv->length);
    error_set(error, EX_DATAERR, "%s:%lld: %s", csv->name, (long long)line, what);
    return CSV_BAD;
}

static void store(Csv *csv, Cursor *cursor, const char *bytes, size_t length) {
    if (length > csv->storage_capacity - cursor->stored) {
        csv->storage_capacity = 2 * (cursor->stored + length);
        csv->storage = check_realloc(csv->storage, csv->storage_capacity, 1);
    }
    if (length) { memcpy(csv->storage + cursor->stored, bytes, length); }
    cursor->stored += length;
}

static bool ends_plain(char byte) { return byte == ',' || byte == '"' || byte == '\r' || byte == '\n'; }

static void read_plain(Csv *csv, Cursor *cursor) {
    size_t start = cursor->position;
    while (cursor->position < csv->length && !ends_plain(csv->text[cursor->position])) { cursor->position++; }
    store(csv, cursor, csv->text + start, cursor->position - start);
}

// False when the field is never closed.
static bool read_quoted(Csv *csv, Cursor *cursor) {
    for (;;) {
        size_t start = cursor->position + 1;
        const char *quote = start < csv->length ? memchr(csv->text + start, '"', csv->length - start) : NULL;
        if (!quote) { return false; }
        size_t length = (size_t)(quote - csv->text) - start;
        cursor->position = start + length + 1;
        bool escaped = cursor->position < csv->length && csv->text[cursor->position] == '"';
        store(csv, cursor, csv->text + start, length + escaped);
        if (!escaped) { return true; }
    }
}

static void close_field(Csv *csv, Cursor *cursor, size_t field_start) {
    store(csv, cursor, "", 1);
    if (csv->count == csv->field_capacity) {
        csv->field_capacity = csv->field_capacity ? 2 * csv->field_capacity : 16;
        csv->fields = check_realloc(csv->fields, csv->field_capacity, sizeof *csv->fields);
        csv->lengths = check_realloc(csv->lengths, csv->field_capacity, sizeof *csv->lengths);
    }
    csv->lengths[csv->count++] = cursor->stored - 1 - field_start;
}

static const char *describe_damage(char byte, bool quoted) {
    if (quoted) { return "text behind the closing quote of a field"; }
    if (byte == '"') { return "a quote inside a field that does not begin with one"; }
    return "a carriage return without a line feed outside quotes";
}

// The record is complete but for its fields' content; cursor stands at its newline or the end of the text.
static CsvResult finish_record(Csv *csv, const Cursor *cursor, Error *error) {
    size_t end = cursor->position, bad;
    const char *record = csv->text + csv->position;
    const char *nul = memchr(record, '\0', end - csv->position);
    if (nul) { return fail(csv, (size_t)(nul - csv->text), end, "a NUL byte", error); }
    if (!utf8_valid(record, end - csv->position, &bad)) {
        return fail(csv, csv->position + bad, end, "invalid UTF-8", error);
    }
    // Only now, as storage moves while it grows.
    char *field = csv->storage;
    for (size_t i = 0; i < csv->count; field += csv->lengths[i++] + 1) { csv->fields[i] = field; }
    if (end < csv->length) { end += csv->text[end] == '\r' ? 2 : 1; }
    go_on_at(csv, end);
    return CSV_RECORD;
}

CsvResult csv_next(Csv *csv, Error *error) {
    while (at_newline(csv, csv->position)) {
        go_on_at(csv, csv->position + (csv->text[csv->position] == '\r' ? 2 : 1));
    }
    if (csv->position == csv->length) { return CSV_END; }
    csv->record_line = csv->line;
    csv->count = 0;
    Cursor cursor = {.position = csv->position};
    for (;; cursor.position++) {
        size_t field_start = cursor.stored;
        bool quoted = cursor.position < csv->length && csv->text[cursor.position] == '"';
        if (!quoted) {
            read_plain(csv, &cursor);
        } else if (!read_quoted(csv, &cursor)) {
            return fail(csv, csv->position, csv->position, "a quoted field that is never closed", error);
        }
        close_field(csv, &cursor, field_start);
        if (cursor.position == csv->length || at_newline(csv, cursor.position)) {
            return finish_record(csv, &cursor, error);
        }
        char byte = csv->text[cursor.position];
        if (byte != ',') { return fail(csv, cursor.position, cursor.position, describe_damage(byte, quoted), error); }
    }
}
