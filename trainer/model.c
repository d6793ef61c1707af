// See model.h.
#include "trainer/model.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "datasets/vocabulary.h"

static json_t *default_tokenizer_config(void) {
    return json_pack("{ss,sb,sb,sn,ss,ss,ss,ss,ss}", "tokenizer_class", "BertTokenizer", "do_lower_case", 1,
                     "tokenize_chinese_chars", 1, "strip_accents", "unk_token", "[UNK]", "sep_token", "[SEP]",
                     "pad_token", "[PAD]", "cls_token", "[CLS]", "mask_token", "[MASK]");
}

static bool read_vocabulary(Model *model, const char *directory, bool random, Error *error) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "vocab.txt");
    if (!file_read(&model->vocabulary, &model->vocabulary_length, path, 64 << 20, error)) { return false; }
    Vocabulary vocabulary;
    if (!vocabulary_parse(&vocabulary, path, model->vocabulary, model->vocabulary_length, error)) { return false; }
    const int32_t size = vocabulary.size;
    memcpy(model->vocabulary_sha256, vocabulary.sha256, sizeof model->vocabulary_sha256);
    vocabulary_free(&vocabulary);
    if (random) { model->config.vocab_size = size; }
    if (size <= model->config.vocab_size && model->config.pad_token_id < size) { return true; }
    return error_set(error, EX_DATAERR, "%s: %d tokens, but config.json says vocab_size %d and pad_token_id %d", path,
                     size, model->config.vocab_size, model->config.pad_token_id);
}

static bool read_tokenizer_config(Model *model, const char *directory, Error *error) {
    char path[PATH_MAX], *text;
    size_t length;
    path_join(path, sizeof path, directory, "tokenizer_config.json");
    if (access(path, F_OK) != 0) {
        model->tokenizer_config = default_tokenizer_config();
        return true;
    }
    if (!file_read(&text, &length, path, 1 << 20, error)) { return false; }
    json_error_t fault;
    model->tokenizer_config = json_loadb(text, length, JSON_REJECT_DUPLICATES, &fault);
    free(text);
    return json_is_object(model->tokenizer_config) ||
           error_set(error, EX_DATAERR, "%s:%d: not a JSON object: %s", path, fault.line, fault.text);
}

bool model_open(Model *model, const char *directory, bool random, Error *error) {
    memset(model, 0, sizeof *model);
    const bool ok = model_config_read(&model->config, directory, error) &&
                    read_vocabulary(model, directory, random, error) && read_tokenizer_config(model, directory, error);
    if (!ok) { model_close(model); }
    return ok;
}

void model_close(Model *model) {
    model_config_free(&model->config);
    free(model->vocabulary);
    json_decref(model->tokenizer_config);
    memset(model, 0, sizeof *model);
}

bool model_check_vocabulary(const Model *model, const char *directory, const DatasetInfo *info, const char *data,
                            Error *error) {
    return strcmp(model->vocabulary_sha256, info->vocabulary_sha256) == 0 ||
           error_set(error, EX_CONFIG,
                     "the model and the data set have different vocabularies: %s/vocab.txt has sha256 %s, %s was "
                     "prepared with %s",
                     directory, model->vocabulary_sha256, data, info->vocabulary_sha256);
}

int model_max_length(const Model *model) {
    const json_t *value = json_object_get(model->tokenizer_config, "model_max_length");
    const json_int_t length = json_is_integer(value) ? json_integer_value(value) : 0;
    return length >= 2 && length < model->config.max_positions ? (int)length : model->config.max_positions;
}

void model_set_max_length(Model *model, int max_length) {
    json_object_set_new(model->tokenizer_config, "model_max_length", json_integer(max_length));
}

bool model_write(const Model *model, const Weights *weights, const Bert *bert, const char *directory,
                 Manifest *manifest, Error *error) {
    char *config = model_config_to_json(&model->config);
    char *tokenizer = json_dumps(model->tokenizer_config, JSON_INDENT(2));
    CHECK(tokenizer);
    const bool written =
        manifest_write(manifest, directory, "config.json", config, strlen(config), error) &&
        manifest_write(manifest, directory, "vocab.txt", model->vocabulary, model->vocabulary_length, error) &&
        manifest_write(manifest, directory, "tokenizer_config.json", tokenizer, strlen(tokenizer), error);
    free(tokenizer);
    free(config);
    FileHash hash;
    if (!written || !weights_save(weights, bert, &model->config, directory, &hash, error)) { return false; }
    manifest_add(manifest, "model.safetensors", &hash);
    return true;
}
