// A worker of a sweep: ranks that take up one piece of work after another until there is none.
#ifndef BERTUNE_SWEEP_WORK_H
#define BERTUNE_SWEEP_WORK_H

#include "comm/comm.h"
#include "trainer/sweep/sweep_board.h"

// The worse, the larger.
typedef enum {
    WORK_DONE,     // the sweep has come to its end
    WORK_LEFT,     // others are at what is left
    WORK_STOPPED,  // asked to stop; there is more to do
    WORK_FAILED
} WorkEnd;

// Collective over the group. name: of the worker, for people. only: the trial to train, with what becomes ready through
// it, or -1 for all. WORK_FAILED with the error when the sweep cannot go on; a trial that fails is a result.
WorkEnd sweep_work(const Sweep *sweep, const Comm *group, const char *name, int only, Error *error);

#endif
