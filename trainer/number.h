// Numbers as text, the same in every locale.
#ifndef BERTUNE_NUMBER_H
#define BERTUNE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char text[32];
} NumberText;

// The shortest decimal that reads back as the same double, as Python's repr writes it (0.1, 1e-05, 3.0).
NumberText number_format(double value);

// All of text as a decimal integer of at most 2^53, or as a finite number (1e-5, 2.0e-05, 0.00002).
bool number_parse_integer(const char *text, double *value);
bool number_parse_real(const char *text, double *value);

#endif
