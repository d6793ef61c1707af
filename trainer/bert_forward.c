// Forward pass, in the order of the paper (Devlin et al., 2019). All workers of the device run it; see kernels.h for
// where they must wait for each other.
#include "trainer/bert_state.h"

static void upload_batch(BertState *state, const Batch *batch) {
    Device *device = state->device;
    CHECK(batch->B <= state->max_sequences && batch->T <= state->max_tokens);
    const size_t B = (size_t)batch->B, T = (size_t)batch->T;
    state->B = extent(batch->B);
    state->T = extent(batch->T);
    if (state->profile) { state->profile->tokens += batch->T; }
    state->squares = 0.0;
    for (size_t b = 0; b < B; b++) {
        const double length = batch->starts[b + 1] - batch->starts[b];
        state->squares += length * length;
    }
    device_upload(device, state->ids, batch->ids, T * sizeof *batch->ids);
    device_upload(device, state->positions, batch->positions, T * sizeof *batch->positions);
    device_upload(device, state->rows, batch->rows, T * sizeof *batch->rows);
    device_upload(device, state->starts, batch->starts, (B + 1) * sizeof *batch->starts);
    device_upload(device, state->sequence_rows, batch->sequence_rows, B * sizeof *batch->sequence_rows);
    device_upload(device, state->labels, batch->labels, B * sizeof *batch->labels);
}

static void forward_embeddings(const BertState *state, const float *p) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    const Extent T = state->T;
    const int H = bert->H;
    enter_phase(state, PHASE_EMBEDDING, 0, 5.0 * T.most * H);
    embedding_forward(device, state->embedding_normalized, p + bert->word, p + bert->position, p + bert->type,
                      state->ids, state->positions, T, H);
    layernorm_forward(device, state->input, state->embedding_normalized, state->embedding_rstd,
                      state->embedding_normalized, p + bert->norm_weight, p + bert->norm_bias, bert->epsilon, T, H);
    dropout_apply(device, state->input, state->input, token_lines(state),
                  state_dropout(state, bert->hidden_dropout, SITE_EMBEDDING), T, H);
}

static void forward_attention(const BertState *state, const float *p, int l, const float *x) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const Extent T = state->T;
    const int H = bert->H;
    enter_linear(state, PHASE_QKV, 1, T.most, 3 * H, H);
    linear_forward(device, s->qkv, x, p + layer->qkv_weight, p + layer->qkv_bias, T, 3 * H, H);
    device_sync(device);
    enter_phase(state, PHASE_ATTENTION, 4 * state->squares * H, 4.0 * T.most * H);
    attention_forward(device, s->context, s->log_sum, s->qkv, state_sequences(state),
                      state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION)));
    device_sync(device);
}

// In the last layer the queries are the [CLS] lines alone.
static void forward_last_attention(const BertState *state, const float *p, int l, const float *x) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const Extent B = state->B;
    const int H = bert->H;
    device_sync(device);
    enter_linear(state, PHASE_QKV, 1, B.most, H, H);
    gather_lines(device, s->cls, x, state->starts, B, H);
    linear_forward(device, s->query, s->cls, p + layer->qkv_weight, p + layer->qkv_bias, B, H, H);
    enter_phase(state, PHASE_ATTENTION, 4.0 * B.most * H * H + 4.0 * state->T.most * bert->A * H,
                1.0 * state->T.most * H);
    cls_attention_forward(device, s->context, s->attention, s->query, x, cls_projections(bert, p, l),
                          state_sequences(state),
                          state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION)));
}

static void forward_layer(const BertState *state, const float *p, int l, const float *x) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const bool last = l == bert->L - 1;
    const Extent M = last ? state->B : state->T;
    const int H = bert->H, F = bert->F;
    const Lines lines = last ? cls_lines(state) : token_lines(state);
    (last ? forward_last_attention : forward_attention)(state, p, l, x);
    enter_linear(state, PHASE_ATTENTION_OUTPUT, 1, M.most, H, H);
    linear_forward(device, state->sum, s->context, p + layer->attention_weight, p + layer->attention_bias, M, H, H);
    enter_phase(state, PHASE_LAYERNORM, 0, 4.0 * M.most * H);
    residual_layernorm_forward(device, s->attention_out, s->attention_normalized, s->attention_rstd, state->sum,
                               last ? s->cls : x, p + layer->attention_norm_weight, p + layer->attention_norm_bias,
                               bert->epsilon, lines,
                               state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_ATTENTION_OUTPUT)), M, H);
    enter_linear(state, PHASE_FEED_FORWARD, 2, M.most, F, H);
    linear_gelu_forward(device, s->activated, s->derivative, s->attention_out, p + layer->up_weight, p + layer->up_bias,
                        M, F, H);
    linear_forward(device, state->sum, s->activated, p + layer->down_weight, p + layer->down_bias, M, H, F);
    enter_phase(state, PHASE_LAYERNORM, 0, 4.0 * M.most * H);
    residual_layernorm_forward(device, s->out, s->output_normalized, s->output_rstd, state->sum, s->attention_out,
                               p + layer->output_norm_weight, p + layer->output_norm_bias, bert->epsilon, lines,
                               state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_OUTPUT)), M, H);
}

static void forward_classifier(const BertState *state, const float *p) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    const Extent B = state->B;
    const int H = bert->H;
    enter_linear(state, PHASE_LOSS, 1, B.most, H, H);
    linear_forward(device, state->pooled, state->layers[bert->L - 1].out, p + bert->pooler_weight,
                   p + bert->pooler_bias, B, H, H);
    tanh_forward(device, state->pooled, state->pooled, B, H);
    dropout_apply(device, state->dropped, state->pooled, cls_lines(state),
                  state_dropout(state, bert->classifier_dropout, SITE_CLASSIFIER), B, H);
    linear_forward(device, state->logits, state->dropped, p + bert->classifier_weight, p + bert->classifier_bias, B,
                   bert->C, H);
    cross_entropy(device, state->losses, NULL, state->logits, state->labels, (Factor){0.0f, NULL}, B, bert->C);
}

void bert_record_forward(const BertState *state, const float *parameters) {
    forward_embeddings(state, parameters);
    for (int l = 0; l < state->bert->L; l++) {
        forward_layer(state, parameters, l, l ? state->layers[l - 1].out : state->input);
    }
    forward_classifier(state, parameters);
}

typedef struct {
    const BertState *state;
    const float *parameters;
} Forward;

static void forward(void *context) {
    const Forward *f = context;
    bert_record_forward(f->state, f->parameters);
}

void bert_forward(BertState *state, const float *parameters, const Batch *batch, DropoutKey key, float *logits,
                  float *losses) {
    const size_t B = (size_t)batch->B;
    CHECK(!state->step);
    upload_batch(state, batch);
    state->key = key;
    device_run(state->device, forward, &(Forward){state, parameters});
    if (logits) { device_download(state->device, logits, state->logits, B * (size_t)state->bert->C * sizeof *logits); }
    if (losses) { device_download(state->device, losses, state->losses, B * sizeof *losses); }
}
