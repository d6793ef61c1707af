// System calls that fail, and processes and machines that stop at one: the functions of libc that change files are
// replaced, in a test that links this file or, as a library in LD_PRELOAD, in a whole program. Calls count whose path,
// or whose file's path, contains a text; calls of libc within itself (as of fprintf) are not seen.
//
// Environment of a program: FAULTS_BELOW, the text; FAULTS_KIND, FAULTS_ERROR (EIO, ENOSPC ...), FAULTS_AT, FAULTS_RANK
// (of MPI, else all); FAULTS_COUNT, a file to which the number of calls is written at the end.
// FAULTS_WRONG_HASH: the rank whose XXH3_64bits, of its weights, is another than it should be.
#ifndef BERTUNE_FAULTS_H
#define BERTUNE_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    FAULT_NONE,
    FAULT_ERROR,    // call `at` fails, and does nothing (close closes)
    FAULT_BROKEN,   // all from `at` on do
    FAULT_SHORT,    // a write does half
    FAULT_KILL,     // SIGKILL before the call
    FAULT_KILL_IN,  // SIGKILL in the middle of a write, or right after another call
    FAULT_POWER     // a power cut before the call
} FaultKind;

typedef struct {
    const char *below;
    FaultKind kind;
    int error;            // errno
    int64_t at;           // counted from 1
    bool no_exchange;     // a file system that cannot exchange two names
    int64_t forget_sync;  // this fsync, counted from 1, does nothing: what the power cuts must find
    const char *lost;     // FAULT_POWER: a directory on the same file system for what might come back
    uint32_t seed;        // FAULT_POWER
} Faults;

// From now on. FAULT_NONE counts only.
void faults_arm(Faults faults);

// Calls since then.
int64_t faults_calls(void);

// What a power cut may do to everything since faults_arm, then SIGKILL: files that were not synced lose a part of their
// bytes or have zeros there; of what happened to the names in a directory since it was synced, any number of the last
// operations is undone.
void faults_cut_power(void) __attribute__((noreturn));

#endif
