// The end of an epoch and of a run: evaluation, reports, checkpoints.
#include <stdlib.h>

#include "comm/rounds.h"
#include "datasets/file.h"
#include "trainer/classifier.h"
#include "trainer/number.h"
#include "trainer/replicas.h"
#include "trainer/trainer.h"

// Room for batches of a size; a tenth to spare, so that few epochs ask for more. True when there is a new state.
static bool make_room(Trainer *trainer, int sequences, int tokens) {
    if (sequences <= trainer->state_sequences && tokens <= trainer->state_tokens) { return false; }
    if (sequences > trainer->state_sequences) { trainer->state_sequences = sequences; }
    if (tokens > trainer->state_tokens) { trainer->state_tokens = tokens + tokens / 10; }
    bert_state_close(trainer->state);
    batch_free(&trainer->batch);
    trainer->state = bert_state_open(trainer->device, &trainer->bert, trainer->state_sequences, trainer->state_tokens,
                                     trainer->bert.P, true);
    bert_state_profile(trainer->state, trainer->profile);
    batch_alloc(&trainer->batch, trainer->state_sequences, trainer->state_tokens);
    trainer->losses = check_realloc(trainer->losses, (size_t)trainer->state_sequences, sizeof *trainer->losses);
    return true;
}

void trainer_begin_epoch(Trainer *trainer, int64_t epoch) {
    watchdog_phase(WATCH_LOAD, trainer->progress.step);
    int sizes[2];
    batches_epoch(&trainer->batches, epoch, &sizes[0], &sizes[1]);
    if (!trainer->recorded) {
        make_room(trainer, sizes[0], sizes[1]);
        return;
    }
    // NCCL wants its sums recorded by all ranks at the same time.
    comm_largest(&trainer->comm, sizes, 2);
    if (make_room(trainer, sizes[0], sizes[1])) { recorded_use_state(trainer->recorded, trainer->state); }
    const int64_t end = (epoch + 1) * trainer->batches.steps;
    recorded_begin(trainer->recorded, trainer->progress.step, end);
    run_log(trainer->log, "epoch %lld: steps are replays of a graph of %d launches", (long long)epoch + 1,
            recorded_nodes(trainer->recorded));
}

static bool go_on(void *rounds) { return rounds_turn(rounds) == ROUNDS_GO_ON; }

// Losses and predictions of the validation rows, on rank 0 (root) or on all ranks (all). False on all ranks when one
// was asked to stop.
static bool evaluate(Trainer *trainer, float *losses, float *predictions, bool (*asked)(void)) {
    const Reviews *reviews = &trainer->validation.reviews;
    const bool all = trainer->config.evaluation_ranks == RANKS_ALL;
    const int64_t first = all ? trainer->validation.first : 0, count = all ? trainer->validation.count : reviews->rows;
    const size_t classes = (size_t)trainer->bert.C;
    Rounds rounds = rounds_begin(&trainer->comm, asked);
    if (!all && trainer->comm.rank != 0) { return rounds_end(&rounds) == ROUNDS_DONE; }
    float *logits = check_calloc((size_t)count * classes, sizeof *logits);
    trainer->inference.go_on = go_on;
    trainer->inference.context = &rounds;
    const bool ended = inference_run(&trainer->inference, trainer->parameters, reviews, trainer->word_row, first, count,
                                     logits, losses + first) &&
                       rounds_end(&rounds) == ROUNDS_DONE;
    for (int64_t i = 0; i < count; i++) {
        predictions[first + i] = (float)largest_of(logits + (size_t)i * classes, trainer->bert.C);
    }
    free(logits);
    if (ended && all) {  // the others' rows are zero here, so that the sums are exact
        comm_sum_floats(&trainer->comm, losses, reviews->rows);
        comm_sum_floats(&trainer->comm, predictions, reviews->rows);
    }
    return ended;
}

static void report(Trainer *trainer, int64_t epoch, double train_loss, const Scores *scores, double seconds) {
    if (trainer->use == TRAINER_RUN) {
        progress_clear(&trainer->bar);
        printf("Epoch %lld: Average training loss = %s\n", (long long)epoch, number_format(train_loss).text);
        printf("Epoch %lld: Validation Loss = %s, Validation Accuracy = %s\n", (long long)epoch,
               number_format(scores->loss).text, number_format(scores->batch_accuracy).text);
        fflush(stdout);
    }
    Metrics *metrics = &trainer->metrics;
    metrics_begin(metrics, "epoch");
    metrics_integer(metrics, "epoch", epoch);
    metrics_real(metrics, "train_loss", train_loss);
    metrics_real(metrics, "validation_loss", scores->loss);
    metrics_real(metrics, "validation_accuracy", scores->batch_accuracy);
    metrics_real(metrics, "accuracy", scores->accuracy);
    metrics_real(metrics, "f1", scores_f1(scores));
    metrics_confusion(metrics, scores);
    metrics_real(metrics, "seconds", seconds);
    metrics_end(metrics);
    run_log(trainer->log, "epoch %lld: train loss %.6f, validation loss %.6f, accuracy %.4f, %.1f s", (long long)epoch,
            train_loss, scores->loss, scores->batch_accuracy, seconds);
}

bool trainer_epoch_open(const Trainer *trainer) {
    const Progress *progress = &trainer->progress;
    return progress->step > 0 && progress->step % trainer->batches.steps == 0 && progress->epoch_loss != 0.0;
}

bool trainer_end_epoch(Trainer *trainer, int64_t epoch, double seconds, bool (*asked)(void)) {
    watchdog_phase(WATCH_EVALUATE, trainer->progress.step);
    const Reviews *reviews = &trainer->validation.reviews;
    const size_t rows = (size_t)reviews->rows;
    float *losses = check_calloc(rows, sizeof *losses), *guesses = check_calloc(rows, sizeof *guesses);
    const bool ended = evaluate(trainer, losses, guesses, asked);
    if (ended && trainer->comm.rank == 0) {
        int32_t *predictions = check_calloc(rows, sizeof *predictions);
        for (size_t i = 0; i < rows; i++) { predictions[i] = (int32_t)guesses[i]; }
        Scores scores;
        scores_compute(&scores, losses, predictions, reviews->labels, reviews->rows, trainer->bert.C,
                       trainer->config.evaluation_batch_size);
        report(trainer, epoch, trainer->progress.epoch_loss / (double)trainer->batches.steps, &scores, seconds);
        if (scores.batch_accuracy > trainer->progress.best_accuracy) {
            trainer->progress.best_accuracy = scores.batch_accuracy;
            trainer->progress.best_step = trainer->progress.step;
        }
        scores_free(&scores);
        free(predictions);
    }
    if (ended) { trainer->progress.epoch_loss = 0.0; }
    free(losses);
    free(guesses);
    return ended;
}

void trainer_decay_tables(Trainer *trainer) {
    weights_decay_tables(&trainer->weights, &trainer->bert, &trainer->model.config, trainer->decays,
                         trainer->decay_count);
    trainer->decay_count = 0;
}

// Brings the host's copy of the weights and moments up to date, and the rows that are not trained.
static Snapshot snapshot_of(Trainer *trainer, float *moments) {
    const size_t total = trainer->bert.layout.total, bytes = total * sizeof(float);
    device_download(trainer->device, trainer->weights.parameters, trainer->parameters, bytes);
    if (moments) {
        device_download(trainer->device, moments, trainer->first_moment, bytes);
        device_download(trainer->device, moments + total, trainer->second_moment, bytes);
    }
    trainer_decay_tables(trainer);
    return (Snapshot){&trainer->model,  &trainer->bert, &trainer->weights, moments, moments ? moments + total : NULL,
                      trainer->progress};
}

static bool save_checkpoint(Trainer *trainer, Error *error) {
    const double begin = seconds_now();
    float *moments = check_calloc(2 * trainer->bert.layout.total, sizeof *moments);
    const Snapshot snapshot = snapshot_of(trainer, moments);
    metrics_sync(&trainer->metrics);  // a run that goes on from here has the lines of all steps before
    const bool ok = checkpoint_save(&snapshot, trainer->run.checkpoints, error);
    free(moments);
    if (!ok) { return false; }
    checkpoint_retain(trainer->run.checkpoints, trainer->config.save_total_limit, trainer->progress.best_step);
    char path[RUN_PATH];
    snprintf(path, sizeof path, "checkpoints/step-%08lld", (long long)trainer->progress.step);
    metrics_begin(&trainer->metrics, "checkpoint");
    metrics_integer(&trainer->metrics, "step", trainer->progress.step);
    metrics_text(&trainer->metrics, "path", path);
    metrics_real(&trainer->metrics, "seconds", seconds_now() - begin);
    metrics_end(&trainer->metrics);
    run_log(trainer->log, "checkpoint %s in %.2f s", path, seconds_now() - begin);
    return true;
}

bool trainer_save(Trainer *trainer, Error *error) {
    watchdog_phase(WATCH_SAVE, trainer->progress.step);
    const bool alike = replicas_alike(&trainer->comm, trainer->device, trainer->parameters, trainer->bert.layout.total,
                                      trainer->progress.step, error);
    if (!alike) { return false; }
    const bool ok = trainer->comm.rank != 0 || save_checkpoint(trainer, error);
    return comm_agree(&trainer->comm, ok, error);
}

static bool write_end(Trainer *trainer, Error *error) {
    const Snapshot snapshot = snapshot_of(trainer, NULL);
    if (!checkpoint_write_final(&snapshot, trainer->run.path, error)) { return false; }
    metrics_begin(&trainer->metrics, "end");
    metrics_integer(&trainer->metrics, "steps", trainer->progress.step);
    metrics_real(&trainer->metrics, "seconds", seconds_now() - trainer->started);
    metrics_real(&trainer->metrics, "seconds_train", trainer->seconds_train);
    metrics_end(&trainer->metrics);
    return true;
}

bool trainer_finish(Trainer *trainer, Error *error) {
    watchdog_phase(WATCH_FINAL, trainer->progress.step);
    const bool ok = trainer->comm.rank != 0 || write_end(trainer, error);
    return comm_agree(&trainer->comm, ok, error);
}
