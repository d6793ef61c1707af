// See sweep_work.h. The first rank of the group looks for work and reports; the others train with it.
#include "trainer/sweep/sweep_work.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/checkpoint.h"
#include "trainer/metrics.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

typedef struct {
    const Sweep *sweep;
    const Comm *group;
    int only;
    Board board;    // first rank
    Claim claim;    // first rank
    bool *cleared;  // (trials) first rank: those stopped whose checkpoints are removed
} Worker;

// What the group does next.
typedef struct {
    bool train;
    WorkEnd end;          // unless it trains
    int64_t pause_epoch;  // 0: to the end
} Order;

static SegmentState state_of(const Board *board, int trial, int segment) {
    return board->states[(size_t)trial * (size_t)board->most + (size_t)segment];
}

// Whether this worker is to begin trials; the others' further segments it takes all the same.
static bool begins(const Worker *worker, int trial) { return worker->only < 0 || worker->only == trial; }

// Claims the ready segment that is nearest to its trial's end, in the order of the board.
static bool claim_segment(Worker *worker, bool *taken, Error *error) {
    Board *board = &worker->board;
    for (int s = board->most - 1; s >= 0; s--) {
        for (int i = 0; i < worker->sweep->trials; i++) {
            const int t = board->order[i];
            if (s >= board->segments[t] || state_of(board, t, s) != SEGMENT_READY) { continue; }
            if (s == 0 && !begins(worker, t)) { continue; }
            if (!board_claim(board, t, s, &worker->claim, taken, error)) { return false; }
            if (*taken) { return true; }
        }
    }
    return true;
}

// Where results were removed by hand, another trial may have won before: its checkpoints are not to be gone on from.
static bool clear_other_winner(const char *directory, int trial, Error *error) {
    RunDirectory run;
    char path[RUN_PATH], wanted[64], *found;
    size_t length;
    run_directory_init(&run, directory);
    path_join(path, sizeof path, directory, "trial.json");
    snprintf(wanted, sizeof wanted, "{\"trial\": %d}\n", trial);
    if (access(path, F_OK) == 0) {
        if (!file_read(&found, &length, path, 1 << 16, error)) { return false; }
        const bool same = strcmp(found, wanted) == 0;
        free(found);
        if (same) { return true; }
    }
    checkpoint_cut_back(run.checkpoints, 0);
    checkpoint_remove_final(directory);
    return directory_create(directory, error) && file_write(path, wanted, strlen(wanted), error);
}

static bool order_training(const Worker *worker, Order *order, Config *config, Error *error) {
    const Sweep *sweep = worker->sweep;
    const Claim *claim = &worker->claim;
    order->train = true;
    order->pause_epoch = 0;
    if (claim->trial == BOARD_WINNER) {
        const int best = board_best(&worker->board);
        sweep_winner_config(sweep, best, config);
        return clear_other_winner(config->run_dir, best, error);
    }
    sweep_trial_config(sweep, claim->trial, config);
    if (claim->segment < sweep_segments(sweep, claim->trial) - 1) {
        order->pause_epoch = sweep_segment_epoch(sweep, claim->trial, claim->segment);
    }
    return true;
}

// The claim of what can be done now, if any; *done: there is nothing left to do, now or later.
static bool claim_any(Worker *worker, bool *taken, bool *done, Error *error) {
    Board *board = &worker->board;
    *taken = *done = board->doubtful = false;
    if (!board_read(board, error)) { return false; }
    if (!board_settled(board)) { return claim_segment(worker, taken, error); }
    *done = !worker->sweep->dev || board->winner.known || board_best(board) < 0;
    return *done || board_claim(board, BOARD_WINNER, 0, &worker->claim, taken, error);
}

// Stops to ask are noticed meanwhile, and the watchdog sees a rank that lives.
static void rest(double seconds) {
    const double end = seconds_now() + seconds;
    do {
        const struct timespec moment = {0, 20000000};
        watchdog_beat();
        nanosleep(&moment, NULL);
    } while (seconds_now() < end && !stop_requested());
}

// First rank only. Waits until there is something to do, or a reason to leave.
static bool find_work(Worker *worker, Order *order, Config *config, Error *error) {
    // Many workers that wait for many others are not to wear out the file system.
    const double longest = fmin(0.5 + 0.01 * worker->sweep->trials, 5.0);
    for (double pause = 0.02;; pause = fmin(2.0 * pause, longest)) {
        bool taken, done;
        order->train = false;
        if (stop_requested()) {
            order->end = WORK_STOPPED;
            return true;
        }
        if (!claim_any(worker, &taken, &done, error)) { return false; }
        if (taken) { return order_training(worker, order, config, error); }
        if (done || (worker->only >= 0 && !worker->board.doubtful)) {  // a lost node's work is for whoever is left
            order->end = done ? WORK_DONE : WORK_LEFT;
            return true;
        }
        rest(pause);
    }
}

// The figures of the last epoch of a run.
static bool read_figures(const Worker *worker, const Config *config, TrialResult *result, Error *error) {
    RunDirectory run;
    run_directory_init(&run, config->run_dir);
    json_t *epoch = metrics_last_epoch(run.metrics, error);
    if (!epoch) { return false; }
    result->epochs = json_integer_value(json_object_get(epoch, "epoch"));
    result->metric = board_number(epoch, worker->sweep->metric);
    result->validation_loss = board_number(epoch, "validation_loss");
    result->accuracy = board_number(epoch, "accuracy");
    result->f1 = board_number(epoch, "f1");
    json_decref(epoch);
    return true;
}

// Errors of one trial; others would meet every trial.
static bool is_result(int code) {
    return code == EX_DIVERGED || code == EX_CONFIG || code == EX_DATAERR || code == EX_NOINPUT;
}

static void say(const Worker *worker, const TrialResult *result) {
    const Claim *claim = &worker->claim;
    char who[32] = "winner";
    if (isatty(STDERR_FILENO)) { fputs("\r\033[K", stderr); }  // in place of a bar
    if (claim->trial != BOARD_WINNER) { snprintf(who, sizeof who, "trial %d", claim->trial); }
    if (result->status == TRIAL_DIVERGED || result->status == TRIAL_FAILED) {
        fprintf(stderr, "bertune: %s %s: %s\n", who, trial_status_name(result->status), result->error);
        return;
    }
    fprintf(stderr, "bertune: %s after epoch %lld: %s %.4f (%.1f s on %s)\n", who, (long long)result->epochs,
            worker->sweep->metric, result->metric, result->end - result->begin, worker->board.worker);
}

// Collective. Trains what is claimed. *stopped: asked to stop before that was done.
static bool train(Worker *worker, const Order *order, const Config *config, TrialResult *result, bool *stopped,
                  Error *error) {
    Trainer trainer;
    const bool ok = trainer_open(&trainer, TRAINER_TRIAL, worker->group, config, error) &&
                    trainer_run(&trainer, order->pause_epoch, stopped, error);
    result->steps = trainer.progress.step;
    if (ok && order->pause_epoch && *stopped) {  // where it should have, unless it was asked to
        *stopped = trainer.progress.step < trainer.pause_step || trainer_epoch_open(&trainer);
        result->status = TRIAL_PAUSED;
    } else {
        result->status = TRIAL_FINISHED;
    }
    trainer_close(&trainer);
    return ok;
}

// First rank only. Reports what came of the training.
static bool report(Worker *worker, const Config *config, TrialResult *result, bool ok, bool stopped, Error *error) {
    if (stopped || (!ok && !is_result(error->code))) {
        board_release(&worker->claim);
        return ok;
    }
    if (!ok) {
        result->status = error->code == EX_DIVERGED ? TRIAL_DIVERGED : TRIAL_FAILED;
        result->metric = result->validation_loss = result->accuracy = result->f1 = NAN;
        snprintf(result->error, sizeof result->error, "%.500s", error->text);
    } else if (!read_figures(worker, config, result, error)) {
        board_release(&worker->claim);
        return false;
    }
    result->end = board_time();
    say(worker, result);
    return board_publish(&worker->board, &worker->claim, result, error);
}

// A trial that was paused for good needs its checkpoints no more.
static void remove_checkpoints(Worker *worker) {
    const Board *board = &worker->board;
    for (int t = 0; t < worker->sweep->trials; t++) {
        int s = 0;
        if (worker->cleared[t]) { continue; }
        while (s < board->segments[t] && board_result(board, t, s)->known) { s++; }
        if (s == 0 || s == board->segments[t] || state_of(board, t, s) != SEGMENT_NEVER ||
            board_result(board, t, s - 1)->status != TRIAL_PAUSED) {
            continue;
        }
        Config config;
        RunDirectory run;
        sweep_trial_config(worker->sweep, t, &config);
        run_directory_init(&run, config.run_dir);
        checkpoint_cut_back(run.checkpoints, 0);
        worker->cleared[t] = true;
    }
}

// Collective. One piece of work.
static bool do_work(Worker *worker, Order *order, Error *error) {
    const Comm *group = worker->group;
    Config config = {0};
    bool ok = group->rank != 0 || find_work(worker, order, &config, error);
    if (!comm_agree(group, ok, error)) { return false; }
    comm_broadcast(group, order, sizeof *order);
    if (!order->train) { return true; }
    TrialResult result = {.known = true, .begin = worker->claim.begin};
    bool stopped = false;
    ok = train(worker, order, &config, &result, &stopped, error);
    if (group->rank == 0) { ok = report(worker, &config, &result, ok, stopped, error); }
    ok = comm_agree(group, group->rank != 0 || ok, error);
    if (ok && group->rank == 0 && board_read(&worker->board, error)) { remove_checkpoints(worker); }
    return ok;
}

WorkEnd sweep_work(const Sweep *sweep, const Comm *group, const char *name, int only, Error *error) {
    Worker worker = {.sweep = sweep, .group = group, .only = only};
    Order order = {.train = true};
    worker.cleared = check_calloc((size_t)sweep->trials, sizeof *worker.cleared);
    bool ok = comm_agree(group, group->rank != 0 || board_open(&worker.board, sweep, name, group->size, error), error);
    while (ok && order.train) { ok = do_work(&worker, &order, error); }
    board_release(&worker.claim);  // of work that could not be begun
    free(worker.cleared);
    board_close(&worker.board);
    return ok ? order.end : WORK_FAILED;
}
