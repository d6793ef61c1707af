// See safetensors.h.
#include "trainer/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_LIMIT = 100000000, TENSOR_LIMIT = 100000, LENGTH_BYTES = 8 };

static const struct {
    const char *name;
    Dtype dtype;
    size_t size;
} dtypes[] = {{"F32", DTYPE_F32, 4},    {"F16", DTYPE_F16, 2},       {"BF16", DTYPE_BF16, 2},
              {"F64", DTYPE_F64, 8},    {"I64", DTYPE_OTHER, 8},     {"U64", DTYPE_OTHER, 8},
              {"I32", DTYPE_OTHER, 4},  {"U32", DTYPE_OTHER, 4},     {"I16", DTYPE_OTHER, 2},
              {"U16", DTYPE_OTHER, 2},  {"I8", DTYPE_OTHER, 1},      {"U8", DTYPE_OTHER, 1},
              {"BOOL", DTYPE_OTHER, 1}, {"F8_E4M3", DTYPE_OTHER, 1}, {"F8_E5M2", DTYPE_OTHER, 1}};

static bool find_dtype(const json_t *value, Dtype *dtype, size_t *size) {
    for (size_t i = 0; json_is_string(value) && i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
            *dtype = dtypes[i].dtype;
            *size = dtypes[i].size;
            return true;
        }
    }
    return false;
}

static bool bad_tensor(const SafeTensors *file, const char *name, const char *rule, Error *error) {
    return error_set(error, EX_DATAERR, "%s: tensor `%.100s`: %s", file->path, name, rule);
}

static bool read_shape(const json_t *shape, SafeTensor *tensor) {
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMENSIONS) { return false; }
    tensor->dimensions = (int)json_array_size(shape);
    tensor->elements = 1;
    for (int d = 0; d < tensor->dimensions; d++) {
        const json_t *extent = json_array_get(shape, (size_t)d);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0) { return false; }
        tensor->shape[d] = json_integer_value(extent);
        if (__builtin_mul_overflow(tensor->elements, (size_t)tensor->shape[d], &tensor->elements)) { return false; }
    }
    return true;
}

static bool read_offsets(const json_t *offsets, size_t length, size_t *begin, size_t *end) {
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last)) { return false; }
    if (json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first)) { return false; }
    *begin = (size_t)json_integer_value(first);
    *end = (size_t)json_integer_value(last);
    return *end <= length;
}

static bool read_entry(SafeTensors *file, SafeTensor *tensor, const char *name, const json_t *entry,
                       const unsigned char *data, size_t length, Error *error) {
    size_t size = 0, begin = 0, end = 0, bytes = 0;
    if (!json_is_object(entry) || !find_dtype(json_object_get(entry, "dtype"), &tensor->dtype, &size)) {
        return bad_tensor(file, name, "unknown dtype", error);
    }
    if (!read_shape(json_object_get(entry, "shape"), tensor)) { return bad_tensor(file, name, "invalid shape", error); }
    if (!read_offsets(json_object_get(entry, "data_offsets"), length, &begin, &end)) {
        return bad_tensor(file, name, "data_offsets outside of the file (truncated?)", error);
    }
    if (__builtin_mul_overflow(tensor->elements, size, &bytes) || bytes != end - begin) {
        return bad_tensor(file, name, "data_offsets do not fit dtype and shape", error);
    }
    tensor->name = check_strdup(name);
    tensor->data = data + begin;
    return true;
}

static int by_place(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data) { return x->data < y->data ? -1 : 1; }
    return (x->elements > y->elements) - (x->elements < y->elements);
}

static size_t dtype_bytes(const json_t *header, const SafeTensor *tensor) {
    Dtype dtype;
    size_t size = 0;
    find_dtype(json_object_get(json_object_get(header, tensor->name), "dtype"), &dtype, &size);
    return tensor->elements * size;
}

static bool read_header(SafeTensors *file, const json_t *header, const unsigned char *data, size_t length,
                        Error *error) {
    if (json_object_size(header) > TENSOR_LIMIT) {
        return error_set(error, EX_DATAERR, "%s: more than %d tensors", file->path, TENSOR_LIMIT);
    }
    file->tensors = check_calloc(json_object_size(header), sizeof *file->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) { continue; }
        if (!read_entry(file, &file->tensors[file->count], name, entry, data, length, error)) { return false; }
        file->count++;
    }
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_place);
    const unsigned char *expected = data;
    for (int i = 0; i < file->count; i++) {
        if (file->tensors[i].data != expected) {
            return bad_tensor(file, file->tensors[i].name, "a hole or an overlap before it", error);
        }
        expected += dtype_bytes(header, &file->tensors[i]);
    }
    if (expected != data + length) {
        return error_set(error, EX_DATAERR, "%s: %zu bytes behind the last tensor", file->path,
                         (size_t)(data + length - expected));
    }
    return true;
}

bool safetensors_open(SafeTensors *file, const char *path, Error *error) {
    *file = (SafeTensors){.path = check_strdup(path)};
    size_t length = 0;
    if (!file_read(&file->bytes, &length, path, (size_t)1 << 40, error)) {
        safetensors_close(file);
        return false;
    }
    uint64_t header_length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0 && length >= LENGTH_BYTES; i--) {
        header_length = header_length << 8 | (unsigned char)file->bytes[i];
    }
    bool ok = length >= LENGTH_BYTES && header_length >= 2 && header_length <= HEADER_LIMIT &&
              header_length <= length - LENGTH_BYTES && file->bytes[LENGTH_BYTES] == '{';
    if (!ok) {
        error_set(error, EX_DATAERR, "%s: not a safetensors file, or truncated: header of %llu bytes, file of %zu",
                  path, (unsigned long long)header_length, length);
        safetensors_close(file);
        return false;
    }
    json_error_t fault;
    const char *text = file->bytes + LENGTH_BYTES;
    json_t *header = json_loadb(text, (size_t)header_length, JSON_REJECT_DUPLICATES, &fault);
    const size_t start = LENGTH_BYTES + (size_t)header_length;
    ok = json_is_object(header) ? read_header(file, header, (unsigned char *)file->bytes + start, length - start, error)
                                : error_set(error, EX_DATAERR, "%s: header: %s", path, fault.text);
    json_decref(header);
    if (!ok) { safetensors_close(file); }
    return ok;
}

void safetensors_close(SafeTensors *file) {
    for (int i = 0; i < file->count; i++) { free(file->tensors[i].name); }
    free(file->tensors);
    free(file->bytes);
    free(file->path);
    *file = (SafeTensors){0};
}

const SafeTensor *safetensors_find(const SafeTensors *file, const char *name) {
    for (int i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) { return &file->tensors[i]; }
    }
    return NULL;
}

static float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | mantissa << 13;
    if (exponent == 31) { bits = sign | 0x7F800000 | mantissa << 13; }
    float value;
    memcpy(&value, &bits, sizeof value);
    if (exponent == 0) {
        value = (float)mantissa / 16777216.0f;  // subnormal: mantissa * 2^-24
        return sign ? -value : value;
    }
    return value;
}

void safetensors_read(const SafeTensor *tensor, float *out, size_t first, size_t count) {
    CHECK(tensor->dtype != DTYPE_OTHER && first + count <= tensor->elements);
    if (tensor->dtype == DTYPE_F32) {
        memcpy(out, tensor->data + 4 * first, 4 * count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (tensor->dtype == DTYPE_F64) {
            double wide;
            memcpy(&wide, tensor->data + 8 * (first + i), sizeof wide);
            out[i] = (float)wide;
            continue;
        }
        uint16_t half;
        memcpy(&half, tensor->data + 2 * (first + i), sizeof half);
        const uint32_t bits = (uint32_t)half << 16;
        if (tensor->dtype == DTYPE_BF16) {
            memcpy(&out[i], &bits, sizeof bits);
        } else {
            out[i] = half_to_float(half);
        }
    }
}

static size_t view_bytes(const TensorView *view) {
    return (size_t)view->rows * (size_t)(view->columns ? view->columns : 1) * sizeof(float);
}

// The header, padded with spaces so that the data begins at a multiple of 8.
static char *header_text(const TensorView *tensors, int count, size_t *length) {
    json_t *header = json_pack("{s{ss}}", "__metadata__", "format", "pt");
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        const TensorView *t = &tensors[i];
        json_t *shape = json_pack("[I]", (json_int_t)t->rows);
        if (t->columns) { json_array_append_new(shape, json_integer(t->columns)); }
        json_object_set_new(header, t->name,
                            json_pack("{ss,so,s[II]}", "dtype", "F32", "shape", shape, "data_offsets",
                                      (json_int_t)offset, (json_int_t)(offset + view_bytes(t))));
        offset += view_bytes(t);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    CHECK(text);
    const size_t plain = strlen(text);
    *length = (plain + 7) / 8 * 8;
    text = check_realloc(text, *length + 1, 1);
    memset(text + plain, ' ', *length - plain);
    return text;
}

bool safetensors_write(const char *path, const TensorView *tensors, int count, FileHash *hash, Error *error) {
    size_t header_length;
    unsigned char length[LENGTH_BYTES];
    char *header = header_text(tensors, count, &header_length);
    for (int i = 0; i < LENGTH_BYTES; i++) { length[i] = (unsigned char)(header_length >> 8 * i); }
    FilePart *parts = check_calloc((size_t)count + 2, sizeof *parts);
    parts[0] = (FilePart){length, sizeof length};
    parts[1] = (FilePart){header, header_length};
    for (int i = 0; i < count; i++) { parts[2 + i] = (FilePart){tensors[i].data, view_bytes(&tensors[i])}; }
    const bool ok = file_write_parts(path, parts, count + 2, hash, error);
    free(parts);
    free(header);
    return ok;
}
