// A model directory as Hugging Face lays it out, without its weights: config.json, vocab.txt, tokenizer_config.json.
#ifndef BERTUNE_MODEL_H
#define BERTUNE_MODEL_H

#include "trainer/manifest.h"
#include "trainer/weights.h"

typedef struct {
    ModelConfig config;
    char *vocabulary;  // vocab.txt as it is
    size_t vocabulary_length;
    char vocabulary_sha256[65];
    json_t *tokenizer_config;  // tokenizer_config.json as it is, or one of ours
} Model;

// Reads the directory. random: config.json's vocab_size is replaced by the number of vocab.txt's lines. Free with
// model_close.
bool model_open(Model *model, const char *directory, bool random, Error *error);
void model_close(Model *model);

// EX_CONFIG, naming both hashes, when the data set at `data` was prepared with another vocabulary than the directory's.
bool model_check_vocabulary(const Model *model, const char *directory, const DatasetInfo *info, const char *data,
                            Error *error);

// tokenizer_config.json's model_max_length where it is one, at most max_position_embeddings.
int model_max_length(const Model *model);

// Sets it, so that whoever loads the model cuts texts where training did.
void model_set_max_length(Model *model, int max_length);

// Writes config.json, vocab.txt, tokenizer_config.json and model.safetensors into an existing directory, and lists them
// in the manifest.
bool model_write(const Model *model, const Weights *weights, const Bert *bert, const char *directory,
                 Manifest *manifest, Error *error);

#endif
