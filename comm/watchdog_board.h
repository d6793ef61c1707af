// What the ranks of a node show each other: memory without a name in any file system (memfd), so that nothing of it
// stays, however its processes end. Shared by watchdog.c and the test that aims at a phase.
#ifndef BERTUNE_WATCHDOG_BOARD_H
#define BERTUNE_WATCHDOG_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#define WATCHDOG_BOARD_NAME "bertune-watchdog"  // of the memfd, in /proc/PID/fd of a node's first rank

typedef enum { LIFE_WATCHED, LIFE_DYING, LIFE_LEFT } Life;
typedef enum { VERDICT_NONE, VERDICT_WRITING, VERDICT_WRITTEN } VerdictState;

// One rank, which alone writes it. A cache line of its own.
typedef struct {
    _Alignas(64) _Atomic uint64_t beats;
    _Atomic int64_t step;  // below 0: none
    _Atomic int32_t phase, waiting, computes;
    _Atomic int32_t life;
    _Atomic int32_t rank, pid;
    _Atomic int64_t started;  // of the process, clock ticks since boot
    _Atomic uint64_t pids;    // in which name space its pid is one; 0: it has not signed in yet
} Slot;

// Why all must end. Who changes state from NONE writes the text, and nobody after.
typedef struct {
    _Alignas(64) _Atomic int32_t state;
    char text[1024];
} Verdict;

typedef struct {
    int32_t ranks;   // slots
    int32_t others;  // ranks on other nodes
    Verdict verdict;
} Board;

static inline Slot *board_slot(Board *board, int index) { return (Slot *)(board + 1) + index; }
static inline size_t board_bytes(int ranks) { return sizeof(Board) + (size_t)ranks * sizeof(Slot); }

#endif
