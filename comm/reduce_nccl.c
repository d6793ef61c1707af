// Sums gradients with NCCL, in place and on a stream of its own, so that buckets travel while backward computes the
// next. Both streams wait for each other through events alone: the sums can be part of a CUDA graph, as a fork of the
// device's stream that is joined in reducer_sum.
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/nccl_api.h"
#include "comm/reducer.h"
#include "kernels/cuda/stream.h"

enum { NCCL_BUCKETS = 3 };  // each a launch more
enum { PATIENCE = 120 };    // seconds in which ranks follow each other while a communicator is made

typedef struct {
    Reducer base;
    const Nccl *nccl;
    NcclComm *group;
    cudaStream_t stream;
    cudaEvent_t final, summed;  // a bucket's gradient is final, all sums are there
    int done;                   // buckets whose sum is in the stream
    bool peer_failed;           // what failed here failed because of another rank
} ByNccl;

static bool failed(ByNccl *by, const char *call, int result, Error *error) {
    const char *last = by->nccl->ncclGetLastError(by->group);
    by->peer_failed = result == NCCL_REMOTE_ERROR;
    return error_set(error, EX_UNAVAILABLE, "%s on host %s: %s%s%s", call, by->base.comm->host,
                     by->nccl->ncclGetErrorString(result), last && *last ? ": " : "", last ? last : "");
}

// Puts the sums of the buckets that are final from `begin` on into the stream.
static bool sum_buckets(ByNccl *by, size_t begin, Error *error) {
    const size_t count = by->base.count;
    for (; by->done < NCCL_BUCKETS && reducer_part(count, NCCL_BUCKETS, by->done, 0, 1).begin >= begin; by->done++) {
        const Slice bucket = reducer_part(count, NCCL_BUCKETS, by->done, 0, 1);
        float *at = by->base.gradient + bucket.begin;
        if (bucket.begin == bucket.end) { continue; }
        const int result =
            by->nccl->ncclAllReduce(at, at, bucket.end - bucket.begin, NCCL_FLOAT, NCCL_SUM, by->group, by->stream);
        if (result != NCCL_SUCCESS) { return failed(by, "ncclAllReduce", result, error); }
    }
    return true;
}

// NCCL's own word on what runs.
static bool still_well(ByNccl *by, Error *error) {
    int state = NCCL_SUCCESS;
    int result = by->nccl->ncclCommGetAsyncError(by->group, &state);
    if (result == NCCL_SUCCESS) { result = state; }
    return result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS || failed(by, "ncclAllReduce", result, error);
}

static void nccl_check(Reducer *reducer) {
    Error error;
    if (!still_well((ByNccl *)reducer, &error)) {
        die(EX_PEER_LOST, "a rank or the network is lost: %s; started again, the run goes on from its last checkpoint",
            error.text);
    }
}

static void nccl_ready(Reducer *reducer, size_t begin) {
    ByNccl *by = (ByNccl *)reducer;
    if (by->done == NCCL_BUCKETS || reducer_part(reducer->count, NCCL_BUCKETS, by->done, 0, 1).begin < begin) {
        return;
    }
    CHECK_CUDA(cudaEventRecord(by->final, cuda_stream(reducer->device)));
    CHECK_CUDA(cudaStreamWaitEvent(by->stream, by->final, 0));
    Error error;
    if (sum_buckets(by, begin, &error)) { return; }
    nccl_check(reducer);  // an earlier sum may be why
    die(error.code, "%s", error.text);
}

static void nccl_sum(Reducer *reducer) {
    ByNccl *by = (ByNccl *)reducer;
    nccl_ready(reducer, 0);
    CHECK_CUDA(cudaEventRecord(by->summed, by->stream));
    CHECK_CUDA(cudaStreamWaitEvent(cuda_stream(reducer->device), by->summed, 0));
    by->done = 0;
}

static void nccl_close(Reducer *reducer) {
    ByNccl *by = (ByNccl *)reducer;
    if (by->group) {
        CHECK_CUDA(cudaStreamSynchronize(by->stream));
        by->nccl->ncclCommDestroy(by->group);
    }
    CHECK_CUDA(cudaEventDestroy(by->summed));
    CHECK_CUDA(cudaEventDestroy(by->final));
    CHECK_CUDA(cudaStreamDestroy(by->stream));
    reducer_free(reducer);
}

static void rest(void) {
    const struct timespec time = {.tv_nsec = 100000};
    nanosleep(&time, NULL);
}

// Collective. comm_agree behind a call of NCCL in which ranks wait for each other: where one has failed, another may
// hang, and all are ended with the words of who came first. A rank that failed by itself knows more than its peers.
static bool agree(const ByNccl *by, bool ok, Error *error) {
    const Comm *comm = by->base.comm;
    const double begin = MPI_Wtime();
    MPI_Request all;
    CHECK_MPI(MPI_Ibarrier(comm->world, &all));
    for (int here = 0; CHECK_MPI(MPI_Test(&all, &here, MPI_STATUS_IGNORE)), !here; rest()) {
        if (MPI_Wtime() - begin > PATIENCE) {
            die(EX_UNAVAILABLE, "%s",
                ok ? "other ranks hang in NCCL: run with NCCL_DEBUG=INFO for details" : error->text);
        }
    }
    return comm_agree(comm, ok || by->peer_failed, error) && comm_agree(comm, ok, error);
}

// Every rank has set its device; all meet under an id of rank 0.
static bool connect_ranks(ByNccl *by, Error *error) {
    const Comm *comm = by->base.comm;
    by->nccl = nccl_load(error);
    if (!comm_agree(comm, by->nccl, error)) { return false; }
    NcclUniqueId id;
    memset(&id, 0, sizeof id);
    int result = comm->rank == 0 ? by->nccl->ncclGetUniqueId(&id) : NCCL_SUCCESS;
    bool ok = result == NCCL_SUCCESS || failed(by, "ncclGetUniqueId", result, error);
    if (!comm_agree(comm, ok, error)) { return false; }
    comm_broadcast(comm, &id, sizeof id);
    result = by->nccl->ncclCommInitRank(&by->group, comm->size, id, comm->rank);
    if (result != NCCL_SUCCESS) { by->group = NULL; }
    ok = result == NCCL_SUCCESS || failed(by, "ncclCommInitRank", result, error);
    return agree(by, ok, error);
}

// Waits for what is in the stream.
static bool finish(ByNccl *by, Error *error) {
    for (const double begin = MPI_Wtime();; rest()) {
        const cudaError_t state = cudaStreamQuery(by->stream);
        if (state == cudaSuccess) { return still_well(by, error); }
        if (state != cudaErrorNotReady) {
            return error_set(error, EX_UNAVAILABLE, "ncclAllReduce: %s", cudaGetErrorString(state));
        }
        if (!still_well(by, error)) { return false; }
        if (MPI_Wtime() - begin > PATIENCE) {
            return error_set(error, EX_UNAVAILABLE,
                             "ncclAllReduce: no answer within %d s (run with NCCL_DEBUG=INFO for details)", PATIENCE);
        }
    }
}

// NCCL connects ranks when they first need it, and differently for other sizes, which cannot be while a graph is
// recorded: sums every bucket once, zeros all.
static bool warm_up(ByNccl *by, Error *error) {
    CHECK_CUDA(cudaStreamSynchronize(cuda_stream(by->base.device)));
    const bool ok = sum_buckets(by, 0, error) && finish(by, error);
    by->done = 0;
    return agree(by, ok, error);
}

Reducer *reducer_open_nccl(const Comm *comm, Device *device, size_t count, int replicas, Error *error) {
    static const ReducerCalls calls = {.close = nccl_close, .ready = nccl_ready, .sum = nccl_sum, .check = nccl_check};
    ByNccl *by = check_calloc(1, sizeof *by);
    reducer_alloc(&by->base, comm, device, count, replicas);
    by->base.calls = &calls;
    by->base.in_queue = true;
    int least, most;
    CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &most));
    CHECK_CUDA(cudaStreamCreateWithPriority(&by->stream, cudaStreamNonBlocking, most));  // sums go before backward
    CHECK_CUDA(cudaEventCreateWithFlags(&by->final, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventCreateWithFlags(&by->summed, cudaEventDisableTiming));
    if (connect_ranks(by, error) && warm_up(by, error)) { return &by->base; }
    const size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof error->text - used, "; run.device=cpu goes without NCCL");
    if (by->group) { by->nccl->ncclCommAbort(by->group); }
    by->group = NULL;
    nccl_close(&by->base);
    return NULL;
}
