// Reading the data set file; see dataset.h. Writing is in dataset_write.c.
#include "datasets/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/dataset_format.h"

static const unsigned char hdf5_signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

// Where the HDF5 data end according to the superblock (HDF5 file format specification, II.A); 0: it does not say so in
// 8 bytes.
static uint64_t hdf5_end(const unsigned char *bytes, size_t length) {
    static const struct {
        size_t address_size, end;  // places of the size of addresses and of the address
    } places[] = {{13, 40}, {13, 44}, {9, 28}, {9, 28}};
    const size_t versions = sizeof places / sizeof places[0], version = length > 8 ? bytes[8] : versions;
    uint64_t end = 0;
    if (version >= versions || length < places[version].end + 8 || bytes[places[version].address_size] != 8) {
        return 0;
    }
    for (size_t i = 8; i > 0; i--) { end = end << 8 | bytes[places[version].end + i - 1]; }
    return end;
}

static bool verify_bytes(const unsigned char *bytes, size_t length, const char *path, Error *error) {
    if (length < sizeof hdf5_signature || memcmp(bytes, hdf5_signature, sizeof hdf5_signature) != 0) {
        return error_set(error, EX_DATAERR, "%s: not an HDF5 file; `bertune prepare` makes one", path);
    }
    DatasetTrailer trailer = {0};
    if (length >= sizeof trailer) { memcpy(&trailer, bytes + length - sizeof trailer, sizeof trailer); }
    if (memcmp(trailer.magic, dataset_trailer_magic, sizeof trailer.magic) != 0) {
        const uint64_t end = hdf5_end(bytes, length);
        return !end || length <= end ||
               error_set(error, EX_DATAERR, "%s: damaged: %llu bytes behind the HDF5 data are no checksum", path,
                         (unsigned long long)(length - end));
    }
    const XXH128_hash_t hash = XXH3_128bits(bytes, length - sizeof trailer);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    if (memcmp(&canonical, trailer.hash, sizeof trailer.hash) == 0) { return true; }
    return error_set(error, EX_DATAERR, "%s: damaged: its checksum does not match; prepare it again", path);
}

bool dataset_verify(const char *path, Error *error) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // opening a pipe would wait for its writer
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        const char *cause = fd < 0 ? strerror(errno) : "not a plain file";
        if (fd >= 0) { close(fd); }
        return error_set(error, EX_NOINPUT, "%s: %s", path, cause);
    }
    const size_t length = (size_t)status.st_size;
    void *bytes = length ? mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (bytes == MAP_FAILED) {
        return error_set(error, EX_DATAERR, "%s: not an HDF5 file (%zu bytes); `bertune prepare` makes one", path,
                         length);
    }
    const bool ok = verify_bytes(bytes, length, path, error);
    munmap(bytes, length);
    return ok;
}

static bool bad(const Dataset *dataset, Error *error, const char *what) {
    return error_set(error, EX_DATAERR, "%s: not a data set of bertune: %s", dataset->path, what);
}

// Reads an attribute of UTF-8 texts, at most `most`; *texts (release with free_texts) receives *count of them.
static bool read_texts(const Dataset *dataset, const char *name, hsize_t most, char ***texts, hsize_t *count,
                       Error *error) {
    hid_t attribute = H5Aopen(dataset->file, name, H5P_DEFAULT);
    hid_t type = attribute < 0 ? H5I_INVALID_HID : H5Aget_type(attribute);
    hid_t space = attribute < 0 ? H5I_INVALID_HID : H5Aget_space(attribute), memory = H5Tcopy(H5T_C_S1);
    H5Tset_size(memory, H5T_VARIABLE);
    H5Tset_cset(memory, H5Tget_cset(type) == H5T_CSET_ASCII ? H5T_CSET_ASCII : H5T_CSET_UTF8);
    const hssize_t points = type >= 0 && H5Tis_variable_str(type) > 0 ? H5Sget_simple_extent_npoints(space) : 0;
    bool ok = points >= 1 && (hsize_t)points <= most;
    *count = ok ? (hsize_t)points : 0;
    *texts = check_calloc(*count, sizeof **texts);
    ok = ok && H5Aread(attribute, memory, *texts) >= 0;
    for (hsize_t i = 0; i < *count; i++) { ok = ok && (*texts)[i]; }
    H5Sclose(space);
    H5Tclose(memory);
    H5Tclose(type);
    H5Aclose(attribute);
    return ok || error_set(error, EX_DATAERR, "%s: not a data set of bertune: attribute `%s` missing or no text",
                           dataset->path, name);
}

static void free_texts(char **texts, hsize_t count) {
    for (hsize_t i = 0; i < count; i++) { H5free_memory(texts[i]); }
    free(texts);
}

static bool read_text(const Dataset *dataset, const char *name, char *text, size_t size, Error *error) {
    char **texts;
    hsize_t count;
    const bool ok = read_texts(dataset, name, 1, &texts, &count, error);
    if (ok) { snprintf(text, size, "%s", texts[0]); }
    free_texts(texts, count);
    return ok;
}

static bool read_integer(const Dataset *dataset, const char *name, int32_t least, int32_t most, int32_t *value,
                         Error *error) {
    hid_t attribute = H5Aopen(dataset->file, name, H5P_DEFAULT);
    int64_t wide = 0;
    hid_t space = attribute < 0 ? H5I_INVALID_HID : H5Aget_space(attribute);
    const bool ok = attribute >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                    H5Aread(attribute, H5T_NATIVE_INT64, &wide) >= 0 && wide >= least && wide <= most;
    H5Sclose(space);
    H5Aclose(attribute);
    *value = (int32_t)wide;
    return ok || error_set(error, EX_DATAERR, "%s: not a data set of bertune: attribute `%s` missing or not in %d..%d",
                           dataset->path, name, least, most);
}

static bool read_label_names(Dataset *dataset, Error *error) {
    DatasetInfo *info = &dataset->info;
    char **texts;
    hsize_t count;
    const bool ok = read_texts(dataset, "label_names", DATASET_MAX_CLASSES, &texts, &count, error);
    info->classes = (int32_t)count;
    info->label_names = check_calloc(count, sizeof *info->label_names);
    for (hsize_t c = 0; ok && c < count; c++) {
        snprintf(info->label_names[c], sizeof info->label_names[c], "%s", texts[c]);
    }
    free_texts(texts, count);
    return ok;
}

// Opens a one-dimensional data set of integers and gives its length.
static hid_t open_vector(const Dataset *dataset, const char *name, hsize_t *length) {
    hid_t vector = H5Dopen2(dataset->file, name, H5P_DEFAULT);
    if (vector < 0) { return vector; }
    hid_t space = H5Dget_space(vector), type = H5Dget_type(vector);
    const bool ok = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, length, NULL) == 1 &&
                    H5Tget_class(type) == H5T_INTEGER;
    H5Tclose(type);
    H5Sclose(space);
    if (ok) { return vector; }
    H5Dclose(vector);
    return H5I_INVALID_HID;
}

static bool read_vector(hid_t vector, hid_t type, hsize_t first, hsize_t count, hid_t transfer, void *to) {
    hid_t space = H5Dget_space(vector), memory = H5Screate_simple(1, &count, NULL);
    herr_t status = count ? H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &count, NULL)
                          : (H5Sselect_none(space) < 0 ? -1 : H5Sselect_none(memory));
    if (status >= 0) { status = H5Dread(vector, type, memory, space, transfer, to); }
    H5Sclose(memory);
    H5Sclose(space);
    return status >= 0;
}

static bool read_active(Dataset *dataset, Error *error) {
    DatasetInfo *info = &dataset->info;
    hsize_t length = 0;
    hid_t vector = open_vector(dataset, "/vocabulary/active", &length);
    if (vector < 0 || length < 1 || length > (hsize_t)info->vocabulary_size) {
        H5Dclose(vector);
        return bad(dataset, error, "/vocabulary/active missing or too long");
    }
    info->active_count = (int32_t)length;
    info->active = check_calloc(length, sizeof *info->active);
    bool ok = read_vector(vector, H5T_NATIVE_INT32, 0, length, H5P_DEFAULT, info->active);
    H5Dclose(vector);
    for (int32_t i = 0; ok && i < info->active_count; i++) {
        ok = info->active[i] >= (i ? info->active[i - 1] + 1 : 0) && info->active[i] < info->vocabulary_size;
    }
    return ok || bad(dataset, error, "/vocabulary/active is not a sorted list of token ids");
}

bool dataset_open(Dataset *dataset, const char *path, hid_t access, Error *error) {
    memset(dataset, 0, sizeof *dataset);
    snprintf(dataset->path, sizeof dataset->path, "%s", path);
    // The library's own locks are of no use for read-only files and fail on many network file systems.
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);  // messages are ours
    dataset->file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (dataset->file < 0) { return error_set(error, EX_DATAERR, "%s: HDF5 cannot open it (truncated?)", path); }
    DatasetInfo *info = &dataset->info;
    int32_t version = 0;
    return read_integer(dataset, "format_version", DATASET_VERSION, DATASET_VERSION, &version, error) &&
           read_text(dataset, "vocabulary_sha256", info->vocabulary_sha256, sizeof info->vocabulary_sha256, error) &&
           read_text(dataset, "source_sha256", info->source_sha256, sizeof info->source_sha256, error) &&
           read_text(dataset, "split", info->split_rule, sizeof info->split_rule, error) &&
           read_integer(dataset, "vocabulary_size", 1, INT32_MAX - 1, &info->vocabulary_size, error) &&
           read_integer(dataset, "max_length", 2, 1 << 16, &info->max_length, error) &&
           read_label_names(dataset, error) && read_active(dataset, error);
}

void dataset_close(Dataset *dataset) {
    if (dataset->file > 0) { H5Fclose(dataset->file); }
    free(dataset->info.label_names);
    free(dataset->info.active);
    memset(dataset, 0, sizeof *dataset);
}

bool dataset_has_group(const Dataset *dataset, const char *group) {
    return H5Lexists(dataset->file, group, H5P_DEFAULT) > 0;
}

static hid_t open_part(const Dataset *dataset, const char *group, const char *part, hsize_t *length) {
    char name[64];
    snprintf(name, sizeof name, "/%s/%s", group, part);
    return open_vector(dataset, name, length);
}

bool dataset_sizes(const Dataset *dataset, const char *group, Reviews *reviews, Error *error) {
    static const char *const parts[] = {"tokens", "offsets", "labels", "source_row"};
    hsize_t lengths[4] = {0};
    for (int i = 0; i < 4; i++) {
        hid_t vector = open_part(dataset, group, parts[i], &lengths[i]);
        if (vector < 0) {
            return error_set(error, EX_DATAERR, "%s: not a data set of bertune: no /%s/%s", dataset->path, group,
                             parts[i]);
        }
        H5Dclose(vector);
    }
    reviews->rows = (int64_t)lengths[2];
    reviews->token_count = (int64_t)lengths[0];
    if (lengths[2] < 1 || lengths[2] > UINT32_MAX || lengths[1] != lengths[2] + 1 || lengths[3] != lengths[2] ||
        lengths[0] > lengths[2] * (hsize_t)dataset->info.max_length) {
        return error_set(error, EX_DATAERR, "%s: /%s: tokens, labels, offsets and source_row do not fit together",
                         dataset->path, group);
    }
    return true;
}

static bool read_part(const Dataset *dataset, const char *group, const char *part, hid_t type, int64_t first,
                      int64_t count, hid_t transfer, void *to, Error *error) {
    hsize_t length = 0;
    hid_t vector = open_part(dataset, group, part, &length);
    const bool ok = vector >= 0 && read_vector(vector, type, (hsize_t)first, (hsize_t)count, transfer, to);
    H5Dclose(vector);
    return ok || error_set(error, EX_DATAERR, "%s: /%s/%s: HDF5 cannot read it (damaged?)", dataset->path, group, part);
}

static bool check_rows(const Dataset *dataset, const char *group, const Reviews *reviews, int64_t first, int64_t count,
                       Error *error) {
    for (int64_t i = first; i < first + count; i++) {
        const int64_t length = reviews->offsets[i + 1] - reviews->offsets[i];
        bool ok = length >= 2 && length <= dataset->info.max_length && reviews->labels[i] >= 0 &&
                  reviews->labels[i] < dataset->info.classes;
        for (int64_t t = reviews->offsets[i]; ok && t < reviews->offsets[i + 1]; t++) {
            ok = reviews->tokens[t] >= 0 && reviews->tokens[t] < dataset->info.vocabulary_size;
        }
        if (!ok) {
            return error_set(error, EX_DATAERR, "%s: /%s: row %lld: its length, label or a token id is out of range",
                             dataset->path, group, (long long)i);
        }
    }
    return true;
}

// Offsets first, since they bound what may be read next; every rank takes part in every collective read all the same.
bool dataset_read_rows(const Dataset *dataset, const char *group, Reviews *reviews, int64_t first, int64_t count,
                       hid_t transfer, Error *error) {
    int64_t *offsets = reviews->offsets + first;
    bool ok = read_part(dataset, group, "offsets", H5T_NATIVE_INT64, first, count + 1, transfer, offsets, error);
    bool ordered = ok && offsets[0] >= (first ? 2 * first : 0) && offsets[count] <= reviews->token_count &&
                   (first > 0 || offsets[0] == 0) &&
                   (first + count < reviews->rows || offsets[count] == reviews->token_count);
    for (int64_t i = 0; ordered && i < count; i++) { ordered = offsets[i] <= offsets[i + 1]; }
    if (ok && !ordered) { ok = error_set(error, EX_DATAERR, "%s: /%s/offsets: not ascending", dataset->path, group); }
    const int64_t begin = ok ? offsets[0] : 0, tokens = ok ? offsets[count] - begin : 0;
    Error later;
    ok = read_part(dataset, group, "tokens", H5T_NATIVE_INT32, begin, tokens, transfer, reviews->tokens + begin,
                   ok ? error : &later) &&
         ok;
    ok = read_part(dataset, group, "labels", H5T_NATIVE_INT32, first, count, transfer, reviews->labels + first,
                   ok ? error : &later) &&
         ok;
    ok = read_part(dataset, group, "source_row", H5T_NATIVE_INT64, first, count, transfer, reviews->source_row + first,
                   ok ? error : &later) &&
         ok;
    return ok && check_rows(dataset, group, reviews, first, count, error);
}

bool dataset_read_position(const Dataset *dataset, const char *group, int64_t *position, int64_t rows, int64_t total,
                           Error *error) {
    hsize_t length = 0;
    hid_t vector = open_part(dataset, group, "position", &length);
    H5Dclose(vector);
    if (vector < 0 || length != (hsize_t)rows) {
        return error_set(error, EX_DATAERR, "%s: no /%s/position of %lld rows; prepare it again with --dev-size",
                         dataset->path, group, (long long)rows);
    }
    if (!read_part(dataset, group, "position", H5T_NATIVE_INT64, 0, rows, H5P_DEFAULT, position, error)) {
        return false;
    }
    bool *seen = check_calloc((size_t)total, sizeof *seen), ok = true;
    for (int64_t i = 0; ok && i < rows; i++) {
        ok = position[i] >= 0 && position[i] < total && !seen[position[i]];
        if (ok) { seen[position[i]] = true; }
    }
    free(seen);
    return ok || error_set(error, EX_DATAERR, "%s: /%s/position: out of range, or one twice", dataset->path, group);
}

void reviews_alloc(Reviews *reviews) {
    const size_t rows = (size_t)reviews->rows;
    reviews->offsets = check_calloc(rows + 1, sizeof *reviews->offsets);
    reviews->tokens = check_calloc((size_t)reviews->token_count, sizeof *reviews->tokens);
    reviews->labels = check_calloc(rows, sizeof *reviews->labels);
    reviews->source_row = check_calloc(rows, sizeof *reviews->source_row);
}

void reviews_free(Reviews *reviews) {
    free(reviews->offsets);
    free(reviews->tokens);
    free(reviews->labels);
    free(reviews->source_row);
    memset(reviews, 0, sizeof *reviews);
}

bool dataset_read(const Dataset *dataset, const char *group, Reviews *reviews, Error *error) {
    memset(reviews, 0, sizeof *reviews);
    if (!dataset_sizes(dataset, group, reviews, error)) { return false; }
    reviews_alloc(reviews);
    return dataset_read_rows(dataset, group, reviews, 0, reviews->rows, H5P_DEFAULT, error);
}
