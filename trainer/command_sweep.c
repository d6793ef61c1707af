// `bertune sweep`: many trials of one configuration; see sweep.h.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/commands.h"
#include "trainer/number.h"
#include "trainer/stop.h"
#include "trainer/sweep/sweep_local.h"
#include "trainer/sweep/sweep_table.h"
#include "trainer/trainer.h"

static const char usage[] =
    "Usage: bertune sweep SWEEP.yaml [KEY=VALUE ...] [OPTION ...]\n"
    "       mpirun -np N bertune sweep SWEEP.yaml ...\n"
    "Trains many trials of a configuration and finds the best of them, on the development rows that\n"
    "`bertune prepare --dev-size` cuts from the training rows; then trains that one on all training rows\n"
    "and scores it on the validation rows. KEY=VALUE is for the configuration of every trial. Started\n"
    "again, it goes on where it was; several processes and jobs may work on one sweep at once.\n\n"
    "  --jobs K          workers of one rank each, side by side on processors or GPUs of their own [1]\n"
    "  --trial N         only trial N (from 0), for a job array, and what becomes ready through it\n"
    "  --dry-run         print the trials and leave\n"
    "  --help, --version\n\n"
    "Under mpirun or srun groups of ranks_per_trial ranks take up trials as they become free.\n\n"
    "SWEEP.yaml, in the words of Weights & Biases:\n"
    "  name: NAME                      [sweep]\n"
    "  config: CONFIG.yaml             of every trial [configs/waimai.yaml]\n"
    "  dir: DIRECTORY                  where everything goes [runs/NAME]\n"
    "  method: grid | random\n"
    "  metric: {name: validation_accuracy, goal: maximize}\n"
    "  parameters:\n"
    "    train.learning_rate: {values: [1e-4, 3e-4]}\n"
    "    train.weight_decay: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}\n"
    "    model.path, data.path: {values: [[models/a, data/a.h5], [models/b, data/b.h5]]}   go together\n"
    "  early_terminate: {type: hyperband, min_iter: 1, eta: 3}   compare after epochs 1, 3, 9, ...\n"
    "  run_cap: N                      trials at most; random needs it\n"
    "  seed: N                         of random values [2023]\n"
    "  ranks_per_trial: N              [1]\n"
    "  split: dev | validation         validation: compare on it, and train no winner anew [dev]\n";

typedef struct {
    int jobs, trial;  // trial -1: all
    bool dry_run;
} Options;

static const struct option long_options[] = {{"jobs", required_argument, NULL, 'j'},
                                             {"trial", required_argument, NULL, 't'},
                                             {"dry-run", no_argument, NULL, 'd'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

// Prints and writes the results when the sweep has come to its end. Returns the exit code.
static int report(const Sweep *sweep, WorkEnd end) {
    Board board;
    Error error;
    if (end == WORK_LEFT) { fprintf(stderr, "bertune: %s: other trials are left, or being trained\n", sweep->dir); }
    if (end == WORK_STOPPED) {
        fprintf(stderr, "bertune: stopped early; run the same command again to go on\n");
        return EX_TEMPFAIL;
    }
    if (end == WORK_LEFT) { return EX_OK; }
    bool ok = board_open(&board, sweep, "", 1, &error) && board_read(&board, &error);
    ok = ok && sweep_table_write(&board, &error);
    if (ok) { board_tidy(sweep); }
    const int best = ok ? board_best(&board) : -1;
    if (ok) { sweep_table_print(&board, stdout); }
    if (ok && best < 0) {
        ok = error_set(&error, EX_CONFIG,
                       "%s: no trial was trained to its end; mend the cause and remove %s/results to try again",
                       sweep->dir, sweep->dir);
    } else if (ok && board.winner.known && board.winner.status != TRIAL_FINISHED) {
        const int code = board.winner.status == TRIAL_DIVERGED ? EX_DIVERGED : EX_CONFIG;
        ok = error_set(&error, code, "%s: the winner's training on all rows came to nothing: %s", sweep->dir,
                       board.winner.error);
    }
    board_close(&board);
    if (!ok) { print_error(&error); }
    return ok ? EX_OK : error.code;
}

static bool check_ranks(const Sweep *sweep, int ranks, int only, Error *error) {
    if (ranks % sweep->ranks_per_trial == 0 && (only < 0 || ranks == sweep->ranks_per_trial)) { return true; }
    return error_set(error, EX_CONFIG, "%d rank%s, but ranks_per_trial is %d: start %s%d with mpirun -np", ranks,
                     ranks == 1 ? "" : "s", sweep->ranks_per_trial, only < 0 ? "a multiple of " : "",
                     sweep->ranks_per_trial);
}

// Collective. The largest end counts: a group that was stopped or failed tells for all.
static bool agree_on_end(const Comm *comm, WorkEnd *end, Error *error) {
    int worst = (int)*end;
    if (!comm_agree(comm, *end != WORK_FAILED, error)) { return false; }
    comm_largest(comm, &worst, 1);
    *end = (WorkEnd)worst;
    return true;
}

// Rank 0 only. So that what is wrong with the directory is said once.
static bool take_up(const Sweep *sweep, Error *error) {
    Board board;
    const bool ok = board_open(&board, sweep, "", 1, error);
    board_close(&board);
    return ok;
}

// Collective. Cuts the ranks into groups that work. A group that fails says so and waits until the others are through
// with what they can do.
static bool work_in_groups(const Sweep *sweep, const Comm *comm, int only, WorkEnd *end, Error *error) {
    Comm group;
    char name[128];
    comm_split(comm, sweep->ranks_per_trial, &group);
    snprintf(name, sizeof name, "%s:%d", comm->host, comm->rank);
    *end = sweep_work(sweep, &group, name, only, error);
    if (*end == WORK_FAILED && group.rank == 0) { fprintf(stderr, "bertune: worker %s: %s\n", name, error->text); }
    comm_gather_all(comm);
    comm_finish(&group);
    return agree_on_end(comm, end, error);
}

// Groups of ranks under mpirun or srun. Returns the exit code.
static int farm(const Sweep *sweep, int only) {
    Comm comm;
    Error error;
    WorkEnd end = WORK_DONE;
    bool ok = trainer_start(&comm, sweep->base.step_timeout, &error) && check_ranks(sweep, comm.size, only, &error) &&
              comm_agree(&comm, comm.rank != 0 || take_up(sweep, &error), &error);
    if (!ok && comm.rank == 0) { print_error(&error); }
    if (ok) {
        stop_watch(sweep->base.max_time);
        ok = work_in_groups(sweep, &comm, only, &end, &error);
    }
    int code = ok ? EX_OK : error.code;
    if (ok && comm.rank == 0) { code = report(sweep, end); }
    if (ok) { comm_broadcast(&comm, &code, sizeof code); }
    trainer_end(&comm);
    return code;
}

static int local(const Sweep *sweep, const Options *options) {
    Error error;
    if (!check_ranks(sweep, 1, -1, &error)) {
        print_error(&error);
        return error.code;
    }
    const WorkEnd end = sweep_local(sweep, options->trial < 0 ? options->jobs : 1, options->trial, &error);
    return end == WORK_FAILED ? error.code : report(sweep, end);
}

static bool launched(void) { return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_NAMESPACE"); }

static int run(const Options *options, char *const *arguments, int count) {
    Sweep sweep;
    Error error;
    const int rank = getenv("PMIX_RANK") ? atoi(getenv("PMIX_RANK")) : 0;
    int code;
    bool ok = sweep_load(&sweep, arguments[0], arguments + 1, count - 1, &error);
    if (ok && options->trial >= sweep.trials) {
        ok = error_set(&error, EX_USAGE, "--trial %d: the sweep has trials 0 to %d", options->trial, sweep.trials - 1);
    }
    if (!ok) {
        if (rank == 0) { print_error(&error); }
        code = error.code;
    } else if (options->dry_run) {
        if (rank == 0) { sweep_table_plan(&sweep, stdout); }
        code = EX_OK;
    } else {
        code = launched() ? farm(&sweep, options->trial) : local(&sweep, options);
    }
    sweep_free(&sweep);
    return code;
}

int command_sweep(int argc, char **argv) {
    Options options = {.jobs = 1, .trial = -1};
    double number;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
            case 'j':
                if (!number_parse_integer(optarg, &number) || number < 1 || number > 4096) {
                    return usage_error("sweep", "--jobs: expected an integer from 1, found `%s`", optarg);
                }
                options.jobs = (int)number;
                break;
            case 't':
                if (!number_parse_integer(optarg, &number) || number < 0 || number >= SWEEP_TRIALS) {
                    return usage_error("sweep", "--trial: expected an integer from 0, found `%s`", optarg);
                }
                options.trial = (int)number;
                break;
            case 'd':
                options.dry_run = true;
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("sweep", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (optind == argc) { return usage_error("sweep", "expected a SWEEP.yaml"); }
    return run(&options, argv + optind, argc - optind);
}
