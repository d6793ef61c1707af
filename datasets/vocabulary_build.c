// See vocabulary_build.h. Byte-pair merging over the distinct words: every word is a row of symbols, every adjacent
// pair has a count and the list of words it was seen in. A heap yields the most frequent pair; only words that hold it
// are touched, so the work follows the merges made, not the size of the text.
#include "datasets/vocabulary_build.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/utf8.h"

enum { SIZE_MIN = 100, WORD_CHARACTERS_MAX = 100, PIECE_BYTES_MAX = 2 + 4 * WORD_CHARACTERS_MAX, COUNT_MIN = 2 };

static const char specials[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
enum { SPECIALS = 5 };

// Byte strings, numbered in the order in which they first appear.
typedef struct {
    char *bytes;
    size_t bytes_capacity;
    size_t *starts;  // starts[i + 1] is the end of string i
    int64_t count;
    int64_t *buckets;  // open addressing, at most half full, -1 empty
    size_t bucket_count;
} Strings;

typedef struct {
    int64_t *symbols;  // NULL when the word is too long for the tokenizer
    int64_t length, count;
} Word;

typedef struct {
    int64_t left, right;  // symbols
    int64_t count;        // in all words as they are now
    int64_t queued;       // its count in the heap entry that is valid, 0 without one
    int64_t newest;       // the newest of its occurrences, -1 without one
} Pair;

typedef struct {
    int64_t word, older;  // older: the occurrence before this one, -1 at the end
} Occurrence;

typedef struct {
    int64_t count, pair;
} Candidate;

typedef struct {
    Strings word_names, symbol_names, pair_names;
    Word *words;
    int64_t *symbol_counts;  // of the characters
    int64_t character_count;
    Pair *pairs;
    Occurrence *occurrences;
    int64_t occurrence_count;
    Candidate *heap;
    int64_t heap_count;
    int64_t *touched;  // pairs that the merge going on made more frequent
    int64_t touched_count;
} Learner;

// Room for one element more in an array that grows one by one: it doubles at the powers of two.
static void *grow(void *array, int64_t count, size_t size) {
    return count & (count - 1) ? array : check_realloc(array, count ? 2 * (size_t)count : 1, size);
}

static size_t string_length(const Strings *strings, int64_t i) { return strings->starts[i + 1] - strings->starts[i]; }

static const char *string_bytes(const Strings *strings, int64_t i) { return strings->bytes + strings->starts[i]; }

static int64_t *find_bucket(const Strings *strings, const char *bytes, size_t length) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) { hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u; }
    for (hash ^= hash >> 32;; hash++) {
        int64_t *bucket = &strings->buckets[hash & (strings->bucket_count - 1)];
        if (*bucket < 0) { return bucket; }
        if (string_length(strings, *bucket) == length && !memcmp(string_bytes(strings, *bucket), bytes, length)) {
            return bucket;
        }
    }
}

static void rehash(Strings *strings) {
    free(strings->buckets);
    strings->bucket_count = strings->bucket_count ? 2 * strings->bucket_count : 64;
    strings->buckets = check_calloc(strings->bucket_count, sizeof *strings->buckets);
    memset(strings->buckets, -1, strings->bucket_count * sizeof *strings->buckets);
    for (int64_t i = 0; i < strings->count; i++) {
        *find_bucket(strings, string_bytes(strings, i), string_length(strings, i)) = i;
    }
}

// The number of the string; a new one has the number that was strings->count.
static int64_t intern(Strings *strings, const char *bytes, size_t length) {
    if (2 * (size_t)strings->count >= strings->bucket_count) { rehash(strings); }
    int64_t *bucket = find_bucket(strings, bytes, length);
    if (*bucket >= 0) { return *bucket; }
    if (!strings->starts) { strings->starts = check_calloc(1, sizeof *strings->starts); }
    size_t start = strings->starts[strings->count];
    if (length > strings->bytes_capacity - start) {
        strings->bytes_capacity = 2 * (start + length);
        strings->bytes = check_realloc(strings->bytes, strings->bytes_capacity, 1);
    }
    memcpy(strings->bytes + start, bytes, length);
    *bucket = strings->count++;
    strings->starts = grow(strings->starts, strings->count, sizeof *strings->starts);
    strings->starts[strings->count] = start + length;
    return *bucket;
}

static void free_strings(Strings *strings) {
    free(strings->bytes);
    free(strings->starts);
    free(strings->buckets);
}

static bool count_word(void *context, const char *bytes, size_t length) {
    Learner *learner = context;
    int64_t known = learner->word_names.count, word = intern(&learner->word_names, bytes, length);
    if (word == known) {
        learner->words = grow(learner->words, known, sizeof *learner->words);
        learner->words[word] = (Word){0};
    }
    learner->words[word].count++;
    return true;
}

static int64_t count_symbol(Learner *learner, const char *bytes, size_t length, int64_t count) {
    int64_t known = learner->symbol_names.count, symbol = intern(&learner->symbol_names, bytes, length);
    if (symbol == known) {
        learner->symbol_counts = grow(learner->symbol_counts, known, sizeof *learner->symbol_counts);
        learner->symbol_counts[symbol] = 0;
    }
    learner->symbol_counts[symbol] += count;
    return symbol;
}

// Counts the characters of a word and, unless it is too long, makes them its symbols.
static void spell_word(Learner *learner, int64_t index) {
    Word *word = &learner->words[index];
    const char *bytes = string_bytes(&learner->word_names, index);
    size_t length = string_length(&learner->word_names, index);
    int64_t symbols[WORD_CHARACTERS_MAX];
    for (size_t position = 0, taken; position < length; position += taken) {
        int32_t code_point;
        taken = utf8_decode(bytes + position, length - position, &code_point);
        int64_t symbol = count_symbol(learner, bytes + position, taken, word->count);
        if (position) {
            char inside[2 + 4] = "##";
            memcpy(inside + 2, bytes + position, taken);
            symbol = count_symbol(learner, inside, 2 + taken, word->count);
        }
        if (word->length < WORD_CHARACTERS_MAX) { symbols[word->length] = symbol; }
        word->length++;
    }
    if (word->length > WORD_CHARACTERS_MAX) { return; }
    word->symbols = check_calloc((size_t)word->length, sizeof *word->symbols);
    memcpy(word->symbols, symbols, (size_t)word->length * sizeof *word->symbols);
}

static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static size_t merged_name(const Learner *learner, int64_t pair, char name[PIECE_BYTES_MAX]) {
    int64_t left = learner->pairs[pair].left, right = learner->pairs[pair].right;
    size_t left_length = string_length(&learner->symbol_names, left);
    size_t right_length = string_length(&learner->symbol_names, right) - 2;  // without its ##
    memcpy(name, string_bytes(&learner->symbol_names, left), left_length);
    memcpy(name + left_length, string_bytes(&learner->symbol_names, right) + 2, right_length);
    return left_length + right_length;
}

// Whether a is merged before b: the more frequent one, the smaller name, the shorter left part.
static bool precedes(const Learner *learner, Candidate a, Candidate b) {
    if (a.count != b.count) { return a.count > b.count; }
    char a_name[PIECE_BYTES_MAX], b_name[PIECE_BYTES_MAX];
    size_t a_length = merged_name(learner, a.pair, a_name), b_length = merged_name(learner, b.pair, b_name);
    int order = compare_bytes(a_name, a_length, b_name, b_length);
    if (order) { return order < 0; }
    return string_length(&learner->symbol_names, learner->pairs[a.pair].left) <
           string_length(&learner->symbol_names, learner->pairs[b.pair].left);
}

static void push_pair(Learner *learner, int64_t pair) {
    Candidate candidate = {.count = learner->pairs[pair].count, .pair = pair};
    if (candidate.count < COUNT_MIN) { return; }
    learner->pairs[pair].queued = candidate.count;
    learner->heap = grow(learner->heap, learner->heap_count, sizeof *learner->heap);
    int64_t at = learner->heap_count++;
    for (; at > 0 && precedes(learner, candidate, learner->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        learner->heap[at] = learner->heap[(at - 1) / 2];
    }
    learner->heap[at] = candidate;
}

static Candidate pop_candidate(Learner *learner) {
    Candidate top = learner->heap[0], last = learner->heap[--learner->heap_count];
    int64_t at = 0;
    for (int64_t child = 1; child < learner->heap_count; child = 2 * at + 1) {
        if (child + 1 < learner->heap_count && precedes(learner, learner->heap[child + 1], learner->heap[child])) {
            child++;
        }
        if (!precedes(learner, learner->heap[child], last)) { break; }
        learner->heap[at] = learner->heap[child];
        at = child;
    }
    learner->heap[at] = last;
    return top;
}

static int64_t find_pair(Learner *learner, int64_t left, int64_t right) {
    int64_t key[2] = {left, right}, known = learner->pair_names.count;
    int64_t pair = intern(&learner->pair_names, (const char *)key, sizeof key);
    if (pair == known) {
        learner->pairs = grow(learner->pairs, known, sizeof *learner->pairs);
        learner->pairs[pair] = (Pair){.left = left, .right = right, .newest = -1};
    }
    return pair;
}

static void add_occurrence(Learner *learner, int64_t pair_index, int64_t word) {
    Pair *pair = &learner->pairs[pair_index];
    if (pair->newest >= 0 && learner->occurrences[pair->newest].word == word) { return; }
    int64_t at = learner->occurrence_count++;
    learner->occurrences = grow(learner->occurrences, at, sizeof *learner->occurrences);
    learner->occurrences[at] = (Occurrence){.word = word, .older = pair->newest};
    pair->newest = at;
    learner->touched = grow(learner->touched, learner->touched_count, sizeof *learner->touched);
    learner->touched[learner->touched_count++] = pair_index;
}

// Adds sign times the count of the word to its pairs. Pairs with the symbol `fresh` (all of them if it is -1) are new
// in this word and note it.
static void count_pairs(Learner *learner, int64_t index, int sign, int64_t fresh) {
    const Word *word = &learner->words[index];
    for (int64_t i = 0; i + 1 < word->length; i++) {
        int64_t left = word->symbols[i], right = word->symbols[i + 1], pair = find_pair(learner, left, right);
        learner->pairs[pair].count += sign * word->count;
        if (sign > 0 && (fresh < 0 || left == fresh || right == fresh)) { add_occurrence(learner, pair, index); }
    }
}

static void push_touched(Learner *learner) {
    for (int64_t i = 0; i < learner->touched_count; i++) {
        const Pair *pair = &learner->pairs[learner->touched[i]];
        if (pair->count > pair->queued) { push_pair(learner, learner->touched[i]); }
    }
    learner->touched_count = 0;
}

static bool holds_pair(const Word *word, int64_t left, int64_t right) {
    for (int64_t i = 0; i + 1 < word->length; i++) {
        if (word->symbols[i] == left && word->symbols[i + 1] == right) { return true; }
    }
    return false;
}

static void merge_in_word(Word *word, int64_t left, int64_t right, int64_t merged) {
    int64_t out = 0;
    for (int64_t i = 0; i < word->length; i++) {
        bool match = i + 1 < word->length && word->symbols[i] == left && word->symbols[i + 1] == right;
        word->symbols[out++] = match ? merged : word->symbols[i];
        i += match;
    }
    word->length = out;
}

static void merge_pair(Learner *learner, int64_t pair) {
    char name[PIECE_BYTES_MAX];
    int64_t left = learner->pairs[pair].left, right = learner->pairs[pair].right;
    int64_t merged = intern(&learner->symbol_names, name, merged_name(learner, pair, name));
    int64_t occurrence = learner->pairs[pair].newest;
    learner->pairs[pair].newest = -1;
    while (occurrence >= 0) {
        int64_t word = learner->occurrences[occurrence].word;
        occurrence = learner->occurrences[occurrence].older;
        // Other merges may have taken the pair out of the word since.
        if (!holds_pair(&learner->words[word], left, right)) { continue; }
        count_pairs(learner, word, -1, -1);
        merge_in_word(&learner->words[word], left, right, merged);
        count_pairs(learner, word, 1, merged);
    }
    push_touched(learner);
}

static void merge_pairs(Learner *learner, int64_t symbol_limit) {
    for (int64_t i = 0; i < learner->word_names.count; i++) {
        if (learner->words[i].symbols) { count_pairs(learner, i, 1, -1); }
    }
    push_touched(learner);
    while (learner->symbol_names.count < symbol_limit && learner->heap_count > 0) {
        Candidate top = pop_candidate(learner);
        Pair *pair = &learner->pairs[top.pair];
        if (top.count != pair->queued) { continue; }  // a newer entry has taken its place
        pair->queued = 0;
        if (top.count == pair->count) {
            merge_pair(learner, top.pair);
        } else {
            push_pair(learner, top.pair);
        }
    }
}

typedef struct {
    const char *bytes;
    size_t length;
    int64_t count;
} Character;

static bool is_inside_form(const Character *character) { return character->length > 2 && character->bytes[0] == '#'; }

// Plain forms first, then the more frequent, then the smaller.
static int compare_characters(const void *left, const void *right) {
    const Character *a = left, *b = right;
    if (is_inside_form(a) != is_inside_form(b)) { return is_inside_form(a) ? 1 : -1; }
    if (a->count != b->count) { return a->count > b->count ? -1 : 1; }
    return compare_bytes(a->bytes, a->length, b->bytes, b->length);
}

static void append_line(char **out, size_t *length, const char *bytes, size_t bytes_length) {
    memcpy(*out + *length, bytes, bytes_length);
    (*out)[*length + bytes_length] = '\n';
    *length += bytes_length + 1;
}

static void write_tokens(const Learner *learner, int64_t size, char **out, size_t *out_length) {
    const Strings *names = &learner->symbol_names;
    size_t name_bytes = names->count ? names->starts[names->count] : 0;
    Character *characters = check_calloc((size_t)learner->character_count, sizeof *characters);
    for (int64_t i = 0; i < learner->character_count; i++) {
        characters[i] = (Character){string_bytes(names, i), string_length(names, i), learner->symbol_counts[i]};
    }
    qsort(characters, (size_t)learner->character_count, sizeof *characters, compare_characters);
    *out = check_calloc(sizeof specials + name_bytes + (size_t)names->count, 1);
    *out_length = sizeof specials - 1;
    memcpy(*out, specials, *out_length);
    for (int64_t i = 0; i < names->count && i < size - SPECIALS; i++) {
        bool character = i < learner->character_count;
        append_line(out, out_length, character ? characters[i].bytes : string_bytes(names, i),
                    character ? characters[i].length : string_length(names, i));
    }
    free(characters);
}

static void free_learner(Learner *learner) {
    for (int64_t i = 0; i < learner->word_names.count; i++) { free(learner->words[i].symbols); }
    free_strings(&learner->word_names);
    free_strings(&learner->symbol_names);
    free_strings(&learner->pair_names);
    free(learner->words);
    free(learner->symbol_counts);
    free(learner->pairs);
    free(learner->occurrences);
    free(learner->heap);
    free(learner->touched);
}

bool vocabulary_build(char **out, size_t *out_length, const TokenizerOptions *options, const char *const *texts,
                      const size_t *lengths, int64_t count, int64_t size, Error *error) {
    if (size < SIZE_MIN) {
        return error_set(error, EX_USAGE, "a vocabulary of %lld tokens: expected at least %d", (long long)size,
                         SIZE_MIN);
    }
    Learner learner = {0};
    for (int64_t i = 0; i < count; i++) { tokenizer_split_words(options, texts[i], lengths[i], count_word, &learner); }
    for (int64_t i = 0; i < learner.word_names.count; i++) { spell_word(&learner, i); }
    learner.character_count = learner.symbol_names.count;
    merge_pairs(&learner, size - SPECIALS);
    write_tokens(&learner, size, out, out_length);
    free_learner(&learner);
    return true;
}
