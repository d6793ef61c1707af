// Learning curves. See report_pictures.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/report/report_figure.h"
#include "trainer/report/report_pictures.h"

enum { WIDTH = 480, HEIGHT = 300, BINS = 400 };

const char *const entry_colours[COLOURS] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"};

// Bounds of what is drawn.
typedef struct {
    double least_x, most_x, least_y, most_y;
} Bounds;

static const Bounds empty = {INFINITY, -INFINITY, INFINITY, -INFINITY};

static void widen(Bounds *bounds, double x, double y) {
    if (isnan(y) || fabs(y) > 1e100) { return; }  // larger ones lie outside the picture
    bounds->least_x = fmin(bounds->least_x, x);
    bounds->most_x = fmax(bounds->most_x, x);
    bounds->least_y = fmin(bounds->least_y, y);
    bounds->most_y = fmax(bounds->most_y, y);
}

// Ranges with a margin; a logarithmic axis where losses span orders of magnitude.
static void put_ranges(FILE *script, const Bounds *bounds, bool epochs) {
    const double width = bounds->most_x - bounds->least_x, pad = width > 0 ? 0.02 * width : 0.5;
    const bool logarithmic = bounds->least_y > 0 && bounds->most_y > 30 * bounds->least_y;
    const double height = bounds->most_y - bounds->least_y;
    const double margin = height > 0 ? 0.05 * height : 0.05 * fabs(bounds->most_y) + 1e-9;
    fprintf(script, "set xrange [%.10g:%.10g]\n", bounds->least_x - pad, bounds->most_x + pad);
    if (logarithmic) {
        fprintf(script, "set logscale y\nset yrange [%.10g:%.10g]\n", bounds->least_y / 1.2, bounds->most_y * 1.2);
    } else {
        fprintf(script, "set yrange [%.10g:%.10g]\n", bounds->least_y - margin, bounds->most_y + margin);
    }
    if (epochs && width < 12) { fputs("set xtics 1\n", script); }
}

static double train_loss(const EpochLine *line) { return line->train_loss; }
static double validation_loss(const EpochLine *line) { return line->validation_loss; }
static double metric(const EpochLine *line) { return line->metric; }

static void put_block(FILE *script, const char *name, const Entry *entries, size_t count,
                      double (*value)(const EpochLine *)) {
    fprintf(script, "$%s << EOD\n", name);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < entries[i].history.epoch_count; k++) {
            const EpochLine *line = &entries[i].history.epochs[k];
            fprintf(script, "%lld %.10g\n", (long long)line->epoch, value(line));
        }
        fputs("\n", script);
    }
    fputs("EOD\n", script);
}

static bool has_points(const Entry *entry, double (*value)(const EpochLine *)) {
    for (size_t k = 0; k < entry->history.epoch_count; k++) {
        if (!isnan(value(&entry->history.epochs[k]))) { return true; }
    }
    return false;
}

// The grey ones first, then the best, the very best on top.
static void put_plots(FILE *script, const Group *group, double (*value)(const EpochLine *)) {
    const size_t count = group->entry_count, top = count < COLOURS ? count : COLOURS;
    bool rest = false;
    char name[32];
    for (size_t i = top; i < count; i++) { rest = rest || has_points(&group->entries[i], value); }
    if (rest) { put_block(script, "rest", group->entries + top, count - top, value); }
    for (size_t i = 0; i < top; i++) {
        snprintf(name, sizeof name, "top%zu", i);
        if (has_points(&group->entries[i], value)) { put_block(script, name, &group->entries[i], 1, value); }
    }
    const char *separator = "plot ";
    if (rest) {
        fprintf(script, "%s$rest with linespoints linewidth 0.7 linecolor rgb \"#9aa4af\" pt 7 ps 0.3", separator);
        separator = ", ";
    }
    for (size_t i = top; i-- > 0;) {
        if (!has_points(&group->entries[i], value)) { continue; }
        fprintf(script, "%s$top%zu with linespoints linewidth %s linecolor rgb \"%s\" pt 7 ps %s", separator, i,
                i == 0 ? "2.4" : "1.6", entry_colours[i], i == 0 ? "0.5" : "0.4");
        separator = ", ";
    }
    fputs("\n", script);
}

static bool draw_epochs(const Group *group, double (*value)(const EpochLine *), FILE *out, const char *label,
                        Error *error) {
    Bounds bounds = empty;
    for (size_t i = 0; i < group->entry_count; i++) {
        const History *history = &group->entries[i].history;
        for (size_t k = 0; k < history->epoch_count; k++) {
            widen(&bounds, (double)history->epochs[k].epoch, value(&history->epochs[k]));
        }
    }
    if (bounds.least_x > bounds.most_x) { return true; }
    Figure figure;
    figure_begin(&figure, WIDTH, HEIGHT);
    fprintf(figure.script, "set xlabel \"%s\"\n", figure_token(&figure, "epoch", "轮次").text);
    put_ranges(figure.script, &bounds, true);
    put_plots(figure.script, group, value);
    return figure_end(&figure, out, label, error);
}

bool picture_train_loss(const Group *group, FILE *out, const char *label, Error *error) {
    return draw_epochs(group, train_loss, out, label, error);
}

bool picture_validation_loss(const Group *group, FILE *out, const char *label, Error *error) {
    return draw_epochs(group, validation_loss, out, label, error);
}

bool picture_metric(const Group *group, FILE *out, const char *label, Error *error) {
    if (strcmp(group->metric, "validation_loss") == 0 || strcmp(group->metric, "train_loss") == 0) { return true; }
    return draw_epochs(group, metric, out, label, error);
}

const Entry *group_shown(const Group *group) {
    if (group->best < group->entry_count) { return &group->entries[group->best]; }
    for (size_t i = 0; i < group->entry_count; i++) {
        if (group->entries[i].history.step_count) { return &group->entries[i]; }
    }
    return NULL;
}

// Means of so many steps each that the line stays readable; those without any finite loss are gaps.
static size_t bin_losses(const History *history, double *x, double *y) {
    const size_t width = (history->step_count + BINS - 1) / BINS;
    size_t bins = 0;
    for (size_t i = 0; i < history->step_count; bins++) {
        double sum = 0;
        size_t count = 0;
        x[bins] = (double)history->steps[i].step;
        for (const size_t end = i + width; i < end && i < history->step_count; i++) {
            if (isnan(history->steps[i].loss)) { continue; }
            sum += history->steps[i].loss;
            count++;
        }
        y[bins] = count ? sum / (double)count : NAN;
    }
    return bins;
}

static double smooth(const double *y, size_t bins, size_t at) {
    const size_t reach = bins / 30 + 1, first = at > reach ? at - reach : 0;
    double sum = 0;
    size_t count = 0;
    for (size_t i = first; i < bins && i <= at + reach; i++) {
        if (isnan(y[i])) { continue; }
        sum += y[i];
        count++;
    }
    return isnan(y[at]) ? NAN : sum / (double)count;
}

bool picture_step_loss(const Group *group, FILE *out, const char *label, Error *error) {
    const Entry *entry = group_shown(group);
    double x[BINS], y[BINS];
    Bounds bounds = empty;
    const size_t bins = entry ? bin_losses(&entry->history, x, y) : 0;
    for (size_t i = 0; i < bins; i++) { widen(&bounds, x[i], y[i]); }
    if (bounds.least_x > bounds.most_x) { return true; }
    Figure figure;
    figure_begin(&figure, WIDTH, HEIGHT);
    fprintf(figure.script, "set xlabel \"%s\"\n", figure_token(&figure, "step", "步").text);
    put_ranges(figure.script, &bounds, false);
    fputs("$loss << EOD\n", figure.script);
    for (size_t i = 0; i < bins; i++) { fprintf(figure.script, "%.10g %.10g %.10g\n", x[i], y[i], smooth(y, bins, i)); }
    fputs(
        "EOD\nplot $loss with lines linewidth 0.6 linecolor rgb \"#8ab8d8\", "
        "$loss using 1:3 with lines linewidth 2 linecolor rgb \"#0072b2\"\n",
        figure.script);
    return figure_end(&figure, out, label, error);
}
