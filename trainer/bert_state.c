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

static void alloc_last_attention(BertState *state, LayerState *layer) {
    const int64_t B = state->max_sequences, A = state->bert->A, H = state->bert->H;
    layer->cls = floats(state, B, H);
    layer->query = floats(state, B, H);
    layer->attention = (ClsAttention){.attended = floats(state, B, A * H),
                                      .mixed = floats(state, B, A * H),
                                      .kept = floats(state, B, A),
                                      .log_sum = floats(state, B, A)};
}

static void alloc_layer(BertState *state, LayerState *layer, bool last) {
    const Bert *bert = state->bert;
    const int64_t T = state->max_tokens, B = state->max_sequences, H = bert->H, M = last ? B : T;
    if (last) {
        alloc_last_attention(state, layer);
    } else {
        layer->qkv = floats(state, T, 3 * H);
        layer->log_sum = floats(state, T, bert->A);
    }
    layer->context = floats(state, M, H);
    layer->attention_normalized = floats(state, M, H);
    layer->attention_rstd = floats(state, M, 1);
    layer->attention_out = floats(state, M, H);
    layer->activated = floats(state, M, bert->F);
    layer->derivative = state->training ? floats(state, M, bert->F) : NULL;
    layer->output_normalized = floats(state, M, H);
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
    const int64_t T = state->max_tokens, B = state->max_sequences, H = state->bert->H, A = state->bert->A;
    float **lines[] = {&state->dx[0],          &state->dx[1],          &state->doutput_sum, &state->doutput,
                       &state->dattention_out, &state->dattention_sum, &state->dattention,  &state->dcontext};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) { *lines[i] = floats(state, T, H); }
    state->dqkv = floats(state, T, 3 * H);
    state->dup = floats(state, T, state->bert->F);
    state->dlast = floats(state, B, H);
    state->dpooled = floats(state, B, H);
    state->dquery = floats(state, B, H);
    state->dcls = floats(state, B, H);
    state->dattended = floats(state, B, A * H);
    state->dmixed = floats(state, B, A * H);
}

static void alloc_batch(BertState *state) {
    const int64_t T = state->max_tokens, B = state->max_sequences;
    state->ids = own(state, T, 1, sizeof *state->ids);
    state->positions = own(state, T, 1, sizeof *state->positions);
    state->rows = own(state, T, 1, sizeof *state->rows);
    state->starts = own(state, B + 1, 1, sizeof *state->starts);
    state->labels = own(state, B, 1, sizeof *state->labels);
    state->sequence_rows = own(state, B, 1, sizeof *state->sequence_rows);
    state->cls_positions = own(state, B, 1, sizeof *state->cls_positions);
}

BertState *bert_state_open(Device *device, const Bert *bert, int sequences, int tokens, int longest, bool training) {
    BertState *state = check_calloc(1, sizeof *state);
    *state = (BertState){.device = device,
                         .bert = bert,
                         .training = training,
                         .max_sequences = sequences,
                         .max_tokens = tokens,
                         .longest = longest};
    const int64_t T = tokens, B = sequences, H = bert->H;
    alloc_batch(state);
    state->sum = floats(state, T, H);
    state->embedding_normalized = floats(state, T, H);
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

void bert_state_profile(BertState *state, Profile *profile) { state->profile = profile; }

void bert_state_close(BertState *state) {
    if (!state) { return; }
    for (int i = 0; i < state->owned_count; i++) { device_free(state->device, state->owned[i]); }
    free(state->owned);
    free(state->layers);
    free(state);
}

BatchArrays bert_state_follow(BertState *state, const Step *step, uint64_t seed) {
    state->step = step;
    state->key.seed = seed;
    state->T = (Extent){state->max_tokens, &step->tokens};
    state->B = (Extent){state->max_sequences, &step->sequences};
    return (BatchArrays){.ids = state->ids,
                         .positions = state->positions,
                         .rows = state->rows,
                         .starts = state->starts,
                         .labels = state->labels,
                         .sequence_rows = state->sequence_rows};
}

const float *bert_state_losses(const BertState *state, Extent *B) {
    *B = state->B;
    return state->losses;
}

Extent bert_state_tokens(const BertState *state) { return state->T; }
