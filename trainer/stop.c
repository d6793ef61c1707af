// See stop.h. A signal handler can reach nothing but globals, so there are some here.
#include "trainer/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "trainer/number.h"

enum { SLURM_MARGIN = 60 };  // seconds before the end of a Slurm job at which to stop

typedef enum { FREE_TO_LEAVE, LEAVING, WRITING, WRITTEN } Leave;

static atomic_int stop_signals, last_signal;
static atomic_int leave_state;  // Leave
static double stop_deadline;    // seconds since 1970; 0: none

static double wall_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void mask(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGTERM);
    sigprocmask(how, &set, NULL);
}

void stop_hold(void) { mask(SIG_BLOCK); }

void stop_release(void) { mask(SIG_UNBLOCK); }

static void handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static void remember(int number) {
    atomic_fetch_add(&stop_signals, 1);
    if (number == SIGTERM) { signal(SIGTERM, SIG_DFL); }
}

void stop_catch(void) {
    handle(SIGUSR2, remember);
    handle(SIGTERM, remember);
}

static void leave(int number) {
    static const char text[] = "bertune: stopped by a signal, nothing was written; run the same command again\n";
    if (number == SIGINT || number == SIGHUP) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) { _exit(EX_TEMPFAIL); }
    _exit(EX_TEMPFAIL);
}

// Any thread may be the one to run it.
static void leave_if_free(int number) {
    int is_free = FREE_TO_LEAVE;
    atomic_store(&last_signal, number);
    if (atomic_compare_exchange_strong(&leave_state, &is_free, LEAVING)) { leave(number); }
}

void stop_leave(void) {
    static const int others[] = {SIGINT, SIGHUP};
    handle(SIGUSR2, leave_if_free);
    handle(SIGTERM, leave_if_free);
    for (int i = 0; i < 2; i++) {
        struct sigaction before;
        const bool ignored = sigaction(others[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (!ignored) { handle(others[i], leave_if_free); }  // as SIGHUP is behind nohup
    }
}

void stop_write_begin(void) {
    int is_free = FREE_TO_LEAVE;
    if (atomic_compare_exchange_strong(&leave_state, &is_free, WRITING)) { return; }
    for (;;) { pause(); }  // another thread is ending the process
}

bool stop_write_asked(void) { return atomic_load(&last_signal) != 0; }

void stop_write_end(bool written) {
    atomic_store(&leave_state, written ? WRITTEN : FREE_TO_LEAVE);
    const int number = atomic_load(&last_signal);
    if (!written && number) { leave_if_free(number); }
}

void stop_watch(double max_time) {
    stop_deadline = max_time > 0 ? wall_clock() + max_time : 0;
    const char *end = getenv("SLURM_JOB_END_TIME");
    double slurm;
    if (end && number_parse_integer(end, &slurm) && slurm > 0) {
        slurm -= SLURM_MARGIN;
        if (stop_deadline == 0 || slurm < stop_deadline) { stop_deadline = slurm; }
    }
}

bool stop_signalled(void) { return atomic_load(&stop_signals) > 0; }

bool stop_requested(void) { return stop_signalled() || (stop_deadline > 0 && wall_clock() >= stop_deadline); }
