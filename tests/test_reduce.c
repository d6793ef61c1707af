// What a transport promises, on every kind of device: run by mpirun as `test_reduce cpu|cuda shared|staged|nccl`. Sums
// of whole numbers are exact; recorded steps sum as others do; a failure of NCCL ends all ranks with the same words.
// Skipped (77) where ranks find no GPU, or for NCCL not one each.
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/nccl_api.h"
#include "comm/placement.h"
#include "tests/nodes.h"
#include "tests/scratch.h"

static Comm real;  // one MPI_Init a process
static DeviceKind kind;
static Transport transport;
static int gpus;
static bool imitated;  // NCCL and the GPU, in tests/cuda_host

static Device *open_device(int index) {
    Error error;
    Device *device = device_open(kind, index, 2, PRECISION_FP32, &error);
    if (!device) { fail_msg("%s", error.text); }
    return device;
}

// NCCL wants a GPU a rank; others take what is there.
static Device *open_own(void) { return open_device(gpus ? real.local_rank % gpus : 0); }

static Reducer *open_reducer(const Comm *comm, Device *device, size_t count, int replicas) {
    Error error;
    Reducer *reducer = reducer_open(comm, device, transport, count, replicas, &error);
    if (!reducer) { fail_msg("%s", error.text); }
    return reducer;
}

// A whole number that float holds exactly, as do all sums over ranks.
static float number(size_t i, int key) { return (float)((int)((i * 7 + (size_t)key * 1013) % 4001) - 2000); }

static float expected_sum(size_t i, int ranks, int round) {
    float sum = 0.0f;
    for (int r = 0; r < ranks; r++) { sum += number(i, r * round); }
    return sum;
}

typedef struct {
    const Comm *comm;
    Device *device;
    Reducer *reducer;
    size_t count;
    float *host;    // (count)
    float *source;  // (count), in device memory
} Run;

static void fill_host(const Run *run, int round) {
    for (size_t i = 0; i < run->count; i++) { run->host[i] = number(i, run->comm->rank * round); }
}

// As backward does it, from the end to the beginning, in parts of several sizes.
static void announce(void *context) {
    const Run *run = context;
    for (size_t part = 7; part-- > 0;) { reducer_ready(run->reducer, run->count * part / 7); }
}

static void announce_and_sum(void *context) {
    announce(context);
    reducer_sum(((const Run *)context)->reducer);
}

// Sums and moves this rank's part of the sum into replica 1, of which all ranks then see the whole.
static void sum_round(const Run *run, int round) {
    const size_t size = sizeof(float);
    fill_host(run, round);
    device_upload(run->device, reducer_gradient(run->reducer), run->host, run->count * size);
    if (round % 2) {
        reducer_sum(run->reducer);
    } else if (reducer_in_queue(run->reducer)) {
        device_run(run->device, announce_and_sum, (void *)run);
    } else {
        device_run(run->device, announce, (void *)run);
        reducer_sum(run->reducer);
    }
    int slices;
    const Slice *slice = reducer_slices(run->reducer, &slices);
    double elements = 0;
    for (int s = 0; s < slices; s++) {
        const size_t begin = slice[s].begin, length = slice[s].end - begin;
        device_download(run->device, run->host + begin, reducer_summed(run->reducer) + begin, length * size);
        for (size_t i = begin; i < begin + length; i++) {
            assert_true(run->host[i] == expected_sum(i, run->comm->size, round));
        }
        device_upload(run->device, reducer_replica(run->reducer, 1) + begin, run->host + begin, length * size);
        elements += reducer_counts(run->reducer) ? (double)length : 0.0;
    }
    reducer_publish(run->reducer);
    reducer_check(run->reducer);
    comm_sum(run->comm, &elements, 1);
    assert_true(elements == (double)run->count);
}

static void check_replica(const Run *run, int index, int round) {
    device_download(run->device, run->host, reducer_replica(run->reducer, index), run->count * sizeof(float));
    for (size_t i = 0; i < run->count; i++) {
        assert_true(run->host[i] == (round ? expected_sum(i, run->comm->size, round) : 0.0f));
    }
    comm_barrier(run->comm);  // all have looked
}

static void check_sums(const Comm *comm, Device *device, size_t count) {
    Run run = {comm, device, open_reducer(comm, device, count, 2), count, NULL, NULL};
    run.host = check_calloc(count, sizeof *run.host);
    check_replica(&run, 0, 0);
    check_replica(&run, 1, 0);
    for (int round = 1; round <= 4; round++) {
        sum_round(&run, round);
        check_replica(&run, 1, round);
    }
    check_replica(&run, 0, 0);
    for (size_t i = 0; i < count; i++) { run.host[i] = expected_sum(i, comm->size, 9); }
    reducer_fill(run.reducer, 0, run.host);
    check_replica(&run, 0, 9);
    check_replica(&run, 1, 4);
    reducer_close(run.reducer);
    free(run.host);
}

static void test_sums(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 2, 17, 63, 1023, 1025, 16385, 100003};
    Device *device = open_own();
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) { check_sums(&comm, device, counts[i]); }
        nodes_close(&comm, layout);
    }
    device_close(device);
}

// Sums that are rounded have the same bits in every run and on all ranks.
static void test_same_bits(void **state) {
    (void)state;
    enum { COUNT = 5001 };
    static float sums[2][COUNT], values[COUNT];
    Device *device = open_own();
    for (size_t i = 0; i < COUNT; i++) { values[i] = 1.0f / (float)(i + 1 + 3 * (size_t)real.rank); }
    for (int again = 0; again < 2; again++) {
        Run run = {&real, device, open_reducer(&real, device, COUNT, 0), COUNT, NULL, NULL};
        device_upload(device, reducer_gradient(run.reducer), values, sizeof values);
        device_run(device, announce, &run);
        reducer_sum(run.reducer);
        int slices;
        const Slice *slice = reducer_slices(run.reducer, &slices);
        memset(sums[again], 0, sizeof sums[again]);
        for (int s = 0; s < slices; s++) {
            device_download(device, sums[again] + slice[s].begin, reducer_summed(run.reducer) + slice[s].begin,
                            (slice[s].end - slice[s].begin) * sizeof(float));
        }
        reducer_close(run.reducer);
    }
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
    if (transport != REDUCE_SHARED) {
        comm_broadcast(&real, sums[1], sizeof sums[1]);
        assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
    }
    device_close(device);
}

// A step: writes the gradient in two parts, each announced, sums, and reads the sum.
static void recorded_step(void *context) {
    const Run *run = context;
    float *gradient = reducer_gradient(run->reducer);
    const size_t half = run->count / 2;
    device_zero(run->device, gradient, run->count * sizeof *gradient);
    device_sync(run->device);
    add(run->device, gradient + half, run->source + half, run->count - half);
    device_sync(run->device);
    reducer_ready(run->reducer, half);
    add(run->device, gradient, run->source, half);
    device_sync(run->device);
    reducer_ready(run->reducer, 0);
    reducer_sum(run->reducer);
    device_zero(run->device, reducer_replica(run->reducer, 0), run->count * sizeof *gradient);
    device_sync(run->device);
    add(run->device, reducer_replica(run->reducer, 0), reducer_summed(run->reducer), run->count);
}

static void check_recorded(Device *device, size_t count) {
    Run run = {&real, device, open_reducer(&real, device, count, 2), count, NULL, NULL};
    run.host = check_calloc(count, sizeof *run.host);
    run.source = device_alloc(device, count * sizeof *run.source);
    Recording *recording = device_record(device, recorded_step, &run);
    for (int round = 1; round <= 4; round++) {
        fill_host(&run, round);
        device_upload(device, run.source, run.host, count * sizeof *run.source);
        device_replay(device, recording);
        device_replay(device, recording);
        check_replica(&run, 0, round);
        sum_round(&run, round);  // not recorded, in between
        check_replica(&run, 1, round);
    }
    device_record_free(device, recording);
    device_free(device, run.source);
    reducer_close(run.reducer);
    free(run.host);
}

static void test_recorded(void **state) {
    (void)state;
    Device *device = open_own();
    Reducer *reducer = open_reducer(&real, device, 1, 0);
    const bool in_queue = reducer_in_queue(reducer);
    reducer_close(reducer);
    assert_int_equal(in_queue, transport == REDUCE_NCCL || (transport == REDUCE_STAGED && real.size == 1));
    if (in_queue && device_records(device)) {
        check_recorded(device, 37);
        check_recorded(device, 50001);
    }
    device_close(device);
}

// Ranks on one GPU: NCCL's own words, on every rank.
static void test_one_gpu(void **state) {
    (void)state;
    if (transport != REDUCE_NCCL || real.size == 1) { return; }
    Device *device = open_device(0);
    Error error = {0};
    assert_null(reducer_open(&real, device, transport, 100, 1, &error));
    assert_error(&error, EX_UNAVAILABLE, "ncclCommInitRank");
    assert_non_null(strstr(error.text, "Duplicate GPU"));
    assert_non_null(strstr(error.text, "run.device=cpu"));
    device_close(device);
}

static jmp_buf ended;

static void remember_end(int code) { longjmp(ended, code); }

// The exit code with which reducer_sum and reducer_check end the process in the round in which `fault` happens, else 0.
static int end_of_rounds(const Run *run, const char *fault) {
    setenv("NCCL_HOST_FAIL", fault, 1);
    check_set_abort_hook(remember_end);
    const int code = setjmp(ended);
    for (int round = 1; code == 0 && round <= 3; round++) {
        announce_and_sum((void *)run);
        device_download(run->device, run->host, reducer_summed(run->reducer), run->count * sizeof *run->host);
        reducer_check(run->reducer);
    }
    unsetenv("NCCL_HOST_FAIL");
    check_set_abort_hook(NULL);
    return code;
}

// Faults that only the imitation can have.
static void test_faults(void **state) {
    (void)state;
    if (!imitated || transport != REDUCE_NCCL) { return; }
    enum { COUNT = 1000 };
    float host[COUNT];
    Device *device = open_own();
    const char *faults[] = {"init", "init@0", "call:1", "call:3", "reduce:1", "reduce:3"};  // a bucket each
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        Error error = {0};
        setenv("NCCL_HOST_FAIL", faults[i], 1);
        assert_null(reducer_open(&real, device, transport, COUNT, 1, &error));
        assert_error(&error, EX_UNAVAILABLE, i < 2 ? "ncclCommInitRank" : "ncclAllReduce");
        assert_non_null(strstr(error.text, "made to fail"));  // on the rank that knows
        unsetenv("NCCL_HOST_FAIL");
    }
    char last[16];
    snprintf(last, sizeof last, "init@%d", real.size - 1);
    setenv("NCCL_HOST_FAIL", last, 1);
    Error error = {0};
    assert_null(reducer_open(&real, device, transport, COUNT, 1, &error));
    assert_non_null(strstr(error.text, "made to fail"));
    unsetenv("NCCL_HOST_FAIL");
    const struct {
        const char *fault;
        int code;
    } later[] = {{"call:6", EX_UNAVAILABLE}, {"reduce:6", EX_PEER_LOST}, {"reduce:12@0", EX_PEER_LOST}, {"", 0}};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        const Run run = {&real, device, open_reducer(&real, device, COUNT, 1), COUNT, host, NULL};
        assert_int_equal(end_of_rounds(&run, later[i].fault), later[i].code);
        comm_barrier(&real);
        reducer_close(run.reducer);
    }
    device_close(device);
}

// What this machine's ranks choose is what they can use.
static void test_placement(void **state) {
    (void)state;
    Placement placement;
    Error error = {0};
    assert_true(placement_choose(&real, WISH_CPU, false, &placement, &error));
    assert_int_equal(placement.kind, DEVICE_CPU);
    assert_true(placement_choose(&real, WISH_AUTO, false, &placement, &error));
    double kinds = placement.kind, indices = placement.index;
    comm_sum(&real, &kinds, 1);
    comm_sum(&real, &indices, 1);
    assert_true(kinds == (gpus >= real.size ? real.size * DEVICE_CUDA : DEVICE_CPU));
    const bool cuda = placement_choose(&real, WISH_CUDA, false, &placement, &error);
    assert_int_equal(cuda, gpus >= real.size);
    if (cuda) { assert_true(indices == real.size * (real.size - 1) / 2); }
    if (!cuda) { assert_int_equal(error.code, EX_UNAVAILABLE); }
    if (gpus > 0) {
        assert_true(placement_choose(&real, WISH_CUDA, true, &placement, &error));
        assert_int_equal(placement.transport, cuda && real.size > 1 && nccl_load(&error) ? REDUCE_NCCL : REDUCE_STAGED);
        print_message("rank %d: GPU %d; %s\n", real.rank, placement.index, placement.why);
    } else {
        print_message("rank %d: %s; %s\n", real.rank, placement.why, error.text);
    }
}

// Why this transport cannot be tested here, on all ranks alike, or NULL.
static const char *missing(void) {
    const char *why = "";
    gpus = device_count(DEVICE_CUDA, &why);
    double fewest = gpus;
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &fewest, 1, MPI_DOUBLE, MPI_MIN, real.world));
    Error error;
    const Nccl *nccl = transport == REDUCE_NCCL ? nccl_load(&error) : NULL;
    imitated = nccl && nccl->version == 29900;
    if (kind == DEVICE_CUDA && fewest == 0) { return *why ? why : "another rank has no GPU"; }
    if (transport == REDUCE_NCCL && fewest < real.local_size) { return "fewer GPUs than ranks"; }
    return transport == REDUCE_NCCL && !nccl ? "no libnccl.so.2" : NULL;
}

static int test_all(int count, char **arguments) {
    static const char *const kinds[] = {"cpu", "cuda"}, *const transports[] = {"shared", "staged", "nccl"};
    for (int i = 0; i < 2; i++) {
        if (count > 1 && strcmp(arguments[1], kinds[i]) == 0) { kind = (DeviceKind)i; }
    }
    for (int i = 0; i < 3; i++) {
        if (count > 2 && strcmp(arguments[2], transports[i]) == 0) { transport = (Transport)i; }
    }
    const char *why = missing();
    if (why) {
        if (real.rank == 0) { printf("skipped: %s on %s: %s\n", transports[transport], kinds[kind], why); }
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums),     cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_recorded), cmocka_unit_test(test_one_gpu),
                                       cmocka_unit_test(test_faults),   cmocka_unit_test(test_placement)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int count, char **arguments) {
    Error error;
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (!comm_init(&real, &error)) { die(error.code, "%s", error.text); }
    const int failed = test_all(count, arguments);
    comm_finish(&real);
    return failed;
}
