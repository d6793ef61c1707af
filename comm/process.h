// What the system tells of other processes (Linux' /proc).
#ifndef BERTUNE_PROCESS_H
#define BERTUNE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum { PROCESS_RUNS, PROCESS_STOPPED, PROCESS_ENDED } ProcessState;

// When it started, in clock ticks since boot: with the pid, the name of a process that no other ever has. 0: there is
// none.
int64_t process_started(pid_t pid);

// Stopped by a signal or a debugger; ended also where another process has its pid. *signal is what ended it, 0: not
// known, since who started it has been told already.
ProcessState process_look(pid_t pid, int64_t started, int *signal);

// Processor time it has used so far, of all its threads, in seconds.
double process_seconds(pid_t pid);

// Finds a stopped process that the launcher of this one (mpirun or srun, with PMIx) started for the same job on this
// node. Looks at every process: not to be called often.
bool process_stopped_sibling(pid_t *pid, int *rank);

#endif
