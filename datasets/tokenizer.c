// See tokenizer.h. Characters stream through the stages of Hugging Face's BertNormalizer and BertPreTokenizer one at a
// time (clean, space CJK, decompose, order, strip, lower-case, split), so a text needs no normalised copy and encoding
// ends as soon as max_length ids are there.
#include "datasets/tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "datasets/file.h"
#include "datasets/unicode.h"
#include "datasets/utf8.h"

enum { CONFIG_LIMIT = 1 << 20, WORD_CHARACTERS_MAX = 100, CHARACTER_BYTES_MAX = 4, SPECIAL_TOKENS = 5 };

// In the order of the ids in special_id.
static const char *const special_tokens[SPECIAL_TOKENS] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

typedef struct {
    TokenizerOptions options;
    bool (*on_word)(void *context, const char *bytes, size_t length);
    bool (*on_special)(void *context, int special);
    void *context;
    bool stopped;  // a callback returned false
    char *word;    // the word being collected
    size_t word_length, word_capacity;
    uint64_t *marks;  // characters that wait for their canonical order, see queue_mark
    size_t mark_count, mark_capacity;
} Splitter;

static void end_word(Splitter *splitter) {
    if (splitter->word_length && !splitter->stopped) {
        splitter->stopped = !splitter->on_word(splitter->context, splitter->word, splitter->word_length);
    }
    splitter->word_length = 0;
}

static void append_character(Splitter *splitter, int32_t c) {
    if (splitter->word_capacity - splitter->word_length < CHARACTER_BYTES_MAX) {
        splitter->word_capacity = splitter->word_capacity ? 2 * splitter->word_capacity : 256;
        splitter->word = check_realloc(splitter->word, splitter->word_capacity, 1);
    }
    utf8proc_uint8_t *end = (utf8proc_uint8_t *)splitter->word + splitter->word_length;
    splitter->word_length += (size_t)utf8proc_encode_char(c, end);
}

// A character in its final place: stripped, or lower-cased and added to its word. No case mapping changes the class.
static void put_ordered(Splitter *splitter, int32_t c) {
    UnicodeClass class = unicode_classify(c);
    if (class == UNICODE_MARK && splitter->options.strip_accents) { return; }
    if (class == UNICODE_PUNCTUATION) { end_word(splitter); }
    int32_t lower[UNICODE_LOWER_MAX] = {c};
    int count = splitter->options.do_lower_case ? unicode_lower(c, lower) : 1;
    for (int i = 0; i < count; i++) { append_character(splitter, lower[i]); }
    if (class == UNICODE_PUNCTUATION) { end_word(splitter); }
}

static int compare_marks(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void flush_marks(Splitter *splitter) {
    if (splitter->mark_count > 1) {
        qsort(splitter->marks, splitter->mark_count, sizeof *splitter->marks, compare_marks);
    }
    for (size_t i = 0; i < splitter->mark_count; i++) {
        put_ordered(splitter, (int32_t)(splitter->marks[i] & 0x1FFFFF));
    }
    splitter->mark_count = 0;
}

// The sort key is class, then position (35 bits), then the character, so that any sort is stable.
static void queue_mark(Splitter *splitter, int32_t c, int class) {
    if (splitter->mark_count == splitter->mark_capacity) {
        splitter->mark_capacity = splitter->mark_capacity ? 2 * splitter->mark_capacity : 32;
        splitter->marks = check_realloc(splitter->marks, splitter->mark_capacity, sizeof *splitter->marks);
    }
    uint64_t key = (uint64_t) class << 56 | (uint64_t)splitter->mark_count << 21 | (uint64_t)c;
    splitter->marks[splitter->mark_count++] = key;
}

static void put_character(Splitter *splitter, int32_t c) {
    if (!splitter->options.strip_accents) {
        put_ordered(splitter, c);
        return;
    }
    int32_t parts[UNICODE_DECOMPOSED_MAX];
    int count = unicode_decompose(c, parts);
    for (int i = 0; i < count; i++) {
        int class = unicode_combining_class(parts[i]);
        if (class) {
            queue_mark(splitter, parts[i], class);
        } else {
            flush_marks(splitter);
            put_ordered(splitter, parts[i]);
        }
    }
}

static void put_space(Splitter *splitter) {
    flush_marks(splitter);
    end_word(splitter);
}

static void split_segment(Splitter *splitter, const char *text, size_t length) {
    for (size_t position = 0; position < length && !splitter->stopped;) {
        int32_t c;
        position += utf8_decode(text + position, length - position, &c);
        bool chinese = splitter->options.tokenize_chinese_chars && unicode_is_chinese(c);
        UnicodeClass class = unicode_classify(c);
        if (class == UNICODE_REMOVED) { continue; }
        if (class == UNICODE_SPACE || chinese) { put_space(splitter); }
        if (class == UNICODE_SPACE) { continue; }
        put_character(splitter, c);
        if (chinese) { put_space(splitter); }
    }
    put_space(splitter);
}

// The first special token at or behind text: its index, its position in *at; or -1 and *at = length.
static int find_special(const char *text, size_t length, size_t *at) {
    for (const char *open = text, *end = text + length; open < end && (open = memchr(open, '[', (size_t)(end - open)));
         open++) {
        for (int special = 0; special < SPECIAL_TOKENS; special++) {
            size_t bytes = strlen(special_tokens[special]);
            if (bytes <= (size_t)(end - open) && memcmp(open, special_tokens[special], bytes) == 0) {
                *at = (size_t)(open - text);
                return special;
            }
        }
    }
    *at = length;
    return -1;
}

// Special tokens are found in the raw text and what lies between them is normalised on its own, as the reference does.
static void split_text(Splitter *splitter, const char *text, size_t length) {
    for (size_t position = 0; position < length && !splitter->stopped;) {
        size_t before;
        int special = find_special(text + position, length - position, &before);
        split_segment(splitter, text + position, before);
        position += before;
        if (special >= 0) {
            position += strlen(special_tokens[special]);
            if (!splitter->stopped) { splitter->stopped = !splitter->on_special(splitter->context, special); }
        }
    }
    free(splitter->word);
    free(splitter->marks);
}

static bool skip_special(void *context, int special) {
    (void)context, (void)special;
    return true;
}

void tokenizer_split_words(const TokenizerOptions *options, const char *text, size_t length,
                           bool (*word)(void *context, const char *bytes, size_t length), void *context) {
    Splitter splitter = {.options = *options, .on_word = word, .on_special = skip_special, .context = context};
    split_text(&splitter, text, length);
}

// Where encoded ids go.
typedef struct {
    const Vocabulary *vocabulary;
    int32_t *ids;
    int count, room;
} Encoding;

static bool append_id(Encoding *encoding, int32_t id) {
    if (encoding->count < encoding->room) { encoding->ids[encoding->count++] = id; }
    return encoding->count < encoding->room;
}

static bool encode_special(void *context, int special) {
    Encoding *encoding = context;
    const Vocabulary *vocabulary = encoding->vocabulary;
    const int32_t special_id[SPECIAL_TOKENS] = {vocabulary->pad, vocabulary->unk, vocabulary->cls, vocabulary->sep,
                                                vocabulary->mask};
    return append_id(encoding, special_id[special]);
}

static bool begins_character(char byte) { return ((unsigned char)byte & 0xC0) != 0x80; }

// Greedy longest match first; the number of pieces, or 0 when some part of the word is not in the vocabulary.
static int match_pieces(const Vocabulary *vocabulary, const char *word, size_t length, int32_t *pieces) {
    // Two bytes in front of the word take the ## of the second piece, consumed bytes that of later ones.
    char buffer[2 + WORD_CHARACTERS_MAX * CHARACTER_BYTES_MAX];
    char *text = memcpy(buffer + 2, word, length);
    int count = 0;
    for (size_t start = 0, end; start < length; start = end) {
        size_t prefix = start ? 2 : 0;
        if (prefix) { memcpy(text + start - prefix, "##", prefix); }
        int32_t id = -1;
        for (end = length; end > start; end--) {
            if (end < length && !begins_character(text[end])) { continue; }
            id = vocabulary_find(vocabulary, text + start - prefix, end - start + prefix);
            if (id >= 0) { break; }
        }
        if (id < 0) { return 0; }
        pieces[count++] = id;
    }
    return count;
}

static bool encode_word(void *context, const char *bytes, size_t length) {
    Encoding *encoding = context;
    size_t characters = 0;
    for (size_t i = 0; i < length && characters <= WORD_CHARACTERS_MAX; i++) {
        characters += begins_character(bytes[i]);
    }
    int32_t pieces[WORD_CHARACTERS_MAX];
    int count = characters <= WORD_CHARACTERS_MAX ? match_pieces(encoding->vocabulary, bytes, length, pieces) : 0;
    if (count == 0) { return append_id(encoding, encoding->vocabulary->unk); }
    bool more = true;
    for (int i = 0; i < count && more; i++) { more = append_id(encoding, pieces[i]); }
    return more;
}

int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t length, int max_length, int32_t *ids) {
    CHECK(max_length >= 2);
    const Vocabulary *vocabulary = &tokenizer->vocabulary;
    ids[0] = vocabulary->cls;
    Encoding encoding = {.vocabulary = vocabulary, .ids = ids + 1, .room = max_length - 2};
    Splitter splitter = {.options = tokenizer->options,
                         .on_word = encode_word,
                         .on_special = encode_special,
                         .context = &encoding,
                         .stopped = encoding.room == 0};
    split_text(&splitter, text, length);
    ids[encoding.count + 1] = vocabulary->sep;
    return encoding.count + 2;
}

TokenizerOptions tokenizer_default_options(void) {
    return (TokenizerOptions){.do_lower_case = true, .tokenize_chinese_chars = true, .strip_accents = true};
}

static bool read_flag(bool *value, const json_t *config, const char *key, const char *path, Error *error) {
    const json_t *found = json_object_get(config, key);
    if (!found) { return true; }
    if (!json_is_boolean(found)) { return error_set(error, EX_DATAERR, "%s: %s: expected true or false", path, key); }
    *value = json_is_true(found);
    return true;
}

static bool read_options(TokenizerOptions *options, const json_t *config, const char *path, Error *error) {
    if (!json_is_object(config)) { return error_set(error, EX_DATAERR, "%s: expected a JSON object", path); }
    if (!read_flag(&options->do_lower_case, config, "do_lower_case", path, error)) { return false; }
    if (!read_flag(&options->tokenize_chinese_chars, config, "tokenize_chinese_chars", path, error)) { return false; }
    options->strip_accents = options->do_lower_case;
    // Hugging Face writes null for "not given".
    if (json_is_null(json_object_get(config, "strip_accents"))) { return true; }
    return read_flag(&options->strip_accents, config, "strip_accents", path, error);
}

static bool read_config(TokenizerOptions *options, const char *path, Error *error) {
    char *text;
    size_t length;
    if (access(path, F_OK) != 0 && errno == ENOENT) { return true; }
    if (!file_read(&text, &length, path, CONFIG_LIMIT, error)) { return false; }
    json_error_t reason;
    json_t *config = json_loadb(text, length, JSON_REJECT_DUPLICATES, &reason);
    free(text);
    if (!config) { return error_set(error, EX_DATAERR, "%s:%d: %s", path, reason.line, reason.text); }
    bool ok = read_options(options, config, path, error);
    json_decref(config);
    return ok;
}

bool tokenizer_open(Tokenizer *tokenizer, const char *vocabulary_path, Error *error) {
    char directory[PATH_MAX], config_path[PATH_MAX];
    tokenizer->options = tokenizer_default_options();
    if (!vocabulary_read(&tokenizer->vocabulary, vocabulary_path, error)) { return false; }
    path_parent(directory, sizeof directory, vocabulary_path);
    path_join(config_path, sizeof config_path, directory, "tokenizer_config.json");
    if (read_config(&tokenizer->options, config_path, error)) { return true; }
    tokenizer_free(tokenizer);
    return false;
}

void tokenizer_free(Tokenizer *tokenizer) { vocabulary_free(&tokenizer->vocabulary); }
