// One training step: this rank's share of the global batch forward and backward, the sum over the ranks, AdamW.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/optimizer.h"
#include "trainer/schedule.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

static void gradient_ready(void *reducer, size_t begin) { reducer_ready(reducer, begin); }

// The loss of a micro-batch, and its gradient: written, or added where `add`. Without rows there is neither.
static double compute(Trainer *trainer, const int64_t *rows, int count, int samples, float *gradient, bool add,
                      GradientReady *ready) {
    const DropoutKey key = {(uint64_t)trainer->config.seed, (uint32_t)trainer->progress.step};
    double loss = 0.0;
    profile_enter(trainer->profile, PHASE_BATCH, 0, 0);
    batch_fill(&trainer->batch, &trainer->train.reviews, trainer->word_row, rows, count);
    bert_forward(trainer->state, trainer->parameters, &trainer->batch, key, NULL, trainer->losses);
    for (int i = 0; i < count; i++) { loss += trainer->losses[i]; }
    bert_backward(trainer->state, gradient, trainer->parameters, 1.0f / (float)samples, add, ready, trainer->reducer);
    return loss;
}

// The gradient of this rank's rows, and their loss, in one or several micro-batches; the loss is divided by the rows of
// all ranks, so that gradients are summed.
static double accumulate(Trainer *trainer, int64_t step, int samples) {
    float *gradient = reducer_gradient(trainer->reducer);
    double loss = 0.0;
    bool any = false;
    batches_deal(&trainer->batches, step);
    for (int micro = 0; micro < trainer->batches.micro_batches; micro++) {
        int count;
        const int64_t *rows = batches_micro(&trainer->batches, step, micro, &count);
        if (count == 0) { continue; }
        const bool last = micro == trainer->batches.micro_batches - 1;
        loss += compute(trainer, rows, count, samples, gradient, any, last ? gradient_ready : NULL);
        any = true;
    }
    if (!any) { device_zero(trainer->device, gradient, trainer->bert.layout.total * sizeof *gradient); }
    return loss;
}

// The same of this rank's virtual shards; losses (micro_batches).
static void accumulate_shards(Trainer *trainer, int64_t step, int samples, double *losses) {
    batches_deal(&trainer->batches, step);
    for (int shard = 0; shard < trainer->batches.micro_batches; shard++) {
        int count;
        const int64_t *rows = batches_micro(&trainer->batches, step, shard, &count);
        float *gradient = elastic_leaf(&trainer->elastic, shard);
        losses[shard] = 0.0;
        if (count > 0) {
            losses[shard] = compute(trainer, rows, count, samples, gradient, false, NULL);
        } else {
            device_zero(trainer->device, gradient, trainer->bert.layout.total * sizeof *gradient);
        }
        elastic_add(&trainer->elastic, shard);
    }
}

static bool diverged(const Trainer *trainer, const StepResult *result, const int64_t *rows, int count, Error *error) {
    char listed[1024] = "";
    for (int i = 0; i < count; i++) {
        const size_t used = strlen(listed);
        snprintf(listed + used, sizeof listed - used, "%s%lld", i ? ", " : "",
                 (long long)trainer->train.reviews.source_row[rows[i]]);
    }
    return error_set(
        error, EX_DIVERGED,
        "diverged at step %lld: loss %g, gradient norm %g; the weights were not updated. Rows of the batch "
        "(0-based rows of the CSV): %s",
        (long long)trainer->progress.step + 1, fabs(result->loss), fabs(result->gradient_norm), listed);
}

static int64_t batch_tokens(const Reviews *reviews, const int64_t *rows, int count) {
    int64_t tokens = 0;
    for (int i = 0; i < count; i++) { tokens += reviews->offsets[rows[i] + 1] - reviews->offsets[rows[i]]; }
    return tokens;
}

// Sums the gradient over the ranks.
static void reduce(Trainer *trainer) {
    watchdog_phase(WATCH_REDUCE, trainer->progress.step + 1);
    const size_t bytes = trainer->bert.layout.total * sizeof(float), ranks = (size_t)trainer->comm.local_size;
    profile_enter(trainer->profile, PHASE_REDUCTION, 0,
                  (double)bytes * (double)(ranks > 1 ? ranks + 2 : 1) / (double)ranks);
    reducer_sum(trainer->reducer);
}

// This rank's part of the sum of the squares of the gradient.
static double own_squares(Trainer *trainer) {
    int count;
    const Slice *slices = reducer_slices(trainer->reducer, &count);
    const float *gradient = reducer_summed(trainer->reducer);
    double squares = 0.0;
    for (int i = 0; reducer_counts(trainer->reducer) && i < count; i++) {
        squares += square_sum(trainer->device, gradient + slices[i].begin, slices[i].end - slices[i].begin);
    }
    return squares;
}

static void update(Trainer *trainer, AdamW adamw) {
    watchdog_phase(WATCH_STEP, trainer->progress.step + 1);
    const size_t bytes = trainer->bert.layout.total * sizeof(float);
    const OptimizerBuffers buffers = {trainer->parameters, trainer->first_moment, trainer->second_moment,
                                      reducer_summed(trainer->reducer)};
    int count;
    const Slice *slices = reducer_slices(trainer->reducer, &count);
    profile_enter(trainer->profile, PHASE_ADAMW, 0, 7.0 * (double)bytes / trainer->comm.local_size);
    optimizer_update(trainer->device, buffers, &trainer->bert.layout, slices, count, trainer->config.weight_decay_scope,
                     adamw);
    reducer_publish(trainer->reducer);
    profile_leave(trainer->profile);
    if (trainer->profile) { trainer->profile->steps++; }
}

// What every step leaves behind, of whichever kind.
static void count_step(Trainer *trainer, const StepResult *result, float decay) {
    if (trainer->comm.rank == 0 && trainer->use != TRAINER_BENCH) {
        if (trainer->decay_count == sizeof trainer->decays / sizeof trainer->decays[0]) {
            trainer_decay_tables(trainer);
        }
        trainer->decays[trainer->decay_count++] = decay;
    }
    trainer->progress.step++;
    trainer->progress.epoch_loss += result->loss;
}

// The step after progress.step, whose factors are adamw, is computed by the host's order.
static bool direct_step(Trainer *trainer, StepResult *result, Error *error) {
    const double begin = seconds_now();
    const int64_t step = trainer->progress.step % trainer->batches.steps;
    const int64_t *rows;
    int samples;
    batches_global(&trainer->batches, step, &rows, &samples);
    double sums[3] = {0.0, 0.0, stop_requested()};  // loss, squares of the gradient, ranks asked to stop
    if (trainer->config.determinism == DETERMINISM_ELASTIC) {
        double *losses = check_calloc((size_t)trainer->batches.micro_batches, sizeof *losses);
        accumulate_shards(trainer, step, samples, losses);
        reduce(trainer);
        sums[0] = elastic_loss(&trainer->elastic, losses);
        sums[1] = elastic_squares(&trainer->elastic);
        comm_sum(&trainer->comm, &sums[2], 1);
        free(losses);
    } else {
        sums[0] = accumulate(trainer, step, samples);
        reduce(trainer);
        sums[1] = own_squares(trainer);
        comm_sum(&trainer->comm, sums, 3);
    }
    result->loss = sums[0] / samples;
    result->gradient_norm = sqrt(sums[1]);
    result->stop = sums[2] > 0;
    if (!isfinite(result->loss) || !isfinite(result->gradient_norm)) {
        return diverged(trainer, result, rows, samples, error);
    }
    const AdamW adamw =
        optimizer_factors(&trainer->config, result->learning_rate, trainer->progress.step + 1, result->gradient_norm);
    update(trainer, adamw);
    count_step(trainer, result, adamw.decay);
    result->seconds = seconds_now() - begin;
    return true;
}

// Where the host needs the weights of a step: the run ends, or a checkpoint is due.
static int64_t next_halt(const Trainer *trainer) {
    const int64_t save = trainer->config.save_steps, step = trainer->progress.step;
    const int64_t halt = save ? (step / save + 1) * save : INT64_MAX;
    if (trainer->use == TRAINER_BENCH) { return INT64_MAX; }
    return halt < trainer->last_step ? halt : trainer->last_step;
}

static bool recorded_next(Trainer *trainer, StepResult *result, Error *error) {
    const int64_t *rows;
    int samples;
    batches_global(&trainer->batches, trainer->progress.step % trainer->batches.steps, &rows, &samples);
    RecordedStep step;
    const bool finite = recorded_step(trainer->recorded, next_halt(trainer), &step);
    result->loss = step.loss / samples;
    result->gradient_norm = sqrt(step.squares);
    result->stop = step.stop;
    result->seconds = step.seconds;
    if (!finite) { return diverged(trainer, result, rows, samples, error); }
    count_step(trainer, result, step.decay);
    return true;
}

bool trainer_step(Trainer *trainer, StepResult *result, Error *error) {
    watchdog_phase(WATCH_STEP, trainer->progress.step + 1);
    const int64_t step = trainer->progress.step % trainer->batches.steps;
    const int64_t *rows;
    int samples;
    batches_global(&trainer->batches, step, &rows, &samples);
    *result =
        (StepResult){.learning_rate = schedule_rate(&trainer->config, trainer->progress.step, trainer->total_steps),
                     .tokens = batch_tokens(&trainer->train.reviews, rows, samples),
                     .samples = samples};
    return (trainer->recorded ? recorded_next : direct_step)(trainer, result, error);
}
