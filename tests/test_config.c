// The configuration: every option from every source, their precedence, what hostile or mistaken files are answered
// with, and that the resolved file reads back as the same configuration.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "tests/scratch.h"
#include "trainer/config.h"
#include "trainer/config_options.h"
#include "trainer/number.h"

static bool load(Config *config, const char *yaml, size_t length, char *const *overrides, int count, Error *error) {
    const ScratchPath path = scratch("config.yaml");
    scratch_write(path.text, yaml, length);
    return config_load(config, path.text, overrides, count, error);
}

static Config accepted(const char *yaml) {
    Config config;
    Error error;
    if (!load(&config, yaml, strlen(yaml), NULL, 0, &error)) { fail_msg("%s\nfor\n%s", error.text, yaml); }
    return config;
}

static void refused_bytes(const char *yaml, size_t length, const char *message) {
    Config config;
    Error error = {0};
    if (load(&config, yaml, length, NULL, 0, &error)) { fail_msg("accepted: %s", yaml); }
    assert_error(&error, EX_CONFIG, message);
}

static void refused(const char *yaml, const char *message) { refused_bytes(yaml, strlen(yaml), message); }

static void refused_argument(const char *argument, int code, const char *message) {
    Config config;
    Error error = {0};
    char *overrides[] = {(char *)argument};
    assert_false(load(&config, "", 0, overrides, 1, &error));
    assert_error(&error, code, message);
}

typedef struct {
    char text[256];
} Text;

// One of at least two different values of an option.
static Text sample(const Option *option, int which) {
    Text value;
    const double most = option->most < 1 ? option->most : 1;
    const char *second = option->choices ? strchr(option->choices, '|') + 1 : "";
    switch (option->type) {
        case OPTION_TEXT:
            snprintf(value.text, sizeof value.text, "some/path-%d", which);
            break;
        case OPTION_INTEGER:
            snprintf(value.text, sizeof value.text, "%d", (int)option->least + 1 + which);
            break;
        case OPTION_REAL:
            snprintf(value.text, sizeof value.text, "%s", number_format(most * (which + 1) / 8).text);
            break;
        case OPTION_BOOLEAN:
            snprintf(value.text, sizeof value.text, "%s", which ? "true" : "false");
            break;
        case OPTION_CHOICE:
            snprintf(value.text, sizeof value.text, "%.*s", (int)strcspn(which ? second : option->choices, "|"),
                     which ? second : option->choices);
            break;
    }
    return value;
}

static Text formatted(const Config *config, const Option *option) {
    Text value;
    option_format(config, option, value.text, sizeof value.text);
    return value;
}

static Text environment_name(const Option *option) {
    Text name;
    snprintf(name.text, sizeof name.text, "BERTUNE_%s", option->key);
    for (char *c = name.text; *c; c++) { *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c); }
    return name;
}

// The option after it stood in the file, the environment and on the command line; NULL: not there.
static Text resolve(const Option *option, const char *in_file, const char *in_environment, const char *argument) {
    Config config;
    Error error;
    char yaml[1024] = "", pair[1024];
    char *overrides[] = {pair};
    const int dot = (int)strcspn(option->key, ".");
    if (in_file) { snprintf(yaml, sizeof yaml, "%.*s:\n  %s: %s\n", dot, option->key, option->key + dot + 1, in_file); }
    if (in_environment) { setenv(environment_name(option).text, in_environment, 1); }
    snprintf(pair, sizeof pair, "%s=%s", option->key, argument ? argument : "");
    const bool ok = load(&config, yaml, strlen(yaml), overrides, argument != NULL, &error);
    unsetenv(environment_name(option).text);
    if (!ok) { fail_msg("%s", error.text); }
    return formatted(&config, option);
}

static void test_precedence(void **state) {
    (void)state;
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        for (int which = 0; which < 2; which++) {
            const Text low = sample(option, 1 - which), high = sample(option, which);
            assert_string_not_equal(low.text, high.text);
            assert_string_equal(resolve(option, high.text, NULL, NULL).text, high.text);
            assert_string_equal(resolve(option, NULL, high.text, NULL).text, high.text);
            assert_string_equal(resolve(option, NULL, NULL, high.text).text, high.text);
            assert_string_equal(resolve(option, low.text, high.text, NULL).text, high.text);
            assert_string_equal(resolve(option, low.text, NULL, high.text).text, high.text);
            assert_string_equal(resolve(option, NULL, low.text, high.text).text, high.text);
        }
    }
}

static void test_defaults(void **state) {
    (void)state;
    const char *empty[] = {"",
                           "\n\n",
                           "# nothing\n",
                           "---\n",
                           "---\n...\n",
                           "train:\n",
                           "train:\n  # all commented out\nrun:\n",
                           "train: {}\n",
                           "{}",
                           "\xEF\xBB\xBF",
                           "\xEF\xBB\xBFtrain:\n",
                           "train:\r\n  # CRLF\r\n"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        const Config config = accepted(empty[i]);
        for (int o = 0; o < config_option_count; o++) {
            const Option *option = &config_options[o];
            const char *expected = option->fallback[0] ? option->fallback : "-1.0";
            const Text value = formatted(&config, option);
            if (option->type == OPTION_REAL && option->fallback[0]) {
                assert_true(strtod(value.text, NULL) == strtod(expected, NULL));
            } else {
                assert_string_equal(value.text, expected);
            }
        }
    }
}

// configs/default.yaml is what the table says, and means what an empty file means.
static void test_default_file(void **state) {
    (void)state;
    char *printed = NULL;
    size_t length = 0, file_length;
    FILE *out = open_memstream(&printed, &length);
    config_print_defaults(out);
    assert_int_equal(fclose(out), 0);
    char *file = (char *)scratch_read(BERTUNE_FIXTURES "/../../configs/default.yaml", &file_length);
    if (length != file_length || memcmp(file, printed, length) != 0) {
        fail_msg("configs/default.yaml is old: bertune train --print-defaults > configs/default.yaml");
    }
    const Config empty = accepted("");
    Config config;
    Error error;
    assert_true(load(&config, printed, length, NULL, 0, &error));
    assert_memory_equal(&config, &empty, sizeof config);
    for (int i = 0; i < config_option_count; i++) {  // and lacks none
        char line[128];
        snprintf(line, sizeof line, "%s:", strchr(config_options[i].key, '.') + 1);
        assert_non_null(strstr(printed, line));
    }
    free(file);
    free(printed);
}

// What the contract's page shows, as far as this is more than a default.
static void test_contract(void **state) {
    (void)state;
    const Config config = accepted("");
    assert_true(config.learning_rate == 2e-5 && config.weight_decay == 0.01 && config.adam_epsilon == 1e-8);
    assert_true(config.num_train_epochs == 3 && config.global_batch_size == 16 && config.seed == 2023);
    assert_true(config.lr_scheduler_type == SCHEDULE_CONSTANT && config.weight_decay_scope == DECAY_ALL);
    assert_true(config.shuffle && !config.profile && config.max_grad_norm == 0 && config.max_steps == 0);
    assert_true(config.determinism == DETERMINISM_RUN && config.precision == PRECISION_FP32);
    assert_true(config.save_total_limit == 2 && config.step_timeout == 60 && config.evaluation_ranks == RANKS_ROOT);
}

static void test_numbers(void **state) {
    (void)state;
    const char *same[] = {"2e-5", "2.0e-05", "0.00002", "+2E-5", ".00002", "20.e-6", "2e-5  # twenty millionths"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char yaml[128];
        snprintf(yaml, sizeof yaml, "train:\n  learning_rate: %s\n", same[i]);
        assert_true(accepted(yaml).learning_rate == 2e-5);
    }
    const char *reals[] = {"nan",    ".nan",  "NaN",   "inf",   ".inf", "-.inf", "Infinity", "0x10",
                           "0x1p-3", "1e400", "1,5",   "1_000", "1e",   "e5",    ".",        "~",
                           "null",   "true",  "2e-5x", "1 2",   "--1",  "''",    "\"1\"",    ""};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        char yaml[128];
        snprintf(yaml, sizeof yaml, "train:\n  learning_rate: %s\n", reals[i]);
        refused(yaml, "config.yaml:");
    }
    const char *integers[] = {"1.0", "1e3", "0x10", "abc", "true", "99999999999999999999", "- 1", "1 ,", "+ 1", "'5'"};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        char yaml[128];
        snprintf(yaml, sizeof yaml, "train:\n  seed: %s\n", integers[i]);
        refused(yaml, "config.yaml:");
    }
}

static void test_ranges(void **state) {
    (void)state;
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        if (option->type != OPTION_INTEGER && option->type != OPTION_REAL) { continue; }
        const double bad[] = {option->least - 1, option->most * 2, option->above_least ? option->least : -1e15};
        for (int b = 0; b < 3; b++) {
            char argument[256];
            snprintf(argument, sizeof argument, "%s=%.17g", option->key, bad[b]);
            if (option->type == OPTION_INTEGER) { snprintf(argument, sizeof argument, "%s=%.0f", option->key, bad[b]); }
            refused_argument(argument, EX_CONFIG, option->key);
        }
    }
    refused("train:\n  seed: -1\n", "config.yaml:2: train.seed: -1 is out of range, expected from 0 to");
    refused("run:\n  step_timeout: -1\n", "from 0 to");
    refused("train:\n  adam_beta1: 1\n", "train.adam_beta1: 1 is out of range");
}

static void test_mistakes(void **state) {
    (void)state;
    refused("train:\n  learning_rat: 1\n",
            "config.yaml:2: unknown key `train.learning_rat`; did you mean `train.learning_rate`?");
    refused("trane:\n  seed: 1\n", "config.yaml:1: unknown key `trane`");
    refused("run:\n  learning_rate: 1\n", "did you mean `train.learning_rate`?");
    refused("seed: 1\n", "did you mean `train.seed`?");
    refused("train:\n  completely_unrelated_nonsense_key: 1\n",
            "unknown key `train.completely_unrelated_nonsense_key`");
    refused("train:\n  seed: 1\n  shuffle: true\n  seed: 1\n", "config.yaml:4: `seed` stands twice");
    refused("train:\n  seed: 1\nrun:\ntrain:\n  shuffle: true\n", "config.yaml:4: `train` stands twice");
    refused("train:\n  seed: abc\n", "config.yaml:2: train.seed: expected an integer, found `abc`");
    refused("train:\n  learning_rate: fast\n", "expected a number, found `fast`");
    refused("train:\n  shuffle: yes\n", "expected true or false, found `yes`");
    refused("train:\n  precision: fp16\n", "expected one of fp32|tf32|bf16, found `fp16`");
    refused("train:\n  precision: fp\n", "expected one of");
    refused("train:\n  precision: fp32|tf32\n", "expected one of");
    refused("train:\n  seed: '5'\n", "is a text, write it without quotes");
    refused("model:\n  path:\n", "model.path: expected 1 to 2047 bytes");
    refused("model:\n  path: ''\n", "model.path: expected 1 to 2047 bytes");
    refused("train.seed: 5\n", "unknown key `train.seed`");
}

static void test_arguments(void **state) {
    (void)state;
    refused_argument("train.seed", EX_USAGE, "expected KEY=VALUE");
    refused_argument("=5", EX_USAGE, "expected KEY=VALUE");
    refused_argument("train.sed=5", EX_CONFIG, "command line: unknown key `train.sed`; did you mean `train.seed`?");
    refused_argument("train.seed=", EX_CONFIG, "expected an integer");
    refused_argument("train.seed=5.5", EX_CONFIG, "expected an integer, found `5.5`");
    char *long_key = check_calloc(5000, 1);
    memset(long_key, 'k', 4000);
    strcat(long_key, "=1");
    refused_argument(long_key, EX_USAGE, "expected KEY=VALUE");
    free(long_key);
    Config config;
    Error error;
    setenv("BERTUNE_TRAIN_SED", "5", 1);
    assert_false(load(&config, "", 0, NULL, 0, &error));
    assert_error(&error, EX_CONFIG, "BERTUNE_TRAIN_SED: unknown key `train.sed`; did you mean `train.seed`?");
    unsetenv("BERTUNE_TRAIN_SED");
    setenv("BERTUNE_HOME", "/somewhere", 1);
    setenv("BERTUNE_ELSE_WHERE", "1", 1);
    assert_true(load(&config, "", 0, NULL, 0, &error));  // not ours
    unsetenv("BERTUNE_HOME");
    unsetenv("BERTUNE_ELSE_WHERE");
}

static void test_structure(void **state) {
    (void)state;
    refused("train:\n  seed: [1]\n", "config.yaml:2: expected a value, found a list");
    refused("train:\n  seed:\n    - 1\n", "found a list");
    refused("train: [1]\n", "found a list");
    refused("- 1\n", "config.yaml:1: expected a value, found a list");
    refused("train:\n  seed: {a: 1}\n", "config.yaml:2: expected a value, found a mapping");
    refused("? {a: 1}\n: 2\n", "found a mapping");
    refused("{{train: 1}: 2}\n", "found a mapping");
    refused("train\n", "config.yaml:1: expected `section:` lines");
    refused("train: 5\n", "section `train`: expected `key: value` lines");
    refused("train: ''\n", "section `train`: expected `key: value` lines");
    refused("train:\n  seed: &a 5\n", "config.yaml:2: anchors and tags are not allowed");
    refused("train: &a\n  seed: 5\n", "anchors and tags are not allowed");
    refused("&a train:\n  seed: 5\n", "anchors and tags are not allowed");
    refused("train:\n  seed: !!int 5\n", "anchors and tags are not allowed");
    refused("train: !!map\n  seed: 5\n", "anchors and tags are not allowed");
    refused("!foo\ntrain:\n  seed: 5\n", "anchors and tags are not allowed");
    refused("train:\n  seed: *a\n", "aliases are not allowed");
    refused("train:\n  <<: *a\n", "config.yaml:2: ");
    refused("train:\n  seed: 5\n---\nrun:\n  dir: x\n", "more than one document");
    refused("--- {}\n--- {}\n", "more than one document");
}

static void test_not_yaml(void **state) {
    (void)state;
    refused("train:\n  seed: 5\n run: 4\n", "config.yaml");
    refused("train:\n\tseed: 5\n", "config.yaml");
    refused("train: {seed: 5\n", "config.yaml");
    refused("train:\n  seed: 'five\n", "config.yaml");
    refused("model:\n  path: \"\\q\"\n", "config.yaml");
    refused("model:\n  path: caf\xE9\n", "config.yaml");
    refused_bytes("\xFF\xFEt\0r\0a\0i\0n\0:\0\n\0", 16, "config.yaml:1: not UTF-8 text");
    refused("train:\n  seed: 5\nmodel:\n  path: caf\xE9\n", "config.yaml:4: not UTF-8 text");
    refused("model:\n  path: \xED\xA0\x80\n", "config.yaml");
    refused("model:\n  path: @x\n", "config.yaml");
    refused_bytes("train:\n  seed: 5\n\0\0\n", 20, "config.yaml");
    refused_bytes("model:\n  path: a\0b\n", 19, "config.yaml");
    refused("model:\n  path: \"a\\0b\"\n", "config.yaml:2:");
    refused("model:\n  path: \"a\\nb\"\n", "config.yaml:2:");
}

static void test_crlf_and_mark(void **state) {
    (void)state;
    const Config config =
        accepted("\xEF\xBB\xBFtrain:\r\n  seed: 5\r\nmodel:\r\n  path: 'my model'  # comment\r\n  init: random\r\n");
    assert_int_equal(config.seed, 5);
    assert_string_equal(config.model_path, "my model");
    assert_int_equal(config.model_init, INIT_RANDOM);
    assert_string_equal(accepted("{model: {path: \"a\\tb\"}}").model_path, "a\tb");
}

// A file of unit repeated count times, refused within a second.
static void check_quick(const char *unit, int count) {
    const size_t length = strlen(unit);
    char *yaml = check_calloc(length * (size_t)count + 1, 1);
    for (int i = 0; i < count; i++) { memcpy(yaml + length * (size_t)i, unit, length); }
    const clock_t begin = clock();
    refused(yaml, "config.yaml");
    const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (seconds > 1) { fail_msg("`%s` %d times took %.1f s", unit, count, seconds); }
    free(yaml);
}

static void test_hostile(void **state) {
    (void)state;
    check_quick("[", 100000);
    check_quick("{", 100000);
    check_quick("{a: ", 100000);
    check_quick("- ", 100000);
    check_quick("? ", 100000);
    check_quick("a: ", 100000);
    check_quick("&a ", 100000);
    check_quick("*a\n", 100000);
    check_quick("a:\n", 100000);
    check_quick("\"", 99999);
    check_quick("'", 99999);
    check_quick("!", 100000);
    check_quick("%TAG ! x\n", 50000);
    check_quick("--- {}\n", 50000);
    check_quick("x", 1000000);
    check_quick("]", 100000);
    check_quick("|", 100000);
    check_quick("xxxxxxxxxxxxxxxx", 1 << 17);  // 2 MiB
}

static void test_long_values(void **state) {
    (void)state;
    char *yaml = check_calloc(5000, 1);
    for (int length = 2046; length <= 2049; length++) {
        memset(yaml, 0, 5000);
        strcpy(yaml, "model:\n  path: ");
        memset(yaml + strlen(yaml), 'x', (size_t)length);
        if (length < 2048) {
            assert_int_equal(strlen(accepted(yaml).model_path), length);
        } else {
            refused(yaml, "config.yaml:2: longer than 2047 bytes");
        }
    }
    free(yaml);
}

static void test_files(void **state) {
    (void)state;
    Config config;
    Error error;
    assert_false(config_load(&config, scratch("none.yaml").text, NULL, 0, &error));
    assert_error(&error, EX_NOINPUT, "none.yaml");
    assert_false(config_load(&config, scratch_directory("a.yaml").text, NULL, 0, &error));
    assert_error(&error, EX_NOINPUT, "a.yaml");
    char *yaml = check_calloc(1 << 21, 1);
    memset(yaml, '\n', 1 << 21);
    assert_false(load(&config, yaml, 1 << 21, NULL, 0, &error));
    assert_error(&error, EX_CONFIG, "larger than");
    free(yaml);
}

static void check_resolved(const Config *config) {
    char *yaml = config_to_yaml(config);
    const Config again = accepted(yaml);
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        char expected[CONFIG_TEXT_SIZE], value[CONFIG_TEXT_SIZE];
        option_format(config, option, expected, sizeof expected);
        option_format(&again, option, value, sizeof value);
        if (strcmp(value, expected) != 0) { fail_msg("%s: `%s` became `%s`", option->key, expected, value); }
    }
    char *second = config_to_yaml(&again);
    assert_string_equal(second, yaml);
    free(second);
    free(yaml);
}

static void test_resolved(void **state) {
    (void)state;
    Config config = accepted("");
    check_resolved(&config);
    Error error;
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < config_option_count; i++) {
            assert_true(option_parse(&config, &config_options[i], sample(&config_options[i], which).text, &error));
        }
        check_resolved(&config);
    }
    config.learning_rate = 0.1 + 0.2;
    config.adam_epsilon = 5e-324;
    config.max_time = 9e15;
    config.seed = 9000000000000000;
    check_resolved(&config);
    const char *texts[] = {"it's",
                           "a: b",
                           "# x",
                           " both ends ",
                           "true",
                           "null",
                           "~",
                           "1e5",
                           "\xE5\xA5\xBD",
                           "-",
                           "- a",
                           "%x",
                           "@x",
                           "`x`",
                           "\"quoted\"",
                           "back\\slash",
                           "&a",
                           "*a",
                           "!!int",
                           "[",
                           "{}",
                           "a #b",
                           "'",
                           "''",
                           "?",
                           ": ",
                           "a\tb",
                           "...",
                           "---",
                           "x:",
                           "\xF0\x9F\x8D\x9C"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        snprintf(config.model_path, sizeof config.model_path, "%s", texts[i]);
        check_resolved(&config);
    }
}

// What could not stand in the resolved file is not accepted from elsewhere either.
static void test_unprintable(void **state) {
    (void)state;
    refused_argument("model.path=a\nb", EX_CONFIG, "model.path");
    refused_argument("model.path=a\rb", EX_CONFIG, "model.path");
    refused_argument("model.path=a\x01", EX_CONFIG, "model.path");
    refused_argument("model.path=\x7F", EX_CONFIG, "model.path");
    refused_argument("model.path=caf\xE9", EX_CONFIG, "model.path");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precedence),    cmocka_unit_test(test_defaults),  cmocka_unit_test(test_contract),
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_ranges),    cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_arguments),     cmocka_unit_test(test_structure), cmocka_unit_test(test_not_yaml),
        cmocka_unit_test(test_crlf_and_mark), cmocka_unit_test(test_hostile),   cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_files),         cmocka_unit_test(test_resolved),  cmocka_unit_test(test_unprintable),
        cmocka_unit_test(test_default_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
