// See nodes.h.
#include "tests/nodes.h"

#include <stdlib.h>

static int node_of(int layout, int rank) {
    switch (layout) {
        case PAIRS:
            return rank / 2;
        case ALTERNATING:
            return rank % 2;
        default:
            return rank > 0;
    }
}

Comm nodes_open(const Comm *real, int layout) {
    Comm comm = *real;
    if (layout == REAL) { return comm; }
    comm.node = node_of(layout, comm.rank);
    CHECK_MPI(MPI_Comm_split(comm.world, comm.node, comm.rank, &comm.local));
    CHECK_MPI(MPI_Comm_rank(comm.local, &comm.local_rank));
    CHECK_MPI(MPI_Comm_size(comm.local, &comm.local_size));
    CHECK_MPI(MPI_Comm_split(comm.world, comm.local_rank == 0 ? 0 : MPI_UNDEFINED, comm.rank, &comm.leaders));
    comm.nodes = 0;
    comm.node_parts = check_calloc((size_t)comm.size + 1, sizeof *comm.node_parts);
    for (int r = 0; r < comm.size; r++) {
        const int node = node_of(layout, r);
        comm.nodes = node + 1 > comm.nodes ? node + 1 : comm.nodes;
        for (int later = node + 1; later <= comm.size; later++) { comm.node_parts[later]++; }
    }
    comm.part = comm.node_parts[comm.node] + comm.local_rank;
    return comm;
}

void nodes_close(Comm *comm, int layout) {
    if (layout == REAL) { return; }
    if (comm->leaders != MPI_COMM_NULL) { CHECK_MPI(MPI_Comm_free(&comm->leaders)); }
    CHECK_MPI(MPI_Comm_free(&comm->local));
    free(comm->node_parts);
}
