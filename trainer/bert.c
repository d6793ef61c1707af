// The model's layout and batches; forward and backward are in bert_forward.c and bert_backward.c.
#include "trainer/bert.h"

#include <stdlib.h>

static void add_layer(Bert *bert, int l) {
    Layout *layout = &bert->layout;
    BertLayer *layer = &bert->layers[l];
    const int H = bert->H, F = bert->F;
#define NAME "bert.encoder.layer.%d."
    layer->qkv_weight = layout_add(layout, H, H, true, NAME "attention.self.query.weight", l);
    layout_add(layout, H, H, true, NAME "attention.self.key.weight", l);
    layout_add(layout, H, H, true, NAME "attention.self.value.weight", l);
    layer->qkv_bias = layout_add(layout, H, 0, false, NAME "attention.self.query.bias", l);
    layout_add(layout, H, 0, false, NAME "attention.self.key.bias", l);
    layout_add(layout, H, 0, false, NAME "attention.self.value.bias", l);
    layer->attention_weight = layout_add(layout, H, H, true, NAME "attention.output.dense.weight", l);
    layer->attention_bias = layout_add(layout, H, 0, false, NAME "attention.output.dense.bias", l);
    layer->attention_norm_weight = layout_add(layout, H, 0, false, NAME "attention.output.LayerNorm.weight", l);
    layer->attention_norm_bias = layout_add(layout, H, 0, false, NAME "attention.output.LayerNorm.bias", l);
    layer->up_weight = layout_add(layout, F, H, true, NAME "intermediate.dense.weight", l);
    layer->up_bias = layout_add(layout, F, 0, false, NAME "intermediate.dense.bias", l);
    layer->down_weight = layout_add(layout, H, F, true, NAME "output.dense.weight", l);
    layer->down_bias = layout_add(layout, H, 0, false, NAME "output.dense.bias", l);
    layer->output_norm_weight = layout_add(layout, H, 0, false, NAME "output.LayerNorm.weight", l);
    layer->output_norm_bias = layout_add(layout, H, 0, false, NAME "output.LayerNorm.bias", l);
#undef NAME
}

void bert_init(Bert *bert, const ModelConfig *config, int word_rows, int position_rows, int padding) {
    *bert = (Bert){
        .H = config->hidden_size,
        .A = config->heads,
        .F = config->intermediate_size,
        .L = config->layers,
        .C = config->classes,
        .V = word_rows,
        .P = position_rows,
        .padding = padding,
        .epsilon = config->layer_norm_epsilon,
        .hidden_dropout = config->hidden_dropout,
        .attention_dropout = config->attention_dropout,
        .classifier_dropout = config->classifier_dropout_given ? config->classifier_dropout : config->hidden_dropout};
    Layout *layout = &bert->layout;
    const int H = bert->H;
    bert->word = layout_add(layout, word_rows, H, true, "bert.embeddings.word_embeddings.weight");
    bert->position = layout_add(layout, position_rows, H, true, "bert.embeddings.position_embeddings.weight");
    bert->type = layout_add(layout, 1, H, true, "bert.embeddings.token_type_embeddings.weight");
    bert->norm_weight = layout_add(layout, H, 0, false, "bert.embeddings.LayerNorm.weight");
    bert->norm_bias = layout_add(layout, H, 0, false, "bert.embeddings.LayerNorm.bias");
    bert->layers = check_calloc((size_t)bert->L, sizeof *bert->layers);
    for (int l = 0; l < bert->L; l++) { add_layer(bert, l); }
    bert->pooler_weight = layout_add(layout, H, H, true, "bert.pooler.dense.weight");
    bert->pooler_bias = layout_add(layout, H, 0, false, "bert.pooler.dense.bias");
    bert->classifier_weight = layout_add(layout, bert->C, H, true, "classifier.weight");
    bert->classifier_bias = layout_add(layout, bert->C, 0, false, "classifier.bias");
}

void bert_free(Bert *bert) {
    layout_free(&bert->layout);
    free(bert->layers);
    *bert = (Bert){0};
}

void batch_alloc(Batch *batch, int sequences, int tokens) {
    const size_t B = (size_t)sequences, T = (size_t)tokens;
    *batch = (Batch){.ids = check_calloc(T, sizeof *batch->ids),
                     .positions = check_calloc(T, sizeof *batch->positions),
                     .rows = check_calloc(T, sizeof *batch->rows),
                     .starts = check_calloc(B + 1, sizeof *batch->starts),
                     .sequence_rows = check_calloc(B, sizeof *batch->sequence_rows),
                     .labels = check_calloc(B, sizeof *batch->labels)};
}

void batch_free(Batch *batch) {
    free(batch->ids);
    free(batch->positions);
    free(batch->rows);
    free(batch->starts);
    free(batch->sequence_rows);
    free(batch->labels);
    *batch = (Batch){0};
}
