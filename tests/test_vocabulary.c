// Reading vocab.txt, with one case for every rule, and learning a vocabulary from texts.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/vocabulary_build.h"
#include "tests/text_fixture.h"

#define SPECIALS "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"

static void test_parse(void **state) {
    (void)state;
    const char *texts[] = {"[PAD]\nfoo\n[MASK]\n[SEP]\n[CLS]\n[UNK]\n##\xE5\xA5\xBD\n",
                           "[PAD]\r\nfoo\r\n[MASK]\r\n[SEP]\r\n[CLS]\r\n[UNK]\r\n##\xE5\xA5\xBD"};
    for (int i = 0; i < 2; i++) {
        Vocabulary vocabulary;
        Error error;
        assert_true(vocabulary_parse(&vocabulary, "v", texts[i], strlen(texts[i]), &error));
        assert_int_equal(vocabulary.size, 7);
        const int32_t specials[] = {vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask};
        const int32_t expected[] = {0, 5, 4, 3, 2};
        assert_memory_equal(specials, expected, sizeof expected);
        assert_string_equal(vocabulary.tokens[6], "##\xE5\xA5\xBD");
        assert_int_equal(vocabulary_find(&vocabulary, "foobar", 3), 1);
        assert_int_equal(vocabulary_find(&vocabulary, "foobar", 6), -1);
        assert_int_equal(vocabulary_find(&vocabulary, "fo", 2), -1);
        assert_int_equal(vocabulary_find(&vocabulary, "", 0), -1);
        vocabulary_free(&vocabulary);
    }
}

static void check_refused(const char *text, size_t length, const char *message) {
    Vocabulary vocabulary;
    Error error;
    assert_false(vocabulary_parse(&vocabulary, "v", text, length, &error));
    assert_error(&error, EX_DATAERR, message);
}

static void test_refused(void **state) {
    (void)state;
#define REFUSED(text, message) check_refused(text, sizeof(text) - 1, message)
    REFUSED("", "v: the token [PAD] is missing");
    REFUSED("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", "v: the token [MASK] is missing");
    REFUSED(SPECIALS "a\nb\na\n", "v:8: the token \"a\" is already on line 6");
    REFUSED(SPECIALS "a\na\r\n", "v:7: the token \"a\" is already on line 6");
    REFUSED(SPECIALS "a\n\nb\n", "v:7: an empty line");
    REFUSED(SPECIALS "\r\n", "v:6: an empty line");
    REFUSED(SPECIALS "a\rb\n", "v:6: a carriage return inside a token");
    REFUSED(SPECIALS "a\0\n", "v:6: a NUL byte");
    REFUSED(SPECIALS "a\n\xE5\xA5\n", "v:7: invalid UTF-8");
    REFUSED("\xEF\xBB\xBF" SPECIALS, "v:1: a byte order mark");
#undef REFUSED
    Vocabulary vocabulary;
    Error error;
    assert_false(vocabulary_read(&vocabulary, "/nonexistent/vocab.txt", &error));
    assert_error(&error, EX_NOINPUT, "/nonexistent/vocab.txt: ");
}

static char *build(const char *const *texts, int64_t count, int64_t size, size_t *length) {
    TokenizerOptions options = tokenizer_default_options();
    size_t *lengths = check_calloc((size_t)count, sizeof *lengths);
    for (int64_t i = 0; i < count; i++) { lengths[i] = strlen(texts[i]); }
    char *out;
    Error error;
    assert_true(vocabulary_build(&out, length, &options, texts, lengths, count, size, &error));
    free(lengths);
    return out;
}

static void check_built(const char *const *texts, int64_t count, int64_t size, const char *expected) {
    size_t length;
    char *out = build(texts, count, size, &length);
    if (length != strlen(expected) || memcmp(out, expected, length)) { fail_msg("built:\n%.*s", (int)length, out); }
    free(out);
}

static void test_build(void **state) {
    (void)state;
    // By hand: ab stands 4 times, abc 3 times, 好 and 吃 twice (ties to the smaller bytes); x y are never a pair twice.
    const char *texts[] = {"abc ab ABC", "好吃 好 吃", "abc xy", "[MASK] [CLS]"};
    check_built(texts, 4, 100, SPECIALS "a\nb\nc\n吃\n好\nx\ny\n##b\n##c\n##y\nab\nabc\n");
    check_built(texts, 0, 100, SPECIALS);
    // Two ways to the same piece make one token; the pair with the smaller name goes first.
    const char *ties[] = {"bb aa bb aa"};
    check_built(ties, 1, 100, SPECIALS "a\nb\n##a\n##b\naa\nbb\n");
    // A word too long for the tokenizer gives its characters only.
    char longest[303] = "";
    for (int i = 0; i < 100; i++) { memcpy(longest + 2 * i, "xy", 2); }
    const char *too_long[] = {longest};
    check_built(too_long, 1, 100, SPECIALS "x\ny\n##y\n##x\n");
}

// More characters than room: the most frequent ones stay, and what is built can be read.
static void test_build_size(void **state) {
    (void)state;
    char text[3 * 150 * 2 + 1] = "";
    for (int i = 0; i < 300; i++) {
        int c = 0x4E00 + (i < 150 ? i : i - 150 < 95 ? i - 150 : 149);
        char character[4] = {(char)(0xE0 | c >> 12), (char)(0x80 | (c >> 6 & 0x3F)), (char)(0x80 | (c & 0x3F)), 0};
        strcat(text, character);
    }
    const char *texts[] = {text};
    size_t length;
    char *out = build(texts, 1, 100, &length);
    Vocabulary vocabulary;
    Error error;
    assert_true(vocabulary_parse(&vocabulary, "built", out, length, &error));
    assert_int_equal(vocabulary.size, 100);
    assert_string_equal(vocabulary.tokens[5], "\xE4\xBA\x95");  // U+4E95, the 56 times repeated 149th
    assert_string_equal(vocabulary.tokens[6], "\xE4\xB8\x80");
    vocabulary_free(&vocabulary);
    free(out);
    TokenizerOptions options = tokenizer_default_options();
    assert_false(vocabulary_build(&out, &length, &options, NULL, NULL, 0, 99, &error));
    assert_error(&error, EX_USAGE, "expected at least 100");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_build),
        cmocka_unit_test(test_build_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
