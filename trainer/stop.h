// When to stop early with a checkpoint: SIGUSR2 or SIGTERM, run.max_time, the end of the Slurm job. And, for a command
// that writes only at its end, leaving at once.
#ifndef BERTUNE_STOP_H
#define BERTUNE_STOP_H

#include "kernels/check.h"

// SIGUSR2 and SIGTERM wait, also through exec, until stop_release: for a process that has yet to say, by stop_catch or
// stop_leave, what they mean to it.
void stop_hold(void);
void stop_release(void);

// SIGUSR2 and SIGTERM are remembered for stop_signalled; a second SIGTERM ends the process at once.
void stop_catch(void);

// SIGUSR2 and SIGTERM end the process at once with EX_TEMPFAIL and a line on stderr; SIGINT and SIGHUP as ever. But not
// between stop_write_begin and stop_write_end: there they wait, and stop_write_asked tells of them. written: all there
// is to write is there, so that nobody needs to leave any more.
void stop_leave(void);
void stop_write_begin(void);
bool stop_write_asked(void);
void stop_write_end(bool written);

// Computes the deadline. max_time in seconds from now, 0: none.
void stop_watch(double max_time);

// True when this process has been asked to stop by a signal.
bool stop_signalled(void);

// True when this process has been asked to stop or its time is up.
bool stop_requested(void);

#endif
