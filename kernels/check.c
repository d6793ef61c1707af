// See check.h. The label and the hook are the program's only mutable globals.
#include "kernels/check.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char process_label[128] = "";
static void (*abort_hook)(int code) = NULL;

bool error_set(Error *error, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error->code = code;
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return false;
}

void check_set_label(const char *label) { snprintf(process_label, sizeof process_label, "%s", label); }

void check_set_abort_hook(void (*hook)(int code)) { abort_hook = hook; }

void check_die(const char *file, int line, int code, const char *format, ...) {
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "bertune: %s%s%s:%d: %s\n", process_label, process_label[0] ? ": " : "", file, line, message);
    if (abort_hook) { abort_hook(code); }
    _exit(code);
}

void *check_calloc(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory) { die(EX_UNAVAILABLE, "out of memory: %zu elements of %zu bytes", count, size); }
    return memory;
}

void *check_aligned(size_t bytes) {
    const size_t line = 64, huge_page = (size_t)2 << 20;
    const bool large = bytes >= huge_page / 2;
    void *memory = NULL;
    if (posix_memalign(&memory, large ? huge_page : line, bytes ? bytes : line) != 0) {
        die(EX_UNAVAILABLE, "out of memory: %zu bytes", bytes);
    }
#if defined(MADV_HUGEPAGE)
    if (large) { madvise(memory, bytes, MADV_HUGEPAGE); }
#endif
    return memset(memory, 0, bytes);
}

void *check_realloc(void *memory, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) { bytes = SIZE_MAX; }
    void *grown = realloc(memory, bytes ? bytes : 1);
    if (!grown) { die(EX_UNAVAILABLE, "out of memory: %zu elements of %zu bytes", count, size); }
    return grown;
}

char *check_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(check_calloc(bytes, 1), text, bytes);
}

int narrow_int(int64_t value) {
    if (value < INT_MIN || value > INT_MAX) { die(EX_SOFTWARE, "%lld does not fit an int", (long long)value); }
    return (int)value;
}
