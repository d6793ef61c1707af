// Steps of one rank by itself: what a step costs without the other ranks.
#include <stdlib.h>

#include "trainer/trainer.h"

static Comm comm_alone(const Comm *comm) {
    static int parts[] = {0, 1};
    Comm alone = {.size = 1,
                  .local_size = 1,
                  .nodes = 1,
                  .node_parts = parts,
                  .world = MPI_COMM_SELF,
                  .local = MPI_COMM_SELF,
                  .leaders = MPI_COMM_SELF};
    snprintf(alone.host, sizeof alone.host, "%s", comm->host);
    return alone;
}

static void copy_weights(Trainer *alone, const Trainer *trainer) {
    const size_t total = trainer->bert.layout.total;
    float *parameters = check_calloc(total, sizeof *parameters);
    device_download(trainer->device, parameters, trainer->parameters, total * sizeof *parameters);
    reducer_fill(alone->reducer, REPLICA_PARAMETERS, parameters);
    free(parameters);
    alone->parameters = reducer_replica(alone->reducer, REPLICA_PARAMETERS);
    alone->first_moment = reducer_replica(alone->reducer, REPLICA_FIRST_MOMENT);
    alone->second_moment = reducer_replica(alone->reducer, REPLICA_SECOND_MOMENT);
}

void trainer_open_alone(Trainer *alone, const Trainer *trainer, int64_t rows) {
    const Config *config = &trainer->config;
    const bool processor = trainer->placement.kind == DEVICE_CPU;
    Error error;
    *alone = (Trainer){.use = TRAINER_BENCH,
                       .comm = comm_alone(&trainer->comm),
                       .config = *config,
                       .placement = trainer->placement,
                       .device = trainer->device,
                       .train = trainer->train,
                       .word_row = trainer->word_row,
                       .bert = trainer->bert,
                       .total_steps = trainer->total_steps};
    alone->reducer = reducer_open(&alone->comm, alone->device, processor ? REDUCE_SHARED : REDUCE_STAGED,
                                  alone->bert.layout.total, REPLICAS, &error);
    CHECK(alone->reducer);
    copy_weights(alone, trainer);
    batches_init(&alone->batches, &alone->train.reviews, rows, narrow_int(config->gradient_accumulation_steps), 0, 1,
                 config->shuffle, (uint64_t)config->seed);
    trainer_record(alone);
    if (!alone->recorded) { alone->profile = check_calloc(1, sizeof *alone->profile); }
}

void trainer_close_alone(Trainer *alone) {
    recorded_close(alone->recorded);
    bert_state_close(alone->state);
    batch_free(&alone->batch);
    free(alone->losses);
    free(alone->profile);
    batches_free(&alone->batches);
    reducer_close(alone->reducer);
}
