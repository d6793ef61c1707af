// See scaling.h.
#include "trainer/scaling.h"

#include <math.h>
#include <stdlib.h>

#include "datasets/sampler.h"

typedef struct {
    double w, x, y, xx, xy;  // sums over the points, weighted by 1 / y^2
} Sums;

static Sums add_up(const double *x, const double *y, int count) {
    Sums s = {0};
    for (int i = 0; i < count; i++) {
        const double w = 1.0 / (y[i] * y[i]);
        s.w += w;
        s.x += w * x[i];
        s.y += w * y[i];
        s.xx += w * x[i] * x[i];
        s.xy += w * x[i] * y[i];
    }
    return s;
}

Line line_fit(const double *x, const double *y, int count) {
    const Sums s = add_up(x, y, count);
    const double spread = s.w * s.xx - s.x * s.x;
    if (!(spread > 1e-12 * s.w * s.xx)) { return (Line){s.y / s.w, 0.0}; }
    const double slope = (s.w * s.xy - s.x * s.y) / spread, fixed = (s.y - slope * s.x) / s.w;
    if (slope < 0.0) { return (Line){s.y / s.w, 0.0}; }
    if (fixed < 0.0) { return (Line){0.0, s.xy / s.xx}; }
    return (Line){fixed, slope};
}

// Messages that follow each other, and the part of the bytes that each rank sends, in halving and doubling.
static double rounds(int ranks) { return 2.0 * ceil(log2(ranks)); }
static double share(int ranks) { return 2.0 * (ranks - 1) / ranks; }

Link link_fit(Line sums, int ranks) { return (Link){sums.fixed / rounds(ranks), sums.slope / share(ranks)}; }

double link_seconds(Link link, int ranks, double bytes) {
    return ranks < 2 ? 0.0 : rounds(ranks) * link.alpha + share(ranks) * bytes * link.beta;
}

static int within_node(const ScalingModel *model, int ranks) {
    return ranks < model->node_ranks ? ranks : model->node_ranks;
}

static double sum_seconds(const ScalingModel *model, int ranks, double bytes) {
    const int nodes = (ranks + model->node_ranks - 1) / model->node_ranks;
    return link_seconds(model->node, within_node(model, ranks), bytes) + link_seconds(model->network, nodes, bytes);
}

double scaling_step(const ScalingModel *model, int ranks, double tokens) {
    const double compute = model->fixed + model->per_token * tokens;
    const double update = model->update / (model->update_shared ? within_node(model, ranks) : 1);
    const double late = sum_seconds(model, ranks, model->bytes) - model->overlap * compute;
    const double last = sum_seconds(model, ranks, model->last_bytes);
    return compute + update + (late > last ? late : last);
}

// Dealt by length, many rows a rank are as good as equal shares.
enum { MANY_ROWS = 64, SAMPLED_ROWS = 1 << 14 };

double scaling_load(const int64_t *lengths, int64_t rows, int64_t batch, int ranks) {
    double all = 0.0, largest = 0.0;
    for (int64_t i = 0; i < rows; i++) { all += (double)lengths[i]; }
    if (ranks == 1 || batch / ranks >= MANY_ROWS) { return all / (double)rows * (double)batch / ranks; }
    const int count = narrow_int(batch);
    const int64_t batches = batch < SAMPLED_ROWS ? SAMPLED_ROWS / batch : 1;
    int64_t *dealt = check_calloc((size_t)count, sizeof *dealt), *load = check_calloc((size_t)ranks, sizeof *load);
    int32_t *bins = check_calloc((size_t)count, sizeof *bins);
    for (int64_t b = 0; b < batches; b++) {
        int64_t most = 0;
        for (int i = 0; i < count; i++) { dealt[i] = lengths[(b * batch + i) % rows]; }
        sampler_deal(bins, dealt, count, ranks);
        for (int r = 0; r < ranks; r++) { load[r] = 0; }
        for (int i = 0; i < count; i++) {
            load[bins[i]] += dealt[i];
            most = load[bins[i]] > most ? load[bins[i]] : most;
        }
        largest += (double)most / (double)batches;
    }
    free(bins);
    free(load);
    free(dealt);
    return largest;
}

static void fill(ScalingPoint *points, const ScalingModel *model, const int64_t *lengths, int64_t rows, int64_t batch,
                 bool weak) {
    for (int i = 0; i < SCALING_POINTS; i++) {
        ScalingPoint *point = &points[i];
        const int ranks = 1 << i;
        const int64_t all = weak ? batch * ranks : batch;
        point->ranks = ranks;
        point->rows = (double)all / ranks;
        point->tokens = scaling_load(lengths, rows, all, ranks);
        point->seconds = scaling_step(model, ranks, point->tokens);
        point->samples_per_second = (double)all / point->seconds;
        point->speedup = point->samples_per_second / points[0].samples_per_second;
        point->efficiency = point->speedup / ranks;
    }
}

void scaling_strong(ScalingPoint *points, const ScalingModel *model, const int64_t *lengths, int64_t rows,
                    int64_t batch) {
    fill(points, model, lengths, rows, batch, false);
}

void scaling_weak(ScalingPoint *points, const ScalingModel *model, const int64_t *lengths, int64_t rows,
                  int64_t batch) {
    fill(points, model, lengths, rows, batch, true);
}

int scaling_best(const ScalingPoint *points) {
    int best = 0;
    for (int i = 1; i < SCALING_POINTS; i++) {
        if (points[i].seconds < points[best].seconds) { best = i; }
    }
    return points[best].ranks;
}
