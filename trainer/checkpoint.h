// Checkpoints: Hugging Face model directories with the optimizer's moments, the position of the run and a MANIFEST of
// sizes and XXH3-128 hashes. Written by rank 0 into a temporary directory, each file fsynced, renamed when complete.
#ifndef BERTUNE_CHECKPOINT_H
#define BERTUNE_CHECKPOINT_H

#include "trainer/divergence.h"
#include "trainer/model.h"

enum { SHARDS_UNKNOWN = -1 };

// Where a run stands; everything else about a position follows from it and the configuration.
typedef struct {
    int64_t step;          // steps done
    double epoch_loss;     // sum of the losses of this epoch's steps so far
    double best_accuracy;  // highest validation_accuracy so far, below 0: none
    int64_t best_step;     // of the checkpoint with it
    Divergence divergence;
    // What the position means only something for:
    int64_t train_rows, global_batch_size, seed;
    int64_t virtual_shards;  // of determinism: elastic, 0 for another, SHARDS_UNKNOWN in old checkpoints
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

// Checks every file against the MANIFEST, and that the checkpoint is of the step that its name says. EX_NOINPUT when
// there is none, else EX_DATAERR naming the damaged file.
bool checkpoint_verify(const char *path, Error *error);

// The newest valid checkpoint below directory into path; damaged ones are named in a warning on stderr and passed over.
// False when there is none. damaged counts those passed over.
bool checkpoint_newest(char *path, size_t size, const char *directory, int *damaged);

// The steps of all checkpoints below directory, valid or not, newest first; release with free.
int64_t *checkpoint_steps(const char *directory, int *count);

// Points directory/best at the checkpoint of best_step (unless that is below 1) and removes all but the newest `limit`
// and the best. To be called after a save, so that the newest is known to be valid.
void checkpoint_retain(const char *directory, int64_t limit, int64_t best_step);

// Removes what killed runs left below directory; gives how much that was.
int checkpoint_remove_leftovers(const char *directory);

// Removes the checkpoints after step, which a run that goes on from there leaves behind: damaged ones, or those of
// another course. Otherwise they would crowd out the new ones and be taken for the newest.
void checkpoint_cut_back(const char *directory, int64_t step);

// Writes the model alone (final/) with a MANIFEST of its own: to a temporary name, then renamed in place of what was
// there.
bool checkpoint_write_final(const Snapshot *snapshot, const char *run_directory, Error *error);

// Checks final/ against its MANIFEST, as checkpoint_verify.
bool checkpoint_verify_final(const char *path, Error *error);

// Removes final/ of a run that goes on, whose newest checkpoint holds the same weights. Left in place it would pass for
// the end of the run if the new one could not be written.
void checkpoint_remove_final(const char *run_directory);

#endif
