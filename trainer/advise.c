// See advise.h.
#include "trainer/advise.h"

#include <stdlib.h>

#include "datasets/sampler.h"
#include "trainer/timing.h"

// What is compared is measured in turns, so that a machine that others use, too, is slow for all of it or for none.
enum { ROUNDS = 3 };

// Of backward, behind which NCCL's sums can hide, and the buckets of them, the last of which cannot (reduce_nccl.c).
static const double overlap = 0.45;
enum { QUEUED_BUCKETS = 3 };

// Times of one kind of step or sum over the rounds.
typedef struct {
    int64_t used;
    double *seconds, *tokens;  // (steps of all rounds)
} Samples;

typedef struct {
    Trainer *trainer;
    Advice *advice;
    int64_t per_round;
    Samples steps, batches[ADVISE_BATCHES], sums[ADVISE_SUMS], node_sums[ADVISE_SUMS];
    double updates[ROUNDS * ADVISE_BATCHES];
    int update_count;
    Comm node;  // the ranks of this node by themselves
    Reducer *reducers[ADVISE_SUMS], *node_reducers[ADVISE_SUMS];
} Measuring;

static void samples_open(Samples *samples, int64_t count) {
    samples->seconds = check_calloc((size_t)count, sizeof *samples->seconds);
    samples->tokens = check_calloc((size_t)count, sizeof *samples->tokens);
}

static void samples_close(Samples *samples) {
    free(samples->seconds);
    free(samples->tokens);
}

// The mean over the ranks of what is typical of this one. Steps that are recorded are timed together, so that their
// times are means already.
static double typical(const Trainer *trainer, double *values, int64_t count) {
    double value = 0.0;
    if (trainer->recorded) {
        for (int64_t i = 0; i < count; i++) { value += values[i] / (double)count; }
    } else {
        value = timing_median(values, count);
    }
    comm_sum(&trainer->comm, &value, 1);
    return value / trainer->comm.size;
}

static bool take_steps(Trainer *trainer, Samples *samples, int64_t count, Error *error) {
    enum { WARM_UP = 2 };
    const bool ok = timing_steps(trainer, trainer->recorded ? TIMING_WARM_UP_RECORDED : WARM_UP, count,
                                 samples->seconds + samples->used, samples->tokens + samples->used, error);
    samples->used += count;
    return ok;
}

// Steps of this rank alone, while the other ranks take theirs.
static bool take_steps_alone(Measuring *measuring, int batch, Error *error) {
    Trainer *alone = check_calloc(1, sizeof *alone);
    comm_barrier(&measuring->trainer->comm);
    trainer_open_alone(alone, measuring->trainer, (int64_t)measuring->advice->batches[batch].rows);
    bool ok = take_steps(alone, &measuring->batches[batch], measuring->per_round, error);
    if (ok && alone->profile) {
        const Profile *profile = alone->profile;
        measuring->updates[measuring->update_count++] = profile->phases[PHASE_ADAMW].seconds / (double)profile->steps;
    }
    trainer_close_alone(alone);
    free(alone);
    ok = comm_agree(&measuring->trainer->comm, ok, error);
    return ok;
}

// Sums as a step does: the gradient, and three numbers where the host hands these on.
static void take_sums(const Measuring *measuring, const Comm *comm, Reducer *reducer, Samples *samples) {
    enum { FIRST = 3 };
    Device *device = measuring->trainer->device;
    for (int64_t i = -FIRST; i < measuring->per_round; i++) {
        double loss[3] = {0.0};
        float last;
        watchdog_phase(WATCH_REDUCE, i + FIRST);
        comm_barrier(comm);
        const double begin = seconds_now();
        reducer_sum(reducer);
        if (reducer_in_queue(reducer)) {
            device_download(device, &last, reducer_summed(reducer), sizeof last);
        } else {
            comm_sum(comm, loss, 3);
        }
        reducer_publish(reducer);
        if (i >= 0) { samples->seconds[samples->used++] = seconds_now() - begin; }
    }
}

// The ranks of a node are all there is.
static Comm comm_of_node(const Comm *comm) {
    static int parts[2];
    parts[1] = comm->local_size;
    Comm node = *comm;
    node.rank = node.part = comm->local_rank;
    node.size = comm->local_size;
    node.node = 0;
    node.nodes = 1;
    node.node_parts = parts;
    node.world = comm->local;
    return node;
}

static bool has_network(const Trainer *trainer) { return trainer->comm.nodes > 1; }

// The ranks of the fullest node, the same on every rank.
static int ranks_of_node(const Comm *comm) {
    int most = comm->local_size;
    comm_largest(comm, &most, 1);
    return most;
}

static bool open_sums(Measuring *measuring, Error *error) {
    const Trainer *trainer = measuring->trainer;
    const size_t total = trainer->bert.layout.total,
                 counts[ADVISE_SUMS] = {total / 64 + 1, total / 16, total / 4, total};
    const Transport transport = trainer->placement.transport;
    Advice *advice = measuring->advice;
    if (trainer->comm.size == 1) { return true; }
    measuring->node = comm_of_node(&trainer->comm);
    advice->sum_count = ADVISE_SUMS;
    bool ok = true;
    for (int i = 0; ok && i < ADVISE_SUMS; i++) {
        advice->sums[i].bytes = (double)(counts[i] * sizeof(float));
        measuring->reducers[i] = reducer_open(&trainer->comm, trainer->device, transport, counts[i], 0, error);
        ok = measuring->reducers[i] != NULL;
        if (ok && has_network(trainer)) {
            const Reducer *opened = measuring->node_reducers[i] =
                reducer_open(&measuring->node, trainer->device, transport, counts[i], 0, error);
            ok = comm_agree(&trainer->comm, opened != NULL, error);
        }
    }
    return ok;
}

static bool measure_round(Measuring *measuring, Error *error) {
    Trainer *trainer = measuring->trainer;
    bool ok = take_steps(trainer, &measuring->steps, measuring->per_round, error);
    for (int i = 0; ok && i < measuring->advice->batch_count; i++) { ok = take_steps_alone(measuring, i, error); }
    for (int i = 0; ok && i < measuring->advice->sum_count; i++) {
        take_sums(measuring, &trainer->comm, measuring->reducers[i], &measuring->sums[i]);
        if (!has_network(trainer)) { continue; }
        take_sums(measuring, &measuring->node, measuring->node_reducers[i], &measuring->node_sums[i]);
    }
    return ok;
}

// The batch, and smaller ones down to a row.
static void choose_batches(Advice *advice, int64_t rows) {
    for (; advice->batch_count < ADVISE_BATCHES && rows > 0; rows /= 4) {
        advice->batches[advice->batch_count++].rows = (double)rows;
    }
    if (advice->batch_count == 1) {
        const double first = advice->batches[0].rows;
        advice->batches[advice->batch_count++].rows = first > 1.0 ? 1.0 : 2.0;
    }
}

static void sum_up(Measuring *measuring) {
    const Trainer *trainer = measuring->trainer;
    Advice *advice = measuring->advice;
    advice->step = typical(trainer, measuring->steps.seconds, measuring->steps.used);
    for (int i = 0; i < advice->batch_count; i++) {
        const Samples *samples = &measuring->batches[i];
        advice->batches[i].seconds = typical(trainer, samples->seconds, samples->used);
        advice->batches[i].tokens = typical(trainer, samples->tokens, samples->used);
    }
    if (trainer->placement.kind == DEVICE_CPU) {
        advice->update = typical(trainer, measuring->updates, measuring->update_count);
    }
    for (int i = 0; i < advice->sum_count; i++) {
        advice->sums[i].seconds = typical(trainer, measuring->sums[i].seconds, measuring->sums[i].used);
        if (!has_network(trainer)) { continue; }
        advice->sums[i].node_seconds = typical(trainer, measuring->node_sums[i].seconds, measuring->node_sums[i].used);
    }
}

static bool measure(Measuring *measuring, Error *error) {
    Samples *all[] = {&measuring->steps, &measuring->batches[0], &measuring->sums[0], &measuring->node_sums[0]};
    const int counts[] = {1, ADVISE_BATCHES, ADVISE_SUMS, ADVISE_SUMS};
    for (int kind = 0; kind < 4; kind++) {
        for (int i = 0; i < counts[kind]; i++) { samples_open(all[kind] + i, measuring->per_round * ROUNDS); }
    }
    bool ok = open_sums(measuring, error);
    for (int round = 0; ok && round < ROUNDS; round++) { ok = measure_round(measuring, error); }
    if (ok) { sum_up(measuring); }
    for (int i = 0; i < ADVISE_SUMS; i++) {
        reducer_close(measuring->reducers[i]);
        reducer_close(measuring->node_reducers[i]);
    }
    for (int kind = 0; kind < 4; kind++) {
        for (int i = 0; i < counts[kind]; i++) { samples_close(all[kind] + i); }
    }
    return ok;
}

static void fit_compute(Advice *advice) {
    double tokens[ADVISE_BATCHES], seconds[ADVISE_BATCHES];
    for (int i = 0; i < advice->batch_count; i++) {
        tokens[i] = advice->batches[i].tokens;
        seconds[i] = advice->batches[i].seconds - advice->update;
    }
    const Line line = line_fit(tokens, seconds, advice->batch_count);
    advice->model.fixed = line.fixed;
    advice->model.per_token = line.slope;
    advice->model.update = advice->update;
    advice->model.update_shared = advice->update > 0.0;
}

static Link fit_link(const Advice *advice, int ranks, bool node, bool network) {
    double bytes[ADVISE_SUMS], seconds[ADVISE_SUMS];
    for (int i = 0; i < advice->sum_count; i++) {
        const TimedSum *sum = &advice->sums[i];
        const double all = node ? sum->node_seconds : sum->seconds, rest = all - sum->node_seconds;
        bytes[i] = sum->bytes;
        seconds[i] = !network ? all : rest > 0.01 * all ? rest : 0.01 * all;
    }
    return link_fit(line_fit(bytes, seconds, advice->sum_count), ranks);
}

// Where all ranks are on one node, its link stands for the network.
static void fit_sums(Advice *advice, int node_ranks) {
    const Comm *comm = &advice->trainer->comm;
    const bool queued = advice->trainer->placement.transport == REDUCE_NCCL;
    ScalingModel *model = &advice->model;
    model->node_ranks = node_ranks;
    model->bytes = (double)(advice->trainer->bert.layout.total * sizeof(float));
    model->last_bytes = model->bytes / QUEUED_BUCKETS;
    model->overlap = queued ? overlap : 0.0;
    if (advice->network) {
        if (node_ranks > 1) { model->node = fit_link(advice, node_ranks, true, false); }
        model->network = fit_link(advice, comm->nodes, false, true);
    } else {
        model->node = model->network = fit_link(advice, comm->size, false, false);
    }
}

// Rank 0 only.
static void predict(Advice *advice) {
    const Reviews *reviews = &advice->trainer->train.reviews;
    const int64_t batch = advice->trainer->config.global_batch_size;
    int64_t *lengths = check_calloc((size_t)reviews->rows, sizeof *lengths);
    int64_t *order = check_calloc((size_t)reviews->rows, sizeof *order);
    sampler_order(order, reviews->rows, true, (uint64_t)advice->trainer->config.seed, 0);
    for (int64_t i = 0; i < reviews->rows; i++) {
        lengths[i] = reviews->offsets[order[i] + 1] - reviews->offsets[order[i]];
    }
    scaling_strong(advice->strong, &advice->model, lengths, reviews->rows, batch);
    scaling_weak(advice->weak, &advice->model, lengths, reviews->rows, batch);
    free(order);
    free(lengths);
}

bool advise(Trainer *trainer, int64_t steps, bool json, Error *error) {
    const Reviews *reviews = &trainer->train.reviews;
    const int64_t batch = trainer->config.global_batch_size;
    if (trainer->config.determinism == DETERMINISM_ELASTIC) {
        return error_set(error, EX_CONFIG, "--advise: there is no model of train.determinism=elastic; use run");
    }
    Advice advice = {.trainer = trainer, .network = has_network(trainer)};
    choose_batches(&advice, batch < reviews->rows ? batch : reviews->rows);
    Measuring measuring = {.trainer = trainer, .advice = &advice, .per_round = (steps + ROUNDS - 1) / ROUNDS};
    const int node_ranks = ranks_of_node(&trainer->comm);
    if (!measure(&measuring, error)) { return false; }
    if (trainer->comm.rank != 0) { return true; }
    fit_compute(&advice);
    if (advice.sum_count > 0) {
        fit_sums(&advice, node_ranks);
        predict(&advice);
    }
    (json ? advise_print_json : advise_print_text)(&advice);
    return true;
}
