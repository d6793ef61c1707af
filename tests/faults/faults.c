// See faults.h. Everything is done by raw system calls, so that neither libc nor a sanitizer is asked.
#include "tests/faults/faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static Faults armed;
static bool is_armed;
static int64_t calls, syncs;

static void die_now(void) {
    syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
    for (;;) { pause(); }
}

// ---- What a power cut would undo.

typedef enum { MADE, RENAMED, EXCHANGED, REMOVED } OpKind;

typedef struct {
    OpKind kind;
    int directory;
    dev_t device;
    ino_t inode;
    char name[NAME_MAX + 1], to[NAME_MAX + 1];
    int lost;  // number of what was REMOVED, or replaced by what was RENAMED; 0: nothing
} Op;

typedef struct {
    int fd;
    dev_t device;
    ino_t inode;
} Dirty;

enum { MOST = 4096 };
static Op ops[MOST];
static Dirty dirty[MOST];
static int op_count, dirty_count, lost_count;

static bool keeps_record(void) { return is_armed && armed.kind == FAULT_POWER; }

static void full(void) {
    static const char text[] = "faults: too many operations\n";
    if (syscall(SYS_write, STDERR_FILENO, text, sizeof text - 1) < 0) { _exit(99); }
    _exit(98);
}

// The directory of path, opened, and the name in it.
static int open_parent(const char *path, char name[NAME_MAX + 1]) {
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(name, NAME_MAX + 1, "%s", slash ? slash + 1 : path);
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return (int)syscall(SYS_openat, AT_FDCWD, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static Op *record(OpKind kind, const char *path) {
    if (op_count == MOST) { full(); }
    Op *op = &ops[op_count++];
    struct stat status = {0};
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->directory = open_parent(path, op->name);
    fstat(op->directory, &status);
    op->device = status.st_dev;
    op->inode = status.st_ino;
    return op;
}

static void lost_name(char name[PATH_MAX], int number) { snprintf(name, PATH_MAX, "%s/%d", armed.lost, number); }

// Keeps what path names, so that it can come back; by another name for it, or (move) under that name only.
static int keep_lost(const char *path, bool move) {
    char name[PATH_MAX];
    lost_name(name, ++lost_count);
    const long status = move ? syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, name, 0)
                             : syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, name, 0);
    return status == 0 ? lost_count : 0;
}

static void record_write(int fd) {
    struct stat status;
    if (!keeps_record() || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) { return; }
    for (int i = 0; i < dirty_count; i++) {
        if (dirty[i].inode == status.st_ino && dirty[i].device == status.st_dev) { return; }
    }
    if (dirty_count == MOST) { full(); }
    dirty[dirty_count++] = (Dirty){(int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0), status.st_dev, status.st_ino};
}

static void record_sync(int fd) {
    struct stat status;
    if (!keeps_record() || fstat(fd, &status) != 0) { return; }
    int kept = 0;
    for (int i = 0; i < dirty_count; i++) {
        const bool synced = dirty[i].inode == status.st_ino && dirty[i].device == status.st_dev;
        if (synced) { syscall(SYS_close, dirty[i].fd); }
        if (!synced) { dirty[kept++] = dirty[i]; }
    }
    dirty_count = kept;
    kept = 0;
    for (int i = 0; i < op_count; i++) {
        const bool synced = ops[i].inode == status.st_ino && ops[i].device == status.st_dev;
        if (synced) { syscall(SYS_close, ops[i].directory); }
        if (!synced) { ops[kept++] = ops[i]; }
    }
    op_count = kept;
}

static uint32_t draw(void) {
    armed.seed = armed.seed * 1664525u + 1013904223u;
    uint32_t mixed = armed.seed ^ armed.seed >> 16;
    mixed *= 0x7feb352du;
    return mixed ^ mixed >> 15;
}

static void undo(const Op *op) {
    char lost[PATH_MAX];
    switch (op->kind) {
        case MADE:
            lost_name(lost, ++lost_count);
            syscall(SYS_renameat2, op->directory, op->name, AT_FDCWD, lost, 0);
            break;
        case RENAMED:
            syscall(SYS_renameat2, op->directory, op->to, op->directory, op->name, 0);
            if (op->lost) {
                lost_name(lost, op->lost);
                syscall(SYS_renameat2, AT_FDCWD, lost, op->directory, op->to, 0);
            }
            break;
        case EXCHANGED:
            syscall(SYS_renameat2, op->directory, op->name, op->directory, op->to, RENAME_EXCHANGE);
            break;
        case REMOVED:
            lost_name(lost, op->lost);
            syscall(SYS_renameat2, AT_FDCWD, lost, op->directory, op->name, 0);
            break;
    }
}

// How many operations of one directory last: any number, the first ones.
static int lasting(const Op *op) {
    int count = 0;
    for (int i = 0; i < op_count; i++) { count += ops[i].inode == op->inode && ops[i].device == op->device; }
    return (int)(draw() % (uint32_t)(count + 1));
}

void faults_cut_power(void) {
    for (int i = 0; i < dirty_count; i++) {
        struct stat status;
        if (fstat(dirty[i].fd, &status) != 0) { continue; }
        const off_t length = (off_t)(draw() % (uint32_t)(status.st_size + 1));
        syscall(SYS_ftruncate, dirty[i].fd, length);
        if (draw() % 2) { syscall(SYS_ftruncate, dirty[i].fd, status.st_size); }
    }
    static bool undone[MOST], seen[MOST];
    for (int i = 0; i < op_count; i++) {
        if (seen[i]) { continue; }
        int left = lasting(&ops[i]);
        for (int j = i; j < op_count; j++) {
            if (ops[j].inode != ops[i].inode || ops[j].device != ops[i].device) { continue; }
            seen[j] = true;
            undone[j] = left-- <= 0;
        }
    }
    for (int i = op_count - 1; i >= 0; i--) {
        if (undone[i]) { undo(&ops[i]); }
    }
    die_now();
    _exit(97);
}

// ---- Which calls count, and what becomes of them.

typedef enum { PASS, REFUSE, HALF, LAST } Verdict;

static bool concerns_path(const char *path) { return is_armed && path && strstr(path, armed.below); }

static bool concerns_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!is_armed) { return false; }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) { return false; }
    path[length] = 0;
    return strstr(path, armed.below) != NULL;
}

static Verdict next(bool concerned) {
    if (!concerned) { return PASS; }
    calls++;
    if (armed.kind == FAULT_BROKEN ? calls < armed.at : calls != armed.at) { return PASS; }
    switch (armed.kind) {
        case FAULT_ERROR:
        case FAULT_BROKEN:
            errno = armed.error;
            return REFUSE;
        case FAULT_SHORT:
            return HALF;
        case FAULT_KILL:
            die_now();
            break;
        case FAULT_POWER:
            faults_cut_power();
        case FAULT_KILL_IN:
            return LAST;
        case FAULT_NONE:
            break;
    }
    return PASS;
}

static long last(Verdict verdict, long result) {
    if (verdict == LAST) { die_now(); }
    return result;
}

void faults_arm(Faults faults) {
    armed = faults;
    calls = syncs = 0;
    is_armed = true;
}

int64_t faults_calls(void) { return calls; }

// ---- The replaced functions.

static int open_any(int directory, const char *path, int flags, mode_t mode) {
    const Verdict verdict = next(concerns_path(path));
    if (verdict == REFUSE) { return -1; }
    const bool makes =
        keeps_record() && concerns_path(path) && flags & O_CREAT && syscall(SYS_faccessat, directory, path, F_OK) != 0;
    const int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (makes && fd >= 0) { record(MADE, path); }
    if (fd >= 0 && flags & O_TRUNC && concerns_path(path)) { record_write(fd); }
    return (int)last(verdict, fd);
}

static mode_t mode_of(int flags, va_list arguments) { return flags & O_CREAT ? va_arg(arguments, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_any(directory, path, flags, mode);
}

int close(int fd) {
    const Verdict verdict = next(concerns_fd(fd));
    const long result = last(verdict, syscall(SYS_close, fd));
    if (verdict == REFUSE) { errno = armed.error; }
    return verdict == REFUSE ? -1 : (int)result;
}

ssize_t read(int fd, void *bytes, size_t length) {
    const Verdict verdict = next(concerns_fd(fd));
    if (verdict == REFUSE) { return -1; }
    return last(verdict, syscall(SYS_read, fd, bytes, verdict == HALF ? (length + 1) / 2 : length));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    const Verdict verdict = next(concerns_fd(fd));
    size_t length = 0;
    if (verdict == REFUSE) { return -1; }
    record_write(fd);
    for (int i = 0; i < count; i++) { length += parts[i].iov_len; }
    if (verdict == PASS) { return syscall(SYS_writev, fd, parts, count); }
    long done = 0;
    for (int i = 0; i < count && done < (long)((length + 1) / 2); i++) {
        const size_t left = (length + 1) / 2 - (size_t)done;
        const long put = syscall(SYS_write, fd, parts[i].iov_base, parts[i].iov_len < left ? parts[i].iov_len : left);
        if (put < 0) { return last(verdict, put); }
        done += put;
    }
    return last(verdict, done);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    const Verdict verdict = next(concerns_fd(fd));
    if (verdict == REFUSE) { return -1; }
    if (concerns_fd(fd)) { record_write(fd); }
    return last(verdict, syscall(SYS_write, fd, bytes, verdict == PASS ? length : (length + 1) / 2));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    const Verdict verdict = next(concerns_fd(fd));
    if (verdict == REFUSE) { return -1; }
    return last(verdict, syscall(SYS_pwrite64, fd, bytes, verdict == PASS ? length : (length + 1) / 2, at));
}

int fsync(int fd) {
    const Verdict verdict = next(concerns_fd(fd));
    if (verdict == REFUSE) { return -1; }
    if (concerns_fd(fd) && ++syncs == armed.forget_sync) { return 0; }
    const long result = last(verdict, syscall(SYS_fsync, fd));
    if (result == 0) { record_sync(fd); }
    return (int)result;
}

int ftruncate(int fd, off_t length) {
    const Verdict verdict = next(concerns_fd(fd));
    return verdict == REFUSE ? -1 : (int)last(verdict, syscall(SYS_ftruncate, fd, length));
}

static int rename_any(const char *from, const char *to, unsigned flags) {
    const bool concerned = concerns_path(from) || concerns_path(to);
    const Verdict verdict = next(concerned);
    if (verdict == REFUSE) { return -1; }
    if (concerned && armed.no_exchange && flags & RENAME_EXCHANGE) {
        last(verdict, 0);
        errno = EINVAL;
        return -1;
    }
    const int lost = keeps_record() && concerned && !(flags & RENAME_EXCHANGE) ? keep_lost(to, false) : 0;
    const long result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
    if (result == 0 && keeps_record() && concerned) {
        Op *op = record(flags & RENAME_EXCHANGE ? EXCHANGED : RENAMED, from);
        const char *slash = strrchr(to, '/');
        snprintf(op->to, sizeof op->to, "%s", slash ? slash + 1 : to);
        op->lost = lost;
    }
    return (int)last(verdict, result);
}

int rename(const char *from, const char *to) { return rename_any(from, to, 0); }

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    if (from_directory != AT_FDCWD || to_directory != AT_FDCWD) { full(); }
    return rename_any(from, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    const Verdict verdict = next(concerns_path(path));
    if (verdict == REFUSE) { return -1; }
    const long result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (result == 0 && keeps_record() && concerns_path(path)) { record(MADE, path); }
    return (int)last(verdict, result);
}

int symlink(const char *target, const char *path) {
    const Verdict verdict = next(concerns_path(path));
    if (verdict == REFUSE) { return -1; }
    const long result = syscall(SYS_symlinkat, target, AT_FDCWD, path);
    if (result == 0 && keeps_record() && concerns_path(path)) { record(MADE, path); }
    return (int)last(verdict, result);
}

static DIR *real_opendir(const char *path) {
    static DIR *(*real)(const char *);
    if (!real) { *(void **)&real = dlsym(RTLD_NEXT, "opendir"); }
    return real(path);
}

static bool is_empty(const char *path) {
    DIR *entries = real_opendir(path);
    int count = 0;
    while (entries && readdir(entries)) { count++; }
    if (entries) { closedir(entries); }
    return count == 2;  // . and ..
}

static int remove_any(const char *path, int flags) {
    const bool concerned = concerns_path(path);
    const Verdict verdict = next(concerned);
    if (verdict == REFUSE) { return -1; }
    if (!keeps_record() || !concerned) { return (int)last(verdict, syscall(SYS_unlinkat, AT_FDCWD, path, flags)); }
    // Kept, so that a power cut can bring it back.
    const bool whole = flags & AT_REMOVEDIR;
    struct stat status;
    if (lstat(path, &status) != 0) { return -1; }
    if (whole ? !is_empty(path) : S_ISDIR(status.st_mode)) {
        errno = whole ? ENOTEMPTY : EISDIR;
        return -1;
    }
    const int lost = keep_lost(path, true);
    Op *op = record(REMOVED, path);
    op->lost = lost;
    return 0;
}

int unlink(const char *path) { return remove_any(path, 0); }

int rmdir(const char *path) { return remove_any(path, AT_REMOVEDIR); }

int unlinkat(int directory, const char *path, int flags) {
    char whole[PATH_MAX], link[64];
    if (!is_armed) { return (int)syscall(SYS_unlinkat, directory, path, flags); }
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    long length = directory == AT_FDCWD ? 0 : syscall(SYS_readlinkat, AT_FDCWD, link, whole, sizeof whole - 1);
    if (length < 0) { return -1; }
    snprintf(whole + length, sizeof whole - (size_t)length, "%s%s", length ? "/" : "", path);
    return remove_any(whole, flags);
}

DIR *opendir(const char *path) {
    const Verdict verdict = next(concerns_path(path));
    if (verdict == REFUSE) { return NULL; }
    last(verdict, 0);
    return real_opendir(path);
}

// libc writes streams by itself, so their flush counts for the write.
FILE *fopen(const char *path, const char *mode) {
    static FILE *(*real)(const char *, const char *);
    const Verdict verdict = next(concerns_path(path));
    if (verdict == REFUSE) { return NULL; }
    if (!real) { *(void **)&real = dlsym(RTLD_NEXT, "fopen"); }
    FILE *file = real(path, mode);
    last(verdict, 0);
    return file;
}

int fflush(FILE *file) {
    static int (*real)(FILE *);
    const Verdict verdict = next(file && concerns_fd(fileno(file)));
    if (verdict == REFUSE) { return EOF; }
    if (!real) { *(void **)&real = dlsym(RTLD_NEXT, "fflush"); }
    return (int)last(verdict, real(file));
}

uint64_t XXH3_64bits(const void *bytes, size_t length);
uint64_t XXH3_64bits(const void *bytes, size_t length) {
    static uint64_t (*real)(const void *, size_t);
    const char *wrong = getenv("FAULTS_WRONG_HASH"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!real) { *(void **)&real = dlsym(RTLD_NEXT, "XXH3_64bits"); }
    return real(bytes, length) ^ (wrong && rank && strcmp(wrong, rank) == 0);
}

// ---- As a library.

static FaultKind kind_of(const char *name) {
    static const char *const names[] = {"none", "error", "broken", "short", "kill", "kill-in"};
    for (int i = 0; i < 6; i++) {
        if (strcmp(name, names[i]) == 0) { return (FaultKind)i; }
    }
    return FAULT_NONE;
}

static int error_of(const char *name) {
    static const struct {
        const char *name;
        int error;
    } errors[] = {{"EIO", EIO},     {"ENOSPC", ENOSPC}, {"EINTR", EINTR},  {"EDQUOT", EDQUOT},
                  {"EROFS", EROFS}, {"EACCES", EACCES}, {"EMFILE", EMFILE}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(name, errors[i].name) == 0) { return errors[i].error; }
    }
    return EIO;
}

static const char *environment(const char *name, const char *fallback) {
    const char *value = getenv(name);
    return value ? value : fallback;
}

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *below = getenv("FAULTS_BELOW"), *rank = getenv("FAULTS_RANK");
    if (!below || (rank && strcmp(rank, environment("OMPI_COMM_WORLD_RANK", "0")) != 0)) { return; }
    faults_arm((Faults){.below = below,
                        .kind = kind_of(environment("FAULTS_KIND", "none")),
                        .error = error_of(environment("FAULTS_ERROR", "EIO")),
                        .at = atoll(environment("FAULTS_AT", "0"))});
}

__attribute__((destructor)) static void write_count(void) {
    const char *path = getenv("FAULTS_COUNT");
    char text[32];
    if (!path || !is_armed || calls == 0) { return; }
    const int length = snprintf(text, sizeof text, "%lld\n", (long long)calls);
    const long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || syscall(SYS_write, fd, text, length) != length) { _exit(96); }
}
