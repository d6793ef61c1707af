// See utf8.h. utf8proc decodes; bytes below 0x80 stay out of its way because most files are mostly ASCII.
#include "datasets/utf8.h"

#include <utf8proc.h>

size_t utf8_decode(const char *text, size_t length, int32_t *code_point) {
    *code_point = (unsigned char)text[0];
    if (*code_point < 0x80) { return 1; }
    utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, code_point);
    if (bytes > 0) { return (size_t)bytes; }
    *code_point = 0xFFFD;
    return 1;
}

bool utf8_valid(const char *text, size_t length, size_t *bad) {
    for (size_t position = 0, bytes; position < length; position += bytes) {
        int32_t code_point;
        bytes = utf8_decode(text + position, length - position, &code_point);
        // A real U+FFFD takes three bytes.
        if (code_point == 0xFFFD && bytes == 1) {
            *bad = position;
            return false;
        }
    }
    return true;
}
