// The directory of a run: its places, the lock that keeps two jobs out of it, and each rank's log. Only rank 0 creates.
#ifndef BERTUNE_RUN_DIRECTORY_H
#define BERTUNE_RUN_DIRECTORY_H

#include <stdio.h>

#include "kernels/check.h"

enum { RUN_PATH = 4096 };

typedef struct {
    char path[RUN_PATH], checkpoints[RUN_PATH], final[RUN_PATH], metrics[RUN_PATH], config[RUN_PATH], logs[RUN_PATH];
    int lock;  // file descriptor, -1: not held
} RunDirectory;

// Fills in the places; touches nothing.
void run_directory_init(RunDirectory *run, const char *path);

// True when the directory holds a run already.
bool run_directory_in_use(const RunDirectory *run);

// Rank 0 only. Takes the lock of a directory that exists, before anything is read from it: EX_CANTCREAT names the
// holder. Where nothing can be written there, run_directory_create finds it out. Released by run_directory_close.
bool run_directory_lock(RunDirectory *run, Error *error);

// Rank 0 only. Creates the directory with its parts, takes the lock unless it is held, and removes what killed runs
// left.
bool run_directory_create(RunDirectory *run, Error *error);
void run_directory_close(RunDirectory *run);

// logs/rank-NNNN.log, opened for appending; NULL when it cannot be. Every line begins with the time.
FILE *run_log_open(const RunDirectory *run, int rank);
void run_log(FILE *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
