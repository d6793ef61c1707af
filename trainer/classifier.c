// See classifier.h.
#include "trainer/classifier.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/checkpoint.h"

static bool has_config(char *directory, size_t size, const char *path, const char *below) {
    char config[PATH_MAX + 64];
    snprintf(directory, size, "%s%s", path, below);
    snprintf(config, sizeof config, "%s/config.json", directory);
    return access(config, F_OK) == 0;
}

// The model directory that path means.
static bool resolve(char *directory, size_t size, const char *path, Error *error) {
    char checkpoints[PATH_MAX];
    int damaged = 0;
    path_join(checkpoints, sizeof checkpoints, path, "checkpoints");
    if (has_config(directory, size, path, "") || has_config(directory, size, path, "/final") ||
        checkpoint_newest(directory, size, checkpoints, &damaged)) {
        return true;
    }
    if (access(path, F_OK) != 0) { return error_set(error, EX_NOINPUT, "%s: no such directory", path); }
    return damaged ? error_set(error, EX_DATAERR, "%s: all checkpoints are damaged", checkpoints)
                   : error_set(error, EX_NOINPUT,
                               "%s: neither a model (no config.json) nor a run (no final/, no "
                               "checkpoint)",
                               path);
}

static bool open_weights(Classifier *classifier, Error *error) {
    const ModelConfig *config = &classifier->model.config;
    Bert *bert = &classifier->bert;
    bert_init(bert, config, config->vocab_size, config->max_positions, -1);
    weights_init(&classifier->weights, bert, config, NULL);
    char fresh[1024];
    if (!weights_load(&classifier->weights, bert, config, classifier->directory, 0, fresh, sizeof fresh, error)) {
        return false;
    }
    if (fresh[0]) {
        return error_set(error, EX_DATAERR, "%s: not fine-tuned yet: model.safetensors lacks %s; use `bertune train`",
                         classifier->directory, fresh);
    }
    classifier->device = device_open(DEVICE_CPU, 0, omp_get_max_threads(), classifier->precision, error);
    if (!classifier->device) { return false; }
    const size_t bytes = bert->layout.total * sizeof(float);
    classifier->parameters = device_alloc(classifier->device, bytes);
    device_upload(classifier->device, classifier->parameters, classifier->weights.parameters, bytes);
    inference_open(&classifier->inference, classifier->device, bert, classifier->max_length);
    return true;
}

bool classifier_open(Classifier *classifier, const char *path, Precision precision, Error *error) {
    memset(classifier, 0, sizeof *classifier);
    const char *lacks = device_lacks(DEVICE_CPU, 0, precision);
    if (lacks) { return error_set(error, EX_CONFIG, "--precision: %s", lacks); }
    classifier->precision = precision;
    char vocabulary[PATH_MAX];
    if (!resolve(classifier->directory, sizeof classifier->directory, path, error) ||
        !model_open(&classifier->model, classifier->directory, false, error)) {
        return false;
    }
    path_join(vocabulary, sizeof vocabulary, classifier->directory, "vocab.txt");
    classifier->max_length = model_max_length(&classifier->model);
    return tokenizer_open(&classifier->tokenizer, vocabulary, error) && open_weights(classifier, error);
}

void classifier_close(Classifier *classifier) {
    if (classifier->device) {
        inference_close(&classifier->inference);
        device_free(classifier->device, classifier->parameters);
        device_close(classifier->device);
    }
    weights_free(&classifier->weights);
    bert_free(&classifier->bert);
    tokenizer_free(&classifier->tokenizer);
    model_close(&classifier->model);
}

float *classifier_logits(Classifier *classifier, const Reviews *reviews, float *losses, Error *error) {
    const size_t count = (size_t)reviews->rows * (size_t)classifier->bert.C;
    float *logits = check_calloc(count, sizeof *logits);
    inference_run(&classifier->inference, classifier->parameters, reviews, NULL, 0, reviews->rows, logits, losses);
    for (size_t i = 0; i < count; i++) {
        if (isfinite(logits[i])) { continue; }
        error_set(error, EX_DATAERR, "%s: the model computes %g; its weights are damaged or diverged",
                  classifier->directory, logits[i]);
        free(logits);
        return NULL;
    }
    return logits;
}

bool precision_parse(const char *text, Precision *precision) {
    *precision = strcmp(text, "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32;
    return *precision == PRECISION_BF16 || strcmp(text, "fp32") == 0;
}

int32_t largest_of(const float *values, int count) {
    int32_t best = 0;
    for (int32_t c = 1; c < count; c++) { best = values[c] > values[best] ? c : best; }
    return best;
}

void softmax(float *logits, int classes) {
    const float largest = logits[largest_of(logits, classes)];
    double sum = 0.0;
    for (int c = 0; c < classes; c++) { sum += exp((double)logits[c] - largest); }
    for (int c = 0; c < classes; c++) { logits[c] = (float)(exp((double)logits[c] - largest) / sum); }
}
