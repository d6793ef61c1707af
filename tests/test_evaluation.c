// The figures of an evaluation against counting, schedules against transformers and number_format against Python's repr
// (fixtures/make_evaluation.py).
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/philox.h"
#include "tests/fixtures/evaluation.h"
#include "tests/text_fixture.h"
#include "trainer/classifier.h"
#include "trainer/evaluation.h"
#include "trainer/number.h"
#include "trainer/schedule.h"

enum { MAX_ROWS = 100 };

static int64_t count(const int32_t *labels, const int32_t *predictions, int rows, int label, int prediction) {
    int64_t found = 0;
    for (int i = 0; i < rows; i++) {
        found += (label < 0 || labels[i] == label) && (prediction < 0 || predictions[i] == prediction);
    }
    return found;
}

static void assert_near(double actual, double expected) {
    if (!(fabs(actual - expected) <= 1e-14)) { fail_msg("%.17g, expected %.17g", actual, expected); }
}

// Precision, recall and F1 of a class by their definitions; 0 where they divide by 0.
static void check_class(const Scores *scores, const int32_t *labels, const int32_t *predictions, int c) {
    const int rows = (int)scores->rows;
    const double right = (double)count(labels, predictions, rows, c, c);
    const double labelled = (double)count(labels, predictions, rows, c, -1);
    const double predicted = (double)count(labels, predictions, rows, -1, c);
    const double precision = predicted > 0 ? right / predicted : 0, recall = labelled > 0 ? right / labelled : 0;
    assert_near(scores->precision[c], precision);
    assert_near(scores->recall[c], recall);
    assert_near(scores->f1[c], precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0);
    for (int other = 0; other < scores->classes; other++) {
        assert_int_equal(scores->confusion[c * scores->classes + other], count(labels, predictions, rows, c, other));
    }
}

static void check_means(const Scores *scores, const float *losses, const int32_t *labels, const int32_t *predictions,
                        int batch) {
    double loss = 0, accuracy = 0, right = 0;
    int batches = 0;
    for (int begin = 0; begin < scores->rows; begin += batch, batches++) {
        double batch_loss = 0, batch_right = 0;
        int i = begin;
        for (; i < begin + batch && i < scores->rows; i++) {
            batch_loss += (double)losses[i];
            batch_right += labels[i] == predictions[i];
        }
        loss += batch_loss / (i - begin);
        accuracy += batch_right / (i - begin);
        right += batch_right;
    }
    assert_near(scores->loss, loss / batches);
    assert_near(scores->batch_accuracy, accuracy / batches);
    assert_near(scores->accuracy, right / (double)scores->rows);
}

static void test_scores(void **state) {
    (void)state;
    for (uint32_t trial = 0; trial < 300; trial++) {
        const Philox r = philox(trial, 0, 0, 0, 4, 0);
        const int rows = 1 + (int)(r.lane[0] % MAX_ROWS), classes = 2 + (int)(r.lane[1] % 4);
        const int batch = 1 + (int)(r.lane[2] % 40), seen = 1 + (int)(r.lane[3] % (uint32_t)classes);
        float losses[MAX_ROWS];
        int32_t labels[MAX_ROWS], predictions[MAX_ROWS];
        for (uint32_t i = 0; i < (uint32_t)rows; i++) {
            const Philox x = philox(trial, i, 1, 0, 4, 0);
            losses[i] = (float)x.lane[0] * 1e-9f;
            labels[i] = (int32_t)(x.lane[1] % (uint32_t)classes);
            predictions[i] = (int32_t)(x.lane[2] % (uint32_t)seen);  // some classes are never predicted
        }
        Scores scores;
        scores_compute(&scores, losses, predictions, labels, rows, classes, batch);
        double macro = 0;
        for (int c = 0; c < classes; c++) {
            check_class(&scores, labels, predictions, c);
            macro += scores.f1[c] / classes;
        }
        check_means(&scores, losses, labels, predictions, batch);
        assert_near(scores.macro_f1, macro);
        assert_true(scores_f1(&scores) == (classes == 2 ? scores.f1[1] : scores.macro_f1));
        scores_free(&scores);
    }
}

// The means are those the notebook prints: sums of batch means divided once. 7 of 10 in batches of 4: 3/4, 3/4, 1/2.
static void test_batch_means(void **state) {
    (void)state;
    const float losses[10] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f, 0.9f, 1.0f};
    const int32_t labels[10] = {1, 1, 1, 1, 0, 0, 0, 0, 1, 1}, predictions[10] = {1, 1, 1, 0, 0, 0, 0, 1, 1, 0};
    Scores scores;
    scores_compute(&scores, losses, predictions, labels, 10, 2, 4);
    assert_true(scores.batch_accuracy == (0.75 + 0.75 + 0.5) / 3);
    assert_true(scores.accuracy == 0.7);
    assert_true(fabs(scores.loss - (0.25 + 0.65 + 0.95) / 3) < 1e-7);
    scores_free(&scores);
}

static void test_confusion_text(void **state) {
    (void)state;
    int64_t confusion[9] = {1, 2, 3, 4, 5, 6, 7, 8, 90000000000};
    const Scores scores = {.classes = 3, .confusion = confusion};
    char text[128] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    scores_print_confusion(&scores, out);
    fclose(out);
    assert_string_equal(text, "[[1, 2, 3], [4, 5, 6], [7, 8, 90000000000]]");
}

static void test_schedules(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof schedule_rates / sizeof *schedule_rates; i++) {
        const Config config = {.learning_rate = schedule_peak,
                               .lr_scheduler_type = schedule_rates[i].type,
                               .warmup_steps = schedule_rates[i].warmup,
                               .warmup_ratio = schedule_rates[i].warmup ? 0.9 : 0};
        const double expected = schedule_rates[i].rate;
        const double rate = schedule_rate(&config, schedule_rates[i].step, schedule_rates[i].total);
        // A cosine near its zero is rounding of 1.
        if (!(fabs(rate - expected) <= 4e-16 * fabs(expected) + 1e-16 * schedule_peak)) {
            fail_msg("case %zu: %.17g, expected %.17g", i, rate, expected);
        }
    }
}

// warmup_ratio is rounded up, as TrainingArguments.get_warmup_steps does: math.ceil(steps * ratio).
static void test_warmup_ratio(void **state) {
    (void)state;
    const struct {
        double ratio;
        int64_t total, warmup;
    } cases[] = {{0.1, 1800, 180}, {0.07, 100, 8}, {0.01, 7, 1}, {0.5, 7, 4}, {1, 7, 7}, {1e-9, 1800, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int64_t type = SCHEDULE_CONSTANT_WITH_WARMUP; type <= SCHEDULE_COSINE; type++) {
            const Config by_ratio = {.learning_rate = 1, .lr_scheduler_type = type, .warmup_ratio = cases[i].ratio};
            const Config by_steps = {.learning_rate = 1, .lr_scheduler_type = type, .warmup_steps = cases[i].warmup};
            for (int64_t step = 0; step < cases[i].total; step++) {
                const double rate = schedule_rate(&by_ratio, step, cases[i].total);
                assert_true(rate == schedule_rate(&by_steps, step, cases[i].total));
            }
        }
    }
}

static void test_number_format(void **state) {
    (void)state;
    char *fixture = fixture_read("number_repr.txt"), *rest = fixture;
    int lines = 0;
    for (char *line; (line = strsep(&rest, "\n")) && rest; lines++) {
        const double value = strtod(line, NULL);
        assert_string_equal(number_format(value).text, line);
        char negative[64];
        snprintf(negative, sizeof negative, "-%s", line);
        if (line[0] != '-') { assert_string_equal(number_format(-value).text, negative); }
    }
    assert_true(lines > 4000);
    free(fixture);
    assert_string_equal(number_format((double)INFINITY).text, "inf");
    assert_string_equal(number_format(-(double)INFINITY).text, "-inf");
    assert_non_null(strstr(number_format((double)NAN).text, "nan"));
}

static void test_number_parse(void **state) {
    (void)state;
    double value;
    assert_true(number_parse_real("2.0e-05", &value) && value == 2e-5);
    assert_true(number_parse_real("-.5", &value) && value == -0.5);
    assert_true(number_parse_integer("9007199254740992", &value) && value == 9007199254740992.0);
    assert_true(number_parse_integer("-12", &value) && value == -12);
    const char *bad[] = {"",  " 1", "1 ", "0x1", "nan", "inf", "1e999", "1.2.3",
                         "-", "+",  ".",  "e",   "1e+", "--1", "1-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(number_parse_real(bad[i], &value));
        assert_false(number_parse_integer(bad[i], &value));
    }
    assert_false(number_parse_integer("9007199254740993000", &value));
    assert_false(number_parse_integer("1.0", &value));
    assert_false(number_parse_integer("+1", &value));
}

static void test_softmax(void **state) {
    (void)state;
    float logits[3] = {1000.0f, 999.0f, -1000.0f};
    softmax(logits, 3);
    assert_true(fabs((double)logits[0] - 1 / (1 + exp(-1))) < 1e-6 && logits[2] == 0.0f);
    assert_true(fabs((double)logits[0] + (double)logits[1] - 1) < 1e-6);
    const float values[4] = {-3.0f, -1.0f, -1.0f, -2.0f};
    assert_int_equal(largest_of(values, 4), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),       cmocka_unit_test(test_batch_means),  cmocka_unit_test(test_confusion_text),
        cmocka_unit_test(test_schedules),    cmocka_unit_test(test_warmup_ratio), cmocka_unit_test(test_number_format),
        cmocka_unit_test(test_number_parse), cmocka_unit_test(test_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
