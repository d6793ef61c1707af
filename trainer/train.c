// `bertune train`: the order of a run.
#include <string.h>

#include "trainer/commands.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

static void report_step(Trainer *trainer, const StepResult *result, int64_t samples_done) {
    Metrics *metrics = &trainer->metrics;
    const int64_t step = trainer->progress.step, per_epoch = trainer->batches.steps;
    metrics_begin(metrics, "step");
    metrics_integer(metrics, "step", step);
    metrics_integer(metrics, "epoch", (step - 1) / per_epoch + 1);
    metrics_real(metrics, "loss", result->loss);
    metrics_real(metrics, "learning_rate", result->learning_rate);
    metrics_real(metrics, "grad_norm", result->gradient_norm);
    metrics_integer(metrics, "tokens", result->tokens);
    metrics_integer(metrics, "samples", result->samples);
    metrics_real(metrics, "seconds", result->seconds);
    metrics_end(metrics);
    if (trainer->use != TRAINER_RUN) { return; }
    char note[64];
    snprintf(note, sizeof note, "epoch %lld/%lld  loss %.4f", (long long)((step - 1) / per_epoch + 1),
             (long long)((trainer->last_step + per_epoch - 1) / per_epoch), result->loss);
    progress_update(&trainer->bar, step, trainer->last_step, (double)samples_done, note);
}

// Saves, and asks whether a rank was asked to stop meanwhile.
static bool save(Trainer *trainer, bool *stopped, Error *error) {
    if (!trainer_save(trainer, error)) { return false; }
    double asked = stop_requested();
    comm_sum(&trainer->comm, &asked, 1);
    *stopped = *stopped || asked > 0;
    return true;
}

// Evaluates and saves. A stop that is asked for before or meanwhile leaves the epoch open: a run that goes on from the
// checkpoint begins here.
static bool end_epoch(Trainer *trainer, double seconds, bool (*asked)(void), bool *stopped, Error *error) {
    const int64_t step = trainer->progress.step, best = trainer->progress.best_step;
    const int64_t every = trainer->config.save_steps;
    if (*stopped || !trainer_end_epoch(trainer, step / trainer->batches.steps, seconds, asked)) {
        *stopped = true;
        return trainer_save(trainer, error);
    }
    comm_broadcast(&trainer->comm, &trainer->progress, sizeof trainer->progress);
    const bool reopened = asked == stop_signalled;  // its checkpoint is of before the evaluation
    const bool due = every == 0 || step % every == 0 || trainer->progress.best_step != best || reopened ||
                     step == trainer->last_step || step == trainer->pause_step;
    return !due || save(trainer, stopped, error);
}

// Steps until the epoch or the run ends, or a stop is asked for (then *stopped).
static bool run_epoch(Trainer *trainer, int64_t epoch, bool *stopped, int64_t *samples, Error *error) {
    const double begin = seconds_now();
    const int64_t end = (epoch + 1) * trainer->batches.steps, every = trainer->config.save_steps;
    trainer_begin_epoch(trainer, epoch);
    while (trainer->progress.step < end && trainer->progress.step < trainer->last_step && !*stopped) {
        StepResult result;
        if (!trainer_step(trainer, &result, error)) { return false; }
        *samples += result.samples;
        if (trainer->comm.rank == 0) { report_step(trainer, &result, *samples); }
        if (!divergence_check(&trainer->progress.divergence, trainer->progress.step, result.loss,
                              trainer->config.divergence_factor, trainer->config.divergence_window, error)) {
            return false;
        }
        *stopped = result.stop;
        const int64_t step = trainer->progress.step;
        const bool due = (every && step % every == 0) || *stopped || step == trainer->last_step;
        if (step < end && due && !save(trainer, stopped, error)) { return false; }
    }
    trainer->seconds_train += seconds_now() - begin;
    return trainer->progress.step < end || end_epoch(trainer, seconds_now() - begin, stop_requested, stopped, error);
}

// Rank 0 only.
static void report_profile(Trainer *trainer) {
    progress_clear(&trainer->bar);
    profile_print(trainer->profile, stderr);
    metrics_begin(&trainer->metrics, "profile");
    metrics_json(&trainer->metrics, "profile", profile_json(trainer->profile));
    metrics_end(&trainer->metrics);
}

bool trainer_run(Trainer *trainer, int64_t pause_epoch, bool *stopped, Error *error) {
    int64_t samples = 0;
    *stopped = false;
    if (trainer->finished) { return true; }
    trainer->pause_step = pause_epoch * trainer->batches.steps;
    const int64_t last = trainer->pause_step ? trainer->pause_step : trainer->last_step;
    if (trainer->comm.rank == 0 && trainer->use == TRAINER_RUN) {
        progress_start(&trainer->bar, "train", "reviews", trainer->progress.step);
    }
    // Each run does a step or such an evaluation however little time it has, so that runs of short jobs come to an end.
    if (trainer_epoch_open(trainer) && !end_epoch(trainer, 0.0, stop_signalled, stopped, error)) { return false; }
    while (trainer->progress.step < last && !*stopped) {
        const int64_t epoch = trainer->progress.step / trainer->batches.steps;
        if (!run_epoch(trainer, epoch, stopped, &samples, error)) { return false; }
    }
    *stopped = trainer->progress.step < trainer->last_step || (*stopped && trainer_epoch_open(trainer));
    if (trainer->profile && trainer->comm.rank == 0) { report_profile(trainer); }
    return *stopped || trainer_finish(trainer, error);
}

static void say_end(const Trainer *trainer, bool stopped) {
    if (trainer->finished) {
        fprintf(stderr, "bertune: %s: finished already after %lld steps, nothing to do\n", trainer->run.path,
                (long long)trainer->progress.step);
    } else if (stopped) {
        fprintf(stderr, "bertune: stopped early at step %lld with a checkpoint; run the same command again to go on\n",
                (long long)trainer->progress.step);
    } else {
        fprintf(stderr, "bertune: done: %s\n", trainer->run.final);
    }
}

// Collective. Returns the exit code. What there is to say is said before the ranks part: mpirun ends all of them as
// soon as one has left with an exit code other than 0.
static int train(const Comm *comm, const Config *config) {
    Trainer trainer;
    Error error;
    bool stopped = false;
    const bool ok =
        trainer_open(&trainer, TRAINER_RUN, comm, config, &error) && trainer_run(&trainer, 0, &stopped, &error);
    if (comm->rank == 0) {
        progress_clear(&trainer.bar);
        if (ok) {
            say_end(&trainer, stopped);
        } else {
            print_error(&error);
        }
    }
    trainer_close(&trainer);
    return ok ? stopped ? EX_TEMPFAIL : EX_OK : error.code;
}

int command_train(int argc, char **argv) {
    static const char usage[] =
        "Usage: bertune train CONFIG.yaml [KEY=VALUE ...]\n"
        "       mpirun -np N bertune train CONFIG.yaml [KEY=VALUE ...]\n"
        "Fine-tunes a BERT classifier on a data set of `bertune prepare`, on all ranks together.\n\n"
        "  --print-defaults  a configuration file of all defaults (configs/default.yaml)\n"
        "  --help, --version\n\n"
        "Keys of the configuration and their defaults:\n";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            config_print_help(stdout);
            return EX_OK;
        }
        if (strcmp(argv[i], "--print-defaults") == 0) {
            config_print_defaults(stdout);
            return EX_OK;
        }
        if (argv[i][0] == '-' && argv[i][1]) { return usage_error("train", "unknown option `%s`", argv[i]); }
    }
    if (argc < 2) { return usage_error("train", "expected a CONFIG.yaml"); }
    Comm comm;
    Config config;
    Error error;
    int code = EX_OK;
    if (trainer_begin(&comm, &config, argv[1], argv + 2, argc - 2, &error)) {
        code = train(&comm, &config);
    } else {
        code = error.code;
        if (comm.rank == 0) { print_error(&error); }  // also when MPI was not started
    }
    trainer_end(&comm);
    return code;
}
