// A sweep: many runs ("trials") of one configuration, with other values of some of its keys, described by a YAML file
// with the keys of Weights & Biases' sweeps. What is here is known before anything runs and the same for every process
// that reads the file.
#ifndef BERTUNE_SWEEP_H
#define BERTUNE_SWEEP_H

#include "trainer/config_options.h"

enum { SWEEP_NAME = 128, SWEEP_TRIALS = 10000, SWEEP_KEYS = 64, SWEEP_RUNGS = 32 };

typedef struct {
    char name[SWEEP_NAME];
    char dir[CONFIG_TEXT_SIZE];
    char metric[64];  // a number of metrics.jsonl's epoch lines
    bool maximize, random;
    bool dev;      // trials are compared on /dev, and the winner is trained on all training rows
    int64_t seed;  // of random values, and of the order of a grid whose trials are ended early
    int ranks_per_trial;
    double eta;  // a rung lets one of so many trials go on
    int rungs;   // 0: every trial is trained to its end
    int64_t rung_epochs[SWEEP_RUNGS];
    Config base;  // of every trial
    int key_count;
    const Option *keys[SWEEP_KEYS];  // that trials differ in
    int trials;
    char **values;    // (trials, key_count) as they would stand in a configuration
    int64_t *epochs;  // (trials) num_train_epochs
} Sweep;

// Reads path and the configuration it names, with count overrides KEY=VALUE of that. EX_CONFIG with file and line,
// EX_NOINPUT. Release with sweep_free, also after a failure.
bool sweep_load(Sweep *sweep, const char *path, char *const *overrides, int count, Error *error);
void sweep_free(Sweep *sweep);

// A trial is trained in segments: up to each rung below its end, and to its end. These are numbered from 0.
int sweep_segments(const Sweep *sweep, int trial);

// The epoch (1-based) at which a segment ends.
int64_t sweep_segment_epoch(const Sweep *sweep, int trial, int segment);

// The configuration of a trial, or of the winner when it is trained on all rows.
void sweep_trial_config(const Sweep *sweep, int trial, Config *config);
void sweep_winner_config(const Sweep *sweep, int trial, Config *config);

// Everything above as JSON (sweep.json); two sweeps are the same when these are. Release with free.
char *sweep_to_json(const Sweep *sweep);

#endif
