// What the tests of the text side share: fixture files and columns in hex.
#ifndef BERTUNE_TEXT_FIXTURE_H
#define BERTUNE_TEXT_FIXTURE_H

// CMocka needs the first three in this order.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/check.h"

// The file of that name in tests/fixtures, NUL-terminated; release with free.
char *fixture_read(const char *name);

// Replaces hex digits by the bytes they stand for, with a NUL behind, and returns the number of bytes.
size_t fixture_unhex(char *hex);

// Asserts the exit code and that the message contains part.
void assert_error(const Error *error, int code, const char *part);

#endif
