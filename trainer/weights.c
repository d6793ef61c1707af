// See weights.h. Drawing random weights is in weights_random.c.
#include "trainer/weights.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/safetensors.h"

// One of the three embedding tables: the full one and the part of it that is trained.
typedef struct {
    float *full;
    int64_t rows;           // of the full table
    const int32_t *active;  // row of the full table of each trained row; NULL: the first ones
    int64_t active_count;
    size_t offset;  // of the trained rows in the flat buffer
} Table;

enum { TABLES = 3 };

static void tables_of(Table tables[TABLES], const Weights *weights, const Bert *bert, const ModelConfig *config) {
    tables[0] = (Table){weights->word, config->vocab_size, weights->active, bert->V, bert->word};
    tables[1] = (Table){weights->position, config->max_positions, NULL, bert->P, bert->position};
    tables[2] = (Table){weights->type, config->type_vocab_size, NULL, 1, bert->type};
}

// The full row that trained row i is.
static size_t full_row(const Table *table, int64_t i) { return (size_t)(table->active ? table->active[i] : i); }

// Copies trained rows from the full tables into the flat buffer, or back.
static void copy_rows(const Weights *weights, const Bert *bert, const ModelConfig *config, bool to_tables) {
    Table tables[TABLES];
    tables_of(tables, weights, bert, config);
    const size_t H = (size_t)bert->H;
    for (int t = 0; t < TABLES; t++) {
        for (int64_t i = 0; i < tables[t].active_count; i++) {
            float *flat = weights->parameters + tables[t].offset + (size_t)i * H;
            float *full = tables[t].full + full_row(&tables[t], i) * H;
            memcpy(to_tables ? full : flat, to_tables ? flat : full, H * sizeof(float));
        }
    }
}

void weights_take_rows(Weights *weights, const Bert *bert, const ModelConfig *config) {
    copy_rows(weights, bert, config, false);
}

void weights_init(Weights *weights, const Bert *bert, const ModelConfig *config, const int32_t *active) {
    const size_t H = (size_t)bert->H;
    *weights = (Weights){.active = active,
                         .parameters = check_calloc(bert->layout.total, sizeof(float)),
                         .word = check_calloc((size_t)config->vocab_size * H, sizeof(float)),
                         .position = check_calloc((size_t)config->max_positions * H, sizeof(float)),
                         .type = check_calloc((size_t)config->type_vocab_size * H, sizeof(float))};
}

void weights_free(Weights *weights) {
    free(weights->parameters);
    free(weights->word);
    free(weights->position);
    free(weights->type);
    *weights = (Weights){0};
}

// Where the tensor's values go and the shape the file must have: a full table for the embeddings.
typedef struct {
    float *to;
    int64_t rows, columns;
} Place;

static Place place_of(const Weights *weights, const Bert *bert, const ModelConfig *config, const Tensor *tensor) {
    Table tables[TABLES];
    tables_of(tables, weights, bert, config);
    for (int t = 0; t < TABLES; t++) {
        if (tensor->offset == tables[t].offset) { return (Place){tables[t].full, tables[t].rows, tensor->columns}; }
    }
    return (Place){weights->parameters + tensor->offset, tensor->rows, tensor->columns};
}

// Replaces the end `from` of name by `to` in out, or returns false when name ends otherwise.
static bool swap_end(char *out, size_t size, const char *name, const char *from, const char *to) {
    const size_t length = strlen(name), tail = strlen(from);
    if (length < tail || strcmp(name + length - tail, from) != 0) { return false; }
    snprintf(out, size, "%.*s%s", (int)(length - tail), name, to);
    return true;
}

static const SafeTensor *find_tensor(const SafeTensors *file, const char *name) {
    char old[160];
    bool renamed = swap_end(old, sizeof old, name, "LayerNorm.weight", "LayerNorm.gamma") ||
                   swap_end(old, sizeof old, name, "LayerNorm.bias", "LayerNorm.beta");
    const char *names[2] = {name, renamed ? old : name};
    for (int i = 0; i < 2; i++) {
        const SafeTensor *tensor = safetensors_find(file, names[i]);
        if (!tensor && strncmp(names[i], "bert.", 5) == 0) { tensor = safetensors_find(file, names[i] + 5); }
        if (tensor) { return tensor; }
    }
    return NULL;
}

static bool shape_fits(const SafeTensor *found, Place place) {
    return found->dimensions == (place.columns ? 2 : 1) && found->shape[0] == place.rows &&
           (!place.columns || found->shape[1] == place.columns);
}

static bool load_tensor(const SafeTensors *file, const SafeTensor *found, Place place, const char *name, Error *error) {
    if (found->dtype == DTYPE_OTHER) {
        return error_set(error, EX_DATAERR, "%s: tensor `%s`: not of a floating-point type", file->path, name);
    }
    if (!shape_fits(found, place)) {
        char shape[96] = "";
        for (int d = 0; d < found->dimensions; d++) {
            const size_t used = strlen(shape);
            snprintf(shape + used, sizeof shape - used, "%s%lld", d ? ", " : "", (long long)found->shape[d]);
        }
        char expected[64];
        snprintf(expected, sizeof expected, place.columns ? "%lld, %lld" : "%lld", (long long)place.rows,
                 (long long)place.columns);
        return error_set(error, EX_DATAERR, "%s: tensor `%s` has shape (%s), config.json says (%s)", file->path, name,
                         shape, expected);
    }
    safetensors_read(found, place.to, 0, found->elements);
    return true;
}

static bool load_all(Weights *weights, const Bert *bert, const ModelConfig *config, const SafeTensors *file,
                     char *fresh, size_t size, Error *error) {
    for (int i = 0; i < bert->layout.count; i++) {
        const Tensor *tensor = &bert->layout.tensors[i];
        const SafeTensor *found = find_tensor(file, tensor->name);
        const bool head =
            strncmp(tensor->name, "bert.pooler.", 12) == 0 || strncmp(tensor->name, "classifier.", 11) == 0;
        if (!found && !head) {
            return error_set(error, EX_DATAERR, "%s: tensor `%s` is missing", file->path, tensor->name);
        }
        if (!found) {
            const size_t used = strlen(fresh);
            snprintf(fresh + used, size - used, "%s%s", used ? ", " : "", tensor->name);
        } else if (!load_tensor(file, found, place_of(weights, bert, config, tensor), tensor->name, error)) {
            return false;
        }
    }
    return true;
}

static bool missing_file(const char *directory, const char *path, Error *error) {
    char other[PATH_MAX];
    path_join(other, sizeof other, directory, "pytorch_model.bin");
    if (access(other, F_OK) == 0) {
        return error_set(error, EX_DATAERR,
                         "%s: only pytorch_model.bin is there, a pickle, which bertune never reads. Convert it once:\n"
                         "  python3 -c \"from transformers import AutoModelForSequenceClassification as M; "
                         "M.from_pretrained('%s').save_pretrained('%s')\"",
                         directory, directory, directory);
    }
    return error_set(error, EX_NOINPUT, "%s: no such file", path);
}

bool weights_load(Weights *weights, const Bert *bert, const ModelConfig *config, const char *directory, uint64_t seed,
                  char *fresh, size_t size, Error *error) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "model.safetensors");
    if (access(path, F_OK) != 0) { return missing_file(directory, path, error); }
    SafeTensors file;
    if (!safetensors_open(&file, path, error)) { return false; }
    weights_randomize(weights, bert, config, seed);
    fresh[0] = 0;
    const bool ok = load_all(weights, bert, config, &file, fresh, size, error);
    safetensors_close(&file);
    if (ok) { weights_take_rows(weights, bert, config); }
    return ok;
}

void weights_decay_tables(Weights *weights, const Bert *bert, const ModelConfig *config, const float *factors,
                          int64_t count) {
    Table tables[TABLES];
    tables_of(tables, weights, bert, config);
    enum { BLOCK = 512 };  // elements that stay in the first cache through all steps
    for (int t = 0; t < TABLES; t++) {
        const size_t elements = (size_t)tables[t].rows * (size_t)bert->H;
        for (size_t at = 0; at < elements; at += BLOCK) {
            const size_t end = at + BLOCK < elements ? at + BLOCK : elements;
            for (int64_t step = 0; step < count; step++) {
                const float factor = factors[step];
                for (size_t i = at; i < end; i++) { tables[t].full[i] *= factor; }
            }
        }
    }
}

bool weights_save(const Weights *weights, const Bert *bert, const ModelConfig *config, const char *directory,
                  FileHash *hash, Error *error) {
    char path[PATH_MAX];
    path_join(path, sizeof path, directory, "model.safetensors");
    copy_rows(weights, bert, config, true);
    const Layout *layout = &bert->layout;
    TensorView *views = check_calloc((size_t)layout->count, sizeof *views);
    for (int i = 0; i < layout->count; i++) {
        const Place place = place_of(weights, bert, config, &layout->tensors[i]);
        views[i] = (TensorView){layout->tensors[i].name, place.rows, place.columns, place.to};
    }
    const bool ok = safetensors_write(path, views, layout->count, hash, error);
    free(views);
    return ok;
}
