// See sweep_local.h. The processes are forked before MPI, OpenMP or a GPU is touched, and share nothing but the sweep's
// directory.
#include "trainer/sweep/sweep_local.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trainer/commands.h"
#include "trainer/progress.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

typedef struct {
    const Sweep *sweep;
    int jobs, only;
    pid_t *pids;               // (jobs) 0: has come to its end
    int running, idle_deaths;  // these without a trial
    WorkEnd end;
    int code;  // exit code of the first that failed, or 0
} Local;

// WORK_LEFT of a worker process, as an exit code.
enum { CODE_LEFT = 1 };

enum { MOST_IDLE_DEATHS = 10 };

// A part of this process's processors for each job, where there are enough.
static void use_own_processors(int job, int jobs) {
    cpu_set_t all, own;
    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < jobs) { return; }
    const int count = CPU_COUNT(&all), first = count * job / jobs, end = count * (job + 1) / jobs;
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all)) { continue; }
        if (seen >= first && seen < end) { CPU_SET(cpu, &own); }
        seen++;
    }
    sched_setaffinity(0, sizeof own, &own);
}

static int work(const Local *local, int job) {
    Comm comm;
    Error error;
    WorkEnd end = WORK_FAILED;
    char name[128];
    use_own_processors(job, local->jobs);
    if (trainer_start(&comm, local->sweep->base.step_timeout, &error)) {
        stop_watch(local->sweep->base.max_time);
        comm.seat = job;
        snprintf(name, sizeof name, "%s:%d", comm.host, job);
        end = sweep_work(local->sweep, &comm, name, local->only, &error);
    }
    if (end == WORK_FAILED) { print_error(&error); }
    trainer_end(&comm);
    static const int codes[] = {[WORK_DONE] = EX_OK, [WORK_LEFT] = CODE_LEFT, [WORK_STOPPED] = EX_TEMPFAIL};
    return end == WORK_FAILED ? error.code : codes[end];
}

static void start(Local *local, int job) {
    const pid_t parent = getpid();
    fflush(NULL);
    local->pids[job] = fork();
    if (local->pids[job] < 0) { die(EX_OSERR, "fork: %s", strerror(errno)); }
    if (local->pids[job] > 0) {
        local->running++;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // nobody would start it anew, or pass signals on
    if (getppid() != parent) { _exit(EX_TEMPFAIL); }
    const int code = work(local, job);
    fflush(NULL);
    _exit(code);
}

static void signal_all(const Local *local, int number) {
    for (int i = 0; i < local->jobs; i++) {
        if (local->pids[i]) { kill(local->pids[i], number); }
    }
}

// The worst end of a worker is the end of all.
static void worsen(Local *local, WorkEnd end) { local->end = end > local->end ? end : local->end; }

// The others would not come far, either.
static void fail(Local *local, int code) {
    worsen(local, WORK_FAILED);
    if (!local->code) { local->code = code; }
    signal_all(local, SIGUSR2);
}

// A worker has come to its end.
static void take_end(Local *local, int job, int status) {
    const pid_t pid = local->pids[job];
    local->pids[job] = 0;
    local->running--;
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "bertune: worker %d (pid %ld) was ended by signal %d (%s)\n", job, (long)pid, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
        const bool at_work = board_bury(local->sweep, pid) > 0;
        local->idle_deaths += !at_work;
        if (local->idle_deaths > MOST_IDLE_DEATHS) {
            fail(local, EX_SOFTWARE);
        } else if (stop_signalled() || local->end == WORK_FAILED) {
            worsen(local, WORK_STOPPED);
        } else {
            start(local, job);
        }
        return;
    }
    const int code = WEXITSTATUS(status);
    if (code == CODE_LEFT) {
        worsen(local, WORK_LEFT);
    } else if (code == EX_TEMPFAIL) {
        worsen(local, WORK_STOPPED);
    } else if (code != EX_OK) {
        fail(local, code);
    }
}

// A bar of the trials that have come to an end, on a terminal.
static void show(ProgressBar *bar, Board *board) {
    Error error;
    int settled = 0, best = -1;
    SegmentResult lead = {0};
    if (!board_read(board, &error)) { return; }
    for (int t = 0; t < board->sweep->trials; t++) {
        bool over = true;
        for (int s = 0; s < board->segments[t]; s++) {
            const SegmentState state = board->states[t * board->most + s];
            const SegmentResult merit = board_merit(board, board_result(board, t, s));
            over = over && state != SEGMENT_READY && state != SEGMENT_WAITS;
            if (!merit.done || (best >= 0 && halving_compare(&merit, &lead) >= 0)) { continue; }
            best = t;
            lead = merit;
        }
        settled += over;
    }
    char note[160] = "";
    if (best >= 0) {
        snprintf(note, sizeof note, "%s %.4f (trial %d)", board->sweep->metric,
                 board->sweep->maximize ? lead.metric : -lead.metric, best);
    }
    progress_update(bar, settled, board->sweep->trials, settled, note);
}

WorkEnd sweep_local(const Sweep *sweep, int jobs, int only, Error *error) {
    Local local = {.sweep = sweep, .jobs = jobs, .only = only, .end = WORK_DONE};
    local.pids = check_calloc((size_t)jobs, sizeof *local.pids);
    for (int i = 0; i < jobs; i++) { start(&local, i); }
    ProgressBar bar;
    Board board;
    progress_start(&bar, "sweep", "trials", 0);
    const bool shows = bar.terminal && only < 0 && board_open(&board, sweep, "", 1, error);
    double shown = 0.0;
    for (bool told = false; local.running;) {
        int status;
        if (shows && seconds_now() - shown > 1.0) {
            shown = seconds_now();
            show(&bar, &board);
        }
        if (stop_signalled() && !told) {
            told = true;
            signal_all(&local, SIGUSR2);
        }
        for (int i = 0; i < jobs; i++) {
            if (local.pids[i] && waitpid(local.pids[i], &status, WNOHANG) == local.pids[i]) {
                take_end(&local, i, status);
            }
        }
        const struct timespec rest = {0, 20000000};
        nanosleep(&rest, NULL);
    }
    progress_clear(&bar);
    if (shows) { board_close(&board); }
    free(local.pids);
    if (local.end == WORK_FAILED) { error_set(error, local.code, "the sweep cannot go on"); }
    return local.end;
}
