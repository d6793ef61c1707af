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
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

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

// Of a full disk: how much was wanted and how much there is.
static bool write_failed(const char *path, size_t wanted, int cause, Error *error) {
    char parent[PATH_MAX], room[64] = "";
    struct statvfs status;
    path_parent(parent, sizeof parent, path);
    if (cause == ENOSPC && statvfs(parent, &status) == 0) {
        snprintf(room, sizeof room, " (%llu bytes free)", (unsigned long long)status.f_bavail * status.f_frsize);
    }
    return error_set(error, EX_IOERR, "%s: cannot write %zu bytes: %s%s", path, wanted, strerror(cause), room);
}

// Writes everything that count parts name, however little the system takes at a time; gives errno, or 0.
static int write_parts(int fd, const FilePart *parts, int count) {
    enum { AT_ONCE = 64 };
    int part = 0;
    size_t done = 0;  // of that part
    while (part < count) {
        struct iovec pieces[AT_ONCE];
        int used = 0;
        for (int i = part; i < count && used < AT_ONCE; i++) {
            const size_t skip = i == part ? done : 0;
            pieces[used++] = (struct iovec){(char *)parts[i].bytes + skip, parts[i].length - skip};
        }
        const ssize_t put = writev(fd, pieces, used);
        if (put < 0 && errno == EINTR) { continue; }
        if (put < 0) { return errno; }
        done += (size_t)put;
        while (part < count && done >= parts[part].length) { done -= parts[part++].length; }
        if (put == 0 && part < count && parts[part].length > done) { return EIO; }
    }
    return 0;
}

// Leaves nothing behind when it fails. Messages show name instead of path.
static bool write_as(const char *path, const char *name, const FilePart *parts, int count, Error *error) {
    size_t length = 0;
    for (int i = 0; i < count; i++) { length += parts[i].length; }
    const int fd = TEMP_FAILURE_RETRY(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (fd < 0) { return error_set(error, create_code(errno), "%s: cannot create: %s", name, strerror(errno)); }
    int cause = write_parts(fd, parts, count);
    if (!cause && TEMP_FAILURE_RETRY(fsync(fd)) != 0) { cause = errno; }
    struct stat status;
    if (!cause && (fstat(fd, &status) != 0 || (size_t)status.st_size != length)) { cause = EIO; }
    if (close(fd) != 0 && errno != EINTR && !cause) { cause = errno; }
    if (!cause) { return true; }
    unlink(path);
    return write_failed(name, length, cause, error);
}

static void finish_hash(FileHash *hash, XXH3_state_t *state, size_t length) {
    const XXH128_hash_t digest = XXH3_128bits_digest(state);
    *hash = (FileHash){length, digest.high64, digest.low64};
    XXH3_freeState(state);
}

static XXH3_state_t *begin_hash(void) {
    XXH3_state_t *state = XXH3_createState();
    CHECK(state && XXH3_128bits_reset(state) == XXH_OK);
    return state;
}

bool file_write_parts(const char *path, const FilePart *parts, int count, FileHash *hash, Error *error) {
    if (hash) {
        size_t length = 0;
        XXH3_state_t *state = begin_hash();
        for (int i = 0; i < count; i++) {
            XXH3_128bits_update(state, parts[i].bytes, parts[i].length);
            length += parts[i].length;
        }
        finish_hash(hash, state, length);
    }
    return write_as(path, path, parts, count, error);
}

bool file_hash(FileHash *hash, const char *path, Error *error) {
    enum { PIECE = 1 << 18 };
    struct stat status;
    const int fd =
        TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe would wait for its writer
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        const char *cause = fd < 0 ? strerror(errno) : "not a plain file";
        if (fd >= 0) { close(fd); }
        return error_set(error, EX_NOINPUT, "%s: %s", path, cause);
    }
    char *piece = check_calloc(PIECE, 1);
    XXH3_state_t *state = begin_hash();
    size_t length = 0;
    ssize_t got;
    while ((got = TEMP_FAILURE_RETRY(read(fd, piece, PIECE))) > 0) {
        XXH3_128bits_update(state, piece, (size_t)got);
        length += (size_t)got;
    }
    const int cause = errno;
    finish_hash(hash, state, length);
    free(piece);
    close(fd);
    return got == 0 || error_set(error, EX_IOERR, "%s: cannot read: %s", path, strerror(cause));
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
    if (!write_as(temporary, path, &(FilePart){bytes, length}, 1, error)) { return false; }
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
        const bool made = mkdir(partial, 0777) == 0, there = made || errno == EEXIST;
        const int cause = there ? ENOTDIR : errno;
        if (!there || stat(partial, &status) != 0 || !S_ISDIR(status.st_mode)) {
            return error_set(error, create_code(cause), "%s: cannot create the directory: %s", partial,
                             strerror(cause));
        }
        char parent[PATH_MAX];
        path_parent(parent, sizeof parent, partial);
        if (made && !directory_sync(parent, error)) { return false; }
        *at = end;
        if (!end) { return true; }
    }
}

bool directory_sync(const char *path, Error *error) {
    const int fd = TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // What cannot be synced needs no sync, or cannot be had: some file systems, directories closed to readers.
    const bool ok =
        fd >= 0 ? TEMP_FAILURE_RETRY(fsync(fd)) == 0 || errno == EINVAL || errno == ENOTSUP : errno == EACCES;
    const int cause = errno;
    if (fd >= 0) { close(fd); }
    return ok || error_set(error, EX_IOERR, "%s: cannot sync the directory: %s", path, strerror(cause));
}

// Puts temporary in the place of path and gives where the directory that was there is now: at temporary or, where the
// file system cannot exchange, at trash, after a moment in which there was none. False with errno when it failed.
static bool take_place(const char *temporary, const char *path, const char *trash, const char **old) {
    *old = temporary;
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) == 0) { return true; }
    if (errno != ENOENT && errno != EINVAL && errno != ENOSYS) { return false; }
    *old = rename(path, trash) == 0 ? trash : NULL;
    if ((*old || errno == ENOENT) && rename(temporary, path) == 0) { return true; }
    const int cause = errno;
    if (*old) { rename(trash, path); }
    errno = cause;
    return false;
}

bool directory_publish(const char *temporary, const char *path, Error *error) {
    char parent[PATH_MAX], trash[PATH_MAX], name[PATH_MAX];
    const char *old;
    path_parent(parent, sizeof parent, path);
    const char *slash = strrchr(path, '/');
    snprintf(name, sizeof name, ".trash-%s", slash ? slash + 1 : path);
    path_join(trash, sizeof trash, parent, name);
    directory_remove(trash);
    if (!directory_sync(temporary, error)) { return false; }
    if (!take_place(temporary, path, trash, &old)) {
        return error_set(error, EX_IOERR, "%s: cannot put %s in its place: %s", path, temporary, strerror(errno));
    }
    if (!directory_sync(parent, error)) {
        // Whether the new one is there to stay is not known: back to what was.
        if (old == temporary) {
            renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE);
        } else if (rename(path, temporary) == 0 && old) {
            rename(old, path);
        }
        return false;
    }
    if (old) { directory_remove(old); }
    return true;
}

void directory_remove(const char *path) {
    // What a link leads to is not ours to remove; the link itself is, or what is made here next would go there.
    char target;
    if (readlink(path, &target, 1) >= 0) {
        unlink(path);
        return;
    }
    const int fd = TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0) { close(fd); }
        return;
    }
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
