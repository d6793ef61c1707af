// The safetensors format: round trip, every rule of its specification broken once, conversions of the floating-point
// types; and the names and shapes that weights_load accepts of what stands in a model directory.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model_fixture.h"
#include "tests/scratch.h"
#include "trainer/safetensors.h"

// Writes 8 bytes of length, the header and data_length bytes of 0, 1, 2, ... to a file and opens it.
static bool open_image(SafeTensors *file, uint64_t header_length, const char *header, size_t data_length,
                       Error *error) {
    const ScratchPath path = scratch("image.safetensors");
    const size_t written = strlen(header), length = 8 + written + data_length;
    unsigned char *bytes = check_calloc(length, 1);
    for (int i = 0; i < 8; i++) { bytes[i] = (unsigned char)(header_length >> 8 * i); }
    memcpy(bytes + 8, header, written);
    for (size_t i = 0; i < data_length; i++) { bytes[8 + written + i] = (unsigned char)i; }
    scratch_write(path.text, bytes, length);
    free(bytes);
    return safetensors_open(file, path.text, error);
}

static void check_refused(const char *header, size_t data_length, const char *message) {
    SafeTensors file;
    Error error = {0};
    if (open_image(&file, strlen(header), header, data_length, &error)) { fail_msg("accepted: %s", header); }
    assert_error(&error, EX_DATAERR, message);
    assert_null(file.tensors);
}

#define ENTRY(dtype, shape, begin, end) \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}"
#define ONE(dtype, shape, begin, end) "{\"a\":" ENTRY(dtype, shape, begin, end) "}"

static void test_headers(void **state) {
    (void)state;
    SafeTensors file;
    Error error;
    assert_true(open_image(&file, 2, "{}", 0, &error));
    assert_int_equal(file.count, 0);
    safetensors_close(&file);
    const uint64_t wrong[] = {0, 1, 3, 1000, 100000001, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(open_image(&file, wrong[i], "{}", 0, &error));
        assert_error(&error, EX_DATAERR, "not a safetensors file, or truncated");
    }
    const ScratchPath path = scratch("short.safetensors");
    for (size_t length = 0; length < 8; length++) {
        scratch_write(path.text, "\2\0\0\0\0\0\0", length);
        assert_false(safetensors_open(&file, path.text, &error));
        assert_error(&error, EX_DATAERR, "truncated");
    }
    assert_false(safetensors_open(&file, scratch("none").text, &error));
    assert_error(&error, EX_NOINPUT, "none");
    check_refused(" {}", 0, "not a safetensors file");  // the specification wants '{' first
    check_refused("[]", 0, "not a safetensors file");
    check_refused("{\"a\":", 0, "header");
    check_refused("{} x", 0, "header");
    check_refused("{\"\xff\":1}", 0, "header");
}

static void test_entries(void **state) {
    (void)state;
    check_refused("{\"a\":" ENTRY("F32", "1", "0", "4") ",\"a\":" ENTRY("F32", "1", "0", "4") "}", 4, "header");
    check_refused("{\"a\":[]}", 0, "tensor `a`: unknown dtype");
    check_refused(ONE("F31", "1", "0", "4"), 4, "tensor `a`: unknown dtype");
    check_refused("{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "invalid shape");
    check_refused(ONE("F32", "-1", "0", "4"), 4, "invalid shape");
    check_refused(ONE("F32", "1.0", "0", "4"), 4, "invalid shape");
    check_refused(ONE("F32", "1,1,1,1,1,1,1,1,1", "0", "4"), 4, "invalid shape");
    check_refused(ONE("F32", "4294967296,4294967296", "0", "4"), 4, "invalid shape");
    check_refused(ONE("F32", "4611686018427387905", "0", "4"), 4, "do not fit");  // * 4 bytes is 4 again
    check_refused(ONE("F32", "9223372036854775808", "0", "4"), 4, "header");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets");
    check_refused(ONE("F32", "1", "\"0\"", "4"), 4, "data_offsets");
    check_refused(ONE("F32", "1", "-4", "0"), 4, "data_offsets");
    check_refused(ONE("F32", "1", "4", "0"), 4, "data_offsets");
    check_refused(ONE("F32", "2", "0", "8"), 4, "data_offsets outside of the file");
    check_refused(ONE("F32", "1", "4", "8"), 4, "data_offsets outside of the file");
    check_refused(ONE("F32", "2", "0", "4"), 4, "do not fit dtype and shape");
    check_refused(ONE("F64", "1", "0", "4"), 4, "do not fit dtype and shape");
    check_refused(ONE("F32", "1", "0", "8"), 8, "do not fit dtype and shape");
}

static void test_coverage(void **state) {
    (void)state;
    check_refused(ONE("F32", "1", "4", "8"), 8, "a hole or an overlap before it");
    check_refused("{\"a\":" ENTRY("F32", "1", "0", "4") ",\"b\":" ENTRY("F32", "1", "8", "12") "}", 12, "tensor `b`");
    check_refused("{\"a\":" ENTRY("F32", "2", "0", "8") ",\"b\":" ENTRY("F32", "1", "4", "8") "}", 8, "tensor `b`");
    check_refused("{\"a\":" ENTRY("F32", "1", "0", "4") ",\"b\":" ENTRY("F32", "1", "0", "4") "}", 4, "overlap");
    check_refused(ONE("F32", "1", "0", "4"), 5, "1 bytes behind the last tensor");
    check_refused("{}", 3, "3 bytes behind the last tensor");
}

static void test_accepted(void **state) {
    (void)state;
    SafeTensors file;
    Error error;
    // Another order than that of the data, an empty tensor in between, a scalar, trailing spaces, metadata.
    const char *header = "{\"z\":" ENTRY("I64", "1", "4", "12") ",\"empty\":" ENTRY("F32", "0,7", "4", "4")  //
        ",\"__metadata__\":{\"format\":\"pt\"},\"scalar\":" ENTRY("F32", "", "0", "4") "}   ";
    assert_true(open_image(&file, strlen(header), header, 12, &error));
    assert_int_equal(file.count, 3);
    assert_null(safetensors_find(&file, "__metadata__"));
    const SafeTensor *scalar = safetensors_find(&file, "scalar"), *empty = safetensors_find(&file, "empty");
    assert_int_equal(scalar->dimensions, 0);
    assert_int_equal(scalar->elements, 1);
    assert_int_equal(scalar->data[3], 3);
    assert_int_equal(empty->elements, 0);
    assert_int_equal(safetensors_find(&file, "z")->dtype, DTYPE_OTHER);
    safetensors_close(&file);
}

static void test_round_trip(void **state) {
    (void)state;
    const float a[6] = {0.0f, -0.0f, INFINITY, -1e-45f, 3.4e38f, 0.1f}, b[3] = {1, 2, 3};
    const TensorView views[] = {{"layer.a", 2, 3, a}, {"b \"quoted\" \xE5\xA5\xBD", 3, 0, b}, {"none", 0, 0, b}};
    const ScratchPath path = scratch("round.safetensors");
    SafeTensors file;
    Error error;
    assert_true(safetensors_write(path.text, views, 3, NULL, &error));
    assert_true(safetensors_open(&file, path.text, &error));
    assert_int_equal(file.count, 3);
    const SafeTensor *first = safetensors_find(&file, views[0].name), *second = safetensors_find(&file, views[1].name);
    assert_int_equal(first->dimensions, 2);
    assert_int_equal(first->shape[1], 3);
    assert_int_equal(second->dimensions, 1);
    float read[6];
    safetensors_read(first, read, 0, 6);
    assert_memory_equal(read, a, sizeof a);
    safetensors_read(second, read, 1, 2);
    assert_memory_equal(read, b + 1, 2 * sizeof *b);
    assert_int_equal((first->data - (unsigned char *)file.bytes) % 8, 0);
    safetensors_close(&file);
}

// A tensor of count values of `size` bytes at values, read as fp32.
static void read_as(const char *dtype, const void *values, size_t size, size_t count, float *out) {
    char header[128];
    snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", dtype, count,
             count * size);
    unsigned char *bytes = check_calloc(8 + strlen(header) + count * size, 1);
    bytes[0] = (unsigned char)strlen(header);
    memcpy(bytes + 8, header, strlen(header));
    memcpy(bytes + 8 + strlen(header), values, count * size);
    const ScratchPath path = scratch("typed.safetensors");
    scratch_write(path.text, bytes, 8 + strlen(header) + count * size);
    free(bytes);
    SafeTensors file;
    Error error;
    assert_true(safetensors_open(&file, path.text, &error));
    safetensors_read(&file.tensors[0], out, 0, count);
    safetensors_close(&file);
}

// IEEE 754 binary16 by its definition.
static float half_value(unsigned half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                        : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                       : ldexp(mantissa, -24);
    return (float)(half & 0x8000 ? -size : size);
}

static void test_half(void **state) {
    (void)state;
    uint16_t *all = check_calloc(65536, sizeof *all);
    float *out = check_calloc(65536, sizeof *out);
    for (unsigned i = 0; i < 65536; i++) { all[i] = (uint16_t)i; }
    read_as("F16", all, 2, 65536, out);
    for (unsigned i = 0; i < 65536; i++) {
        const float expected = half_value(i);
        if (isnan(expected) ? !isnan(out[i]) : memcmp(&out[i], &expected, 4) != 0) { fail_msg("half 0x%04x", i); }
    }
    read_as("BF16", all, 2, 65536, out);
    for (unsigned i = 0; i < 65536; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], 4);
        assert_int_equal(bits, i << 16);
    }
    free(all);
    free(out);
}

static void test_double(void **state) {
    (void)state;
    const double values[] = {0.1, -0.0, 1e-45, 1e-46, 3.5e38, 16777217.0, (double)NAN, -(double)INFINITY};
    const float expected[] = {0.1f, -0.0f, 1e-45f, 0.0f, INFINITY, 16777216.0f, NAN, -INFINITY};
    float out[8];
    read_as("F64", values, 8, 8, out);
    for (int i = 0; i < 8; i++) {
        assert_true(isnan(expected[i]) ? isnan(out[i]) : memcmp(&out[i], &expected[i], 4) == 0);
    }
}

// The fixture's tensors in a new directory, with a change that `edit` makes to the list.
typedef void Edit(TensorView *views, int *count);

static void write_edited(const ScratchPath *directory, Edit *edit, char (*names)[160]) {
    SafeTensors file;
    Error error;
    TensorView views[64];
    int count = 0;
    assert_true(safetensors_open(&file, MODEL_FIXTURE "/model.safetensors", &error));
    for (; count < file.count; count++) {
        const SafeTensor *t = &file.tensors[count];
        float *values = check_calloc(t->elements, sizeof *values);
        safetensors_read(t, values, 0, t->elements);
        snprintf(names[count], 160, "%s", t->name);
        views[count] = (TensorView){names[count], t->shape[0], t->dimensions == 2 ? t->shape[1] : 0, values};
    }
    const float *owned[64];
    const int all = count;
    for (int i = 0; i < all; i++) { owned[i] = views[i].data; }
    edit(views, &count);
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", directory->text);
    assert_true(safetensors_write(path, views, count, NULL, &error));
    for (int i = 0; i < all; i++) { free((float *)owned[i]); }
    safetensors_close(&file);
}

static void keep(TensorView *views, int *count) {
    (void)views;
    (void)count;
}

// Names of the first releases: without `bert.`, LayerNorm.gamma and .beta.
static void make_old(TensorView *views, int *count) {
    for (int i = 0; i < *count; i++) {
        char *name = (char *)views[i].name, *end = strstr(name, "LayerNorm.");
        if (end) { strcpy(end + 10, strstr(end, "weight") ? "gamma" : "beta"); }
        if (strncmp(name, "bert.", 5) == 0) { memmove(name, name + 5, strlen(name + 5) + 1); }
    }
}

static void drop(TensorView *views, int *count, const char *part) {
    int kept = 0;
    for (int i = 0; i < *count; i++) {
        if (!strstr(views[i].name, part)) { views[kept++] = views[i]; }
    }
    assert_true(kept < *count);
    *count = kept;
}

static void drop_head(TensorView *views, int *count) {
    drop(views, count, "pooler");
    drop(views, count, "classifier");
}
static void drop_query(TensorView *views, int *count) { drop(views, count, "layer.1.attention.self.query.bias"); }

static void transpose_up(TensorView *views, int *count) {
    for (int i = 0; i < *count; i++) {
        if (strcmp(views[i].name, "bert.encoder.layer.0.intermediate.dense.weight") == 0) {
            views[i].rows = 32;
            views[i].columns = 64;
        }
    }
}

static void flatten_bias(TensorView *views, int *count) {
    for (int i = 0; i < *count; i++) {
        if (strcmp(views[i].name, "classifier.bias") == 0) { views[i].columns = 1; }
    }
}

static bool load_edited(ModelFixture *fixture, Edit *edit, uint64_t seed, char fresh[256], Error *error) {
    static char names[64][160];
    const ScratchPath directory = scratch_directory("edited");
    write_edited(&directory, edit, names);
    return weights_load(&fixture->weights, &fixture->bert, &fixture->model.config, directory.text, seed, fresh, 256,
                        error);
}

static void test_names(void **state) {
    (void)state;
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    const size_t total = fixture.bert.layout.total;
    float *loaded = model_fixture_download(&fixture, fixture.parameters);
    Edit *const edits[] = {keep, make_old};
    for (int i = 0; i < 2; i++) {
        char fresh[256];
        Error error;
        memset(fixture.weights.parameters, 0, total * sizeof(float));
        if (!load_edited(&fixture, edits[i], 1, fresh, &error)) { fail_msg("%s", error.text); }
        assert_string_equal(fresh, "");
        assert_memory_equal(fixture.weights.parameters, loaded, total * sizeof(float));
    }
    free(loaded);
    model_fixture_close(&fixture);
}

static void test_drawn_head(void **state) {
    (void)state;
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    const size_t head = fixture.bert.pooler_weight, count = fixture.bert.layout.total - head;
    float *loaded = model_fixture_download(&fixture, fixture.parameters);
    float *drawn = check_calloc(count, sizeof *drawn);
    char fresh[256];
    Error error;
    assert_true(load_edited(&fixture, drop_head, 5, fresh, &error));
    assert_string_equal(fresh, "bert.pooler.dense.weight, bert.pooler.dense.bias, classifier.weight, classifier.bias");
    assert_memory_equal(fixture.weights.parameters, loaded, head * sizeof(float));
    memcpy(drawn, fixture.weights.parameters + head, count * sizeof *drawn);
    double squares = 0.0;
    for (size_t i = 0; i < 32 * 32; i++) { squares += (double)drawn[i] * drawn[i]; }
    assert_true(fabs(sqrt(squares / 1024) - 0.02) < 0.002);  // initializer_range
    for (size_t i = 0; i < 32; i++) { assert_true(drawn[1024 + i] == 0.0f); }
    assert_true(load_edited(&fixture, drop_head, 5, fresh, &error));
    assert_memory_equal(fixture.weights.parameters + head, drawn, count * sizeof *drawn);
    assert_true(load_edited(&fixture, drop_head, 6, fresh, &error));
    assert_memory_not_equal(fixture.weights.parameters + head, drawn, count * sizeof *drawn);
    free(loaded);
    free(drawn);
    model_fixture_close(&fixture);
}

static void test_misfits(void **state) {
    (void)state;
    ModelFixture fixture;
    char fresh[256];
    Error error;
    model_fixture_open(&fixture, 2);
    assert_false(load_edited(&fixture, drop_query, 1, fresh, &error));
    assert_error(&error, EX_DATAERR, "tensor `bert.encoder.layer.1.attention.self.query.bias` is missing");
    assert_false(load_edited(&fixture, transpose_up, 1, fresh, &error));
    assert_error(&error, EX_DATAERR,
                 "tensor `bert.encoder.layer.0.intermediate.dense.weight` has shape (32, 64), config.json says (64, "
                 "32)");
    assert_false(load_edited(&fixture, flatten_bias, 1, fresh, &error));
    assert_error(&error, EX_DATAERR, "tensor `classifier.bias` has shape (2, 1), config.json says (2)");
    model_fixture_close(&fixture);
}

static void test_no_weights(void **state) {
    (void)state;
    ModelFixture fixture;
    char fresh[256], path[1024];
    Error error;
    model_fixture_open(&fixture, 2);
    const ScratchPath directory = scratch_directory("pickle");
    assert_false(
        weights_load(&fixture.weights, &fixture.bert, &fixture.model.config, directory.text, 1, fresh, 256, &error));
    assert_error(&error, EX_NOINPUT, "model.safetensors");
    snprintf(path, sizeof path, "%s/pytorch_model.bin", directory.text);
    scratch_write(path, "\x80\2", 2);
    assert_false(
        weights_load(&fixture.weights, &fixture.bert, &fixture.model.config, directory.text, 1, fresh, 256, &error));
    assert_error(&error, EX_DATAERR, "save_pretrained");
    assert_error(&error, EX_DATAERR, directory.text);
    model_fixture_close(&fixture);
}

// No damage of one byte of a real file, or a cut, may do more than be refused or change values.
static void test_damage(void **state) {
    (void)state;
    const ScratchPath path = scratch("damaged.safetensors");
    size_t length;
    unsigned char *bytes = scratch_read(MODEL_FIXTURE "/model.safetensors", &length);
    const size_t header = 8 + bytes[0] + 256u * bytes[1];
    SafeTensors file;
    Error error;
    for (size_t at = 0; at < header; at += at < 300 ? 1 : 41) {
        const unsigned char kept = bytes[at];
        bytes[at] ^= (unsigned char)(1 + at % 255);
        scratch_write(path.text, bytes, length);
        if (safetensors_open(&file, path.text, &error)) {
            safetensors_close(&file);
        } else {
            assert_int_equal(error.code, EX_DATAERR);
        }
        bytes[at] = kept;
    }
    for (size_t cut = 0; cut < length; cut += cut < 16 ? 1 : 1009) {
        scratch_write(path.text, bytes, cut);
        assert_false(safetensors_open(&file, path.text, &error));
        assert_int_equal(error.code, EX_DATAERR);
    }
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),  cmocka_unit_test(test_entries),    cmocka_unit_test(test_coverage),
        cmocka_unit_test(test_accepted), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_half),
        cmocka_unit_test(test_double),   cmocka_unit_test(test_names),      cmocka_unit_test(test_drawn_head),
        cmocka_unit_test(test_misfits),  cmocka_unit_test(test_no_weights), cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
