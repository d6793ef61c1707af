// JSON objects from outside: read, and their values taken with their type and range checked.
#ifndef BERTUNE_REPORT_JSON_H
#define BERTUNE_REPORT_JSON_H

#include <jansson.h>

#include "kernels/check.h"

// Parses length bytes that must be one JSON object without repeated keys, or gives NULL with EX_DATAERR at `place`.
json_t *object_parse(const char *text, size_t length, const char *place, Error *error);

// A file of at most limit bytes that holds one object. EX_NOINPUT when it is missing or no plain file, EX_DATAERR.
json_t *object_read(const char *path, size_t limit, Error *error);

// An object whose values are being taken. The first value of a wrong type or range fills error and clears ok; what is
// taken then does not matter.
typedef struct {
    const json_t *json;
    const char *place;
    Error *error;
    bool ok;
} Fields;

Fields fields_of(const json_t *json, const char *place, Error *error);

// A finite number; NAN where it is null or missing.
double fields_real(Fields *fields, const char *key);

// An integer from least to 2^53; fallback where it is null or missing.
int64_t fields_integer(Fields *fields, const char *key, int64_t least, int64_t fallback);

// A text, borrowed; NULL where it is null or missing.
const char *fields_text(Fields *fields, const char *key);

// An object, borrowed, or an array; NULL where it is null or missing.
const json_t *fields_object(Fields *fields, const char *key);
const json_t *fields_array(Fields *fields, const char *key);

// Rejects the value of key by hand: always false.
bool fields_reject(Fields *fields, const char *key, const char *expected);

#endif
