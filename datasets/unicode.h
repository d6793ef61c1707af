// What the tokenizer needs to know of single code points, exactly as the tables inside Hugging Face's tokenizers have
// it: libutf8proc with the differences listed in unicode_exceptions.h.
#ifndef BERTUNE_UNICODE_H
#define BERTUNE_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    UNICODE_OTHER,        // letters, digits, symbols, spacing marks, unassigned
    UNICODE_REMOVED,      // control, format and private-use characters, U+0000, U+FFFD
    UNICODE_SPACE,        // with tab, line feed and carriage return, which are not REMOVED
    UNICODE_PUNCTUATION,  // P*, and all ASCII symbols
    UNICODE_MARK,         // Mn, the accents that are stripped
} UnicodeClass;

enum { UNICODE_DECOMPOSED_MAX = 4, UNICODE_LOWER_MAX = 2 };

UnicodeClass unicode_classify(int32_t code_point);

// True for the ranges of ideographs that stand as words of their own.
bool unicode_is_chinese(int32_t code_point);

// Writes the full canonical decomposition and returns its length; a character without one is written as it is.
int unicode_decompose(int32_t code_point, int32_t out[UNICODE_DECOMPOSED_MAX]);

// The canonical combining class, 0 for starters.
int unicode_combining_class(int32_t code_point);

// Writes the full lower case (U+0130 alone has two characters) and returns its length.
int unicode_lower(int32_t code_point, int32_t out[UNICODE_LOWER_MAX]);

#endif
