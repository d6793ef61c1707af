// Allocation of activations; see bert_state.h. Without training all layers share one set of buffers.
#include "trainer/bert_state.h"

#include <stdlib.h>

static void *own(BertState *state, int64_t lines, int64_t width, size_t element) {
    state->owned = check_realloc(state->owned, (size_t)state->owned_count + 1, sizeof *state->owned);
    void *memory = device_alloc(state->device, (size_t)lines * (size_t)width * element);
    state->owned[state->owned_count++] = memory;
    return memory;
}

static float *floats(BertState *state, int64_t lines, int64_t width) { return own(state, lines, width, sizeof(float)); }

static void alloc_layer(BertState *state, LayerState *layer, bool last) {
    const Bert *bert = state->bert;
    const int64_t T = state->max_tokens, B = state->max_sequences, H = bert->H, M = last ? B : T;
    layer->qkv = floats(state, T, (last ? 2 : 3) * H);
    if (last) {
        layer->query = floats(state, B, H);
        layer->cls = floats(state, B, H);
    }
    layer->context = floats(state, M, H);
    layer->log_sum = floats(state, M, bert->A);
    layer->attention_sum = floats(state, M, H);
    layer->attention_mean = floats(state, M, 1);
    layer->attention_rstd = floats(state, M, 1);
    layer->attention_out = floats(state, M, H);
    layer->up = floats(state, M, bert->F);
    layer->activated = floats(state, M, bert->F);
    layer->output_sum = floats(state, M, H);
    layer->output_mean = floats(state, M, 1);
    layer->output_rstd = floats(state, M, 1);
    layer->out = floats(state, M, H);
}

static void alloc_layers(BertState *state) {
    const Bert *bert = state->bert;
    state->layers = check_calloc((size_t)bert->L, sizeof *state->layers);
    for (int l = 0; l < bert->L; l++) {
        const bool last = l == bert->L - 1;
        if (last || l == 0 || state->training) {
            alloc_layer(state, &state->layers[l], last);
        } else {
            state->layers[l] = state->layers[0];
        }
    }
}

static void alloc_backward(BertState *state) {
    const int64_t T = state->max_tokens, B = state->max_sequences, H = state->bert->H, F = state->bert->F;
    state->dx = floats(state, T, H);
    state->dsum = floats(state, T, H);
    state->dcontext = floats(state, T, H);
    state->dqkv = floats(state, T, 3 * H);
    state->dquery = floats(state, B, H);
    state->dcls = floats(state, B, H);
    state->dup = floats(state, T, F);
    state->dactivated = floats(state, T, F);
}

static void alloc_batch(BertState *state) {
    const int64_t T = state->max_tokens, B = state->max_sequences;
    state->ids = own(state, T, 1, sizeof *state->ids);
    state->positions = own(state, T, 1, sizeof *state->positions);
    state->rows = own(state, T, 1, sizeof *state->rows);
    state->starts = own(state, B + 1, 1, sizeof *state->starts);
    state->labels = own(state, B, 1, sizeof *state->labels);
    state->sequence_rows = own(state, B, 1, sizeof *state->sequence_rows);
    state->cls_starts = own(state, B + 1, 1, sizeof *state->cls_starts);
    state->cls_positions = own(state, B, 1, sizeof *state->cls_positions);
    int32_t *numbers = check_calloc((size_t)B + 1, sizeof *numbers);
    for (int32_t b = 0; b <= state->max_sequences; b++) { numbers[b] = b; }
    device_upload(state->device, state->cls_starts, numbers, ((size_t)B + 1) * sizeof *numbers);
    free(numbers);
}

BertState *bert_state_open(Device *device, const Bert *bert, int sequences, int tokens, bool training) {
    BertState *state = check_calloc(1, sizeof *state);
    *state = (BertState){
        .device = device, .bert = bert, .training = training, .max_sequences = sequences, .max_tokens = tokens};
    const int64_t T = tokens, B = sequences, H = bert->H;
    alloc_batch(state);
    state->embedded = floats(state, T, H);
    state->embedding_mean = floats(state, T, 1);
    state->embedding_rstd = floats(state, T, 1);
    state->input = floats(state, T, H);
    alloc_layers(state);
    state->pooled = floats(state, B, H);
    state->dropped = floats(state, B, H);
    state->logits = floats(state, B, bert->C);
    state->losses = floats(state, B, 1);
    state->dlogits = floats(state, B, bert->C);
    if (training) { alloc_backward(state); }
    return state;
}

void bert_state_close(BertState *state) {
    if (!state) { return; }
    for (int i = 0; i < state->owned_count; i++) { device_free(state->device, state->owned[i]); }
    free(state->owned);
    free(state->layers);
    free(state);
}
