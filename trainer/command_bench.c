// `bertune bench`: the phases of the training steps of a configuration, timed; nothing is written.
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/advise.h"
#include "trainer/commands.h"
#include "trainer/config_options.h"
#include "trainer/number.h"
#include "trainer/timing.h"

static const char usage[] =
    "Usage: bertune bench CONFIG.yaml [KEY=VALUE ...] [OPTION ...]\n"
    "       mpirun -np N bertune bench CONFIG.yaml ...\n"
    "Times the phases of training steps as `bertune train` would take them, beside the machine's\n"
    "multiply-add peak and copy bandwidth. Leaves no files. Of several ranks the figures are those of\n"
    "rank 0. On a GPU a step is one recorded graph and has no phases, unless run.profile=true takes it\n"
    "apart.\n\n"
    "  --advise          instead: how long a step would take on 1 to 1,024 ranks, by a model whose constants are\n"
    "                    measured on the ranks that this is started with (2 or more), and how many are worth while\n"
    "  --steps N         steps to time, after some that are not [50]\n"
    "  --format FORMAT   text | json [text]\n"
    "  --help, --version\n";

typedef struct {
    int64_t steps;
    bool json, advise;
    double *seconds, *tokens;  // (steps)
} Bench;

static const struct option long_options[] = {{"steps", required_argument, NULL, 's'},
                                             {"format", required_argument, NULL, 'f'},
                                             {"advise", no_argument, NULL, 'a'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

typedef struct {
    double mean, median, best;  // milliseconds
    double tokens;              // of an average step, of all ranks
} Times;

static void print_text(const Trainer *trainer, const char *precision, const Times *times) {
    char device[320];
    describe_device(trainer->device, device, sizeof device);
    if (trainer->profile) { profile_print(trainer->profile, stdout); }
    if (trainer->recorded) { printf("a step is a graph of %d launches\n", recorded_nodes(trainer->recorded)); }
    printf("%d rank%s %s, %s: median step %.*f ms, best %.*f ms\n", trainer->comm.size,
           trainer->comm.size == 1 ? "" : "s", device, precision, trainer->recorded ? 4 : 2, times->median,
           trainer->recorded ? 4 : 2, times->best);
}

static void print_json(const Trainer *trainer, const char *precision, const Times *times) {
    json_t *json =
        json_pack("{ss,ss,ss,si,si,sf,sf,sf,sf}", "device", device_name(trainer->device), "device_model",
                  device_model(trainer->device), "precision", precision, "threads", device_threads(trainer->device),
                  "world_size", trainer->comm.size, "mean_milliseconds", times->mean, "median_milliseconds",
                  times->median, "best_milliseconds", times->best, "tokens", times->tokens);
    if (trainer->recorded) { json_object_set_new(json, "launches", json_integer(recorded_nodes(trainer->recorded))); }
    if (trainer->profile) {
        json_t *profile = profile_json(trainer->profile);
        json_object_update(json, profile);
        json_decref(profile);
    }
    json_dumpf(json, stdout, JSON_REAL_PRECISION(9));
    puts("");
    json_decref(json);
}

// Rank 0 only.
static void report(const Trainer *trainer, Bench *bench) {
    char precision[16];
    option_format(&trainer->config, option_find("train.precision"), precision, sizeof precision);
    double sum = 0.0, tokens = 0.0;
    for (int64_t i = 0; i < bench->steps; i++) {
        sum += bench->seconds[i];
        tokens += bench->tokens[i];
    }
    const double mean = 1e3 * sum / (double)bench->steps;
    const double median = 1e3 * timing_median(bench->seconds, bench->steps), best = 1e3 * bench->seconds[0];
    (bench->json ? print_json : print_text)(trainer, precision,
                                            &(Times){mean, median, best, tokens / (double)bench->steps});
}

static bool time_steps(Trainer *trainer, Bench *bench, Error *error) {
    bench->seconds = check_calloc((size_t)bench->steps, sizeof *bench->seconds);
    bench->tokens = check_calloc((size_t)bench->steps, sizeof *bench->tokens);
    enum { WARM_UP = 10 };
    const int64_t warm_up = trainer->recorded ? TIMING_WARM_UP_RECORDED : WARM_UP;
    const bool ok = timing_steps(trainer, warm_up, bench->steps, bench->seconds, bench->tokens, error);
    if (ok && trainer->comm.rank == 0) { report(trainer, bench); }
    free(bench->tokens);
    free(bench->seconds);
    return ok;
}

static bool measure(const Comm *comm, const Config *config, Bench *bench, Error *error) {
    Trainer trainer;
    bool ok = trainer_open(&trainer, TRAINER_BENCH, comm, config, error);
    if (ok) {
        ok = bench->advise ? advise(&trainer, bench->steps, bench->json, error) : time_steps(&trainer, bench, error);
    }
    trainer_close(&trainer);
    return ok;
}

static int run(Bench *bench, int argc, char **argv) {
    Comm comm;
    Config config;
    Error error;
    const bool ok =
        trainer_begin(&comm, &config, argv[0], argv + 1, argc - 1, &error) && measure(&comm, &config, bench, &error);
    if (!ok && comm.rank == 0) { print_error(&error); }
    trainer_end(&comm);
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
            case 'a':
                bench.advise = true;
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
