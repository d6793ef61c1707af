// `bertune bench`: the phases of the training steps of a configuration, timed; nothing is written.
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/commands.h"
#include "trainer/config_options.h"
#include "trainer/number.h"
#include "trainer/trainer.h"

static const char usage[] =
    "Usage: bertune bench CONFIG.yaml [KEY=VALUE ...] [OPTION ...]\n"
    "       mpirun -np N bertune bench CONFIG.yaml ...\n"
    "Times the phases of training steps as `bertune train` would take them, beside the machine's\n"
    "multiply-add peak and copy bandwidth. Leaves no files. Of several ranks the figures are those of\n"
    "rank 0.\n\n"
    "  --steps N         steps to time, after 10 that are not [50]\n"
    "  --format FORMAT   text | json [text]\n"
    "  --help, --version\n";

enum { WARM_UP = 10 };

typedef struct {
    int64_t steps;
    bool json;
    double *seconds;  // (steps)
} Bench;

static const struct option long_options[] = {{"steps", required_argument, NULL, 's'},
                                             {"format", required_argument, NULL, 'f'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static bool take_steps(Trainer *trainer, Bench *bench, Error *error) {
    const int64_t per_epoch = trainer->batches.steps;
    for (int64_t i = -WARM_UP; i < bench->steps; i++) {
        if (i == 0) { profile_reset(trainer->profile); }
        if (trainer->progress.step % per_epoch == 0) {
            trainer_begin_epoch(trainer, trainer->progress.step / per_epoch);
        }
        StepResult result;
        if (!trainer_step(trainer, &result, error)) { return false; }
        if (i >= 0) { bench->seconds[i] = result.seconds; }
    }
    return true;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Rank 0 only.
static void report(const Trainer *trainer, Bench *bench) {
    char precision[16];
    option_format(&trainer->config, option_find("train.precision"), precision, sizeof precision);
    qsort(bench->seconds, (size_t)bench->steps, sizeof *bench->seconds, by_size);
    double sum = 0.0;
    for (int64_t i = 0; i < bench->steps; i++) { sum += bench->seconds[i]; }
    const double mean = 1e3 * sum / (double)bench->steps;
    const double best = 1e3 * bench->seconds[0], median = 1e3 * bench->seconds[bench->steps / 2];
    const int ranks = trainer->comm.size, threads = device_threads(trainer->device);
    if (!bench->json) {
        profile_print(trainer->profile, stdout);
        printf("%d rank%s x %d thread%s on %s, %s: median step %.2f ms, best %.2f ms\n", ranks, ranks == 1 ? "" : "s",
               threads, threads == 1 ? "" : "s", device_name(), precision, median, best);
        return;
    }
    json_t *json = json_pack("{ss,ss,si,si,sf,sf,sf}", "device", device_name(), "precision", precision, "threads",
                             threads, "world_size", ranks, "mean_milliseconds", mean, "median_milliseconds", median,
                             "best_milliseconds", best);
    json_t *profile = profile_json(trainer->profile);
    json_object_update(json, profile);
    json_dumpf(json, stdout, JSON_REAL_PRECISION(9));
    puts("");
    json_decref(profile);
    json_decref(json);
}

static int run(Bench *bench, int argc, char **argv) {
    Trainer trainer;
    Error error;
    bool ok = trainer_open(&trainer, TRAINER_BENCH, argv[0], argv + 1, argc - 1, &error);
    const int rank = trainer.comm.rank;
    if (ok) {
        bench->seconds = check_calloc((size_t)bench->steps, sizeof *bench->seconds);
        ok = take_steps(&trainer, bench, &error);
        if (ok && rank == 0) { report(&trainer, bench); }
        free(bench->seconds);
    }
    if (!ok && rank == 0) { print_error(&error); }
    trainer_close(&trainer);
    return ok ? EX_OK : error.code;
}

int command_bench(int argc, char **argv) {
    Bench bench = {.steps = 50};
    double number;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
            case 's':
                if (!number_parse_integer(optarg, &number) || number < 1 || number > 1 << 20) {
                    return usage_error("bench", "--steps: expected an integer from 1, found `%s`", optarg);
                }
                bench.steps = (int64_t)number;
                break;
            case 'f':
                bench.json = strcmp(optarg, "json") == 0;
                if (!bench.json && strcmp(optarg, "text") != 0) {
                    return usage_error("bench", "--format: expected text or json, found `%s`", optarg);
                }
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("bench", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (optind == argc) { return usage_error("bench", "expected a CONFIG.yaml"); }
    return run(&bench, argc - optind, argv + optind);
}
