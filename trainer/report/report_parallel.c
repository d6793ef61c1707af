// Parallel coordinates: which values of parameters led where. See report_pictures.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/number.h"
#include "trainer/report/report_figure.h"
#include "trainer/report/report_pictures.h"
#include "trainer/report/report_text.h"

enum { HEIGHT = 340, CELL = 120, LETTER = 8, LEVELS = 8, MARKS = 5 };

// One axis of parallel coordinates: where values stand on it.
typedef struct {
    const char **texts;  // (samples) borrowed; "": unknown
    double *numbers;     // (samples)
    double *places;      // (samples) 0 to 1; NAN: unknown
    const char *marks[LEVELS];
    char mark_numbers[MARKS][32];
    double mark_places[LEVELS];
    size_t mark_count;
} Axis;

static Axis axis_new(size_t samples) {
    return (Axis){.texts = check_calloc(samples, sizeof(char *)),
                  .numbers = check_calloc(samples, sizeof(double)),
                  .places = check_calloc(samples, sizeof(double))};
}

static void axis_free(Axis *axis) {
    free(axis->texts);
    free(axis->numbers);
    free(axis->places);
}

// Few values: evenly spaced, in their order. False where there are more than LEVELS.
static bool place_levels(Axis *axis, size_t samples, bool numbers) {
    size_t levels[LEVELS], count = 0;
    for (size_t i = 0; i < samples; i++) {
        size_t k = 0;
        while (k < count && strcmp(axis->texts[levels[k]], axis->texts[i]) != 0) { k++; }
        if (k < count || !axis->texts[i][0]) { continue; }
        if (count == LEVELS) { return false; }
        for (k = count++; k > 0; k--) {
            const size_t before = levels[k - 1];
            const bool later =
                numbers ? axis->numbers[before] > axis->numbers[i] : strcmp(axis->texts[before], axis->texts[i]) > 0;
            if (!later) { break; }
            levels[k] = before;
        }
        levels[k] = i;
    }
    for (size_t k = 0; k < count; k++) {
        const double place = count > 1 ? (double)k / (double)(count - 1) : 0.5;
        axis->marks[k] = axis->texts[levels[k]];
        axis->mark_places[k] = place;
        for (size_t i = 0; i < samples; i++) {
            if (strcmp(axis->texts[levels[k]], axis->texts[i]) == 0) { axis->places[i] = place; }
        }
    }
    axis->mark_count = count;
    return true;
}

// Many values: linear, or logarithmic where they span more than a factor of 20.
static void place_numbers(Axis *axis, size_t samples) {
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < samples; i++) {
        least = fmin(least, axis->numbers[i]);
        most = fmax(most, axis->numbers[i]);
    }
    const bool logarithmic = least > 0 && most > 20 * least;
    const double low = logarithmic ? log(least) : least, high = logarithmic ? log(most) : most;
    for (size_t i = 0; i < samples; i++) {
        const double value = logarithmic ? log(axis->numbers[i]) : axis->numbers[i];
        const double place = (value - low) / (high - low);
        axis->places[i] = isfinite(place) || isnan(value) ? place : 0.5;
    }
    for (axis->mark_count = 0; axis->mark_count < MARKS; axis->mark_count++) {
        const double place = (double)axis->mark_count / (MARKS - 1), value = low + place * (high - low);
        axis->mark_places[axis->mark_count] = place;
        char *mark = axis->mark_numbers[axis->mark_count];
        snprintf(mark, sizeof axis->mark_numbers[0], "%.4g", logarithmic ? exp(value) : value);
        axis->marks[axis->mark_count] = mark;
    }
}

// More texts than can stand at an axis: in their order, the first and last of them named.
static void place_texts(Axis *axis, size_t samples) {
    size_t first = 0, last = 0;
    for (size_t i = 0; i < samples; i++) {
        size_t before = 0;
        for (size_t k = 0; k < samples; k++) { before += strcmp(axis->texts[k], axis->texts[i]) < 0; }
        axis->places[i] = (double)before / (double)samples;
        if (strcmp(axis->texts[i], axis->texts[first]) < 0) { first = i; }
        if (strcmp(axis->texts[i], axis->texts[last]) > 0) { last = i; }
    }
    const size_t named[] = {first, last};
    for (axis->mark_count = 0; axis->mark_count < 2; axis->mark_count++) {
        const size_t i = named[axis->mark_count];
        axis->marks[axis->mark_count] = axis->texts[i];
        axis->mark_places[axis->mark_count] = axis->places[i];
    }
}

// The trials with a metric after the epoch, and an axis for each parameter and the metric.
typedef struct {
    const Group *group;
    size_t samples, best;  // best: index of the best trial; samples: not among them
    Axis *axes;
    size_t axis_count;
} Parallel;

static void take_samples(Parallel *parallel, int64_t epoch) {
    const Group *group = parallel->group;
    for (size_t a = 0; a < parallel->axis_count; a++) { parallel->axes[a] = axis_new(group->entry_count); }
    size_t n = 0, best = group->entry_count;
    for (size_t i = 0; i < group->entry_count; i++) {
        const Entry *entry = &group->entries[i];
        const double value = group_metric_at(group, entry, epoch);
        if (isnan(value)) { continue; }
        for (size_t a = 0; a < group->parameter_count; a++) { parallel->axes[a].texts[n] = entry->values[a]; }
        parallel->axes[group->parameter_count].numbers[n] = value;
        best = i == group->best ? n : best;
        n++;
    }
    parallel->samples = n;
    parallel->best = best;
}

static void place_axes(Parallel *parallel) {
    const size_t samples = parallel->samples;
    for (size_t a = 0; a + 1 < parallel->axis_count; a++) {
        Axis *axis = &parallel->axes[a];
        bool numbers = true;
        for (size_t i = 0; i < samples; i++) {
            axis->places[i] = axis->numbers[i] = NAN;
            if (axis->texts[i][0]) { numbers = number_parse_real(axis->texts[i], &axis->numbers[i]) && numbers; }
        }
        if (place_levels(axis, samples, numbers)) { continue; }
        if (numbers) {
            place_numbers(axis, samples);
        } else {
            place_texts(axis, samples);
        }
    }
    place_numbers(&parallel->axes[parallel->axis_count - 1], samples);
}

// From blue, the worst, over violet to orange, the best.
static unsigned metric_colour(double place) {
    static const int stops[3][3] = {{59, 125, 216}, {170, 120, 170}, {228, 87, 46}};
    const int stop = place < 0.5 ? 0 : 1;
    const double part = 2 * place - stop;
    unsigned colour = 0;
    for (int c = 0; c < 3; c++) {
        const double value = stops[stop][c] + part * (stops[stop + 1][c] - stops[stop][c]);
        colour = colour << 8 | (unsigned)value;
    }
    return colour;
}

static void put_line(FILE *script, const Parallel *parallel, size_t sample) {
    const double place = parallel->axes[parallel->axis_count - 1].places[sample];
    const unsigned colour = metric_colour(parallel->group->maximize ? place : 1 - place);
    for (size_t a = 0; a < parallel->axis_count; a++) {
        fprintf(script, "%zu %.6g %u\n", a, parallel->axes[a].places[sample], colour);
    }
    fputs("\n", script);
}

// Names above, marks beside the axes.
static void put_axes(Figure *figure, const Parallel *parallel) {
    fputs("unset border\nunset tics\nunset grid\nset lmargin 0\nset rmargin 0\nset tmargin 0\nset bmargin 0\n",
          figure->script);
    fprintf(figure->script, "set xrange [-0.5:%zu.5]\nset yrange [-0.06:1.16]\n", parallel->axis_count - 1);
    for (size_t a = 0; a < parallel->axis_count; a++) {
        const Group *group = parallel->group;
        const Axis *axis = &parallel->axes[a];
        const char *name = a < group->parameter_count ? group_parameter_name(group, a) : group->metric;
        fprintf(figure->script, "set arrow from %zu,0 to %zu,1 nohead front linecolor rgb \"#8a94a0\"\n", a, a);
        fprintf(figure->script, "set label \"%s\" at %zu,1.1 center\n", figure_token(figure, name, NULL).text, a);
        for (size_t k = 0; k < axis->mark_count; k++) {
            fprintf(figure->script, "set label \"%s\" at %zu,%.6g left offset character 0.5,0 front font \",12\"\n",
                    figure_token(figure, axis->marks[k], NULL).text, a, axis->mark_places[k]);
        }
    }
}

static int cell_width(const Parallel *parallel) {
    int columns = text_columns(parallel->group->metric);
    for (size_t i = 0; i < parallel->group->parameter_count; i++) {
        const int wide = text_columns(group_parameter_name(parallel->group, i));
        columns = wide > columns ? wide : columns;
    }
    const int width = LETTER * (columns < FIGURE_COLUMNS ? columns : FIGURE_COLUMNS) + 12;
    return width > CELL ? width : CELL;
}

static bool draw_parallel(const Parallel *parallel, FILE *out, const char *label, Error *error) {
    Figure figure;
    figure_begin(&figure, cell_width(parallel) * (int)parallel->axis_count, HEIGHT);
    put_axes(&figure, parallel);
    fputs("$lines << EOD\n", figure.script);
    for (size_t i = parallel->samples; i-- > 0;) { put_line(figure.script, parallel, i); }
    fputs("EOD\n", figure.script);
    const bool best = parallel->best < parallel->samples;
    if (best) {
        fputs("$best << EOD\n", figure.script);
        put_line(figure.script, parallel, parallel->best);
        fputs("EOD\n", figure.script);
    }
    fprintf(figure.script, "plot $lines with lines linewidth 1 linecolor rgb variable%s\n",
            best ? ", $best with lines linewidth 3.5 linecolor rgb variable" : "");
    return figure_end(&figure, out, label, error);
}

bool picture_parallel(const Group *group, FILE *out, const char *label, Error *error) {
    const size_t axes = group->parameter_count + 1;
    Parallel parallel = {.group = group, .axes = check_calloc(axes, sizeof(Axis)), .axis_count = axes};
    take_samples(&parallel, group_common_epoch(group));
    bool ok = true;
    if (parallel.samples > 1 && axes > 1) {
        place_axes(&parallel);
        ok = draw_parallel(&parallel, out, label, error);
    }
    for (size_t a = 0; a < axes; a++) { axis_free(&parallel.axes[a]); }
    free(parallel.axes);
    return ok;
}
