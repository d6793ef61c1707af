// Hugging Face's BertTokenizer in C: text cleaning, CJK spacing, NFD and accent stripping, lower-casing, punctuation
// splitting, greedy longest-match-first WordPiece, special tokens recognised in the raw text, truncation.
// Equal id for id to transformers' BertTokenizer (tests/fixtures/tokenizer*).
#ifndef BERTUNE_TOKENIZER_H
#define BERTUNE_TOKENIZER_H

#include "datasets/vocabulary.h"

typedef struct {
    bool do_lower_case;           // default true
    bool tokenize_chinese_chars;  // default true
    bool strip_accents;           // default: as do_lower_case
} TokenizerOptions;

typedef struct {
    Vocabulary vocabulary;
    TokenizerOptions options;
} Tokenizer;

// The defaults of BertTokenizer.
TokenizerOptions tokenizer_default_options(void);

// Reads vocab.txt at path and, when there is one beside it, tokenizer_config.json (do_lower_case,
// tokenize_chinese_chars, strip_accents; other keys are ignored; wrong types are EX_DATAERR). Free with tokenizer_free.
bool tokenizer_open(Tokenizer *tokenizer, const char *vocabulary_path, Error *error);

// Writes [CLS] ids [SEP] to ids (room for max_length, max_length >= 2), truncated to max_length as
// BertTokenizer(truncation=True, max_length=...) does, and returns their number. text is UTF-8 of length bytes; invalid
// bytes count as U+FFFD. Reentrant: allocates and frees what it needs, the tokenizer is only read.
int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t length, int max_length, int32_t *ids);

// Calls word(context, bytes, length) for each basic token of text (cleaned, split at spaces, punctuation and CJK,
// lower-cased, accents stripped), before WordPiece, until it returns false. Special tokens in the text are skipped.
void tokenizer_split_words(const TokenizerOptions *options, const char *text, size_t length,
                           bool (*word)(void *context, const char *bytes, size_t length), void *context);

void tokenizer_free(Tokenizer *tokenizer);

#endif
