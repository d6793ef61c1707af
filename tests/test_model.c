// The whole model against PyTorch (fixtures/model): logits, gradients, twelve steps of three runs; and what must hold
// without a referee: batches cut and packed in any way give the same numbers, gradients are slopes of the loss.
// Tolerances are multiples of the distance of PyTorch's float32 from its own float64, which the fixture states.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/philox.h"
#include "tests/model_fixture.h"
#include "tests/scratch.h"
#include "trainer/evaluation.h"
#include "trainer/optimizer.h"
#include "trainer/safetensors.h"
#include "trainer/schedule.h"

enum { SEQUENCES = 24, TOKENS = 24 * 24 };
static const DropoutKey key = {7, 11};

static double distance(const char *name, double actual, double expected, double tolerance) {
    const double far = fabs(actual - expected);
    if (!(far <= tolerance)) { fail_msg("%s: %.9g, expected %.9g to %.2g", name, actual, expected, tolerance); }
    return far;
}

// The gradient's true value is zero (softmax ignores a constant); what is computed is rounding.
static bool is_key_bias(const char *name) { return strstr(name, "attention.self.key.bias") != NULL; }

static double rounding(const ModelFixture *fixture, const char *what) {
    return json_number_value(json_object_get(json_object_get(fixture->expected, "rounding"), what));
}

// Runs rows through the model in groups of `group` rows; adds the gradient of scale * (sum of losses) unless NULL.
static void run_rows(const ModelFixture *fixture, const int64_t *rows, int count, int group, float *losses,
                     float *gradient, float scale) {
    BertState *state = bert_state_open(fixture->device, &fixture->bert, SEQUENCES, TOKENS, TOKENS, true);
    Batch batch;
    batch_alloc(&batch, SEQUENCES, TOKENS);
    for (int at = 0; at < count; at += group) {
        batch_fill(&batch, &fixture->reviews, fixture->word_row, rows + at, group < count - at ? group : count - at);
        bert_forward(state, fixture->parameters, &batch, key, NULL, losses + at);
        if (gradient) { bert_backward(state, gradient, fixture->parameters, scale, at > 0, NULL, NULL); }
    }
    batch_free(&batch);
    bert_state_close(state);
}

// The gradient of the mean loss of rows, computed in groups, in device memory that held not-a-number before.
static float *mean_gradient(const ModelFixture *fixture, const int64_t *rows, int count, int group, float *losses) {
    const size_t bytes = fixture->bert.layout.total * sizeof(float);
    float *gradient = device_alloc(fixture->device, bytes), *nans = check_calloc(1, bytes);
    memset(nans, 0xFF, bytes);
    device_upload(fixture->device, gradient, nans, bytes);
    free(nans);
    run_rows(fixture, rows, count, group, losses, gradient, 1.0f / (float)count);
    return gradient;
}

static const int64_t first_rows[SEQUENCES] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                              12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

static double mean(const float *losses, int count) {
    double sum = 0.0;
    for (int i = 0; i < count; i++) { sum += losses[i]; }
    return sum / count;
}

// Every row alone, in groups of `group`, or all packed.
static void check_logits(ModelFixture *fixture, int group, float *logits) {
    Inference inference;
    inference_open(&inference, fixture->device, &fixture->bert, TOKENS);
    for (int row = 0; row < SEQUENCES; row += group) {
        const int count = group < SEQUENCES - row ? group : SEQUENCES - row;
        inference_run(&inference, fixture->parameters, &fixture->reviews, fixture->word_row, row, count,
                      logits + 2 * (size_t)row, NULL);
    }
    inference_close(&inference);
}

static void test_logits(void **state) {
    (void)state;
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    const int groups[] = {1, 2, 5, 7, SEQUENCES};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        float logits[2 * SEQUENCES];
        check_logits(&fixture, groups[g], logits);
        for (int i = 0; i < 2 * SEQUENCES; i++) {
            const json_t *row = json_array_get(json_object_get(fixture.expected, "logits64"), (size_t)i / 2);
            // PyTorch's own float32 is up to 2.3e-6 from its float64.
            distance("logit", logits[i], json_number_value(json_array_get(row, (size_t)i % 2)), 5e-6);
        }
    }
    model_fixture_close(&fixture);
}

// The values of a layout's tensor in a file, of which the tables hold more rows.
static float *expected_tensor(const ModelFixture *fixture, const SafeTensors *file, const Tensor *tensor) {
    const SafeTensor *found = safetensors_find(file, tensor->name);
    assert_non_null(found);
    float *all = check_calloc(found->elements, sizeof *all), *values = check_calloc(tensor->count, sizeof *values);
    safetensors_read(found, all, 0, found->elements);
    const bool words = tensor->offset == fixture->bert.word;
    for (size_t i = 0; i < tensor->count; i++) {
        const size_t H = (size_t)fixture->bert.H;
        values[i] = words ? all[(size_t)fixture->active[i / H] * H + i % H] : all[i];
    }
    free(all);
    return values;
}

static void check_gradient(const ModelFixture *fixture, const float *gradient, double tolerance) {
    SafeTensors file;
    Error error;
    assert_true(safetensors_open(&file, MODEL_FIXTURE "/gradients.safetensors", &error));
    for (int t = 0; t < fixture->bert.layout.count; t++) {
        const Tensor *tensor = &fixture->bert.layout.tensors[t];
        if (is_key_bias(tensor->name)) { continue; }
        float *expected = expected_tensor(fixture, &file, tensor);
        for (size_t i = 0; i < tensor->count; i++) {
            distance(tensor->name, gradient[tensor->offset + i], expected[i], tolerance);
        }
        free(expected);
    }
    safetensors_close(&file);
}

static void test_gradients(void **state) {
    (void)state;
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    // Micro-batches of any size give the same gradient.
    for (int group = 1; group <= 8; group++) {
        float losses[8];
        float *gradient = mean_gradient(&fixture, first_rows, 8, group, losses);
        float *host = model_fixture_download(&fixture, gradient);
        check_gradient(&fixture, host, 4 * rounding(&fixture, "gradients"));
        distance("loss", mean(losses, 8), json_number_value(json_object_get(fixture.expected, "gradient_loss")), 1e-6);
        const float *padding = host + fixture.bert.word;  // row 1 holds a literal [PAD]
        for (int h = 0; h < fixture.bert.H; h++) { assert_true(padding[h] == 0.0f); }
        free(host);
        device_free(fixture.device, gradient);
    }
    model_fixture_close(&fixture);
}

static Config config_of(const json_t *run) {
    const bool linear = strcmp(json_string_value(json_object_get(run, "schedule")), "linear") == 0;
    const bool all = strcmp(json_string_value(json_object_get(run, "weight_decay_scope")), "all") == 0;
    return (Config){.learning_rate = json_number_value(json_object_get(run, "learning_rate")),
                    .lr_scheduler_type = linear ? SCHEDULE_LINEAR : SCHEDULE_CONSTANT,
                    .warmup_steps = json_integer_value(json_object_get(run, "warmup")),
                    .weight_decay = json_number_value(json_object_get(run, "weight_decay")),
                    .weight_decay_scope = all ? DECAY_ALL : DECAY_NO_BIAS_NORM,
                    .adam_beta1 = 0.9,
                    .adam_beta2 = 0.999,
                    .adam_epsilon = 1e-8,
                    .max_grad_norm = json_number_value(json_object_get(run, "clip"))};
}

enum { STEPS = 12, BATCH = 8 };

static double recorded(const json_t *run, const char *what, int step) {
    return json_number_value(json_array_get(json_object_get(run, what), (size_t)step));
}

// The steps of trainer/train_step.c; the decay factor of each goes into decays.
static void train(ModelFixture *fixture, const json_t *run, float decays[STEPS]) {
    const Config config = config_of(run);
    const size_t bytes = fixture->bert.layout.total * sizeof(float);
    float *first = device_alloc(fixture->device, bytes), *second = device_alloc(fixture->device, bytes);
    for (int step = 0; step < STEPS; step++) {
        float losses[BATCH];
        float *gradient = mean_gradient(fixture, first_rows + step * BATCH % SEQUENCES, BATCH, BATCH, losses);
        const double norm = sqrt(square_sum(fixture->device, gradient, fixture->bert.layout.total));
        const double rate = schedule_rate(&config, step, STEPS);
        assert_true(rate == recorded(run, "learning_rates", step));
        distance("loss", mean(losses, BATCH), recorded(run, "loss64", step), 3e-6);
        distance("gradient norm", norm, recorded(run, "grad_norm64", step), 3e-5);
        const AdamW adamw = optimizer_factors(&config, rate, step + 1, norm);
        const OptimizerBuffers buffers = {fixture->parameters, first, second, gradient};
        const Slice halves[] = {{0, fixture->bert.layout.total / 2},
                                {fixture->bert.layout.total / 2, fixture->bert.layout.total}};
        optimizer_update(fixture->device, buffers, &fixture->bert.layout, halves, 2, config.weight_decay_scope, adamw);
        decays[step] = adamw.decay;
        device_free(fixture->device, gradient);
    }
    device_free(fixture->device, first);
    device_free(fixture->device, second);
}

// Whether row of the named table can get a gradient; of other tensors all can.
static bool is_trained(const ModelFixture *fixture, const char *name, size_t row) {
    if (strcmp(name, "bert.embeddings.word_embeddings.weight") == 0) { return fixture->word_row[row] > 0; }
    if (strcmp(name, "bert.embeddings.position_embeddings.weight") == 0) { return row < (size_t)fixture->bert.P; }
    return strcmp(name, "bert.embeddings.token_type_embeddings.weight") != 0 || row == 0;
}

// Rows that never got a gradient, [PAD]'s among them, have the same bits; the others are near.
static void compare_tensors(const ModelFixture *fixture, const SafeTensor *actual, const SafeTensor *expected,
                            double tolerance, int *exact) {
    const size_t count = expected->elements;
    assert_int_equal(actual->elements, count);
    float *a = check_calloc(count, sizeof *a), *b = check_calloc(count, sizeof *b);
    safetensors_read(actual, a, 0, count);
    safetensors_read(expected, b, 0, count);
    for (size_t i = 0; i < count; i++) {
        if (is_trained(fixture, expected->name, i / (size_t)fixture->bert.H)) {
            distance(expected->name, a[i], b[i], tolerance);
        } else {
            assert_memory_equal(&a[i], &b[i], sizeof *a);
            (*exact)++;
        }
    }
    free(a);
    free(b);
}

static void check_after(ModelFixture *fixture, const char *name, const float decays[STEPS]) {
    Error error;
    const size_t bytes = fixture->bert.layout.total * sizeof(float);
    const ModelConfig *config = &fixture->model.config;
    device_download(fixture->device, fixture->weights.parameters, fixture->parameters, bytes);
    weights_decay_tables(&fixture->weights, &fixture->bert, config, decays, STEPS);
    const ScratchPath directory = scratch_directory("after");
    assert_true(weights_save(&fixture->weights, &fixture->bert, config, directory.text, NULL, &error));

    SafeTensors actual, expected;
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", directory.text);
    assert_true(safetensors_open(&actual, path, &error));
    snprintf(path, sizeof path, "%s/%s", MODEL_FIXTURE, name);
    assert_true(safetensors_open(&expected, path, &error));
    assert_int_equal(actual.count, expected.count);
    int exact = 0;
    for (int t = 0; t < expected.count; t++) {
        const SafeTensor *tensor = safetensors_find(&actual, expected.tensors[t].name);
        assert_non_null(tensor);
        if (is_key_bias(tensor->name)) { continue; }
        compare_tensors(fixture, tensor, &expected.tensors[t], 4 * rounding(fixture, name), &exact);
    }
    // Rows of [PAD] and unused words, positions from 24 to 39, token type 1.
    assert_int_equal(exact, (61 - fixture->active_count + 1 + 16 + 1) * fixture->bert.H);
    safetensors_close(&actual);
    safetensors_close(&expected);
}

static void check_run(const char *name) {
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    const json_t *run = json_object_get(json_object_get(fixture.expected, "runs"), name);
    float decays[STEPS];
    train(&fixture, run, decays);
    check_after(&fixture, json_string_value(json_object_get(run, "after")), decays);
    model_fixture_close(&fixture);
}

static void test_run_constant(void **state) {
    (void)state;
    check_run("constant");
}

static void test_run_linear_clip(void **state) {
    (void)state;
    check_run("linear_clip");
}

static void test_run_no_bias_norm(void **state) {
    (void)state;
    check_run("no_bias_norm");
}

// BertForSequenceClassification.from_pretrained("tests/fixtures/model", num_hidden_layers=1).double() on rows 0 to 3:
// the first layer is the last one, of which only the [CLS] lines are computed.
static void test_one_layer(void **state) {
    (void)state;
    const double expected[4][2] = {{-1.3643212261293711, -0.3301080228472314},
                                   {-1.2962068282199952, 0.00423745663106273},
                                   {-1.37085967596017, -0.0927858638481826},
                                   {-1.2768821242063522, -0.11856417734737212}};
    ModelFixture fixture;
    model_fixture_open(&fixture, 1);
    float logits[2 * SEQUENCES];
    check_logits(&fixture, SEQUENCES, logits);
    for (int i = 0; i < 8; i++) { distance("logit", logits[i], expected[i / 2][i % 2], 5e-6); }
    model_fixture_close(&fixture);
}

static void set_dropout(ModelFixture *fixture) {
    fixture->bert.hidden_dropout = 0.2f;
    fixture->bert.attention_dropout = 0.3f;
    fixture->bert.classifier_dropout = 0.4f;
}

static void test_dropout_follows_rows(void **state) {
    (void)state;
    ModelFixture fixture;
    model_fixture_open(&fixture, 2);
    float plain[SEQUENCES], together[SEQUENCES], apart[SEQUENCES], mixed[SEQUENCES];
    run_rows(&fixture, first_rows, SEQUENCES, SEQUENCES, plain, NULL, 0);
    set_dropout(&fixture);
    run_rows(&fixture, first_rows, SEQUENCES, SEQUENCES, together, NULL, 0);
    run_rows(&fixture, first_rows, SEQUENCES, 1, apart, NULL, 0);
    int64_t rows[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) { rows[i] = i * 7 % SEQUENCES; }
    run_rows(&fixture, rows, SEQUENCES, 5, mixed, NULL, 0);
    int changed = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        distance("alone", apart[i], together[i], 2e-5);
        distance("in another company", mixed[i], together[rows[i]], 2e-5);
        changed += fabs(together[i] - plain[i]) > 1e-3;
    }
    assert_true(changed > SEQUENCES / 2);  // dropout was on
    model_fixture_close(&fixture);
}

// The sum of the losses of a batch with parameter i set to value.
static double loss_at(const ModelFixture *fixture, BertState *state, const Batch *batch, size_t i, double value) {
    float losses[BATCH];
    const float parameter = (float)value;
    device_upload(fixture->device, fixture->parameters + i, &parameter, sizeof parameter);
    bert_forward(state, fixture->parameters, batch, key, NULL, losses);
    return BATCH * mean(losses, BATCH);
}

// The slope at parameter i by the central difference of fourth order: its error is about 1e-7 / h from rounding.
static double slope(const ModelFixture *fixture, BertState *state, const Batch *batch, size_t i) {
    const double h = 0.02, x = fixture->weights.parameters[i];
    const double f2 = loss_at(fixture, state, batch, i, x + 2 * h), f1 = loss_at(fixture, state, batch, i, x + h);
    const double b1 = loss_at(fixture, state, batch, i, x - h), b2 = loss_at(fixture, state, batch, i, x - 2 * h);
    loss_at(fixture, state, batch, i, x);
    return (8 * (f1 - b1) - (f2 - b2)) / (12 * h);
}

static void check_slopes(int layers) {
    ModelFixture fixture;
    model_fixture_open(&fixture, layers);
    const int probes = device_kind(fixture.device) == DEVICE_CPU ? 4 : 1;  // a GPU may be an emulated one
    set_dropout(&fixture);
    float losses[BATCH];
    float *gradient = mean_gradient(&fixture, first_rows, BATCH, BATCH, losses);
    float *host = model_fixture_download(&fixture, gradient);
    BertState *state = bert_state_open(fixture.device, &fixture.bert, SEQUENCES, TOKENS, TOKENS, true);
    Batch batch;
    batch_alloc(&batch, SEQUENCES, TOKENS);
    batch_fill(&batch, &fixture.reviews, fixture.word_row, first_rows, BATCH);
    for (int t = 0; t < fixture.bert.layout.count; t++) {
        const Tensor *tensor = &fixture.bert.layout.tensors[t];
        const Philox r = philox((uint32_t)t, 0, 0, 0, 1, 2);
        for (int probe = 0; probe < probes; probe++) {
            size_t i = tensor->offset + r.lane[probe] % tensor->count;
            if (i < fixture.bert.word + (size_t)fixture.bert.H) { i += (size_t)fixture.bert.H; }  // [PAD] has none
            const double expected = slope(&fixture, state, &batch, i);
            distance(tensor->name, BATCH * (double)host[i], expected, 2e-4 + 1e-3 * fabs(expected));
        }
    }
    batch_free(&batch);
    bert_state_close(state);
    free(host);
    device_free(fixture.device, gradient);
    model_fixture_close(&fixture);
}

static void test_slopes(void **state) {
    (void)state;
    check_slopes(1);
    check_slopes(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_run_constant),
        cmocka_unit_test(test_run_linear_clip),
        cmocka_unit_test(test_run_no_bias_norm),
        cmocka_unit_test(test_one_layer),
        cmocka_unit_test(test_dropout_follows_rows),
        cmocka_unit_test(test_slopes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
