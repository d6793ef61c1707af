// Activations and workspace; shared by bert_forward.c and bert_backward.c alone.
#ifndef BERTUNE_BERT_STATE_H
#define BERTUNE_BERT_STATE_H

#include "trainer/bert.h"

// What backward needs of a layer. M lines: T, but B ([CLS] only) in the last layer behind keys and values.
typedef struct {
    float *qkv;                                              // (T, 3 H); last layer: keys and values (T, 2 H)
    float *query;                                            // last layer: (B, H)
    float *cls;                                              // last layer: the [CLS] lines of its input (B, H)
    float *context;                                          // (M, H)
    float *log_sum;                                          // (A, M)
    float *attention_sum, *attention_mean, *attention_rstd;  // (M, H), (M), (M): the normalisation's input
    float *attention_out;                                    // (M, H)
    float *up, *activated;                                   // (M, F)
    float *output_sum, *output_mean, *output_rstd;           // (M, H), (M), (M)
    float *out;                                              // (M, H)
} LayerState;

struct BertState {
    Device *device;
    const Bert *bert;
    bool training;
    int max_sequences, max_tokens;
    void **owned;  // all device memory
    int owned_count;
    // The batch in device memory, as in Batch; cls_starts are 0, 1, ..., B and cls_positions zeros.
    int B, T;
    int32_t *ids, *positions, *starts, *labels, *cls_starts, *cls_positions;
    uint32_t *rows, *sequence_rows;
    DropoutKey key;
    float *embedded, *embedding_mean, *embedding_rstd;    // (T, H), (T), (T): the normalisation's input
    float *input;                                         // (T, H) of the first layer
    LayerState *layers;                                   // (L)
    float *pooled, *dropped, *logits, *losses, *dlogits;  // (B, H), (B, H), (B, C), (B), (B, C)
    // Workspace of backward.
    float *dx, *dsum, *dcontext;  // (T, H)
    float *dqkv;                  // (T, 3 H)
    float *dquery, *dcls;         // (B, H)
    float *dup, *dactivated;      // (T, F)
};

// The dropouts of the model, for Dropout.site.
enum { SITE_EMBEDDING = 0, SITE_CLASSIFIER = 1, SITE_LAYER = 2, SITES_PER_LAYER = 3 };
enum { SITE_ATTENTION = 0, SITE_ATTENTION_OUTPUT = 1, SITE_OUTPUT = 2 };

static inline Dropout state_dropout(const BertState *state, float probability, int site) {
    return (Dropout){state->training ? probability : 0.0f, state->key.seed, state->key.step, (uint32_t)site};
}

static inline int layer_site(int layer, int site) { return SITE_LAYER + SITES_PER_LAYER * layer + site; }

static inline Lines token_lines(const BertState *state) { return (Lines){state->rows, state->positions}; }
static inline Lines cls_lines(const BertState *state) { return (Lines){state->sequence_rows, state->cls_positions}; }

static inline AttentionShape attention_shape(const BertState *state, bool cls_only) {
    const Bert *bert = state->bert;
    return (AttentionShape){.query_starts = cls_only ? state->cls_starts : state->starts,
                            .key_starts = state->starts,
                            .rows = state->sequence_rows,
                            .query_stride = cls_only ? bert->H : 3 * bert->H,
                            .key_stride = cls_only ? 2 * bert->H : 3 * bert->H,
                            .B = state->B,
                            .A = bert->A,
                            .D = bert->H / bert->A};
}

#endif
