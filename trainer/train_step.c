// One training step: this rank's share of the global batch forward and backward, the sum over the ranks, AdamW.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/optimizer.h"
#include "trainer/schedule.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

// Adds the gradient of this rank's rows; the loss is divided by the rows of all ranks, so that gradients are summed.
static double accumulate(Trainer *trainer, int64_t step, int samples) {
    const DropoutKey key = {(uint64_t)trainer->config.seed, (uint32_t)trainer->progress.step};
    float *gradient = reducer_gradient(trainer->reducer), *losses = check_calloc((size_t)samples, sizeof *losses);
    double loss = 0.0;
    device_zero(trainer->device, gradient, trainer->bert.layout.total * sizeof(float));
    batches_deal(&trainer->batches, step);
    for (int micro = 0; micro < trainer->batches.micro_batches; micro++) {
        int count;
        const int64_t *rows = batches_micro(&trainer->batches, step, micro, &count);
        if (count == 0) { continue; }
        batch_fill(&trainer->batch, &trainer->train.reviews, trainer->word_row, rows, count);
        bert_forward(trainer->state, trainer->parameters, &trainer->batch, key, NULL, losses);
        for (int i = 0; i < count; i++) { loss += losses[i]; }
        bert_backward(trainer->state, gradient, trainer->parameters, 1.0f / (float)samples);
    }
    free(losses);
    return loss;
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

bool trainer_step(Trainer *trainer, StepResult *result, Error *error) {
    const double begin = seconds_now();
    const Config *config = &trainer->config;
    const int64_t step = trainer->progress.step % trainer->batches.steps;
    const int64_t *rows;
    int samples;
    batches_global(&trainer->batches, step, &rows, &samples);

    double sums[2] = {accumulate(trainer, step, samples), stop_requested()};
    reducer_sum(trainer->reducer);
    comm_sum(&trainer->comm, sums, 2);
    const double squares = square_sum(trainer->device, reducer_gradient(trainer->reducer), trainer->bert.layout.total);
    *result = (StepResult){.loss = sums[0] / samples,
                           .learning_rate = schedule_rate(config, trainer->progress.step, trainer->total_steps),
                           .gradient_norm = sqrt(squares),
                           .tokens = batch_tokens(&trainer->train.reviews, rows, samples),
                           .samples = samples,
                           .stop = sums[1] > 0};
    if (!isfinite(result->loss) || !isfinite(result->gradient_norm)) {
        return diverged(trainer, result, rows, samples, error);
    }
    const AdamW adamw =
        optimizer_factors(config, result->learning_rate, trainer->progress.step + 1, result->gradient_norm);
    optimizer_update(trainer->device, trainer->parameters, trainer->first_moment, trainer->second_moment,
                     reducer_gradient(trainer->reducer), &trainer->bert.layout, config->weight_decay_scope, adamw);
    if (trainer->comm.rank == 0) {
        if (trainer->decay_count == sizeof trainer->decays / sizeof trainer->decays[0]) {
            trainer_decay_tables(trainer);
        }
        trainer->decays[trainer->decay_count++] = adamw.decay;
    }
    trainer->progress.step++;
    trainer->progress.epoch_loss += result->loss;
    result->seconds = seconds_now() - begin;
    return true;
}
