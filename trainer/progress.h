// Progress on stderr: a bar that is drawn again and again on a terminal, a plain line every ten seconds elsewhere.
#ifndef BERTUNE_PROGRESS_H
#define BERTUNE_PROGRESS_H

#include "kernels/check.h"

typedef struct {
    const char *what;  // borrowed, for example "train"
    const char *unit;  // borrowed, for example "rows"
    double started, shown;
    int64_t first;  // items that were done before the start
    bool terminal, color, drawn;
} ProgressBar;

void progress_start(ProgressBar *bar, const char *what, const char *unit, int64_t first);

// done of total items; note (may be empty) is shown behind the bar. units_done counts in bar->unit, for the rate.
void progress_update(ProgressBar *bar, int64_t done, int64_t total, double units_done, const char *note);

// Removes the bar from a terminal, so that other lines can follow.
void progress_clear(ProgressBar *bar);

// Seconds of a monotonic clock.
double seconds_now(void);

#endif
