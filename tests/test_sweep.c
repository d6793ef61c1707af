// Sweeps before anything is trained: what descriptions say and which are refused, the trials of grids and random
// searches, and that successive halving has one outcome, whoever is fast.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/philox.h"
#include "tests/scratch.h"
#include "trainer/sweep/sweep.h"
#include "trainer/sweep/sweep_halving.h"

static ScratchPath base_config(void) {
    static const char yaml[] = "train:\n  num_train_epochs: 9\n  learning_rate: 1e-4\n";
    const ScratchPath path = scratch("base.yaml");
    scratch_write(path.text, yaml, strlen(yaml));
    return path;
}

// body stands behind a line `config:`, so that its first line is the second of the file.
static bool load(Sweep *sweep, const char *body, Error *error) {
    char yaml[8192];
    const ScratchPath path = scratch("sweep.yaml");
    const int length = snprintf(yaml, sizeof yaml, "config: %s\n%s", base_config().text, body);
    scratch_write(path.text, yaml, (size_t)length);
    return sweep_load(sweep, path.text, NULL, 0, error);
}

static Sweep accepted(const char *body) {
    Sweep sweep;
    Error error;
    if (!load(&sweep, body, &error)) { fail_msg("%s\nfor\n%s", error.text, body); }
    return sweep;
}

static void refused(const char *body, const char *message) {
    Sweep sweep;
    Error error = {0};
    if (load(&sweep, body, &error)) { fail_msg("accepted: %s", body); }
    sweep_free(&sweep);
    assert_error(&error, EX_CONFIG, message);
}

static const char *value(const Sweep *sweep, int trial, const char *key) {
    for (int k = 0; k < sweep->key_count; k++) {
        if (strcmp(sweep->keys[k]->key, key) == 0) { return sweep->values[trial * sweep->key_count + k]; }
    }
    fail_msg("no %s", key);
    return NULL;
}

static void test_grid(void **state) {
    (void)state;
    Sweep sweep = accepted(
        "method: grid\nparameters:\n  train.seed: {values: [1, 2, 3]}\n"
        "  weight_decay: {value: 0.5}\n  train:\n    parameters:\n"
        "      warmup_ratio: {distribution: q_uniform, min: 0, max: 0.3, q: 0.1}\n");
    assert_int_equal(sweep.trials, 12);
    assert_string_equal(value(&sweep, 0, "train.seed"), "1");
    assert_string_equal(value(&sweep, 1, "train.warmup_ratio"), "0.1");
    assert_string_equal(value(&sweep, 3, "train.warmup_ratio"), "0.3");
    assert_string_equal(value(&sweep, 4, "train.seed"), "2");
    assert_string_equal(value(&sweep, 11, "train.weight_decay"), "0.5");
    assert_int_equal(sweep_segments(&sweep, 0), 1);
    assert_int_equal(sweep_segment_epoch(&sweep, 0, 0), 9);
    Config config;
    sweep_trial_config(&sweep, 7, &config);
    assert_int_equal(config.seed, 2);
    assert_int_equal(config.evaluation_split, EVALUATION_DEV);
    assert_string_equal(config.run_dir, "runs/sweep/trials/0007");
    sweep_winner_config(&sweep, 7, &config);
    assert_int_equal(config.evaluation_split, EVALUATION_VALIDATION);
    assert_int_equal(config.train_split, TRAIN_SPLIT_ALL);
    sweep_free(&sweep);
}

// In another order, but each point once.
static void test_shuffled_grid(void **state) {
    (void)state;
    const char body[] =
        "method: grid\nseed: 5\nearly_terminate: {type: hyperband, min_iter: 2, eta: 2}\nparameters:\n"
        "  seed: {distribution: int_uniform, min: 1, max: 20}\n  num_train_epochs: {values: [3, 9]}\n";
    Sweep sweep = accepted(body), again = accepted(body);
    bool seen[21][2] = {{false}};
    int in_place = 0;
    assert_int_equal(sweep.trials, 40);
    for (int t = 0; t < sweep.trials; t++) {
        const int seed = atoi(value(&sweep, t, "train.seed")), nine = sweep.epochs[t] == 9;
        assert_false(seen[seed][nine]);
        seen[seed][nine] = true;
        in_place += seed == t / 2 + 1;
        assert_string_equal(value(&again, t, "train.seed"), value(&sweep, t, "train.seed"));
        assert_int_equal(sweep_segments(&sweep, t), nine ? 4 : 2);
        assert_int_equal(sweep_segment_epoch(&sweep, t, 0), 2);
        assert_int_equal(sweep_segment_epoch(&sweep, t, nine ? 2 : 1), nine ? 8 : 3);
    }
    assert_true(in_place < 10);
    char *json = sweep_to_json(&sweep), *same = sweep_to_json(&again);
    assert_string_equal(json, same);
    free(json);
    free(same);
    sweep_free(&sweep);
    sweep_free(&again);
}

static void test_together(void **state) {
    (void)state;
    Sweep sweep = accepted("method: grid\nparameters:\n  model.path, data.path: {values: [[a, b], [c, 'd e']]}\n");
    assert_int_equal(sweep.trials, 2);
    assert_string_equal(value(&sweep, 1, "model.path"), "c");
    assert_string_equal(value(&sweep, 1, "data.path"), "d e");
    sweep_free(&sweep);
}

static double number(const Sweep *sweep, int trial, const char *key) { return strtod(value(sweep, trial, key), NULL); }

static void test_random(void **state) {
    (void)state;
    Sweep sweep = accepted(
        "method: random\nrun_cap: 2000\nparameters:\n"
        "  learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-3}\n"
        "  weight_decay: {min: 0.0, max: 0.5}\n  global_batch_size: {min: 8, max: 11}\n"
        "  adam_beta1: {distribution: q_uniform, min: 0.8, max: 0.95, q: 0.05}\n"
        "  warmup_steps: {values: [0, 100], probabilities: [0.9, 0.1]}\n"
        "  max_grad_norm: {distribution: log_uniform, min: 0, max: 2}\n"
        "  adam_epsilon: {distribution: log_normal, mu: -18, sigma: 1}\n");
    int small = 0, batch[4] = {0}, warm = 0, quarter = 0, high = 0;
    for (int t = 0; t < sweep.trials; t++) {
        const double rate = number(&sweep, t, "train.learning_rate");
        const double beta = number(&sweep, t, "train.adam_beta1") / 0.05;
        const double clip = number(&sweep, t, "train.max_grad_norm");
        assert_true(rate >= 1e-5 && rate <= 1e-3 && clip >= 1.0 && clip <= exp(2.0));
        assert_true(fabs(beta - round(beta)) < 1e-9 && beta > 15.9 && beta < 19.1);
        small += rate < 1e-4;
        high += clip > exp(1.0);
        quarter += number(&sweep, t, "train.weight_decay") < 0.125;
        batch[atoi(value(&sweep, t, "train.global_batch_size")) - 8]++;
        warm += number(&sweep, t, "train.warmup_steps") == 100;
        assert_true(number(&sweep, t, "train.adam_epsilon") > 0);
    }
    // Six standard deviations of a count of 2,000.
    assert_in_range(small, 866, 1134);
    assert_in_range(high, 866, 1134);
    assert_in_range(quarter, 383, 617);
    assert_in_range(warm, 119, 281);
    for (int b = 0; b < 4; b++) { assert_in_range(batch[b], 383, 617); }
    Sweep other = accepted(
        "method: random\nrun_cap: 5\nseed: 7\nparameters:\n"
        "  learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-3}\n");
    assert_string_not_equal(value(&other, 0, "train.learning_rate"), value(&sweep, 0, "train.learning_rate"));
    sweep_free(&sweep);
    sweep_free(&other);
}

static void test_rungs(void **state) {
    (void)state;
    Sweep sweep = accepted(
        "method: grid\nparameters: {seed: {value: 1}}\n"
        "early_terminate: {type: hyperband, max_iter: 27, s: 2}\n");
    assert_int_equal(sweep.rungs, 2);  // as W&B: 27 / 3 / 3 and 27 / 3
    assert_int_equal(sweep.rung_epochs[0], 3);
    assert_int_equal(sweep.rung_epochs[1], 9);
    assert_int_equal(sweep_segments(&sweep, 0), 2);  // its nine epochs end at the second
    sweep_free(&sweep);
}

static void test_mistakes(void **state) {
    (void)state;
    const char grid[] = "method: grid\nparameters: ";
    static const struct {
        const char *parameters, *message;
    } wrong[] = {
        {"5", "sweep.yaml:3: expected `name: {values: [...]}` lines"},
        {"{}", "sweep.yaml:3: no parameters"},
        {"{learning_rte: {values: [1]}}", "unknown parameter `learning_rte`; did you mean `train.learning_rate`?"},
        {"{batch_size: {values: [1]}}", "unknown parameter `batch_size`"},
        {"{seed: 5}", "sweep.yaml:3: seed: expected `values`"},
        {"{seed: {values: 5}}", "values: expected a list"},
        {"{seed: {values: []}}", "values: expected a list"},
        {"{seed: {values: [[1]]}}", "train.seed: expected a value, found a list"},
        {"{seed: {values: [1.5]}}", "train.seed: expected an integer, found `1.5`"},
        {"{learning_rate: {value: fast}}", "train.learning_rate: expected a number"},
        {"{learning_rate: {value: 5000}}", "train.learning_rate: 5000 is out of range"},
        {"{learning_rate: {min: 0.0, max: 1.0}}", "method grid: train.learning_rate has no end of values"},
        {"{seed: {values: [1]}, train.seed: {values: [1]}}", "train.seed stands twice"},
        {"{'seed, seed': {values: [[1, 2]]}}", "train.seed stands twice"},
        {"{'model.path, data.path': {values: [[a]]}}", "expected a list of 2 values that go together"},
        {"{run.dir: {values: [a]}}", "run.dir is for the sweep to set"},
        {"{max_steps: {values: [5]}}", "train.max_steps is for the sweep to set"},
        {"{seed: {vals: [5]}}", "unknown word `vals`"},
        {"{seed: {min: 1, max: 20000}}", "more than 10000 trials"},
        {"{seed: {min: 1, max: 200}, warmup_steps: {min: 1, max: 200}}", "more than 10000 trials"},
        {"{seed: {distribution: zipf, min: 1, max: 2}}", "distribution: expected one of"},
        {"{seed: {min: 5, max: 2}}", "min is above max"},
        {"{seed: {min: 5}}", "expected min and max"},
        {"{seed: {values: [1, 2], probabilities: [0.5]}}", "expected a list of 2 numbers"},
        {"{seed: {values: [1, 2], probabilities: [0.5, 0.6]}}", "their sum is 1.1"},
        {"{shuffle: {min: 0, max: 1}}", "`values` are wanted for what is no number"},
        {"{learning_rate: {distribution: log_uniform_values, min: 0, max: 1}}", "min is above 0"},
        {"{learning_rate: {distribution: uniform, min: 1, max: 9000}}", "9000 is out of range"},
        {"{learning_rate: {distribution: uniform, min: 1, max: 2, q: 1}}", "q: of a q_ distribution"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char body[512];
        snprintf(body, sizeof body, "%s%s\n", grid, wrong[i].parameters);
        refused(body, wrong[i].message);
    }
    const char good[] = "parameters: {seed: {values: [1]}}\n";
    static const struct {
        const char *head, *message;
    } heads[] = {
        {"", "expected `method: grid` or `method: random`"},
        {"method: bayes\n", "sweep.yaml:2: method: bayes is not there"},
        {"method: greed\n", "sweep.yaml:2: method: expected grid or random"},
        {"method: random\n", "run_cap says how many trials"},
        {"method: grid\nrun_cap: 0\n", "run_cap: expected an integer from 1"},
        {"method: grid\nmetric: {name: loss}\n", "metric: expected validation_accuracy"},
        {"method: grid\nmetric: {name: f1, goal: up}\n", "goal: expected minimize or maximize"},
        {"method: grid\nranks: 2\n", "sweep.yaml:3: unknown key `ranks`"},
        {"method: grid\nmethod: grid\n", "sweep.yaml:3: `method` stands twice"},
        {"method: grid\nearly_terminate: {min_iter: 1}\n", "expected `type: hyperband`"},
        {"method: grid\nearly_terminate: {type: hyperband}\n", "expected min_iter, or max_iter and s"},
        {"method: grid\nearly_terminate: {type: hyperband, min_iter: 1, eta: 1}\n", "eta: expected a number from 2"},
        {"method: grid\nearly_terminate: {type: envelope, min_iter: 1}\n", "type: expected hyperband or asha"},
        {"method: grid\nearly_terminate: {type: hyperband, min_iter: 5, max_iter: 5}\n", "no epoch at which"},
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char body[512];
        snprintf(body, sizeof body, "%s%s", heads[i].head, good);
        refused(body, heads[i].message);
    }
    refused("method: grid\n", "expected `parameters:`");
    refused("- 1\n", "sweep.yaml");
}

// ---- Halving.

enum { TRIALS = 60, MOST = 4 };

typedef struct {
    int segments[TRIALS];
    SegmentResult known[TRIALS * MOST];  // what each segment will come to
    double eta;
} Course;

static double uniform(uint32_t a, uint32_t b, uint32_t c) { return philox(a, b, c, 0, 1, 2).lane[0] / 4294967296.0; }

static Course make_course(uint32_t number) {
    Course course = {.eta = 2.0 + number % 3};
    for (uint32_t t = 0; t < TRIALS; t++) {
        course.segments[t] = number % 5 == 0 ? 1 + (int)(uniform(number, t, 7) * MOST) : MOST;
        for (uint32_t s = 0; s < MOST; s++) {
            SegmentResult *result = &course.known[t * MOST + s];
            *result = (SegmentResult){.done = true, .metric = floor(40 * uniform(number, t, s)), .loss = t % 3};
            if (uniform(number, t, s + 100) < 0.05) { *result = (SegmentResult){true, true, NAN, NAN}; }
            if (uniform(number, t, s + 200) < 0.03) { result->metric = NAN; }
        }
    }
    return course;
}

// Has workers take up ready segments and finish them in an order drawn from `order`; returns how many there were, and
// in `ended` the last segment of each trial.
static int run(const Course *course, int workers, uint32_t order, int *ended) {
    SegmentResult results[TRIALS * MOST] = {{0}};
    SegmentState states[TRIALS * MOST];
    int busy[TRIALS], count = 0, total = 0;
    for (uint32_t round = 0;; round++) {
        halving_decide(states, results, course->segments, TRIALS, MOST, course->eta);
        for (int i = 0; i < TRIALS * MOST && count < workers; i++) {
            bool taken = i % MOST >= course->segments[i / MOST] || states[i] != SEGMENT_READY;
            for (int b = 0; b < count; b++) { taken = taken || busy[b] == i; }
            if (!taken) { busy[count++] = i; }
        }
        if (count == 0) { break; }
        const int chosen = (int)(uniform(order, round, 300) * count);
        results[busy[chosen]] = course->known[busy[chosen]];
        busy[chosen] = busy[--count];
        total++;
    }
    for (int t = 0; t < TRIALS; t++) {
        ended[t] = -1;
        for (int s = 0; s < course->segments[t]; s++) {
            if (results[t * MOST + s].done) { ended[t] = s; }
            // Nothing is left undecided.
            assert_true(states[t * MOST + s] == SEGMENT_DONE || states[t * MOST + s] == SEGMENT_NEVER);
            assert_int_equal(states[t * MOST + s] == SEGMENT_DONE, results[t * MOST + s].done);
        }
    }
    return total;
}

static bool is_better(const SegmentResult *a, int i, const SegmentResult *b, int j) {
    const double x[] = {isnan(a->metric) ? -INFINITY : a->metric, isnan(a->loss) ? -INFINITY : -a->loss, -i};
    const double y[] = {isnan(b->metric) ? -INFINITY : b->metric, isnan(b->loss) ? -INFINITY : -b->loss, -j};
    for (int k = 0; k < 3; k++) {
        if (x[k] != y[k]) { return x[k] > y[k]; }
    }
    return false;
}

// The rule of sweep_halving.h, word for word, when all is known.
static void expect_rule(const Course *course, const int *ended) {
    bool came[TRIALS];
    for (int t = 0; t < TRIALS; t++) { came[t] = true; }
    for (int s = 0; s + 1 < MOST; s++) {
        int entrants[TRIALS], count = 0;
        for (int t = 0; t < TRIALS; t++) {
            if (came[t] && s + 1 < course->segments[t]) { entrants[count++] = t; }
            came[t] = false;
        }
        for (int k = 0; k < count; k++) {
            const int t = entrants[k], least = (int)ceil(2.0 * course->eta);
            const int n = fmin(count, fmax(k + 1, least)), places = fmax(1, floor(n / course->eta));
            const SegmentResult *mine = &course->known[t * MOST + s];
            int ahead = 0;
            for (int i = 0; i < n; i++) {
                ahead += is_better(&course->known[entrants[i] * MOST + s], entrants[i], mine, t);
            }
            came[t] = ahead < places && !mine->failed;
            assert_int_equal(ended[t] > s, came[t]);
        }
    }
}

static void test_one_outcome(void **state) {
    (void)state;
    for (uint32_t number = 0; number < 60; number++) {
        const Course course = make_course(number);
        int first[TRIALS], other[TRIALS];
        const int total = run(&course, 1, 0, first);
        expect_rule(&course, first);
        assert_true(total < TRIALS * MOST);
        for (uint32_t order = 1; order < 12; order++) {
            assert_int_equal(run(&course, 1 + (int)order, order, other), total);
            assert_memory_equal(first, other, sizeof first);
        }
    }
}

// While a trial is left that nobody has begun, there is something to do.
static void test_never_idle(void **state) {
    (void)state;
    const int segments[] = {2, 2, 2, 2, 2};
    SegmentResult results[10] = {{0}};
    SegmentState states[10];
    for (int t = 0; t < 3; t++) { results[2 * t] = (SegmentResult){.done = true, .metric = t}; }
    halving_decide(states, results, segments, 5, 2, 2.0);
    assert_int_equal(states[4], SEGMENT_DONE);
    assert_int_equal(states[5], SEGMENT_WAITS);
    assert_int_equal(states[6], SEGMENT_READY);
    results[6] = (SegmentResult){.done = true, .metric = 3};
    halving_decide(states, results, segments, 5, 2, 2.0);
    const SegmentState wanted[] = {SEGMENT_NEVER, SEGMENT_NEVER, SEGMENT_READY, SEGMENT_READY, SEGMENT_WAITS};
    for (int t = 0; t < 5; t++) { assert_int_equal(states[2 * t + 1], wanted[t]); }
    assert_int_equal(states[8], SEGMENT_READY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid),        cmocka_unit_test(test_shuffled_grid), cmocka_unit_test(test_together),
        cmocka_unit_test(test_random),      cmocka_unit_test(test_rungs),         cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_one_outcome), cmocka_unit_test(test_never_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
