// The tiny BERT of tests/fixtures/model, opened by the functions that the trainer uses: its directory, its reviews, the
// active vocabulary, the layout and the weights (see fixtures/make_model_fixture.py for what PyTorch made of it).
#ifndef BERTUNE_MODEL_FIXTURE_H
#define BERTUNE_MODEL_FIXTURE_H

#include "tests/text_fixture.h"
#include "trainer/batches.h"
#include "trainer/model.h"

#define MODEL_FIXTURE BERTUNE_FIXTURES "/model"

typedef struct {
    json_t *expected;  // expected.json
    Model model;
    Reviews reviews;
    int32_t active_count, *active, *word_row;
    Bert bert;
    Weights weights;
    Device *device;
    float *parameters;  // device memory, as loaded
} ModelFixture;

// layers: of the model that is laid out, at most the fixture's 2. On the device that the environment variable
// BERTUNE_TEST_DEVICE names, cpu (unless it is set) or cuda. Fails the test on any error.
void model_fixture_open(ModelFixture *fixture, int layers);
void model_fixture_close(ModelFixture *fixture);

// A copy of the layout's size in host memory; release with free.
float *model_fixture_download(const ModelFixture *fixture, const float *buffer);

// The array of numbers at json; release with free.
double *json_doubles(const json_t *json, size_t *count);

#endif
