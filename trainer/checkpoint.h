// Checkpoints: Hugging Face model directories with the optimizer's moments, the position of the run and a MANIFEST of
// sizes and XXH3-128 hashes. Written by rank 0 into a temporary directory, each file fsynced, renamed when complete.
#ifndef BERTUNE_CHECKPOINT_H
#define BERTUNE_CHECKPOINT_H

#include "trainer/model.h"

// Where a run stands; everything else about a position follows from it and the configuration.
typedef struct {
    int64_t step;          // steps done
    double epoch_loss;     // sum of the losses of this epoch's steps so far
    double best_accuracy;  // highest validation_accuracy so far, below 0: none
    int64_t best_step;     // of the checkpoint with it
    // What the position means only something for:
    int64_t train_rows, global_batch_size, seed;
    bool shuffle;
    char source_sha256[65], vocabulary_sha256[65];
} Progress;

// What belongs to one moment of a run, on rank 0.
typedef struct {
    const Model *model;
    const Bert *bert;
    Weights *weights;
    float *first_moment, *second_moment;  // host memory, layout.total each
    Progress progress;
} Snapshot;

// Writes directory/step-NNNNNNNN, replacing an invalid one of that name. EX_IOERR or EX_CANTCREAT, nothing left behind.
bool checkpoint_save(const Snapshot *snapshot, const char *directory, Error *error);

// Loads weights, moments and progress of the checkpoint at path; the snapshot's buffers are allocated. A damaged
// checkpoint is EX_DATAERR.
bool checkpoint_load(Snapshot *snapshot, const char *path, Error *error);

// Checks every file against the MANIFEST.
bool checkpoint_verify(const char *path, Error *error);

// The newest valid checkpoint below directory into path; damaged ones are named in a warning on stderr and passed over.
// False when there is none. damaged counts those passed over.
bool checkpoint_newest(char *path, size_t size, const char *directory, int *damaged);

// Points directory/best at the checkpoint of best_step (unless that is below 1) and removes all but the newest `limit`
// and the best, and what crashed runs left.
void checkpoint_retain(const char *directory, int64_t limit, int64_t best_step);

// Removes the checkpoints after step, which a run that goes on from there leaves behind: damaged ones, or those of
// another course. Otherwise they would crowd out the new ones and be taken for the newest.
void checkpoint_cut_back(const char *directory, int64_t step);

// Writes the model alone (final/): to a temporary name, then renamed in place of what was there.
bool checkpoint_write_final(const Snapshot *snapshot, const char *run_directory, Error *error);

// Removes final/ of a run that goes on, whose newest checkpoint holds the same weights. Left in place it would pass for
// the end of the run if the new one could not be written.
void checkpoint_remove_final(const char *run_directory);

#endif
