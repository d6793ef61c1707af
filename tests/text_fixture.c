// See text_fixture.h.
#include "tests/text_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"

char *fixture_read(const char *name) {
    char path[4096], *text;
    size_t length;
    Error error;
    path_join(path, sizeof path, BERTUNE_FIXTURES, name);
    if (!file_read(&text, &length, path, 64 << 20, &error)) { fail_msg("%s", error.text); }
    return text;
}

size_t fixture_unhex(char *hex) {
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        hex[i] = (char)strtoul(digits, NULL, 16);
    }
    hex[length] = '\0';
    return length;
}

void assert_error(const Error *error, int code, const char *part) {
    if (!strstr(error->text, part)) { fail_msg("expected \"%s\" in \"%s\"", part, error->text); }
    assert_int_equal(error->code, code);
}
