// Learns a WordPiece vocabulary from text, as Hugging Face's BertWordPieceTrainer does in spirit: the five special
// tokens, every character (and its ## form where it occurs inside a word), then the most frequent pieces of words found
// by merging the most frequent pair until the size is reached or no pair occurs twice. Deterministic: ties go to the
// smaller byte string.
#ifndef BERTUNE_VOCABULARY_BUILD_H
#define BERTUNE_VOCABULARY_BUILD_H

#include "datasets/tokenizer.h"

// Learns from count texts (UTF-8, lengths in bytes). size is the largest number of tokens, at least 100 (EX_USAGE
// otherwise). On success *out is the content of vocab.txt, one token a line, of *out_length bytes; release with free.
bool vocabulary_build(char **out, size_t *out_length, const TokenizerOptions *options, const char *const *texts,
                      const size_t *lengths, int64_t count, int64_t size, Error *error);

#endif
