// One training step: this rank's share of the global batch forward and backward, the sum over the ranks, AdamW.
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static AdamW adamw_of(const Config *config, double rate, int64_t step, double gradient_scale) {
    const double beta1 = config->adam_beta1, beta2 = config->adam_beta2;
    return (AdamW){.gradient_scale = (float)gradient_scale,
                   .decay = (float)(1.0 - rate * config->weight_decay),
                   .rest1 = (float)(1.0 - beta1),
                   .beta2 = (float)beta2,
                   .rest2 = (float)(1.0 - beta2),
                   .step_size = (float)(rate / (1.0 - pow(beta1, (double)step))),
                   .root_correction = (float)sqrt(1.0 - pow(beta2, (double)step)),
                   .epsilon = (float)config->adam_epsilon};
}

// One call for each run of neighbouring tensors with the same decay; with the scope `all` that is the whole buffer.
static void update(Trainer *trainer, AdamW adamw) {
    const Layout *layout = &trainer->bert.layout;
    const bool everything = trainer->config.weight_decay_scope == DECAY_ALL;
    const float *gradient = reducer_gradient(trainer->reducer);
    AdamW plain = adamw;
    plain.decay = 1.0f;
    for (int i = 0; i < layout->count;) {
        const bool decay = everything || layout->tensors[i].decay;
        const size_t begin = layout->tensors[i].offset;
        while (i < layout->count && (everything || layout->tensors[i].decay) == decay) { i++; }
        const size_t end = i < layout->count ? layout->tensors[i].offset : layout->total;
        adamw_update(trainer->device, trainer->parameters + begin, trainer->first_moment + begin,
                     trainer->second_moment + begin, gradient + begin, decay ? adamw : plain, end - begin);
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
        (long long)trainer->progress.step + 1, result->loss, result->gradient_norm, listed);
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
    const double clipped = config->max_grad_norm > 0 ? config->max_grad_norm / (result->gradient_norm + 1e-6) : 1.0;
    const AdamW adamw = adamw_of(config, result->learning_rate, trainer->progress.step + 1, fmin(clipped, 1.0));
    update(trainer, adamw);
    if (trainer->comm.rank == 0) { trainer->decays[trainer->decay_count++] = adamw.decay; }
    trainer->progress.step++;
    trainer->progress.epoch_loss += result->loss;
    result->seconds = seconds_now() - begin;
    return true;
}
