// See elastic.h.
#include "trainer/elastic.h"

#include <stdlib.h>
#include <string.h>

// The buffer of leaf `shard`: one for each subtree to its left that is complete and waits for its neighbour.
static int level_of(int shard) { return __builtin_popcount((unsigned)shard); }

bool elastic_open(Elastic *elastic, const Comm *comm, Device *device, Reducer *reducer, size_t count, int64_t shards,
                  Error *error) {
    *elastic = (Elastic){.comm = comm, .device = device, .reducer = reducer, .count = count, .shards = (int)shards};
    if ((shards & (shards - 1)) != 0 || shards % comm->size != 0) {
        return error_set(error, EX_CONFIG,
                         "train.determinism: elastic: virtual_shards must be a power of two that the number of ranks "
                         "divides; it is %lld, with %d ranks",
                         (long long)shards, comm->size);
    }
    if (!reducer_fix_order(reducer, error)) { return false; }
    while (comm->size << elastic->levels < shards) { elastic->levels++; }
    const size_t blocks = square_blocks(count), parts = blocks > (size_t)shards ? blocks : (size_t)shards;
    elastic->parts = check_calloc(parts, sizeof *elastic->parts);
    elastic->sums = check_calloc((size_t)elastic->levels + 1, sizeof *elastic->sums);
    elastic->sums[0] = reducer_gradient(reducer);
    for (int i = 1; i <= elastic->levels; i++) { elastic->sums[i] = device_alloc(device, count * sizeof(float)); }
    return true;
}

void elastic_close(Elastic *elastic) {
    for (int i = 1; elastic->sums && i <= elastic->levels; i++) { device_free(elastic->device, elastic->sums[i]); }
    free(elastic->sums);
    free(elastic->parts);
    *elastic = (Elastic){0};
}

float *elastic_leaf(const Elastic *elastic, int shard) { return elastic->sums[level_of(shard)]; }

typedef struct {
    const Elastic *elastic;
    int shard;
} Addition;

static void add_up(void *context) {
    const Addition *a = context;
    const Elastic *e = a->elastic;
    int level = level_of(a->shard);
    for (int done = a->shard; done & 1; done >>= 1, level--) {
        add(e->device, e->sums[level - 1], e->sums[level], e->count);
    }
}

void elastic_add(Elastic *elastic, int shard) { device_run(elastic->device, add_up, &(Addition){elastic, shard}); }

// The sum of elastic->parts (count), of which every rank has filled some and the others are zero: no sum is rounded
// before all are added in their order.
static double sum_parts(Elastic *elastic, size_t count) {
    double sum = 0.0;
    comm_sum(elastic->comm, elastic->parts, narrow_int((int64_t)count));
    for (size_t i = 0; i < count; i++) { sum += elastic->parts[i]; }
    return sum;
}

double elastic_squares(Elastic *elastic) {
    const size_t blocks = square_blocks(elastic->count);
    memset(elastic->parts, 0, blocks * sizeof *elastic->parts);
    reducer_complete(elastic->reducer);
    if (elastic->comm->rank == 0) {
        square_sums(elastic->device, elastic->parts, reducer_summed(elastic->reducer), elastic->count);
    }
    return sum_parts(elastic, blocks);
}

double elastic_loss(Elastic *elastic, const double *losses) {
    const size_t shards = (size_t)elastic->shards, mine = shards / (size_t)elastic->comm->size;
    memset(elastic->parts, 0, shards * sizeof *elastic->parts);
    memcpy(elastic->parts + (size_t)elastic->comm->part * mine, losses, mine * sizeof *losses);
    return sum_parts(elastic, shards);
}
