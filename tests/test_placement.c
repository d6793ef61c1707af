// Which device each rank gets, on nodes made up here: what ranks see is a line for each, `host: GPU GPU ...`, and a GPU
// is a letter, the same for all that see it.
#include <stdio.h>
#include <string.h>

#include "comm/placement.h"
#include "tests/text_fixture.h"

enum { RANKS = 8 };

static int look(Sight *sights, const char *const *lines, int nccl) {
    int ranks = 0;
    for (; lines[ranks]; ranks++) {
        Sight *sight = &sights[ranks];
        const char *gpu = strchr(lines[ranks], ':') + 1;
        *sight = (Sight){.nccl = nccl, .lacks = "no driver", .no_nccl = "libnccl.so.2: not there"};
        snprintf(sight->host, sizeof sight->host, "%.*s", (int)(gpu - 1 - lines[ranks]), lines[ranks]);
        for (; *gpu; gpu++) {
            if (*gpu == ' ') { continue; }
            sight->gpus[sight->count] = (Gpu){.uuid = {0xab, 0xcd, [15] = (unsigned char)*gpu}, .index = sight->count};
            snprintf(sight->gpus[sight->count++].name, sizeof sight->gpus[0].name, "H200");
        }
    }
    return ranks;
}

// A wish of ranks that see what the lines say, and the GPU that each gets, or '-' for a CPU; or the error.
static Transport check_nccl(PlacementWish wish, bool share, int nccl, const char *const *lines, const char *gets,
                            const char *says) {
    Sight sights[RANKS];
    Placement placement = {.transport = REDUCE_SHARED};
    Error error = {0};
    const int ranks = look(sights, lines, nccl);
    Transport transport = REDUCE_SHARED;
    for (int r = 0; r < ranks; r++) {
        const bool ok = placement_decide(sights, ranks, r, wish, share, &placement, &error);
        assert_int_equal(ok, gets != NULL);
        if (!ok) {
            assert_error(&error, EX_UNAVAILABLE, says);
            continue;
        }
        if (!strstr(placement.why, says)) { fail_msg("`%s` lacks `%s`", placement.why, says); }
        assert_int_equal(placement.kind, gets[r] == '-' ? DEVICE_CPU : DEVICE_CUDA);
        if (gets[r] != '-') { assert_int_equal(sights[r].gpus[placement.index].uuid[15], gets[r]); }
        if (r > 0) { assert_int_equal(placement.transport, transport); }
        transport = placement.transport;
    }
    return transport;
}

#define SEE(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ALONE(gets, ...) \
    assert_int_equal(check_nccl(WISH_CUDA, false, 22809, SEE(__VA_ARGS__), gets, "cuda: "), REDUCE_NCCL)

static void test_own_gpu(void **state) {
    (void)state;
    ALONE("ABCD", "h: ABCD", "h: ABCD", "h: ABCD", "h: ABCD");  // all see all
    ALONE("AB", "h: ABCD", "h: ABCD");                          // and there are more
    ALONE("CAB", "h: C", "h: A", "h: B");                       // bound by Slurm
    ALONE("ABCD", "n1: AB", "n1: AB", "n2: CD", "n2: CD");      // two nodes
    ALONE("ACBD", "n1: AB", "n2: CD", "n1: AB", "n2: CD");      // dealt in turn
    ALONE("BA", "h: AB", "h: A");                               // the first gives way
    ALONE("BCDA", "h: AB", "h: BC", "h: CD", "h: A");           // one after the other
    ALONE("AB", "container1: AB", "container2: AB");            // one machine under two names
    ALONE("DCBA", "h: DCBA", "h: CBAD", "h: BADC", "h: ADCB");  // numbered differently
    assert_int_equal(check_nccl(WISH_AUTO, false, 22809, SEE("h: AB", "h: AB"), "AB",
                                "cuda: a GPU for each of 2 ranks (H200), NCCL 2.28.9"),
                     REDUCE_NCCL);
    assert_int_equal(check_nccl(WISH_AUTO, false, 22809, SEE("h: AB"), "A", "cuda: H200"), REDUCE_STAGED);
}

static void test_no_nccl(void **state) {
    (void)state;
    assert_int_equal(check_nccl(WISH_AUTO, false, 0, SEE("h: AB", "h: AB"), "AB",
                                "cuda: a GPU for each of 2 ranks (H200), sums through host memory: rank 0 on host h: "
                                "libnccl.so.2: not there"),
                     REDUCE_STAGED);
    Sight sights[2];
    Placement placement;
    Error error;
    look(sights, SEE("n1: A", "n2: B"), 22809);
    sights[1].nccl = 22005;
    assert_true(placement_decide(sights, 2, 1, WISH_CUDA, false, &placement, &error));
    assert_int_equal(placement.transport, REDUCE_STAGED);
    assert_non_null(strstr(placement.why, "rank 0 has NCCL 2.28.9, rank 1 on host n2 has 2.20.5"));
    sights[1].nccl = 0;
    assert_true(placement_decide(sights, 2, 0, WISH_CUDA, true, &placement, &error));
    assert_int_equal(placement.transport, REDUCE_STAGED);
    assert_non_null(strstr(placement.why, "rank 1 on host n2: libnccl.so.2: not there"));
}

static void check_cpu(PlacementWish wish, bool share, const char *const *lines, const char *says) {
    assert_int_equal(check_nccl(wish, share, 22809, lines, "--------", says), REDUCE_SHARED);
}

static void test_cpu(void **state) {
    (void)state;
    check_cpu(WISH_CPU, false, SEE("h: AB", "h: AB"), "cpu: run.device=cpu");
    check_cpu(WISH_CPU, true, SEE("h:"), "cpu: run.device=cpu");
    check_cpu(WISH_AUTO, false, SEE("n1:"), "cpu: no GPU for rank 0 on host n1: no driver");
    check_cpu(WISH_AUTO, false, SEE("n1: A", "n1: B", "n2:"), "cpu: no GPU for rank 2 on host n2: no driver");
    check_cpu(WISH_AUTO, true, SEE("n1: A", "n1: A"), "cpu: rank 0 and rank 1 are both on GPU 0 of host n1 (H200, ");
}

static void check_refused(bool share, const char *const *lines, const char *says) {
    check_nccl(WISH_CUDA, share, 22809, lines, NULL, says);
}

static void test_refused(void **state) {
    (void)state;
    check_refused(false, SEE("h: A", "h: A"),
                  "run.device: cuda: rank 0 and rank 1 are both on GPU 0 of host h (H200, "
                  "GPU-abcd0000-0000-0000-0000-000000000041), which has 1 GPU for 2 ranks; start at most 1 rank there, "
                  "or let them take turns through host memory with run.share_gpu=true");
    check_refused(false, SEE("n1: A", "n2: BC", "n2: BC", "n2: BC"),
                  "rank 1 and rank 3 are both on GPU 0 of host n2 (H200, GPU-abcd0000-0000-0000-0000-000000000042), "
                  "which has 2 GPUs for 3 ranks; start at most 2 ranks there");
    check_refused(false, SEE("h: A", "h: A", "h: BC"),
                  "which has 3 GPUs for 3 ranks; let each rank see a GPU of its own");
    for (int share = 0; share < 2; share++) {
        check_refused(share, SEE("n1: A", "n2:", "n2:"),
                      "no GPU for rank 1 on host n2: no driver; use run.device=cpu or auto");
    }
    check_refused(true, SEE("n1: A", "n1: A", "n2:"), "no GPU for rank 2 on host n2: no driver");
}

static void check_shared(const char *const *lines, const char *gets, const char *says) {
    assert_int_equal(check_nccl(WISH_CUDA, true, 22809, lines, gets, says), REDUCE_STAGED);
}

static void test_shared_gpu(void **state) {
    (void)state;
    check_shared(SEE("h: A", "h: A"), "AA", "cuda: 2 ranks share 1 GPU (H200), sums through host memory");
    check_shared(SEE("h: AB", "h: AB", "h: AB", "h: AB"), "ABAB", "cuda: 4 ranks share 2 GPUs (H200)");
    check_shared(SEE("n1: A", "n1: A", "n2: B"), "AAB", "cuda: 3 ranks share 2 GPUs (H200)");
    check_shared(SEE("h: AB", "h: A", "h: A", "h: AB"), "BAAB", "share");
    assert_int_equal(check_nccl(WISH_CUDA, true, 22809, SEE("h: AB", "h: AB"), "AB", "NCCL 2.28.9"), REDUCE_NCCL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_gpu), cmocka_unit_test(test_no_nccl),    cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_shared_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
