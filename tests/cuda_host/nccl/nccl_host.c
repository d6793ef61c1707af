// Stands in for NVIDIA's libnccl.so.2 with the host emulation of CUDA: the functions of comm/nccl_api.h, over MPI. An
// all-reduce is a host function in the stream or graph, so that it comes after what it must wait for and no sooner; it
// adds in the order of the ranks, so that all get the same bits. What NCCL asks of its callers is checked: all ranks
// know the same id, no two are on one GPU, buffers are device memory and as large on every rank, and a size that is
// summed while a graph is recorded has been summed before, as NCCL connects ranks at the first use.
//
// NCCL_HOST_FAIL makes calls fail, on rank R alone where `@R` follows:
//   init      ncclCommInitRank; the other ranks lose their peer
//   call:N    the N-th ncclAllReduce, at once
//   reduce:N  the N-th sum, when the stream comes to it: its elements become NaN, and ncclCommGetAsyncError tells
#include <cuda_runtime_api.h>
#include <math.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/nccl_api.h"

enum { CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { SIZES = 64, CHUNK = 1 << 14 };

struct ncclComm {
    MPI_Comm mpi;
    int rank, ranks, state;
    bool aborted;
    long calls, sums;
    size_t sizes[SIZES];  // summed outside of a graph
    int size_count;
};

// A sum in a stream or graph.
typedef struct {
    NcclComm *comm;
    const float *send;
    float *receive;
    size_t count;
    bool recorded;  // may be run again
} Sum;

#define EXPORT __attribute__((visibility("default")))
EXPORT int ncclGetVersion(int *version);
EXPORT int ncclGetUniqueId(NcclUniqueId *id);
EXPORT int ncclCommInitRank(NcclComm **comm, int ranks, NcclUniqueId id, int rank);
EXPORT int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, NcclComm *comm,
                         cudaStream_t stream);
EXPORT int ncclCommGetAsyncError(NcclComm *comm, int *result);
EXPORT int ncclCommAbort(NcclComm *comm);
EXPORT int ncclCommDestroy(NcclComm *comm);
EXPORT const char *ncclGetErrorString(int result);
EXPORT const char *ncclGetLastError(NcclComm *comm);

static char last_error[512] = "";

static int __attribute__((format(printf, 2, 3))) fail(int result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return result;
}

// The result to inject into call `number` (from 1; 0 for init) of the kind.
static int injected(const char *kind, long number, int rank) {
    char wanted[64];
    const char *text = getenv("NCCL_HOST_FAIL");
    snprintf(wanted, sizeof wanted, number ? "%s:%ld" : "%s", kind, number);
    if (!text || strncmp(text, wanted, strlen(wanted)) != 0) { return NCCL_SUCCESS; }
    text += strlen(wanted);
    if (*text != 0 && *text != '@') { return NCCL_SUCCESS; }
    if (*text == '@' && atoi(text + 1) != rank) { return fail(NCCL_REMOTE_ERROR, "NCCL_HOST_FAIL: lost a peer"); }
    return fail(SYSTEM_ERROR, "NCCL_HOST_FAIL: made to fail");
}

int ncclGetVersion(int *version) {
    *version = 29900;
    return NCCL_SUCCESS;
}

int ncclGetUniqueId(NcclUniqueId *id) {
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "nccl_host %ld", (long)getpid());
    return NCCL_SUCCESS;
}

// The lowest rank on the same GPU as another, which is *other, or -1.
static int find_duplicate(const NcclComm *comm, int *other) {
    typedef struct {
        char host[64], uuid[16];
    } Place;
    int device, found = -1;
    struct cudaDeviceProp properties;
    Place mine, *all = calloc((size_t)comm->ranks, sizeof *all);
    memset(&mine, 0, sizeof mine);
    gethostname(mine.host, sizeof mine.host - 1);
    if (cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&properties, device) == cudaSuccess) {
        memcpy(mine.uuid, properties.uuid.bytes, sizeof mine.uuid);
    }
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, comm->mpi);
    for (int i = 0; i < comm->ranks && found < 0; i++) {
        for (int j = i + 1; j < comm->ranks && found < 0; j++) {
            if (memcmp(&all[i], &all[j], sizeof mine) == 0) { found = i, *other = j; }
        }
    }
    free(all);
    return found;
}

int ncclCommInitRank(NcclComm **comm, int ranks, NcclUniqueId id, int rank) {
    int size, other, result = injected("init", 0, rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (result != NCCL_SUCCESS) { return result; }
    if (ranks != size && ranks != 1) { return fail(INVALID_USAGE, "%d ranks, but MPI has %d", ranks, size); }
    NcclComm *made = calloc(1, sizeof *made);
    made->rank = rank;
    made->ranks = ranks;
    MPI_Comm_dup(ranks == size ? MPI_COMM_WORLD : MPI_COMM_SELF, &made->mpi);
    NcclUniqueId first = id;
    MPI_Bcast(&first, sizeof first, MPI_BYTE, 0, made->mpi);
    int same = memcmp(&first, &id, sizeof id) == 0;
    MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_MIN, made->mpi);
    const int duplicate = find_duplicate(made, &other);
    if (!same) { result = fail(INVALID_ARGUMENT, "ranks came with different ids"); }
    if (duplicate >= 0) {
        result = fail(INVALID_USAGE, "Duplicate GPU detected : rank %d and rank %d", duplicate, other);
    }
    *comm = result == NCCL_SUCCESS ? made : NULL;
    if (result != NCCL_SUCCESS) { ncclCommDestroy(made); }
    return result;
}

// Every element from all ranks, in their order, as far as sizes agree.
static void reduce(const Sum *sum) {
    NcclComm *comm = sum->comm;
    long long bounds[2] = {(long long)sum->count, -(long long)sum->count};
    MPI_Allreduce(MPI_IN_PLACE, bounds, 2, MPI_LONG_LONG, MPI_MIN, comm->mpi);
    if (bounds[0] != -bounds[1]) {
        comm->state = fail(INVALID_USAGE, "sum %ld is of %lld to %lld elements", comm->sums, bounds[0], -bounds[1]);
        return;
    }
    float *all = calloc((size_t)comm->ranks * CHUNK, sizeof *all);
    for (size_t at = 0; at < sum->count; at += CHUNK) {
        const size_t width = sum->count - at < CHUNK ? sum->count - at : CHUNK;
        MPI_Allgather(sum->send + at, (int)width, MPI_FLOAT, all, (int)width, MPI_FLOAT, comm->mpi);
        for (size_t i = 0; i < width; i++) {
            float total = 0.0f;
            for (size_t r = 0; r < (size_t)comm->ranks; r++) { total += all[r * width + i]; }
            sum->receive[at + i] = total;
        }
    }
    free(all);
}

static void run(void *context) {
    Sum *sum = context;
    NcclComm *comm = sum->comm;
    if (!comm->state) { comm->state = injected("reduce", ++comm->sums, comm->rank); }
    if (!comm->state) { reduce(sum); }
    for (size_t i = 0; comm->state && !comm->aborted && i < sum->count; i++) { sum->receive[i] = NAN; }
    if (!sum->recorded) { free(sum); }
}

static bool on_device(const void *memory) {
    struct cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, memory) == cudaSuccess && attributes.type == cudaMemoryTypeDevice;
}

static bool connected(NcclComm *comm, size_t count, bool recorded) {
    for (int i = 0; i < comm->size_count; i++) {
        if (comm->sizes[i] == count) { return true; }
    }
    if (recorded) { return false; }
    if (comm->size_count < SIZES) { comm->sizes[comm->size_count++] = count; }
    return true;
}

int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, NcclComm *comm,
                  cudaStream_t stream) {
    enum cudaStreamCaptureStatus capturing;
    const int result = injected("call", ++comm->calls, comm->rank);
    if (result != NCCL_SUCCESS) { return result; }
    if (comm->state != NCCL_SUCCESS) { return comm->state; }
    if (type != NCCL_FLOAT || operation != NCCL_SUM) { return fail(INVALID_ARGUMENT, "not a sum of floats"); }
    if (!on_device(send) || !on_device(receive)) { return fail(INVALID_ARGUMENT, "not device memory"); }
    if (cudaStreamIsCapturing(stream, &capturing) != cudaSuccess) { return fail(INVALID_ARGUMENT, "no such stream"); }
    const bool recorded = capturing == cudaStreamCaptureStatusActive;
    if (!connected(comm, count, recorded)) {
        return fail(INVALID_USAGE, "ranks would have to connect for a sum of %zu while a graph is recorded", count);
    }
    Sum *sum = calloc(1, sizeof *sum);  // recorded ones stay: no one knows for how long
    *sum = (Sum){comm, send, receive, count, recorded};
    const cudaError_t error = cudaLaunchHostFunc(stream, run, sum);
    return error == cudaSuccess ? NCCL_SUCCESS : fail(CUDA_ERROR, "cudaLaunchHostFunc: %s", cudaGetErrorString(error));
}

int ncclCommGetAsyncError(NcclComm *comm, int *result) {
    *result = comm->state;
    return NCCL_SUCCESS;
}

int ncclCommAbort(NcclComm *comm) {
    comm->aborted = true;  // and stays, for what is in streams; to free MPI's part would be to wait for other ranks
    if (!comm->state) { comm->state = SYSTEM_ERROR; }
    return NCCL_SUCCESS;
}

int ncclCommDestroy(NcclComm *comm) {
    MPI_Comm_free(&comm->mpi);
    free(comm);
    return NCCL_SUCCESS;
}

const char *ncclGetErrorString(int result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
                                        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
                                        "internal error - please report this issue to the NCCL developers",
                                        "invalid argument (run with NCCL_DEBUG=WARN for details)",
                                        "invalid usage (run with NCCL_DEBUG=WARN for details)",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= 0 && result <= NCCL_IN_PROGRESS ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(NcclComm *comm) {
    (void)comm;
    return last_error;
}
