// An experiment for machines with one GPU: NCCL's transport with all ranks on that GPU, which bertune itself refuses.
// NCCL refuses it, too, unless each rank has another NCCL_HOSTID: then it takes them for ranks of several hosts and
// sends through sockets. Sums of whole numbers are exact, recorded and not. Skipped (77) without a GPU or NCCL, and
// where NCCL refuses nevertheless.
#include <stdio.h>
#include <stdlib.h>

#include "comm/nccl_api.h"
#include "comm/reduce.h"

enum { COUNT = 3400000, ROUNDS = 20 };  // about BERT-mini's parameters

typedef struct {
    Device *device;
    Reducer *reducer;
    float *source;  // (COUNT), in device memory
} Sums;

static float number(size_t i, int rank) { return (float)((int)((i * 7 + (size_t)rank * 1013) % 4001) - 2000); }

// A gradient that comes in two halves, as from backward.
static void step(void *context) {
    const Sums *s = context;
    float *gradient = reducer_gradient(s->reducer);
    const size_t half = COUNT / 2;
    device_zero(s->device, gradient, COUNT * sizeof *gradient);
    device_sync(s->device);
    add(s->device, gradient + half, s->source + half, COUNT - half);
    device_sync(s->device);
    reducer_ready(s->reducer, half);
    add(s->device, gradient, s->source, half);
    device_sync(s->device);
    reducer_sum(s->reducer);
}

// How many elements of the sum are wrong.
static size_t wrong(const Sums *s, const Comm *comm, float *host) {
    size_t count = 0;
    device_download(s->device, host, reducer_summed(s->reducer), COUNT * sizeof *host);
    for (size_t i = 0; i < COUNT; i++) {
        float sum = 0.0f;
        for (int r = 0; r < comm->size; r++) { sum += number(i, r); }
        count += host[i] != sum;
    }
    return count;
}

static double replay(const Sums *s, Recording *recording) {
    const double begin = MPI_Wtime();
    for (int round = 0; round < ROUNDS; round++) { device_replay(s->device, recording); }
    device_mark(s->device, 0);
    device_wait(s->device, 0);
    return (MPI_Wtime() - begin) / ROUNDS;
}

// Skipped, or the elements of the sums that are wrong on any rank.
static int run(const Comm *comm, Device *device) {
    Error error;
    Sums s = {device, reducer_open(comm, device, REDUCE_NCCL, COUNT, 0, &error),
              device_alloc(device, COUNT * sizeof(float))};
    if (!s.reducer) {
        if (comm->rank == 0) { printf("skipped: not possible: %s\n", error.text); }
        return 77;
    }
    float *host = check_calloc(COUNT, sizeof *host);
    for (size_t i = 0; i < COUNT; i++) { host[i] = number(i, comm->rank); }
    device_upload(device, s.source, host, COUNT * sizeof *host);
    device_run(device, step, &s);
    double count = (double)wrong(&s, comm, host);
    Recording *recording = device_record(device, step, &s);
    const double seconds = replay(&s, recording);
    count += (double)wrong(&s, comm, host);
    reducer_check(s.reducer);
    comm_sum(comm, &count, 1);
    if (comm->rank == 0) {
        printf("%d ranks on one GPU: %.0f elements of the sums are wrong, %.2f ms a recorded sum of %d floats\n",
               comm->size, count, 1e3 * seconds, COUNT);
    }
    device_record_free(device, recording);
    device_free(device, s.source);
    reducer_close(s.reducer);
    free(host);
    return count == 0 ? 0 : 1;
}

int main(void) {
    Comm comm;
    Error error;
    const char *none = "";
    if (!comm_init(&comm, &error)) { die(error.code, "%s", error.text); }
    const bool gpu = device_count(DEVICE_CUDA, &none) > 0;
    int code = 77;
    if (gpu && nccl_load(&error)) {
        Device *device = device_open(DEVICE_CUDA, 0, 1, PRECISION_FP32, &error);
        if (!device) { die(error.code, "%s", error.text); }
        code = run(&comm, device);
        if (code == 0) { device_close(device); }
    } else if (comm.rank == 0) {
        printf("skipped: %s\n", gpu ? error.text : none);
    }
    comm_finish(&comm);
    return code;
}
