// Backward pass: each function undoes the one of its name in bert_forward.c. dx is the gradient that travels down.
#include "trainer/bert_state.h"

// dx (B, H) of the last layer's output.
static void backward_classifier(BertState *state, float *g, const float *p, float scale) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    const int B = state->B, H = bert->H;
    cross_entropy(device, state->losses, state->dlogits, state->logits, state->labels, scale, B, bert->C);
    linear_backward(device, state->dcls, g + bert->classifier_weight, g + bert->classifier_bias, state->dlogits,
                    state->dropped, p + bert->classifier_weight, B, bert->C, H);
    dropout_apply(device, state->dcls, state->dcls, cls_lines(state),
                  state_dropout(state, bert->classifier_dropout, SITE_CLASSIFIER), B, H);
    tanh_backward(device, state->dcls, state->dcls, state->pooled, (size_t)B * (size_t)H);
    linear_backward(device, state->dx, g + bert->pooler_weight, g + bert->pooler_bias, state->dcls,
                    state->layers[bert->L - 1].out, p + bert->pooler_weight, B, H, H);
}

// The feed-forward half: dx of the layer's output becomes dx of attention_out.
static void backward_feed_forward(BertState *state, float *g, const float *p, int l, Lines lines, int M) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const int H = bert->H, F = bert->F;
    const size_t count = (size_t)M * (size_t)H;
    layernorm_backward(device, state->dsum, g + layer->output_norm_weight, g + layer->output_norm_bias, state->dx,
                       s->output_sum, s->output_mean, s->output_rstd, p + layer->output_norm_weight, M, H);
    dropout_apply(device, state->dcontext, state->dsum, lines,
                  state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_OUTPUT)), M, H);
    linear_backward(device, state->dactivated, g + layer->down_weight, g + layer->down_bias, state->dcontext,
                    s->activated, p + layer->down_weight, M, H, F);
    gelu_backward(device, state->dup, state->dactivated, s->up, (size_t)M * (size_t)F);
    linear_backward(device, state->dx, g + layer->up_weight, g + layer->up_bias, state->dup, s->attention_out,
                    p + layer->up_weight, M, F, H);
    add(device, state->dx, state->dsum, count);
}

// dx (T, H) of the layer's input from dcontext, without the residual connection.
static void backward_attention(BertState *state, float *g, const float *p, int l, const float *x, bool last) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const int H = bert->H;
    const size_t square = (size_t)H * (size_t)H;
    const Dropout dropout = state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION));
    const AttentionShape shape = attention_shape(state, last);
    float *d = state->dqkv;
    if (!last) {
        attention_backward(device, d, d + H, d + 2 * H, state->dcontext, s->context, s->log_sum, s->qkv, s->qkv + H,
                           s->qkv + 2 * H, shape, dropout);
        linear_backward(device, state->dx, g + layer->qkv_weight, g + layer->qkv_bias, d, x, p + layer->qkv_weight,
                        state->T, 3 * H, H);
        return;
    }
    attention_backward(device, state->dquery, d, d + H, state->dcontext, s->context, s->log_sum, s->query, s->qkv,
                       s->qkv + H, shape, dropout);
    linear_backward(device, state->dx, g + layer->qkv_weight + square, g + layer->qkv_bias + H, d, x,
                    p + layer->qkv_weight + square, state->T, 2 * H, H);
    linear_backward(device, state->dcls, g + layer->qkv_weight, g + layer->qkv_bias, state->dquery, s->cls,
                    p + layer->qkv_weight, state->B, H, H);
}

static void backward_layer(BertState *state, float *g, const float *p, int l, const float *x) {
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const bool last = l == bert->L - 1;
    const int H = bert->H, M = last ? state->B : state->T;
    const Lines lines = last ? cls_lines(state) : token_lines(state);
    backward_feed_forward(state, g, p, l, lines, M);
    layernorm_backward(device, state->dsum, g + layer->attention_norm_weight, g + layer->attention_norm_bias, state->dx,
                       s->attention_sum, s->attention_mean, s->attention_rstd, p + layer->attention_norm_weight, M, H);
    dropout_apply(device, state->dx, state->dsum, lines,
                  state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_ATTENTION_OUTPUT)), M, H);
    linear_backward(device, state->dcontext, g + layer->attention_weight, g + layer->attention_bias, state->dx,
                    s->context, p + layer->attention_weight, M, H, H);
    backward_attention(state, g, p, l, x, last);
    if (last) {
        add(device, state->dcls, state->dsum, (size_t)M * (size_t)H);
        scatter_add_lines(device, state->dx, state->dcls, state->starts, state->B, H);
    } else {
        add(device, state->dx, state->dsum, (size_t)M * (size_t)H);
    }
}

static void backward_embeddings(BertState *state, float *g, const float *p) {
    const Bert *bert = state->bert;
    Device *device = state->device;
    dropout_apply(device, state->dx, state->dx, token_lines(state),
                  state_dropout(state, bert->hidden_dropout, SITE_EMBEDDING), state->T, bert->H);
    layernorm_backward(device, state->dsum, g + bert->norm_weight, g + bert->norm_bias, state->dx, state->embedded,
                       state->embedding_mean, state->embedding_rstd, p + bert->norm_weight, state->T, bert->H);
    embedding_backward(device, g + bert->word, g + bert->position, g + bert->type, state->dsum, state->ids,
                       state->positions, bert->padding, state->T, bert->H);
}

void bert_backward(BertState *state, float *gradient, const float *parameters, float scale) {
    CHECK(state->training);
    backward_classifier(state, gradient, parameters, scale);
    for (int l = state->bert->L - 1; l >= 0; l--) {
        backward_layer(state, gradient, parameters, l, l ? state->layers[l - 1].out : state->input);
    }
    backward_embeddings(state, gradient, parameters);
}
