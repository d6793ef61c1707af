// See rounds.h.
#include "comm/rounds.h"

Rounds rounds_begin(const Comm *comm, bool (*asked)(void)) {
    return (Rounds){.comm = comm, .asked = asked, .request = MPI_REQUEST_NULL};
}

static void begin_sum(Rounds *rounds, bool done) {
    if (rounds->under_way) { return; }
    rounds->mine[0] = done;
    rounds->mine[1] = rounds->asked();
    CHECK_MPI(MPI_Iallreduce(rounds->mine, rounds->sum, 2, MPI_INT, MPI_SUM, rounds->comm->world, &rounds->request));
    rounds->under_way = true;
}

// What the sum says that has arrived.
static RoundsState end_sum(Rounds *rounds) {
    rounds->under_way = false;
    if (rounds->sum[1] > 0) { return ROUNDS_STOP; }
    return rounds->sum[0] == rounds->comm->size ? ROUNDS_DONE : ROUNDS_GO_ON;
}

RoundsState rounds_turn(Rounds *rounds) {
    int here;
    begin_sum(rounds, false);
    CHECK_MPI(MPI_Test(&rounds->request, &here, MPI_STATUS_IGNORE));
    return here ? end_sum(rounds) : ROUNDS_GO_ON;
}

RoundsState rounds_end(Rounds *rounds) {
    RoundsState state;
    do {
        begin_sum(rounds, true);
        CHECK_MPI(MPI_Wait(&rounds->request, MPI_STATUS_IGNORE));
        state = end_sum(rounds);
    } while (state == ROUNDS_GO_ON);
    return state;
}
