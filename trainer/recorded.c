// See recorded.h.
#include "trainer/recorded.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "trainer/optimizer.h"
#include "trainer/progress.h"
#include "trainer/schedule.h"
#include "trainer/stop.h"

// Steps are begun and waited for in windows, two of which are on their way. What ranks must tell each other, losses and
// whether to stop, they do once a window.
enum { WINDOW = 32, WINDOWS = 2 };

typedef struct {
    int64_t begin, end;  // steps of the run
    int slot;            // of the device's marks, and of host_results
    bool stop;           // was asked of this rank when the window was begun
} Window;

struct Recorded {
    RecordedUse use;
    BertState *state;
    Recording *recording;
    // In device memory: the step at hand, those of the epoch, its batches, the number of the next step within them.
    Step *step, *steps;
    BatchArrays batches;
    int32_t *next, *halted;
    StepSums *results;
    double *sums;  // (blocks + 1) of the gradient's squares, and of the losses
    size_t blocks;
    StepSums *host_results;  // (WINDOW * WINDOWS) of device_alloc_host
    int64_t first, end;      // steps of the run that lie in device memory
    int64_t begun, done;     // steps up to which have been begun, and given out
    Window windows[WINDOWS];
    int waiting, slot;             // windows on their way, and the slot of the next
    RecordedStep arrived[WINDOW];  // steps arrived_first .. arrived_end - 1
    int64_t arrived_first, arrived_end;
    bool stop;
    double since;  // when the last window arrived
};

bool recorded_possible(const RecordedUse *use) {
    return device_records(use->device) && reducer_in_queue(use->reducer) && use->batches->micro_batches == 1 &&
           use->config->determinism != DETERMINISM_ELASTIC;
}

Recorded *recorded_open(RecordedUse use) {
    Recorded *r = check_calloc(1, sizeof *r);
    const size_t tokens = (size_t)use.batches->reviews->token_count, rows = (size_t)use.batches->reviews->rows;
    const size_t steps = (size_t)use.batches->steps;
    Device *device = use.device;
    r->use = use;
    r->blocks = (use.bert->layout.total + SQUARE_BLOCK - 1) / SQUARE_BLOCK;
    r->step = device_alloc(device, sizeof *r->step);
    r->steps = device_alloc(device, steps * sizeof *r->steps);
    r->batches = (BatchArrays){.ids = device_alloc(device, tokens * sizeof(int32_t)),
                               .positions = device_alloc(device, tokens * sizeof(int32_t)),
                               .rows = device_alloc(device, tokens * sizeof(uint32_t)),
                               .starts = device_alloc(device, (rows + steps) * sizeof(int32_t)),
                               .labels = device_alloc(device, rows * sizeof(int32_t)),
                               .sequence_rows = device_alloc(device, rows * sizeof(uint32_t))};
    r->next = device_alloc(device, sizeof *r->next);
    r->halted = device_alloc(device, sizeof *r->halted);
    r->results = device_alloc(device, steps * sizeof *r->results);
    r->sums = device_alloc(device, (r->blocks + 1) * sizeof *r->sums);
    r->host_results = device_alloc_host(device, sizeof *r->host_results * WINDOW * WINDOWS);
    return r;
}

void recorded_close(Recorded *r) {
    if (!r) { return; }
    Device *device = r->use.device;
    if (r->recording) { device_record_free(device, r->recording); }
    void *memory[] = {r->step,         r->steps,          r->batches.ids,    r->batches.positions,
                      r->batches.rows, r->batches.starts, r->batches.labels, r->batches.sequence_rows,
                      r->next,         r->halted,         r->results,        r->sums};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) { device_free(device, memory[i]); }
    device_free_host(device, r->host_results);
    free(r);
}

static void gradient_ready(void *reducer, size_t begin) { reducer_ready(reducer, begin); }

static void update(const Recorded *r) {
    const RecordedUse *use = &r->use;
    const float *gradient = reducer_summed(use->reducer);
    Slice part;
    bool decay;
    Extent B;
    const float *losses = bert_state_losses(r->state, &B);
    step_sums(use->device, r->sums, gradient, use->bert->layout.total, losses, B);
    for (int i = 0; i < use->bert->layout.count;) {
        i = optimizer_part(&use->bert->layout, use->config->weight_decay_scope, i, &part, &decay);
        step_adamw(use->device, use->parameters + part.begin, use->first_moment + part.begin,
                   use->second_moment + part.begin, gradient + part.begin, r->step, r->sums, r->blocks,
                   (float)use->config->max_grad_norm, r->halted, decay, part.end - part.begin);
    }
}

static void whole_step(void *context) {
    const Recorded *r = context;
    const RecordedUse *use = &r->use;
    float *gradient = reducer_gradient(use->reducer);
    const BatchArrays batch = bert_state_follow(r->state, r->step, (uint64_t)use->config->seed);
    step_take(use->device, r->step, batch, r->steps, r->batches, r->next, bert_state_tokens(r->state));
    bert_record_forward(r->state, use->parameters);
    bert_record_backward(r->state, gradient, use->parameters, gradient_ready, use->reducer);
    reducer_sum(use->reducer);
    update(r);
    step_end(use->device, r->results, r->halted, r->next, r->sums, r->blocks);
}

static void copy_batch(const Batch *batch, const BatchArrays *to, const Step *step, int64_t index) {
    const size_t T = (size_t)batch->T, B = (size_t)batch->B;
    for (size_t t = 0; t < T; t++) {
        to->ids[(size_t)step->first_token + t] = batch->ids[t];
        to->positions[(size_t)step->first_token + t] = batch->positions[t];
        to->rows[(size_t)step->first_token + t] = batch->rows[t];
    }
    for (size_t b = 0; b <= B; b++) { to->starts[(size_t)(step->first_sequence + index) + b] = batch->starts[b]; }
    for (size_t b = 0; b < B; b++) {
        to->labels[(size_t)step->first_sequence + b] = batch->labels[b];
        to->sequence_rows[(size_t)step->first_sequence + b] = batch->sequence_rows[b];
    }
}

// This rank's batches of the steps, in host memory.
typedef struct {
    Step *steps;
    BatchArrays arrays;
    size_t tokens, sequences;
} Epoch;

static void fill_epoch(const Recorded *r, Epoch *epoch, int64_t first, int64_t count) {
    const RecordedUse *use = &r->use;
    Batch batch;
    batch_alloc(&batch,
                narrow_int(use->batches->batch_size < use->batches->reviews->rows ? use->batches->batch_size
                                                                                  : use->batches->reviews->rows),
                narrow_int(use->batches->reviews->token_count));
    for (int64_t i = 0; i < count; i++) {
        const int64_t run_step = first + i, step = run_step % use->batches->steps;
        const int64_t *rows;
        int samples, mine;
        batches_global(use->batches, step, &rows, &samples);
        batches_deal(use->batches, step);
        rows = batches_micro(use->batches, step, 0, &mine);
        batch_fill(&batch, use->batches->reviews, use->word_row, rows, mine);
        const double rate = schedule_rate(use->config, run_step, use->total_steps);
        epoch->steps[i] = (Step){.sequences = batch.B,
                                 .tokens = batch.T,
                                 .first_sequence = (int64_t)epoch->sequences,
                                 .first_token = (int64_t)epoch->tokens,
                                 .step = (uint32_t)run_step,
                                 .scale = 1.0f / (float)samples,
                                 .adamw = optimizer_factors(use->config, rate, run_step + 1, 0.0)};
        copy_batch(&batch, &epoch->arrays, &epoch->steps[i], i);
        epoch->tokens += (size_t)batch.T;
        epoch->sequences += (size_t)batch.B;
    }
    batch_free(&batch);
}

static void upload_epoch(Recorded *r, const Epoch *epoch, size_t steps) {
    Device *device = r->use.device;
    const BatchArrays *to = &r->batches, *from = &epoch->arrays;
    const int32_t zero = 0;
    device_upload(device, r->steps, epoch->steps, steps * sizeof *epoch->steps);
    device_upload(device, to->ids, from->ids, epoch->tokens * sizeof *from->ids);
    device_upload(device, to->positions, from->positions, epoch->tokens * sizeof *from->positions);
    device_upload(device, to->rows, from->rows, epoch->tokens * sizeof *from->rows);
    device_upload(device, to->starts, from->starts, (epoch->sequences + steps) * sizeof *from->starts);
    device_upload(device, to->labels, from->labels, epoch->sequences * sizeof *from->labels);
    device_upload(device, to->sequence_rows, from->sequence_rows, epoch->sequences * sizeof *from->sequence_rows);
    device_upload(device, r->next, &zero, sizeof zero);
}

void recorded_use_state(Recorded *r, BertState *state) {
    r->state = state;
    if (r->recording) { device_record_free(r->use.device, r->recording); }
    r->recording = device_record(r->use.device, whole_step, r);
}

void recorded_begin(Recorded *r, int64_t first, int64_t end) {
    const size_t steps = (size_t)(end - first), rows = (size_t)r->use.batches->reviews->rows;
    const size_t tokens = (size_t)r->use.batches->reviews->token_count;
    Epoch epoch = {.steps = check_calloc(steps, sizeof *epoch.steps),
                   .arrays = {.ids = check_calloc(tokens, sizeof(int32_t)),
                              .positions = check_calloc(tokens, sizeof(int32_t)),
                              .rows = check_calloc(tokens, sizeof(uint32_t)),
                              .starts = check_calloc(rows + steps, sizeof(int32_t)),
                              .labels = check_calloc(rows, sizeof(int32_t)),
                              .sequence_rows = check_calloc(rows, sizeof(uint32_t))}};
    fill_epoch(r, &epoch, first, (int64_t)steps);
    upload_epoch(r, &epoch, steps);
    free(epoch.steps);
    free(epoch.arrays.ids);
    free(epoch.arrays.positions);
    free(epoch.arrays.rows);
    free(epoch.arrays.starts);
    free(epoch.arrays.labels);
    free(epoch.arrays.sequence_rows);
    r->first = r->begun = r->done = r->arrived_first = r->arrived_end = first;
    r->end = end;
}

// Puts the next steps into the queue, up to a window of them, and the copy of their results.
static void begin_window(Recorded *r, int64_t limit) {
    const int64_t end = r->begun + WINDOW < limit ? r->begun + WINDOW : limit;
    Window *window = &r->windows[r->waiting++];
    *window = (Window){r->begun, end, r->slot, stop_requested()};
    for (; r->begun < end; r->begun++) { device_replay(r->use.device, r->recording); }
    device_download_later(r->use.device, r->host_results + (size_t)window->slot * WINDOW,
                          r->results + (window->begin - r->first), (size_t)(end - window->begin) * sizeof *r->results);
    device_mark(r->use.device, window->slot);
    r->slot = (r->slot + 1) % WINDOWS;
}

static void wait_for(Recorded *r, int slot) {
    const struct timespec rest = {.tv_nsec = 20000};
    watchdog_wait_begin();  // for its own device, whose queue has sums over all ranks
    while (!device_done(r->use.device, slot)) {
        reducer_check(r->use.reducer);
        nanosleep(&rest, NULL);
    }
    reducer_check(r->use.reducer);
    watchdog_wait_end();
}

// Waits for the oldest window, and agrees on it with the other ranks.
static void end_window(Recorded *r) {
    const Window window = r->windows[0];
    const int count = (int)(window.end - window.begin);
    const StepSums *results = r->host_results + (size_t)window.slot * WINDOW;
    double sums[WINDOW + 1];
    wait_for(r, window.slot);
    for (int i = 0; i < count; i++) { sums[i] = results[i].loss; }
    sums[count] = window.stop;
    comm_sum(r->use.comm, sums, count + 1);
    r->stop = r->stop || sums[count] > 0.0;
    const double now = seconds_now();
    for (int i = 0; i < count; i++) {
        const double rate = schedule_rate(r->use.config, window.begin + i, r->use.total_steps);
        const AdamW adamw = optimizer_factors(r->use.config, rate, window.begin + i + 1, 0.0);
        r->arrived[i] = (RecordedStep){sums[i], results[i].squares, adamw.decay, (now - r->since) / count, false};
    }
    r->since = now;
    r->arrived_first = window.begin;
    r->arrived_end = window.end;
    r->windows[0] = r->windows[1];
    r->waiting--;
}

bool recorded_step(Recorded *r, int64_t limit, RecordedStep *step) {
    limit = limit < r->end ? limit : r->end;
    if (r->done == r->arrived_end) {
        if (r->waiting == 0) { r->since = seconds_now(); }
        while (r->waiting < WINDOWS && r->begun < limit && !r->stop) { begin_window(r, limit); }
        CHECK(r->waiting > 0);
        end_window(r);
    }
    *step = r->arrived[r->done - r->arrived_first];
    r->done++;
    step->stop = r->stop && r->done == r->begun;
    return isfinite(step->loss) && isfinite(step->squares);
}

int recorded_nodes(const Recorded *r) { return device_record_nodes(r->use.device, r->recording); }
