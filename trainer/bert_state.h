// Activations and workspace; shared by bert_forward.c and bert_backward.c alone.
#ifndef BERTUNE_BERT_STATE_H
#define BERTUNE_BERT_STATE_H

#include "comm/watchdog.h"
#include "trainer/bert.h"
#include "trainer/profile.h"

// What backward needs of a layer. M lines: T, but B ([CLS] only) in the last layer.
typedef struct {
    float *qkv;                                    // (T, 3 H); not in the last layer
    float *log_sum;                                // (A, T); not in the last layer
    float *cls, *query;                            // last layer: the [CLS] lines of its input (B, H), their queries
    ClsAttention attention;                        // last layer
    float *context;                                // (M, H)
    float *attention_normalized, *attention_rstd;  // (M, H), (M)
    float *attention_out;                          // (M, H)
    float *activated, *derivative;                 // (M, F) the GELU's value and derivative
    float *output_normalized, *output_rstd;        // (M, H), (M)
    float *out;                                    // (M, H)
} LayerState;

struct BertState {
    Device *device;
    const Bert *bert;
    Profile *profile;  // of training steps; NULL: none
    bool training;
    int max_sequences, max_tokens, longest;
    void **owned;  // all device memory
    int owned_count;
    // The batch in device memory, as in Batch; cls_positions are zeros.
    Extent B, T;
    double squares;  // sum of the squared lengths of the sequences
    int32_t *ids, *positions, *starts, *labels, *cls_positions;
    uint32_t *rows, *sequence_rows;
    DropoutKey key;
    const Step *step;                                     // that the state follows; NULL: none
    float *sum;                                           // (T, H) of a half layer, before its normalisation
    float *embedding_normalized, *embedding_rstd;         // (T, H), (T)
    float *input;                                         // (T, H) of the first layer
    LayerState *layers;                                   // (L)
    float *pooled, *dropped, *logits, *losses, *dlogits;  // (B, H), (B, H), (B, C), (B), (B, C)
    // Workspace of backward: gradients of one layer. dx has two buffers, of the layer's output and of its input.
    float *dx[2];                                                    // (T, H)
    float *doutput_sum, *doutput, *dattention_out, *dattention_sum;  // (T, H)
    float *dattention, *dcontext;                                    // (T, H)
    float *dqkv;                                                     // (T, 3 H)
    float *dup;                                                      // (T, F)
    float *dlast, *dpooled, *dquery, *dcls;                          // (B, H)
    float *dattended, *dmixed;                                       // (B, A, H)
};

// The dropouts of the model, for Dropout.site.
enum { SITE_EMBEDDING = 0, SITE_CLASSIFIER = 1, SITE_LAYER = 2, SITES_PER_LAYER = 3 };
enum { SITE_ATTENTION = 0, SITE_ATTENTION_OUTPUT = 1, SITE_OUTPUT = 2 };

static inline Dropout state_dropout(const BertState *state, float probability, int site) {
    return (Dropout){state->training ? probability : 0.0f, state->key.seed, state->key.step, (uint32_t)site,
                     state->step ? &state->step->step : NULL};
}

static inline int layer_site(int layer, int site) { return SITE_LAYER + SITES_PER_LAYER * layer + site; }

static inline Lines token_lines(const BertState *state) { return (Lines){state->rows, state->positions}; }
static inline Lines cls_lines(const BertState *state) { return (Lines){state->sequence_rows, state->cls_positions}; }

static inline Sequences state_sequences(const BertState *state) {
    const Bert *bert = state->bert;
    return (Sequences){state->starts, state->sequence_rows, state->B,      state->T,
                       bert->A,       bert->H / bert->A,    state->longest};
}

// Of layer l among the parameters p.
static inline ClsProjections cls_projections(const Bert *bert, const float *p, int l) {
    const size_t H = (size_t)bert->H;
    const float *weight = p + bert->layers[l].qkv_weight;
    return (ClsProjections){weight + H * H, weight + 2 * H * H, p + bert->layers[l].qkv_bias + 2 * H};
}

// What the phases of a step must do and move; bytes count every operand once. Each is progress.
static inline void enter_phase(const BertState *state, Phase phase, double flop, double floats) {
    if (device_leader()) { watchdog_beat(); }
    profile_enter(state->profile, phase, flop, floats * sizeof(float));
}

// `passes` products of (M, K) by (K, N): 1 forward, 2 backward.
static inline void enter_linear(const BertState *state, Phase phase, double passes, double M, double N, double K) {
    enter_phase(state, phase, passes * 2 * M * N * K, passes * (M * N + N * K + M * K));
}

#endif
