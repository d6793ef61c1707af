// What gnuplot drew, cleaned: svg_clean of report_figure.h. Only shapes, groups and texts pass, with a few attributes;
// identifiers, links, titles and groups without content are left out, and black becomes the colour of the page's text.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/report/report_figure.h"
#include "trainer/report/report_text.h"

enum { DEPTH = 64, TAG = 64 };

typedef struct {
    FILE *out;
    const Figure *figure;
    char *groups[DEPTH];  // start tags of open groups that nothing was written into yet, or NULL
    int depth;
    bool in_text;
    Error *error;
} Cleaner;

static bool one_of(const char *name, const char *const *names) {
    while (*names && strcmp(*names, name) != 0) { names++; }
    return *names != NULL;
}

static bool is_safe(const char *value, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)value[i]) && !strchr(" \t\r\n.,()#%+-", value[i])) { return false; }
    }
    return memmem(value, length, "url", 3) == NULL;
}

// Colours: black is left to the page, also as what points take from their group.
static void put_attribute(FILE *out, const char *name, const char *value, int length) {
    static const char black[] = "rgb(0,0,0)";
    char packed[64] = "";
    for (int i = 0, used = 0; i < length && used < 60; i++) {
        if (value[i] != ' ') { packed[used++] = value[i]; }
    }
    const bool is_black = strcmp(packed, "black") == 0 || strcmp(packed, black) == 0;
    const bool coloured = strncmp(packed, "rgb(", 4) == 0;
    if (strcmp(name, "color") == 0 && !coloured) { return; }
    if (is_black) {
        fprintf(out, " %s=\"currentColor\"", name);
    } else if (coloured) {
        fprintf(out, " %s=\"%s\"", name, packed);
    } else {
        fprintf(out, " %s=\"%.*s\"", name, length, value);
    }
}

// The attributes of a tag that are allowed; at stands behind the tag's name.
static void put_attributes(FILE *out, const char *at, const char *end) {
    static const char *const allowed[] = {
        "fill",        "stroke",    "stroke-width", "stroke-dasharray", "transform",      "points",          "d",
        "text-anchor", "font-size", "color",        "fill-opacity",     "stroke-opacity", "shape-rendering", NULL};
    while (at < end) {
        char name[TAG];
        at += strspn(at, " \t\r\n");
        const size_t width = strcspn(at, " \t\r\n=>");
        const char *quote = at + width + strspn(at + width, " =");
        if (!width || quote >= end || (*quote != '"' && *quote != '\'')) { return; }
        const char *close = strchr(quote + 1, *quote);
        if (!close || close > end) { return; }
        snprintf(name, sizeof name, "%.*s", (int)width, at);
        if (one_of(name, allowed) && is_safe(quote + 1, (size_t)(close - quote - 1))) {
            put_attribute(out, name, quote + 1, (int)(close - quote - 1));
        }
        at = close + 1;
    }
}

// Something comes: the groups around it are needed.
static void flush_groups(Cleaner *cleaner) {
    for (int i = 0; i < cleaner->depth; i++) {
        if (!cleaner->groups[i]) { continue; }
        fputs(cleaner->groups[i], cleaner->out);
        free(cleaner->groups[i]);
        cleaner->groups[i] = NULL;
    }
}

static bool open_group(Cleaner *cleaner, const char *at, const char *end) {
    size_t length = 0;
    if (cleaner->depth == DEPTH) { return error_set(cleaner->error, EX_UNAVAILABLE, "gnuplot's picture is too deep"); }
    char **group = &cleaner->groups[cleaner->depth++];
    FILE *tag = open_memstream(group, &length);
    CHECK(tag);
    fputs("<g", tag);
    put_attributes(tag, at, end);
    fputs(">", tag);
    CHECK(fclose(tag) == 0);
    return true;
}

static void close_group(Cleaner *cleaner) {
    if (cleaner->depth == 0) { return; }
    char **group = &cleaner->groups[--cleaner->depth];
    if (!*group) { fputs("</g>\n", cleaner->out); }
    free(*group);
    *group = NULL;
}

static void put_words(FILE *out, const char *language, const char *words) {
    fprintf(out, language ? "<tspan lang=\"%s\">" : "%s", language ? language : "");
    put_html_short(out, words, FIGURE_COLUMNS);
    if (language) { fputs("</tspan>", out); }
}

// The text that a token stands for, or a number of an axis.
static void put_text(Cleaner *cleaner, const char *text, size_t length) {
    char piece[256], *end;
    snprintf(piece, sizeof piece, "%.*s", (int)(length < 255 ? length : 255), text);
    const char *begin = piece + strspn(piece, " ");
    const size_t number = begin[0] == '@' ? strtoul(begin + 1, &end, 10) : 0;
    if (begin[0] != '@' || *end != '@' || number >= cleaner->figure->text_count) {
        put_html(cleaner->out, begin);
        return;
    }
    const FigureText *words = &cleaner->figure->texts[number];
    put_words(cleaner->out, words->chinese ? "en" : NULL, words->english);
    if (words->chinese) { put_words(cleaner->out, "zh", words->chinese); }
}

// A shape or the start or end of a text.
static void put_element(Cleaner *cleaner, const char *name, const char *at, const char *end) {
    flush_groups(cleaner);
    const bool point = strcmp(name, "use") == 0;  // gnuplot's filled circle, the only point that is drawn
    fprintf(cleaner->out, point ? "<circle r=\"1\" fill=\"currentColor\" stroke=\"none\"" : "<%s", name);
    put_attributes(cleaner->out, at, end);
    cleaner->in_text = strcmp(name, "text") == 0;
    fputs(cleaner->in_text ? ">" : "/>\n", cleaner->out);
}

static bool take_tag(Cleaner *cleaner, const char *name, const char *at, const char *end) {
    static const char *const shapes[] = {"path", "polygon", "circle", "use", "text", NULL};
    static const char *const passed_over[] = {"?xml", "svg", "/svg", "rect", "/tspan", "tspan", NULL};
    if (strcmp(name, "g") == 0) { return open_group(cleaner, at, end); }
    if (strcmp(name, "/g") == 0) {
        close_group(cleaner);
    } else if (strcmp(name, "/text") == 0) {
        fputs("</text>\n", cleaner->out);
        cleaner->in_text = false;
    } else if (one_of(name, shapes)) {
        put_element(cleaner, name, at, end);
    } else if (!one_of(name, passed_over)) {
        return error_set(cleaner->error, EX_UNAVAILABLE, "gnuplot's picture has an unknown element `%s`", name);
    }
    return true;
}

// Behind the end of an element that is left out with everything in it.
static const char *skip_element(const char *name, const char *at) {
    char end_tag[TAG + 4];
    snprintf(end_tag, sizeof end_tag, "</%s>", name);
    const char *end = strstr(at, end_tag);
    return end ? end + strlen(end_tag) : NULL;
}

static bool clean(Cleaner *cleaner, const char *svg) {
    static const char *const left_out[] = {"title", "desc", "defs", NULL};
    for (const char *at = strchr(svg, '<'), *next; at; at = next) {
        char name[TAG];
        const char *end = strchr(at, '>');
        if (!end) { return error_set(cleaner->error, EX_UNAVAILABLE, "gnuplot's picture is incomplete"); }
        const size_t width = strcspn(at + 1, " \t\r\n>");
        snprintf(name, sizeof name, "%.*s", (int)width, at + 1);
        next = end + 1;
        if (one_of(name, left_out)) {
            next = skip_element(name, at);
            if (!next) { return error_set(cleaner->error, EX_UNAVAILABLE, "gnuplot's picture is incomplete"); }
        } else if (!take_tag(cleaner, name, at + 1 + width, end)) {
            return false;
        }
        const char *text = next;
        next = strchr(next, '<');
        if (cleaner->in_text && next) { put_text(cleaner, text, (size_t)(next - text)); }
    }
    return strstr(svg, "</svg>") || error_set(cleaner->error, EX_UNAVAILABLE, "gnuplot's picture is incomplete");
}

bool svg_clean(FILE *out, const char *svg, const Figure *figure, const char *label, Error *error) {
    Cleaner cleaner = {.out = out, .figure = figure, .error = error};
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
            figure->width, figure->height);
    put_html(out, label);
    fputs("\">\n", out);
    const bool ok = clean(&cleaner, svg);
    while (cleaner.depth) { close_group(&cleaner); }
    fputs("</svg>\n", out);
    return ok;
}
