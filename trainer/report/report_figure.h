// Pictures drawn by gnuplot and made fit to stand in a page. No text ever reaches gnuplot: it is given a token as wide
// as the text, which the text replaces afterwards.
#ifndef BERTUNE_REPORT_FIGURE_H
#define BERTUNE_REPORT_FIGURE_H

#include <stdio.h>

#include "kernels/check.h"

enum { FIGURE_TOKEN = 64, FIGURE_COLUMNS = 28 };

typedef struct {
    char *english, *chinese;
} FigureText;

typedef struct {
    FILE *script;  // commands and data for gnuplot: numbers and tokens only
    char *bytes;
    size_t length;
    int width, height;
    FigureText *texts;
    size_t text_count;
} Figure;

// Begins a picture of a size in pixels, with the common look.
void figure_begin(Figure *figure, int width, int height);

// A token for a text from anywhere, which is cut to FIGURE_COLUMNS; chinese may be NULL: the same in both languages.
typedef struct {
    char text[FIGURE_TOKEN];
} Token;
Token figure_token(Figure *figure, const char *english, const char *chinese);

// Draws it and writes <svg>...</svg>, which has no ids, links, scripts or sizes of its own. The label is what a screen
// reader says. EX_UNAVAILABLE where gnuplot is missing or fails. Releases the picture in any case.
bool figure_end(Figure *figure, FILE *out, const char *label, Error *error);

// Runs gnuplot on a script; *svg is what it printed (release with free). EX_UNAVAILABLE, with the remedy.
bool gnuplot_run(const char *script, size_t length, char **svg, Error *error);

// Writes the picture with what is allowed in it, tokens replaced. EX_UNAVAILABLE where it holds something else.
bool svg_clean(FILE *out, const char *svg, const Figure *figure, const char *label, Error *error);

#endif
