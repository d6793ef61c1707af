// See lines.h.
#include "trainer/lines.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "datasets/utf8.h"

static bool check_line(const char *what, const char *text, size_t length, int64_t number, Error *error) {
    size_t bad;
    if (utf8_valid(text, length, &bad) && !memchr(text, 0, length)) { return true; }
    return error_set(error, EX_DATAERR, "%s %lld: not valid UTF-8 text", what, (long long)number);
}

static void split(TextLines *lines, size_t length) {
    char *end = lines->storage + length;
    int64_t capacity = 0;
    for (char *line = lines->storage; line < end;) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        char *stop = newline ? newline : end;
        if (lines->count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            lines->texts = check_realloc(lines->texts, (size_t)capacity, sizeof *lines->texts);
            lines->lengths = check_realloc(lines->lengths, (size_t)capacity, sizeof *lines->lengths);
        }
        size_t width = (size_t)(stop - line);
        if (width && line[width - 1] == '\r') { width--; }
        line[width] = 0;
        lines->texts[lines->count] = line;
        lines->lengths[lines->count++] = width;
        line = stop + 1;
    }
}

bool lines_read(TextLines *lines, const char *path, Error *error) {
    *lines = (TextLines){0};
    size_t length;
    if (!file_read(&lines->storage, &length, path, (size_t)1 << 40, error)) { return false; }
    split(lines, length);
    bool ok = true;
    for (int64_t i = 0; ok && i < lines->count; i++) {
        ok = check_line("<stdin>: line", lines->texts[i], lines->lengths[i], i + 1, error);
    }
    if (!ok) { lines_free(lines); }
    return ok;
}

bool lines_take(TextLines *lines, char **texts, int count, Error *error) {
    *lines = (TextLines){.count = count};
    lines->texts = check_calloc((size_t)count, sizeof *lines->texts);
    lines->lengths = check_calloc((size_t)count, sizeof *lines->lengths);
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        lines->texts[i] = texts[i];
        lines->lengths[i] = strlen(texts[i]);
        ok = check_line("argument", texts[i], lines->lengths[i], i + 1, error);
    }
    if (!ok) { lines_free(lines); }
    return ok;
}

void lines_free(TextLines *lines) {
    free(lines->texts);
    free(lines->lengths);
    free(lines->storage);
    *lines = (TextLines){0};
}
