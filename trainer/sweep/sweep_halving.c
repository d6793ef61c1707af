// See sweep_halving.h.
#include "trainer/sweep/sweep_halving.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

typedef struct {
    SegmentResult result;
    int trial;
} Entrant;

int halving_compare(const SegmentResult *a, const SegmentResult *b) {
    const double left[] = {a->metric, -a->loss}, right[] = {b->metric, -b->loss};
    for (int i = 0; i < 2; i++) {
        const bool known = !isnan(left[i]), other_known = !isnan(right[i]);
        if (known != other_known) { return known ? -1 : 1; }
        if (known && left[i] != right[i]) { return left[i] > right[i] ? -1 : 1; }
    }
    return 0;
}

static bool better(const Entrant *a, const Entrant *b) {
    const int order = halving_compare(&a->result, &b->result);
    return order < 0 || (order == 0 && a->trial < b->trial);
}

// Puts an entrant at its place among count that are sorted.
static void insert(Entrant *sorted, int count, Entrant entrant) {
    int low = 0, high = count;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (better(&sorted[middle], &entrant)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(sorted + low + 1, sorted + low, (size_t)(count - low) * sizeof *sorted);
    sorted[low] = entrant;
}

static bool among_best(const Entrant *sorted, int count, int trial, double eta) {
    const int places = (int)floor(count / eta);
    for (int i = 0; i < (places > 1 ? places : 1) && i < count; i++) {
        if (sorted[i].trial == trial) { return true; }
    }
    return false;
}

typedef struct {
    const int *entered;  // trials that came to the rung, by number
    int count;
    bool all;      // no other can come any more
    int reported;  // so many of them, from the first, have a result
} Rung;

// Trials whose coming is not known yet hide those behind them.
static Rung look(int *entered, const SegmentState *states, const SegmentResult *results, const int *segments,
                 int trials, int most, int rung) {
    Rung look = {.entered = entered, .all = true};
    bool reported = true;
    for (int t = 0; t < trials && look.all; t++) {
        const size_t at = (size_t)t * (size_t)most + (size_t)rung;
        if (rung + 1 >= segments[t] || states[at] == SEGMENT_NEVER) { continue; }
        look.all = states[at] != SEGMENT_WAITS;
        if (!look.all) { break; }
        entered[look.count++] = t;
        reported = reported && results[at].done;
        look.reported += reported;
    }
    return look;
}

// Decides who goes on past the rung.
static void decide(SegmentState *states, const SegmentResult *results, const Rung *at, int most, int rung, double eta,
                   Entrant *sorted) {
    const int least = (int)ceil(2.0 * eta);
    int known = 0;  // entrants in `sorted`
    for (int k = 0; k < at->count; k++) {
        const int trial = at->entered[k];
        int n = k + 1 > least ? k + 1 : least;
        if (n > at->count && at->all) { n = at->count; }
        if (n > at->reported) { break; }
        for (; known < n; known++) {
            const int other = at->entered[known];
            insert(sorted, known, (Entrant){results[(size_t)other * (size_t)most + (size_t)rung], other});
        }
        const size_t here = (size_t)trial * (size_t)most + (size_t)rung;
        const bool goes_on = !results[here].failed && among_best(sorted, known, trial, eta);
        states[here + 1] = !goes_on ? SEGMENT_NEVER : results[here + 1].done ? SEGMENT_DONE : SEGMENT_READY;
    }
}

void halving_decide(SegmentState *states, const SegmentResult *results, const int *segments, int trials, int most,
                    double eta) {
    int *entered = check_calloc((size_t)trials, sizeof *entered);
    Entrant *sorted = check_calloc((size_t)trials, sizeof *sorted);
    for (int t = 0; t < trials; t++) {
        for (int s = 0; s < segments[t]; s++) {
            const size_t at = (size_t)t * (size_t)most + (size_t)s;
            states[at] = s > 0 ? SEGMENT_WAITS : results[at].done ? SEGMENT_DONE : SEGMENT_READY;
            // A trial that failed needs nobody else to be known for ended.
            if (s > 0 && (results[at - 1].failed || states[at - 1] == SEGMENT_NEVER)) { states[at] = SEGMENT_NEVER; }
        }
    }
    for (int rung = 0; rung + 1 < most; rung++) {
        const Rung at = look(entered, states, results, segments, trials, most, rung);
        decide(states, results, &at, most, rung, eta, sorted);
        for (int t = 0; t < trials; t++) {  // who has ended stays ended
            for (int s = rung + 2; s < segments[t]; s++) {
                const size_t here = (size_t)t * (size_t)most + (size_t)s;
                if (states[here - 1] == SEGMENT_NEVER) { states[here] = SEGMENT_NEVER; }
            }
        }
    }
    free(entered);
    free(sorted);
}
