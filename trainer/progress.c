// See progress.h.
#include "trainer/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_start(ProgressBar *bar, const char *what, const char *unit, int64_t first) {
    const char *no_color = getenv("NO_COLOR");
    const bool terminal = isatty(STDERR_FILENO);
    const double now = seconds_now();
    *bar = (ProgressBar){.what = what,
                         .unit = unit,
                         .started = now,
                         .shown = terminal ? 0 : now,
                         .first = first,
                         .terminal = terminal,
                         .color = terminal && !(no_color && no_color[0])};
}

void progress_update(ProgressBar *bar, int64_t done, int64_t total, double units_done, const char *note) {
    const double now = seconds_now();
    if (now - bar->shown < (bar->terminal ? 0.1 : 10.0) && !(bar->terminal && done == total)) { return; }
    bar->shown = now;
    const double elapsed = now - bar->started, part = total ? (double)done / (double)total : 1.0;
    const double rate = elapsed > 0 ? units_done / elapsed : 0.0;
    const int64_t did = done - bar->first;
    const int left = did > 0 ? (int)(elapsed / (double)did * (double)(total - done) + 0.5) : 0;
    char filled[64] = "";
    for (int i = 0; i < 20; i++) { filled[i] = i < (int)(part * 20) ? '#' : '.'; }
    fprintf(stderr, "%s%s %s[%s]%s %lld/%lld%s%s  %.0f %s/s  ETA %d:%02d%s", bar->terminal ? "\r" : "", bar->what,
            bar->color ? "\033[32m" : "", filled, bar->color ? "\033[0m" : "", (long long)done, (long long)total,
            note[0] ? "  " : "", note, rate, bar->unit, left / 60, left % 60, bar->terminal ? "\033[K" : "\n");
    fflush(stderr);
    bar->drawn = bar->terminal;
}

void progress_clear(ProgressBar *bar) {
    if (bar->drawn) { fputs("\r\033[K", stderr); }
    bar->drawn = false;
}
