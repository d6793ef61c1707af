// The option table and the reading and writing of single values.
#include "trainer/config_options.h"

#include <ctype.h>
#include <string.h>

#include "datasets/utf8.h"
#include "trainer/number.h"

#define FIELD(name) offsetof(Config, name)
#define LARGE 9e15

const Option config_options[] = {
    {"model.path", OPTION_TEXT, FIELD(model_path), "models/bert-mini", 0, 0, false, NULL,
     "Hugging Face directory: config.json, vocab.txt, model.safetensors"},
    {"model.init", OPTION_CHOICE, FIELD(model_init), "pretrained", 0, 0, false, "pretrained|random",
     "random needs config.json and vocab.txt only"},
    {"model.hidden_dropout_prob", OPTION_REAL, FIELD(hidden_dropout_prob), "", 0, 0.99, false, NULL,
     "default: config.json's"},
    {"model.attention_probs_dropout_prob", OPTION_REAL, FIELD(attention_probs_dropout_prob), "", 0, 0.99, false, NULL,
     "default: config.json's"},
    {"data.path", OPTION_TEXT, FIELD(data_path), "data/waimai_10k.h5", 0, 0, false, NULL,
     "data set made by `bertune prepare`"},
    {"data.train_split", OPTION_CHOICE, FIELD(train_split), "train", 0, 0, false, "train|all",
     "all: the rows that `prepare --dev-size` cut off are trained on, too"},
    {"train.num_train_epochs", OPTION_INTEGER, FIELD(num_train_epochs), "3", 1, 1e6, false, NULL,
     "passes over the rows"},
    {"train.max_steps", OPTION_INTEGER, FIELD(max_steps), "0", 0, LARGE, false, NULL,
     "stop after so many steps; 0: no limit. The learning rate schedule does not depend on it"},
    {"train.global_batch_size", OPTION_INTEGER, FIELD(global_batch_size), "16", 1, 1 << 20, false, NULL,
     "rows of a step, of all ranks together"},
    {"train.gradient_accumulation_steps", OPTION_INTEGER, FIELD(gradient_accumulation_steps), "1", 1, 1 << 16, false,
     NULL, "micro-batches the global batch is cut into; saves memory, changes nothing else"},
    {"train.learning_rate", OPTION_REAL, FIELD(learning_rate), "2e-05", 0, 1e3, false, NULL, "peak learning rate"},
    {"train.lr_scheduler_type", OPTION_CHOICE, FIELD(lr_scheduler_type), "constant", 0, 0, false,
     "constant|constant_with_warmup|linear|cosine", "as in transformers; constant ignores the warm-up"},
    {"train.warmup_steps", OPTION_INTEGER, FIELD(warmup_steps), "0", 0, LARGE, false, NULL,
     "steps from 0 to the peak; above 0 it overrides warmup_ratio"},
    {"train.warmup_ratio", OPTION_REAL, FIELD(warmup_ratio), "0", 0, 1, false, NULL, "warm-up as a part of all steps"},
    {"train.weight_decay", OPTION_REAL, FIELD(weight_decay), "0.01", 0, 1e3, false, NULL, "AdamW's decoupled decay"},
    {"train.weight_decay_scope", OPTION_CHOICE, FIELD(weight_decay_scope), "all", 0, 0, false, "all|no_bias_norm",
     "all, as torch.optim.AdamW(model.parameters()) | no_bias_norm, as Trainer"},
    {"train.adam_beta1", OPTION_REAL, FIELD(adam_beta1), "0.9", 0, 0.999999, false, NULL, "decay of the first moment"},
    {"train.adam_beta2", OPTION_REAL, FIELD(adam_beta2), "0.999", 0, 0.999999, false, NULL,
     "decay of the second moment"},
    {"train.adam_epsilon", OPTION_REAL, FIELD(adam_epsilon), "1e-08", 0, 1, true, NULL, "added to the root"},
    {"train.max_grad_norm", OPTION_REAL, FIELD(max_grad_norm), "0", 0, 1e9, false, NULL, "0: no clipping"},
    {"train.divergence_factor", OPTION_REAL, FIELD(divergence_factor), "0", 0, 1e9, false, NULL,
     "end with 80 when the mean loss of the last steps is above so many times its lowest value so far; 0: never"},
    {"train.divergence_window", OPTION_INTEGER, FIELD(divergence_window), "100", 1, LARGE, false, NULL,
     "steps of that mean"},
    {"train.seed", OPTION_INTEGER, FIELD(seed), "2023", 0, LARGE, false, NULL,
     "of shuffling, dropout and random weights"},
    {"train.shuffle", OPTION_BOOLEAN, FIELD(shuffle), "true", 0, 0, false, NULL,
     "false: rows in the order of the training split"},
    {"train.precision", OPTION_CHOICE, FIELD(precision), "fp32", 0, 0, false, "fp32|tf32|bf16",
     "fp32 | tf32 (CUDA) | bf16 (fp32 master weights)"},
    {"train.determinism", OPTION_CHOICE, FIELD(determinism), "run", 0, 0, false, "off|run|elastic",
     "off | run (same ranks, same bits) | elastic (any ranks dividing virtual_shards, same bits)"},
    {"train.virtual_shards", OPTION_INTEGER, FIELD(virtual_shards), "8", 1, 1024, false, NULL,
     "of determinism: elastic"},
    {"evaluation.batch_size", OPTION_INTEGER, FIELD(evaluation_batch_size), "16", 1, 1 << 20, false, NULL,
     "validation figures are means of batch means"},
    {"evaluation.ranks", OPTION_CHOICE, FIELD(evaluation_ranks), "root", 0, 0, false, "root|all",
     "root: rank 0 alone | all"},
    {"evaluation.split", OPTION_CHOICE, FIELD(evaluation_split), "validation", 0, 0, false, "validation|dev",
     "the rows that are scored after each epoch"},
    {"run.dir", OPTION_TEXT, FIELD(run_dir), "runs/waimai", 0, 0, false, NULL, "where everything of the run goes"},
    {"run.device", OPTION_CHOICE, FIELD(device), "auto", 0, 0, false, "auto|cpu|cuda", "where to compute"},
    {"run.share_gpu", OPTION_BOOLEAN, FIELD(share_gpu), "false", 0, 0, false, NULL,
     "let ranks without a GPU of their own take turns on one, through host memory"},
    {"run.resume", OPTION_TEXT, FIELD(resume), "auto", 0, 0, false, NULL,
     "auto: go on from the newest valid checkpoint | never | a checkpoint directory"},
    {"run.max_time", OPTION_REAL, FIELD(max_time), "0", 0, LARGE, false, NULL, "seconds; 0: no limit"},
    {"run.step_timeout", OPTION_REAL, FIELD(step_timeout), "60", 0, LARGE, false, NULL,
     "seconds without progress of a rank before the run ends with 81; 0: no rank is watched"},
    {"run.profile", OPTION_BOOLEAN, FIELD(profile), "false", 0, 0, false, NULL, "time the phases of each step"},
    {"run.save_steps", OPTION_INTEGER, FIELD(save_steps), "0", 0, LARGE, false, NULL, "0: once an epoch"},
    {"run.save_total_limit", OPTION_INTEGER, FIELD(save_total_limit), "2", 1, 1e6, false, NULL,
     "checkpoints kept beside the best"},
};
const int config_option_count = sizeof config_options / sizeof config_options[0];

const Option *option_find(const char *key) {
    for (int i = 0; i < config_option_count; i++) {
        if (strcmp(config_options[i].key, key) == 0) { return &config_options[i]; }
    }
    return NULL;
}

static int smaller(int a, int b) { return a < b ? a : b; }

// Levenshtein's edit distance.
static int distance(const char *a, const char *b) {
    enum { LONGEST = 128 };
    int row[LONGEST + 1];
    const int columns = smaller((int)strlen(b), LONGEST);
    for (int j = 0; j <= columns; j++) { row[j] = j; }
    for (int i = 1; a[i - 1] && i <= LONGEST; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= columns; j++) {
            const int replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smaller(replaced, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[columns];
}

const char *option_nearest(const char *key) {
    const char *nearest = NULL, *name = strchr(key, '.');
    int best = 1 << 20;
    for (int i = 0; i < config_option_count; i++) {
        const char *known = config_options[i].key;
        // A right name in the wrong section is near, too.
        int d = distance(key, known), by_name = distance(name ? name + 1 : key, strchr(known, '.') + 1) + 1;
        if (smaller(d, by_name) < best) {
            best = smaller(d, by_name);
            nearest = known;
        }
    }
    return best <= 8 ? nearest : NULL;
}

static bool parse_number(const Option *option, const char *text, double *value, Error *error) {
    const bool whole = option->type == OPTION_INTEGER;
    if (!(whole ? number_parse_integer(text, value) : number_parse_real(text, value))) {
        return error_set(error, EX_CONFIG, "%s: expected %s, found `%s`", option->key,
                         whole ? "an integer" : "a number", text);
    }
    if (*value < option->least || (option->above_least && *value == option->least) || *value > option->most) {
        return error_set(error, EX_CONFIG, "%s: %s is out of range, expected %s %g%s%g", option->key, text,
                         option->above_least ? "more than" : "from", option->least,
                         option->above_least ? " and at most " : " to ", option->most);
    }
    return true;
}

static bool parse_choice(const Option *option, const char *text, int64_t *value, Error *error) {
    *value = 0;
    for (const char *choice = option->choices;; (*value)++) {
        const size_t length = strcspn(choice, "|");
        if (strlen(text) == length && strncmp(choice, text, length) == 0) { return true; }
        if (!choice[length]) { break; }
        choice += length + 1;
    }
    return error_set(error, EX_CONFIG, "%s: expected one of %s, found `%s`", option->key, option->choices, text);
}

// Whether text can stand in a line of the resolved file.
static bool printable(const char *text) {
    size_t bad;
    for (const char *c = text; *c; c++) {
        if (iscntrl((unsigned char)*c) && *c != '\t') { return false; }
    }
    return utf8_valid(text, strlen(text), &bad);
}

bool option_parse(Config *config, const Option *option, const char *text, Error *error) {
    void *field = (char *)config + option->offset;
    double number = -1;
    switch (option->type) {
        case OPTION_TEXT:
            if (!text[0] || strlen(text) >= CONFIG_TEXT_SIZE) {
                return error_set(error, EX_CONFIG, "%s: expected 1 to %d bytes of text", option->key,
                                 CONFIG_TEXT_SIZE - 1);
            }
            if (!printable(text)) {
                return error_set(error, EX_CONFIG, "%s: expected UTF-8 text without control characters", option->key);
            }
            strcpy(field, text);
            return true;
        case OPTION_CHOICE:
            return parse_choice(option, text, field, error);
        case OPTION_BOOLEAN:
            *(bool *)field = strcmp(text, "true") == 0;
            return *(bool *)field || strcmp(text, "false") == 0 ||
                   error_set(error, EX_CONFIG, "%s: expected true or false, found `%s`", option->key, text);
        case OPTION_INTEGER:
            if (!parse_number(option, text, &number, error)) { return false; }
            *(int64_t *)field = (int64_t)number;
            return true;
        case OPTION_REAL:
            return parse_number(option, text, field, error);
    }
    return false;
}

void option_format(const Config *config, const Option *option, char *text, size_t size) {
    const void *field = (const char *)config + option->offset;
    switch (option->type) {
        case OPTION_TEXT:
            snprintf(text, size, "%s", (const char *)field);
            break;
        case OPTION_BOOLEAN:
            snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
            break;
        case OPTION_INTEGER:
            snprintf(text, size, "%lld", (long long)*(const int64_t *)field);
            break;
        case OPTION_REAL:
            snprintf(text, size, "%s", number_format(*(const double *)field).text);
            break;
        case OPTION_CHOICE: {
            const char *choice = option->choices;
            for (int64_t i = *(const int64_t *)field; i > 0; i--) { choice += strcspn(choice, "|") + 1; }
            snprintf(text, size, "%.*s", (int)strcspn(choice, "|"), choice);
            break;
        }
    }
}
