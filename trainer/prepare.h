// The work of `bertune prepare`: read the CSV, split, learn or read the vocabulary, tokenize, write the data set.
#ifndef BERTUNE_PREPARE_H
#define BERTUNE_PREPARE_H

#include "kernels/check.h"

typedef struct {
    const char *csv, *out;
    const char *vocabulary;      // vocab.txt to use, or NULL
    int64_t build_size;          // above 0: learn one of at most so many tokens
    const char *vocabulary_out;  // and write it there
    int max_length;
    double test_size, dev_size;
    uint32_t split_seed;
    const char *text_column, *label_column;
    const char *label_names;  // comma-separated, or NULL
    bool skip_bad_rows;
} PrepareOptions;

// Reports to stdout, progress to stderr. On failure nothing is left behind.
bool prepare_run(const PrepareOptions *options, Error *error);

#endif
