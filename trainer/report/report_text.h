// Text from outside made safe for HTML, shells and file names.
#ifndef BERTUNE_REPORT_TEXT_H
#define BERTUNE_REPORT_TEXT_H

#include <stdio.h>

#include "kernels/check.h"

// Writes text for HTML, in elements as well as in quoted attributes. Bytes that are not UTF-8, control characters and
// those that turn the direction of writing become U+FFFD.
void put_html(FILE *out, const char *text);

// The same cut to so many columns of a terminal, with an ellipsis.
void put_html_short(FILE *out, const char *text, int columns);

// Columns that text takes.
int text_columns(const char *text);

// Writes text as one word of bash, readable: bare where nothing is special, else quoted.
void put_shell_word(FILE *out, const char *text);

#endif
