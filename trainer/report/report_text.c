// See report_text.h.
#include "trainer/report/report_text.h"

#include <limits.h>
#include <string.h>
#include <utf8proc.h>

#include "datasets/utf8.h"

// Control characters, and those that make text look like another: invisible, or turning its direction.
static bool is_misleading(int32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) || (c & 0xFFFE) == 0xFFFE ||
           c == 0x061C;
}

static bool is_good(int32_t c, size_t bytes) { return !is_misleading(c) && !(c == 0xFFFD && bytes == 1); }

static void put_character(FILE *out, const char *text, size_t bytes) {
    switch (text[0]) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fwrite(text, 1, bytes, out);
    }
}

static int columns_of(int32_t c, size_t bytes) { return is_good(c, bytes) ? utf8proc_charwidth(c) : 1; }

int text_columns(const char *text) {
    int columns = 0;
    for (size_t left = strlen(text), bytes; left; text += bytes, left -= bytes) {
        int32_t c;
        bytes = utf8_decode(text, left, &c);
        columns += columns_of(c, bytes);
    }
    return columns;
}

void put_html_short(FILE *out, const char *text, int columns) {
    const bool fits = text_columns(text) <= columns;
    int used = fits ? 0 : 1;  // the ellipsis
    for (size_t left = strlen(text), bytes; left; text += bytes, left -= bytes) {
        int32_t c;
        bytes = utf8_decode(text, left, &c);
        used += columns_of(c, bytes);
        if (used > columns) { break; }
        if (is_good(c, bytes)) {
            put_character(out, text, bytes);
        } else {
            fputs("\uFFFD", out);
        }
    }
    if (!fits) { fputs("…", out); }
}

void put_html(FILE *out, const char *text) { put_html_short(out, text, INT_MAX); }

static bool needs_escapes(const char *text) {
    for (size_t left = strlen(text), bytes; left; text += bytes, left -= bytes) {
        int32_t c;
        bytes = utf8_decode(text, left, &c);
        if (!is_good(c, bytes)) { return true; }
    }
    return false;
}

void put_shell_word(FILE *out, const char *text) {
    static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./,:=@%+-";
    if (text[0] && !text[strspn(text, bare)]) {
        fputs(text, out);
        return;
    }
    const bool escapes = needs_escapes(text);
    fputs(escapes ? "$'" : "'", out);
    for (size_t left = strlen(text), bytes; left; text += bytes, left -= bytes) {
        int32_t c;
        bytes = utf8_decode(text, left, &c);
        if (!is_good(c, bytes)) {
            for (size_t i = 0; i < bytes; i++) { fprintf(out, "\\%03o", (unsigned char)text[i]); }
        } else if (text[0] == '\'') {
            fputs(escapes ? "\\'" : "'\\''", out);
        } else {
            fprintf(out, "%s%.*s", escapes && text[0] == '\\' ? "\\" : "", (int)bytes, text);
        }
    }
    fputc('\'', out);
}
