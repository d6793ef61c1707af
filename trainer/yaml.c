// See yaml.h. The YAML library delivers events, so that nothing is built from hostile input before it is checked.
#include "trainer/yaml.h"

#include <libfyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "datasets/utf8.h"

enum { DEEPEST = 16, MOST_NODES = 1 << 14 };

typedef struct {
    const char *path;
    YamlNode *open[DEEPEST];    // lists and mappings around the place
    YamlNode **tails[DEEPEST];  // where their next entry goes
    char *keys[DEEPEST];        // of a mapping whose value is expected, else NULL
    int key_lines[DEEPEST];
    int depth, nodes, documents;
    YamlNode *root;
    char diagnostic[1024];
} Reader;

static const char *const kind_names[] = {"scalar", "list", "mapping"};

const char *yaml_kind_name(const YamlNode *node) { return kind_names[node->kind]; }

const YamlNode *yaml_find(const YamlNode *mapping, const char *key) {
    for (const YamlNode *node = mapping->first; node; node = node->next) {
        if (node->key && strcmp(node->key, key) == 0) { return node; }
    }
    return NULL;
}

void yaml_free(YamlNode *node) {
    while (node) {
        YamlNode *next = node->next;
        yaml_free(node->first);
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
}

static void keep_diagnostic(struct fy_diag *diagnostics, void *user, const char *text, size_t length) {
    (void)diagnostics;
    Reader *reader = user;
    if (!reader->diagnostic[0]) {
        snprintf(reader->diagnostic, sizeof reader->diagnostic, "%.*s", (int)(length < 900 ? length : 900), text);
        reader->diagnostic[strcspn(reader->diagnostic, "\n")] = 0;
    }
}

static bool wrong(const Reader *reader, int line, const char *what, Error *error) {
    return error_set(error, EX_CONFIG, "%s:%d: %s", reader->path, line, what);
}

// Hangs a node into the innermost open one.
static YamlNode *add(Reader *reader, YamlKind kind, int line, Error *error) {
    if (++reader->nodes > MOST_NODES) {
        wrong(reader, line, "too many values", error);
        return NULL;
    }
    YamlNode *node = check_calloc(1, sizeof *node);
    node->kind = kind;
    node->line = line;
    if (reader->depth == 0) {
        reader->root = node;
        return node;
    }
    const int top = reader->depth - 1;
    node->key = reader->keys[top];
    if (node->key) { node->line = reader->key_lines[top]; }
    reader->keys[top] = NULL;
    *reader->tails[top] = node;
    reader->tails[top] = &node->next;
    return node;
}

static bool take_key(Reader *reader, int line, const char *text, Error *error) {
    const int top = reader->depth - 1;
    if (yaml_find(reader->open[top], text)) {
        return error_set(error, EX_CONFIG, "%s:%d: `%.200s` stands twice", reader->path, line, text);
    }
    reader->keys[top] = check_strdup(text);
    reader->key_lines[top] = line;
    return true;
}

static bool key_expected(const Reader *reader) {
    const int top = reader->depth - 1;
    return reader->depth > 0 && reader->open[top]->kind == YAML_MAPPING && !reader->keys[top];
}

static bool take_scalar(Reader *reader, struct fy_event *event, int line, Error *error) {
    size_t length = 0;
    const char *bytes = event->scalar.value ? fy_token_get_text(event->scalar.value, &length) : "";
    char text[YAML_TEXT];
    if (!bytes || length >= sizeof text || memchr(bytes, 0, length)) {
        return error_set(error, EX_CONFIG, "%s:%d: longer than %d bytes", reader->path, line, YAML_TEXT - 1);
    }
    snprintf(text, sizeof text, "%.*s", (int)length, bytes);
    if (key_expected(reader)) { return take_key(reader, line, text, error); }
    YamlNode *node = add(reader, YAML_SCALAR, line, error);
    if (!node) { return false; }
    node->text = check_strdup(text);
    node->quoted = event->scalar.value && fy_token_scalar_style(event->scalar.value) != FYSS_PLAIN;
    return true;
}

static bool enter(Reader *reader, YamlKind kind, int line, Error *error) {
    if (key_expected(reader)) {
        return error_set(error, EX_CONFIG, "%s:%d: expected a name, found a %s", reader->path, line, kind_names[kind]);
    }
    if (reader->depth == DEEPEST) { return wrong(reader, line, "too deep", error); }
    YamlNode *node = add(reader, kind, line, error);
    if (!node) { return false; }
    reader->open[reader->depth] = node;
    reader->tails[reader->depth++] = &node->first;
    return true;
}

static bool marked(const struct fy_event *event) {
    return (event->type == FYET_SCALAR && (event->scalar.anchor || event->scalar.tag)) ||
           (event->type == FYET_MAPPING_START && (event->mapping_start.anchor || event->mapping_start.tag)) ||
           (event->type == FYET_SEQUENCE_START && (event->sequence_start.anchor || event->sequence_start.tag));
}

static bool take_event(Reader *reader, struct fy_event *event, Error *error) {
    const struct fy_mark *mark = fy_event_start_mark(event);
    const int line = mark ? mark->line + 1 : 1;
    if (marked(event)) { return wrong(reader, line, "anchors and tags are not allowed", error); }
    switch (event->type) {
        case FYET_DOCUMENT_START:
            return ++reader->documents == 1 || error_set(error, EX_CONFIG, "%s: more than one document", reader->path);
        case FYET_SCALAR:
            return take_scalar(reader, event, line, error);
        case FYET_MAPPING_START:
            return enter(reader, YAML_MAPPING, line, error);
        case FYET_SEQUENCE_START:
            return enter(reader, YAML_LIST, line, error);
        case FYET_MAPPING_END:
        case FYET_SEQUENCE_END:
            reader->depth--;
            return true;
        case FYET_ALIAS:
            return wrong(reader, line, "aliases are not allowed", error);
        default:
            return true;
    }
}

static bool read_events(Reader *reader, struct fy_parser *parser, Error *error) {
    bool ok = true;
    for (struct fy_event *event; ok && (event = fy_parser_parse(parser)); fy_parser_event_free(parser, event)) {
        ok = take_event(reader, event, error);
    }
    if (ok && fy_parser_get_stream_error(parser)) {
        ok = error_set(error, EX_CONFIG, "%s: not valid YAML: %s", reader->path, reader->diagnostic);
    }
    return ok;
}

static bool parse(Reader *reader, const char *text, size_t length, Error *error) {
    const struct fy_diag_cfg diagnostics = {.output_fn = keep_diagnostic,
                                            .user = reader,
                                            .level = FYET_ERROR,
                                            .module_mask = (1u << FYEM_MAX) - 1,
                                            .show_position = true};
    struct fy_diag *diagnostic = fy_diag_create(&diagnostics);
    const struct fy_parse_cfg config = {.flags = FYPCF_DEFAULT_PARSE, .diag = diagnostic};
    struct fy_parser *parser = fy_parser_create(&config);
    CHECK(parser && fy_parser_set_string(parser, text, length) == 0);
    const bool ok = read_events(reader, parser, error);
    fy_parser_destroy(parser);
    fy_diag_destroy(diagnostic);
    for (int i = 0; i < DEEPEST; i++) { free(reader->keys[i]); }
    return ok;
}

// The YAML library takes UTF-16 for an empty file and a NUL for the end; both would pass for a file of nothing.
static bool check_text(const char *path, const char *text, size_t length, Error *error) {
    size_t bad = strlen(text);
    if (utf8_valid(text, bad, &bad) && bad >= length) { return true; }
    int line = 1;
    for (size_t i = 0; i < bad; i++) { line += text[i] == '\n'; }
    return error_set(error, EX_CONFIG, "%s:%d: not UTF-8 text", path, line);
}

YamlNode *yaml_load(const char *path, Error *error) {
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, 1 << 20, error)) {
        if (error->code == EX_DATAERR) { error->code = EX_CONFIG; }
        return NULL;
    }
    Reader reader = {.path = path};
    const bool ok = check_text(path, text, length, error) && parse(&reader, text, length, error);
    free(text);
    if (!ok) {
        yaml_free(reader.root);
        return NULL;
    }
    // A document of nothing is as good as an empty file.
    YamlNode *root = reader.root;
    if (root && (root->kind != YAML_SCALAR || root->text[0] || root->quoted)) { return root; }
    yaml_free(root);
    root = check_calloc(1, sizeof *root);
    root->kind = YAML_MAPPING;
    root->line = 1;
    return root;
}
