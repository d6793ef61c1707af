// Workers of a sweep as processes of this machine, without mpirun, on processors or GPUs of their own.
#ifndef BERTUNE_SWEEP_LOCAL_H
#define BERTUNE_SWEEP_LOCAL_H

#include "trainer/sweep/sweep_work.h"

// Starts `jobs` workers of one rank, and starts those anew that die, until all have come to an end. Passes SIGUSR2 and
// SIGTERM on.
WorkEnd sweep_local(const Sweep *sweep, int jobs, int only, Error *error);

#endif
