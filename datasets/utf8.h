// UTF-8 as the standard defines it: no surrogates, no overlong forms, nothing above U+10FFFF. Input comes from files of
// unknown origin, so decoding never fails: a byte that begins no character is one U+FFFD.
#ifndef BERTUNE_UTF8_H
#define BERTUNE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Decodes the first character of the length >= 1 bytes and returns how many bytes it takes.
size_t utf8_decode(const char *text, size_t length, int32_t *code_point);

// True when all bytes are well-formed UTF-8; else *bad is the offset of the first bad byte.
bool utf8_valid(const char *text, size_t length, size_t *bad);

#endif
