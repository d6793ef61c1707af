// BERT with a classifier on top, token-flat: a batch is T tokens of B sequences end to end, nothing is padded, and
// behind the keys and values of the last layer only the [CLS] lines are computed. The only part that knows BERT.
//
// Three structs with three lifetimes: Bert (what the model is), a flat buffer of parameters described by its layout,
// and BertState (activations and workspace for batches up to a size). Letters as in kernels/kernels.h.
#ifndef BERTUNE_BERT_H
#define BERTUNE_BERT_H

#include "kernels/kernels.h"
#include "trainer/layout.h"
#include "trainer/model_config.h"
#include "trainer/profile.h"

// Offsets of a layer's parameters. query, key and value follow each other: one (3 H, H) weight and one (3 H) bias.
typedef struct {
    size_t qkv_weight, qkv_bias;
    size_t attention_weight, attention_bias, attention_norm_weight, attention_norm_bias;
    size_t up_weight, up_bias, down_weight, down_bias, output_norm_weight, output_norm_bias;
} BertLayer;

typedef struct {
    int H, A, F, L, C;
    int V, P;     // rows of the word and position tables held in the buffer
    int padding;  // row of the word table that gets no gradient; -1: none
    float epsilon;
    float hidden_dropout, attention_dropout, classifier_dropout;
    Layout layout;
    size_t word, position, type, norm_weight, norm_bias;
    BertLayer *layers;  // (L)
    size_t pooler_weight, pooler_bias, classifier_weight, classifier_bias;
} Bert;

// Lays the model out for word_rows of the vocabulary and position_rows positions. Free with bert_free.
void bert_init(Bert *bert, const ModelConfig *config, int word_rows, int position_rows, int padding);
void bert_free(Bert *bert);

// A batch in host memory.
typedef struct {
    int B, T;
    int32_t *ids;             // (T) rows of the word table
    int32_t *positions;       // (T)
    uint32_t *rows;           // (T) data row of each token, keys dropout
    int32_t *starts;          // (B + 1) first token of each sequence
    uint32_t *sequence_rows;  // (B)
    int32_t *labels;          // (B)
} Batch;

void batch_alloc(Batch *batch, int sequences, int tokens);
void batch_free(Batch *batch);

typedef struct BertState BertState;

// Room for batches of up to the given size, of which no sequence has more than `longest` tokens. Without training,
// activations are not kept for backward and dropout is off.
BertState *bert_state_open(Device *device, const Bert *bert, int sequences, int tokens, int longest, bool training);
void bert_state_close(BertState *state);

// Times the phases of what follows in profile; NULL: no longer.
void bert_state_profile(BertState *state, Profile *profile);

// Key of all dropout of a step.
typedef struct {
    uint64_t seed;
    uint32_t step;
} DropoutKey;

// Computes logits (B, C) and losses (B) into host memory; either may be NULL.
void bert_forward(BertState *state, const float *parameters, const Batch *batch, DropoutKey key, float *logits,
                  float *losses);

// For recorded steps (kernels.h): from now on, the state's batch is what step_take leaves in its arrays, and its sizes,
// the step in dropout's key and the losses' scale are read from *step, in device memory.
BatchArrays bert_state_follow(BertState *state, const Step *step, uint64_t seed);
// Tokens of the batch.
Extent bert_state_tokens(const BertState *state);
// The losses (B) of the last forward, in device memory, and B.
const float *bert_state_losses(const BertState *state, Extent *B);

// Called by all workers when the gradient is final from element `begin` of the layout on.
typedef void GradientReady(void *context, size_t begin);

// Computes the gradient of scale * (sum of the losses of the last forward) into gradient, a buffer of the layout's
// shape, or adds it there. ready may be NULL.
void bert_backward(BertState *state, float *gradient, const float *parameters, float scale, bool accumulate,
                   GradientReady *ready, void *context);

// Forward and backward as parts of a body that device_record runs, of a state that follows a step.
void bert_record_forward(const BertState *state, const float *parameters);
void bert_record_backward(const BertState *state, float *gradient, const float *parameters, GradientReady *ready,
                          void *context);

#endif
