// See sampler.h.
#include "datasets/sampler.h"

#include <stdlib.h>

#include "kernels/philox.h"

// A uniform integer below bound by rejection; draw numbers the candidates of one epoch.
static uint64_t uniform(uint64_t bound, uint64_t seed, int64_t epoch, uint64_t *draw) {
    const uint64_t largest = UINT64_MAX - UINT64_MAX % bound;
    for (;;) {
        const uint64_t n = (*draw)++;
        const Philox r = philox((uint32_t)n, (uint32_t)(n >> 32), (uint32_t)epoch, 0x73687566u /* "shuf" */,
                                (uint32_t)seed, (uint32_t)(seed >> 32));
        const uint64_t bits = (uint64_t)r.lane[0] << 32 | r.lane[1];
        if (bits < largest) { return bits % bound; }
    }
}

void sampler_order(int64_t *order, int64_t rows, bool shuffle, uint64_t seed, int64_t epoch) {
    for (int64_t i = 0; i < rows; i++) { order[i] = i; }
    if (!shuffle) { return; }
    uint64_t draw = 0;
    for (int64_t i = rows - 1; i > 0; i--) {
        const int64_t j = (int64_t)uniform((uint64_t)i + 1, seed, epoch, &draw);
        const int64_t row = order[i];
        order[i] = order[j];
        order[j] = row;
    }
}

typedef struct {
    int64_t length;
    int index;
} Item;

static int longest_first(const void *a, const void *b) {
    const Item *x = a, *y = b;
    if (x->length != y->length) { return x->length > y->length ? -1 : 1; }
    return (x->index > y->index) - (x->index < y->index);
}

void sampler_deal(int32_t *bin_of, const int64_t *lengths, int count, int bins) {
    Item *items = check_calloc((size_t)count, sizeof *items);
    int64_t *load = check_calloc((size_t)bins, sizeof *load);
    for (int i = 0; i < count; i++) { items[i] = (Item){lengths[i], i}; }
    qsort(items, (size_t)count, sizeof *items, longest_first);
    for (int i = 0; i < count; i++) {
        int lightest = 0;
        for (int b = 1; b < bins; b++) { lightest = load[b] < load[lightest] ? b : lightest; }
        bin_of[items[i].index] = lightest;
        load[lightest] += items[i].length;
    }
    free(load);
    free(items);
}
