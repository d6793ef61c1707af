// watchdog_hang HOW SECONDS: ranks that do what no test can make bertune do, watched with that time-out.
//   hang   the last rank does nothing for ever, the others wait for it
//   busy   the last rank computes for three time-outs without a sign of progress; the others wait for it
//   wait   all wait for each other
//   slow   the last rank takes three time-outs but makes progress; the others wait for it
//   save   rank 0 makes no progress for three time-outs, as a slow disk would have it; the others wait for it
//   error  the last rank ends itself with an error
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/comm.h"

static void rest(double seconds) {
    const struct timespec time = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&time, NULL);
}

static void act(const Comm *comm, const char *how, double timeout) {
    const bool last = comm->rank == comm->size - 1;
    watchdog_phase(strcmp(how, "save") == 0 ? WATCH_SAVE : WATCH_STEP, 7);
    while (strcmp(how, "hang") == 0 && last) { rest(1); }
    if (strcmp(how, "busy") == 0 && last) {
        const double begin = MPI_Wtime();
        watchdog_set_computes(true);
        while (MPI_Wtime() - begin < 3 * timeout) {}
    }
    if (strcmp(how, "wait") == 0) {
        char never;
        CHECK_MPI(MPI_Recv(&never, 1, MPI_CHAR, (comm->rank + 1) % comm->size, 0, comm->world, MPI_STATUS_IGNORE));
    }
    for (int i = 0; strcmp(how, "slow") == 0 && last && i < 30; i++) {
        watchdog_beat();
        rest(timeout / 10);
    }
    if (strcmp(how, "save") == 0 && comm->rank == 0) { rest(3 * timeout); }
    if (strcmp(how, "error") == 0 && last) { die(EX_SOFTWARE, "as it was asked to"); }
    comm_barrier(comm);
}

int main(int argc, char **argv) {
    Comm comm;
    Error error;
    if (argc != 3) { return EX_USAGE; }
    watchdog_start(atof(argv[2]));
    if (!comm_init(&comm, &error)) { return error.code; }
    watchdog_join(&comm);
    act(&comm, argv[1], atof(argv[2]));
    watchdog_phase(WATCH_END, 7);
    comm_finish(&comm);
    watchdog_stop();
    return 0;
}
