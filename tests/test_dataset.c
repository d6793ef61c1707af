// The data set file: what is written is read back, whole or in parts; flipped, cut and wrongly built files are refused
// with EX_DATAERR and touch nothing; writing leaves a complete file or none.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "datasets/dataset.h"
#include "kernels/philox.h"
#include "tests/scratch.h"

enum { MAX_LENGTH = 12, CLASSES = 3 };

// Rows of 2 to MAX_LENGTH tokens, the largest and the smallest id among them.
static Reviews make_reviews(int64_t rows, int32_t vocabulary, uint32_t seed) {
    Reviews reviews = {.rows = rows};
    for (int64_t i = 0; i < rows; i++) { reviews.token_count += 2 + (i * 7 + seed) % (MAX_LENGTH - 1); }
    reviews_alloc(&reviews);
    for (int64_t i = 0; i < rows; i++) {
        reviews.offsets[i + 1] = reviews.offsets[i] + 2 + (i * 7 + seed) % (MAX_LENGTH - 1);
        reviews.labels[i] = (int32_t)(i % CLASSES);
        reviews.source_row[i] = ((int64_t)1 << 40) + 3 * i;
    }
    for (int64_t t = 0; t < reviews.token_count; t++) {
        reviews.tokens[t] = (int32_t)(philox((uint32_t)t, 0, 0, 0, seed, 0).lane[0] % (uint32_t)vocabulary);
    }
    reviews.tokens[0] = vocabulary - 1;
    reviews.tokens[1] = 0;
    return reviews;
}

static char names[CLASSES][DATASET_NAME_SIZE] = {"\xE6\xB6\x88\xE6\x9E\x81", "", "C c"};
static int32_t active[] = {0, 3, 5, 60};

static DatasetInfo make_info(int32_t vocabulary) {
    DatasetInfo info = {.vocabulary_size = vocabulary,
                        .max_length = MAX_LENGTH,
                        .classes = CLASSES,
                        .label_names = names,
                        .active_count = 4,
                        .active = active,
                        .split_rule = "train_test_split(test_size=0.2, random_state=2023)"};
    memset(info.vocabulary_sha256, 'a', 64);
    memset(info.source_sha256, 'b', 64);
    return info;
}

static void write_file(const char *path, int64_t rows, int32_t vocabulary) {
    Reviews train = make_reviews(rows, vocabulary, 1), validation = make_reviews(rows + 1, vocabulary, 2);
    const Reviews *groups[] = {&train, &validation};
    const char *const group_names[] = {"train", "validation"};
    const DatasetInfo info = make_info(vocabulary);
    Error error;
    if (!dataset_write(path, &info, groups, group_names, 2, &error)) { fail_msg("%s", error.text); }
    reviews_free(&train);
    reviews_free(&validation);
}

// What a run does: verify, open, read every group.
static bool read_file(const char *path, Error *error) {
    Dataset dataset;
    if (!dataset_verify(path, error)) { return false; }
    bool ok = dataset_open(&dataset, path, H5P_DEFAULT, error);
    const char *const groups[] = {"train", "validation"};
    for (int i = 0; ok && i < 2; i++) {
        Reviews reviews;
        ok = dataset_read(&dataset, groups[i], &reviews, error);
        reviews_free(&reviews);
    }
    dataset_close(&dataset);
    return ok;
}

static void assert_same(const Reviews *a, const Reviews *b) {
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->token_count, b->token_count);
    const size_t rows = (size_t)a->rows;
    assert_memory_equal(a->offsets, b->offsets, (rows + 1) * sizeof *a->offsets);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->token_count * sizeof *a->tokens);
    assert_memory_equal(a->labels, b->labels, rows * sizeof *a->labels);
    assert_memory_equal(a->source_row, b->source_row, rows * sizeof *a->source_row);
}

static void check_info(const Dataset *dataset, int32_t vocabulary) {
    const DatasetInfo expected = make_info(vocabulary), *info = &dataset->info;
    assert_string_equal(info->vocabulary_sha256, expected.vocabulary_sha256);
    assert_string_equal(info->source_sha256, expected.source_sha256);
    assert_string_equal(info->split_rule, expected.split_rule);
    assert_int_equal(info->vocabulary_size, vocabulary);
    assert_int_equal(info->max_length, MAX_LENGTH);
    assert_int_equal(info->classes, CLASSES);
    for (int c = 0; c < CLASSES; c++) { assert_string_equal(info->label_names[c], names[c]); }
    assert_int_equal(info->active_count, 4);
    assert_memory_equal(info->active, active, sizeof active);
}

static size_t stored_token_size(const Dataset *dataset) {
    hid_t tokens = H5Dopen2(dataset->file, "/train/tokens", H5P_DEFAULT), type = H5Dget_type(tokens);
    const size_t size = H5Tget_size(type);
    H5Tclose(type);
    H5Dclose(tokens);
    return size;
}

static void test_round_trip(void **state) {
    (void)state;
    const int32_t vocabularies[] = {61, 65536, 65537, 1 << 24};
    const size_t sizes[] = {2, 2, 4, 4};
    for (int i = 0; i < 4; i++) {
        const ScratchPath path = scratch("round.h5");
        write_file(path.text, 500, vocabularies[i]);
        Dataset dataset;
        Error error;
        assert_true(dataset_verify(path.text, &error));
        assert_true(dataset_open(&dataset, path.text, H5P_DEFAULT, &error));
        check_info(&dataset, vocabularies[i]);
        assert_int_equal(stored_token_size(&dataset), sizes[i]);
        assert_true(dataset_has_group(&dataset, "validation"));
        assert_false(dataset_has_group(&dataset, "dev"));
        Reviews expected = make_reviews(501, vocabularies[i], 2), reviews;
        assert_true(dataset_read(&dataset, "validation", &reviews, &error));
        assert_same(&reviews, &expected);
        reviews_free(&reviews);
        reviews_free(&expected);
        dataset_close(&dataset);
    }
}

static void test_parts(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 3, 100};
    for (int s = 0; s < 3; s++) {
        const int64_t rows = sizes[s];
        const ScratchPath path = scratch("parts.h5");
        write_file(path.text, rows, 61);
        Dataset dataset;
        Error error;
        assert_true(dataset_open(&dataset, path.text, H5P_DEFAULT, &error));
        Reviews expected = make_reviews(rows, 61, 1);
        for (int64_t parts = 1; parts <= 5; parts++) {
            Reviews reviews;
            assert_true(dataset_sizes(&dataset, "train", &reviews, &error));
            reviews_alloc(&reviews);
            for (int64_t part = parts - 1; part >= 0; part--) {
                const int64_t first = rows * part / parts, end = rows * (part + 1) / parts;
                assert_true(dataset_read_rows(&dataset, "train", &reviews, first, end - first, H5P_DEFAULT, &error));
            }
            assert_same(&reviews, &expected);
            reviews_free(&reviews);
        }
        reviews_free(&expected);
        dataset_close(&dataset);
    }
}

static void test_same_bytes(void **state) {
    (void)state;
    size_t lengths[2];
    unsigned char *bytes[2];
    for (int i = 0; i < 2; i++) {
        const ScratchPath path = scratch(i ? "second.h5" : "first.h5");
        if (i) { sleep(1); }  // a time stamp would show
        write_file(path.text, 50, 61);
        bytes[i] = scratch_read(path.text, &lengths[i]);
    }
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(bytes[0], bytes[1], lengths[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void test_flips(void **state) {
    (void)state;
    const ScratchPath path = scratch("flip.h5");
    write_file(path.text, 50, 61);
    size_t length;
    unsigned char *bytes = scratch_read(path.text, &length);
    Error error;
    for (size_t at = 0; at < length; at += at < 100 || at + 100 > length ? 1 : 61) {
        bytes[at] ^= (unsigned char)(1 << at % 8);
        scratch_write(path.text, bytes, length);
        if (dataset_verify(path.text, &error)) { fail_msg("offset %zu", at); }
        assert_int_equal(error.code, EX_DATAERR);
        bytes[at] ^= (unsigned char)(1 << at % 8);
    }
    free(bytes);
}

static void test_cuts(void **state) {
    (void)state;
    const ScratchPath path = scratch("cut.h5");
    write_file(path.text, 50, 61);
    size_t length;
    unsigned char *bytes = scratch_read(path.text, &length);
    Error error;
    for (size_t cut = 0; cut < length; cut += cut < 40 || cut + 40 > length ? 1 : 97) {
        scratch_write(path.text, bytes, cut);
        const bool whole = cut == length - 32;  // a file of another tool, all data in order
        if (read_file(path.text, &error) != whole) { fail_msg("%zu of %zu bytes", cut, length); }
        if (!whole) { assert_int_equal(error.code, EX_DATAERR); }
    }
    bytes = check_realloc(bytes, length + 40, 1);
    memset(bytes + length, 0, 40);
    for (size_t more = 1; more <= 40; more++) {
        scratch_write(path.text, bytes, length + more);
        assert_false(dataset_verify(path.text, &error));
        assert_error(&error, EX_DATAERR, "bytes behind the HDF5 data are no checksum");
    }
    free(bytes);
}

// What HDF5 writes in its other versions passes without a trailer, and not with other bytes behind it.
static void test_versions(void **state) {
    (void)state;
    const ScratchPath path = scratch("versions.h5");
    for (int version = 0; version < 3; version++) {
        hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
        if (version == 1) { H5Pset_istore_k(create, 64); }
        if (version == 2) { H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST); }
        H5Fclose(H5Fcreate(path.text, H5F_ACC_TRUNC, create, access));
        H5Pclose(create);
        H5Pclose(access);
        size_t length;
        unsigned char *bytes = scratch_read(path.text, &length);
        Error error;
        assert_int_equal(bytes[8] < 2 ? bytes[8] : 2, version);
        if (!dataset_verify(path.text, &error)) { fail_msg("version %d: %s", version, error.text); }
        bytes = check_realloc(bytes, length + 1, 1);
        bytes[length] = 0;
        scratch_write(path.text, bytes, length + 1);
        assert_false(dataset_verify(path.text, &error));
        free(bytes);
    }
}

// Without a trailer the HDF5 library finds damaged data by its own checksums.
static void test_fletcher(void **state) {
    (void)state;
    const ScratchPath path = scratch("bare.h5");
    write_file(path.text, 50, 61);
    size_t length;
    unsigned char *bytes = scratch_read(path.text, &length);
    Reviews reviews = make_reviews(50, 61, 1);
    unsigned char *labels = memmem(bytes, length, reviews.labels, 50 * sizeof *reviews.labels);
    assert_non_null(labels);
    Error error;
    scratch_write(path.text, bytes, length - 32);
    assert_true(read_file(path.text, &error));
    for (int i = 0; i < 200; i += 13) {
        labels[i] ^= 1;
        scratch_write(path.text, bytes, length - 32);
        assert_false(read_file(path.text, &error));
        assert_error(&error, EX_DATAERR, "HDF5 cannot read it (damaged?)");
        labels[i] ^= 1;
    }
    reviews_free(&reviews);
    free(bytes);
}

static void test_foreign_files(void **state) {
    (void)state;
    Error error;
    const ScratchPath path = scratch("foreign.h5"), directory = scratch_directory("directory.h5");
    assert_false(dataset_verify(scratch("none.h5").text, &error));
    assert_error(&error, EX_NOINPUT, "none.h5");
    assert_false(dataset_verify(directory.text, &error));
    assert_error(&error, EX_NOINPUT, "directory.h5");
    const char *contents[] = {"", "text", "label,review\n1,good\n", "\x89HDF\r\n\x1a\n"};
    for (int i = 0; i < 4; i++) {
        scratch_write(path.text, contents[i], strlen(contents[i]));
        assert_false(read_file(path.text, &error));
        assert_error(&error, EX_DATAERR, "foreign.h5");
    }
    hid_t file = H5Fcreate(path.text, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_false(read_file(path.text, &error));
    assert_error(&error, EX_DATAERR, "not a data set of bertune: attribute `format_version`");
}

// Opens a written file for damage by the HDF5 library, which drops the trailer when it closes it.
static hid_t open_damaged(ScratchPath *path, int32_t vocabulary) {
    *path = scratch("damage.h5");
    write_file(path->text, 20, vocabulary);
    hid_t file = H5Fopen(path->text, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void check_damaged(hid_t file, const ScratchPath *path, const char *message) {
    Error error = {0};
    H5Fclose(file);
    if (read_file(path->text, &error)) { fail_msg("accepted, expected: %s", message); }
    assert_error(&error, EX_DATAERR, message);
}

static void check_value(const char *name, hsize_t at, int64_t value, int32_t vocabulary, const char *message) {
    ScratchPath path;
    hid_t file = open_damaged(&path, vocabulary);
    hid_t vector = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(vector);
    const hsize_t one = 1;
    hid_t memory = H5Screate_simple(1, &one, NULL);
    assert_true(H5Sselect_elements(space, H5S_SELECT_SET, 1, &at) >= 0);
    assert_true(H5Dwrite(vector, H5T_NATIVE_INT64, memory, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(vector);
    check_damaged(file, &path, message);
}

static void test_values(void **state) {
    (void)state;
    const int64_t end = make_info(61).max_length;
    check_value("/train/offsets", 0, 1, 61, "not ascending");
    check_value("/train/offsets", 0, -1, 61, "not ascending");
    check_value("/train/offsets", 3, 0, 61, "not ascending");
    check_value("/train/offsets", 3, 1000, 61, "not ascending");
    check_value("/train/offsets", 3, INT64_MIN, 61, "not ascending");
    check_value("/train/offsets", 3, INT64_MAX, 61, "not ascending");
    check_value("/train/offsets", 20, 5, 61, "not ascending");
    check_value("/train/offsets", 20, INT64_MAX, 61, "not ascending");
    check_value("/train/offsets", 1, 1, 61, "row 0");        // a row of one token
    check_value("/train/offsets", 1, end + 1, 61, "row 0");  // one longer than max_length
    check_value("/train/tokens", 7, 61, 61, "row 1: its length, label or a token id is out of range");
    check_value("/train/tokens", 7, 65535, 61, "row 1");
    check_value("/validation/tokens", 7, -1, 70000, "/validation: row 1");
    check_value("/validation/tokens", 7, 70000, 70000, "/validation: row 1");
    check_value("/train/labels", 19, CLASSES, 61, "row 19");
    check_value("/train/labels", 19, -1, 61, "row 19");
    check_value("/vocabulary/active", 1, 0, 61, "not a sorted list");
    check_value("/vocabulary/active", 0, -1, 61, "not a sorted list");
    check_value("/vocabulary/active", 3, 61, 61, "not a sorted list");
}

static void test_missing(void **state) {
    (void)state;
    const char *links[] = {
        "/train",      "/train/tokens",     "/validation/offsets", "/train/labels", "/train/source_row",
        "/vocabulary", "/vocabulary/active"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        ScratchPath path;
        hid_t file = open_damaged(&path, 61);
        assert_true(H5Ldelete(file, links[i], H5P_DEFAULT) >= 0);
        check_damaged(file, &path, links[i]);
    }
    const char *attributes[] = {"format_version",  "vocabulary_sha256", "source_sha256", "split",
                                "vocabulary_size", "max_length",        "label_names"};
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        ScratchPath path;
        hid_t file = open_damaged(&path, 61);
        assert_true(H5Adelete(file, attributes[i]) >= 0);
        check_damaged(file, &path, attributes[i]);
    }
}

// Replaces a data set by zeros of another type or shape.
static void check_replaced(const char *name, hid_t type, int dimensions, hsize_t length, const char *message) {
    ScratchPath path;
    hid_t file = open_damaged(&path, 61);
    const hsize_t extents[2] = {length, 1};
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    hid_t space = dimensions ? H5Screate_simple(dimensions, extents, NULL) : H5Screate(H5S_SCALAR);
    hid_t vector = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(vector >= 0);
    H5Dclose(vector);
    H5Sclose(space);
    check_damaged(file, &path, message);
}

static void test_shapes(void **state) {
    (void)state;
    check_replaced("/train/labels", H5T_IEEE_F32LE, 1, 20, "no /train/labels");
    check_replaced("/train/labels", H5T_STD_I32LE, 2, 20, "no /train/labels");
    check_replaced("/train/labels", H5T_STD_I32LE, 0, 1, "no /train/labels");
    check_replaced("/train/labels", H5T_STD_I32LE, 1, 19, "do not fit together");
    check_replaced("/train/labels", H5T_STD_I32LE, 1, 0, "do not fit together");
    check_replaced("/train/source_row", H5T_STD_I64LE, 1, 21, "do not fit together");
    check_replaced("/train/offsets", H5T_STD_I64LE, 1, 20, "do not fit together");
    check_replaced("/train/offsets", H5T_STD_I64LE, 1, 21, "not ascending");  // zeros
    check_replaced("/train/tokens", H5T_STD_I32LE, 1, 5, "not ascending");
    check_replaced("/train/tokens", H5T_STD_I64LE, 1, 1000000, "do not fit together");
    check_replaced("/train/tokens", H5T_STD_I64LE, 1, 241, "do not fit together");  // 20 rows of at most 12
    check_replaced("/vocabulary/active", H5T_STD_I32LE, 1, 0, "missing or too long");
    check_replaced("/vocabulary/active", H5T_STD_I32LE, 1, 62, "missing or too long");
}

static void check_attribute(const char *name, hid_t type, hsize_t count, int32_t value, const char *message) {
    ScratchPath path;
    hid_t file = open_damaged(&path, 61);
    const int32_t values[2] = {value, value};
    assert_true(H5Adelete(file, name) >= 0);
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && (count == 0 || H5Awrite(attribute, H5T_NATIVE_INT32, values) >= 0));
    H5Aclose(attribute);
    H5Sclose(space);
    check_damaged(file, &path, message);
}

static void test_attributes(void **state) {
    (void)state;
    check_attribute("format_version", H5T_STD_I32LE, 1, 2, "attribute `format_version` missing or not in 1..1");
    check_attribute("format_version", H5T_STD_I32LE, 2, 1, "format_version");
    check_attribute("vocabulary_size", H5T_STD_I32LE, 1, 0, "vocabulary_size");
    check_attribute("vocabulary_size", H5T_STD_I32LE, 1, -5, "vocabulary_size");
    check_attribute("vocabulary_size", H5T_STD_I32LE, 0, 1, "vocabulary_size");
    check_attribute("max_length", H5T_STD_I32LE, 1, 1, "max_length");
    check_attribute("max_length", H5T_STD_I32LE, 1, 65537, "max_length");
    check_attribute("split", H5T_STD_I32LE, 1, 1, "attribute `split` missing or no text");
    check_attribute("label_names", H5T_STD_I32LE, 1, 1, "attribute `label_names` missing or no text");
}

static bool write_to(const char *path, Error *error) {
    Reviews train = make_reviews(2000, 61, 1);
    const Reviews *groups[] = {&train};
    const char *const group_names[] = {"train"};
    const DatasetInfo info = make_info(61);
    const bool ok = dataset_write(path, &info, groups, group_names, 1, error);
    reviews_free(&train);
    return ok;
}

static void test_unwritable(void **state) {
    (void)state;
    Error error;
    char path[1024];
    const ScratchPath directory = scratch_directory("unwritable"), plain = scratch("plain");
    scratch_write(plain.text, "x", 1);
    const char *bad[] = {"none/data.h5", "../plain/data.h5", "../unwritable"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", directory.text, bad[i]);
        assert_false(write_to(path, &error));
        assert_error(&error, EX_CANTCREAT, bad[i]);
        assert_int_equal(scratch_count(directory.text), 0);
    }
    assert_false(write_to("/proc/data.h5", &error));  // closed even to root
    assert_error(&error, EX_CANTCREAT, "/proc/");
}

// A limit on the size of files stands for a full disk.
static void test_full_disk(void **state) {
    (void)state;
    Error error;
    char path[1024];
    const ScratchPath directory = scratch_directory("full");
    snprintf(path, sizeof path, "%s/data.h5", directory.text);
    scratch_write(path, "old", 3);
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){5000, before.rlim_max});
    const bool ok = write_to(path, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(ok);
    assert_error(&error, EX_IOERR, "cannot write");
    assert_int_equal(scratch_count(directory.text), 1);
    size_t length;
    unsigned char *bytes = scratch_read(path, &length);
    assert_memory_equal(bytes, "old", 4);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_parts),         cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_flips),      cmocka_unit_test(test_cuts),          cmocka_unit_test(test_versions),
        cmocka_unit_test(test_fletcher),   cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_values),
        cmocka_unit_test(test_missing),    cmocka_unit_test(test_shapes),        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_unwritable), cmocka_unit_test(test_full_disk),
    };
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
