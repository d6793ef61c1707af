// How a group went, in words and numbers. See report_html.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/report/report_csv.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_pictures.h"
#include "trainer/report/report_text.h"

// Every value of a parameter that is known: name = value.
static void put_values(FILE *out, const Group *group, const Entry *entry) {
    for (size_t i = 0; i < group->parameter_count; i++) {
        fputs(i ? ", " : " (", out);
        put_html(out, group_parameter_name(group, i));
        fputs(" = ", out);
        put_html_short(out, entry->values[i], 60);
    }
    if (group->parameter_count) { fputs(")", out); }
}

// An epoch on the way that was better than the last one.
static void put_highest(FILE *out, const Group *group, const Entry *entry) {
    const EpochLine *top = NULL;
    for (size_t i = 0; i < entry->history.epoch_count; i++) {
        const EpochLine *line = &entry->history.epochs[i];
        const double other = top ? top->metric : entry->metric;
        if (group->maximize ? line->metric > other : line->metric < other) { top = line; }
    }
    if (!top) { return; }
    put_both(out, " It had been better on the way: ", " 训练途中曾更好：");
    put_number(out, top->metric);
    put_both(out, " after epoch %lld.", "（第 %lld 轮之后）。", (long long)top->epoch);
}

static void put_best(FILE *out, const Group *group) {
    fputs("<p>", out);
    if (group->best == group->entry_count) {
        put_both(out, "No epoch has been scored yet.", "尚无任何一轮的评估结果。");
    } else {
        const Entry *best = &group->entries[group->best];
        put_both(out, "Best: ", "最佳：");
        fputs("<strong>", out);
        put_html(out, best->name);
        fputs("</strong>", out);
        put_values(out, group, best);
        put_both(out, ", after epoch %lld: ", "，第 %lld 轮之后：", (long long)best->epochs);
        put_html(out, group->metric);
        fputs(" <strong>", out);
        put_number(out, best->metric);
        fputs("</strong>.", out);
        put_highest(out, group, best);
    }
    fputs("</p>\n", out);
}

static void put_winner(FILE *out, const Group *group) {
    const Entry *winner = group->winner;
    if (!winner) { return; }
    fputs("<p>", out);
    put_both(out, "The winner, trained on all training rows and scored on the validation part: ",
             "优胜者在全部训练行上训练，并在验证部分上评估：");
    put_html(out, group->metric);
    fputs(" <strong>", out);
    put_number(out, winner->metric);
    fputs("</strong>", out);
    if (!isnan(winner->accuracy)) {
        put_both(out, ", accuracy ", "，准确率 ");
        put_number(out, winner->accuracy);
    }
    if (!isnan(winner->f1)) {
        fputs(", F1 ", out);
        put_number(out, winner->f1);
    }
    fputs(" (", out);
    put_state(out, winner->state);
    fputs(").</p>\n", out);
}

static void put_counts(FILE *out, const Group *group) {
    size_t counts[STATES] = {0};
    const char *separator = ": ";
    for (size_t i = 0; i < group->entry_count; i++) { counts[group->entries[i].state]++; }
    const bool one = group->entry_count == 1;
    fprintf(out, "%zu ", group->entry_count);
    if (group->sweep) {
        put_pair(out, one ? "trial" : "trials", "次试验");
    } else {
        put_pair(out, one ? "run" : "runs", "次训练");
    }
    for (int s = 0; s < STATES; s++) {
        if (!counts[s]) { continue; }
        fprintf(out, "%s%zu ", separator, counts[s]);
        put_state(out, (State)s);
        separator = ", ";
    }
    fputs(". ", out);
    if (strcmp(group->split, "dev") == 0) {
        put_pair(out, "They are scored on the development part. ", "在开发部分上评估。");
    }
}

// Share of the time in which workers had work that led to a result; *tried: how many had a trial at all.
static double busy_share(const Worker *workers, size_t count, double span, size_t *tried) {
    double busy = 0;
    *tried = 0;
    for (size_t w = 0; w < count; w++) {
        busy += workers[w].busy;
        *tried += workers[w].tried;
    }
    return busy / ((double)*tried * span);
}

static void put_time(FILE *out, const Group *group) {
    size_t count, tried;
    double begin, end, over, total = 0;
    Worker *workers = group_workers(group, &count, &begin, &end, &over);
    for (size_t i = 0; i < group->entry_count; i++) {
        if (!isnan(group->entries[i].seconds)) { total += group->entries[i].seconds; }
    }
    if (over > begin) {
        const double share = 100 * busy_share(workers, count, over - begin, &tried);
        put_both(out, "The trials took ", "各次试验历时 ");
        put_duration(out, over - begin);
        put_both(out, " on %zu workers, which were busy for <strong>%.0f %%</strong> of it. ",
                 "，%zu 个工作组，忙碌时间占 <strong>%.0f %%</strong>。", tried, share);
    }
    put_both(out, "All training together: ", "训练总时间：");
    put_duration(out, total);
    fputs(".", out);
    free(workers);
}

void put_summary(FILE *out, const Group *group) {
    put_best(out, group);
    put_winner(out, group);
    fputs("<p>", out);
    put_counts(out, group);
    put_time(out, group);
    fputs("</p>\n", out);
}

void put_workers(FILE *out, const Group *group) {
    size_t count, tried;
    double begin, end, over;
    Worker *workers = group_workers(group, &count, &begin, &end, &over);
    const double span = over - begin;
    if (count && span > 0) {
        const double share = 100 * busy_share(workers, count, span, &tried);
        fputs("<p>", out);
        put_both(out, "Busy until the last trial ended: %.1f %% of %zu workers x %.1f s.",
                 "到最后一次试验结束为止忙碌：%.1f %%（%zu 个工作组 × %.1f 秒）。", share, tried, span);
        if (count > DRAWN_WORKERS) { put_both(out, " The first %d are drawn.", "图中为前 %d 个。", DRAWN_WORKERS); }
        fputs("</p>\n<details><summary>", out);
        put_both(out, "Each worker", "各工作组");
        fputs("</summary><div class=\"scroll\"><table>\n<tr><th>", out);
        put_both(out, "worker", "工作组");
        fputs("</th><th>", out);
        put_both(out, "segments", "段数");
        fputs("</th><th>", out);
        put_both(out, "busy", "忙碌");
        fputs("</th><th>%</th><th>", out);
        put_both(out, "without a result, at most", "无结果（至多）");
        fputs("</th></tr>\n", out);
    }
    for (size_t w = 0; w < count && span > 0; w++) {
        fputs("<tr><td>", out);
        put_html(out, workers[w].worker);
        fprintf(out, "</td><td>%zu</td><td>%.1f s</td><td>%.1f</td><td>%.1f s</td></tr>\n", workers[w].segments,
                workers[w].busy, 100 * workers[w].busy / span, workers[w].unknown);
    }
    if (count && span > 0) { fputs("</table></div></details>\n", out); }
    free(workers);
}
