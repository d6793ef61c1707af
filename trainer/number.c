// See number.h.
#include "trainer/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Writes value with so many digits and says whether it reads back. %g switches to an exponent at its precision, Python
// at 1e16. The doubles below a power of two lie closer than those above, so that the decimal that reads back may not be
// the nearest of its length; a quarter of the distance higher it is.
static bool write_digits(NumberText *number, double value, int digits, bool plain) {
    const long double places[] = {value, value * (1.0L + 0x1p-54L)};
    for (int i = 0; i < 2; i++) {
        snprintf(number->text, sizeof number->text, plain ? "%.*Lg" : "%.*Le", plain ? digits : digits - 1, places[i]);
        if (strtod(number->text, NULL) == value) { return true; }
    }
    return false;
}

NumberText number_format(double value) {
    NumberText number;
    const bool plain = fabs(value) >= 1e-4 && fabs(value) < 1e16;
    for (int digits = 1; digits < 17 && !write_digits(&number, value, digits, plain); digits++) {}
    if (strtod(number.text, NULL) != value) {
        snprintf(number.text, sizeof number.text, plain ? "%.17g" : "%.16e", value);
    }
    if (plain && strchr(number.text, 'e')) { snprintf(number.text, sizeof number.text, "%.0f", value); }
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
