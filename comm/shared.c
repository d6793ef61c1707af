// Memory shared by the ranks of a node. An MPI window stays locked for its whole life.
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/comm.h"

// Where the first rank's memory is, for the others: its number there, and what it is known by. In a container of one's
// own the pid leads elsewhere or nowhere.
typedef struct {
    int64_t pid, fd;
    uint64_t device, inode;
} Place;

static int create(const char *name, size_t bytes, Place *place) {
    struct stat status = {0};
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && (ftruncate(fd, (off_t)bytes) != 0 || fstat(fd, &status) != 0)) {
        close(fd);
        fd = -1;
    }
    *place = (Place){getpid(), fd, status.st_dev, status.st_ino};
    return fd;
}

static int reach(const Place *place) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)place->pid, (long long)place->fd);
    const int fd = place->fd < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || (fstat(fd, &status) == 0 && status.st_dev == place->device && status.st_ino == place->inode)) {
        return fd;
    }
    close(fd);
    return -1;
}

void *comm_shared_map(const Comm *comm, const char *name, size_t bytes, int *fd) {
    Place place;
    void *memory = MAP_FAILED;
    *fd = comm->local_rank == 0 ? create(name, bytes, &place) : -1;
    CHECK_MPI(MPI_Bcast(&place, sizeof place, MPI_BYTE, 0, comm->local));
    const int reached = comm->local_rank == 0 ? *fd : reach(&place);
    if (reached >= 0) { memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, reached, 0); }
    if (reached >= 0 && comm->local_rank != 0) { close(reached); }
    int all = memory != MAP_FAILED;
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, comm->local));
    if (all) { return memory; }
    if (memory != MAP_FAILED) { munmap(memory, bytes); }
    if (*fd >= 0) { close(*fd); }
    *fd = -1;
    return NULL;
}

static void allocate_window(const Comm *comm, SharedMemory *memory) {
    enum { PAGE = 4096 };  // MPI's own begins anywhere in a page, at the same place for every rank
    const MPI_Aint mine = comm->local_rank == 0 ? (MPI_Aint)(memory->bytes + PAGE) : 0;
    CHECK_MPI(MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, comm->local, &memory->base, &memory->window));
    MPI_Aint size;
    int unit;
    CHECK_MPI(MPI_Win_shared_query(memory->window, 0, &size, &unit, &memory->base));
    memory->base = (void *)(((uintptr_t)memory->base + PAGE - 1) / PAGE * PAGE);
    CHECK_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, memory->window));
    if (comm->local_rank == 0) { memset(memory->base, 0, memory->bytes); }
    comm_shared_sync(comm, memory);
}

SharedMemory comm_shared_alloc(const Comm *comm, size_t bytes) {
    SharedMemory memory = {.window = MPI_WIN_NULL};
    int fd;
    if (comm->local_size == 1) {
        memory.base = check_aligned(bytes);
        return memory;
    }
    memory.bytes = bytes ? bytes : 1;
    memory.base = comm_shared_map(comm, "bertune", memory.bytes, &fd);
    if (fd >= 0) { close(fd); }
    if (!memory.base) { allocate_window(comm, &memory); }
    return memory;
}

void comm_shared_free(SharedMemory *memory) {
    if (!memory->base) { return; }
    if (memory->bytes == 0) {
        free(memory->base);
    } else if (memory->window == MPI_WIN_NULL) {
        munmap(memory->base, memory->bytes);
    } else {
        CHECK_MPI(MPI_Win_unlock_all(memory->window));
        CHECK_MPI(MPI_Win_free(&memory->window));
    }
    memory->base = NULL;
}

void comm_shared_sync(const Comm *comm, const SharedMemory *memory) {
    if (memory->bytes == 0) { return; }
    const bool window = memory->window != MPI_WIN_NULL;
    if (window) { CHECK_MPI(MPI_Win_sync(memory->window)); }
    atomic_thread_fence(memory_order_seq_cst);
    CHECK_MPI(MPI_Barrier(comm->local));
    atomic_thread_fence(memory_order_seq_cst);
    if (window) { CHECK_MPI(MPI_Win_sync(memory->window)); }
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
