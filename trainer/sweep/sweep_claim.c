// The claims of a sweep; see sweep_board.h. claims/NNNN-EEEE.G is the G-th attempt at a piece of work: creating the
// next number is what only one worker can do. It is free when its claim says how it ended, or when its process is known
// to be gone: at once on the machine it ran on, and elsewhere when it has not touched its file for STALE seconds.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/process.h"
#include "datasets/file.h"
#include "trainer/progress.h"
#include "trainer/sweep/sweep_board.h"

enum {
    STALE = 60,       // seconds
    TOUCH = 5,        // seconds between two signs of life
    MOST_DEATHS = 3,  // of a process by itself, before its trial has failed
    MOST_ATTEMPTS = 100
};

// A claim of another machine, and since when its file has not been touched, by the clock of who looks.
struct Sighting {
    char name[64];
    struct timespec touched;
    double since;
    bool alive;  // it has been touched meanwhile
};

// The machine, which start of it this is, and the name space of its pids.
static void describe_machine(char host[64], char boot[64], char pids[64]) {
    memset(host, 0, 64);
    gethostname(host, 63);
    memset(boot, 0, 64);
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? 0 : read(fd, boot, 63);
    if (fd >= 0) { close(fd); }
    boot[length > 0 ? strcspn(boot, "\n") : 0] = 0;
    const ssize_t link = readlink("/proc/self/ns/pid", pids, 63);
    pids[link > 0 ? link : 0] = 0;
}

static void claim_name(const Board *board, int trial, int segment, int attempt, char name[64]) {
    const int length = trial == BOARD_WINNER ? snprintf(name, 64, "winner")
                                             : snprintf(name, 64, "%04d-%04lld", trial,
                                                        (long long)sweep_segment_epoch(board->sweep, trial, segment));
    snprintf(name + length, 64 - (size_t)length, ".%d", attempt);
}

static void claim_path(const Sweep *sweep, const char *name, char path[RUN_PATH]) {
    char claims[RUN_PATH];
    path_join(claims, sizeof claims, sweep->dir, "claims");
    path_join(path, RUN_PATH, claims, name);
}

static json_t *read_claim(const char *path) {
    Error error;
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, 1 << 16, &error)) { return NULL; }
    json_t *json = json_loadb(text, length, 0, NULL);
    free(text);
    return json;
}

// Whether the file has been left alone for too long, as far as this process could see.
static bool left_alone(Board *board, const char *name, const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) { return false; }
    for (int i = 0; i < board->sighting_count; i++) {
        struct Sighting *seen = &board->sightings[i];
        if (strcmp(seen->name, name) != 0) { continue; }
        if (seen->touched.tv_sec != status.st_mtim.tv_sec || seen->touched.tv_nsec != status.st_mtim.tv_nsec) {
            seen->touched = status.st_mtim;
            seen->since = seconds_now();
            seen->alive = true;
        }
        board->doubtful |= !seen->alive;
        return seconds_now() - seen->since > STALE;
    }
    board->sightings = check_realloc(board->sightings, (size_t)board->sighting_count + 1, sizeof *board->sightings);
    struct Sighting *seen = &board->sightings[board->sighting_count++];
    snprintf(seen->name, sizeof seen->name, "%s", name);
    seen->touched = status.st_mtim;
    seen->since = seconds_now();
    seen->alive = false;
    board->doubtful = true;
    return false;
}

static bool text_is(const json_t *json, const char *key, const char *text) {
    const char *value = json_string_value(json_object_get(json, key));
    return value && strcmp(value, text) == 0;
}

// Whether the worker of a claim without an end is gone.
static bool is_dead(Board *board, const json_t *json, const char *name, const char *path) {
    char host[64], boot[64], pids[64];
    int signal;
    describe_machine(host, boot, pids);
    const bool same_host = text_is(json, "host", host) && boot[0];
    if (same_host && !text_is(json, "boot", boot)) { return true; }
    if (same_host && text_is(json, "pids", pids)) {
        const pid_t pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
        const int64_t started = json_integer_value(json_object_get(json, "started"));
        return pid <= 0 || process_look(pid, started, &signal) == PROCESS_ENDED;
    }
    return left_alone(board, name, path);
}

// Looks through the attempts at a piece of work. Gives the number of the last (0: none), whether it is free, and how
// many died by themselves.
static int look_through(Board *board, int trial, int segment, bool *is_free, int *deaths) {
    int attempt = 0;
    *is_free = true;
    *deaths = 0;
    for (char name[64], path[RUN_PATH]; attempt < MOST_ATTEMPTS; attempt++) {
        claim_name(board, trial, segment, attempt + 1, name);
        claim_path(board->sweep, name, path);
        if (access(path, F_OK) != 0) { break; }
        json_t *json = read_claim(path);
        const bool ended = json_object_get(json, "end") != NULL;
        *deaths += json_is_true(json_object_get(json, "died"));
        *is_free = ended || is_dead(board, json, name, path);
        json_decref(json);
    }
    return attempt;
}

static char *describe_claim(const Board *board, const Claim *claim) {
    char host[64], boot[64], pids[64];
    describe_machine(host, boot, pids);
    json_t *json =
        json_pack("{ss,si,ss,sf,sI,ss,ss}", "host", host, "pid", (int)getpid(), "worker", board->worker, "begin",
                  claim->begin, "started", (json_int_t)process_started(getpid()), "boot", boot, "pids", pids);
    CHECK(json);
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    json_decref(json);
    return text;
}

// Creates a file of these bytes unless there is one: complete from the first moment, since link is what decides.
static bool create_once(const char *path, const char *text, bool *created, Error *error) {
    char temporary[RUN_PATH + 64], host[64], boot[64], pids[64];
    describe_machine(host, boot, pids);
    CHECK(snprintf(temporary, sizeof temporary, "%s.tmp-%s-%ld", path, host, (long)getpid()) < (int)sizeof temporary);
    if (!file_write(temporary, text, strlen(text), error)) { return false; }
    *created = link(temporary, path) == 0;
    const int cause = errno;
    unlink(temporary);
    return *created || cause == EEXIST ||
           error_set(error, EX_CANTCREAT, "%s: cannot create: %s", path, strerror(cause));
}

static void *show_life(void *argument) {
    Claim *claim = argument;
    pthread_mutex_lock(&claim->mutex);
    while (!claim->over) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += TOUCH;
        if (pthread_cond_timedwait(&claim->wake, &claim->mutex, &until) == ETIMEDOUT) {
            utimensat(AT_FDCWD, claim->path, NULL, 0);
        }
    }
    pthread_mutex_unlock(&claim->mutex);
    return NULL;
}

static void hold(Claim *claim) {
    sigset_t all, before;  // signals are for the main thread
    pthread_mutex_init(&claim->mutex, NULL);
    pthread_cond_init(&claim->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&claim->thread, NULL, show_life, claim);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) { die(EX_OSERR, "cannot start a thread: %s", strerror(error)); }
    claim->held = true;
}

static bool fail(Board *board, Claim *claim, int deaths, Error *error) {
    TrialResult result = {.known = true, .status = TRIAL_FAILED, .begin = claim->begin, .end = board_time()};
    result.metric = result.validation_loss = result.accuracy = result.f1 = 0.0 / 0.0;
    snprintf(result.error, sizeof result.error, "its process died %d times", deaths);
    return board_publish(board, claim, &result, error);
}

bool board_claim(Board *board, int trial, int segment, Claim *claim, bool *taken, Error *error) {
    bool is_free;
    int deaths;
    char name[64];
    memset(claim, 0, sizeof *claim);
    claim->trial = trial;
    claim->segment = segment;
    *taken = false;
    const int attempt = look_through(board, trial, segment, &is_free, &deaths);
    if (!is_free) { return true; }
    claim_name(board, trial, segment, attempt + 1, name);
    claim_path(board->sweep, name, claim->path);
    claim->begin = board_time();
    char *text = describe_claim(board, claim);
    const bool ok = create_once(claim->path, text, taken, error);
    free(text);
    if (!ok || !*taken) { return ok; }
    hold(claim);
    // Whoever had it may have come to its end since the results were read.
    if (!board_look(board, trial, segment, error)) { return false; }
    if (board_result(board, trial, segment)->known) {
        *taken = false;
        board_release(claim);
        return true;
    }
    if (deaths < MOST_DEATHS && attempt < MOST_ATTEMPTS - 1) { return true; }
    *taken = false;
    return fail(board, claim, deaths ? deaths : attempt, error);
}

// Says in the file how it ended. What fails here does no harm: the process that had the claim ends some day.
static void write_end(const char *path, bool died) {
    Error error;
    json_t *json = read_claim(path);
    if (!json_is_object(json)) { return; }
    json_object_set_new(json, "end", json_real(board_time()));
    if (died) { json_object_set_new(json, "died", json_true()); }
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    json_decref(json);
    file_write(path, text, strlen(text), &error);
    free(text);
}

int board_bury(const Sweep *sweep, pid_t pid) {
    int buried = 0;
    char directory[RUN_PATH], path[RUN_PATH], host[64], boot[64], pids[64];
    describe_machine(host, boot, pids);
    path_join(directory, sizeof directory, sweep->dir, "claims");
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        if (entry->d_name[0] == '.' || strstr(entry->d_name, ".tmp-")) { continue; }
        path_join(path, sizeof path, directory, entry->d_name);
        json_t *json = read_claim(path);
        const bool its = text_is(json, "host", host) && text_is(json, "pids", pids) &&
                         json_integer_value(json_object_get(json, "pid")) == pid && !json_object_get(json, "end");
        json_decref(json);
        if (its) { write_end(path, true); }
        buried += its;
    }
    if (entries) { closedir(entries); }
    return buried;
}

void board_release(Claim *claim) {
    if (!claim->held) { return; }
    pthread_mutex_lock(&claim->mutex);
    claim->over = true;
    pthread_cond_signal(&claim->wake);
    pthread_mutex_unlock(&claim->mutex);
    pthread_join(claim->thread, NULL);
    pthread_cond_destroy(&claim->wake);
    pthread_mutex_destroy(&claim->mutex);
    write_end(claim->path, false);
    claim->held = false;
}
