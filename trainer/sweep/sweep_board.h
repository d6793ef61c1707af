// What the workers of a sweep tell each other: files in its directory, on a file system that all of them see. A piece
// of work is claimed by creating a file, which only one can; its result is a file that is written once. Nothing else is
// shared, so workers may come and go, and any of them may be killed at any moment.
#ifndef BERTUNE_SWEEP_BOARD_H
#define BERTUNE_SWEEP_BOARD_H

#include <jansson.h>
#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include "trainer/run_directory.h"
#include "trainer/sweep/sweep.h"
#include "trainer/sweep/sweep_halving.h"

// The trial number of the winner's training on all rows.
enum { BOARD_WINNER = -1 };

typedef enum { TRIAL_PAUSED, TRIAL_FINISHED, TRIAL_DIVERGED, TRIAL_FAILED } TrialStatus;

typedef struct {
    bool known;
    TrialStatus status;
    int64_t epochs, steps;                         // done
    double metric, validation_loss, accuracy, f1;  // not a number: not known
    double begin, end;                             // of the segment, seconds since 1970
    char error[512];
} TrialResult;

typedef struct {
    const Sweep *sweep;
    int most;              // segments of a trial
    int *segments;         // (trials)
    int *order;            // (trials) in which they are begun
    TrialResult *results;  // (trials, most)
    SegmentState *states;  // (trials, most)
    TrialResult winner;
    struct timespec changed;     // of the directory of results, when last read
    double changed_since;        // by this process's clock
    bool settled;                // nothing can have come since that would not show as a change
    struct Sighting *sightings;  // of claims that may be stale
    int sighting_count;
    bool doubtful;     // another machine's worker holds something and has shown no life since it was first seen
    char worker[128];  // who this is, for people
    int ranks;         // of this worker
} Board;

// Work that this process has claimed. A thread shows that it is alive by touching the file.
typedef struct {
    int trial, segment;
    char path[RUN_PATH];
    double begin;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool held, over;
} Claim;

// Takes the sweep's directory up, and creates it where it is missing. EX_CONFIG when it holds another sweep.
bool board_open(Board *board, const Sweep *sweep, const char *worker, int ranks, Error *error);
void board_close(Board *board);

// Reads the results that have come since, and decides what they make ready. EX_DATAERR when one cannot be read.
bool board_read(Board *board, Error *error);

// Reads the result of one piece of work, if it has come.
bool board_look(Board *board, int trial, int segment, Error *error);

static inline TrialResult *board_result(const Board *board, int trial, int segment) {
    return trial == BOARD_WINNER ? (TrialResult *)&board->winner
                                 : &board->results[(size_t)trial * (size_t)board->most + (size_t)segment];
}

// What decides between trials.
SegmentResult board_merit(const Board *board, const TrialResult *result);

// Whether nobody is left who could change the order of the trials.
bool board_settled(const Board *board);

// The best of the trials that were trained to their end, or -1.
int board_best(const Board *board);

// Claims a piece of work unless a worker that lives has it. *taken: it is ours. When its workers died time after time,
// its result is that it failed, which is written here.
bool board_claim(Board *board, int trial, int segment, Claim *claim, bool *taken, Error *error);

// Gives the work back, unfinished.
void board_release(Claim *claim);

// Writes the result and gives the claim back.
bool board_publish(Board *board, Claim *claim, const TrialResult *result, Error *error);

// Marks the claims of a process that has died by itself while others went on; gives their number.
int board_bury(const Sweep *sweep, pid_t pid);

// Removes temporary files that killed workers left; none may be at work.
void board_tidy(const Sweep *sweep);

// A number of an object, or not a number.
double board_number(const json_t *json, const char *key);

// Seconds since 1970.
double board_time(void);

const char *trial_status_name(TrialStatus status);

#endif
