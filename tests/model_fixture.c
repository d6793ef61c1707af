// See model_fixture.h.
#include "tests/model_fixture.h"

#include <stdlib.h>
#include <string.h>

static void read_reviews(Reviews *reviews, const json_t *expected) {
    const json_t *tokens = json_object_get(expected, "tokens"), *labels = json_object_get(expected, "labels");
    *reviews = (Reviews){.rows = (int64_t)json_array_size(tokens)};
    for (int64_t i = 0; i < reviews->rows; i++) {
        reviews->token_count += (int64_t)json_array_size(json_array_get(tokens, (size_t)i));
    }
    reviews_alloc(reviews);
    for (int64_t i = 0, t = 0; i < reviews->rows; i++) {
        const json_t *row = json_array_get(tokens, (size_t)i), *id;
        size_t at;
        json_array_foreach(row, at, id) { reviews->tokens[t++] = (int32_t)json_integer_value(id); }
        reviews->offsets[i + 1] = t;
        reviews->labels[i] = (int32_t)json_integer_value(json_array_get(labels, (size_t)i));
        reviews->source_row[i] = i;
    }
}

// The ids that occur, and [PAD], sorted: what `bertune prepare` stores as /vocabulary/active.
static void find_active(ModelFixture *fixture) {
    const int32_t vocabulary = fixture->model.config.vocab_size;
    fixture->active = check_calloc((size_t)vocabulary, sizeof(int32_t));
    fixture->word_row = check_calloc((size_t)vocabulary, sizeof(int32_t));
    fixture->word_row[fixture->model.config.pad_token_id] = 1;
    for (int64_t t = 0; t < fixture->reviews.token_count; t++) { fixture->word_row[fixture->reviews.tokens[t]] = 1; }
    for (int32_t id = 0; id < vocabulary; id++) {
        const bool used = fixture->word_row[id];
        fixture->word_row[id] = used ? fixture->active_count : -1;
        if (used) { fixture->active[fixture->active_count++] = id; }
    }
}

// BERTUNE_TEST_DEVICE: cpu (unless it is set) or cuda.
static DeviceKind device_under_test(void) {
    const char *name = getenv("BERTUNE_TEST_DEVICE");
    if (!name || strcmp(name, "cpu") == 0) { return DEVICE_CPU; }
    if (strcmp(name, "cuda") != 0) { fail_msg("BERTUNE_TEST_DEVICE: expected cpu or cuda, found `%s`", name); }
    return DEVICE_CUDA;
}

void model_fixture_open(ModelFixture *fixture, int layers) {
    Error error;
    char fresh[256];
    memset(fixture, 0, sizeof *fixture);
    fixture->expected = json_load_file(MODEL_FIXTURE "/expected.json", 0, NULL);
    assert_non_null(fixture->expected);
    Model *model = &fixture->model;
    if (!model_open(model, MODEL_FIXTURE, false, &error)) { fail_msg("%s", error.text); }
    model->config.layers = layers;
    read_reviews(&fixture->reviews, fixture->expected);
    find_active(fixture);
    const int max_length = (int)json_integer_value(json_object_get(fixture->expected, "max_length"));
    bert_init(&fixture->bert, &model->config, fixture->active_count, max_length, fixture->word_row[0]);
    weights_init(&fixture->weights, &fixture->bert, &model->config, fixture->active);
    if (!weights_load(&fixture->weights, &fixture->bert, &model->config, MODEL_FIXTURE, 1, fresh, sizeof fresh,
                      &error)) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(fresh, "");
    const size_t bytes = fixture->bert.layout.total * sizeof(float);
    fixture->device = device_open(device_under_test(), 0, 2, PRECISION_FP32, &error);
    if (!fixture->device) { fail_msg("%s", error.text); }
    fixture->parameters = device_alloc(fixture->device, bytes);
    device_upload(fixture->device, fixture->parameters, fixture->weights.parameters, bytes);
}

void model_fixture_close(ModelFixture *fixture) {
    device_free(fixture->device, fixture->parameters);
    device_close(fixture->device);
    weights_free(&fixture->weights);
    bert_free(&fixture->bert);
    free(fixture->active);
    free(fixture->word_row);
    reviews_free(&fixture->reviews);
    model_close(&fixture->model);
    json_decref(fixture->expected);
}

float *model_fixture_download(const ModelFixture *fixture, const float *buffer) {
    const size_t total = fixture->bert.layout.total;
    float *host = check_calloc(total, sizeof *host);
    device_download(fixture->device, host, buffer, total * sizeof *host);
    return host;
}

double *json_doubles(const json_t *json, size_t *count) {
    *count = json_array_size(json);
    double *values = check_calloc(*count, sizeof *values);
    for (size_t i = 0; i < *count; i++) { values[i] = json_number_value(json_array_get(json, i)); }
    return values;
}
