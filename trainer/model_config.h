// config.json of a Hugging Face BERT classifier: the shape of the model.
#ifndef BERTUNE_MODEL_CONFIG_H
#define BERTUNE_MODEL_CONFIG_H

#include <jansson.h>

#include "datasets/dataset.h"
#include "kernels/check.h"

typedef struct {
    int32_t vocab_size, hidden_size, layers, heads, intermediate_size, max_positions, type_vocab_size;
    int32_t classes;
    bool classes_given;    // num_labels or id2label stands in the file
    int32_t pad_token_id;  // -1: none
    float layer_norm_epsilon, initializer_range;
    float hidden_dropout, attention_dropout, classifier_dropout;
    bool classifier_dropout_given;
    char (*label_names)[DATASET_NAME_SIZE];  // (classes)
    json_t *json;                            // the file as read, so that keys unknown to us survive in what is written
} ModelConfig;

// Reads directory/config.json. Only what a BERT classifier of this program can be is accepted (model_type bert, erf
// GELU, absolute positions); everything else is EX_DATAERR with file and key. Free with model_config_free.
bool model_config_read(ModelConfig *config, const char *directory, Error *error);
void model_config_free(ModelConfig *config);

// Takes the classes and their names of a data set.
void model_config_set_labels(ModelConfig *config, int32_t classes, const char (*names)[DATASET_NAME_SIZE]);

// config.json to write beside weights of this shape; release with free.
char *model_config_to_json(const ModelConfig *config);

#endif
