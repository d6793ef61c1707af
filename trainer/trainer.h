// Everything that a training run holds, and the parts of its life: train_setup.c opens it, train_step.c takes one step,
// train_epoch.c evaluates and saves, train.c is the order of these; train_alone.c is for measurements.
#ifndef BERTUNE_TRAINER_H
#define BERTUNE_TRAINER_H

#include "comm/placement.h"
#include "trainer/batches.h"
#include "trainer/checkpoint.h"
#include "trainer/config.h"
#include "trainer/elastic.h"
#include "trainer/evaluation.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/recorded.h"
#include "trainer/run_directory.h"
#include "trainer/shards.h"

enum { REPLICA_PARAMETERS, REPLICA_FIRST_MOMENT, REPLICA_SECOND_MOMENT, REPLICAS };

typedef enum {
    TRAINER_RUN,
    TRAINER_TRIAL,  // one of many: says nothing on stdout or stderr while it goes well
    TRAINER_BENCH   // from the model's weights, without a run directory and what lies in it, always with a profile
} TrainerUse;

typedef struct {
    TrainerUse use;
    Comm comm;  // of the caller
    Config config;
    RunDirectory run;
    FILE *log;        // of this rank
    Metrics metrics;  // rank 0
    ProgressBar bar;  // rank 0
    Placement placement;
    Device *device;
    Dataset dataset;
    Shards train, validation;
    Model model;        // rank 0 whole; elsewhere only the numbers of its config
    int32_t *word_row;  // (vocab_size) row of the word table of each vocabulary id, -1: not in the data set
    Bert bert;
    Weights weights;                                   // rank 0 with the full tables
    Reducer *reducer;                                  // owns the gradient and these
    float *parameters, *first_moment, *second_moment;  // device memory, layout.total each
    Elastic elastic;                                   // of determinism: elastic
    Batches batches;
    BertState *state;  // of training, for the largest batch of the epochs seen
    int state_sequences, state_tokens;
    Batch batch;
    float *losses;       // (state_sequences)
    Recorded *recorded;  // NULL: each step is put together by the host
    Inference inference;
    Progress progress;
    int64_t last_step;    // the run ends after it
    int64_t pause_step;   // it stops there with a checkpoint; 0: nowhere
    int64_t total_steps;  // of num_train_epochs, for the schedule
    float decays[1024];   // rank 0: factors of the steps since the full tables were last decayed
    int64_t decay_count;
    double started, seconds_train;
    Profile *profile;             // NULL: the phases of steps are not timed
    char resumed_from[RUN_PATH];  // rank 0
    bool finished;                // nothing to do: the run was complete
} Trainer;

typedef struct {
    double loss, learning_rate, gradient_norm, seconds;
    int64_t tokens, samples;  // of the global batch
    bool stop;                // a rank has been asked to stop
} StepResult;

// Collective. Starts the watchdog and MPI; false on all ranks when the launch is wrong. timeout: run.step_timeout. To
// be ended by trainer_end all the same.
bool trainer_start(Comm *comm, double timeout, Error *error);

// Collective. trainer_start with what the configuration says; rank 0 reads the configuration and all get it. False on
// all ranks, with the error, when a user erred.
bool trainer_begin(Comm *comm, Config *config, const char *path, char *const *overrides, int count, Error *error);
void trainer_end(Comm *comm);

// Collective. Opens everything that the configuration of rank 0 asks for. False on all ranks, with the error, when a
// user erred.
bool trainer_open(Trainer *trainer, TrainerUse use, const Comm *comm, const Config *config, Error *error);
void trainer_close(Trainer *trainer);

// Collective. Trains to the end, or until the trainer is asked to stop or reaches the end of pause_epoch (0: none):
// then *stopped, with a checkpoint.
bool trainer_run(Trainer *trainer, int64_t pause_epoch, bool *stopped, Error *error);

// "validation" or "dev": of the rows that are scored.
const char *evaluation_split(const Config *config);

// Makes ready to record steps, where they can be.
void trainer_record(Trainer *trainer);

// A trainer of the same model, data and device that takes steps of `rows` rows by this rank alone, without a word to
// the others, for as long as `trainer` is open and rests. Close with trainer_close_alone.
void trainer_open_alone(Trainer *alone, const Trainer *trainer, int64_t rows);
void trainer_close_alone(Trainer *alone);

// "x 2 threads on cpu" or "on cuda (NVIDIA H200)".
void describe_device(const Device *device, char *text, size_t size);

// Collective. Makes room for the largest batch of an epoch (0-based).
void trainer_begin_epoch(Trainer *trainer, int64_t epoch);

// Collective. The step after progress.step: gradient, reduction, update. False (EX_DIVERGED on all ranks, weights as
// before) when the loss or the gradient is not finite.
bool trainer_step(Trainer *trainer, StepResult *result, Error *error);

// Rank 0 only. Brings the rows that are not trained up to date with the steps done.
void trainer_decay_tables(Trainer *trainer);

// Collective. Evaluates the validation part and reports the epoch (1-based) that has ended. False on all ranks, with
// nothing reported and the epoch still open, when `asked` became true on one of them meanwhile.
bool trainer_end_epoch(Trainer *trainer, int64_t epoch, double seconds, bool (*asked)(void));

// The steps of an epoch are done but it has not been evaluated: a run was stopped there.
bool trainer_epoch_open(const Trainer *trainer);

// Collective. Writes a checkpoint of progress.step.
bool trainer_save(Trainer *trainer, Error *error);

// Collective. Writes final/ and the end event.
bool trainer_finish(Trainer *trainer, Error *error);

#endif
