// See report_json.h.
#include "trainer/report/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "datasets/file.h"

json_t *object_parse(const char *text, size_t length, const char *place, Error *error) {
    json_error_t fault;
    json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &fault);
    if (json_is_object(json)) { return json; }
    error_set(error, EX_DATAERR, "%s: not a JSON object: %s", place, json ? "another value" : fault.text);
    json_decref(json);
    return NULL;
}

json_t *object_read(const char *path, size_t limit, Error *error) {
    struct stat status;
    char *text;
    size_t length;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {  // a pipe would wait for its writer
        error_set(error, EX_NOINPUT, "%s: not a plain file", path);
        return NULL;
    }
    if (!file_read(&text, &length, path, limit, error)) { return NULL; }
    json_t *json = object_parse(text, length, path, error);
    free(text);
    return json;
}

Fields fields_of(const json_t *json, const char *place, Error *error) { return (Fields){json, place, error, true}; }

bool fields_reject(Fields *fields, const char *key, const char *expected) {
    if (fields->ok) { error_set(fields->error, EX_DATAERR, "%s: `%s`: expected %s", fields->place, key, expected); }
    return fields->ok = false;
}

static const json_t *value_of(const Fields *fields, const char *key) {
    const json_t *value = json_object_get(fields->json, key);
    return json_is_null(value) ? NULL : value;
}

double fields_real(Fields *fields, const char *key) {
    const json_t *value = value_of(fields, key);
    if (value && !json_is_number(value)) { fields_reject(fields, key, "a number"); }
    return json_is_number(value) ? json_number_value(value) : NAN;
}

int64_t fields_integer(Fields *fields, const char *key, int64_t least, int64_t fallback) {
    const int64_t most = (int64_t)1 << 53;
    const json_t *value = value_of(fields, key);
    if (!value) { return fallback; }
    const int64_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most) {
        fields_reject(fields, key, least == 0 ? "an integer from 0" : "an integer in range");
        return fallback;
    }
    return number;
}

const char *fields_text(Fields *fields, const char *key) {
    const json_t *value = value_of(fields, key);
    if (value && !json_is_string(value)) { fields_reject(fields, key, "a text"); }
    return json_string_value(value);
}

const json_t *fields_object(Fields *fields, const char *key) {
    const json_t *value = value_of(fields, key);
    if (value && !json_is_object(value)) { fields_reject(fields, key, "an object"); }
    return json_is_object(value) ? value : NULL;
}

const json_t *fields_array(Fields *fields, const char *key) {
    const json_t *value = value_of(fields, key);
    if (value && !json_is_array(value)) { fields_reject(fields, key, "a list"); }
    return json_is_array(value) ? value : NULL;
}
