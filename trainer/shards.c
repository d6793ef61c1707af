// See shards.h.
#include "trainer/shards.h"

#include <stdlib.h>
#include <string.h>

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

static void deal(Shards *shards, const Comm *comm) {
    shards->first = first_row(shards->reviews.rows, comm->part, comm->size);
    shards->count = first_row(shards->reviews.rows, comm->part + 1, comm->size) - shards->first;
}

bool shards_open(Shards *shards, const Comm *comm, const Dataset *dataset, const char *group, Error *error) {
    *shards = (Shards){0};
    Reviews *reviews = &shards->reviews;
    if (!comm_agree(comm, dataset_sizes(dataset, group, reviews, error), error)) { return false; }
    alloc(shards, comm);
    deal(shards, comm);
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

enum { CUT_PARTS = 2 };

// Where each row of the whole comes from: a part and a row there.
typedef struct {
    const Reviews *part;
    int64_t row;
} Origin;

static bool find_origins(Origin *origins, const Dataset *dataset, const char *const *names, const Shards *cut,
                         int64_t total, Error *error) {
    bool ok = true;
    for (int p = 0; ok && p < CUT_PARTS; p++) {
        const Reviews *part = &cut[p].reviews;
        int64_t *position = check_calloc((size_t)part->rows, sizeof *position);
        ok = dataset_read_position(dataset, names[p], position, part->rows, total, error);
        for (int64_t i = 0; ok && i < part->rows; i++) { origins[position[i]] = (Origin){part, i}; }
        free(position);
    }
    for (int64_t i = 0; ok && i < total; i++) {  // as many rows as places: one twice leaves another empty
        ok = origins[i].part ||
             error_set(error, EX_DATAERR, "%s: /train/position and /dev/position have one twice", dataset->path);
    }
    return ok;
}

static void copy_row(const Reviews *to, int64_t row, const Origin *origin) {
    const Reviews *from = origin->part;
    const int64_t begin = from->offsets[origin->row], length = from->offsets[origin->row + 1] - begin;
    to->offsets[row + 1] = to->offsets[row] + length;
    memcpy(to->tokens + to->offsets[row], from->tokens + begin, (size_t)length * sizeof *to->tokens);
    to->labels[row] = from->labels[origin->row];
    to->source_row[row] = from->source_row[origin->row];
}

static bool join(Shards *whole, const Comm *comm, const Dataset *dataset, const char *const *names, const Shards *cut,
                 Error *error) {
    const int64_t total = cut[0].reviews.rows + cut[1].reviews.rows;
    Origin *origins = check_calloc((size_t)total, sizeof *origins);
    const bool found = comm->local_rank != 0 || find_origins(origins, dataset, names, cut, total, error);
    const bool ok = comm_agree(comm, found, error);
    if (ok) {
        whole->reviews.rows = total;
        whole->reviews.token_count = cut[0].reviews.token_count + cut[1].reviews.token_count;
        alloc(whole, comm);
        for (int64_t i = 0; comm->local_rank == 0 && i < total; i++) { copy_row(&whole->reviews, i, &origins[i]); }
        const SharedMemory *const parts[] = {&whole->offsets, &whole->tokens, &whole->labels, &whole->source_row};
        for (int i = 0; i < 4; i++) { comm_shared_sync(comm, parts[i]); }
        deal(whole, comm);
    }
    free(origins);
    return ok;
}

bool shards_open_uncut(Shards *shards, const Comm *comm, const Dataset *dataset, Error *error) {
    static const char *const names[CUT_PARTS] = {"train", "dev"};
    Shards cut[CUT_PARTS] = {0};
    *shards = (Shards){0};
    bool ok = true;
    for (int p = 0; ok && p < CUT_PARTS; p++) { ok = shards_open(&cut[p], comm, dataset, names[p], error); }
    ok = ok && join(shards, comm, dataset, names, cut, error);
    for (int p = 0; p < CUT_PARTS; p++) { shards_close(&cut[p]); }
    return ok;
}

void shards_close(Shards *shards) {
    comm_shared_free(&shards->offsets);
    comm_shared_free(&shards->tokens);
    comm_shared_free(&shards->labels);
    comm_shared_free(&shards->source_row);
    *shards = (Shards){0};
}
