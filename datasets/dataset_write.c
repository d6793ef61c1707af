// Writing the data set file; see dataset.h. The HDF5 file is built in memory and goes to disk as one block of bytes, so
// that a full disk is our error to report and never a half-written HDF5 file; without time stamps, so that the same
// input gives the same bytes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/dataset.h"
#include "datasets/dataset_format.h"
#include "datasets/file.h"

#define CHECK_H5(call)                                                            \
    do {                                                                          \
        if ((call) < 0) { die(EX_SOFTWARE, "HDF5 in memory failed: %s", #call); } \
    } while (0)

static hid_t opened(hid_t id) {
    CHECK_H5(id);
    return id;
}

// An attribute of UTF-8 texts: an array of count, or a scalar when count is 0 (then there is one text).
static void put_texts(hid_t file, const char *name, const char *const *texts, hsize_t count) {
    hid_t type = opened(H5Tcopy(H5T_C_S1));
    hid_t space = opened(count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR));
    CHECK_H5(H5Tset_size(type, H5T_VARIABLE));
    CHECK_H5(H5Tset_cset(type, H5T_CSET_UTF8));
    hid_t attribute = opened(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    CHECK_H5(H5Awrite(attribute, type, texts));
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_text(hid_t file, const char *name, const char *text) { put_texts(file, name, &text, 0); }

static void put_integer(hid_t file, const char *name, int32_t value) {
    hid_t space = opened(H5Screate(H5S_SCALAR));
    hid_t attribute = opened(H5Acreate2(file, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT));
    CHECK_H5(H5Awrite(attribute, H5T_NATIVE_INT32, &value));
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_vector(hid_t group, const char *name, hid_t stored, hid_t memory, const void *values, int64_t count) {
    const hsize_t length = (hsize_t)count, chunk = length < 65536 ? length : 65536;
    hid_t space = opened(H5Screate_simple(1, &length, NULL)), create = opened(H5Pcreate(H5P_DATASET_CREATE));
    CHECK_H5(H5Pset_chunk(create, 1, &chunk));
    CHECK_H5(H5Pset_fletcher32(create));
    CHECK_H5(H5Pset_obj_track_times(create, false));
    hid_t vector = opened(H5Dcreate2(group, name, stored, space, H5P_DEFAULT, create, H5P_DEFAULT));
    CHECK_H5(H5Dwrite(vector, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
    H5Dclose(vector);
    H5Pclose(create);
    H5Sclose(space);
}

static hid_t create_group(hid_t file, const char *name) {
    hid_t create = opened(H5Pcreate(H5P_GROUP_CREATE));
    CHECK_H5(H5Pset_obj_track_times(create, false));
    hid_t group = opened(H5Gcreate2(file, name, H5P_DEFAULT, create, H5P_DEFAULT));
    H5Pclose(create);
    return group;
}

static void put_reviews(hid_t file, const char *name, const Reviews *reviews, int32_t vocabulary_size) {
    hid_t group = create_group(file, name);
    hid_t token_type = vocabulary_size <= 65536 ? H5T_STD_U16LE : H5T_STD_I32LE;
    put_vector(group, "tokens", token_type, H5T_NATIVE_INT32, reviews->tokens, reviews->token_count);
    put_vector(group, "offsets", H5T_STD_I64LE, H5T_NATIVE_INT64, reviews->offsets, reviews->rows + 1);
    put_vector(group, "labels", H5T_STD_I32LE, H5T_NATIVE_INT32, reviews->labels, reviews->rows);
    put_vector(group, "source_row", H5T_STD_I64LE, H5T_NATIVE_INT64, reviews->source_row, reviews->rows);
    if (reviews->position) {
        put_vector(group, "position", H5T_STD_I64LE, H5T_NATIVE_INT64, reviews->position, reviews->rows);
    }
    H5Gclose(group);
}

static void put_info(hid_t file, const DatasetInfo *info) {
    put_integer(file, "format_version", DATASET_VERSION);
    put_text(file, "vocabulary_sha256", info->vocabulary_sha256);
    put_text(file, "source_sha256", info->source_sha256);
    put_text(file, "split", info->split_rule);
    put_integer(file, "vocabulary_size", info->vocabulary_size);
    put_integer(file, "max_length", info->max_length);
    const char *names[DATASET_MAX_CLASSES];
    for (int32_t c = 0; c < info->classes; c++) { names[c] = info->label_names[c]; }
    put_texts(file, "label_names", names, (hsize_t)info->classes);
    hid_t group = create_group(file, "vocabulary");
    put_vector(group, "active", H5T_STD_I32LE, H5T_NATIVE_INT32, info->active, info->active_count);
    H5Gclose(group);
}

// The finished file's bytes with the trailer; release with free.
static unsigned char *image_of(hid_t file, size_t *length) {
    CHECK_H5(H5Fflush(file, H5F_SCOPE_GLOBAL));
    const ssize_t size = H5Fget_file_image(file, NULL, 0);
    CHECK(size > 0);
    DatasetTrailer trailer;
    *length = (size_t)size + sizeof trailer;
    unsigned char *image = check_calloc(*length, 1);
    CHECK(H5Fget_file_image(file, image, (size_t)size) == size);
    memcpy(trailer.magic, dataset_trailer_magic, sizeof trailer.magic);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(image, (size_t)size));
    memcpy(trailer.hash, &canonical, sizeof trailer.hash);
    memcpy(image + size, &trailer, sizeof trailer);
    return image;
}

bool dataset_write(const char *path, const DatasetInfo *info, const Reviews *const *groups, const char *const *names,
                   int count, Error *error) {
    hid_t access = opened(H5Pcreate(H5P_FILE_ACCESS));
    CHECK_H5(H5Pset_fapl_core(access, 1 << 20, false));
    hid_t file = opened(H5Fcreate("bertune-data-set-in-memory", H5F_ACC_TRUNC, H5P_DEFAULT, access));
    put_info(file, info);
    for (int i = 0; i < count; i++) { put_reviews(file, names[i], groups[i], info->vocabulary_size); }
    size_t length = 0;
    unsigned char *image = image_of(file, &length);
    H5Fclose(file);
    H5Pclose(access);
    const bool ok = file_write(path, image, length, error);
    free(image);
    return ok;
}
