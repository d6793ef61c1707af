// Notices that a rank is lost, says which, and ends all. Each rank shows the others of its node what it does and that
// it goes on; a thread of each, which calls neither MPI nor CUDA nor NCCL, looks at them ten times a second or more:
//   a rank has ended that should be there         at once
//   a rank is stopped (SIGSTOP, a debugger)       after the time-out, in every phase
//   a rank does nothing, while others wait or not  after the deadline of its phase
//   all ranks of the node wait                    after the deadline: for a rank elsewhere, which is not seen
// Then one line on stderr, and in the log of every rank of the node, names the lost rank, and all ranks of the node end
// with EX_PEER_LOST; mpirun ends those of other nodes. Time in which this process itself does not run (a suspended job
// or machine) does not count.
#ifndef BERTUNE_WATCHDOG_H
#define BERTUNE_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

struct Comm;

// What a rank is doing. The deadline is the time-out; ten times that where large files are read or written or the
// device is made ready.
typedef enum {
    WATCH_START,     // until the configuration is known: ten times
    WATCH_READ,      // the data set: ten times
    WATCH_LOAD,      // the model, the device, the batches of an epoch: ten times
    WATCH_STEP,      // forward, backward, update
    WATCH_REDUCE,    // the sum over the ranks: a rank waits
    WATCH_EVALUATE,  //
    WATCH_SAVE,      // a checkpoint: ten times for rank 0, and for nodes that wait for it
    WATCH_FINAL,     // the last model: as a checkpoint
    WATCH_END,       // closing: ten times
    WATCH_PHASES
} WatchPhase;

enum { WATCH_TIMEOUT = 60 };  // seconds, while it is not known what was asked for

// Before MPI starts. Until watchdog_join only this process is watched, and what is stopped while MPI starts. Seconds;
// 0: nothing is watched.
void watchdog_start(double timeout);

// Collective over the node, behind comm_init: from now on its ranks watch each other.
void watchdog_join(const struct Comm *comm);

// Once it is known.
void watchdog_set_timeout(double timeout);

// The verdict is written there, too (a file opened for appending); the caller keeps it open until watchdog_stop.
void watchdog_set_log(int fd);

// Whether this rank computes on processors rather than to wait for a GPU: then processor time it uses is progress, too,
// though not for longer than ten time-outs.
void watchdog_set_computes(bool computes);

// This rank enters a phase of a step (below 0: none). Cheap.
void watchdog_phase(WatchPhase phase, int64_t step);

// This rank makes progress. By one thread at a time; cheap.
void watchdog_beat(void);

// Between these, which may be nested, the rank waits for others and is not to blame. CHECK_MPI is such a pair.
void watchdog_wait_begin(void);
void watchdog_wait_end(void);

// This rank ends with the code because of an error that it reports: it is not lost.
void watchdog_dying(int code);

// Behind the end of MPI: this rank leaves as it should.
void watchdog_stop(void);

#endif
