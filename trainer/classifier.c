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

bool classifier_find(char *directory, size_t size, const char *path, Error *error) {
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

bool classifier_read(Model *model, Bert *bert, Weights *weights, const char *directory, Error *error) {
    if (!model_open(model, directory, false, error)) { return false; }
    const ModelConfig *config = &model->config;
    bert_init(bert, config, config->vocab_size, config->max_positions, -1);
    weights_init(weights, bert, config, NULL);
    char fresh[1024];
    if (!weights_load(weights, bert, config, directory, 0, fresh, sizeof fresh, error)) { return false; }
    return !fresh[0] ||
           error_set(error, EX_DATAERR, "%s: not fine-tuned yet: model.safetensors lacks %s; use `bertune train`",
                     directory, fresh);
}

static bool open_device(Classifier *classifier, DeviceKind kind, Error *error) {
    const Bert *bert = &classifier->bert;
    classifier->device = device_open(kind, 0, omp_get_max_threads(), classifier->compute.precision, error);
    if (!classifier->device) { return false; }
    const size_t bytes = bert->layout.total * sizeof(float);
    classifier->parameters = device_alloc(classifier->device, bytes);
    device_upload(classifier->device, classifier->parameters, classifier->weights.parameters, bytes);
    inference_open(&classifier->inference, classifier->device, bert, classifier->max_length);
    return true;
}

// The kind of device that is asked for and there.
static bool choose_kind(DeviceChoice choice, DeviceKind *kind, Error *error) {
    const char *none;
    *kind = choice != CHOICE_CPU && device_count(DEVICE_CUDA, &none) > 0 ? DEVICE_CUDA : DEVICE_CPU;
    return choice != CHOICE_CUDA || *kind == DEVICE_CUDA ||
           error_set(error, EX_UNAVAILABLE, "--device cuda: %s; use --device cpu", none);
}

bool classifier_open(Classifier *classifier, const char *path, Compute compute, Error *error) {
    memset(classifier, 0, sizeof *classifier);
    classifier->compute = compute;
    DeviceKind kind;
    if (!choose_kind(compute.device, &kind, error)) { return false; }
    const char *lacks = device_lacks(kind, 0, compute.precision);
    if (lacks) { return error_set(error, EX_CONFIG, "--precision: %s", lacks); }
    char vocabulary[PATH_MAX];
    if (!classifier_find(classifier->directory, sizeof classifier->directory, path, error) ||
        !classifier_read(&classifier->model, &classifier->bert, &classifier->weights, classifier->directory, error)) {
        return false;
    }
    path_join(vocabulary, sizeof vocabulary, classifier->directory, "vocab.txt");
    classifier->max_length = model_max_length(&classifier->model);
    return tokenizer_open(&classifier->tokenizer, vocabulary, error) && open_device(classifier, kind, error);
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

bool compute_parse(Compute *compute, int option, const char *text, const char **expected) {
    static const char *const devices[] = {[CHOICE_AUTO] = "auto", [CHOICE_CPU] = "cpu", [CHOICE_CUDA] = "cuda"};
    static const char *const precisions[] = {
        [PRECISION_FP32] = "fp32", [PRECISION_TF32] = "tf32", [PRECISION_BF16] = "bf16"};
    const char *const *names = option == 'D' ? devices : precisions;
    *expected = option == 'D' ? "auto, cpu or cuda" : "fp32, tf32 or bf16";
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], text) != 0) { continue; }
        if (option == 'D') {
            compute->device = (DeviceChoice)i;
        } else {
            compute->precision = (Precision)i;
        }
        return true;
    }
    return false;
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
