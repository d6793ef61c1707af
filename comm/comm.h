// The processes of a run: who they are, what they agree on, and memory that the ranks of a node share.
// rank and size are MPI's. An MPI error is "the world broke": it ends all ranks through MPI_Abort.
#ifndef BERTUNE_COMM_H
#define BERTUNE_COMM_H

#include <mpi.h>

#include "comm/watchdog.h"
#include "kernels/check.h"

typedef struct Comm {
    int rank, size;
    int local_rank, local_size;  // among the ranks of this node
    int node, nodes;
    int seat;         // of a group: ranks of the node before it, which have GPUs of their own
    int threads;      // 0: comm_threads finds out
    int part;         // a numbering of the ranks in which those of a node follow each other
    int *node_parts;  // (nodes + 1) first part of each node
    char host[64];
    MPI_Comm world, local, leaders;  // leaders: local rank 0 of each node, MPI_COMM_NULL elsewhere
} Comm;

// Collective. Starts MPI, sets the process label and the abort hook. False with EX_CONFIG on every rank when the launch
// is wrong: one process under srun with several tasks, or another size than mpirun was asked for.
bool comm_init(Comm *comm, Error *error);

// Collective over all. Parts the ranks into groups of size ranks that follow each other; all->size is a multiple of it.
// End with comm_finish.
void comm_split(const Comm *all, int size, Comm *group);

// Collective. Ends MPI, unless comm_init refused to start it, or a group.
void comm_finish(Comm *comm);

// Collective. True when ok is true on every rank; else false everywhere, with the error of the lowest failing rank.
bool comm_agree(const Comm *comm, bool ok, Error *error);

// Collective. Rank 0's bytes go to all.
void comm_broadcast(const Comm *comm, void *bytes, size_t count);

// Collective. Sums over the ranks, in place.
void comm_sum(const Comm *comm, double *values, int count);
void comm_sum_floats(const Comm *comm, float *values, int64_t count);

// Collective. The largest over the ranks, in place.
void comm_largest(const Comm *comm, int *values, int count);

// Collective. Waits for all, for as long as it takes: the rank shows that it lives, and leaves the processor to others.
void comm_gather_all(const Comm *comm);

// Collective. Waits for all.
void comm_barrier(const Comm *comm);

// Threads this rank should use: OMP_NUM_THREADS, else the processors of its affinity mask shared by the ranks of the
// node whose masks overlap. Collective over the node.
int comm_threads(const Comm *comm);

// Memory shared by the ranks of a node. It has no name in any file system (memfd), so that nothing stays of it however
// its processes end; where ranks cannot reach each other's, as in containers of their own, it is an MPI window.
typedef struct {
    void *base;
    size_t bytes;    // 0 where the node has one rank: plain memory
    MPI_Win window;  // or MPI_WIN_NULL
} SharedMemory;

// Collective over the node. Zeroed, at the beginning of a page; release with comm_shared_free.
SharedMemory comm_shared_alloc(const Comm *comm, size_t bytes);

// Collective over the node. Memory of a memfd of that name alone, mapped; NULL on all ranks where there is none. *fd:
// of the node's first rank, for it to close; elsewhere -1.
void *comm_shared_map(const Comm *comm, const char *name, size_t bytes, int *fd);
void comm_shared_free(SharedMemory *memory);

// Collective over the node. What the ranks stored before, all see after.
void comm_shared_sync(const Comm *comm, const SharedMemory *memory);

// Collective. Before, each node holds the elements node_begin[node] .. node_begin[node + 1] - 1 of an array in its
// shared memory; after, every node holds all. Element size in bytes.
void comm_exchange(const Comm *comm, const SharedMemory *memory, size_t element, const int64_t *node_begin);

// Ends with EX_UNAVAILABLE and MPI's own words when the status is an error. Meanwhile the rank waits for others.
void comm_check(int status, const char *file, int line, const char *call);
#define CHECK_MPI(call) comm_check((watchdog_wait_begin(), (call)), __FILE__, __LINE__, #call)

#endif
