// See file.h.
#include "datasets/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void path_join(char *path, size_t size, const char *directory, const char *name) {
    int length = snprintf(path, size, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= size) { die(EX_CONFIG, "the path %s/%s is too long", directory, name); }
}

void path_parent(char *parent, size_t size, const char *path) {
    const char *slash = strrchr(path, '/');
    int length = slash == path ? 1 : slash ? narrow_int(slash - path) : 0;
    snprintf(parent, size, "%.*s", length ? length : 1, length ? path : ".");
}

static bool read_all(int fd, char **bytes, size_t *length, size_t limit, const char *path, Error *error) {
    size_t capacity = 1 << 16;
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_size > 0) { capacity = (size_t)status.st_size; }
    if (capacity > limit) { capacity = limit; }
    char *buffer = check_calloc(capacity + 2, 1);
    size_t used = 0;
    for (;;) {
        ssize_t got = read(fd, buffer + used, capacity + 1 - used);
        if (got < 0 && errno == EINTR) { continue; }
        if (got < 0) {
            free(buffer);
            return error_set(error, EX_IOERR, "%s: cannot read: %s", path, strerror(errno));
        }
        used += (size_t)got;
        if (used > limit) {
            free(buffer);
            return error_set(error, EX_DATAERR, "%s: larger than %zu bytes", path, limit);
        }
        if (got == 0) { break; }
        if (used > capacity) {
            capacity = capacity * 2 < limit ? capacity * 2 : limit;
            buffer = check_realloc(buffer, capacity + 2, 1);
        }
    }
    buffer[used] = 0;
    *bytes = buffer;
    *length = used;
    return true;
}

bool file_read(char **bytes, size_t *length, const char *path, size_t limit, Error *error) {
    if (strcmp(path, "-") == 0) { return read_all(STDIN_FILENO, bytes, length, limit, "<stdin>", error); }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        if (fd >= 0) { close(fd); }
        return error_set(error, EX_NOINPUT, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) {
        close(fd);
        return error_set(error, EX_NOINPUT, "%s: is a directory, expected a file", path);
    }
    bool ok = read_all(fd, bytes, length, limit, path, error);
    close(fd);
    return ok;
}

static int create_code(int cause) {
    return cause == ENOSPC || cause == EDQUOT || cause == EIO ? EX_IOERR : EX_CANTCREAT;
}

// Messages show name instead of path.
static bool write_as(const char *path, const char *name, const void *bytes, size_t length, Error *error) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) { return error_set(error, create_code(errno), "%s: cannot create: %s", name, strerror(errno)); }
    size_t done = 0;
    int cause = 0;
    while (done < length && !cause) {
        ssize_t put = write(fd, (const char *)bytes + done, length - done);
        if (put >= 0) {
            done += (size_t)put;
        } else if (errno != EINTR) {
            cause = errno;
        }
    }
    if (!cause && fsync(fd) != 0) { cause = errno; }
    if (close(fd) != 0 && !cause) { cause = errno; }
    if (!cause) { return true; }
    unlink(path);
    return error_set(error, EX_IOERR, "%s: cannot write %zu bytes: %s", name, length, strerror(cause));
}

bool file_write_plain(const char *path, const void *bytes, size_t length, Error *error) {
    return write_as(path, path, bytes, length, error);
}

bool file_write(const char *path, const void *bytes, size_t length, Error *error) {
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        return error_set(error, EX_CANTCREAT, "%s: is a directory", path);
    }
    char parent[PATH_MAX], name[PATH_MAX], temporary[PATH_MAX];
    path_parent(parent, sizeof parent, path);
    const char *slash = strrchr(path, '/');
    snprintf(name, sizeof name, ".%s.tmp-%ld", slash ? slash + 1 : path, (long)getpid());
    path_join(temporary, sizeof temporary, parent, name);
    if (!write_as(temporary, path, bytes, length, error)) { return false; }
    if (rename(temporary, path) != 0) {
        int cause = errno;
        unlink(temporary);
        return error_set(error, create_code(cause), "%s: cannot create: %s", path, strerror(cause));
    }
    return directory_sync(parent, error);
}

bool directory_create(const char *path, Error *error) {
    char partial[PATH_MAX];
    if (strlen(path) >= sizeof partial) { return error_set(error, EX_CANTCREAT, "%s: the path is too long", path); }
    strcpy(partial, path);
    for (char *at = partial + 1;; at++) {
        if (*at != '/' && *at != 0) { continue; }
        const char end = *at;
        *at = 0;
        struct stat status;
        const bool made = mkdir(partial, 0777) == 0 || errno == EEXIST;
        const int cause = made ? ENOTDIR : errno;
        if (!made || stat(partial, &status) != 0 || !S_ISDIR(status.st_mode)) {
            return error_set(error, create_code(cause), "%s: cannot create the directory: %s", partial,
                             strerror(cause));
        }
        *at = end;
        if (!end) { return true; }
    }
}

bool directory_sync(const char *path, Error *error) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP);
    int cause = errno;
    if (fd >= 0) { close(fd); }
    return ok || error_set(error, EX_IOERR, "%s: cannot sync the directory: %s", path, strerror(cause));
}

bool directory_publish(const char *temporary, const char *path, Error *error) {
    char parent[PATH_MAX], trash[PATH_MAX], name[PATH_MAX];
    path_parent(parent, sizeof parent, path);
    const char *slash = strrchr(path, '/');
    snprintf(name, sizeof name, ".trash-%s", slash ? slash + 1 : path);
    path_join(trash, sizeof trash, parent, name);
    directory_remove(trash);
    if (!directory_sync(temporary, error)) { return false; }
    if ((rename(path, trash) != 0 && errno != ENOENT) || rename(temporary, path) != 0) {
        return error_set(error, EX_IOERR, "%s: cannot put %s in its place: %s", path, temporary, strerror(errno));
    }
    const bool ok = directory_sync(parent, error);
    directory_remove(trash);
    return ok;
}

void directory_remove(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) { return; }
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            unlinkat(dirfd(directory), entry->d_name, 0);
        }
    }
    closedir(directory);
    rmdir(path);
}

void sha256_hex(char hex[65], const void *bytes, size_t length) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    CHECK(EVP_Digest(bytes, length, digest, &size, EVP_sha256(), NULL) == 1 && size == 32);
    for (unsigned int i = 0; i < size; i++) { snprintf(hex + 2 * i, 3, "%02x", digest[i]); }
}
