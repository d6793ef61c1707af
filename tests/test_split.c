// The split, row for row against scikit-learn (fixtures/make_split.py).
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "datasets/split.h"
#include "tests/text_fixture.h"

static void check_split(double test_size, uint32_t seed, int64_t first, int64_t last, const char *expected) {
    Error error;
    int64_t *rows = check_calloc((size_t)((last - first + 1) * last), sizeof *rows), *out = rows;
    for (int64_t count = first; count <= last; count++) {
        int64_t train, validation;
        assert_true(split_sizes(&train, &validation, count, test_size, &error));
        assert_true(split_rows(out, out + train, count, test_size, seed, &error));
        out += count;
    }
    char hex[65];
    sha256_hex(hex, rows, (size_t)(out - rows) * sizeof *rows);
    if (strcmp(hex, expected)) {
        fail_msg("test size %g, seed %u, %lld .. %lld rows", test_size, seed, (long long)first, (long long)last);
    }
    free(rows);
}

static void test_rows(void **state) {
    (void)state;
    char *fixture = fixture_read("split.tsv"), *rest = fixture;
    int cases = 0;
    for (char *line; (line = strsep(&rest, "\n")) && rest; cases++) {
        double test_size = strtod(strsep(&line, "\t"), NULL);
        uint32_t seed = (uint32_t)strtoul(strsep(&line, "\t"), NULL, 10);
        int64_t first = strtoll(strsep(&line, "\t"), NULL, 10), last = strtoll(strsep(&line, "\t"), NULL, 10);
        check_split(test_size, seed, first, last, line);
    }
    assert_int_equal(cases, 180);
    free(fixture);
}

static void test_sizes(void **state) {
    (void)state;
    char *fixture = fixture_read("split_sizes.tsv"), *rest = fixture;
    for (char *line; (line = strsep(&rest, "\n")) && rest;) {
        double test_size = strtod(strsep(&line, "\t"), NULL);
        int64_t sizes[2999][2] = {0};
        Error error;
        for (int64_t rows = 2; rows <= 3000; rows++) {
            int64_t *both = sizes[rows - 2];
            if (!split_sizes(&both[0], &both[1], rows, test_size, &error)) { both[0] = both[1] = 0; }
        }
        char hex[65];
        sha256_hex(hex, sizes, sizeof sizes);
        if (strcmp(hex, line)) { fail_msg("test size %g", test_size); }
    }
    free(fixture);
}

static void test_permutation(void **state) {
    (void)state;
    const int64_t expected[10] = {8, 2, 5, 0, 3, 4, 1, 9, 6, 7};
    int64_t order[10];
    split_permutation(order, 10, 2023);
    assert_memory_equal(order, expected, sizeof order);
}

static void test_edges(void **state) {
    (void)state;
    Error error;
    int64_t train, validation;
    assert_true(split_sizes(&train, &validation, 7, 0, &error));
    assert_int_equal(train, 7);
    assert_int_equal(validation, 0);
    const double bad[] = {-0.1, 1, 1.5, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(split_sizes(&train, &validation, 10, bad[i], &error));
        assert_error(&error, EX_CONFIG, "expected at least 0 and less than 1");
    }
    assert_false(split_sizes(&train, &validation, 1, 0.2, &error));
    assert_error(&error, EX_CONFIG, "1 rows with test size 0.2 leave no row to train on");
    assert_false(split_sizes(&train, &validation, 0, 0, &error));
    assert_error(&error, EX_CONFIG, "0 rows");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
