// Forward pass, in the order of the paper (Devlin et al., 2019).
#include "trainer/bert_state.h"

static void upload_batch(BertState *state, const Batch *batch) {
    Device *device = state->device;
    CHECK(batch->B <= state->max_sequences && batch->T <= state->max_tokens);
    const size_t B = (size_t)batch->B, T = (size_t)batch->T;
    state->B = batch->B;
    state->T = batch->T;
    device_upload(device, state->ids, batch->ids, T * sizeof *batch->ids);
    device_upload(device, state->positions, batch->positions, T * sizeof *batch->positions);
    device_upload(device, state->rows, batch->rows, T * sizeof *batch->rows);
    device_upload(device, state->starts, batch->starts, (B + 1) * sizeof *batch->starts);
    device_upload(device, state->sequence_rows, batch->sequence_rows, B * sizeof *batch->sequence_rows);
    device_upload(device, state->labels, batch->labels, B * sizeof *batch->labels);
}

static void forward_embeddings(BertState *state, const float *p) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    embedding_forward(device, state->embedded, p + bert->word, p + bert->position, p + bert->type, state->ids,
                      state->positions, state->T, bert->H);
    layernorm_forward(device, state->input, state->embedding_mean, state->embedding_rstd, state->embedded,
                      p + bert->norm_weight, p + bert->norm_bias, bert->epsilon, state->T, bert->H);
    dropout_apply(device, state->input, state->input, token_lines(state),
                  state_dropout(state, bert->hidden_dropout, SITE_EMBEDDING), state->T, bert->H);
}

// context = attention of x (T, H); in the last layer the queries are the [CLS] lines alone.
static void forward_attention(BertState *state, const float *p, int l, const float *x, bool last) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    LayerState *s = &state->layers[l];
    Device *device = state->device;
    const int H = bert->H;
    const size_t square = (size_t)H * (size_t)H;
    const float *q = s->qkv, *k = s->qkv + H, *v = s->qkv + 2 * H;
    if (last) {
        gather_lines(device, s->cls, x, state->starts, state->B, H);
        linear_forward(device, s->query, s->cls, p + layer->qkv_weight, p + layer->qkv_bias, state->B, H, H);
        linear_forward(device, s->qkv, x, p + layer->qkv_weight + square, p + layer->qkv_bias + H, state->T, 2 * H, H);
        q = s->query;
        k = s->qkv;
        v = s->qkv + H;
    } else {
        linear_forward(device, s->qkv, x, p + layer->qkv_weight, p + layer->qkv_bias, state->T, 3 * H, H);
    }
    attention_forward(device, s->context, s->log_sum, q, k, v, attention_shape(state, last),
                      state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION)));
}

static void forward_layer(BertState *state, const float *p, int l, const float *x) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    LayerState *s = &state->layers[l];
    Device *device = state->device;
    const bool last = l == bert->L - 1;
    const int H = bert->H, F = bert->F, M = last ? state->B : state->T;
    const Lines lines = last ? cls_lines(state) : token_lines(state);
    forward_attention(state, p, l, x, last);
    linear_forward(device, s->attention_sum, s->context, p + layer->attention_weight, p + layer->attention_bias, M, H,
                   H);
    residual_layernorm_forward(device, s->attention_out, s->attention_sum, s->attention_mean, s->attention_rstd,
                               s->attention_sum, last ? s->cls : x, p + layer->attention_norm_weight,
                               p + layer->attention_norm_bias, bert->epsilon, lines,
                               state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_ATTENTION_OUTPUT)), M, H);
    linear_forward(device, s->up, s->attention_out, p + layer->up_weight, p + layer->up_bias, M, F, H);
    gelu_forward(device, s->activated, s->up, (size_t)M * (size_t)F);
    linear_forward(device, s->output_sum, s->activated, p + layer->down_weight, p + layer->down_bias, M, H, F);
    residual_layernorm_forward(device, s->out, s->output_sum, s->output_mean, s->output_rstd, s->output_sum,
                               s->attention_out, p + layer->output_norm_weight, p + layer->output_norm_bias,
                               bert->epsilon, lines,
                               state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_OUTPUT)), M, H);
}

static void forward_classifier(BertState *state, const float *p) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    const int B = state->B, H = bert->H;
    linear_forward(device, state->pooled, state->layers[bert->L - 1].out, p + bert->pooler_weight,
                   p + bert->pooler_bias, B, H, H);
    tanh_forward(device, state->pooled, state->pooled, (size_t)B * (size_t)H);
    dropout_apply(device, state->dropped, state->pooled, cls_lines(state),
                  state_dropout(state, bert->classifier_dropout, SITE_CLASSIFIER), B, H);
    linear_forward(device, state->logits, state->dropped, p + bert->classifier_weight, p + bert->classifier_bias, B,
                   bert->C, H);
}

void bert_forward(BertState *state, const float *parameters, const Batch *batch, DropoutKey key, float *logits,
                  float *losses) {
    const Bert *bert = state->bert;
    const size_t B = (size_t)batch->B;
    upload_batch(state, batch);
    state->key = key;
    forward_embeddings(state, parameters);
    for (int l = 0; l < bert->L; l++) {
        forward_layer(state, parameters, l, l ? state->layers[l - 1].out : state->input);
    }
    forward_classifier(state, parameters);
    if (logits) { device_download(state->device, logits, state->logits, B * (size_t)bert->C * sizeof *logits); }
    if (losses) {
        cross_entropy(state->device, state->losses, NULL, state->logits, state->labels, 0.0f, state->B, bert->C);
        device_download(state->device, losses, state->losses, B * sizeof *losses);
    }
}
