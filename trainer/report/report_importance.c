// How much each parameter matters. See report_pictures.h.
#include <math.h>
#include <stdlib.h>

#include "trainer/report/report_figure.h"
#include "trainer/report/report_pictures.h"

enum { WIDTH = 560, FRAME = 76, ROW = 30 };

// A parameter and what it explains.
typedef struct {
    const char *name;
    Importance importance;
} Bar;

static int by_share(const void *a, const void *b) {
    const double left = ((const Bar *)a)->importance.share, right = ((const Bar *)b)->importance.share;
    if (isnan(left) || isnan(right)) { return isnan(left) - isnan(right); }
    return (left < right) - (left > right);
}

static Bar *bars_of(const Group *group, size_t *known) {
    const int64_t epoch = group_common_epoch(group);
    Bar *bars = check_calloc(group->parameter_count, sizeof *bars);
    *known = 0;
    for (size_t i = 0; i < group->parameter_count; i++) {
        bars[i] = (Bar){group_parameter_name(group, i), group_importance(group, i, epoch)};
        *known += !isnan(bars[i].importance.share);
    }
    qsort(bars, group->parameter_count, sizeof *bars, by_share);
    return bars;
}

static void put_bars(Figure *figure, const Bar *bars, size_t count) {
    fputs("set ytics scale 0 (", figure->script);
    for (size_t i = 0; i < count; i++) {
        fprintf(figure->script, "%s\"%s\" %zu", i ? ", " : "", figure_token(figure, bars[i].name, NULL).text,
                count - i);
    }
    fputs(")\n$bars << EOD\n", figure->script);
    for (size_t i = 0; i < count; i++) {
        const double y = (double)(count - i), share = 100 * bars[i].importance.share;
        const double chance = 100 * bars[i].importance.chance;
        fprintf(figure->script, "0 %.10g 0 %.10g %.10g %.10g \"%.0f %%\" %.10g %.10g\n", y, share, y - 0.3, y + 0.3,
                share, chance, fmax(share, chance) + 1.5);
    }
    fputs("EOD\n", figure->script);
}

bool picture_importance(const Group *group, FILE *out, const char *label, Error *error) {
    size_t count;
    Bar *bars = bars_of(group, &count);
    bool ok = true;
    if (count) {
        Figure figure;
        figure_begin(&figure, WIDTH, FRAME + ROW * (int)count);
        put_bars(&figure, bars, count);
        fprintf(figure.script,
                "set xrange [0:112]\nset xtics 0,20,100\nset yrange [0.4:%zu.6]\nunset grid\nset xlabel \"%s\"\n"
                "plot $bars using 1:2:3:4:5:6 with boxxyerror fillstyle solid noborder linecolor rgb \"#0072b2\", "
                "$bars using 9:2:7 with labels left, "
                "$bars using 8:($2-0.38):(0):(0.76) with vectors nohead linewidth 2 linecolor rgb \"#e69f00\"\n",
                count, figure_token(&figure, "% of the variance", "占方差的百分比").text);
        ok = figure_end(&figure, out, label, error);
    }
    free(bars);
    return ok;
}
