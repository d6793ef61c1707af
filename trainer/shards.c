// See shards.h.
#include "trainer/shards.h"

#include <stdlib.h>

#include "comm/parallel_io.h"

static int64_t first_row(int64_t rows, int part, int parts) { return rows * part / parts; }

static void alloc(Shards *shards, const Comm *comm) {
    Reviews *reviews = &shards->reviews;
    const size_t rows = (size_t)reviews->rows, tokens = (size_t)reviews->token_count;
    shards->offsets = comm_shared_alloc(comm, (rows + 1) * sizeof *reviews->offsets);
    shards->tokens = comm_shared_alloc(comm, tokens * sizeof *reviews->tokens);
    shards->labels = comm_shared_alloc(comm, rows * sizeof *reviews->labels);
    shards->source_row = comm_shared_alloc(comm, rows * sizeof *reviews->source_row);
    reviews->offsets = shards->offsets.base;
    reviews->tokens = shards->tokens.base;
    reviews->labels = shards->labels.base;
    reviews->source_row = shards->source_row.base;
}

static void exchange(Shards *shards, const Comm *comm) {
    const Reviews *reviews = &shards->reviews;
    int64_t *begin = check_calloc((size_t)comm->nodes + 1, sizeof *begin);
    for (int n = 0; n <= comm->nodes; n++) { begin[n] = first_row(reviews->rows, comm->node_parts[n], comm->size); }
    comm_exchange(comm, &shards->labels, sizeof *reviews->labels, begin);
    comm_exchange(comm, &shards->source_row, sizeof *reviews->source_row, begin);
    // offsets has one element more than rows; it belongs to the last node.
    begin[comm->nodes]++;
    comm_exchange(comm, &shards->offsets, sizeof *reviews->offsets, begin);
    begin[comm->nodes]--;
    for (int n = 0; n <= comm->nodes; n++) { begin[n] = reviews->offsets[begin[n]]; }
    comm_exchange(comm, &shards->tokens, sizeof *reviews->tokens, begin);
    free(begin);
}

bool shards_open(Shards *shards, const Comm *comm, const Dataset *dataset, const char *group, Error *error) {
    *shards = (Shards){0};
    Reviews *reviews = &shards->reviews;
    if (!comm_agree(comm, dataset_sizes(dataset, group, reviews, error), error)) { return false; }
    alloc(shards, comm);
    shards->first = first_row(reviews->rows, comm->part, comm->size);
    shards->count = first_row(reviews->rows, comm->part + 1, comm->size) - shards->first;
    hid_t transfer = parallel_transfer();
    bool ok = dataset_read_rows(dataset, group, reviews, shards->first, shards->count, transfer, error);
    H5Pclose(transfer);
    ok = comm_agree(comm, ok, error);
    if (ok) {
        exchange(shards, comm);
    } else {
        shards_close(shards);
    }
    return ok;
}

void shards_close(Shards *shards) {
    comm_shared_free(&shards->offsets);
    comm_shared_free(&shards->tokens);
    comm_shared_free(&shards->labels);
    comm_shared_free(&shards->source_row);
    *shards = (Shards){0};
}
