// See manifest.h.
#include "trainer/manifest.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void format_line(char *line, size_t size, const char *name, const FileHash *hash) {
    snprintf(line, size, "%016llx%016llx  %zu  %s\n", (unsigned long long)hash->high, (unsigned long long)hash->low,
             hash->length, name);
}

void manifest_add(Manifest *manifest, const char *name, const FileHash *hash) {
    char line[512];
    format_line(line, sizeof line, name, hash);
    CHECK(strlen(manifest->text) + strlen(line) < sizeof manifest->text);
    strcat(manifest->text, line);
}

bool manifest_write(Manifest *manifest, const char *directory, const char *name, const void *bytes, size_t length,
                    Error *error) {
    char path[PATH_MAX];
    FileHash hash;
    path_join(path, sizeof path, directory, name);
    if (!file_write_parts(path, &(FilePart){bytes, length}, 1, &hash, error)) { return false; }
    manifest_add(manifest, name, &hash);
    return true;
}

bool manifest_finish(const Manifest *manifest, const char *directory, Error *error) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "MANIFEST");
    return file_write_parts(path, &(FilePart){manifest->text, strlen(manifest->text)}, 1, NULL, error);
}

static bool damaged(const char *path, const char *how, Error *error) {
    return error_set(error, EX_DATAERR, "%s: damaged: %s", path, how);
}

// Checks one file against its line.
static bool verify_file(const char *path, const char *name, const char *line, size_t width, Error *error) {
    char expected[512], how[160];
    FileHash hash;
    struct stat status;
    size_t length;
    if (sscanf(line, "%*32[0-9a-f] %zu", &length) != 1) {
        return damaged(path, "the MANIFEST has no size of it", error);
    }
    if (stat(path, &status) != 0) { return damaged(path, errno == ENOENT ? "missing" : strerror(errno), error); }
    if ((size_t)status.st_size != length) {
        snprintf(how, sizeof how, "%lld bytes instead of %zu", (long long)status.st_size, length);
        return damaged(path, how, error);
    }
    if (!file_hash(&hash, path, error)) {
        error->code = EX_DATAERR;
        return false;
    }
    format_line(expected, sizeof expected, name, &hash);
    return (width == strlen(expected) && memcmp(line, expected, width) == 0) ||
           damaged(path, "its bytes are not those of the MANIFEST", error);
}

static bool verify_text(const char *directory, const char *manifest, const char *text, size_t length,
                        const char *const *names, int count, Error *error) {
    const char *line = text, *end = text + length;
    for (int i = 0; i < count; i++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        char path[PATH_MAX], how[160];
        if (!newline) {
            snprintf(how, sizeof how, "cut short before the line of %s", names[i]);
            return damaged(manifest, how, error);
        }
        const size_t width = (size_t)(newline + 1 - line), name = strlen(names[i]);
        if (width < name + 3 || memcmp(newline - name, names[i], name) != 0) {
            snprintf(how, sizeof how, "line %d is not that of %s", i + 1, names[i]);
            return damaged(manifest, how, error);
        }
        path_join(path, sizeof path, directory, names[i]);
        if (!verify_file(path, names[i], line, width, error)) { return false; }
        line = newline + 1;
    }
    return line == end || damaged(manifest, "bytes behind the last line", error);
}

static bool verify_files(const char *directory, const char *const *names, int count, Error *error) {
    char manifest[PATH_MAX], *text;
    size_t length;
    struct stat status;
    path_join(manifest, sizeof manifest, directory, "MANIFEST");
    if (stat(manifest, &status) != 0) {
        return damaged(manifest, errno == ENOENT ? "missing" : strerror(errno), error);
    }
    if (!file_read(&text, &length, manifest, 1 << 16, error)) {
        error->code = EX_DATAERR;
        return false;
    }
    const bool ok = verify_text(directory, manifest, text, length, names, count, error);
    free(text);
    return ok;
}

bool manifest_verify(const char *directory, const char *const *names, int count, Error *error) {
    struct stat status;
    const bool found = stat(directory, &status) == 0 && S_ISDIR(status.st_mode);
    if (found && verify_files(directory, names, count, error)) { return true; }
    // A job that trains may have removed it meanwhile.
    if (found && stat(directory, &status) == 0) { return false; }
    return error_set(error, EX_NOINPUT, "%s: no such directory", directory);
}
