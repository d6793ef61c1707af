// The tokenizer against Hugging Face's BertTokenizer (fixtures/make_tokenizer.py): difficult strings id for id, the
// basic tokens of all code points by hash, and, where ../shared lies beside the project, the real reviews.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/csv.h"
#include "datasets/file.h"
#include "datasets/tokenizer.h"
#include "tests/text_fixture.h"

static TokenizerOptions parse_options(const char *digits) {
    return (TokenizerOptions){.do_lower_case = digits[0] == '1',
                              .tokenize_chinese_chars = digits[1] == '1',
                              .strip_accents = digits[2] == '1'};
}

static void open_tokenizer(Tokenizer *tokenizer, const char *path) {
    Error error;
    if (!tokenizer_open(tokenizer, path, &error)) { fail_msg("%s", error.text); }
}

static void check_string(Tokenizer *tokenizer, char *line, int number) {
    tokenizer->options = parse_options(strsep(&line, "\t"));
    int max_length = (int)strtol(strsep(&line, "\t"), NULL, 10);
    char *text = strsep(&line, "\t");
    size_t length = fixture_unhex(text);
    int32_t ids[512];
    int count = tokenizer_encode(tokenizer, text, length, max_length, ids);
    for (int i = 0; i < count; i++) {
        const char *expected = strsep(&line, " ");
        if (!expected || strtol(expected, NULL, 10) != ids[i]) { fail_msg("line %d: id %d differs", number, i); }
    }
    if (line) { fail_msg("line %d: more than %d ids", number, count); }
}

static void test_strings(void **state) {
    (void)state;
    Tokenizer tokenizer;
    open_tokenizer(&tokenizer, BERTUNE_FIXTURES "/tokenizer_vocab.txt");
    char *fixture = fixture_read("tokenizer_strings.tsv"), *rest = fixture;
    int number = 0;
    for (char *line; (line = strsep(&rest, "\n")) && rest;) { check_string(&tokenizer, line, ++number); }
    assert_int_equal(number, 2500);
    free(fixture);
    tokenizer_free(&tokenizer);
}

typedef struct {
    char *bytes;
    size_t length, capacity;
} Lines;

static bool append_line(void *context, const char *bytes, size_t length) {
    Lines *lines = context;
    if (lines->length + length + 1 > lines->capacity) {
        lines->capacity = 2 * (lines->capacity + length + 1);
        lines->bytes = check_realloc(lines->bytes, lines->capacity, 1);
    }
    memcpy(lines->bytes + lines->length, bytes, length);
    lines->bytes[lines->length + length] = '\n';
    lines->length += length + 1;
    return true;
}

static void encode_utf8(char out[5], int c) {
    const int lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    int bytes = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = bytes - 1; i > 0; i--, c >>= 6) { out[i] = (char)(0x80 | (c & 0x3F)); }
    out[0] = (char)(lead[bytes] | c);
    out[bytes] = '\0';
}

static void append_words(Lines *lines, const TokenizerOptions *options, int c) {
    char text[128], u[5];
    encode_utf8(u, c);
    int length = snprintf(text, sizeof text,
                          "%s a%sb E%s %s\u0301 Q\u0315%s\u0323\u1ab0\u0345"
                          "z\n",
                          u, u, u, u, u);
    // U+0000 ends a C string, but not the text: its five places are filled by hand.
    if (c == 0) { length = (int)(sizeof "\0 a\0b E\0 \0\u0301 Q\u0315\0\u0323\u1ab0\u0345z\n" - 1); }
    const char *source = c ? text : "\0 a\0b E\0 \0\u0301 Q\u0315\0\u0323\u1ab0\u0345z\n";
    tokenizer_split_words(options, source, (size_t)length, append_line, lines);
}

static void test_code_points(void **state) {
    (void)state;
    char *fixture = fixture_read("tokenizer_code_points.tsv"), *rest = fixture;
    const char *header = strsep(&rest, "\n");
    TokenizerOptions options[4];
    for (int i = 0; i < 4; i++) { options[i] = parse_options(strchr(header, '\t') + 1 + 4 * i); }
    Lines lines = {0};
    int blocks = 0;
    for (char *line; (line = strsep(&rest, "\n")) && rest; blocks++) {
        int first = (int)strtol(strsep(&line, "\t"), NULL, 16);
        for (int i = 0; i < 4; i++) {
            lines.length = 0;
            for (int c = first; c < first + 4096; c++) {
                if (c < 0xD800 || c > 0xDFFF) { append_words(&lines, &options[i], c); }
            }
            char hex[65];
            sha256_hex(hex, lines.length ? lines.bytes : "", lines.length);
            if (memcmp(hex, strsep(&line, "\t"), 16)) {
                fail_msg("U+%04X .. U+%04X, options %d", first, first + 4095, i);
            }
        }
    }
    assert_int_equal(blocks, 0x110000 / 4096);
    free(lines.bytes);
    free(fixture);
}

static void test_reviews(void **state) {
    (void)state;
    if (access(BERTUNE_SHARED, F_OK) != 0) {
        print_message("skipped: no folder %s with the real reviews\n", BERTUNE_SHARED);
        skip();
    }
    Tokenizer tokenizer;
    open_tokenizer(&tokenizer, BERTUNE_SHARED "/models/bert-mini/vocab.txt");
    const char *path = BERTUNE_SHARED "/data/waimai_10k.csv";
    char *text;
    size_t length, count = 0;
    Error error;
    assert_true(file_read(&text, &length, path, 16 << 20, &error));
    uint16_t *ids = check_calloc(length, sizeof *ids);
    Csv csv;
    csv_init(&csv, path, text, length);
    assert_int_equal(csv_next(&csv, &error), CSV_RECORD);
    while (csv_next(&csv, &error) == CSV_RECORD) {
        int32_t row[128];
        int row_count = tokenizer_encode(&tokenizer, csv.fields[1], csv.lengths[1], 128, row);
        for (int i = 0; i < row_count; i++) { ids[count++] = (uint16_t)row[i]; }
    }
    char hex[65];
    sha256_hex(hex, ids, count * sizeof *ids);
    assert_int_equal(count, 316872);
    assert_string_equal(hex, "0de6bd89c23707b64140ebcb3d71308d224da093a0f23ff2939892b78deb14cf");
    csv_free(&csv);
    free(ids);
    free(text);
    tokenizer_free(&tokenizer);
}

// A million marks of two classes and a million letters: neither may cost more than n log n.
static void test_long_texts(void **state) {
    (void)state;
    enum { LENGTH = 2000000 };
    Tokenizer tokenizer;
    open_tokenizer(&tokenizer, BERTUNE_FIXTURES "/tokenizer_vocab.txt");
    char *text = check_calloc(LENGTH, 1);
    int32_t ids[8];
    memset(text, 'a', LENGTH);
    assert_int_equal(tokenizer_encode(&tokenizer, text, LENGTH, 8, ids), 3);
    assert_int_equal(ids[1], tokenizer.vocabulary.unk);
    for (size_t i = 0; i < LENGTH; i += 2) { memcpy(text + i, i % 4 ? "\u0301" : "\u0323", 2); }
    assert_int_equal(tokenizer_encode(&tokenizer, text, LENGTH, 8, ids), 2);
    assert_int_equal(tokenizer_encode(&tokenizer, "", 0, 2, ids), 2);
    free(text);
    tokenizer_free(&tokenizer);
}

// Opens a copy of the vocabulary beside a tokenizer_config.json with that content.
static bool open_with_config(Tokenizer *tokenizer, const char *config, Error *error) {
    char folder[] = "/tmp/bertune-tokenizer-XXXXXX", vocabulary[64], path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(vocabulary, sizeof vocabulary, "%s/vocab.txt", folder);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    char *text = fixture_read("tokenizer_vocab.txt");
    assert_true(file_write(vocabulary, text, strlen(text), error) && file_write(path, config, strlen(config), error));
    bool ok = tokenizer_open(tokenizer, vocabulary, error);
    free(text);
    directory_remove(folder);
    return ok;
}

static void test_config(void **state) {
    (void)state;
    const struct {
        const char *config;
        bool lower, chinese, strip;
    } good[] = {
        {"{}", true, true, true},
        {"{\"do_lower_case\": false, \"strip_accents\": null, \"model_max_length\": 512}", false, true, false},
        {"{\"do_lower_case\": true, \"strip_accents\": false}", true, true, false},
        {"{\"do_lower_case\": false, \"strip_accents\": true, \"tokenize_chinese_chars\": false}", false, false, true},
    };
    Tokenizer tokenizer;
    Error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(open_with_config(&tokenizer, good[i].config, &error));
        assert_int_equal(tokenizer.options.do_lower_case, good[i].lower);
        assert_int_equal(tokenizer.options.tokenize_chinese_chars, good[i].chinese);
        assert_int_equal(tokenizer.options.strip_accents, good[i].strip);
        tokenizer_free(&tokenizer);
    }
    const char *bad[][2] = {
        {"{\"do_lower_case\": 1}", "tokenizer_config.json: do_lower_case: expected true or false"},
        {"{\"do_lower_case\": null}", "do_lower_case: expected true or false"},
        {"{\"strip_accents\": \"no\"}", "strip_accents: expected true or false"},
        {"[]", "tokenizer_config.json: expected a JSON object"},
        {"{\n\"a\": 1,\n\"a\": 2}", "tokenizer_config.json:3: duplicate object key"},
        {"{", "tokenizer_config.json:1: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(open_with_config(&tokenizer, bad[i][0], &error));
        assert_error(&error, EX_DATAERR, bad[i][1]);
    }
    assert_false(tokenizer_open(&tokenizer, "/nonexistent/vocab.txt", &error));
    assert_error(&error, EX_NOINPUT, "/nonexistent/vocab.txt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),    cmocka_unit_test(test_code_points), cmocka_unit_test(test_reviews),
        cmocka_unit_test(test_long_texts), cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
