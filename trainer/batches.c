// See batches.h.
#include "trainer/batches.h"

#include <stdlib.h>

#include "datasets/sampler.h"

void batch_fill(Batch *batch, const Reviews *reviews, const int32_t *word_row, const int64_t *rows, int count) {
    batch->B = count;
    batch->T = 0;
    for (int b = 0; b < count; b++) {
        const int64_t row = rows[b];
        batch->starts[b] = batch->T;
        batch->sequence_rows[b] = (uint32_t)row;
        batch->labels[b] = reviews->labels[row];
        for (int64_t t = reviews->offsets[row]; t < reviews->offsets[row + 1]; t++) {
            const int32_t id = reviews->tokens[t];
            batch->ids[batch->T] = word_row ? word_row[id] : id;
            batch->positions[batch->T] = (int32_t)(t - reviews->offsets[row]);
            batch->rows[batch->T] = (uint32_t)row;
            batch->T++;
        }
    }
    batch->starts[count] = batch->T;
}

void batches_init(Batches *batches, const Reviews *reviews, int64_t batch_size, int micro_batches, int rank, int size,
                  bool shuffle, uint64_t seed) {
    const size_t largest = (size_t)(batch_size < reviews->rows ? batch_size : reviews->rows);
    *batches = (Batches){.reviews = reviews,
                         .batch_size = batch_size,
                         .rank = rank,
                         .size = size,
                         .micro_batches = micro_batches,
                         .shuffle = shuffle,
                         .seed = seed,
                         .steps = (reviews->rows + batch_size - 1) / batch_size,
                         .order = check_calloc((size_t)reviews->rows, sizeof(int64_t)),
                         .lengths = check_calloc(largest, sizeof(int64_t)),
                         .mine = check_calloc(largest, sizeof(int64_t)),
                         .bins = check_calloc(largest, sizeof(int32_t))};
}

void batches_free(Batches *batches) {
    free(batches->order);
    free(batches->lengths);
    free(batches->mine);
    free(batches->bins);
    *batches = (Batches){0};
}

void batches_shard(Batches *batches, int shards, int rank) {
    batches->contiguous = true;
    batches->micro_batches = shards / batches->size;
    batches->rank = rank;
}

static int64_t row_length(const Reviews *reviews, int64_t row) {
    return reviews->offsets[row + 1] - reviews->offsets[row];
}

void batches_epoch(Batches *batches, int64_t epoch, int *most_sequences, int *most_tokens) {
    sampler_order(batches->order, batches->reviews->rows, batches->shuffle, batches->seed, epoch);
    *most_sequences = 1;
    *most_tokens = 1;
    for (int64_t step = 0; step < batches->steps; step++) {
        batches_deal(batches, step);
        for (int micro = 0; micro < batches->micro_batches; micro++) {
            int count;
            int64_t tokens = 0;
            const int64_t *rows = batches_micro(batches, step, micro, &count);
            for (int i = 0; i < count; i++) { tokens += row_length(batches->reviews, rows[i]); }
            if (count > *most_sequences) { *most_sequences = count; }
            if (tokens > *most_tokens) { *most_tokens = narrow_int(tokens); }
        }
    }
}

void batches_global(const Batches *batches, int64_t step, const int64_t **rows, int *count) {
    const int64_t begin = step * batches->batch_size, left = batches->reviews->rows - begin;
    *rows = batches->order + begin;
    *count = narrow_int(left < batches->batch_size ? left : batches->batch_size);
}

void batches_deal(Batches *batches, int64_t step) {
    const int64_t *rows;
    int count;
    batches_global(batches, step, &rows, &count);
    for (int i = 0; i < count; i++) { batches->lengths[i] = row_length(batches->reviews, rows[i]); }
    sampler_deal(batches->bins, batches->lengths, count, batches->size * batches->micro_batches);
}

const int64_t *batches_micro(Batches *batches, int64_t step, int micro, int *count) {
    const int64_t *rows;
    int all;
    batches_global(batches, step, &rows, &all);
    const int bin =
        batches->contiguous ? batches->rank * batches->micro_batches + micro : micro * batches->size + batches->rank;
    *count = 0;
    for (int i = 0; i < all; i++) {
        if (batches->bins[i] == bin) { batches->mine[(*count)++] = rows[i]; }
    }
    return batches->mine;
}
