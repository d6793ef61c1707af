// How long a step takes on more ranks than there are: the alpha-beta model of docs/scaling.md, arithmetic alone.
//   step(p) = fixed + per_token tokens(p) + update / sharers(p) + exposed(p)
//   exposed = max(sum(p, bytes) - overlap (fixed + per_token tokens), sum(p, last_bytes))
//   sum(p, S) = 2 ceil(log2 p) alpha + 2 (p - 1) / p S beta      within a node, and again between nodes
// The tokens are those of the rank that is dealt most. Seconds, bytes, tokens.
#ifndef BERTUNE_SCALING_H
#define BERTUNE_SCALING_H

#include <stdint.h>

#include "kernels/check.h"

// y = fixed + slope x.
typedef struct {
    double fixed, slope;
} Line;

// The line with the least sum of squared relative errors among those with fixed, slope >= 0; y > 0.
Line line_fit(const double *x, const double *y, int count);

typedef struct {
    double alpha, beta;  // seconds a message, seconds a byte
} Link;

// The link between `ranks` > 1 that sums take the line's seconds over bytes on; and the seconds of a sum on a link.
Link link_fit(Line sums, int ranks);
double link_seconds(Link link, int ranks, double bytes);

typedef struct {
    double fixed, per_token;  // forward and backward
    double update;            // of all weights by one rank
    int node_ranks;           // ranks of a node
    bool update_shared;       // among these
    double bytes;             // of the gradient
    double last_bytes;        // the part of it that is summed when backward has ended
    double overlap;           // the part of forward and backward that sums can hide behind
    Link node, network;
} ScalingModel;

// Seconds of a step on so many ranks, of which one has `tokens` tokens and the others no more.
double scaling_step(const ScalingModel *model, int ranks, double tokens);

// Tokens of the rank that is dealt most of a batch, in the mean over some batches of rows with these lengths.
double scaling_load(const int64_t *lengths, int64_t rows, int64_t batch, int ranks);

enum { SCALING_POINTS = 11 };  // 1, 2, 4 ... 1,024 ranks

typedef struct {
    int ranks;
    double rows;  // of a rank
    double tokens, seconds, samples_per_second, speedup, efficiency;
} ScalingPoint;

// points (SCALING_POINTS). Strong: a step has `batch` rows, of all ranks together. Weak: each rank has `batch` rows;
// the speed-up is that of samples/s. lengths (rows) in tokens.
void scaling_strong(ScalingPoint *points, const ScalingModel *model, const int64_t *lengths, int64_t rows,
                    int64_t batch);
void scaling_weak(ScalingPoint *points, const ScalingModel *model, const int64_t *lengths, int64_t rows, int64_t batch);

// The ranks of the fastest step.
int scaling_best(const ScalingPoint *points);

#endif
