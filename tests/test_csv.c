// The CSV parser: valid texts against Python's csv module (fixtures/make_csv.py), one case for every rule that can be
// broken, and every truncation of a difficult text, whose bytes end where the allocation ends so that ASan sees a slip.
#include <stdlib.h>
#include <string.h>

#include "datasets/csv.h"
#include "tests/text_fixture.h"

static void check_record(Csv *csv, char *expected, int number) {
    Error error;
    if (csv_next(csv, &error) != CSV_RECORD) { fail_msg("line %d of csv.tsv: a record is missing", number); }
    assert_int_equal(*expected++, '=');
    size_t count = 0;
    for (char *field; (field = strsep(&expected, "|")); count++) {
        size_t length = fixture_unhex(field);
        if (count >= csv->count || csv->lengths[count] != length || memcmp(csv->fields[count], field, length + 1)) {
            fail_msg("line %d of csv.tsv: field %zu differs", number, count);
        }
    }
    assert_int_equal(csv->count, count);
}

static void test_against_python(void **state) {
    (void)state;
    char *fixture = fixture_read("csv.tsv"), *rest = fixture;
    int number = 0;
    for (char *line; (line = strsep(&rest, "\n")) && rest;) {
        char *text = strsep(&line, "\t"), *record;
        Csv csv;
        Error error;
        csv_init(&csv, "csv", text, fixture_unhex(text));
        number++;
        while ((record = strsep(&line, "\t"))) { check_record(&csv, record, number); }
        if (csv_next(&csv, &error) != CSV_END) { fail_msg("line %d of csv.tsv: too many records", number); }
        csv_free(&csv);
    }
    assert_int_equal(number, 1500);
    free(fixture);
}

// Reads `text`: its first record must be damaged as told, and the next one must be the field "ok" on `next_line`.
static void check_damage(const char *text, size_t length, const char *message, int next_line) {
    Csv csv;
    Error error;
    csv_init(&csv, "file", text, length);
    assert_int_equal(csv_next(&csv, &error), CSV_BAD);
    assert_error(&error, EX_DATAERR, message);
    assert_int_equal(csv_next(&csv, &error), CSV_RECORD);
    assert_string_equal(csv.fields[0], "ok");
    assert_int_equal(csv.record_line, next_line);
    csv_free(&csv);
}

static void test_damage(void **state) {
    (void)state;
#define DAMAGE(text, message, next_line) check_damage(text, sizeof(text) - 1, message, next_line)
    DAMAGE("a,b\"c\"\nok", "file:1: a quote inside a field", 2);
    DAMAGE(" \"c\"\nok", "file:1: a quote inside a field", 2);
    DAMAGE("\"a\"b,c\nok", "file:1: text behind the closing quote", 2);
    DAMAGE("\n\n\"a\nb\"c\nok", "file:4: text behind the closing quote", 5);
    DAMAGE("\"a\"\r,c\nok", "file:1: text behind the closing quote", 2);
    DAMAGE("\"a\nok", "file:1: a quoted field that is never closed", 2);
    DAMAGE("x,\"a\"\"\nok", "file:1: a quoted field that is never closed", 2);
    DAMAGE("a\rb\nok", "file:1: a carriage return", 2);
    DAMAGE("\r\r\nok", "file:1: a carriage return", 2);
    DAMAGE("a,\0b\nok", "file:1: a NUL byte", 2);
    DAMAGE("\"a\n\0\n\"\nok", "file:2: a NUL byte", 4);
    DAMAGE("a,\xE4\xB8\nok", "file:1: invalid UTF-8", 2);
    DAMAGE("\"a\n\n\xED\xA0\x80\"\nok", "file:3: invalid UTF-8", 4);
    DAMAGE("\xC0\xAF\r\nok", "file:1: invalid UTF-8", 2);
    DAMAGE("\xF4\x90\x80\x80\nok", "file:1: invalid UTF-8", 2);
#undef DAMAGE
}

static void test_lines(void **state) {
    (void)state;
    const char text[] =
        "\xEF\xBB\xBF"
        "a,b\r\n\r\n\"x\ny\",\n\nlast";
    const int64_t lines[] = {1, 3, 6};
    const size_t counts[] = {2, 2, 1};
    Csv csv;
    Error error;
    csv_init(&csv, "file", text, sizeof text - 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(csv_next(&csv, &error), CSV_RECORD);
        assert_int_equal(csv.record_line, lines[i]);
        assert_int_equal(csv.count, counts[i]);
    }
    assert_string_equal(csv.fields[0], "last");
    assert_int_equal(csv_next(&csv, &error), CSV_END);
    csv_free(&csv);
}

static void test_truncations(void **state) {
    (void)state;
    const char text[] = "\xEF\xBB\xBFl,\"\xE5\xA5\xBD,\"\"x\"\"\"\r\n\"\r\n\",\xF0\x9F\x98\x80\n\0,\"a\"b\n";
    for (size_t length = 0; length < sizeof text; length++) {
        char *copy = check_calloc(length, 1);
        memcpy(copy, text, length);
        Csv csv;
        Error error;
        csv_init(&csv, "file", copy, length);
        int results = 0;
        while (csv_next(&csv, &error) != CSV_END) { results++; }
        assert_in_range(results, 0, 5);
        csv_free(&csv);
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_python),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_truncations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
