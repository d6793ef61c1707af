// See run_directory.h.
#include "trainer/run_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/checkpoint.h"

void run_directory_init(RunDirectory *run, const char *path) {
    snprintf(run->path, sizeof run->path, "%s", path);
    path_join(run->checkpoints, sizeof run->checkpoints, path, "checkpoints");
    path_join(run->final, sizeof run->final, path, "final");
    path_join(run->metrics, sizeof run->metrics, path, "metrics.jsonl");
    path_join(run->config, sizeof run->config, path, "config.yaml");
    path_join(run->logs, sizeof run->logs, path, "logs");
    run->lock = -1;
}

static bool has_checkpoint(const char *directory) {
    bool found = false;
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && !found && (entry = readdir(entries));) {
        found = strncmp(entry->d_name, "step-", 5) == 0;
    }
    if (entries) { closedir(entries); }
    return found;
}

// The empty directories of a run that failed before its first step are no run.
bool run_directory_in_use(const RunDirectory *run) {
    return access(run->metrics, F_OK) == 0 || access(run->final, F_OK) == 0 || has_checkpoint(run->checkpoints);
}

// For the message that another job gets; a full disk does not matter here.
static void write_holder(int lock) {
    char host[64] = "", holder[256];
    gethostname(host, sizeof host - 1);
    snprintf(holder, sizeof holder, "host %s, pid %ld", host, (long)getpid());
    const ssize_t length = pwrite(lock, holder, strlen(holder), 0);
    if (length > 0 && ftruncate(lock, length) != 0) { return; }
}

// An fcntl lock, since these work on network file systems and vanish with their process.
static bool take_lock(RunDirectory *run, Error *error) {
    char path[RUN_PATH], holder[256] = "";
    path_join(path, sizeof path, run->path, ".lock");
    run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0) { return error_set(error, EX_CANTCREAT, "%s: cannot create: %s", path, strerror(errno)); }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const bool locked = fcntl(run->lock, F_SETLK, &lock) == 0;
    if (!locked && (errno == EAGAIN || errno == EACCES)) {
        const ssize_t got = pread(run->lock, holder, sizeof holder - 1, 0);
        holder[got > 0 ? got : 0] = 0;
        run_directory_close(run);
        return error_set(error, EX_CANTCREAT, "%s: another job uses this run directory: %s", run->path, holder);
    }
    if (!locked) {
        fprintf(stderr, "bertune: warning: %s: cannot lock (%s): a second job on this run would not be noticed\n", path,
                strerror(errno));
    }
    write_holder(run->lock);
    return true;
}

bool run_directory_lock(RunDirectory *run, Error *error) {
    if (access(run->path, W_OK | X_OK) != 0) { return true; }
    return take_lock(run, error);
}

// What file_write, checkpoint_write_final and checkpoint_remove_final leave when they are killed.
static int remove_leftovers(const RunDirectory *run) {
    static const char *const starts[] = {".config.yaml.tmp-", ".metrics.jsonl.tmp-", ".tmp-final", ".trash-final"};
    int removed = 0;
    DIR *entries = opendir(run->path);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
            char path[RUN_PATH];
            if (strncmp(entry->d_name, starts[i], strlen(starts[i])) != 0) { continue; }
            path_join(path, sizeof path, run->path, entry->d_name);
            if (entry->d_name[1] == 'c' || entry->d_name[1] == 'm') {
                unlink(path);
            } else {
                directory_remove(path);
            }
            removed++;
        }
    }
    if (entries) { closedir(entries); }
    return removed;
}

bool run_directory_create(RunDirectory *run, Error *error) {
    const bool locked = run->lock >= 0;
    if (!directory_create(run->path, error) || (!locked && !take_lock(run, error))) { return false; }
    if (!locked && run_directory_in_use(run)) {
        return error_set(error, EX_CANTCREAT, "%s: another job has just used this run directory; try again", run->path);
    }
    if (!directory_create(run->checkpoints, error) || !directory_create(run->logs, error)) { return false; }
    const int removed = remove_leftovers(run) + checkpoint_remove_leftovers(run->checkpoints);
    if (removed) {
        fprintf(stderr, "bertune: %s: removed what a killed run left: %d temporary file%s\n", run->path, removed,
                removed == 1 ? " or directory" : "s or directories");
    }
    return true;
}

void run_directory_close(RunDirectory *run) {
    if (run->lock >= 0) { close(run->lock); }
    run->lock = -1;
}

FILE *run_log_open(const RunDirectory *run, int rank) {
    char path[RUN_PATH], name[32];
    snprintf(name, sizeof name, "rank-%04d.log", rank);
    path_join(path, sizeof path, run->logs, name);
    return fopen(path, "a");
}

void run_log(FILE *log, const char *format, ...) {
    if (!log) { return; }
    char stamp[32];
    const time_t now = time(NULL);
    struct tm local;
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &local));
    fprintf(log, "%s ", stamp);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(log, format, arguments);
    va_end(arguments);
    fputc('\n', log);
    fflush(log);
}
