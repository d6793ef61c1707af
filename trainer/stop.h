// When to stop early with a checkpoint: SIGUSR2 or SIGTERM, run.max_time, the end of the Slurm job.
#ifndef BERTUNE_STOP_H
#define BERTUNE_STOP_H

#include "kernels/check.h"

// Catches SIGUSR2 and SIGTERM from now on (a second SIGTERM ends the process at once) and computes the deadline.
// max_time in seconds from now, 0: none.
void stop_watch(double max_time);

// True when this process has been asked to stop or its time is up.
bool stop_requested(void);

#endif
