// What ranks do together, run by mpirun as comm_np1 to comm_np4: sums of whole numbers are exact, verdicts and bytes
// are the same everywhere, shards hold the whole data set. A rank that fails ends all (CMOCKA_TEST_ABORT).
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/parallel_io.h"
#include "comm/reduce.h"
#include "tests/nodes.h"
#include "tests/scratch.h"
#include "trainer/replicas.h"
#include "trainer/shards.h"

static Comm real;  // one MPI_Init a process

static void test_numbering(void **state) {
    (void)state;
    assert_int_equal(real.nodes, 1);
    assert_int_equal(real.local_size, real.size);
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        int parts[64], nodes[64];
        CHECK_MPI(MPI_Allgather(&comm.part, 1, MPI_INT, parts, 1, MPI_INT, comm.world));
        CHECK_MPI(MPI_Allgather(&comm.node, 1, MPI_INT, nodes, 1, MPI_INT, comm.world));
        assert_int_equal(parts[comm.rank], comm.part);
        bool seen[64] = {false};
        for (int r = 0; r < comm.size; r++) {
            assert_in_range(parts[r], 0, comm.size - 1);
            assert_false(seen[parts[r]]);
            seen[parts[r]] = true;
            assert_in_range(parts[r], comm.node_parts[nodes[r]], comm.node_parts[nodes[r] + 1] - 1);
        }
        assert_int_equal(comm.node_parts[0], 0);
        assert_int_equal(comm.node_parts[comm.nodes], comm.size);
        nodes_close(&comm, layout);
    }
}

// A whole number that float holds exactly, as do all sums over ranks.
static float number(size_t i, int rank) { return (float)((int)((i * 7 + (size_t)rank * 1013) % 4001) - 2000); }

static float expected_sum(size_t i, int ranks, int round) {
    float sum = 0.0f;
    for (int r = 0; r < ranks; r++) { sum += number(i, r * round); }
    return sum;
}

typedef struct {
    Reducer *reducer;
    size_t count;
} Announced;

// As backward does it, from the end to the beginning, in parts of several sizes.
static void announce(void *context) {
    const Announced *announced = context;
    for (size_t part = 7; part-- > 0;) { reducer_ready(announced->reducer, announced->count * part / 7); }
}

// The slices of a node's ranks hold every element once, and the sum in it.
static void check_slices(const Comm *comm, const Reducer *reducer, float *replica, size_t count, int round) {
    int slices;
    const Slice *slice = reducer_slices(reducer, &slices);
    const float *sum = reducer_summed(reducer);
    int64_t elements = 0;
    for (int s = 0; s < slices; s++) {
        elements += (int64_t)(slice[s].end - slice[s].begin);
        for (size_t i = slice[s].begin; i < slice[s].end; i++) {
            const float expected = expected_sum(i, comm->size, round);
            if (sum[i] != expected) {
                fail_msg("rank %d: element %zu of %zu: %g, expected %g", comm->rank, i, count, (double)sum[i],
                         (double)expected);
            }
            replica[i] = expected + (float)round;
        }
    }
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &elements, 1, MPI_INT64_T, MPI_SUM, comm->local));
    assert_int_equal(elements, count);
}

static void announce_all(void *context) { reducer_ready(((const Announced *)context)->reducer, 0); }

static void announce_half(void *context) {
    const Announced *announced = context;
    reducer_ready(announced->reducer, announced->count / 2);
}

static void fill_gradient(float *gradient, const Comm *comm, size_t begin, size_t end, int round) {
    for (size_t i = begin; i < end; i++) { gradient[i] = number(i, comm->rank * round); }
}

// What is not final yet, of this rank and of others, is not-a-number and must not be summed; what all have announced is
// summed without reducer_sum.
static void check_order(const Comm *comm, Device *device, Announced announced, float *replica, int round) {
    const size_t count = announced.count, half = count / 2;
    float *gradient = reducer_gradient(announced.reducer);
    for (size_t i = 0; i < count; i++) { gradient[i] = NAN; }
    if (comm->rank == 0) {
        fill_gradient(gradient, comm, half, count, round);
        device_run(device, announce_half, &announced);
    }
    comm_barrier(comm);
    if (comm->rank != 0) {
        fill_gradient(gradient, comm, half, count, round);
        device_run(device, announce_half, &announced);
    }
    comm_barrier(comm);
    fill_gradient(gradient, comm, 0, half, round);
    comm_barrier(comm);
    device_run(device, announce_all, &announced);
    comm_barrier(comm);
    device_run(device, announce_all, &announced);
    comm_barrier(comm);
    if (comm->nodes == 1) { check_slices(comm, announced.reducer, replica, count, round); }
    reducer_sum(announced.reducer);
    check_slices(comm, announced.reducer, replica, count, round);
    reducer_publish(announced.reducer);
}

static void check_reducer(const Comm *comm, Device *device, size_t count) {
    Error error;
    Announced announced = {reducer_open(comm, device, REDUCE_SHARED, count, 2, &error), count};
    float *gradient = reducer_gradient(announced.reducer), *replica = reducer_replica(announced.reducer, 1);
    for (size_t i = 0; i < count; i++) { assert_true(gradient[i] == 0.0f && replica[i] == 0.0f); }
    for (int round = 1; round <= 4; round++) {
        fill_gradient(gradient, comm, 0, count, round);
        // Once nobody announces, twice all, once some.
        if (round == 2 || round == 3 || (round == 4 && comm->rank % 2 == 0)) {
            device_run(device, announce, &announced);
        }
        reducer_sum(announced.reducer);
        check_slices(comm, announced.reducer, replica, count, round);
        reducer_publish(announced.reducer);
        for (size_t i = 0; i < count; i++) {
            assert_true(replica[i] == expected_sum(i, comm->size, round) + (float)round);
        }
        comm_barrier(comm);  // everyone has looked
    }
    check_order(comm, device, announced, replica, 5);
    float *values = check_calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) { values[i] = number(i, 5); }
    reducer_fill(announced.reducer, 0, values);
    for (size_t i = 0; i < count; i++) { assert_true(reducer_replica(announced.reducer, 0)[i] == values[i]); }
    free(values);
    reducer_close(announced.reducer);
}

static void test_reducer(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 2, 3, 5, 1023, 1024, 1025, 16385, 100003};
    Error error;
    Device *device = device_open(DEVICE_CPU, 0, 2, PRECISION_FP32, &error);
    assert_non_null(device);
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) { check_reducer(&comm, device, counts[i]); }
        nodes_close(&comm, layout);
    }
    device_close(device);
}

// Sums that are rounded: the same bits again in a second run, announced or not, and on all nodes.
static void test_reducer_same_bits(void **state) {
    (void)state;
    enum { COUNT = 5001 };
    static float sums[2][COUNT], root[COUNT];
    Error error;
    Device *device = device_open(DEVICE_CPU, 0, 1, PRECISION_FP32, &error);
    assert_non_null(device);
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        for (int run = 0; run < 2; run++) {
            Announced announced = {reducer_open(&comm, device, REDUCE_SHARED, COUNT, 1, &error), COUNT};
            float *gradient = reducer_gradient(announced.reducer), *replica = reducer_replica(announced.reducer, 0);
            for (size_t i = 0; i < COUNT; i++) { gradient[i] = 1.0f / (float)(i + 1 + 3 * (size_t)comm.rank); }
            if (run == 1) { device_run(device, announce, &announced); }
            reducer_sum(announced.reducer);
            int slices;
            const Slice *slice = reducer_slices(announced.reducer, &slices);
            for (int s = 0; s < slices; s++) {
                memcpy(replica + slice[s].begin, reducer_summed(announced.reducer) + slice[s].begin,
                       (slice[s].end - slice[s].begin) * sizeof *replica);
            }
            reducer_publish(announced.reducer);
            memcpy(sums[run], replica, sizeof root);
            memcpy(root, replica, sizeof root);
            comm_broadcast(&comm, root, sizeof root);
            assert_memory_equal(sums[run], root, sizeof root);
            reducer_close(announced.reducer);
        }
        assert_memory_equal(sums[0], sums[1], sizeof root);
        nodes_close(&comm, layout);
    }
    device_close(device);
}

static void test_agree(void **state) {
    (void)state;
    for (int failing = 0; failing < 1 << real.size; failing++) {  // every set of ranks
        Error error = {0};
        const bool ok = !(failing >> real.rank & 1);
        if (!ok) { error_set(&error, 60 + real.rank, "rank %d failed", real.rank); }
        assert_int_equal(comm_agree(&real, ok, &error), failing == 0);
        if (failing) {
            const int lowest = __builtin_ctz((unsigned)failing);
            char expected[32];
            snprintf(expected, sizeof expected, "rank %d failed", lowest);
            assert_int_equal(error.code, 60 + lowest);
            assert_string_equal(error.text, expected);
        }
    }
}

// One bit of one parameter of one rank: all ranks are told which rank it is.
static void test_replicas_alike(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    Error error;
    Device *device = device_open(DEVICE_CPU, 0, 1, PRECISION_FP32, &error);
    assert_non_null(device);
    float *parameters = check_calloc(COUNT, sizeof *parameters);
    for (size_t i = 0; i < COUNT; i++) { parameters[i] = number(i, 0); }
    assert_true(replicas_alike(&real, device, parameters, COUNT, 7, &error));
    for (int wrong = 1; wrong < real.size; wrong++) {
        uint32_t bits;
        float *one = &parameters[(size_t)wrong * 1237];
        memcpy(&bits, one, sizeof bits);
        bits ^= real.rank == wrong;
        memcpy(one, &bits, sizeof bits);
        assert_false(replicas_alike(&real, device, parameters, COUNT, 7, &error));
        char expected[64];
        snprintf(expected, sizeof expected, "at step 7 the weights of rank %d (", wrong);
        assert_error(&error, EX_SOFTWARE, expected);
        bits ^= real.rank == wrong;
        memcpy(one, &bits, sizeof bits);
    }
    assert_true(replicas_alike(&real, device, parameters, COUNT, 8, &error));
    free(parameters);
    device_close(device);
}

static void test_broadcast_and_sums(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 7, 1025, 1000003};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        unsigned char *bytes = check_calloc(counts[c], 1);
        for (size_t i = 0; i < counts[c]; i++) { bytes[i] = (unsigned char)(i * 31 + (size_t)real.rank * 17); }
        comm_broadcast(&real, bytes, counts[c]);
        for (size_t i = 0; i < counts[c]; i++) { assert_true(bytes[i] == (unsigned char)(i * 31)); }
        free(bytes);
    }
    double doubles[2] = {real.rank + 0.5, 1e15 + real.rank};
    float floats[3] = {(float)real.rank, 0.0f, real.rank == real.size - 1 ? 0.1f : 0.0f};
    comm_sum(&real, doubles, 2);
    comm_sum_floats(&real, floats, 3);
    const int triangle = real.size * (real.size - 1) / 2;
    assert_true(doubles[0] == triangle + 0.5 * real.size && doubles[1] == 1e15 * real.size + triangle);
    assert_true(floats[0] == (float)triangle && floats[1] == 0.0f && floats[2] == 0.1f);
    comm_barrier(&real);
}

static void test_shared_memory(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 1025};
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        for (int c = 0; c < 3; c++) {
            const size_t count = counts[c] * (size_t)comm.local_size;
            SharedMemory memory = comm_shared_alloc(&comm, count * sizeof(int32_t));
            int32_t *values = memory.base;
            for (size_t i = 0; i < count; i++) { assert_int_equal(values[i], 0); }
            comm_shared_sync(&comm, &memory);
            for (size_t i = (size_t)comm.local_rank; i < count; i += (size_t)comm.local_size) {
                values[i] = (int32_t)i + comm.node;
            }
            comm_shared_sync(&comm, &memory);
            for (size_t i = 0; i < count; i++) { assert_int_equal(values[i], (int32_t)i + comm.node); }
            comm_shared_free(&memory);
            comm_shared_free(&memory);
        }
        nodes_close(&comm, layout);
    }
}

// Each part fills its share; after the exchange every node holds the whole array.
static void check_exchange(const Comm *comm, int64_t count) {
    SharedMemory memory = comm_shared_alloc(comm, (size_t)count * sizeof(int64_t));
    int64_t *values = memory.base, begin[65];
    for (int n = 0; n <= comm->nodes; n++) { begin[n] = count * comm->node_parts[n] / comm->size; }
    const int64_t first = count * comm->part / comm->size, end = count * (comm->part + 1) / comm->size;
    for (int64_t i = first; i < end; i++) { values[i] = i * i + 1; }
    comm_exchange(comm, &memory, sizeof *values, begin);
    for (int64_t i = 0; i < count; i++) { assert_int_equal(values[i], i * i + 1); }
    comm_shared_sync(comm, &memory);
    comm_shared_free(&memory);
}

static void test_exchange(void **state) {
    (void)state;
    const int64_t counts[] = {0, 1, 3, 1025, 100003};
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Comm comm = nodes_open(&real, layout);
        for (int c = 0; c < 5; c++) { check_exchange(&comm, counts[c]); }
        nodes_close(&comm, layout);
    }
}

static Reviews make_reviews(int64_t rows) {
    Reviews reviews = {.rows = rows};
    for (int64_t i = 0; i < rows; i++) { reviews.token_count += 2 + i * 5 % 7; }
    reviews_alloc(&reviews);
    for (int64_t i = 0; i < rows; i++) {
        reviews.offsets[i + 1] = reviews.offsets[i] + 2 + i * 5 % 7;
        reviews.labels[i] = (int32_t)(i % 2);
        reviews.source_row[i] = 2 * i;
    }
    for (int64_t t = 0; t < reviews.token_count; t++) { reviews.tokens[t] = (int32_t)(t * 11 % 60); }
    return reviews;
}

// Rank 0 writes a data set whose group `train` is reviews; all ranks learn where.
static ScratchPath share_file(const Reviews *reviews) {
    static char names[2][DATASET_NAME_SIZE] = {"no", "yes"};
    static int32_t active[] = {0, 1};
    ScratchPath path;
    memset(&path, 0, sizeof path);
    if (real.rank == 0) {
        const DatasetInfo info = {.vocabulary_sha256 = "a",
                                  .source_sha256 = "b",
                                  .vocabulary_size = 60,
                                  .max_length = 8,
                                  .classes = 2,
                                  .label_names = names,
                                  .split_rule = "none",
                                  .active_count = 2,
                                  .active = active};
        const char *const group = "train";
        Error error;
        path = scratch("shards.h5");
        assert_true(dataset_write(path.text, &info, &reviews, &group, 1, &error));
    }
    comm_broadcast(&real, &path, sizeof path);
    return path;
}

static bool open_shards(Shards *shards, const Comm *comm, const char *path, Error *error) {
    Dataset dataset;
    hid_t access = parallel_access(comm);
    assert_true(dataset_open(&dataset, path, access, error));
    H5Pclose(access);
    const bool ok = shards_open(shards, comm, &dataset, "train", error);
    dataset_close(&dataset);
    return ok;
}

static void check_shards(const Comm *comm, const char *path, const Reviews *expected) {
    Shards shards;
    Error error;
    if (!open_shards(&shards, comm, path, &error)) { fail_msg("%s", error.text); }
    const Reviews *reviews = &shards.reviews;
    const size_t rows = (size_t)expected->rows;
    assert_int_equal(reviews->rows, expected->rows);
    assert_int_equal(reviews->token_count, expected->token_count);
    assert_memory_equal(reviews->offsets, expected->offsets, (rows + 1) * sizeof *reviews->offsets);
    assert_memory_equal(reviews->tokens, expected->tokens, (size_t)expected->token_count * sizeof *reviews->tokens);
    assert_memory_equal(reviews->labels, expected->labels, rows * sizeof *reviews->labels);
    assert_memory_equal(reviews->source_row, expected->source_row, rows * sizeof *reviews->source_row);
    double read = (double)shards.count;
    comm_sum(comm, &read, 1);
    assert_true(read == (double)expected->rows);
    shards_close(&shards);
}

static void test_shards(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 2, 3, 7, 5000};
    for (int s = 0; s < 5; s++) {
        Reviews reviews = make_reviews(sizes[s]);
        const ScratchPath path = share_file(&reviews);
        for (int layout = 0; layout < LAYOUTS; layout++) {
            Comm comm = nodes_open(&real, layout);
            check_shards(&comm, path.text, &reviews);
            nodes_close(&comm, layout);
        }
        reviews_free(&reviews);
        comm_barrier(&real);
    }
}

// One bad row, which one rank alone reads: all ranks fail with its words.
static void test_bad_shard(void **state) {
    (void)state;
    const int64_t rows[] = {0, 50, 99};
    for (int i = 0; i < 3; i++) {
        Reviews reviews = make_reviews(100);
        reviews.labels[rows[i]] = 2;
        const ScratchPath path = share_file(&reviews);
        for (int layout = 0; layout < LAYOUTS; layout++) {
            Comm comm = nodes_open(&real, layout);
            Shards shards;
            Error error = {0};
            char expected[64];
            snprintf(expected, sizeof expected, "/train: row %lld: ", (long long)rows[i]);
            assert_false(open_shards(&shards, &comm, path.text, &error));
            assert_error(&error, EX_DATAERR, expected);
            nodes_close(&comm, layout);
        }
        reviews_free(&reviews);
        comm_barrier(&real);
    }
}

static void test_threads(void **state) {
    (void)state;
    const char *before = getenv("OMP_NUM_THREADS");
    char *kept = before ? check_strdup(before) : NULL;
    setenv("OMP_NUM_THREADS", "3", 1);
    assert_int_equal(comm_threads(&real), 3);
    const char *ignored[] = {"", "0", "-1", "many", "2,1"};
    for (int i = 0; i < 5; i++) {
        setenv("OMP_NUM_THREADS", ignored[i], 1);
        assert_in_range(comm_threads(&real), 1, 4096);
    }
    unsetenv("OMP_NUM_THREADS");
    assert_in_range(comm_threads(&real), 1, 4096);
    if (kept) { setenv("OMP_NUM_THREADS", kept, 1); }
    free(kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbering),
        cmocka_unit_test(test_reducer),
        cmocka_unit_test(test_reducer_same_bits),
        cmocka_unit_test(test_agree),
        cmocka_unit_test(test_broadcast_and_sums),
        cmocka_unit_test(test_shared_memory),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_bad_shard),
        cmocka_unit_test(test_replicas_alike),
        cmocka_unit_test(test_threads),
    };
    Error error;
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (!comm_init(&real, &error)) { die(error.code, "%s", error.text); }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_finish(&real);
    return failed;
}
