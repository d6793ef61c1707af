// The parameters of a model between a Hugging Face directory and the flat buffer that is trained.
//
// Only rows of the embedding tables that can get a gradient are trained (the active vocabulary, positions below the
// data set's max_length, token type 0). The full tables stay beside them; their other rows are only decayed, by
// repeating every step's fp32 multiplication, which is what torch.optim.AdamW does to them, bit for bit.
#ifndef BERTUNE_WEIGHTS_H
#define BERTUNE_WEIGHTS_H

#include "datasets/file.h"
#include "trainer/bert.h"
#include "trainer/model_config.h"

typedef struct {
    const int32_t *active;  // (bert->V) vocabulary id of each trained row, sorted; borrowed. NULL: all rows in order
    float *parameters;      // host memory, (bert->layout.total)
    float *word;            // full tables (vocab_size, H), (max_positions, H), (type_vocab_size, H); trained rows stale
    float *position;
    float *type;
} Weights;

// Allocates everything; free with weights_free.
void weights_init(Weights *weights, const Bert *bert, const ModelConfig *config, const int32_t *active);
void weights_free(Weights *weights);

// Copies the trained rows from the full tables into the flat buffer.
void weights_take_rows(Weights *weights, const Bert *bert, const ModelConfig *config);

// Draws all weights as Hugging Face does: normal (0, initializer_range), biases 0, normalisation 1 and 0, [PAD] 0.
void weights_randomize(Weights *weights, const Bert *bert, const ModelConfig *config, uint64_t seed);

// Reads directory/model.safetensors: names with or without `bert.`, LayerNorm.gamma and .beta. A missing pooler or
// classifier is drawn from seed, and its name appended to fresh (of size bytes). EX_NOINPUT, EX_DATAERR; a directory
// with nothing but pytorch_model.bin is EX_DATAERR with the command that converts it.
bool weights_load(Weights *weights, const Bert *bert, const ModelConfig *config, const char *directory, uint64_t seed,
                  char *fresh, size_t size, Error *error);

// Repeats the decay of steps on the rows that are not trained; factors (count) are (float)(1 - lr * weight_decay).
void weights_decay_tables(Weights *weights, const Bert *bert, const ModelConfig *config, const float *factors,
                          int64_t count);

// Writes directory/model.safetensors with the full tables and Hugging Face's names. hash may be NULL
// (file_write_parts).
bool weights_save(const Weights *weights, const Bert *bert, const ModelConfig *config, const char *directory,
                  FileHash *hash, Error *error);

#endif
