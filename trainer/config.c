// Reading the configuration from YAML, the environment and the command line; see config.h. The YAML library delivers
// events, so that nothing is built from hostile input before it is checked.
#include "trainer/config.h"

#include <ctype.h>
#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "datasets/utf8.h"
#include "trainer/config_options.h"
#include "trainer/number.h"

extern char **environ;

static bool unknown_key(const char *place, const char *key, Error *error) {
    const char *nearest = option_nearest(key);
    return error_set(error, EX_CONFIG, "%s: unknown key `%.200s`%s%s%s", place, key, nearest ? "; did you mean `" : "",
                     nearest ? nearest : "", nearest ? "`?" : "");
}

// Parses text for key and names the place in the message.
static bool assign(Config *config, const char *place, const char *key, const char *text, Error *error) {
    const Option *option = option_find(key);
    if (!option) { return unknown_key(place, key, error); }
    Error cause;
    return option_parse(config, option, text, &cause) || error_set(error, cause.code, "%s: %s", place, cause.text);
}

// Where the event loop stands in a file: section -> key -> value.
typedef struct {
    Config *config;
    const char *path;
    int depth;  // mappings that are open
    char section[64];
    char key[256];  // section.name, empty while a name is expected
    bool *seen;     // (config_option_count)
    char sections_seen[16][64];
    int section_count;
    char diagnostic[1024];
} Reader;

static void keep_diagnostic(struct fy_diag *diagnostics, void *user, const char *text, size_t length) {
    (void)diagnostics;
    Reader *reader = user;
    if (!reader->diagnostic[0]) {
        snprintf(reader->diagnostic, sizeof reader->diagnostic, "%.*s", (int)(length < 900 ? length : 900), text);
        reader->diagnostic[strcspn(reader->diagnostic, "\n")] = 0;
    }
}

static bool known_section(const char *name) {
    const size_t length = strlen(name);
    for (int i = 0; i < config_option_count; i++) {
        if (strncmp(config_options[i].key, name, length) == 0 && config_options[i].key[length] == '.') { return true; }
    }
    return false;
}

static bool take_section(Reader *reader, const char *place, const char *name, Error *error) {
    if (!known_section(name)) { return unknown_key(place, name, error); }
    for (int i = 0; i < reader->section_count; i++) {
        if (strcmp(reader->sections_seen[i], name) == 0) {
            return error_set(error, EX_CONFIG, "%s: section `%s` stands twice", place, name);
        }
    }
    snprintf(reader->sections_seen[reader->section_count++], sizeof reader->sections_seen[0], "%s", name);
    snprintf(reader->section, sizeof reader->section, "%s", name);
    return true;
}

static bool take_key(Reader *reader, const char *place, const char *name, Error *error) {
    snprintf(reader->key, sizeof reader->key, "%s.%s", reader->section, name);
    const Option *option = option_find(reader->key);
    if (!option) { return unknown_key(place, reader->key, error); }
    bool *seen = &reader->seen[option - config_options];
    if (*seen) { return error_set(error, EX_CONFIG, "%s: key `%s` stands twice", place, reader->key); }
    *seen = true;
    return true;
}

static bool take_scalar(Reader *reader, const char *place, const char *text, bool quoted, Error *error) {
    if (reader->depth == 0) {  // a document of nothing is as good as an empty file
        return (!text[0] && !quoted) || error_set(error, EX_CONFIG, "%s: expected `section:` lines", place);
    }
    if (reader->depth == 1) {
        if (!reader->section[0]) { return take_section(reader, place, text, error); }
        if (!text[0] && !quoted) {  // a section whose keys are all commented out
            reader->section[0] = 0;
            return true;
        }
        return error_set(error, EX_CONFIG, "%s: section `%s`: expected `key: value` lines", place, reader->section);
    }
    if (!reader->key[0]) { return take_key(reader, place, text, error); }
    if (quoted && option_find(reader->key)->type != OPTION_TEXT) {
        return error_set(error, EX_CONFIG, "%s: %s: `%s` is a text, write it without quotes", place, reader->key, text);
    }
    const bool ok = assign(reader->config, place, reader->key, text, error);
    reader->key[0] = 0;
    return ok;
}

static bool take_mapping(Reader *reader, const char *place, Error *error) {
    reader->depth++;
    if (reader->depth == 1 || (reader->depth == 2 && reader->section[0])) { return true; }
    return error_set(error, EX_CONFIG, "%s: expected a value, found a mapping", place);
}

static bool take_event(Reader *reader, struct fy_event *event, Error *error) {
    char place[CONFIG_TEXT_SIZE + 32];
    const struct fy_mark *mark = fy_event_start_mark(event);
    snprintf(place, sizeof place, "%s:%d", reader->path, mark ? mark->line + 1 : 1);
    switch (event->type) {
        case FYET_SCALAR: {
            if (event->scalar.anchor || event->scalar.tag) {
                return error_set(error, EX_CONFIG, "%s: anchors and tags are not allowed", place);
            }
            size_t length = 0;
            const char *bytes = event->scalar.value ? fy_token_get_text(event->scalar.value, &length) : "";
            char text[CONFIG_TEXT_SIZE];
            if (!bytes || length >= sizeof text || memchr(bytes, 0, length)) {
                return error_set(error, EX_CONFIG, "%s: longer than %d bytes", place, CONFIG_TEXT_SIZE - 1);
            }
            snprintf(text, sizeof text, "%.*s", (int)length, bytes);
            return take_scalar(reader, place, text, fy_token_scalar_style(event->scalar.value) != FYSS_PLAIN, error);
        }
        case FYET_MAPPING_START:
            if (event->mapping_start.anchor || event->mapping_start.tag) {
                return error_set(error, EX_CONFIG, "%s: anchors and tags are not allowed", place);
            }
            return take_mapping(reader, place, error);
        case FYET_MAPPING_END:
            reader->depth--;
            reader->section[0] = 0;
            return true;
        case FYET_SEQUENCE_START:
            return error_set(error, EX_CONFIG, "%s: expected a value, found a list", place);
        case FYET_ALIAS:
            return error_set(error, EX_CONFIG, "%s: aliases are not allowed", place);
        default:
            return true;
    }
}

static bool read_events(Reader *reader, struct fy_parser *parser, Error *error) {
    bool ok = true;
    int documents = 0;
    for (struct fy_event *event; ok && (event = fy_parser_parse(parser)); fy_parser_event_free(parser, event)) {
        if (event->type == FYET_DOCUMENT_START && ++documents > 1) {
            ok = error_set(error, EX_CONFIG, "%s: more than one document", reader->path);
        } else {
            ok = take_event(reader, event, error);
        }
    }
    if (ok && fy_parser_get_stream_error(parser)) {
        ok = error_set(error, EX_CONFIG, "%s: not valid YAML: %s", reader->path, reader->diagnostic);
    }
    return ok;
}

static bool read_file(Config *config, const char *path, Error *error) {
    char *text;
    size_t length;
    if (!file_read(&text, &length, path, 1 << 20, error)) {
        if (error->code == EX_DATAERR) { error->code = EX_CONFIG; }
        return false;
    }
    // The YAML library takes UTF-16 for an empty file and a NUL for the end; both would be trained with defaults.
    size_t bad = strlen(text);
    if (!utf8_valid(text, bad, &bad) || bad < length) {
        int line = 1;
        for (size_t i = 0; i < bad; i++) { line += text[i] == '\n'; }
        free(text);
        return error_set(error, EX_CONFIG, "%s:%d: not UTF-8 text", path, line);
    }
    Reader reader = {.config = config, .path = path, .seen = check_calloc((size_t)config_option_count, sizeof(bool))};
    const struct fy_diag_cfg diagnostics = {.output_fn = keep_diagnostic,
                                            .user = &reader,
                                            .level = FYET_ERROR,
                                            .module_mask = (1u << FYEM_MAX) - 1,
                                            .show_position = true};
    struct fy_diag *diagnostic = fy_diag_create(&diagnostics);
    const struct fy_parse_cfg parse = {.flags = FYPCF_DEFAULT_PARSE, .diag = diagnostic};
    struct fy_parser *parser = fy_parser_create(&parse);
    CHECK(parser && fy_parser_set_string(parser, text, length) == 0);
    const bool ok = read_events(&reader, parser, error);
    fy_parser_destroy(parser);
    fy_diag_destroy(diagnostic);
    free(reader.seen);
    free(text);
    return ok;
}

// BERTUNE_TRAIN_LEARNING_RATE is train.learning_rate. Variables of other shapes are not ours.
static bool read_environment(Config *config, Error *error) {
    for (char **variable = environ; *variable; variable++) {
        const char *equals = strchr(*variable, '=');
        if (strncmp(*variable, "BERTUNE_", 8) != 0 || !equals || equals - *variable > 100) { continue; }
        char name[128], key[128], section[64];
        snprintf(name, sizeof name, "%.*s", (int)(equals - *variable), *variable);
        const char *rest = name + 8, *underscore = strchr(rest, '_');
        if (!underscore || underscore - rest > 60) { continue; }
        snprintf(section, sizeof section, "%.*s", (int)(underscore - rest), rest);
        snprintf(key, sizeof key, "%s.%s", section, underscore + 1);
        for (char *c = key; *c; c++) { *c = (char)tolower((unsigned char)*c); }
        for (char *c = section; *c; c++) { *c = (char)tolower((unsigned char)*c); }
        if (known_section(section) && !assign(config, name, key, equals + 1, error)) { return false; }
    }
    return true;
}

static bool read_override(Config *config, const char *argument, Error *error) {
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument || equals - argument >= 200) {
        return error_set(error, EX_USAGE, "argument `%s`: expected KEY=VALUE", argument);
    }
    char key[200];
    snprintf(key, sizeof key, "%.*s", (int)(equals - argument), argument);
    return assign(config, "command line", key, equals + 1, error);
}

bool config_read(Config *config, const char *path, Error *error) {
    memset(config, 0, sizeof *config);
    config->hidden_dropout_prob = config->attention_probs_dropout_prob = -1;
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        if (option->fallback[0]) { CHECK(option_parse(config, option, option->fallback, error)); }
    }
    return read_file(config, path, error);
}

bool config_load(Config *config, const char *path, char *const *overrides, int count, Error *error) {
    if (!config_read(config, path, error) || !read_environment(config, error)) { return false; }
    for (int i = 0; i < count; i++) {
        if (!read_override(config, overrides[i], error)) { return false; }
    }
    return true;
}

// Quotes a text for YAML where it is not plain.
static void put_text(FILE *out, const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    if (text[strspn(text, plain)] == 0 && isalpha((unsigned char)text[0])) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text; text++) { fprintf(out, "%s%c", *text == '\'' ? "'" : "", *text); }
    fputc('\'', out);
}

char *config_to_yaml(const Config *config) {
    char *yaml = NULL, value[CONFIG_TEXT_SIZE];
    size_t length = 0;
    FILE *out = open_memstream(&yaml, &length);
    CHECK(out);
    const char *section = "";
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        const char *name = strchr(option->key, '.') + 1;
        const size_t width = (size_t)(name - option->key);
        if (strncmp(section, option->key, width) != 0) { fprintf(out, "%.*s:\n", (int)width - 1, option->key); }
        section = option->key;
        option_format(config, option, value, sizeof value);
        if (!option->fallback[0] && value[0] == '-') { continue; }
        fprintf(out, "  %s: ", name);
        if (option->type == OPTION_TEXT) {
            put_text(out, value);
        } else {
            fputs(value, out);
        }
        fputc('\n', out);
    }
    CHECK(fclose(out) == 0);
    return yaml;
}

void config_print_help(FILE *out) {
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        fprintf(out, "  %-36s %s%s%s%s\n", option->key, option->help, option->fallback[0] ? " [" : "", option->fallback,
                option->fallback[0] ? "]" : "");
    }
}
