// Ranks that work on shares of different size, or watch one work, and ask each other meanwhile whether to go on: small
// sums over all ranks, one after the other, that a working rank looks at now and then. So the others see that it goes
// on, and a rank that is asked to stop is heard.
#ifndef BERTUNE_ROUNDS_H
#define BERTUNE_ROUNDS_H

#include "comm/comm.h"

typedef enum { ROUNDS_GO_ON, ROUNDS_DONE, ROUNDS_STOP } RoundsState;

typedef struct {
    const Comm *comm;
    bool (*asked)(void);  // whether this rank is to stop
    MPI_Request request;
    bool under_way;
    int mine[2], sum[2];  // done, asked to stop
} Rounds;

// Where all ranks begin; there is nothing to release once each has seen the end.
Rounds rounds_begin(const Comm *comm, bool (*asked)(void));

// This rank has more to do. ROUNDS_STOP: all leave it undone.
RoundsState rounds_turn(Rounds *rounds);

// Collective. This rank has done its share: waits until all have (ROUNDS_DONE) or one is to stop (ROUNDS_STOP), which
// is the same for all ranks.
RoundsState rounds_end(Rounds *rounds);

#endif
