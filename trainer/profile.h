// Where a training step spends its time: seconds, floating-point operations and bytes of each phase, as the leader of
// this process's workers sees them.
#ifndef BERTUNE_PROFILE_H
#define BERTUNE_PROFILE_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/kernels.h"

typedef enum {
    PHASE_BATCH,
    PHASE_EMBEDDING,
    PHASE_QKV,
    PHASE_ATTENTION,
    PHASE_ATTENTION_OUTPUT,
    PHASE_FEED_FORWARD,
    PHASE_LAYERNORM,
    PHASE_LOSS,
    PHASE_LOSS_BACKWARD,
    PHASE_LAYERNORM_BACKWARD,
    PHASE_FEED_FORWARD_BACKWARD,
    PHASE_ATTENTION_OUTPUT_BACKWARD,
    PHASE_ATTENTION_BACKWARD,
    PHASE_QKV_BACKWARD,
    PHASE_EMBEDDING_BACKWARD,
    PHASE_REDUCTION,
    PHASE_ADAMW,
    PHASES
} Phase;

typedef struct {
    double seconds, flop, bytes;
} PhaseSums;

typedef struct {
    PhaseSums phases[PHASES];
    Phase current;
    double since;  // when the current phase began; 0: none runs
    int64_t steps, tokens;
    double peak_flops, copy_bandwidth;  // of this process's workers
} Profile;

// Measures the machine.
void profile_start(Profile *profile, Device *device);

// The current phase ends and another begins, which will do flop operations and must move bytes between memory and
// processor at least once. Calls of workers that are not the leader do nothing; profile may be NULL.
void profile_enter(Profile *profile, Phase phase, double flop, double bytes);

// The current phase ends: the step is over, or other things than training follow.
void profile_leave(Profile *profile);

// Forgets the phases, not the machine.
void profile_reset(Profile *profile);

// The sums over all phases.
PhaseSums profile_total(const Profile *profile);

// A table for people: a line a phase, and the total.
void profile_print(const Profile *profile, FILE *out);

// The same as an object: of an average step milliseconds, tokens, gflop, and of each phase name, milliseconds, gflop
// and gbyte; peak_gflops and copy_gbs of the machine. Free with json_decref.
json_t *profile_json(const Profile *profile);

#endif
