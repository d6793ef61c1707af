// Which rows make which batch: orders are permutations that depend on seed and epoch alone, dealing is complete, even
// and repeatable, and the batches of all ranks together are the global batch, whatever the number of ranks.
#include <stdlib.h>
#include <string.h>

#include "datasets/sampler.h"
#include "kernels/philox.h"
#include "tests/text_fixture.h"
#include "trainer/batches.h"

static void assert_permutation(const int64_t *order, int64_t rows) {
    bool *seen = check_calloc((size_t)rows, sizeof *seen);
    for (int64_t i = 0; i < rows; i++) {
        assert_true(order[i] >= 0 && order[i] < rows && !seen[order[i]]);
        seen[order[i]] = true;
    }
    free(seen);
}

static void test_permutations(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 2, 3, 10, 257, 1000, 9589};
    const uint64_t seeds[] = {0, 1, 2023, 9000000000000000, UINT64_MAX};
    int64_t *order = check_calloc(9589, sizeof *order), *again = check_calloc(9589, sizeof *again);
    for (size_t s = 0; s < 7 * 5; s++) {
        const int64_t rows = sizes[s / 5];
        for (int64_t epoch = 0; epoch < 4; epoch++) {
            sampler_order(order, rows, true, seeds[s % 5], epoch);
            sampler_order(again, rows, true, seeds[s % 5], epoch);
            assert_permutation(order, rows);
            assert_memory_equal(order, again, (size_t)rows * sizeof *order);
            sampler_order(again, rows, false, seeds[s % 5], epoch);
            for (int64_t i = 0; i < rows; i++) { assert_int_equal(again[i], i); }
        }
    }
    free(order);
    free(again);
}

static void test_different(void **state) {
    (void)state;
    enum { ROWS = 100, SEEDS = 6, EPOCHS = 6, ORDERS = SEEDS * EPOCHS };
    static int64_t orders[ORDERS][ROWS];
    const uint64_t seeds[SEEDS] = {0, 1, 2, (uint64_t)1 << 32, ((uint64_t)1 << 32) + 1, (uint64_t)1 << 52};
    for (int i = 0; i < ORDERS; i++) { sampler_order(orders[i], ROWS, true, seeds[i / EPOCHS], i % EPOCHS); }
    for (int i = 0; i < ORDERS; i++) {
        for (int j = 0; j < i; j++) { assert_memory_not_equal(orders[i], orders[j], sizeof orders[i]); }
    }
}

// Every row comes to every place about equally often.
static void test_uniform(void **state) {
    (void)state;
    enum { ROWS = 5, EPOCHS = 10000 };
    int count[ROWS][ROWS] = {0};
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t order[ROWS];
        sampler_order(order, ROWS, true, 2023, epoch);
        for (int i = 0; i < ROWS; i++) { count[i][order[i]]++; }
    }
    for (int i = 0; i < ROWS * ROWS; i++) {
        assert_in_range(count[i / ROWS][i % ROWS], 2000 - 200, 2000 + 200);  // five standard deviations
    }
}

static void check_deal(const int64_t *lengths, int count, int bins) {
    int32_t *bin_of = check_calloc((size_t)count, sizeof *bin_of), *again = check_calloc((size_t)count, sizeof *again);
    int64_t *load = check_calloc((size_t)bins, sizeof *load), total = 0, longest = 0, most = 0;
    memset(bin_of, 0xFF, (size_t)count * sizeof *bin_of);
    sampler_deal(bin_of, lengths, count, bins);
    sampler_deal(again, lengths, count, bins);
    assert_memory_equal(bin_of, again, (size_t)count * sizeof *bin_of);
    for (int i = 0; i < count; i++) {
        assert_in_range(bin_of[i], 0, bins - 1);
        load[bin_of[i]] += lengths[i];
        total += lengths[i];
        longest = lengths[i] > longest ? lengths[i] : longest;
    }
    for (int b = 0; b < bins; b++) { most = load[b] > most ? load[b] : most; }
    // Graham: at most 4/3 - 1/(3 bins) of the optimum; the optimum is below mean + longest. List scheduling: the bin
    // that is fullest was the emptiest before its last item.
    assert_true((double)most <= (double)total / bins * 4 / 3 + (double)longest);
    assert_true(most <= total / bins + longest);
    free(load);
    free(bin_of);
    free(again);
}

static void test_deal(void **state) {
    (void)state;
    int64_t lengths[200];
    for (uint32_t trial = 0; trial < 300; trial++) {
        const int count = (int)(philox(trial, 0, 0, 0, 1, 0).lane[0] % 200);
        for (int i = 0; i < count; i++) {
            const uint32_t bits = philox(trial, (uint32_t)i, 0, 0, 2, 0).lane[0];
            lengths[i] = trial % 3 ? 2 + bits % 127 : 2 + bits % 2;
        }
        for (int bins = 1; bins <= 9; bins++) { check_deal(lengths, count, bins); }
    }
}

// Longest first (5 5 4 4 4 3 3 3), each to the emptiest bin; ties go to the smaller row and bin.
static void test_deal_rule(void **state) {
    (void)state;
    const int64_t lengths[] = {4, 5, 5, 4, 4, 3, 3, 3};
    const int32_t expected[] = {2, 0, 1, 2, 0, 1, 1, 2};
    int32_t bin_of[8];
    sampler_deal(bin_of, lengths, 8, 3);
    assert_memory_equal(bin_of, expected, sizeof expected);
}

enum { MAX_ROWS = 103 };

static Reviews make_reviews(int64_t rows) {
    Reviews reviews = {.rows = rows};
    for (int64_t i = 0; i < rows; i++) { reviews.token_count += 2 + i * 37 % 50; }
    reviews_alloc(&reviews);
    for (int64_t i = 0; i < rows; i++) {
        reviews.offsets[i + 1] = reviews.offsets[i] + 2 + i * 37 % 50;
        reviews.labels[i] = (int32_t)(i % 2);
        for (int64_t t = reviews.offsets[i]; t < reviews.offsets[i + 1]; t++) { reviews.tokens[t] = (int32_t)(t % 61); }
    }
    return reviews;
}

// Marks the rows of one rank's micro-batches of a step and checks that they are within what the epoch announced.
static void take_step(Batches *batches, int64_t step, int most_sequences, int most_tokens, int *taken) {
    batches_deal(batches, step);
    for (int micro = 0; micro < batches->micro_batches; micro++) {
        int count;
        int64_t tokens = 0;
        const int64_t *rows = batches_micro(batches, step, micro, &count);
        for (int i = 0; i < count; i++) {
            taken[rows[i]]++;
            tokens += batches->reviews->offsets[rows[i] + 1] - batches->reviews->offsets[rows[i]];
        }
        assert_true(count <= most_sequences && tokens <= most_tokens);
    }
}

static void check_batches(const Reviews *reviews, int64_t batch_size, int micro_batches, int size) {
    Batches ranks[5];
    int sequences[5], tokens[5];
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        for (int r = 0; r < size; r++) {
            batches_init(&ranks[r], reviews, batch_size, micro_batches, r, size, true, 2023);
            batches_epoch(&ranks[r], epoch, &sequences[r], &tokens[r]);
        }
        int seen[MAX_ROWS] = {0};
        assert_int_equal(ranks[0].steps, (reviews->rows + batch_size - 1) / batch_size);
        for (int64_t step = 0; step < ranks[0].steps; step++) {
            int taken[MAX_ROWS] = {0}, wanted[MAX_ROWS] = {0}, count;
            const int64_t *rows, left = reviews->rows - step * batch_size;
            batches_global(&ranks[size - 1], step, &rows, &count);
            assert_int_equal(count, left < batch_size ? left : batch_size);
            for (int i = 0; i < count; i++) { wanted[rows[i]] = 1; }
            for (int r = 0; r < size; r++) { take_step(&ranks[r], step, sequences[r], tokens[r], taken); }
            assert_memory_equal(taken, wanted, sizeof taken);
            for (int64_t i = 0; i < reviews->rows; i++) { seen[i] += taken[i]; }
        }
        for (int64_t i = 0; i < reviews->rows; i++) { assert_int_equal(seen[i], 1); }
        for (int r = 0; r < size; r++) { batches_free(&ranks[r]); }
    }
}

static void test_batches(void **state) {
    (void)state;
    const int64_t row_counts[] = {1, 16, 17, MAX_ROWS}, batch_sizes[] = {1, 3, 16, 100, 1 << 20};
    for (int i = 0; i < 4 * 5; i++) {
        Reviews reviews = make_reviews(row_counts[i / 5]);
        for (int size = 1; size <= 5; size++) {
            for (int micro = 1; micro <= 3; micro++) { check_batches(&reviews, batch_sizes[i % 5], micro, size); }
        }
        reviews_free(&reviews);
    }
}

static void test_fill(void **state) {
    (void)state;
    Reviews reviews = make_reviews(10);
    int32_t word_row[61];
    for (int32_t i = 0; i < 61; i++) { word_row[i] = 60 - i; }
    const int64_t rows[] = {7, 2, 9};
    Batch batch;
    batch_alloc(&batch, 3, 200);
    batch_fill(&batch, &reviews, word_row, rows, 3);
    assert_int_equal(batch.B, 3);
    int t = 0;
    for (int b = 0; b < 3; b++) {
        const int64_t begin = reviews.offsets[rows[b]], length = reviews.offsets[rows[b] + 1] - begin;
        assert_int_equal(batch.starts[b], t);
        assert_int_equal(batch.sequence_rows[b], rows[b]);
        assert_int_equal(batch.labels[b], reviews.labels[rows[b]]);
        for (int64_t i = 0; i < length; i++, t++) {
            assert_int_equal(batch.ids[t], 60 - reviews.tokens[begin + i]);
            assert_int_equal(batch.positions[t], i);
            assert_int_equal(batch.rows[t], rows[b]);
        }
    }
    assert_int_equal(batch.starts[3], t);
    assert_int_equal(batch.T, t);
    batch_fill(&batch, &reviews, NULL, rows, 1);
    assert_int_equal(batch.ids[0], reviews.tokens[reviews.offsets[7]]);
    batch_free(&batch);
    reviews_free(&reviews);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutations), cmocka_unit_test(test_different), cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_deal),         cmocka_unit_test(test_deal_rule), cmocka_unit_test(test_batches),
        cmocka_unit_test(test_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
