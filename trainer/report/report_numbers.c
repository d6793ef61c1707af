// The figures a report computes: importance of parameters, work of workers. See report.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/number.h"
#include "trainer/report/report.h"

double group_metric_at(const Group *group, const Entry *entry, int64_t epoch) {
    for (size_t i = 0; i < group->segment_count; i++) {
        const Segment *segment = &group->segments[i];
        if (segment->trial == entry->trial && segment->epoch == epoch && !isnan(segment->end)) {
            return segment->metric;
        }
    }
    const size_t line = history_find_epoch(&entry->history, epoch);
    if (line < entry->history.epoch_count) { return entry->history.epochs[line].metric; }
    return entry->epochs == epoch ? entry->metric : NAN;
}

int64_t group_common_epoch(const Group *group) {
    int64_t least = 0;
    for (size_t i = 0; i < group->entry_count; i++) {
        const Entry *entry = &group->entries[i];
        if (entry->epochs > 0 && !isnan(entry->metric) && (!least || entry->epochs < least)) { least = entry->epochs; }
    }
    return least;
}

// A trial's value of a parameter, its rank among the values, and its metric and that one's rank.
typedef struct {
    const char *text;
    double number, metric, rank, metric_rank;
} Sample;

static int by_number(const void *a, const void *b) {
    const Sample *left = a, *right = b;
    return (left->number > right->number) - (left->number < right->number);
}

static int by_metric(const void *a, const void *b) {
    const Sample *left = a, *right = b;
    return (left->metric > right->metric) - (left->metric < right->metric);
}

static int by_text(const void *a, const void *b) {
    return strcmp(((const Sample *)a)->text, ((const Sample *)b)->text);
}

// Mean ranks, so that equal values have equal ones.
static void rank_numbers(Sample *samples, size_t count) {
    qsort(samples, count, sizeof *samples, by_number);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && samples[end].number == samples[i].number;) { end++; }
        for (size_t k = i; k < end; k++) { samples[k].rank = (double)(i + end - 1) / 2; }
    }
}

static void rank_metrics(Sample *samples, size_t count) {
    qsort(samples, count, sizeof *samples, by_metric);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && samples[end].metric == samples[i].metric;) { end++; }
        for (size_t k = i; k < end; k++) { samples[k].metric_rank = (double)(i + end - 1) / 2; }
    }
}

// Spearman's: the square of the correlation of the ranks.
static double rank_share(Sample *samples, size_t count) {
    const double middle = (double)(count - 1) / 2;
    double xx = 0, yy = 0, xy = 0;
    rank_numbers(samples, count);
    rank_metrics(samples, count);
    for (size_t i = 0; i < count; i++) {
        const double x = samples[i].rank - middle, y = samples[i].metric_rank - middle;
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    return xx > 0 && yy > 0 ? xy * xy / (xx * yy) : NAN;
}

// Correlation ratio: the variance between groups of equal values as a part of all variance. Sorted by text.
static double group_share(const Sample *samples, size_t count) {
    double mean = 0, between = 0, total = 0;
    for (size_t i = 0; i < count; i++) { mean += samples[i].metric / (double)count; }
    for (size_t i = 0, end; i < count; i = end) {
        double sum = 0;
        for (end = i; end < count && strcmp(samples[end].text, samples[i].text) == 0; end++) {
            sum += samples[end].metric - mean;
            total += (samples[end].metric - mean) * (samples[end].metric - mean);
        }
        between += sum * sum / (double)(end - i);
    }
    return total > 0 ? between / total : NAN;
}

Importance group_importance(const Group *group, size_t parameter, int64_t epoch) {
    Importance importance = {.share = NAN, .chance = NAN};
    Sample *samples = check_calloc(group->entry_count, sizeof *samples);
    size_t count = 0, levels = 0;
    bool numbers = true;
    for (size_t i = 0; i < group->entry_count; i++) {
        Sample sample = {.text = group->entries[i].values[parameter]};
        sample.metric = group_metric_at(group, &group->entries[i], epoch);
        if (isnan(sample.metric) || !sample.text[0]) { continue; }
        numbers = number_parse_real(sample.text, &sample.number) && numbers;
        samples[count++] = sample;
    }
    qsort(samples, count, sizeof *samples, by_text);
    for (size_t i = 0; i < count; i++) { levels += i == 0 || strcmp(samples[i].text, samples[i - 1].text) != 0; }
    if (count > 2 && levels > 1 && numbers && 2 * levels > count) {
        importance.share = rank_share(samples, count);
        importance.chance = 1 / (double)(count - 1);
    } else if (levels > 1 && 2 * levels <= count) {
        importance.share = group_share(samples, count);
        importance.chance = (double)(levels - 1) / (double)(count - 1);
    }
    free(samples);
    return importance;
}

double group_segment_end(const Group *group, const Segment *segment, double last) {
    if (!isnan(segment->end)) { return segment->end; }
    double end = fmin(segment->seen, last);
    for (size_t i = 0; i < group->segment_count; i++) {
        const Segment *other = &group->segments[i];
        const bool next = other->trial == segment->trial || strcmp(other->worker, segment->worker) == 0;
        if (next && other->begin > segment->begin && other->begin < end) { end = other->begin; }
    }
    return end;
}

static int by_worker(const void *a, const void *b) {
    return strverscmp(((const Worker *)a)->worker, ((const Worker *)b)->worker);
}

Worker *group_workers(const Group *group, size_t *count, double *begin, double *end, double *over) {
    Worker *workers = check_calloc(group->segment_count, sizeof *workers);
    *count = 0;
    *begin = INFINITY;
    *end = *over = -INFINITY;
    for (size_t i = 0; i < group->segment_count; i++) {
        const Segment *segment = &group->segments[i];
        const double last = fmax(segment->begin, segment->alive && !group->done ? segment->seen : segment->end);
        *begin = fmin(*begin, segment->begin);
        *end = fmax(*end, last);
        if (segment->trial != WINNER) { *over = fmax(*over, last); }
    }
    for (size_t i = 0; i < group->segment_count; i++) {
        const Segment *segment = &group->segments[i];
        if (isnan(segment->begin)) { continue; }
        size_t w = 0;
        while (w < *count && strcmp(workers[w].worker, segment->worker) != 0) { w++; }
        *count += w == *count;
        workers[w].worker = segment->worker;
        if (segment->trial == WINNER) { continue; }
        workers[w].tried = true;
        const double seconds = group_segment_end(group, segment, *end) - segment->begin;
        workers[w].segments += !isnan(segment->end);
        *(isnan(segment->end) ? &workers[w].unknown : &workers[w].busy) += seconds;
    }
    qsort(workers, *count, sizeof *workers, by_worker);
    return workers;
}
