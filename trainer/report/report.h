// What `bertune report` shows: single runs and sweeps as they lie on disk.
#ifndef BERTUNE_REPORT_H
#define BERTUNE_REPORT_H

#include "trainer/report/report_history.h"

enum { REPORT_PATH = 4096, WINNER = -1 };

typedef enum {
    STATE_FINISHED,
    STATE_STOPPED,  // at a rung, for good
    STATE_PAUSED,
    STATE_RUNNING,
    STATE_INTERRUPTED,
    STATE_WAITING,
    STATE_DIVERGED,
    STATE_FAILED,
    STATES
} State;

// A run, or a trial of a sweep: a line of the table. Numbers are NAN where there is none.
typedef struct {
    char *name, *directory;
    int64_t trial;  // of a sweep: 0-based, or WINNER
    char **values;  // (parameters of the group) as text; "" where it is not known
    State state;
    int64_t epochs, steps;
    double metric, validation_loss, accuracy, f1, seconds, samples_per_second;
    char *error;  // why it failed; "" otherwise
    History history;
} Entry;

// Work on a trial without a break by one worker (a group of ranks, or a job of an array).
typedef struct {
    int64_t trial, epoch;  // WINNER or the trial, and the epoch it was to reach
    char *worker;
    double begin, end;  // unix seconds; end is NAN where no result came
    double seen;        // of such an attempt: when it gave up, or its last sign of life; else NAN
    bool alive;         // it goes on
    State state;
    double metric;
} Segment;

typedef struct {
    bool sweep;
    char *title, *directory;
    char *split;  // the part of the data that a sweep scores its trials on: "dev", "validation" or ""
    char *metric;
    bool maximize;
    char **parameters;
    size_t parameter_count;
    Entry *entries;  // best first once group_rank was called
    size_t entry_count;
    size_t best;    // index of the best one; entry_count: none has a metric
    Entry *winner;  // the best trial's parameters trained on all rows, or NULL
    bool done;      // nothing is left to do
    Segment *segments;
    size_t segment_count;
} Group;

typedef struct {
    Group *groups;
    size_t count;
} Report;

// Finds runs and sweeps in count directories and below, and reads them. Runs are one group, the first; each sweep is
// one. EX_NOINPUT when a directory is missing or holds neither, EX_DATAERR names file and line.
bool report_read(Report *report, char *const *directories, int count, Error *error);
void report_free(Report *report);

// Reads the sweep in a directory. Free with group_free, also after an error.
bool sweep_read(Group *group, const char *directory, Error *error);

// Its part that reads what workers wrote, once entries and parameters are known: segments, the winner, and the numbers
// of entries. *chosen is the trial that won, or WINNER.
bool sweep_read_results(Group *group, int64_t *chosen, Error *error);
void group_free(Group *group);

// A new last entry without any numbers. Pointers to entries of before are no longer valid.
Entry *group_add(Group *group, const char *name, const char *directory);

// Fills in what the history says: epochs, steps and the numbers of the last epoch.
void entry_take_history(Entry *entry);

// Sorts the entries, best first, and finds the best: trial `winner`, or the first of those finished, or the first.
void group_rank(Group *group, int64_t winner);

// learning_rate of train.learning_rate, unless that is the end of another parameter of the group, too.
const char *group_parameter_name(const Group *group, size_t parameter);

// Sorted names in a directory without hidden ones; free each, and the list. None when it cannot be read.
char **directory_names(const char *path, size_t *count);
bool is_plain_file(const char *directory, const char *name);

// items with room for one more behind count of them.
void *room_for(void *items, size_t count, size_t size);

// How much of a metric's variance a parameter explains: by rank correlation where most of its values are different
// numbers, else by groups of equal values.
typedef struct {
    double share;   // 0 to 1; NAN where it cannot be said
    double chance;  // the share that a parameter without influence is expected to have
} Importance;

// The last epoch that all trials with a metric reached; 0: none.
int64_t group_common_epoch(const Group *group);
// A trial's metric after an epoch, as its result says, or else its metrics.jsonl; NAN: none.
double group_metric_at(const Group *group, const Entry *entry, int64_t epoch);
Importance group_importance(const Group *group, size_t parameter, int64_t epoch);

// How long workers worked.
typedef struct {
    const char *worker;
    size_t segments;  // of trials, with a result
    double busy;      // seconds of these
    double unknown;   // seconds of attempts without a result, at most
    bool tried;       // it had a trial
} Worker;

// Workers by name, to be freed by the caller; *begin and *end bound all work (unix seconds), and *over is when the last
// trial ended: the winner is trained by one worker alone, when nothing is left for the others.
Worker *group_workers(const Group *group, size_t *count, double *begin, double *end, double *over);

// Where a segment ends, at the latest at `last`. An attempt without a result ends where it was seen last, before the
// next one of its worker or of its trial begins.
double group_segment_end(const Group *group, const Segment *segment, double last);

#endif
