// See vocabulary.h. Tokens lie in one block in the order of their ids; a hash table with linear probing, at most half
// full, finds them.
#include "datasets/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "datasets/utf8.h"

enum { FILE_LIMIT = 64 << 20 };

static uint32_t hash(const char *bytes, size_t length) {
    uint32_t value = 2166136261u;
    for (size_t i = 0; i < length; i++) { value = (value ^ (unsigned char)bytes[i]) * 16777619u; }
    return value ^ (value >> 15);
}

static size_t token_length(const Vocabulary *vocabulary, int32_t id) {
    return (size_t)(vocabulary->tokens[id + 1] - vocabulary->tokens[id]) - 1;
}

// The bucket that holds the token, or the empty one where it belongs.
static int32_t *find_bucket(const Vocabulary *vocabulary, const char *token, size_t length) {
    for (uint32_t at = hash(token, length);; at++) {
        int32_t *bucket = &vocabulary->buckets[at & vocabulary->bucket_mask];
        if (*bucket < 0) { return bucket; }
        if (token_length(vocabulary, *bucket) == length && !memcmp(vocabulary->tokens[*bucket], token, length)) {
            return bucket;
        }
    }
}

int32_t vocabulary_find(const Vocabulary *vocabulary, const char *token, size_t length) {
    return *find_bucket(vocabulary, token, length);
}

void vocabulary_free(Vocabulary *vocabulary) {
    free(vocabulary->text);
    free(vocabulary->tokens);
    free(vocabulary->buckets);
    *vocabulary = (Vocabulary){0};
}

static bool check_text(const char *name, const char *text, size_t length, Error *error) {
    if (length > FILE_LIMIT) { return error_set(error, EX_DATAERR, "%s: larger than %d bytes", name, FILE_LIMIT); }
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        return error_set(error, EX_DATAERR, "%s:1: a byte order mark, which would become part of the first token",
                         name);
    }
    size_t bad = 0;
    const char *what = "invalid UTF-8";
    if (utf8_valid(text, length, &bad)) {
        const char *nul = length ? memchr(text, '\0', length) : NULL;
        if (!nul) { return true; }
        bad = (size_t)(nul - text);
        what = "a NUL byte";
    }
    int line = 1;
    for (size_t i = 0; i < bad; i++) { line += text[i] == '\n'; }
    return error_set(error, EX_DATAERR, "%s:%d: %s", name, line, what);
}

// Copies the lines into text and tokens; the last may lack its newline.
static bool split_lines(Vocabulary *vocabulary, const char *name, const char *text, size_t length, Error *error) {
    int32_t lines = 0;
    for (size_t i = 0; i < length; i++) { lines += text[i] == '\n' || i + 1 == length; }
    vocabulary->text = check_calloc(length + 1, 1);
    vocabulary->tokens = check_calloc((size_t)lines + 1, sizeof *vocabulary->tokens);
    char *out = vocabulary->text;
    for (const char *line = text, *end = text + length; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t bytes = (size_t)((newline ? newline : end) - line);
        if (bytes && line[bytes - 1] == '\r') { bytes--; }
        int32_t number = vocabulary->size + 1;
        if (bytes == 0) { return error_set(error, EX_DATAERR, "%s:%d: an empty line", name, number); }
        if (memchr(line, '\r', bytes)) {
            return error_set(error, EX_DATAERR, "%s:%d: a carriage return inside a token", name, number);
        }
        vocabulary->tokens[vocabulary->size++] = out;
        memcpy(out, line, bytes);
        out += bytes + 1;
        line = newline ? newline + 1 : end;
    }
    vocabulary->tokens[vocabulary->size] = out;
    return true;
}

static bool index_tokens(Vocabulary *vocabulary, const char *name, Error *error) {
    uint32_t buckets = 16;
    while (buckets / 2 < (uint32_t)vocabulary->size) { buckets *= 2; }
    vocabulary->bucket_mask = buckets - 1;
    vocabulary->buckets = check_calloc(buckets, sizeof *vocabulary->buckets);
    memset(vocabulary->buckets, -1, buckets * sizeof *vocabulary->buckets);
    for (int32_t id = 0; id < vocabulary->size; id++) {
        const char *token = vocabulary->tokens[id];
        int32_t *bucket = find_bucket(vocabulary, token, token_length(vocabulary, id));
        if (*bucket >= 0) {
            return error_set(error, EX_DATAERR, "%s:%d: the token \"%.100s\" is already on line %d", name, id + 1,
                             token, *bucket + 1);
        }
        *bucket = id;
    }
    return true;
}

static bool find_special(const Vocabulary *vocabulary, int32_t *id, const char *token, const char *name, Error *error) {
    *id = vocabulary_find(vocabulary, token, strlen(token));
    return *id >= 0 || error_set(error, EX_DATAERR, "%s: the token %s is missing", name, token);
}

bool vocabulary_parse(Vocabulary *vocabulary, const char *name, const char *text, size_t length, Error *error) {
    *vocabulary = (Vocabulary){0};
    Vocabulary *v = vocabulary;
    sha256_hex(v->sha256, text, length);
    bool ok = check_text(name, text, length, error) && split_lines(v, name, text, length, error) &&
              index_tokens(v, name, error) && find_special(v, &v->pad, "[PAD]", name, error) &&
              find_special(v, &v->unk, "[UNK]", name, error) && find_special(v, &v->cls, "[CLS]", name, error) &&
              find_special(v, &v->sep, "[SEP]", name, error) && find_special(v, &v->mask, "[MASK]", name, error);
    if (!ok) { vocabulary_free(vocabulary); }
    return ok;
}

bool vocabulary_read(Vocabulary *vocabulary, const char *path, Error *error) {
    char *text;
    size_t length;
    *vocabulary = (Vocabulary){0};
    if (!file_read(&text, &length, path, FILE_LIMIT, error)) { return false; }
    bool ok = vocabulary_parse(vocabulary, path, text, length, error);
    free(text);
    return ok;
}
