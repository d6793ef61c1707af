// See unicode.h. The lists of exceptions are short and sorted: one binary search each, behind tests that let ASCII and
// the common ideographs pass without one.
#include "datasets/unicode.h"

#include <stddef.h>
#include <utf8proc.h>

#include "datasets/unicode_exceptions.h"
#include "kernels/check.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const ExceptionRange *find_exception(const ExceptionRange *ranges, size_t count, int32_t code_point) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < code_point) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && ranges[low].first <= code_point ? &ranges[low] : NULL;
}

// Decomposition, order and case leave these as they are.
static bool is_common_ideograph(int32_t code_point) { return code_point >= 0x4E00 && code_point <= 0x9FFF; }

UnicodeClass unicode_classify(int32_t code_point) {
    if (is_common_ideograph(code_point)) { return UNICODE_OTHER; }
    if (code_point == 0 || code_point == 0xFFFD) { return UNICODE_REMOVED; }
    if (code_point == '\t' || code_point == '\n' || code_point == '\r') { return UNICODE_SPACE; }
    const ExceptionRange *exception =
        code_point < 0x80 ? NULL : find_exception(class_exceptions, COUNT(class_exceptions), code_point);
    if (exception) { return (UnicodeClass)exception->value; }
    switch (utf8proc_category(code_point)) {
        case UTF8PROC_CATEGORY_CC:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_CO:
            return UNICODE_REMOVED;
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
            return UNICODE_SPACE;
        case UTF8PROC_CATEGORY_PC:
        case UTF8PROC_CATEGORY_PD:
        case UTF8PROC_CATEGORY_PS:
        case UTF8PROC_CATEGORY_PE:
        case UTF8PROC_CATEGORY_PI:
        case UTF8PROC_CATEGORY_PF:
        case UTF8PROC_CATEGORY_PO:
            return UNICODE_PUNCTUATION;
        case UTF8PROC_CATEGORY_MN:
            return UNICODE_MARK;
        case UTF8PROC_CATEGORY_SM:
        case UTF8PROC_CATEGORY_SC:
        case UTF8PROC_CATEGORY_SK:
            return code_point < 0x80 ? UNICODE_PUNCTUATION : UNICODE_OTHER;
        default:
            return UNICODE_OTHER;
    }
}

bool unicode_is_chinese(int32_t c) {
    // 0x2B920 is no slip of ours: the reference leaves out the 256 characters before it.
    return is_common_ideograph(c) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

static bool is_starter_exception(int32_t code_point) {
    return find_exception(starter_exceptions, COUNT(starter_exceptions), code_point) != NULL;
}

int unicode_decompose(int32_t code_point, int32_t out[UNICODE_DECOMPOSED_MAX]) {
    out[0] = code_point;
    if (code_point < 0xC0 || is_common_ideograph(code_point) || is_starter_exception(code_point)) { return 1; }
    int boundary_class = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t count =
        utf8proc_decompose_char(code_point, out, UNICODE_DECOMPOSED_MAX, UTF8PROC_DECOMPOSE, &boundary_class);
    CHECK(count >= 1 && count <= UNICODE_DECOMPOSED_MAX);
    return (int)count;
}

int unicode_combining_class(int32_t code_point) {
    if (code_point < 0x300 || is_common_ideograph(code_point)) { return 0; }
    int class = utf8proc_get_property(code_point)->combining_class;
    return class && is_starter_exception(code_point) ? 0 : class;
}

int unicode_lower(int32_t code_point, int32_t out[UNICODE_LOWER_MAX]) {
    if (code_point == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    const ExceptionRange *exception =
        code_point < 0x80 ? NULL : find_exception(lower_exceptions, COUNT(lower_exceptions), code_point);
    out[0] = exception ? code_point + exception->value : utf8proc_tolower(code_point);
    return 1;
}
