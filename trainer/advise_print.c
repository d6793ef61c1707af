// What `bertune bench --advise` says. Every line tells whether it was measured or modelled.
#include <string.h>

#include "trainer/advise.h"
#include "trainer/config_options.h"

static const char one_rank[] =
    "one rank has nobody to talk to: started under `mpirun -np 2` or more, this measures the sums, too, and predicts";

// Sums on more ranks than those of this node would need a network, and none was measured.
static bool lacks_network(const Advice *advice, int ranks) {
    return !advice->network && ranks > advice->model.node_ranks;
}

static void precision_of(const Advice *advice, char *text, size_t size) {
    option_format(&advice->trainer->config, option_find("train.precision"), text, size);
}

static void print_measured(const Advice *advice) {
    const Comm *comm = &advice->trainer->comm;
    for (int i = 0; i < advice->batch_count; i++) {
        const TimedBatch *batch = &advice->batches[i];
        printf("measured   step of a rank by itself, rows: %4.0f, tokens: %7.1f  %12.4f ms\n", batch->rows,
               batch->tokens, 1e3 * batch->seconds);
    }
    if (advice->update > 0.0) {
        printf("measured   AdamW of all weights by one rank, a part of it      %12.4f ms\n", 1e3 * advice->update);
    }
    for (int i = 0; i < advice->sum_count; i++) {
        const TimedSum *sum = &advice->sums[i];
        printf("measured   sum of %9.3f MB over %3d ranks                     %12.4f ms", 1e-6 * sum->bytes, comm->size,
               1e3 * sum->seconds);
        if (sum->node_seconds > 0.0) { printf(", within nodes %.4f ms", 1e3 * sum->node_seconds); }
        putchar('\n');
    }
}

static void print_link(const char *where, Link link) {
    printf("fitted     sums %s: alpha %.3f us, beta %.4f ns a byte\n", where, 1e6 * link.alpha, 1e9 * link.beta);
}

static void print_fitted(const Advice *advice) {
    const ScalingModel *model = &advice->model;
    printf("fitted     %s: %.4f ms + %.6f ms a token\n",
           model->update > 0.0 ? "forward and backward" : "step of a rank", 1e3 * model->fixed, 1e3 * model->per_token);
    if (advice->sum_count == 0) { return; }
    if (!advice->network || model->node_ranks > 1) { print_link("between ranks of a node", model->node); }
    if (advice->network) { print_link("between nodes", model->network); }
}

static void print_row(const char *basis, const ScalingPoint *point) {
    char tokens[32] = "";
    if (point->tokens > 0.0) { snprintf(tokens, sizeof tokens, "%.1f", point->tokens); }
    printf("%-10s %5d %11.2f %12s %12.4f %13.1f %9.2f %10.1f%%\n", basis, point->ranks, point->rows, tokens,
           1e3 * point->seconds, point->samples_per_second, point->speedup, 100 * point->efficiency);
}

// The step that was timed on all ranks, and on one.
static ScalingPoint measured_point(const Advice *advice, int ranks) {
    const double rows = advice->batches[0].rows, alone = advice->batches[0].seconds;
    const double seconds = ranks == 1 ? alone : advice->step;
    return (ScalingPoint){.ranks = ranks,
                          .rows = rows / ranks,
                          .seconds = seconds,
                          .samples_per_second = rows / seconds,
                          .speedup = alone / seconds,
                          .efficiency = alone / seconds / ranks};
}

static void print_table(const Advice *advice, const ScalingPoint *points, bool measured) {
    printf("%-10s %5s %11s %12s %12s %13s %9s %11s\n", "", "ranks", "rows a rank", "most tokens", "ms a step",
           "samples/s", "speed-up", "efficiency");
    const ScalingPoint one = measured_point(advice, 1), all = measured_point(advice, advice->trainer->comm.size);
    print_row("measured", &one);
    if (measured) { print_row("measured", &all); }
    for (int i = 0; i < SCALING_POINTS; i++) {
        print_row(lacks_network(advice, points[i].ranks) ? "modelled*" : "modelled", &points[i]);
    }
}

static void print_advice(const Advice *advice) {
    const ScalingPoint *strong = advice->strong, *last = &strong[SCALING_POINTS - 1];
    const int best = scaling_best(strong);
    if (best < last->ranks) {
        printf("\nmodelled   %d rank%s the fastest step; more ranks only slow this run down\n", best,
               best == 1 ? " takes" : "s take");
    } else {
        printf("\nmodelled   the step still gets faster at %d ranks\n", best);
    }
    double fastest = 0.0;
    for (int i = 0; i < SCALING_POINTS; i++) {
        if (strong[i].ranks == best) { fastest = strong[i].samples_per_second; }
    }
    printf(
        "modelled   instead, train trials of a sweep side by side, of one rank each: %d of them are %.0f samples/s; "
        "this run on %d is %.0f\n",
        last->ranks, last->ranks * strong[0].samples_per_second, best, fastest);
    if (!advice->network) {
        printf(
            "*          on one node no network can be measured: the sums between this node's ranks stand for those "
            "between\n           nodes, which are slower. Started on several nodes, this measures them\n");
    }
}

void advise_print_text(const Advice *advice) {
    const Trainer *trainer = advice->trainer;
    const Comm *comm = &trainer->comm;
    char device[320], precision[16];
    describe_device(trainer->device, device, sizeof device);
    precision_of(advice, precision, sizeof precision);
    printf("%d rank%s %s on %d node%s, %s\n", comm->size, comm->size == 1 ? "" : "s", device, comm->nodes,
           comm->nodes == 1 ? "" : "s", precision);
    print_measured(advice);
    print_fitted(advice);
    if (advice->sum_count == 0) {
        puts(one_rank);
        return;
    }
    const long long rows = (long long)trainer->config.global_batch_size;
    printf("\nstrong scaling: %lld rows a step, of all ranks together\n", rows);
    print_table(advice, advice->strong, true);
    printf("\nweak scaling: %lld rows a step of each rank\n", rows);
    print_table(advice, advice->weak, false);
    print_advice(advice);
}

static json_t *row_json(const char *basis, const ScalingPoint *point) {
    json_t *row = json_pack("{ss,si,sf,sf,sf,sf,sf}", "basis", basis, "ranks", point->ranks, "rows_per_rank",
                            point->rows, "milliseconds", 1e3 * point->seconds, "samples_per_second",
                            point->samples_per_second, "speedup", point->speedup, "efficiency", point->efficiency);
    if (point->tokens > 0.0) { json_object_set_new(row, "most_tokens", json_real(point->tokens)); }
    return row;
}

static json_t *table_json(const Advice *advice, const ScalingPoint *points, bool measured) {
    const ScalingPoint one = measured_point(advice, 1), all = measured_point(advice, advice->trainer->comm.size);
    json_t *rows = json_array();
    json_array_append_new(rows, row_json("measured", &one));
    if (measured) { json_array_append_new(rows, row_json("measured", &all)); }
    for (int i = 0; i < SCALING_POINTS; i++) {
        const char *basis = lacks_network(advice, points[i].ranks) ? "modelled without a network" : "modelled";
        json_array_append_new(rows, row_json(basis, &points[i]));
    }
    return rows;
}

static json_t *measured_json(const Advice *advice) {
    json_t *batches = json_array(), *sums = json_array();
    for (int i = 0; i < advice->batch_count; i++) {
        const TimedBatch *batch = &advice->batches[i];
        json_array_append_new(batches, json_pack("{sf,sf,sf}", "rows", batch->rows, "tokens", batch->tokens,
                                                 "milliseconds", 1e3 * batch->seconds));
    }
    for (int i = 0; i < advice->sum_count; i++) {
        json_t *sum =
            json_pack("{sf,sf}", "bytes", advice->sums[i].bytes, "milliseconds", 1e3 * advice->sums[i].seconds);
        if (advice->network) {
            json_object_set_new(sum, "node_milliseconds", json_real(1e3 * advice->sums[i].node_seconds));
        }
        json_array_append_new(sums, sum);
    }
    return json_pack("{so,so,sf,sf}", "alone", batches, "sums", sums, "update_milliseconds", 1e3 * advice->update,
                     "step_milliseconds", 1e3 * advice->step);
}

static json_t *fitted_json(const Advice *advice) {
    const ScalingModel *model = &advice->model;
    json_t *fitted =
        json_pack("{sf,sf}", "fixed_milliseconds", 1e3 * model->fixed, "token_microseconds", 1e6 * model->per_token);
    if (advice->sum_count > 0) {
        json_object_set_new(fitted, "alpha_microseconds", json_real(1e6 * model->node.alpha));
        json_object_set_new(fitted, "beta_nanoseconds", json_real(1e9 * model->node.beta));
    }
    if (advice->network) {
        json_object_set_new(fitted, "network_alpha_microseconds", json_real(1e6 * model->network.alpha));
        json_object_set_new(fitted, "network_beta_nanoseconds", json_real(1e9 * model->network.beta));
    }
    return fitted;
}

void advise_print_json(const Advice *advice) {
    const Trainer *trainer = advice->trainer;
    char precision[16];
    precision_of(advice, precision, sizeof precision);
    json_t *json = json_pack("{ss,ss,ss,si,si,si,sI,so,so}", "device", device_name(trainer->device), "device_model",
                             device_model(trainer->device), "precision", precision, "threads",
                             device_threads(trainer->device), "world_size", trainer->comm.size, "nodes",
                             trainer->comm.nodes, "global_batch_size", (json_int_t)trainer->config.global_batch_size,
                             "measured", measured_json(advice), "fitted", fitted_json(advice));
    if (advice->sum_count > 0) {
        json_object_set_new(json, "strong", table_json(advice, advice->strong, true));
        json_object_set_new(json, "weak", table_json(advice, advice->weak, false));
        json_object_set_new(json, "best_ranks",
                            json_pack("{ss,si}", "basis", "modelled", "ranks", scaling_best(advice->strong)));
    } else {
        json_object_set_new(json, "note", json_string(one_rank));
    }
    json_dumpf(json, stdout, JSON_REAL_PRECISION(9));
    puts("");
    json_decref(json);
}
