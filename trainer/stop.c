// See stop.h. A signal handler can reach nothing but a global, so there is one here.
#include "trainer/stop.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "trainer/number.h"

enum { SLURM_MARGIN = 60 };  // seconds before the end of a Slurm job at which to stop

static volatile sig_atomic_t stop_signals;
static double stop_deadline;  // seconds since 1970; 0: none

static double wall_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void on_signal(int number) {
    stop_signals++;
    if (number == SIGTERM) { signal(SIGTERM, SIG_DFL); }
}

void stop_watch(double max_time) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    stop_deadline = max_time > 0 ? wall_clock() + max_time : 0;
    const char *end = getenv("SLURM_JOB_END_TIME");
    double slurm;
    if (end && number_parse_integer(end, &slurm) && slurm > 0) {
        slurm -= SLURM_MARGIN;
        if (stop_deadline == 0 || slurm < stop_deadline) { stop_deadline = slurm; }
    }
}

bool stop_requested(void) { return stop_signals > 0 || (stop_deadline > 0 && wall_clock() >= stop_deadline); }
