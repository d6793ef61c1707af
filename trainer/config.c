// Reading the configuration from YAML, the environment and the command line; see config.h.
#include "trainer/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/config_options.h"
#include "trainer/number.h"
#include "trainer/yaml.h"

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

static bool known_section(const char *name) {
    const size_t length = strlen(name);
    for (int i = 0; i < config_option_count; i++) {
        if (strncmp(config_options[i].key, name, length) == 0 && config_options[i].key[length] == '.') { return true; }
    }
    return false;
}

static bool take_value(Config *config, const char *path, const YamlNode *section, const YamlNode *node, Error *error) {
    char place[CONFIG_TEXT_SIZE + 32], key[2 * YAML_TEXT];
    snprintf(place, sizeof place, "%s:%d", path, node->line);
    snprintf(key, sizeof key, "%s.%s", section->key, node->key);
    const Option *option = option_find(key);
    if (!option) { return unknown_key(place, key, error); }
    if (node->kind != YAML_SCALAR) {
        return error_set(error, EX_CONFIG, "%s: expected a value, found a %s", place, yaml_kind_name(node));
    }
    if (node->quoted && option->type != OPTION_TEXT) {
        return error_set(error, EX_CONFIG, "%s: %s: `%s` is a text, write it without quotes", place, key, node->text);
    }
    return assign(config, place, key, node->text, error);
}

static bool take_section(Config *config, const char *path, const YamlNode *section, Error *error) {
    char place[CONFIG_TEXT_SIZE + 32];
    snprintf(place, sizeof place, "%s:%d", path, section->line);
    if (!known_section(section->key)) { return unknown_key(place, section->key, error); }
    if (section->kind == YAML_LIST) { return error_set(error, EX_CONFIG, "%s: expected a value, found a list", place); }
    // A section whose keys are all commented out is an empty scalar.
    if (section->kind == YAML_SCALAR && (section->text[0] || section->quoted)) {
        return error_set(error, EX_CONFIG, "%s: section `%s`: expected `key: value` lines", place, section->key);
    }
    for (const YamlNode *node = section->first; node; node = node->next) {
        if (!take_value(config, path, section, node, error)) { return false; }
    }
    return true;
}

static bool read_file(Config *config, const char *path, Error *error) {
    YamlNode *root = yaml_load(path, error);
    if (!root) { return false; }
    bool ok = true;
    if (root->kind == YAML_LIST) {
        ok = error_set(error, EX_CONFIG, "%s:%d: expected a value, found a list", path, root->line);
    } else if (root->kind == YAML_SCALAR) {
        ok = error_set(error, EX_CONFIG, "%s:%d: expected `section:` lines", path, root->line);
    }
    for (const YamlNode *section = root->first; ok && section; section = section->next) {
        ok = take_section(config, path, section, error);
    }
    yaml_free(root);
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

// Begins a section where the option is the first of one; gives the option's name in it.
static const char *put_section(FILE *out, int index) {
    const char *key = config_options[index].key, *name = strchr(key, '.') + 1;
    const size_t width = (size_t)(name - key);
    if (index == 0 || strncmp(config_options[index - 1].key, key, width) != 0) {
        fprintf(out, "%.*s:\n", (int)width - 1, key);
    }
    return name;
}

static void put_value(FILE *out, const Option *option, const char *value) {
    if (option->type == OPTION_TEXT) {
        put_text(out, value);
    } else {
        fputs(value, out);
    }
    fputc('\n', out);
}

char *config_to_yaml(const Config *config) {
    char *yaml = NULL, value[CONFIG_TEXT_SIZE];
    size_t length = 0;
    FILE *out = open_memstream(&yaml, &length);
    CHECK(out);
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        const char *name = put_section(out, i);
        option_format(config, option, value, sizeof value);
        if (!option->fallback[0] && value[0] == '-') { continue; }
        fprintf(out, "  %s: ", name);
        put_value(out, option, value);
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

void config_print_defaults(FILE *out) {
    fputs("# Every key with its default; made by `bertune train --print-defaults`.\n", out);
    for (int i = 0; i < config_option_count; i++) {
        const Option *option = &config_options[i];
        const char *name = put_section(out, i);
        fprintf(out, "  # %s", option->help);
        if (option->choices) { fprintf(out, " (%s)", option->choices); }
        fprintf(out, "\n  %s%s:%s", option->fallback[0] ? "" : "# ", name, option->fallback[0] ? " " : "");
        put_value(out, option, option->fallback);
    }
}
