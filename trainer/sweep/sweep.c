// Reading a sweep's description; see sweep.h. Its parameters are in sweep_space.c.
#include "trainer/sweep/sweep.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/number.h"
#include "trainer/run_directory.h"
#include "trainer/sweep/sweep_space.h"
#include "trainer/yaml.h"

typedef struct {
    Sweep *sweep;
    const char *path;
    const YamlNode *root;
    char config[CONFIG_TEXT_SIZE];
    int64_t run_cap;
} Reader;

static bool wrong(const Reader *reader, const YamlNode *node, Error *error, const char *text) {
    return error_set(error, EX_CONFIG, "%s:%d: %s", reader->path, node->line, text);
}

// Words of W&B's that mean nothing here are passed over.
static bool check_words(const Reader *reader, Error *error) {
    static const char *const words[] = {
        "name", "config",          "dir",   "method",  "metric",  "parameters", "early_terminate", "run_cap",
        "seed", "ranks_per_trial", "split", "program", "command", "project",    "entity",          "description"};
    if (reader->root->kind != YAML_MAPPING) {
        return wrong(reader, reader->root, error, "expected `key: value` lines");
    }
    for (const YamlNode *node = reader->root->first; node; node = node->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) { known |= strcmp(words[i], node->key) == 0; }
        if (!known) {
            return error_set(error, EX_CONFIG,
                             "%s:%d: unknown key `%.100s`; a sweep has name, config, dir, method, "
                             "metric, parameters, early_terminate, run_cap, seed, ranks_per_trial, split",
                             reader->path, node->line, node->key);
        }
    }
    return true;
}

static bool read_text(const Reader *reader, const YamlNode *mapping, const char *key, char *text, size_t size,
                      Error *error) {
    const YamlNode *node = yaml_find(mapping, key);
    if (!node) { return true; }
    if (node->kind != YAML_SCALAR || !node->text[0] || strlen(node->text) >= size) {
        return error_set(error, EX_CONFIG, "%s:%d: %s: expected 1 to %zu bytes of text", reader->path, node->line, key,
                         size - 1);
    }
    strcpy(text, node->text);
    return true;
}

static bool read_integer(const Reader *reader, const YamlNode *mapping, const char *key, double least, double most,
                         int64_t *value, Error *error) {
    const YamlNode *node = yaml_find(mapping, key);
    double number = least;
    if (!node) { return true; }
    if (node->kind != YAML_SCALAR || !number_parse_integer(node->text, &number) || number < least || number > most) {
        return error_set(error, EX_CONFIG, "%s:%d: %s: expected an integer from %.0f to %.0f", reader->path, node->line,
                         key, least, most);
    }
    *value = (int64_t)number;
    return true;
}

// One of two words.
static bool read_word(const Reader *reader, const YamlNode *mapping, const char *key, const char *no, const char *yes,
                      bool *value, Error *error) {
    const YamlNode *node = yaml_find(mapping, key);
    if (!node) { return true; }
    *value = node->kind == YAML_SCALAR && strcmp(node->text, yes) == 0;
    return *value || (node->kind == YAML_SCALAR && strcmp(node->text, no) == 0) ||
           error_set(error, EX_CONFIG, "%s:%d: %s: expected %s or %s", reader->path, node->line, key, no, yes);
}

static bool read_metric(const Reader *reader, Error *error) {
    static const struct {
        const char *name;
        bool maximize;
    } metrics[] = {{"validation_accuracy", true},
                   {"accuracy", true},
                   {"f1", true},
                   {"validation_loss", false},
                   {"train_loss", false}};
    Sweep *sweep = reader->sweep;
    const YamlNode *node = yaml_find(reader->root, "metric");
    strcpy(sweep->metric, metrics[0].name);
    if (node && node->kind != YAML_MAPPING) { return wrong(reader, node, error, "metric: expected name and goal"); }
    if (node && !read_text(reader, node, "name", sweep->metric, sizeof sweep->metric, error)) { return false; }
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        if (strcmp(metrics[i].name, sweep->metric) != 0) { continue; }
        sweep->maximize = metrics[i].maximize;
        return !node || read_word(reader, node, "goal", "minimize", "maximize", &sweep->maximize, error);
    }
    return wrong(reader, node, error,
                 "metric: expected validation_accuracy, accuracy, f1, validation_loss or train_loss");
}

// Rungs at min_iter, min_iter * eta, ...; or, as W&B, s of them below max_iter at max_iter / eta, max_iter / eta^2, ...
static bool place_rungs(const Reader *reader, const YamlNode *node, int64_t min, int64_t max, int64_t brackets,
                        Error *error) {
    Sweep *sweep = reader->sweep;
    double epoch = (double)min;
    if (!min) {
        if (!max || !brackets) {
            return wrong(reader, node, error, "early_terminate: expected min_iter, or max_iter and s");
        }
        epoch = (double)max / pow(sweep->eta, (double)brackets);
    }
    const double end = max ? (double)max : 1e6;
    for (; epoch < end && sweep->rungs < SWEEP_RUNGS; epoch *= sweep->eta) {
        const int64_t rung = (int64_t)round(epoch);
        const bool later = sweep->rungs == 0 || rung > sweep->rung_epochs[sweep->rungs - 1];
        if (rung >= 1 && later) { sweep->rung_epochs[sweep->rungs++] = rung; }
    }
    return sweep->rungs > 0 || wrong(reader, node, error, "early_terminate: no epoch at which to compare trials");
}

static bool read_halving(const Reader *reader, Error *error) {
    static const char *const words[] = {"type", "min_iter", "max_iter", "s", "eta", "reduction_factor", "strict"};
    const YamlNode *node = yaml_find(reader->root, "early_terminate");
    if (!node) { return true; }
    if (node->kind != YAML_MAPPING) {
        return wrong(reader, node, error, "early_terminate: expected `type: hyperband`");
    }
    for (const YamlNode *entry = node->first; entry; entry = entry->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) { known |= strcmp(words[i], entry->key) == 0; }
        if (!known) {
            return wrong(reader, entry, error, "early_terminate: expected type, min_iter, max_iter, s, eta");
        }
    }
    bool asha = false;
    int64_t min = 0, max = 0, brackets = 0;
    const YamlNode *eta = yaml_find(node, "eta") ? yaml_find(node, "eta") : yaml_find(node, "reduction_factor");
    reader->sweep->eta = 3.0;
    if (eta && (eta->kind != YAML_SCALAR || !number_parse_real(eta->text, &reader->sweep->eta) ||
                reader->sweep->eta < 2.0 || reader->sweep->eta > 1000.0)) {
        return wrong(reader, eta, error, "early_terminate: eta: expected a number from 2");
    }
    return (yaml_find(node, "type") || wrong(reader, node, error, "early_terminate: expected `type: hyperband`")) &&
           read_word(reader, node, "type", "hyperband", "asha", &asha, error) &&
           read_integer(reader, node, "min_iter", 1, 1e6, &min, error) &&
           read_integer(reader, node, "max_iter", 1, 1e6, &max, error) &&
           read_integer(reader, node, "s", 1, SWEEP_RUNGS, &brackets, error) &&
           place_rungs(reader, node, min, max, brackets, error);
}

static bool read_head(Reader *reader, Error *error) {
    Sweep *sweep = reader->sweep;
    const YamlNode *root = reader->root, *method = yaml_find(root, "method");
    int64_t ranks = 1;
    strcpy(sweep->name, "sweep");
    strcpy(reader->config, "configs/waimai.yaml");
    sweep->dev = true;
    sweep->seed = 2023;
    if (!check_words(reader, error)) { return false; }
    if (method && method->kind == YAML_SCALAR && strcmp(method->text, "bayes") == 0) {
        return wrong(reader, method, error, "method: bayes is not there; use random with early_terminate");
    }
    const bool ok = read_text(reader, root, "name", sweep->name, sizeof sweep->name, error) &&
                    read_text(reader, root, "config", reader->config, sizeof reader->config, error) &&
                    read_text(reader, root, "dir", sweep->dir, sizeof sweep->dir, error) &&
                    read_word(reader, root, "method", "grid", "random", &sweep->random, error) &&
                    read_word(reader, root, "split", "validation", "dev", &sweep->dev, error) &&
                    read_integer(reader, root, "run_cap", 1, SWEEP_TRIALS, &reader->run_cap, error) &&
                    read_integer(reader, root, "seed", 0, 9e15, &sweep->seed, error) &&
                    read_integer(reader, root, "ranks_per_trial", 1, 1 << 20, &ranks, error) &&
                    read_metric(reader, error) && read_halving(reader, error);
    if (!ok) { return false; }
    sweep->ranks_per_trial = (int)ranks;
    if (!method) { return wrong(reader, root, error, "expected `method: grid` or `method: random`"); }
    if (sweep->random && !reader->run_cap) {
        return wrong(reader, method, error, "method: random: run_cap says how many trials there are");
    }
    if (!sweep->dir[0]) { snprintf(sweep->dir, sizeof sweep->dir, "runs/%s", sweep->name); }
    // trials/NNNN and what lies in it must fit, too.
    return strlen(sweep->dir) < CONFIG_TEXT_SIZE - 64 || wrong(reader, root, error, "dir: too long");
}

static bool read_base(Reader *reader, char *const *overrides, int count, Error *error) {
    Sweep *sweep = reader->sweep;
    if (!config_load(&sweep->base, reader->config, overrides, count, error)) { return false; }
    return sweep->base.max_steps == 0 ||
           error_set(error, EX_CONFIG, "%s: train.max_steps is not for a sweep; use train.num_train_epochs",
                     reader->config);
}

// Whether each trial's values make a configuration, and how long it is.
static void measure_trials(Sweep *sweep) {
    sweep->epochs = check_calloc((size_t)sweep->trials, sizeof *sweep->epochs);
    for (int t = 0; t < sweep->trials; t++) {
        Config config;
        sweep_trial_config(sweep, t, &config);
        sweep->epochs[t] = config.num_train_epochs;
    }
}

bool sweep_load(Sweep *sweep, const char *path, char *const *overrides, int count, Error *error) {
    memset(sweep, 0, sizeof *sweep);
    YamlNode *root = yaml_load(path, error);
    if (!root) { return false; }
    Reader reader = {.sweep = sweep, .path = path, .root = root};
    bool ok = read_head(&reader, error) && read_base(&reader, overrides, count, error);
    const YamlNode *parameters = yaml_find(root, "parameters");
    ok = ok && (parameters || wrong(&reader, root, error, "expected `parameters:`")) &&
         sweep_space_expand(sweep, path, parameters, reader.run_cap, error);
    if (ok) { measure_trials(sweep); }
    yaml_free(root);
    return ok;
}

void sweep_free(Sweep *sweep) {
    for (int i = 0; sweep->values && i < sweep->trials * sweep->key_count; i++) { free(sweep->values[i]); }
    free(sweep->values);
    free(sweep->epochs);
    memset(sweep, 0, sizeof *sweep);
}

int sweep_segments(const Sweep *sweep, int trial) {
    int rungs = 0;
    while (rungs < sweep->rungs && sweep->rung_epochs[rungs] < sweep->epochs[trial]) { rungs++; }
    return rungs + 1;
}

int64_t sweep_segment_epoch(const Sweep *sweep, int trial, int segment) {
    return segment < sweep_segments(sweep, trial) - 1 ? sweep->rung_epochs[segment] : sweep->epochs[trial];
}

void sweep_trial_config(const Sweep *sweep, int trial, Config *config) {
    Error error;
    *config = sweep->base;
    for (int k = 0; k < sweep->key_count; k++) {
        CHECK(option_parse(config, sweep->keys[k], sweep->values[trial * sweep->key_count + k], &error));
    }
    CHECK(snprintf(config->run_dir, sizeof config->run_dir, "%s/trials/%04d", sweep->dir, trial) < CONFIG_TEXT_SIZE);
    strcpy(config->resume, "auto");
    config->save_total_limit = 1;
    if (!sweep->dev) { return; }
    config->evaluation_split = EVALUATION_DEV;
    config->train_split = TRAIN_SPLIT_TRAIN;
}

void sweep_winner_config(const Sweep *sweep, int trial, Config *config) {
    sweep_trial_config(sweep, trial, config);
    CHECK(snprintf(config->run_dir, sizeof config->run_dir, "%s/winner", sweep->dir) < CONFIG_TEXT_SIZE);
    config->evaluation_split = EVALUATION_VALIDATION;
    config->train_split = TRAIN_SPLIT_ALL;
}

// A value of a configuration as JSON of its type.
static json_t *json_value(const Option *option, const char *text) {
    double number;
    switch (option->type) {
        case OPTION_INTEGER:
            CHECK(number_parse_integer(text, &number));
            return json_integer((json_int_t)number);
        case OPTION_REAL:
            CHECK(number_parse_real(text, &number));
            return json_real(number);
        case OPTION_BOOLEAN:
            return json_boolean(strcmp(text, "true") == 0);
        default:
            return json_string(text);
    }
}

static json_t *config_json(const Config *config) {
    json_t *json = json_object();
    for (int i = 0; i < config_option_count; i++) {
        char text[CONFIG_TEXT_SIZE];
        const Option *option = &config_options[i];
        option_format(config, option, text, sizeof text);
        if (!option->fallback[0] && text[0] == '-') { continue; }
        json_object_set_new(json, option->key, json_value(option, text));
    }
    return json;
}

static json_t *trials_json(const Sweep *sweep) {
    json_t *trials = json_array();
    for (int t = 0; t < sweep->trials; t++) {
        json_t *parameters = json_object();
        for (int k = 0; k < sweep->key_count; k++) {
            json_object_set_new(parameters, sweep->keys[k]->key,
                                json_value(sweep->keys[k], sweep->values[t * sweep->key_count + k]));
        }
        json_array_append_new(trials, json_pack("{si,so}", "trial", t, "parameters", parameters));
    }
    return trials;
}

char *sweep_to_json(const Sweep *sweep) {
    json_t *rungs = json_array(), *keys = json_array();
    for (int r = 0; r < sweep->rungs; r++) { json_array_append_new(rungs, json_integer(sweep->rung_epochs[r])); }
    for (int k = 0; k < sweep->key_count; k++) { json_array_append_new(keys, json_string(sweep->keys[k]->key)); }
    json_t *json = json_pack(
        "{ss,ss,s{ss,ss},so,so,sf,si,ss,so,so}", "name", sweep->name, "method", sweep->random ? "random" : "grid",
        "metric", "name", sweep->metric, "goal", sweep->maximize ? "maximize" : "minimize", "parameters", keys, "rungs",
        rungs, "eta", sweep->eta, "ranks_per_trial", sweep->ranks_per_trial, "split", sweep->dev ? "dev" : "validation",
        "config", config_json(&sweep->base), "trials", trials_json(sweep));
    CHECK(json);
    char *text = json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    CHECK(text);
    json_decref(json);
    return text;
}
