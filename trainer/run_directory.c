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

// An fcntl lock, since these work on network file systems and vanish with their process.
static bool take_lock(RunDirectory *run, Error *error) {
    char path[RUN_PATH], holder[256] = "";
    path_join(path, sizeof path, run->path, ".lock");
    run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0) { return error_set(error, EX_CANTCREAT, "%s: cannot create: %s", path, strerror(errno)); }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(run->lock, F_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES)) {
        const ssize_t got = pread(run->lock, holder, sizeof holder - 1, 0);
        holder[got > 0 ? got : 0] = 0;
        run_directory_close(run);
        return error_set(error, EX_CANTCREAT, "%s: another job uses this run directory: %s", run->path, holder);
    }
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    snprintf(holder, sizeof holder, "host %s, pid %ld", host, (long)getpid());
    if (ftruncate(run->lock, 0) != 0 || pwrite(run->lock, holder, strlen(holder), 0) < 0) {
        const int cause = errno;
        run_directory_close(run);
        return error_set(error, EX_IOERR, "%s: cannot write: %s", path, strerror(cause));
    }
    return true;
}

bool run_directory_create(RunDirectory *run, Error *error) {
    return directory_create(run->path, error) && take_lock(run, error) && directory_create(run->checkpoints, error) &&
           directory_create(run->logs, error);
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
