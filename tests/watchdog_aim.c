// watchdog_aim PHASE RANK SIGNAL MICROSECONDS [PID]: waits until a rank of the run in the current directory enters a
// phase, and a moment longer, and sends the signal to it, or to PID. Then prints
//     TIME PID PHASE STEP LEFT JOB
// of when it was sent (seconds since 1970), the rank's process, where the rank was when the signal had its effect, 1 if
// it had ended MPI already, and MPI's number of the job. Phases are those of watchdog.h, where the first ones may be
// missed for a later, `init` for the time before MPI has started, and `any`. All ranks are on this node.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "comm/process.h"
#include "comm/watchdog.h"
#include "comm/watchdog_board.h"

static const char *const names[] = {
    [WATCH_START] = "start",   [WATCH_READ] = "read",         [WATCH_LOAD] = "load",     [WATCH_STEP] = "step",
    [WATCH_REDUCE] = "reduce", [WATCH_EVALUATE] = "evaluate", [WATCH_SAVE] = "save",     [WATCH_FINAL] = "final",
    [WATCH_END] = "end",       [WATCH_PHASES] = "init",       [WATCH_PHASES + 1] = "any"};
enum { INIT = WATCH_PHASES, ANY, NAMES };

static double now(int clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void rest(long microseconds) {
    const struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static bool read_text(const char *path, char *text, size_t size, size_t *length) {
    const int fd = open(path, O_RDONLY);
    const ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0) { close(fd); }
    *length = got < 0 ? 0 : (size_t)got;
    text[*length] = 0;
    return got > 0;
}

static bool is_link(const char *path, const char *to) {
    char target[PATH_MAX];
    const ssize_t length = readlink(path, target, sizeof target - 1);
    return length > 0 && strncmp(target, to, strlen(to)) == 0 && (target[length] = 0, true) &&
           strcspn(target, " ") == strlen(to);
}

// The board, if the process has one.
static Board *find_board(const char *process) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%s/fd", process);
    DIR *files = opendir(path);
    Board *board = NULL;
    for (struct dirent *entry; files && !board && (entry = readdir(files));) {
        struct stat status;
        snprintf(path, sizeof path, "/proc/%s/fd/%s", process, entry->d_name);
        if (!is_link(path, "/memfd:" WATCHDOG_BOARD_NAME)) { continue; }
        const int fd = open(path, O_RDWR);
        if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > 0) {
            board = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
            if (board == MAP_FAILED || board->ranks == 0) { board = NULL; }
        }
        if (fd >= 0) { close(fd); }
    }
    if (files) { closedir(files); }
    return board;
}

// A variable of a process's environment, a whole number, or -1.
static long long read_variable(const char *process, const char *name) {
    char path[64], text[1 << 16];
    size_t length;
    snprintf(path, sizeof path, "/proc/%s/environ", process);
    if (!read_text(path, text, sizeof text, &length)) { return -1; }
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
        if (strncmp(text + at, name, strlen(name)) == 0) { return atoll(text + at + strlen(name)); }
    }
    return -1;
}

// Whether it is the rank's process and knows what SIGUSR2 means.
static bool is_ready(const char *process, int rank) {
    char path[64], text[1 << 16];
    size_t length;
    const bool found = read_variable(process, "PMIX_RANK=") == rank;
    snprintf(path, sizeof path, "/proc/%s/status", process);
    const char *caught = found && read_text(path, text, sizeof text, &length) ? strstr(text, "SigCgt:") : NULL;
    return caught && strtoull(caught + 7, NULL, 16) & 1ull << (SIGUSR2 - 1);
}

// Looks at the processes whose current directory is this one's.
static bool look(int phase, int rank, Board **board, pid_t *pid) {
    char here[PATH_MAX], path[PATH_MAX];
    if (!getcwd(here, sizeof here)) { return false; }
    DIR *processes = opendir("/proc");
    bool found = false;
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));) {
        *pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (*pid <= 0 || *pid == getpid()) { continue; }
        snprintf(path, sizeof path, "/proc/%s/cwd", entry->d_name);
        if (!is_link(path, here)) { continue; }
        if (phase == INIT) { found = is_ready(entry->d_name, rank); }
        if (phase != INIT) { found = (*board = find_board(entry->d_name)) != NULL; }
    }
    if (processes) { closedir(processes); }
    return found;
}

static int phase_number(const char *name) {
    for (int i = 0; i < NAMES; i++) {
        if (strcmp(names[i], name) == 0) { return i; }
    }
    fprintf(stderr, "watchdog_aim: no phase %s\n", name);
    exit(64);
}

// The first phases are short and come once: a later one is taken, too.
static bool is_in(int phase, Slot *slot) {
    const int at = atomic_load(&slot->phase);
    return atomic_load(&slot->started) && (phase == ANY || at == phase || (phase <= WATCH_LOAD && at > phase));
}

// Waits for the phase; false when it did not come.
static bool wait_for(int phase, int rank, Board **board, pid_t *pid) {
    const double end = now(CLOCK_MONOTONIC) + 60;
    while (!look(phase, rank, board, pid)) {
        if (now(CLOCK_MONOTONIC) > end) { return false; }
        rest(phase == INIT ? 500 : 2000);
    }
    if (phase == INIT) { return true; }
    Slot *slot = board_slot(*board, rank);
    int signal;
    while (!is_in(phase, slot)) {
        const int64_t started = atomic_load(&slot->started);
        const bool gone = started && process_look(atomic_load(&slot->pid), started, &signal) == PROCESS_ENDED;
        if (gone || now(CLOCK_MONOTONIC) > end) { return false; }
        rest(20);
    }
    *pid = atomic_load(&slot->pid);
    return true;
}

int main(int argc, char **argv) {
    if (argc < 5) { return 64; }
    const int phase = phase_number(argv[1]), rank = atoi(argv[2]), number = atoi(argv[3]);
    Board *board = NULL;
    pid_t pid;
    if (!wait_for(phase, rank, &board, &pid)) {
        fprintf(stderr, "watchdog_aim: phase %s did not come\n", argv[1]);
        return 1;
    }
    char process[32];
    snprintf(process, sizeof process, "%ld", (long)pid);
    const long long job = read_variable(process, "PMIX_NAMESPACE=");
    const int64_t started = process_started(pid);
    rest(atol(argv[4]));
    const double sent = now(CLOCK_REALTIME);
    if (kill(argc > 5 ? (pid_t)atol(argv[5]) : pid, number) != 0) {
        perror("watchdog_aim: kill");
        return 1;
    }
    int signal, left = 0, seen = INIT;
    long long step = -1;
    const bool shows = number == SIGKILL || number == SIGSTOP;
    for (int i = 0; shows && i < 500 && process_look(pid, started, &signal) == PROCESS_RUNS; i++) { rest(1000); }
    if (board) {
        Slot *slot = board_slot(board, rank);
        seen = atomic_load(&slot->phase);
        step = atomic_load(&slot->step);
        left = atomic_load(&slot->life) == LIFE_LEFT;
    }
    printf("%.3f %ld %s %lld %d %lld\n", sent, (long)pid, names[seen], step, left, job);
    return 0;
}
