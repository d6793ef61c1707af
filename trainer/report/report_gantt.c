// Which worker did which segment when. See report_pictures.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/report/report_figure.h"
#include "trainer/report/report_pictures.h"
#include "trainer/report/report_text.h"

enum { WIDTH = 760, ROW = 22, FRAME = 88, LETTER = 8 };

const char *const state_colours[STATES] = {"#009e73", "#56b4e9", "#56b4e9", "#8a94a0",
                                           "#8a94a0", "#8a94a0", "#e69f00", "#d55e00"};
const char winner_colour[] = "#cc79a7";

static unsigned colour_of(const Segment *segment) {
    const char *colour = segment->trial == WINNER ? winner_colour : state_colours[segment->state];
    return (unsigned)strtoul(colour + 1, NULL, 16);
}

static size_t row_of(const Worker *workers, size_t count, const char *worker) {
    size_t w = 0;
    while (w < count && strcmp(workers[w].worker, worker) != 0) { w++; }
    return w;
}

// What a picture of segments is made of.
typedef struct {
    const Group *group;
    const Worker *workers;
    size_t rows;
    double begin, end, unit;  // seconds; seconds of the axis' unit
    double pixels;            // of the axis
} Gantt;

static double place(const Gantt *gantt, double time) { return (time - gantt->begin) / gantt->unit; }

// Boxes of segments with a result, or of those without.
static size_t put_boxes(FILE *script, const Gantt *gantt, const char *name, bool ended) {
    size_t count = 0;
    fprintf(script, "$%s << EOD\n", name);
    for (size_t i = 0; i < gantt->group->segment_count; i++) {
        const Segment *segment = &gantt->group->segments[i];
        const size_t row = row_of(gantt->workers, gantt->rows, segment->worker);
        if (isnan(segment->begin) || isnan(segment->end) == ended || row == gantt->rows) { continue; }
        const double y = (double)(gantt->rows - row);
        const double end = group_segment_end(gantt->group, segment, gantt->end);
        fprintf(script, "%.10g %.10g %.10g %.10g %.10g %.10g %u\n", place(gantt, segment->begin), y,
                place(gantt, segment->begin), place(gantt, end), y - 0.38, y + 0.38, colour_of(segment));
        count++;
    }
    fputs("EOD\n", script);
    return count;
}

// Trial numbers where the boxes have room for them, dark on light and light on dark.
static size_t put_numbers(FILE *script, const Gantt *gantt) {
    size_t count = 0;
    fputs("$numbers << EOD\n", script);
    for (size_t i = 0; i < gantt->group->segment_count; i++) {
        const Segment *segment = &gantt->group->segments[i];
        const size_t row = row_of(gantt->workers, gantt->rows, segment->worker);
        if (isnan(segment->begin) || isnan(segment->end) || row == gantt->rows) { continue; }
        char text[24] = "W";
        if (segment->trial != WINNER) { snprintf(text, sizeof text, "%lld", (long long)segment->trial); }
        const double width = (segment->end - segment->begin) / (gantt->end - gantt->begin) * gantt->pixels;
        if (!(width > LETTER * (double)strlen(text) + 3)) { continue; }
        const bool dark = segment->state == STATE_FINISHED || segment->state == STATE_FAILED;
        fprintf(script, "%.10g %zu \"%s\" %u\n", place(gantt, (segment->begin + segment->end) / 2), gantt->rows - row,
                text, segment->trial != WINNER && dark ? 0xFFFFFFu : 0x010101u);
        count++;
    }
    fputs("EOD\n", script);
    return count;
}

static void put_axes(Figure *figure, Gantt *gantt) {
    const double span = gantt->end - gantt->begin;
    const char *english = "seconds", *chinese = "秒";
    int columns = 0;
    gantt->unit = 1;
    if (span >= 180) {
        gantt->unit = span < 180 * 60 ? 60 : 3600;
        english = span < 180 * 60 ? "minutes" : "hours";
        chinese = span < 180 * 60 ? "分钟" : "小时";
    }
    fprintf(figure->script, "set xlabel \"%s\"\nset xrange [0:%.10g]\nset yrange [0.4:%zu.6]\nunset grid\n",
            figure_token(figure, english, chinese).text, span / gantt->unit, gantt->rows);
    fputs("set grid xtics linetype 1 linewidth 0.4 linecolor rgb \"#8a94a0\"\nset ytics scale 0 (", figure->script);
    for (size_t w = 0; w < gantt->rows; w++) {
        const int wide = text_columns(gantt->workers[w].worker);
        columns = wide > columns ? wide : columns;
        fprintf(figure->script, "%s\"%s\" %zu", w ? ", " : "",
                figure_token(figure, gantt->workers[w].worker, NULL).text, gantt->rows - w);
    }
    fputs(")\n", figure->script);
    gantt->pixels = WIDTH - 40 - LETTER * (columns < FIGURE_COLUMNS ? columns : FIGURE_COLUMNS);
}

static bool draw(Gantt *gantt, FILE *out, const char *label, Error *error) {
    Figure figure;
    figure_begin(&figure, WIDTH, FRAME + ROW * (int)gantt->rows);
    put_axes(&figure, gantt);
    const size_t ended = put_boxes(figure.script, gantt, "ended", true);
    const size_t open = put_boxes(figure.script, gantt, "open", false);
    const size_t numbers = put_numbers(figure.script, gantt);
    const char *separator = "plot ";
    if (open) {
        fprintf(figure.script,
                "%s$open using 1:2:3:4:5:6 with boxxyerror fillstyle empty dashtype 2 "
                "linecolor rgb \"#8a94a0\"",
                separator);
        separator = ", ";
    }
    if (ended) {
        fprintf(figure.script,
                "%s$ended using 1:2:3:4:5:6:7 with boxxyerror fillstyle solid border "
                "linecolor rgb \"#f4f6f8\" linewidth 0.5 linecolor rgb variable",
                separator);
        separator = ", ";
    }
    if (numbers) {
        fprintf(figure.script, "%s$numbers using 1:2:3:4 with labels font \",11\" textcolor rgb variable", separator);
    }
    fputs("\n", figure.script);
    return figure_end(&figure, out, label, error);
}

bool picture_gantt(const Group *group, FILE *out, const char *label, Error *error) {
    Gantt gantt = {.group = group};
    double over;
    size_t count;
    Worker *workers = group_workers(group, &count, &gantt.begin, &gantt.end, &over);
    gantt.workers = workers;
    gantt.rows = count < DRAWN_WORKERS ? count : DRAWN_WORKERS;
    const bool ok = !count || !(gantt.end > gantt.begin) || draw(&gantt, out, label, error);
    free(workers);
    return ok;
}
