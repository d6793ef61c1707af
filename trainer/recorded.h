// Training on a device that records steps: a whole step is recorded once and replayed without the host, which has put
// the batches of the epoch and the factors of its steps into device memory before, runs some steps ahead and reads
// their losses when they are there.
#ifndef BERTUNE_RECORDED_H
#define BERTUNE_RECORDED_H

#include "comm/reduce.h"
#include "trainer/batches.h"
#include "trainer/config.h"

typedef struct Recorded Recorded;

// What a recorded step works on; all outlive it. Buffers are device memory of the layout's size.
typedef struct {
    const Comm *comm;
    const Config *config;
    Device *device;
    const Bert *bert;
    Reducer *reducer;
    float *parameters, *first_moment, *second_moment;
    Batches *batches;
    const int32_t *word_row;
    int64_t total_steps;  // of the schedule
} RecordedUse;

// One step of all ranks.
typedef struct {
    double loss, squares;  // sums over the rows; of the squares of the gradient
    float decay;           // AdamW's factor for rows that are not trained
    double seconds;        // its share of the time of the steps that were waited for together
    bool stop;             // a rank has been asked to stop, and no more steps have been begun
} RecordedStep;

// True where steps can be recorded: the device can, the reducer's sums are part of its queue, and each batch is
// computed at once.
bool recorded_possible(const RecordedUse *use);

Recorded *recorded_open(RecordedUse use);
void recorded_close(Recorded *recorded);

// Collective. Records the step anew, with a state that has room for the largest batch of the epochs that follow.
void recorded_use_state(Recorded *recorded, BertState *state);

// Collective. Takes up the steps first .. end - 1 (0-based, of the run), which belong to one epoch.
void recorded_begin(Recorded *recorded, int64_t first, int64_t end);

// Collective. The next step; steps up to `limit` (of the run, exclusive) may be begun meanwhile, so that device memory
// is only that of the step when it is the last before the limit. False when its loss or gradient is not finite: the
// weights are as before it, and no step has changed them since.
bool recorded_step(Recorded *recorded, int64_t limit, RecordedStep *step);

// Launches and copies of a step.
int recorded_nodes(const Recorded *recorded);

#endif
