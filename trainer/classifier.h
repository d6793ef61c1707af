// A trained model ready to classify texts in this process: what evaluate and predict share.
#ifndef BERTUNE_CLASSIFIER_H
#define BERTUNE_CLASSIFIER_H

#include "datasets/tokenizer.h"
#include "trainer/config.h"
#include "trainer/evaluation.h"
#include "trainer/model.h"

// Where and how to compute: what the options --device and --precision say.
typedef struct {
    DeviceChoice device;
    Precision precision;
} Compute;

typedef struct {
    char directory[4096];  // of the model that was chosen
    Model model;
    Tokenizer tokenizer;
    int max_length;  // tokens of a text: model_max_length of tokenizer_config.json, else max_position_embeddings
    Bert bert;
    Weights weights;
    Compute compute;
    Device *device;
    float *parameters;  // device memory
    Inference inference;
} Classifier;

// The model directory that path means: itself, a run's final/, else the run's newest valid checkpoint. EX_NOINPUT when
// there is none, EX_DATAERR when all checkpoints are damaged.
bool classifier_find(char *directory, size_t size, const char *path, Error *error);

// Reads a fine-tuned model with its full tables. EX_DATAERR also where pooler or classifier are missing. To be freed
// with model_close, bert_free and weights_free, also after a failure.
bool classifier_read(Model *model, Bert *bert, Weights *weights, const char *directory, Error *error);

// path: a Hugging Face directory, or a run directory (its final/, else its newest valid checkpoint). Close with
// classifier_close also after a failure. EX_CONFIG where the device lacks the precision, EX_UNAVAILABLE where there is
// no such device.
bool classifier_open(Classifier *classifier, const char *path, Compute compute, Error *error);
void classifier_close(Classifier *classifier);

// Logits (rows, C) of reviews into a new array, and their losses unless that is NULL; release with free. NULL with
// EX_DATAERR when the model computes something that is not a number.
float *classifier_logits(Classifier *classifier, const Reviews *reviews, float *losses, Error *error);

// Reads the values of --device (auto, cpu or cuda) and --precision (fp32 or bf16; tf32 on a GPU), `option` being 'D' or
// 'p'. False with what was expected.
bool compute_parse(Compute *compute, int option, const char *text, const char **expected);

// The softmax of logits (classes) in place.
void softmax(float *logits, int classes);

// The number of the largest value.
int32_t largest_of(const float *values, int count);

#endif
