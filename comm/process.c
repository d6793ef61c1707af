// See process.h.
#include "comm/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STAT_USER = 14,
    STAT_SYSTEM = 15,
    STAT_STARTED = 22,
    STAT_EXIT_CODE = 52
};  // fields of /proc/PID/stat, counted from 1

// The whole of a small file of /proc, with a NUL behind it; its length, or -1.
static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) { return -1; }
    size_t used = 0;
    for (ssize_t got; used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0;) { used += (size_t)got; }
    close(fd);
    text[used] = 0;
    return (ssize_t)used;
}

typedef struct {
    char state;              // R, S, D, Z (ended), T and t (stopped), ...
    int64_t started, ticks;  // ticks of processor time
    int exit_code;           // as of wait(2), where state is Z and we may know
} Stat;

static bool read_stat(pid_t pid, Stat *stat) {
    char text[2048];
    if (read_proc(pid, "stat", text, sizeof text) <= 0) { return false; }
    char *field = strrchr(text, ')');  // the name before it may hold anything
    if (!field || !field[1]) { return false; }
    field += 2;
    *stat = (Stat){.state = *field};
    for (int number = 3; field; number++, field = strchr(field, ' ')) {
        field += *field == ' ';
        if (number == STAT_USER || number == STAT_SYSTEM) { stat->ticks += strtoll(field, NULL, 10); }
        if (number == STAT_STARTED) { stat->started = strtoll(field, NULL, 10); }
        if (number == STAT_EXIT_CODE) { stat->exit_code = (int)strtol(field, NULL, 10); }
    }
    return true;
}

static bool is_stopped(const Stat *stat) { return stat->state == 'T' || stat->state == 't'; }

int64_t process_started(pid_t pid) {
    Stat stat;
    return read_stat(pid, &stat) ? stat.started : 0;
}

ProcessState process_look(pid_t pid, int64_t started, int *signal) {
    Stat stat;
    *signal = 0;
    if (!read_stat(pid, &stat) || stat.started != started) { return PROCESS_ENDED; }
    if (stat.state == 'Z' || stat.state == 'X') {
        *signal = stat.exit_code & 0x7f;
        return PROCESS_ENDED;
    }
    return is_stopped(&stat) ? PROCESS_STOPPED : PROCESS_RUNS;
}

double process_seconds(pid_t pid) {
    Stat stat;
    return read_stat(pid, &stat) ? (double)stat.ticks / (double)sysconf(_SC_CLK_TCK) : 0.0;
}

// The value of a variable in an environment as /proc shows it, or NULL.
static const char *find_variable(const char *text, size_t length, const char *name) {
    const size_t width = strlen(name);
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
        if (strncmp(text + at, name, width) == 0 && text[at + width] == '=') { return text + at + width + 1; }
    }
    return NULL;
}

bool process_stopped_sibling(pid_t *pid, int *rank) {
    enum { ENVIRONMENT = 1 << 18 };
    const char *job = getenv("PMIX_NAMESPACE");
    DIR *processes = job ? opendir("/proc") : NULL;
    if (!processes) { return false; }
    char *text = malloc(ENVIRONMENT);
    bool found = false;
    for (struct dirent *entry; text && !found && (entry = readdir(processes));) {
        Stat stat;
        const pid_t other = (pid_t)strtol(entry->d_name, NULL, 10);
        if (other <= 0 || !read_stat(other, &stat) || !is_stopped(&stat)) { continue; }
        const ssize_t length = read_proc(other, "environ", text, ENVIRONMENT);
        const char *its_job = length > 0 ? find_variable(text, (size_t)length, "PMIX_NAMESPACE") : NULL;
        const char *its_rank = its_job ? find_variable(text, (size_t)length, "PMIX_RANK") : NULL;
        found = its_rank && strcmp(its_job, job) == 0;
        if (found) {
            *pid = other;
            *rank = atoi(its_rank);
        }
    }
    free(text);
    closedir(processes);
    return found;
}
