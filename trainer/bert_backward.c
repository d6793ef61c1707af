// Backward pass: each function undoes the one of its name in bert_forward.c. Within a layer the gradients of the
// activations come first, line by line; then, when all workers have come so far, those of the parameters.
#include "trainer/bert_state.h"

typedef struct {
    const BertState *state;
    float *gradient;
    const float *parameters;
    float scale;
    bool accumulate;
    GradientReady *ready;
    void *context;
} Backward;

// The gradient of a linear layer's parameters.
static void linear_gradient(const Backward *b, size_t weight, size_t bias, const float *dout, const float *in, Extent M,
                            int N, int K) {
    linear_backward_weight(b->state->device, b->gradient + weight, b->gradient + bias, dout, in, b->accumulate, M, N,
                           K);
}

static void norm_gradient(const Backward *b, size_t weight, size_t bias, const float *dout, const float *normalized,
                          Extent M) {
    layernorm_backward_parameters(b->state->device, b->gradient + weight, b->gradient + bias, dout, normalized,
                                  b->accumulate, M, b->state->bert->H);
}

// dlast (B, H) of the last layer's output.
static void backward_classifier(const Backward *b) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    Device *device = state->device;
    const float *p = b->parameters;
    const Extent B = state->B;
    const int H = bert->H;
    enter_linear(state, PHASE_LOSS_BACKWARD, 1, B.most, H, H);
    cross_entropy(device, state->losses, state->dlogits, state->logits, state->labels,
                  (Factor){b->scale, state->step ? &state->step->scale : NULL}, B, bert->C);
    linear_backward_input(device, state->dpooled, state->dlogits, p + bert->classifier_weight, NULL, B, bert->C, H);
    dropout_apply(device, state->dpooled, state->dpooled, cls_lines(state),
                  state_dropout(state, bert->classifier_dropout, SITE_CLASSIFIER), B, H);
    tanh_backward(device, state->dpooled, state->dpooled, state->pooled, B, H);
    linear_backward_input(device, state->dlast, state->dpooled, p + bert->pooler_weight, NULL, B, H, H);
}

// The parameters of what backward_classifier passed.
static void classifier_parameters(const Backward *b) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    const int H = bert->H;
    enter_linear(state, PHASE_LOSS_BACKWARD, 1, state->B.most, H, H);
    linear_gradient(b, bert->classifier_weight, bert->classifier_bias, state->dlogits, state->dropped, state->B,
                    bert->C, H);
    linear_gradient(b, bert->pooler_weight, bert->pooler_bias, state->dpooled, state->layers[bert->L - 1].out, state->B,
                    H, H);
}

// From dout of the layer's output to dcontext of the attention.
static void backward_lines(const Backward *b, int l, const float *dout, Lines lines, Extent M) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const float *p = b->parameters;
    const int H = bert->H, F = bert->F;
    enter_phase(state, PHASE_LAYERNORM_BACKWARD, 0, 4.0 * M.most * H);
    layernorm_backward_input(device, state->doutput_sum, dout, s->output_normalized, s->output_rstd,
                             p + layer->output_norm_weight, M, H);
    dropout_apply(device, state->doutput, state->doutput_sum, lines,
                  state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_OUTPUT)), M, H);
    enter_linear(state, PHASE_FEED_FORWARD_BACKWARD, 2, M.most, F, H);
    linear_gelu_backward_input(device, state->dup, state->doutput, p + layer->down_weight, s->derivative, M, H, F);
    linear_backward_input(device, state->dattention_out, state->dup, p + layer->up_weight, state->doutput_sum, M, F, H);
    enter_phase(state, PHASE_LAYERNORM_BACKWARD, 0, 4.0 * M.most * H);
    layernorm_backward_input(device, state->dattention_sum, state->dattention_out, s->attention_normalized,
                             s->attention_rstd, p + layer->attention_norm_weight, M, H);
    dropout_apply(device, state->dattention, state->dattention_sum, lines,
                  state_dropout(state, bert->hidden_dropout, layer_site(l, SITE_ATTENTION_OUTPUT)), M, H);
    enter_linear(state, PHASE_ATTENTION_OUTPUT_BACKWARD, 1, M.most, H, H);
    linear_backward_input(device, state->dcontext, state->dattention, p + layer->attention_weight, NULL, M, H, H);
}

// The parameters of what backward_lines passed.
static void backward_parameters(const Backward *b, int l, const float *dout, Extent M) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    const int H = bert->H, F = bert->F;
    enter_linear(state, PHASE_FEED_FORWARD_BACKWARD, 2, M.most, F, H);
    linear_gradient(b, layer->down_weight, layer->down_bias, state->doutput, s->activated, M, H, F);
    linear_gradient(b, layer->up_weight, layer->up_bias, state->dup, s->attention_out, M, F, H);
    enter_linear(state, PHASE_ATTENTION_OUTPUT_BACKWARD, 1, M.most, H, H);
    linear_gradient(b, layer->attention_weight, layer->attention_bias, state->dattention, s->context, M, H, H);
    enter_phase(state, PHASE_LAYERNORM_BACKWARD, 0, 4.0 * M.most * H);
    norm_gradient(b, layer->output_norm_weight, layer->output_norm_bias, dout, s->output_normalized, M);
    norm_gradient(b, layer->attention_norm_weight, layer->attention_norm_bias, state->dattention_out,
                  s->attention_normalized, M);
}

// dx (T, H) of the layer's input x, from dcontext and dattention_sum.
static void backward_attention(const Backward *b, int l, float *dx, const float *x) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const Extent T = state->T;
    const int H = bert->H;
    device_sync(device);
    enter_phase(state, PHASE_ATTENTION_BACKWARD, 10 * state->squares * H, 8.0 * T.most * H);
    attention_backward(device, state->dqkv, state->dcontext, s->context, s->log_sum, s->qkv, state_sequences(state),
                       state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION)));
    device_sync(device);
    enter_linear(state, PHASE_QKV_BACKWARD, 2, T.most, 3 * H, H);
    linear_backward_input(device, dx, state->dqkv, b->parameters + layer->qkv_weight, state->dattention_sum, T, 3 * H,
                          H);
    linear_gradient(b, layer->qkv_weight, layer->qkv_bias, state->dqkv, x, T, 3 * H, H);
}

static void backward_last_attention(const Backward *b, int l, float *dx, const float *x) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    const BertLayer *layer = &bert->layers[l];
    const LayerState *s = &state->layers[l];
    Device *device = state->device;
    const Extent B = state->B;
    const int H = bert->H;
    const size_t square = (size_t)H * (size_t)H, width = (size_t)H;
    const float *weight = b->parameters + layer->qkv_weight;
    float *dweight = b->gradient + layer->qkv_weight, *dbias = b->gradient + layer->qkv_bias;
    enter_phase(state, PHASE_ATTENTION_BACKWARD, 8.0 * B.most * H * H + 10.0 * state->T.most * bert->A * H,
                2.0 * state->T.most * H);
    cls_attention_backward(device, state->dquery, dx, state->dattended, state->dmixed, state->dcontext, s->attention, x,
                           cls_projections(bert, b->parameters, l), state_sequences(state),
                           state_dropout(state, bert->attention_dropout, layer_site(l, SITE_ATTENTION)));
    enter_linear(state, PHASE_QKV_BACKWARD, 2, B.most, H, H);
    linear_backward_input(device, state->dcls, state->dquery, weight, state->dattention_sum, B, H, H);
    device_sync(device);
    cls_attention_backward_weight(
        device, (ClsProjectionGradients){dweight + square, dbias + width, dweight + 2 * square, dbias + 2 * width},
        state->dattended, state->dcontext, s->attention, s->query, b->accumulate, B, bert->A, H / bert->A);
    linear_gradient(b, layer->qkv_weight, layer->qkv_bias, state->dquery, s->cls, B, H, H);
    scatter_add_lines(device, dx, state->dcls, state->starts, B, H);
}

// All lines of dx are written when it returns, and the workers' buffers may be used again.
static void backward_layer(const Backward *b, int l, float *dx, const float *dout) {
    const BertState *state = b->state;
    const bool last = l == state->bert->L - 1;
    const Extent M = last ? state->B : state->T;
    const float *x = l ? state->layers[l - 1].out : state->input;
    backward_lines(b, l, dout, last ? cls_lines(state) : token_lines(state), M);
    (last ? backward_last_attention : backward_attention)(b, l, dx, x);
    backward_parameters(b, l, dout, M);
    if (last) { classifier_parameters(b); }
    device_sync(state->device);
}

static void backward_embeddings(const Backward *b, float *dx) {
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    Device *device = state->device;
    const Extent T = state->T;
    const int H = bert->H;
    enter_phase(state, PHASE_EMBEDDING_BACKWARD, 0, 7.0 * T.most * H);
    dropout_apply(device, dx, dx, token_lines(state), state_dropout(state, bert->hidden_dropout, SITE_EMBEDDING), T, H);
    layernorm_backward_input(device, state->doutput_sum, dx, state->embedding_normalized, state->embedding_rstd,
                             b->parameters + bert->norm_weight, T, H);
    device_sync(device);
    norm_gradient(b, bert->norm_weight, bert->norm_bias, dx, state->embedding_normalized, T);
    embedding_backward(device, b->gradient + bert->word, b->gradient + bert->position, b->gradient + bert->type,
                       state->doutput_sum, state->ids, state->positions, bert->padding, b->accumulate, bert->V, bert->P,
                       T, H);
    device_sync(device);
}

static void report_ready(const Backward *b, size_t begin) {
    if (b->ready) { b->ready(b->context, begin); }
}

static void backward(void *context) {
    const Backward *b = context;
    const BertState *state = b->state;
    const Bert *bert = state->bert;
    backward_classifier(b);
    for (int l = bert->L - 1; l >= 0; l--) {
        const float *dout = l == bert->L - 1 ? state->dlast : state->dx[(l + 1) % 2];
        backward_layer(b, l, state->dx[l % 2], dout);
        report_ready(b, bert->layers[l].qkv_weight);
    }
    backward_embeddings(b, state->dx[0]);
    report_ready(b, 0);
}

void bert_record_backward(const BertState *state, float *gradient, const float *parameters, GradientReady *ready,
                          void *context) {
    CHECK(state->training && state->step);
    Backward b = {state, gradient, parameters, 0.0f, false, ready, context};
    backward(&b);
}

void bert_backward(BertState *state, float *gradient, const float *parameters, float scale, bool accumulate,
                   GradientReady *ready, void *context) {
    CHECK(state->training);
    device_run(state->device, backward, &(Backward){state, gradient, parameters, scale, accumulate, ready, context});
}
