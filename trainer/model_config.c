// See model_config.h.
#include "trainer/model_config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"

typedef struct {
    const json_t *json;
    const char *path;
    Error *error;
    bool ok;
} Reader;

static void reject(Reader *reader, const char *key, const char *expected) {
    if (reader->ok) { error_set(reader->error, EX_DATAERR, "%s: `%s`: expected %s", reader->path, key, expected); }
    reader->ok = false;
}

static int32_t get_integer(Reader *reader, const char *key, int32_t fallback, int32_t least, int32_t most) {
    const json_t *value = json_object_get(reader->json, key);
    if ((!value || json_is_null(value)) && fallback >= least) { return fallback; }
    const json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    if (json_is_integer(value) && number >= least && number <= most) { return (int32_t)number; }
    char expected[64];
    snprintf(expected, sizeof expected, "an integer from %d to %d", least, most);
    reject(reader, key, expected);
    return least;
}

static float get_real(Reader *reader, const char *key, double fallback, double least, double most) {
    const json_t *value = json_object_get(reader->json, key);
    if (!value || json_is_null(value)) { return (float)fallback; }
    const double number = json_is_number(value) ? json_number_value(value) : least - 1;
    if (number >= least && number <= most) { return (float)number; }
    char expected[64];
    snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    reject(reader, key, expected);
    return 0;
}

static void need_text(Reader *reader, const char *key, const char *wanted, const char *expected) {
    const json_t *value = json_object_get(reader->json, key);
    if (!value || json_is_null(value)) { return; }
    if (!json_is_string(value) || strcmp(json_string_value(value), wanted) != 0) { reject(reader, key, expected); }
}

static void default_names(ModelConfig *config) {
    config->label_names = check_calloc((size_t)config->classes, sizeof *config->label_names);
    for (int32_t c = 0; c < config->classes; c++) {
        snprintf(config->label_names[c], sizeof config->label_names[c], "LABEL_%d", c);
    }
}

// The number of classes and their names from id2label, or from num_labels, or Hugging Face's default of two.
static void get_labels(Reader *reader, ModelConfig *config) {
    const json_t *names = json_object_get(reader->json, "id2label");
    if (names && !json_is_null(names) &&
        (!json_is_object(names) || json_object_size(names) < 1 || json_object_size(names) > DATASET_MAX_CLASSES)) {
        reject(reader, "id2label", "an object of label numbers and names");
        names = NULL;
    }
    const int32_t named = json_is_object(names) ? (int32_t)json_object_size(names) : 0;
    config->classes = get_integer(reader, "num_labels", named ? named : 2, 1, DATASET_MAX_CLASSES);
    config->classes_given = named || json_object_get(reader->json, "num_labels");
    if (named && named != config->classes) { reject(reader, "id2label", "as many names as num_labels"); }
    default_names(config);
    for (int32_t c = 0; named && reader->ok && c < config->classes; c++) {
        char number[16];
        snprintf(number, sizeof number, "%d", c);
        const json_t *name = json_object_get(names, number);
        if (!json_is_string(name) || json_string_length(name) >= DATASET_NAME_SIZE) {
            reject(reader, "id2label", "the keys \"0\", \"1\", ... with names below 64 bytes");
        } else {
            strcpy(config->label_names[c], json_string_value(name));
        }
    }
}

static void get_shape(Reader *reader, ModelConfig *config) {
    need_text(reader, "model_type", "bert", "\"bert\"");
    need_text(reader, "hidden_act", "gelu", "\"gelu\" (with the error function), the only one supported");
    need_text(reader, "position_embedding_type", "absolute", "\"absolute\", the only one supported");
    config->vocab_size = get_integer(reader, "vocab_size", 30522, 1, 1 << 24);
    config->hidden_size = get_integer(reader, "hidden_size", 768, 1, 1 << 16);
    config->layers = get_integer(reader, "num_hidden_layers", 12, 1, 1024);
    config->heads = get_integer(reader, "num_attention_heads", 12, 1, 1024);
    config->intermediate_size = get_integer(reader, "intermediate_size", 3072, 1, 1 << 18);
    config->max_positions = get_integer(reader, "max_position_embeddings", 512, 2, 1 << 16);
    config->type_vocab_size = get_integer(reader, "type_vocab_size", 2, 1, 1 << 10);
    config->pad_token_id = get_integer(reader, "pad_token_id", 0, 0, config->vocab_size - 1);
    config->layer_norm_epsilon = get_real(reader, "layer_norm_eps", 1e-12, 0, 1);
    config->initializer_range = get_real(reader, "initializer_range", 0.02, 0, 10);
    config->hidden_dropout = get_real(reader, "hidden_dropout_prob", 0.1, 0, 0.99);
    config->attention_dropout = get_real(reader, "attention_probs_dropout_prob", 0.1, 0, 0.99);
    config->classifier_dropout = get_real(reader, "classifier_dropout", -1, 0, 0.99);
    config->classifier_dropout_given = config->classifier_dropout >= 0;
    if (config->hidden_size % config->heads) { reject(reader, "hidden_size", "a multiple of num_attention_heads"); }
}

bool model_config_read(ModelConfig *config, const char *directory, Error *error) {
    memset(config, 0, sizeof *config);
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "config.json");
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, 4 << 20, error)) { return false; }
    json_error_t fault;
    config->json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &fault);
    free(text);
    if (!json_is_object(config->json)) {
        json_decref(config->json);
        config->json = NULL;
        return error_set(error, EX_DATAERR, "%s:%d: not a JSON object: %s", path, fault.line, fault.text);
    }
    Reader reader = {config->json, path, error, true};
    get_shape(&reader, config);
    get_labels(&reader, config);
    if (!reader.ok) { model_config_free(config); }
    return reader.ok;
}

void model_config_free(ModelConfig *config) {
    json_decref(config->json);
    free(config->label_names);
    memset(config, 0, sizeof *config);
}

void model_config_set_labels(ModelConfig *config, int32_t classes, const char (*names)[DATASET_NAME_SIZE]) {
    free(config->label_names);
    config->classes = classes;
    config->label_names = check_calloc((size_t)classes, sizeof *config->label_names);
    memcpy(config->label_names, names, (size_t)classes * sizeof *config->label_names);
}

char *model_config_to_json(const ModelConfig *config) {
    json_t *json = json_copy(config->json), *id2label = json_object(), *label2id = json_object();
    for (int32_t c = 0; c < config->classes; c++) {
        char number[16];
        snprintf(number, sizeof number, "%d", c);
        json_object_set_new(id2label, number, json_string(config->label_names[c]));
        json_object_set_new(label2id, config->label_names[c], json_integer(c));
    }
    json_object_set_new(json, "architectures", json_pack("[s]", "BertForSequenceClassification"));
    json_object_set_new(json, "model_type", json_string("bert"));
    json_object_set_new(json, "vocab_size", json_integer(config->vocab_size));
    json_object_set_new(json, "problem_type", json_string("single_label_classification"));
    json_object_set_new(json, "id2label", id2label);
    json_object_set_new(json, "label2id", label2id);
    json_object_set_new(json, "dtype", json_string("float32"));
    json_object_del(json, "torch_dtype");
    json_object_del(json, "num_labels");
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS);
    json_decref(json);
    CHECK(text);
    return text;
}
