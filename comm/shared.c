// Memory shared by the ranks of a node, as an MPI window that stays locked for its whole life.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

SharedMemory comm_shared_alloc(const Comm *comm, size_t bytes) {
    SharedMemory memory = {.window = MPI_WIN_NULL};
    if (comm->local_size == 1) {
        memory.base = check_aligned(bytes);
        return memory;
    }
    enum { PAGE = 4096 };  // MPI's own begins anywhere in a page, at the same place for every rank
    const MPI_Aint mine = comm->local_rank == 0 ? (MPI_Aint)(bytes + PAGE) : 0;
    CHECK_MPI(MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, comm->local, &memory.base, &memory.window));
    MPI_Aint size;
    int unit;
    CHECK_MPI(MPI_Win_shared_query(memory.window, 0, &size, &unit, &memory.base));
    memory.base = (void *)(((uintptr_t)memory.base + PAGE - 1) / PAGE * PAGE);
    CHECK_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, memory.window));
    if (comm->local_rank == 0) { memset(memory.base, 0, bytes); }
    comm_shared_sync(comm, &memory);
    return memory;
}

void comm_shared_free(SharedMemory *memory) {
    if (!memory->base) { return; }
    if (memory->window == MPI_WIN_NULL) {
        free(memory->base);
    } else {
        CHECK_MPI(MPI_Win_unlock_all(memory->window));
        CHECK_MPI(MPI_Win_free(&memory->window));
    }
    memory->base = NULL;
}

void comm_shared_sync(const Comm *comm, const SharedMemory *memory) {
    if (memory->window == MPI_WIN_NULL) { return; }
    CHECK_MPI(MPI_Win_sync(memory->window));
    CHECK_MPI(MPI_Barrier(comm->local));
    CHECK_MPI(MPI_Win_sync(memory->window));
}

void comm_exchange(const Comm *comm, const SharedMemory *memory, size_t element, const int64_t *node_begin) {
    enum { CHUNK = 1 << 30 };
    comm_shared_sync(comm, memory);
    for (int node = 0; comm->local_rank == 0 && comm->nodes > 1 && node < comm->nodes; node++) {
        const size_t end = (size_t)node_begin[node + 1] * element;
        for (size_t at = (size_t)node_begin[node] * element; at < end; at += CHUNK) {
            const int bytes = (int)(end - at < CHUNK ? end - at : CHUNK);
            CHECK_MPI(MPI_Bcast((char *)memory->base + at, bytes, MPI_BYTE, node, comm->leaders));
        }
    }
    comm_shared_sync(comm, memory);
}
