// The vocabulary of a BERT WordPiece tokenizer: vocab.txt, one token a line, the id is the 0-based line number.
#ifndef BERTUNE_VOCABULARY_H
#define BERTUNE_VOCABULARY_H

#include "kernels/check.h"

typedef struct {
    char *text;           // all tokens in the order of ids, each with a NUL behind it
    int32_t size;         // tokens
    const char **tokens;  // tokens[id], NUL-terminated; tokens[size] is the end of text
    int32_t *buckets;     // open-addressing hash table of ids, -1 empty
    uint32_t bucket_mask;
    int32_t pad, unk, cls, sep, mask;  // ids of [PAD] [UNK] [CLS] [SEP] [MASK]
    char sha256[65];                   // of the file's bytes, in hexadecimal
} Vocabulary;

// Reads vocab.txt, lines ending in LF or CRLF. Hostile until checked: at most 64 MiB, valid UTF-8, no byte order mark,
// NUL or carriage return inside, no empty or repeated token (EX_DATAERR with file:line), all five special tokens
// present; a missing file is EX_NOINPUT. Free with vocabulary_free.
bool vocabulary_read(Vocabulary *vocabulary, const char *path, Error *error);

// The same from memory; name is shown in messages.
bool vocabulary_parse(Vocabulary *vocabulary, const char *name, const char *text, size_t length, Error *error);

// The id of the token of length bytes, or -1.
int32_t vocabulary_find(const Vocabulary *vocabulary, const char *token, size_t length);

void vocabulary_free(Vocabulary *vocabulary);

#endif
