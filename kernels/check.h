// Errors, of two kinds that are never mixed.
//
// The world broke (allocation, MPI, a read that must succeed): CHECK and die() print one line with the process label,
// file and line, then call the abort hook, which comm_init sets to MPI_Abort so that no peer is left in a collective.
// The user erred (config key, path, foreign file): functions return false and fill an Error with the exit code of the
// contract and a text that names the culprit; the caller prints it once and all ranks leave together.
#ifndef BERTUNE_CHECK_H
#define BERTUNE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sysexits.h>

#ifdef __cplusplus
extern "C" {
#endif

// Exit codes beside those of sysexits.h.
enum { EX_DIVERGED = 80, EX_PEER_LOST = 81 };

typedef struct {
    int code;         // an exit code: EX_DATAERR, EX_CONFIG, ...
    char text[4096];  // one or more lines without a final newline
} Error;

// Fills error and returns false, so that a parser can `return error_set(...)`.
bool error_set(Error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Sets the label that starts every line of die(), for example "rank 2 (node7, pid 4711)".
void check_set_label(const char *label);

// Sets the function die() ends with; the default is _exit after flushing stdout.
void check_set_abort_hook(void (*hook)(int code));

// Prints "bertune: <label>: <file>:<line>: <message>" to stderr and ends the process with the code; does not return.
void check_die(const char *file, int line, int code, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

#define die(code, ...) check_die(__FILE__, __LINE__, (code), __VA_ARGS__)

// A condition that only a bug of ours can break. Never compiled out.
#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) { die(EX_SOFTWARE, "check failed: %s", #condition); } \
    } while (0)

// Zeroed memory for count elements of size bytes, or die; release with free. A count of 0 gives a valid pointer.
void *check_calloc(size_t count, size_t size);

// Zeroed memory of bytes, aligned to a cache line, or die; release with free. Large memory asks for huge pages.
void *check_aligned(size_t bytes);

// realloc to count elements of size bytes (not zeroed), or die.
void *check_realloc(void *memory, size_t count, size_t size);

// A copy of text, or die; release with free.
char *check_strdup(const char *text);

// value as an int, or die when it does not fit.
int narrow_int(int64_t value);

#ifdef __cplusplus
}
#endif
#endif
