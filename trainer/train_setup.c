// Opening a run: configuration, data, model, weights, in this order on all ranks. Whatever a user can get wrong is
// found here, on rank 0 where only it looks, and all ranks leave together.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/parallel_io.h"
#include "datasets/file.h"
#include "trainer/stop.h"
#include "trainer/trainer.h"

// The time-out before ranks can tell each other of it. What can be read only once is left to rank 0.
static double early_timeout(const char *path, char *const *overrides, int count) {
    struct stat status;
    Config config;
    Error error;
    const bool read =
        stat(path, &status) == 0 && S_ISREG(status.st_mode) && config_load(&config, path, overrides, count, &error);
    return read ? config.step_timeout : WATCH_TIMEOUT;
}

bool trainer_begin(Comm *comm, Config *config, const char *path, char *const *overrides, int count, Error *error) {
    watchdog_start(early_timeout(path, overrides, count));
    if (!comm_init(comm, error)) { return false; }
    watchdog_join(comm);
    const bool ok = comm->rank != 0 || config_load(config, path, overrides, count, error);
    if (!comm_agree(comm, ok, error)) { return false; }
    comm_broadcast(comm, config, sizeof *config);
    watchdog_set_timeout(config->step_timeout);
    stop_watch(config->max_time);
    return true;
}

void trainer_end(Comm *comm) {
    watchdog_phase(WATCH_END, -1);
    comm_finish(comm);
    watchdog_stop();
}

const char *evaluation_split(const Config *config) {
    return config->evaluation_split == EVALUATION_DEV ? "dev" : "validation";
}

// Chooses this rank's device and opens it.
static bool open_device(Trainer *trainer, Error *error) {
    static const PlacementWish wishes[] = {
        [CHOICE_AUTO] = WISH_AUTO, [CHOICE_CPU] = WISH_CPU, [CHOICE_CUDA] = WISH_CUDA};
    const Comm *comm = &trainer->comm;
    const Config *config = &trainer->config;
    Placement *placement = &trainer->placement;
    const Precision precision = (Precision)config->precision;
    if (!placement_choose(comm, wishes[config->device], config->share_gpu, placement, error)) { return false; }
    // NCCL sums in an order of its own.
    if (config->determinism == DETERMINISM_ELASTIC && placement->transport == REDUCE_NCCL) {
        placement->transport = REDUCE_STAGED;
    }
    const char *lacks = device_lacks(placement->kind, placement->index, precision);
    const bool able = !lacks || error_set(error, EX_CONFIG, "train.precision: %s (host %s)", lacks, comm->host);
    if (!comm_agree(comm, able, error)) { return false; }
    trainer->device = device_open(placement->kind, placement->index, comm_threads(comm), precision, error);
    watchdog_set_computes(placement->kind == DEVICE_CPU);
    return comm_agree(comm, trainer->device != NULL, error);
}

// Every rank opens the file with the others; rank 0 has verified its bytes first.
static bool open_data(Trainer *trainer, Error *error) {
    const Comm *comm = &trainer->comm;
    const char *path = trainer->config.data_path;
    if (!comm_agree(comm, comm->rank != 0 || dataset_verify(path, error), error)) { return false; }
    hid_t access = parallel_access(comm);
    watchdog_wait_begin();  // ranks read together
    const bool ok = dataset_open(&trainer->dataset, path, access, error);
    watchdog_wait_end();
    H5Pclose(access);
    if (!comm_agree(comm, ok, error)) { return false; }
    const char *scored = evaluation_split(&trainer->config);
    const bool cut = dataset_has_group(&trainer->dataset, "dev");
    if (!dataset_has_group(&trainer->dataset, scored)) {
        return error_set(error, EX_DATAERR, "%s: no /%s; prepare it with a --%s-size above 0", path, scored,
                         trainer->config.evaluation_split == EVALUATION_DEV ? "dev" : "test");
    }
    const bool all = trainer->config.train_split == TRAIN_SPLIT_ALL;
    if (all && trainer->config.evaluation_split == EVALUATION_DEV) {
        return error_set(error, EX_CONFIG,
                         "data.train_split is all and evaluation.split is dev: rows would be scored "
                         "that were trained on");
    }
    watchdog_wait_begin();
    const bool read = (all && cut ? shards_open_uncut(&trainer->train, comm, &trainer->dataset, error)
                                  : shards_open(&trainer->train, comm, &trainer->dataset, "train", error)) &&
                      shards_open(&trainer->validation, comm, &trainer->dataset, scored, error);
    watchdog_wait_end();
    watchdog_phase(WATCH_LOAD, -1);
    return read;
}

static bool check_fit(const Trainer *trainer, Error *error) {
    const ModelConfig *model = &trainer->model.config;
    const DatasetInfo *data = &trainer->dataset.info;
    const Config *config = &trainer->config;
    if (!model_check_vocabulary(&trainer->model, config->model_path, data, config->data_path, error)) { return false; }
    if (data->max_length > model->max_positions) {
        return error_set(error, EX_CONFIG,
                         "%s was prepared with --max-length %d, the model has max_position_embeddings %d",
                         config->data_path, data->max_length, model->max_positions);
    }
    if (model->classes_given && model->classes != data->classes) {
        return error_set(error, EX_CONFIG, "%s/config.json has %d labels, %s has %d", config->model_path,
                         model->classes, config->data_path, data->classes);
    }
    return true;
}

// Rank 0 reads the model directory; the others receive the numbers.
static bool open_model(Trainer *trainer, Error *error) {
    Config *config = &trainer->config;
    Model *model = &trainer->model;
    bool ok = true;
    if (trainer->comm.rank == 0) {
        ok = model_open(model, config->model_path, config->model_init == INIT_RANDOM, error) &&
             check_fit(trainer, error);
        if (ok) { model_set_max_length(model, trainer->dataset.info.max_length); }
    }
    if (!comm_agree(&trainer->comm, ok, error)) { return false; }
    ModelConfig numbers = model->config;
    comm_broadcast(&trainer->comm, &numbers, sizeof numbers);
    if (trainer->comm.rank != 0) {
        numbers.json = NULL;
        numbers.label_names = NULL;
        model->config = numbers;
    }
    model_config_set_labels(&model->config, trainer->dataset.info.classes,
                            (const char(*)[DATASET_NAME_SIZE])trainer->dataset.info.label_names);
    if (config->hidden_dropout_prob < 0) { config->hidden_dropout_prob = model->config.hidden_dropout; }
    if (config->attention_probs_dropout_prob < 0) {
        config->attention_probs_dropout_prob = model->config.attention_dropout;
    }
    model->config.hidden_dropout = (float)config->hidden_dropout_prob;
    model->config.attention_dropout = (float)config->attention_probs_dropout_prob;
    return true;
}

// Lays out the trained part of the model: the active vocabulary and the positions that occur.
static void lay_out(Trainer *trainer) {
    const DatasetInfo *info = &trainer->dataset.info;
    const ModelConfig *config = &trainer->model.config;
    trainer->word_row = check_calloc((size_t)config->vocab_size, sizeof *trainer->word_row);
    for (int32_t id = 0; id < config->vocab_size; id++) { trainer->word_row[id] = -1; }
    for (int32_t row = 0; row < info->active_count; row++) { trainer->word_row[info->active[row]] = row; }
    const int32_t padding = trainer->word_row[config->pad_token_id];
    bert_init(&trainer->bert, config, info->active_count, info->max_length, padding);
}

static bool tokens_active(const Trainer *trainer, const Reviews *reviews, Error *error) {
    for (int64_t t = 0; t < reviews->token_count; t++) {
        const int32_t id = reviews->tokens[t];
        if (id >= trainer->model.config.vocab_size || trainer->word_row[id] < 0) {
            return error_set(error, EX_DATAERR, "%s: token id %d is not in /vocabulary/active",
                             trainer->config.data_path, id);
        }
    }
    return true;
}

// Rank 0 only. Takes the lock, so that what is read from the directory stays as it is.
static bool check_unused(Trainer *trainer, Error *error) {
    if (trainer->use != TRAINER_BENCH && !run_directory_lock(&trainer->run, error)) { return false; }
    if (trainer->use == TRAINER_BENCH || strcmp(trainer->config.resume, "never") != 0 ||
        !run_directory_in_use(&trainer->run)) {
        return true;
    }
    return error_set(error, EX_CANTCREAT, "%s: holds a run already and run.resume is `never`", trainer->run.path);
}

// The checkpoint to go on from into path, or "" for none. Rank 0 only.
static bool choose_checkpoint(const Trainer *trainer, char *path, size_t size, Error *error) {
    const char *resume = trainer->config.resume;
    path[0] = 0;
    if (trainer->use == TRAINER_BENCH || strcmp(resume, "never") == 0) { return true; }
    if (strcmp(resume, "auto") != 0) {
        char state[RUN_PATH];
        snprintf(path, size, "%s", resume);
        path_join(state, sizeof state, resume, "state.json");
        return access(state, F_OK) == 0 ? checkpoint_verify(path, error)
                                        : error_set(error, EX_NOINPUT, "%s: not a checkpoint: no state.json", resume);
    }
    int damaged;
    if (checkpoint_newest(path, size, trainer->run.checkpoints, &damaged)) { return true; }
    path[0] = 0;
    return !damaged ||
           error_set(error, EX_DATAERR, "%s: all %d checkpoints are damaged; move the run away to begin anew",
                     trainer->run.checkpoints, damaged);
}

static void describe_order(char *text, size_t size, int64_t shards) {
    if (shards) {
        snprintf(text, size, "elastic with virtual_shards %lld", (long long)shards);
    } else {
        snprintf(text, size, "off or run");
    }
}

// The order of sums is that of the checkpoint, as far as that says; else the end would depend on where the run was
// interrupted.
static bool check_order(const Progress *saved, const Progress *wanted, const char *path, Error *error) {
    if (saved->virtual_shards == SHARDS_UNKNOWN || saved->virtual_shards == wanted->virtual_shards) { return true; }
    char before[64], now[64];
    describe_order(before, sizeof before, saved->virtual_shards);
    describe_order(now, sizeof now, wanted->virtual_shards);
    return error_set(error, EX_CONFIG, "%s: made with train.determinism: %s; now %s; use another run.dir", path, before,
                     now);
}

static bool check_progress(const Progress *saved, const Progress *wanted, const char *path, Error *error) {
    if (strcmp(saved->source_sha256, wanted->source_sha256) == 0 && saved->train_rows == wanted->train_rows &&
        strcmp(saved->vocabulary_sha256, wanted->vocabulary_sha256) == 0 &&
        saved->global_batch_size == wanted->global_batch_size && saved->seed == wanted->seed &&
        saved->shuffle == wanted->shuffle) {
        return true;
    }
    return error_set(
        error, EX_CONFIG,
        "%s: made with another data set, global_batch_size, seed or shuffle (%lld rows, %lld, %lld, %s; now "
        "%lld rows, %lld, %lld, %s); use another run.dir",
        path, (long long)saved->train_rows, (long long)saved->global_batch_size, (long long)saved->seed,
        saved->shuffle ? "true" : "false", (long long)wanted->train_rows, (long long)wanted->global_batch_size,
        (long long)wanted->seed, wanted->shuffle ? "true" : "false");
}

// Weights, moments and progress from a checkpoint or from the model; rank 0 only.
static bool load_weights(Trainer *trainer, float *moments, Error *error) {
    const Config *config = &trainer->config;
    const size_t total = trainer->bert.layout.total;
    weights_init(&trainer->weights, &trainer->bert, &trainer->model.config, trainer->dataset.info.active);
    if (!choose_checkpoint(trainer, trainer->resumed_from, sizeof trainer->resumed_from, error)) { return false; }
    if (trainer->resumed_from[0]) {
        const Progress wanted = trainer->progress;
        Snapshot snapshot = {&trainer->model, &trainer->bert, &trainer->weights, moments, moments + total, wanted};
        if (!checkpoint_load(&snapshot, trainer->resumed_from, error)) { return false; }
        trainer->progress = snapshot.progress;
        trainer->progress.virtual_shards = wanted.virtual_shards;
        return check_progress(&snapshot.progress, &wanted, trainer->resumed_from, error) &&
               check_order(&snapshot.progress, &wanted, trainer->resumed_from, error);
    }
    if (config->model_init == INIT_RANDOM) {
        weights_randomize(&trainer->weights, &trainer->bert, &trainer->model.config, (uint64_t)config->seed);
        return true;
    }
    char fresh[1024];
    if (!weights_load(&trainer->weights, &trainer->bert, &trainer->model.config, config->model_path,
                      (uint64_t)config->seed, fresh, sizeof fresh, error)) {
        return false;
    }
    if (fresh[0] && trainer->use != TRAINER_TRIAL) {
        fprintf(stderr, "bertune: newly initialised, since %s lacks them: %s\n", config->model_path, fresh);
    }
    return true;
}

// Moves the run's weights and moments, of which rank 0 has the values, into the reducer's replicas.
static void fill_replicas(Trainer *trainer, float *moments) {
    const Comm *comm = &trainer->comm;
    const size_t total = trainer->bert.layout.total;
    float *parameters = comm->rank == 0 ? trainer->weights.parameters : check_calloc(total, sizeof *parameters);
    comm_broadcast(comm, parameters, total * sizeof *parameters);
    comm_broadcast(comm, moments, 2 * total * sizeof *moments);
    reducer_fill(trainer->reducer, REPLICA_PARAMETERS, parameters);
    reducer_fill(trainer->reducer, REPLICA_FIRST_MOMENT, moments);
    reducer_fill(trainer->reducer, REPLICA_SECOND_MOMENT, moments + total);
    trainer->parameters = reducer_replica(trainer->reducer, REPLICA_PARAMETERS);
    trainer->first_moment = reducer_replica(trainer->reducer, REPLICA_FIRST_MOMENT);
    trainer->second_moment = reducer_replica(trainer->reducer, REPLICA_SECOND_MOMENT);
    if (comm->rank != 0) { free(parameters); }
}

static bool share_weights(Trainer *trainer, Error *error) {
    const Comm *comm = &trainer->comm;
    const DatasetInfo *info = &trainer->dataset.info;
    const Config *config = &trainer->config;
    const size_t total = trainer->bert.layout.total;
    const bool elastic = config->determinism == DETERMINISM_ELASTIC;
    float *moments = check_calloc(2 * total, sizeof *moments);
    trainer->progress = (Progress){.best_accuracy = -1,
                                   .train_rows = trainer->train.reviews.rows,
                                   .global_batch_size = config->global_batch_size,
                                   .seed = config->seed,
                                   .virtual_shards = elastic ? config->virtual_shards : 0,
                                   .shuffle = config->shuffle};
    memcpy(trainer->progress.source_sha256, info->source_sha256, sizeof info->source_sha256);
    memcpy(trainer->progress.vocabulary_sha256, info->vocabulary_sha256, sizeof info->vocabulary_sha256);
    bool ok = comm->rank != 0 || load_weights(trainer, moments, error);
    ok = comm_agree(comm, ok, error);
    if (ok) {
        comm_broadcast(comm, &trainer->progress, sizeof trainer->progress);
        trainer->reducer = reducer_open(comm, trainer->device, trainer->placement.transport, total, REPLICAS, error);
        ok = trainer->reducer != NULL;
        if (ok) { fill_replicas(trainer, moments); }
        ok = ok && (!elastic || elastic_open(&trainer->elastic, comm, trainer->device, trainer->reducer, total,
                                             config->virtual_shards, error));
    }
    free(moments);
    return ok;
}

// The run directory, config.yaml and metrics.jsonl; rank 0 only, once it is known that there is something to do, so
// that a user's error leaves nothing behind.
static bool open_reports(Trainer *trainer, Error *error) {
    if (!run_directory_create(&trainer->run, error)) { return false; }
    char *yaml = config_to_yaml(&trainer->config);
    const int64_t epochs = trainer->progress.step / trainer->batches.steps - trainer_epoch_open(trainer);
    checkpoint_cut_back(trainer->run.checkpoints, trainer->progress.step);
    checkpoint_remove_final(trainer->run.path);
    const bool ok = file_write(trainer->run.config, yaml, strlen(yaml), error) &&
                    metrics_open(&trainer->metrics, trainer->run.metrics, trainer->progress.step, epochs, error);
    free(yaml);
    return ok;
}

void describe_device(const Device *device, char *text, size_t size) {
    const int threads = device_threads(device);
    if (device_kind(device) == DEVICE_CPU) {
        snprintf(text, size, "x %d thread%s on %s", threads, threads == 1 ? "" : "s", device_name(device));
    } else {
        snprintf(text, size, "on %s (%s)", device_name(device), device_model(device));
    }
}

static void report_start(Trainer *trainer) {
    const Config *config = &trainer->config;
    Metrics *metrics = &trainer->metrics;
    const ModelConfig *model = &trainer->model.config;
    const Bert *bert = &trainer->bert;
    const int64_t H = bert->H;
    const int64_t untrained =
        ((int64_t)model->vocab_size - bert->V + model->max_positions - bert->P + model->type_vocab_size - 1) * H;
    metrics_begin(metrics, "start");
    metrics_text(metrics, "version", BERTUNE_VERSION);
    metrics_integer(metrics, "world_size", trainer->comm.size);
    metrics_integer(metrics, "nodes", trainer->comm.nodes);
    metrics_text(metrics, "device", device_name(trainer->device));
    metrics_text(metrics, "device_model", device_model(trainer->device));
    metrics_integer(metrics, "threads", device_threads(trainer->device));
    metrics_integer(metrics, "parameters", (int64_t)bert->layout.total + untrained);
    metrics_integer(metrics, "trained_parameters", (int64_t)bert->layout.total);
    metrics_integer(metrics, "train_rows", trainer->train.reviews.rows);
    metrics_text(metrics, "evaluation_split", evaluation_split(config));
    metrics_integer(metrics, "validation_rows", trainer->validation.reviews.rows);
    metrics_integer(metrics, "steps_per_epoch", trainer->batches.steps);
    metrics_integer(metrics, "total_steps", trainer->last_step);
    metrics_integer(metrics, "step", trainer->progress.step);
    if (trainer->resumed_from[0]) { metrics_text(metrics, "resumed_from", trainer->resumed_from); }
    metrics_end(metrics);
    if (trainer->use == TRAINER_TRIAL) { return; }
    char device[320];
    describe_device(trainer->device, device, sizeof device);
    if (config->device == CHOICE_AUTO && strncmp(device_built(DEVICE_CUDA), "not", 3) != 0) {
        fprintf(stderr, "bertune: run.device: %s\n", trainer->placement.why);
    }
    fprintf(stderr, "bertune: %d rank%s %s, %lld training and %lld %s rows, %lld steps%s%s\n", trainer->comm.size,
            trainer->comm.size == 1 ? "" : "s", device, (long long)trainer->train.reviews.rows,
            (long long)trainer->validation.reviews.rows, evaluation_split(config), (long long)trainer->last_step,
            trainer->resumed_from[0] ? ", going on from " : "", trainer->resumed_from);
}

// Where the run ends, and whether it has ended already.
static void plan(Trainer *trainer) {
    const Config *config = &trainer->config;
    const Comm *comm = &trainer->comm;
    batches_init(&trainer->batches, &trainer->train.reviews, config->global_batch_size,
                 narrow_int(config->gradient_accumulation_steps), comm->rank, comm->size, config->shuffle,
                 (uint64_t)config->seed);
    if (config->determinism == DETERMINISM_ELASTIC) {
        batches_shard(&trainer->batches, trainer->elastic.shards, comm->part);
    }
    trainer->total_steps = trainer->batches.steps * config->num_train_epochs;
    trainer->last_step = trainer->total_steps;
    if (config->max_steps && config->max_steps < trainer->last_step) { trainer->last_step = config->max_steps; }
    int finished = trainer->use != TRAINER_BENCH && trainer->progress.step >= trainer->last_step &&
                   access(trainer->run.final, F_OK) == 0;
    comm_broadcast(comm, &finished, sizeof finished);
    trainer->finished = finished;
}

// Steps that are recorded have no phases.
void trainer_record(Trainer *trainer) {
    const RecordedUse use = {.comm = &trainer->comm,
                             .config = &trainer->config,
                             .device = trainer->device,
                             .bert = &trainer->bert,
                             .reducer = trainer->reducer,
                             .parameters = trainer->parameters,
                             .first_moment = trainer->first_moment,
                             .second_moment = trainer->second_moment,
                             .batches = &trainer->batches,
                             .word_row = trainer->word_row,
                             .total_steps = trainer->total_steps};
    if (!trainer->config.profile && recorded_possible(&use)) { trainer->recorded = recorded_open(use); }
}

bool trainer_open(Trainer *trainer, TrainerUse use, const Comm *comm, const Config *config, Error *error) {
    memset(trainer, 0, sizeof *trainer);
    trainer->use = use;
    trainer->comm = *comm;
    comm = &trainer->comm;
    trainer->config = *config;
    trainer->run.lock = -1;
    trainer->started = seconds_now();
    comm_broadcast(comm, &trainer->config, sizeof trainer->config);
    run_directory_init(&trainer->run, trainer->config.run_dir);
    watchdog_phase(WATCH_READ, -1);
    if (!open_device(trainer, error) || !open_data(trainer, error) || !open_model(trainer, error)) { return false; }
    lay_out(trainer);
    bool ok = tokens_active(trainer, &trainer->train.reviews, error) &&
              tokens_active(trainer, &trainer->validation.reviews, error);
    ok = ok && (comm->rank != 0 || check_unused(trainer, error));
    if (!comm_agree(comm, ok, error) || !share_weights(trainer, error)) { return false; }
    plan(trainer);
    if (trainer->finished) { return true; }
    trainer_record(trainer);
    if (!trainer->recorded && (trainer->config.profile || use == TRAINER_BENCH)) {
        trainer->profile = check_calloc(1, sizeof *trainer->profile);
        profile_start(trainer->profile, trainer->device);
    }
    if (use == TRAINER_BENCH) { return true; }
    if (!comm_agree(comm, comm->rank != 0 || open_reports(trainer, error), error)) { return false; }
    trainer->log = run_log_open(&trainer->run, comm->rank);
    if (trainer->log) { watchdog_set_log(fileno(trainer->log)); }
    run_log(trainer->log, "rank %d of %d, host %s, pid %ld, %d threads, read training rows %lld to %lld", comm->rank,
            comm->size, comm->host, (long)getpid(), device_threads(trainer->device), (long long)trainer->train.first,
            (long long)(trainer->train.first + trainer->train.count));
    inference_open(&trainer->inference, trainer->device, &trainer->bert, trainer->dataset.info.max_length);
    if (comm->rank == 0) { report_start(trainer); }
    return true;
}

void trainer_close(Trainer *trainer) {
    watchdog_phase(WATCH_END, trainer->progress.step);
    progress_clear(&trainer->bar);
    metrics_close(&trainer->metrics);
    recorded_close(trainer->recorded);
    elastic_close(&trainer->elastic);
    if (trainer->device) {
        inference_close(&trainer->inference);
        bert_state_close(trainer->state);
    }
    batch_free(&trainer->batch);
    free(trainer->losses);
    free(trainer->profile);
    batches_free(&trainer->batches);
    reducer_close(trainer->reducer);
    device_close(trainer->device);
    weights_free(&trainer->weights);
    bert_free(&trainer->bert);
    free(trainer->word_row);
    model_close(&trainer->model);
    shards_close(&trainer->train);
    shards_close(&trainer->validation);
    dataset_close(&trainer->dataset);
    run_directory_close(&trainer->run);
    watchdog_set_log(-1);
    if (trainer->log) { fclose(trainer->log); }
}
