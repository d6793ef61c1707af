// See report_figure.h.
#include "trainer/report/report_figure.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/report/report.h"
#include "trainer/report/report_text.h"

void figure_begin(Figure *figure, int width, int height) {
    *figure = (Figure){.width = width, .height = height};
    figure->script = open_memstream(&figure->bytes, &figure->length);
    CHECK(figure->script);
    fprintf(figure->script,
            "set terminal svg size %d,%d dynamic noenhanced font \"Helvetica,13\"\n"
            "unset key\n"
            "set border 3 linecolor rgb \"#8a94a0\"\n"
            "set tics nomirror out scale 0.5 textcolor rgb \"black\"\n"
            "set grid ytics linetype 1 linewidth 0.4 linecolor rgb \"#8a94a0\"\n",
            width, height);
}

Token figure_token(Figure *figure, const char *english, const char *chinese) {
    Token token;
    figure->texts = room_for(figure->texts, figure->text_count, sizeof *figure->texts);
    figure->texts[figure->text_count] = (FigureText){check_strdup(english), chinese ? check_strdup(chinese) : NULL};
    const int wide = text_columns(english), other = chinese ? text_columns(chinese) : 0;
    const int wanted = wide > other ? wide : other, columns = wanted < FIGURE_COLUMNS ? wanted : FIGURE_COLUMNS;
    const int used = snprintf(token.text, sizeof token.text, "@%zu@", figure->text_count++);
    for (int i = used; i < columns; i++) { strcat(token.text, "x"); }
    return token;
}

bool figure_end(Figure *figure, FILE *out, const char *label, Error *error) {
    char *svg = NULL;
    CHECK(fclose(figure->script) == 0);
    const bool ok =
        gnuplot_run(figure->bytes, figure->length, &svg, error) && svg_clean(out, svg, figure, label, error);
    for (size_t i = 0; i < figure->text_count; i++) {
        free(figure->texts[i].english);
        free(figure->texts[i].chinese);
    }
    free(figure->texts);
    free(figure->bytes);
    free(svg);
    return ok;
}
