// See split.h. NumPy froze RandomState's stream, so this small copy of it (seeding after Knuth, MT19937, bounded
// numbers by masked rejection, Fisher-Yates from the end) stays equal to it for ever.
#include "datasets/split.h"

#include <math.h>
#include <stdlib.h>

enum { STATE_WORDS = 624, STATE_SHIFT = 397 };

typedef struct {
    uint32_t words[STATE_WORDS];
    int used;
} MersenneTwister;

static void seed_twister(MersenneTwister *twister, uint32_t seed) {
    twister->words[0] = seed;
    for (uint32_t i = 1; i < STATE_WORDS; i++) {
        uint32_t previous = twister->words[i - 1];
        twister->words[i] = 1812433253u * (previous ^ (previous >> 30)) + i;
    }
    twister->used = STATE_WORDS;
}

static void renew_words(uint32_t *words) {
    for (int i = 0; i < STATE_WORDS; i++) {
        uint32_t mixed = (words[i] & 0x80000000u) | (words[(i + 1) % STATE_WORDS] & 0x7fffffffu);
        words[i] = words[(i + STATE_SHIFT) % STATE_WORDS] ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0dfu : 0);
    }
}

static uint32_t next_number(MersenneTwister *twister) {
    if (twister->used == STATE_WORDS) {
        renew_words(twister->words);
        twister->used = 0;
    }
    uint32_t number = twister->words[twister->used++];
    number ^= number >> 11;
    number ^= (number << 7) & 0x9d2c5680u;
    number ^= (number << 15) & 0xefc60000u;
    return number ^ (number >> 18);
}

// Uniform in 0 .. last, last > 0.
static uint32_t next_bounded(MersenneTwister *twister, uint32_t last) {
    uint32_t mask = UINT32_MAX >> __builtin_clz(last), number;
    do { number = next_number(twister) & mask; } while (number > last);
    return number;
}

void split_permutation(int64_t *order, int64_t count, uint32_t seed) {
    // NumPy draws 64-bit numbers for more.
    CHECK(count <= UINT32_MAX);
    MersenneTwister twister;
    seed_twister(&twister, seed);
    for (int64_t i = 0; i < count; i++) { order[i] = i; }
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = next_bounded(&twister, (uint32_t)i), swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

bool split_sizes(int64_t *train, int64_t *validation, int64_t rows, double test_size, Error *error) {
    const bool valid = test_size >= 0 && test_size < 1;
    *validation = valid ? (int64_t)ceil(test_size * (double)rows) : 0;
    *train = rows - *validation;
    if (!valid) { return error_set(error, EX_CONFIG, "test size %g: expected at least 0 and less than 1", test_size); }
    if (*train <= 0) {
        return error_set(error, EX_CONFIG, "%lld rows with test size %g leave no row to train on", (long long)rows,
                         test_size);
    }
    return true;
}

bool split_rows(int64_t *train, int64_t *validation, int64_t rows, double test_size, uint32_t seed, Error *error) {
    int64_t train_count, validation_count;
    if (!split_sizes(&train_count, &validation_count, rows, test_size, error)) { return false; }
    int64_t *order = check_calloc((size_t)rows, sizeof *order);
    split_permutation(order, rows, seed);
    for (int64_t i = 0; i < validation_count; i++) { validation[i] = order[i]; }
    for (int64_t i = 0; i < train_count; i++) { train[i] = order[validation_count + i]; }
    free(order);
    return true;
}
