// See sweep_space.h.
#include "trainer/sweep/sweep_space.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/sampler.h"
#include "kernels/philox.h"
#include "trainer/number.h"

enum { TOGETHER = 8, DIGITS = 4 };  // keys of one parameter; digits of drawn numbers

typedef enum {
    VALUES,  // given one by one
    INT_UNIFORM,
    UNIFORM,
    LOG_UNIFORM,         // min and max are logarithms
    LOG_UNIFORM_VALUES,  // min and max are values
    NORMAL,
    LOG_NORMAL
} Distribution;

static const struct {
    const char *name;
    Distribution distribution;
    bool steps;  // rounded to multiples of q
} distributions[] = {{"constant", VALUES, false},
                     {"categorical", VALUES, false},
                     {"categorical_w_probabilities", VALUES, false},
                     {"int_uniform", INT_UNIFORM, false},
                     {"uniform", UNIFORM, false},
                     {"q_uniform", UNIFORM, true},
                     {"log_uniform", LOG_UNIFORM, false},
                     {"q_log_uniform", LOG_UNIFORM, true},
                     {"log_uniform_values", LOG_UNIFORM_VALUES, false},
                     {"q_log_uniform_values", LOG_UNIFORM_VALUES, true},
                     {"normal", NORMAL, false},
                     {"q_normal", NORMAL, true},
                     {"log_normal", LOG_NORMAL, false},
                     {"q_log_normal", LOG_NORMAL, true}};

typedef struct {
    int first_key, key_count;  // among the sweep's keys
    Distribution distribution;
    int count;              // of values
    char **values;          // (count, key_count)
    double *probabilities;  // (count), or NULL: all alike
    double min, max, q, mu, sigma;
} Parameter;

typedef struct {
    Sweep *sweep;
    const char *path;
    int count;
    Parameter parameters[SWEEP_KEYS];
} Space;

static bool wrong(const Space *space, const YamlNode *node, Error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static bool wrong(const Space *space, const YamlNode *node, Error *error, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return error_set(error, EX_CONFIG, "%s:%d: %s", space->path, node->line, text);
}

// ---- Reading.

// A key by its whole name, or by its name alone in the sections that say how to train.
static const Option *find_key(const char *name) {
    char key[YAML_TEXT + 8];
    const Option *option = option_find(name);
    if (option || strchr(name, '.')) { return option; }
    snprintf(key, sizeof key, "train.%s", name);
    if ((option = option_find(key))) { return option; }
    snprintf(key, sizeof key, "model.%s", name);
    return option_find(key);
}

static bool add_key(Space *space, const YamlNode *node, const char *name, Error *error) {
    static const char *const fixed[] = {"run.dir", "run.resume", "data.train_split", "evaluation.split",
                                        "train.max_steps"};
    Sweep *sweep = space->sweep;
    const Option *option = find_key(name);
    if (!option) {
        const char *nearest = option_nearest(name);
        return wrong(space, node, error, "unknown parameter `%.200s`%s%s%s", name, nearest ? "; did you mean `" : "",
                     nearest ? nearest : "", nearest ? "`?" : "");
    }
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (strcmp(option->key, fixed[i]) == 0) {
            return wrong(space, node, error, "%s is for the sweep to set", option->key);
        }
    }
    for (int i = 0; i < sweep->key_count; i++) {
        if (sweep->keys[i] == option) { return wrong(space, node, error, "%s stands twice", option->key); }
    }
    if (sweep->key_count == SWEEP_KEYS) { return wrong(space, node, error, "more than %d parameters", SWEEP_KEYS); }
    sweep->keys[sweep->key_count++] = option;
    return true;
}

static bool add_keys(Space *space, Parameter *parameter, const YamlNode *node, const char *names, Error *error) {
    parameter->first_key = space->sweep->key_count;
    for (const char *name = names; name; name = strchr(name, ',')) {
        char one[YAML_TEXT];
        name += strspn(name, ", ");
        snprintf(one, sizeof one, "%.*s", (int)strcspn(name, ", "), name);
        if (!add_key(space, node, one, error)) { return false; }
    }
    parameter->key_count = space->sweep->key_count - parameter->first_key;
    return parameter->key_count <= TOGETHER || wrong(space, node, error, "more than %d keys together", TOGETHER);
}

// A value as it would stand in a configuration, which must be one of the key.
static bool take_value(Space *space, const Option *option, const YamlNode *node, char **value, Error *error) {
    Config scratch;
    Error cause;
    if (node->kind != YAML_SCALAR) {
        return wrong(space, node, error, "%s: expected a value, found a %s", option->key, yaml_kind_name(node));
    }
    if (!option_parse(&scratch, option, node->text, &cause)) { return wrong(space, node, error, "%s", cause.text); }
    *value = check_strdup(node->text);
    return true;
}

static int count_of(const YamlNode *list) {
    int count = 0;
    for (const YamlNode *node = list->first; node; node = node->next) { count++; }
    return count;
}

// One value of each of the parameter's keys.
static bool take_values(Space *space, Parameter *parameter, const YamlNode *node, char **values, Error *error) {
    const Option *const *keys = space->sweep->keys + parameter->first_key;
    if (parameter->key_count == 1) { return take_value(space, keys[0], node, values, error); }
    if (node->kind != YAML_LIST || count_of(node) != parameter->key_count) {
        return wrong(space, node, error, "expected a list of %d values that go together", parameter->key_count);
    }
    const YamlNode *entry = node->first;
    for (int i = 0; i < parameter->key_count; i++, entry = entry->next) {
        if (!take_value(space, keys[i], entry, &values[i], error)) { return false; }
    }
    return true;
}

static bool read_values(Space *space, Parameter *parameter, const YamlNode *list, Error *error) {
    const int count = list->kind == YAML_LIST ? count_of(list) : 0;
    if (count == 0) { return wrong(space, list, error, "values: expected a list"); }
    parameter->values = check_calloc((size_t)count * (size_t)parameter->key_count, sizeof *parameter->values);
    for (const YamlNode *node = list->first; node; node = node->next) {
        char **values = parameter->values + (size_t)parameter->count++ * (size_t)parameter->key_count;
        if (!take_values(space, parameter, node, values, error)) { return false; }
    }
    return true;
}

static bool read_number(const Space *space, const YamlNode *mapping, const char *key, double *value, bool *given,
                        Error *error) {
    const YamlNode *node = yaml_find(mapping, key);
    *given = node != NULL;
    return !node || (node->kind == YAML_SCALAR && number_parse_real(node->text, value)) ||
           wrong(space, node, error, "%s: expected a number", key);
}

static bool read_probabilities(Space *space, Parameter *parameter, const YamlNode *list, Error *error) {
    double sum = 0.0;
    if (list->kind != YAML_LIST || count_of(list) != parameter->count) {
        return wrong(space, list, error, "probabilities: expected a list of %d numbers", parameter->count);
    }
    parameter->probabilities = check_calloc((size_t)parameter->count, sizeof *parameter->probabilities);
    double *next = parameter->probabilities;
    for (const YamlNode *node = list->first; node; node = node->next, next++) {
        if (node->kind != YAML_SCALAR || !number_parse_real(node->text, next) || *next < 0) {
            return wrong(space, node, error, "probabilities: expected numbers from 0");
        }
        sum += *next;
    }
    return fabs(sum - 1.0) < 1e-6 || wrong(space, list, error, "probabilities: their sum is %g instead of 1", sum);
}

// The bounds that the distribution asks for, without others.
static bool read_range(const Space *space, Parameter *parameter, const YamlNode *node, bool steps, Error *error) {
    bool min, max, mu, sigma, q;
    parameter->sigma = 1.0;
    if (!read_number(space, node, "min", &parameter->min, &min, error) ||
        !read_number(space, node, "max", &parameter->max, &max, error) ||
        !read_number(space, node, "mu", &parameter->mu, &mu, error) ||
        !read_number(space, node, "sigma", &parameter->sigma, &sigma, error) ||
        !read_number(space, node, "q", &parameter->q, &q, error)) {
        return false;
    }
    const bool normal = parameter->distribution == NORMAL || parameter->distribution == LOG_NORMAL;
    if (normal ? min || max : !min || !max || mu || sigma) {
        return wrong(space, node, error, "expected %s", normal ? "mu and sigma" : "min and max");
    }
    if (steps && !q) { parameter->q = 1.0; }
    if (q && (!steps || parameter->q <= 0)) { return wrong(space, node, error, "q: of a q_ distribution, above 0"); }
    if (parameter->min > parameter->max || parameter->sigma < 0) {
        return wrong(space, node, error, "min is above max, or sigma below 0");
    }
    if (parameter->distribution == INT_UNIFORM &&
        (floor(parameter->min) != parameter->min || floor(parameter->max) != parameter->max)) {
        return wrong(space, node, error, "int_uniform: min and max are integers");
    }
    return parameter->distribution != LOG_UNIFORM_VALUES || parameter->min > 0 ||
           wrong(space, node, error, "log_uniform_values: min is above 0");
}

// Both ends must be values of the key.
static bool check_range(Space *space, const Parameter *parameter, const YamlNode *node, Error *error) {
    const Option *option = space->sweep->keys[parameter->first_key];
    const bool logarithms = parameter->distribution == LOG_UNIFORM;
    const double ends[] = {logarithms ? exp(parameter->min) : parameter->min,
                           logarithms ? exp(parameter->max) : parameter->max};
    if (parameter->key_count > 1 || (option->type != OPTION_REAL && option->type != OPTION_INTEGER)) {
        return wrong(space, node, error, "`values` are wanted for what is no number");
    }
    if (parameter->distribution == NORMAL || parameter->distribution == LOG_NORMAL) { return true; }
    for (int i = 0; i < 2; i++) {
        if (ends[i] < option->least || ends[i] > option->most || (option->above_least && ends[i] == option->least)) {
            return wrong(space, node, error, "%s: %g is out of range, expected %s %g to %g", option->key, ends[i],
                         option->above_least ? "above" : "from", option->least, option->most);
        }
    }
    return true;
}

static bool read_distribution(Space *space, Parameter *parameter, const YamlNode *node, bool *steps, Error *error) {
    const YamlNode *name = yaml_find(node, "distribution");
    const YamlNode *min = yaml_find(node, "min"), *max = yaml_find(node, "max");
    double number;
    *steps = false;
    if (!name) {  // as W&B
        const bool whole = min && max && min->kind == YAML_SCALAR && max->kind == YAML_SCALAR &&
                           number_parse_integer(min->text, &number) && number_parse_integer(max->text, &number);
        parameter->distribution = whole ? INT_UNIFORM : UNIFORM;
        return true;
    }
    for (size_t i = 0; name->kind == YAML_SCALAR && i < sizeof distributions / sizeof distributions[0]; i++) {
        if (strcmp(distributions[i].name, name->text) == 0 && distributions[i].distribution != VALUES) {
            parameter->distribution = distributions[i].distribution;
            *steps = distributions[i].steps;
            return true;
        }
    }
    return wrong(space, name, error,
                 "distribution: expected one of int_uniform, [q_]uniform, [q_]log_uniform, "
                 "[q_]log_uniform_values, [q_]normal, [q_]log_normal; or `values`");
}

static bool check_words(const Space *space, const YamlNode *mapping, Error *error) {
    static const char *const words[] = {"value", "values", "probabilities", "distribution", "min", "max",
                                        "q",     "mu",     "sigma"};
    for (const YamlNode *node = mapping->first; node; node = node->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) { known |= strcmp(words[i], node->key) == 0; }
        if (!known) { return wrong(space, node, error, "unknown word `%.100s` in a parameter", node->key); }
    }
    return true;
}

static bool read_parameter(Space *space, const YamlNode *node, const char *name, Error *error) {
    Parameter *parameter = &space->parameters[space->count++];
    if (!add_keys(space, parameter, node, name, error) || !check_words(space, node, error)) { return false; }
    const YamlNode *value = yaml_find(node, "value"), *values = yaml_find(node, "values");
    const YamlNode *probabilities = yaml_find(node, "probabilities");
    if (value) {
        YamlNode only = *value;
        only.next = NULL;
        const YamlNode list = {.kind = YAML_LIST, .line = value->line, .first = &only};
        return read_values(space, parameter, &list, error);
    }
    if (values) {
        return read_values(space, parameter, values, error) &&
               (!probabilities || read_probabilities(space, parameter, probabilities, error));
    }
    bool steps;
    return read_distribution(space, parameter, node, &steps, error) &&
           read_range(space, parameter, node, steps, error) && check_range(space, parameter, node, error);
}

// section: the names so far, with a dot behind, or "".
static bool read_parameters(Space *space, const YamlNode *mapping, const char *section, Error *error) {
    if (mapping->kind != YAML_MAPPING) {
        return wrong(space, mapping, error, "expected `name: {values: [...]}` lines");
    }
    for (const YamlNode *node = mapping->first; node; node = node->next) {
        char name[2 * YAML_TEXT];
        if (strlen(section) + strlen(node->key) + 2 > sizeof name) { return wrong(space, node, error, "too long"); }
        snprintf(name, sizeof name, "%s%s", section, node->key);
        if (node->kind != YAML_MAPPING) {
            return wrong(space, node, error, "%.200s: expected `values`, `value`, or `min` and `max`", name);
        }
        const YamlNode *inner = yaml_find(node, "parameters");
        if (inner) {
            strcat(name, ".");
            if (!read_parameters(space, inner, name, error)) { return false; }
        } else if (space->count == SWEEP_KEYS) {
            return wrong(space, node, error, "more than %d parameters", SWEEP_KEYS);
        } else if (!read_parameter(space, node, name, error)) {
            return false;
        }
    }
    return true;
}

// ---- Trials.

// Uniform in [0, 1): of a trial and parameter.
static double uniform(const Sweep *sweep, int trial, int parameter, int draw) {
    const uint64_t seed = (uint64_t)sweep->seed;
    const Philox bits = philox((uint32_t)trial, (uint32_t)parameter, (uint32_t)draw, 0x73776565u /* "swee" */,
                               (uint32_t)seed, (uint32_t)(seed >> 32));
    return ((double)(bits.lane[0] >> 5) * 67108864.0 + (double)(bits.lane[1] >> 6)) / 9007199254740992.0;
}

static int draw_value(const Parameter *parameter, double u) {
    if (!parameter->probabilities) { return (int)(u * parameter->count); }
    int i = 0;
    for (; i < parameter->count - 1 && u >= parameter->probabilities[i]; i++) { u -= parameter->probabilities[i]; }
    return i;
}

static double draw_number(const Sweep *sweep, const Parameter *parameter, int trial, int number) {
    const double u = uniform(sweep, trial, number, 0), v = uniform(sweep, trial, number, 1);
    const double normal = parameter->mu + parameter->sigma * sqrt(-2.0 * log1p(-u)) * cos(2.0 * M_PI * v);
    const double low = parameter->min, high = parameter->max;
    double x = 0.0;
    switch (parameter->distribution) {
        case INT_UNIFORM:
            return low + floor(u * (high - low + 1.0));
        case UNIFORM:
            x = low + u * (high - low);
            break;
        case LOG_UNIFORM:
            x = exp(low + u * (high - low));
            break;
        case LOG_UNIFORM_VALUES:
            x = low * pow(high / low, u);
            break;
        case NORMAL:
            x = normal;
            break;
        case LOG_NORMAL:
            x = exp(normal);
            break;
        default:
            CHECK(false);
    }
    return parameter->q > 0 ? round(x / parameter->q) * parameter->q : x;
}

// The number as a text of the key's type and within its range, of few digits so that people can copy it.
static char *number_text(const Option *option, double x) {
    char text[64];
    snprintf(text, sizeof text, "%.*g", DIGITS, x);
    double rounded = strtod(text, NULL);
    if (option->type == OPTION_INTEGER) { rounded = round(x); }
    rounded = fmin(fmax(rounded, option->least), option->most);
    if (option->type == OPTION_INTEGER) {
        snprintf(text, sizeof text, "%.0f", rounded);
        return check_strdup(text);
    }
    return check_strdup(number_format(rounded).text);
}

static void draw_trial(const Space *space, int trial) {
    const Sweep *sweep = space->sweep;
    char **to = sweep->values + (size_t)trial * (size_t)sweep->key_count;
    for (int p = 0; p < space->count; p++) {
        const Parameter *parameter = &space->parameters[p];
        if (parameter->distribution != VALUES) {
            to[parameter->first_key] =
                number_text(sweep->keys[parameter->first_key], draw_number(sweep, parameter, trial, p));
            continue;
        }
        const int chosen = draw_value(parameter, uniform(sweep, trial, p, 0));
        for (int k = 0; k < parameter->key_count; k++) {
            to[parameter->first_key + k] = check_strdup(parameter->values[chosen * parameter->key_count + k]);
        }
    }
}

// Values of a parameter in a grid, or 0 where there are too many to enumerate.
static int64_t grid_size(const Parameter *parameter) {
    if (parameter->distribution == VALUES) { return parameter->count; }
    if (parameter->distribution == INT_UNIFORM) { return (int64_t)(parameter->max - parameter->min) + 1; }
    if (parameter->distribution == UNIFORM && parameter->q > 0) {
        return (int64_t)floor((parameter->max - parameter->min) / parameter->q * (1.0 + 1e-12)) + 1;
    }
    return 0;
}

// The point-th of the grid, whose last parameter changes first.
static void grid_trial(const Space *space, int trial, int64_t point) {
    const Sweep *sweep = space->sweep;
    char **to = sweep->values + (size_t)trial * (size_t)sweep->key_count;
    for (int p = space->count - 1; p >= 0; p--) {
        const Parameter *parameter = &space->parameters[p];
        const int64_t size = grid_size(parameter), at = point % size;
        point /= size;
        if (parameter->distribution != VALUES) {
            const double step = parameter->distribution == INT_UNIFORM ? 1.0 : parameter->q;
            to[parameter->first_key] =
                number_text(sweep->keys[parameter->first_key], parameter->min + (double)at * step);
            continue;
        }
        for (int k = 0; k < parameter->key_count; k++) {
            to[parameter->first_key + k] = check_strdup(parameter->values[at * parameter->key_count + k]);
        }
    }
}

static bool count_grid(const Space *space, const YamlNode *parameters, int64_t *points, Error *error) {
    *points = 1;
    for (int p = 0; p < space->count; p++) {
        const int64_t size = grid_size(&space->parameters[p]);
        if (size == 0) {
            return wrong(space, parameters, error, "method grid: %s has no end of values; give `values`, or use random",
                         space->sweep->keys[space->parameters[p].first_key]->key);
        }
        if (size > SWEEP_TRIALS || (*points *= size) > SWEEP_TRIALS) {
            return wrong(space, parameters, error, "more than %d trials", SWEEP_TRIALS);
        }
    }
    return true;
}

static bool make_trials(Space *space, const YamlNode *parameters, int64_t run_cap, Error *error) {
    Sweep *sweep = space->sweep;
    int64_t points = run_cap;
    if (!sweep->random && !count_grid(space, parameters, &points, error)) { return false; }
    sweep->trials = (int)(run_cap && run_cap < points ? run_cap : points);
    sweep->values = check_calloc((size_t)sweep->trials * (size_t)sweep->key_count, sizeof *sweep->values);
    int64_t *order = check_calloc((size_t)points, sizeof *order);
    // Rungs compare a trial with those before it, which neighbours in a grid would not stand for.
    sampler_order(order, points, sweep->rungs > 0, (uint64_t)sweep->seed, 0);
    for (int t = 0; t < sweep->trials; t++) {
        if (sweep->random) {
            draw_trial(space, t);
        } else {
            grid_trial(space, t, order[t]);
        }
    }
    free(order);
    return true;
}

bool sweep_space_expand(Sweep *sweep, const char *path, const YamlNode *parameters, int64_t run_cap, Error *error) {
    Space *space = check_calloc(1, sizeof *space);
    space->sweep = sweep;
    space->path = path;
    const bool ok = read_parameters(space, parameters, "", error) &&
                    (space->count > 0 || wrong(space, parameters, error, "no parameters")) &&
                    make_trials(space, parameters, run_cap, error);
    for (int p = 0; p < space->count; p++) {
        Parameter *parameter = &space->parameters[p];
        for (int i = 0; parameter->values && i < parameter->count * parameter->key_count; i++) {
            free(parameter->values[i]);
        }
        free(parameter->values);
        free(parameter->probabilities);
    }
    free(space);
    return ok;
}
