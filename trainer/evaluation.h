// Losses and predictions of labelled reviews, and the figures that are made of them.
#ifndef BERTUNE_EVALUATION_H
#define BERTUNE_EVALUATION_H

#include <stdio.h>

#include "datasets/dataset.h"
#include "trainer/bert.h"

// A model ready to compute without training, on large packed batches.
typedef struct {
    const Bert *bert;
    BertState *state;
    Batch batch;
    int most_sequences, most_tokens;
    // Asked before each batch whether to go on; NULL: yes.
    bool (*go_on)(void *context);
    void *context;
} Inference;

// max_length: tokens of the longest sequence that will come.
void inference_open(Inference *inference, Device *device, const Bert *bert, int max_length);
void inference_close(Inference *inference);

// logits (count, C) and losses (count) of rows first .. first + count - 1; either may be NULL. parameters: device
// memory. False when go_on ended it.
bool inference_run(Inference *inference, const float *parameters, const Reviews *reviews, const int32_t *word_row,
                   int64_t first, int64_t count, float *logits, float *losses);

typedef struct {
    double loss, batch_accuracy;      // means of the means of batches, as the notebook prints them
    double accuracy;                  // over rows
    double *precision, *recall, *f1;  // (C); 0 where undefined
    double macro_f1;                  // mean of f1; with two classes `f1` of class 1 is what is usually meant
    int64_t *confusion;               // (C, C): row is the label, column the prediction
    int classes;
    int64_t rows;
} Scores;

// predictions (rows) are class numbers. Free with scores_free.
void scores_compute(Scores *scores, const float *losses, const int32_t *predictions, const int32_t *labels,
                    int64_t rows, int classes, int64_t batch_size);
void scores_free(Scores *scores);

// The F1 that is reported: of class 1 with two classes, as scikit-learn's default, else the macro mean.
double scores_f1(const Scores *scores);

// The confusion matrix as JSON: [[a, b], [c, d]].
void scores_print_confusion(const Scores *scores, FILE *out);

#endif
