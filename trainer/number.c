// See number.h.
#include "trainer/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

NumberText number_format(double value) {
    NumberText number;
    for (int digits = 1; digits <= 17; digits++) {
        // %g switches to an exponent at its precision; Python does so at 1e16.
        snprintf(number.text, sizeof number.text, fabs(value) >= 1e-4 && fabs(value) < 1e16 ? "%.*g" : "%.*e",
                 fabs(value) >= 1e-4 && fabs(value) < 1e16 ? digits : digits - 1, value);
        if (strtod(number.text, NULL) == value || value != value) { break; }
    }
    if (fabs(value) >= 1e-4 && fabs(value) < 1e16 && strchr(number.text, 'e')) {
        snprintf(number.text, sizeof number.text, "%.0f", value);
    }
    if (value == 0) { strcpy(number.text, signbit(value) ? "-0" : "0"); }
    if (isfinite(value) && !strpbrk(number.text, ".e")) { strcat(number.text, ".0"); }
    return number;
}

bool number_parse_integer(const char *text, double *value) {
    const char *digits = text + (text[0] == '-');
    if (!digits[0] || digits[strspn(digits, "0123456789")]) { return false; }
    *value = strtod(text, NULL);
    return fabs(*value) <= 9007199254740992.0;
}

bool number_parse_real(const char *text, double *value) {
    if (!text[0] || text[strspn(text, "+-.0123456789eE")]) { return false; }
    char *end;
    *value = strtod(text, &end);
    return *end == 0 && isfinite(*value);
}
