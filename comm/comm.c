// See comm.h. Shared memory is in shared.c.
#include "comm/comm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void comm_check(int status, const char *file, int line, const char *call) {
    watchdog_wait_end();
    if (status == MPI_SUCCESS) { return; }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(status, text, &length);
    check_die(file, line, EX_UNAVAILABLE, "%s: %s", call, text);
}

static void abort_all(int code) {
    watchdog_dying(code);
    MPI_Abort(MPI_COMM_WORLD, code);
}

// A whole positive number from the environment, or 0.
static int environment_count(const char *name) {
    const char *text = getenv(name);
    if (!text) { return 0; }
    char *end;
    const long value = strtol(text, &end, 10);
    return *end == 0 && value > 0 && value < 1 << 30 ? (int)value : 0;
}

static bool alone_under_srun(int tasks, Error *error) {
    return error_set(error, EX_CONFIG,
                     "wrong launch: srun started %d tasks, but MPI sees one process, so each would train alone; use "
                     "`srun --mpi=pmix` (needs libpmix on the nodes) or `mpirun` inside the batch script",
                     tasks);
}

// Before MPI starts: without PMIx, Open MPI would end a task of srun with words of its own.
static bool check_environment(Error *error) {
    const int tasks = environment_count("SLURM_STEP_NUM_TASKS");
    const bool wired = getenv("PMIX_NAMESPACE") || getenv("OMPI_COMM_WORLD_SIZE");
    return tasks <= 1 || wired || alone_under_srun(tasks, error);
}

static bool check_launch(int size, int launched, Error *error) {
    const int tasks = environment_count("SLURM_STEP_NUM_TASKS");
    if (size == 1 && tasks > 1) { return alone_under_srun(tasks, error); }
    if (launched && launched != size) {
        return error_set(error, EX_CONFIG,
                         "wrong launch: OMPI_COMM_WORLD_SIZE is %d, but MPI sees %d process%s; start bertune with the "
                         "mpirun of the MPI it was built with, and not from within another MPI program",
                         launched, size, size == 1 ? "" : "es");
    }
    return true;
}

// Numbers nodes and parts.
static void place(Comm *comm) {
    int before = 0, counts[3] = {0, 0, 0};
    CHECK_MPI(MPI_Comm_split(comm->world, comm->local_rank == 0 ? 0 : MPI_UNDEFINED, comm->rank, &comm->leaders));
    if (comm->local_rank == 0) {
        CHECK_MPI(MPI_Comm_rank(comm->leaders, &counts[0]));
        CHECK_MPI(MPI_Comm_size(comm->leaders, &counts[1]));
        CHECK_MPI(MPI_Exscan(&comm->local_size, &before, 1, MPI_INT, MPI_SUM, comm->leaders));
        counts[2] = counts[0] == 0 ? 0 : before;
    }
    CHECK_MPI(MPI_Bcast(counts, 3, MPI_INT, 0, comm->local));
    comm->node = counts[0];
    comm->nodes = counts[1];
    comm->part = counts[2] + comm->local_rank;
    comm->node_parts = check_calloc((size_t)comm->nodes + 1, sizeof *comm->node_parts);
    if (comm->local_rank == 0) {
        CHECK_MPI(MPI_Allgather(&counts[2], 1, MPI_INT, comm->node_parts, 1, MPI_INT, comm->leaders));
    }
    CHECK_MPI(MPI_Bcast(comm->node_parts, comm->nodes, MPI_INT, 0, comm->local));
    comm->node_parts[comm->nodes] = comm->size;
}

// Numbers ranks, nodes and parts of comm->world.
static void find_ranks(Comm *comm) {
    CHECK_MPI(MPI_Comm_rank(comm->world, &comm->rank));
    CHECK_MPI(MPI_Comm_size(comm->world, &comm->size));
    CHECK_MPI(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &comm->local));
    CHECK_MPI(MPI_Comm_rank(comm->local, &comm->local_rank));
    CHECK_MPI(MPI_Comm_size(comm->local, &comm->local_size));
}

bool comm_init(Comm *comm, Error *error) {
    memset(comm, 0, sizeof *comm);
    if (!check_environment(error)) { return false; }
    // Open MPI's shared file pointers, which nobody here uses, wait for a semaphore named after the file: one that a
    // killed run has left would hold up every run after it.
    setenv("OMPI_MCA_sharedfp", "individual", 0);
    const int launched = environment_count("OMPI_COMM_WORLD_SIZE");
    int provided;  // MPI is called from the leader of a team of threads, too
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED) {
        die(EX_UNAVAILABLE, "MPI_Init_thread failed, or this MPI takes no threads");
    }
    comm->world = MPI_COMM_WORLD;
    MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN);
    check_set_abort_hook(abort_all);
    find_ranks(comm);
    gethostname(comm->host, sizeof comm->host - 1);
    char label[128];
    snprintf(label, sizeof label, "rank %d (%s, pid %ld)", comm->rank, comm->host, (long)getpid());
    check_set_label(label);
    place(comm);
    return comm_agree(comm, check_launch(comm->size, launched, error), error);
}

void comm_split(const Comm *all, int size, Comm *group) {
    memset(group, 0, sizeof *group);
    group->threads = comm_threads(all);
    memcpy(group->host, all->host, sizeof group->host);
    CHECK_MPI(MPI_Comm_split(all->world, all->rank / size, all->rank, &group->world));
    MPI_Comm_set_errhandler(group->world, MPI_ERRORS_RETURN);
    find_ranks(group);
    group->seat = all->local_rank - group->local_rank;
    place(group);
}

void comm_finish(Comm *comm) {
    if (comm->size == 0) { return; }
    if (comm->leaders != MPI_COMM_NULL) { CHECK_MPI(MPI_Comm_free(&comm->leaders)); }
    CHECK_MPI(MPI_Comm_free(&comm->local));
    free(comm->node_parts);
    if (comm->world != MPI_COMM_WORLD) {
        CHECK_MPI(MPI_Comm_free(&comm->world));
        return;
    }
    check_set_abort_hook(NULL);
    watchdog_wait_begin();
    MPI_Finalize();
    watchdog_wait_end();
}

bool comm_agree(const Comm *comm, bool ok, Error *error) {
    int first = ok ? comm->size : comm->rank;
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm->world));
    if (first == comm->size) { return true; }
    CHECK_MPI(MPI_Bcast(error, sizeof *error, MPI_BYTE, first, comm->world));
    return false;
}

void comm_broadcast(const Comm *comm, void *bytes, size_t count) {
    enum { CHUNK = 1 << 30 };
    for (size_t at = 0; at < count; at += CHUNK) {
        const size_t left = count - at;
        CHECK_MPI(MPI_Bcast((char *)bytes + at, (int)(left < CHUNK ? left : CHUNK), MPI_BYTE, 0, comm->world));
    }
}

void comm_sum(const Comm *comm, double *values, int count) {
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, comm->world));
}

void comm_sum_floats(const Comm *comm, float *values, int64_t count) {
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, values, narrow_int(count), MPI_FLOAT, MPI_SUM, comm->world));
}

void comm_largest(const Comm *comm, int *values, int count) {
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_INT, MPI_MAX, comm->world));
}

void comm_gather_all(const Comm *comm) {
    MPI_Request request;
    CHECK_MPI(MPI_Ibarrier(comm->world, &request));
    for (int there = 0; !there;) {
        const struct timespec moment = {0, 20000000};
        CHECK_MPI(MPI_Test(&request, &there, MPI_STATUS_IGNORE));
        if (!there) { nanosleep(&moment, NULL); }
    }
}

void comm_barrier(const Comm *comm) { CHECK_MPI(MPI_Barrier(comm->world)); }

int comm_threads(const Comm *comm) {
    if (comm->threads) { return comm->threads; }
    cpu_set_t mine, both;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) { CPU_SET(0, &mine); }
    cpu_set_t *masks = check_calloc((size_t)comm->local_size, sizeof *masks);
    CHECK_MPI(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, masks, sizeof mine, MPI_BYTE, comm->local));
    int sharing = 0;
    for (int i = 0; i < comm->local_size; i++) {
        CPU_AND(&both, &mine, &masks[i]);
        sharing += CPU_COUNT(&both) > 0;
    }
    free(masks);
    const int asked = environment_count("OMP_NUM_THREADS"), share = CPU_COUNT(&mine) / (sharing ? sharing : 1);
    return asked ? asked : share > 1 ? share : 1;
}
