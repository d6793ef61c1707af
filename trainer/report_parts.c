// Tables and texts of the page. See report_html.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "datasets/file.h"
#include "trainer/model_config.h"
#include "trainer/number.h"
#include "trainer/report_csv.h"
#include "trainer/report_html.h"
#include "trainer/report_pictures.h"
#include "trainer/report_text.h"

enum { CONFUSION_CLASSES = 40 };

void put_number(FILE *out, double value) {
    if (isnan(value)) {
        fputs("–", out);
    } else {
        fprintf(out,
                fabs(value) >= 1e-3 && fabs(value) < 1e5 ? "<data value=\"%s\">%.4f</data>"
                                                         : "<data value=\"%s\">%.4g</data>",
                number_format(value).text, value);
    }
}

void put_duration(FILE *out, double seconds) {
    if (isnan(seconds)) {
        fputs("–", out);
    } else if (seconds < 60) {
        fprintf(out, "%.1f s", seconds);
    } else if (seconds < 3600) {
        fprintf(out, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    } else {
        fprintf(out, "%.0f h %02d min", floor(seconds / 3600), (int)(fmod(seconds, 3600) / 60));
    }
}

void put_state(FILE *out, State state) {
    static const char *const chinese[STATES] = {"完成", "已淘汰", "暂停", "运行中", "中断", "等待", "发散", "失败"};
    put_pair(out, state_name(state), chinese[state]);
}

// Every value of a parameter that is known: name = value.
static void put_values(FILE *out, const Group *group, const Entry *entry) {
    for (size_t i = 0; i < group->parameter_count; i++) {
        fputs(i ? ", " : " (", out);
        put_html(out, parameter_short_name(group->parameters[i]));
        fputs(" = ", out);
        put_html_short(out, entry->values[i], 60);
    }
    if (group->parameter_count) { fputs(")", out); }
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
        put_both(out, ", after %lld epochs: ", "，%lld 轮之后：", (long long)best->epochs);
        put_html(out, group->metric);
        fputs(" <strong>", out);
        put_number(out, best->metric);
        fputs("</strong>.", out);
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
    put_both(out, group->sweep ? "%zu trials" : "%zu runs", group->sweep ? "%zu 次试验" : "%zu 次训练",
             group->entry_count);
    for (int s = 0; s < STATES; s++) {
        if (!counts[s]) { continue; }
        fprintf(out, "%s%zu ", separator, counts[s]);
        put_state(out, (State)s);
        separator = ", ";
    }
    fputs(". ", out);
}

// Share of the time in which workers had work that led to a result.
static double busy_share(const Worker *workers, size_t count, double span) {
    double busy = 0;
    for (size_t w = 0; w < count; w++) { busy += workers[w].busy; }
    return busy / ((double)count * span);
}

static void put_time(FILE *out, const Group *group) {
    size_t count;
    double begin, end, total = 0;
    Worker *workers = group_workers(group, &count, &begin, &end);
    for (size_t i = 0; i < group->entry_count; i++) {
        if (!isnan(group->entries[i].seconds)) { total += group->entries[i].seconds; }
    }
    if (count && end > begin) {
        put_both(out, "It took ", "历时 ");
        put_duration(out, end - begin);
        put_both(out, " on %zu workers, which were busy for <strong>%.0f %%</strong> of it. ",
                 "，%zu 个工作组，忙碌时间占 <strong>%.0f %%</strong>。", count,
                 100 * busy_share(workers, count, end - begin));
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

static void put_header(FILE *out, const Group *group) {
    static const char *const titles[][2] = {{"status", "状态"}, {"epochs", "轮数"}};
    static const char *const more[][2] = {{"validation loss", "验证损失"}, {"accuracy", "准确率"}, {"F1", "F1"}};
    static const char *const last[][2] = {{"time", "时间"}, {"samples/s", "样本/秒"}};
    fputs("<tr><th>", out);
    put_both(out, group->sweep ? "trial" : "run", group->sweep ? "试验" : "训练");
    fputs("</th>", out);
    for (size_t i = 0; i < 2; i++) {
        fputs(i ? "<th>" : "<th class=\"text\">", out);
        put_pair(out, titles[i][0], titles[i][1]);
        fputs("</th>", out);
    }
    fputs("<th>", out);
    put_html(out, group->metric);
    fputs("</th>", out);
    for (size_t i = 0; i < group->parameter_count; i++) {
        fputs("<th title=\"", out);
        put_html(out, group->parameters[i]);
        fputs("\">", out);
        put_html(out, parameter_short_name(group->parameters[i]));
        fputs("</th>", out);
    }
    for (size_t i = 0; i < 5; i++) {
        const char *const *title = i < 3 ? more[i] : last[i - 3];
        fputs("<th>", out);
        put_pair(out, title[0], title[1]);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
}

static void put_cell_number(FILE *out, double value) {
    fputs("<td>", out);
    put_number(out, value);
    fputs("</td>", out);
}

static void put_row(FILE *out, const Group *group, const Entry *entry, bool best) {
    fputs(best ? "<tr class=\"best\"><td>★ " : "<tr><td>", out);
    put_html(out, entry->name);
    fputs("</td><td class=\"text\"", out);
    if (entry->error[0]) {
        fputs(" title=\"", out);
        put_html_short(out, entry->error, 500);
        fputs("\"", out);
    }
    fputs(">", out);
    put_state(out, entry->state);
    fprintf(out, "</td><td>%lld</td>", (long long)entry->epochs);
    put_cell_number(out, entry->metric);
    for (size_t i = 0; i < group->parameter_count; i++) {
        fputs("<td>", out);
        put_html_short(out, entry->values[i], 60);
        fputs("</td>", out);
    }
    put_cell_number(out, entry->validation_loss);
    put_cell_number(out, entry->accuracy);
    put_cell_number(out, entry->f1);
    fputs("<td>", out);
    put_duration(out, entry->seconds);
    fputs("</td><td>", out);
    fprintf(out, isnan(entry->samples_per_second) ? "–" : "%.0f", entry->samples_per_second);
    fputs("</td></tr>\n", out);
}

void put_table(FILE *out, const Group *group) {
    fputs("<div class=\"scroll\"><table class=\"trials\">\n<thead>", out);
    put_header(out, group);
    fputs("</thead><tbody>\n", out);
    if (group->winner) { put_row(out, group, group->winner, false); }
    for (size_t i = 0; i < group->entry_count; i++) { put_row(out, group, &group->entries[i], i == group->best); }
    fputs("</tbody></table></div>\n", out);
}

void put_workers(FILE *out, const Group *group) {
    size_t count;
    double begin, end;
    Worker *workers = group_workers(group, &count, &begin, &end);
    const double span = end - begin;
    if (count && span > 0) {
        fputs("<p>", out);
        put_both(out, "Busy: %.1f %% of %zu workers x %.1f s.", "忙碌：%.1f %%（%zu 个工作组 × %.1f 秒）。",
                 100 * busy_share(workers, count, span), count, span);
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

// Names of labels from the model that the run left; false where there is none or it has other classes.
static bool read_labels(ModelConfig *config, const Entry *entry) {
    char directory[REPORT_PATH];
    Error ignored;
    path_join(directory, sizeof directory, entry->directory, "final");
    if (!is_plain_file(directory, "config.json") || !model_config_read(config, directory, &ignored)) { return false; }
    if ((size_t)config->classes == entry->history.classes) { return true; }
    model_config_free(config);
    return false;
}

static void put_label(FILE *out, const ModelConfig *config, size_t class) {
    if (config) {
        put_html(out, config->label_names[class]);
    } else {
        fprintf(out, "%zu", class);
    }
}

static void put_counts_of(FILE *out, const History *history, size_t label) {
    const size_t classes = history->classes;
    int64_t sum = 0;
    for (size_t c = 0; c < classes; c++) { sum += history->confusion[label * classes + c]; }
    for (size_t c = 0; c < classes; c++) {
        const int64_t count = history->confusion[label * classes + c];
        fprintf(out, "<td style=\"background:rgba(%s,%.2f)\">%lld</td>", c == label ? "0,114,178" : "213,94,0",
                sum ? 0.75 * (double)count / (double)sum : 0.0, (long long)count);
    }
    const double recall = sum ? (double)history->confusion[label * classes + label] / (double)sum : NAN;
    put_cell_number(out, recall);
    fputs("</tr>\n", out);
}

static void put_matrix(FILE *out, const Entry *entry, const ModelConfig *names) {
    fputs("<div class=\"scroll\"><table class=\"confusion\">\n<tr><th>", out);
    put_both(out, "label \\ prediction", "标签 \\ 预测");
    fputs("</th>", out);
    for (size_t c = 0; c < entry->history.classes; c++) {
        fputs("<th>", out);
        put_label(out, names, c);
        fputs("</th>", out);
    }
    fputs("<th>", out);
    put_both(out, "recall", "召回率");
    fputs("</th></tr>\n", out);
    for (size_t label = 0; label < entry->history.classes; label++) {
        fputs("<tr><th>", out);
        put_label(out, names, label);
        fputs("</th>", out);
        put_counts_of(out, &entry->history, label);
    }
    fputs("</table></div>\n", out);
}

void put_confusion(FILE *out, const Group *group) {
    const Entry *entry = group->winner && group->winner->history.confusion ? group->winner : group_shown(group);
    ModelConfig config;
    if (!entry || !entry->history.confusion) { return; }
    const size_t classes = entry->history.classes;
    fputs("<h3>", out);
    put_both(out, "Confusion matrix of ", "混淆矩阵：");
    put_html(out, entry->name);
    fputs("</h3>\n", out);
    if (classes > CONFUSION_CLASSES) {
        fputs("<p>", out);
        put_both(out, "%zu classes are too many to show.", "%zu 个类别太多，无法显示。", classes);
        fputs("</p>\n", out);
        return;
    }
    const bool named = read_labels(&config, entry);
    put_matrix(out, entry, named ? &config : NULL);
    if (named) { model_config_free(&config); }
}

// A word of the command; a path that begins with - would be an option.
static void put_word(FILE *out, const char *prefix, const char *path, const char *suffix) {
    char *word = NULL, *quoted = NULL;
    size_t length = 0;
    FILE *text = open_memstream(&word, &length);
    CHECK(text);
    fprintf(text, "%s%s%s%s", prefix, path[0] == '-' ? "./" : "", path, suffix);
    CHECK(fclose(text) == 0);
    text = open_memstream(&quoted, &length);
    CHECK(text);
    put_shell_word(text, word);
    CHECK(fclose(text) == 0);
    put_html(out, quoted);
    free(quoted);
    free(word);
}

void put_command(FILE *out, const Group *group) {
    if (group->best == group->entry_count) { return; }
    const Entry *best = &group->entries[group->best];
    if (!is_plain_file(best->directory, "config.yaml")) { return; }
    fputs("<h3>", out);
    put_both(out, "Do the best again", "重复最佳训练");
    fputs("</h3>\n<pre class=\"command\">", out);
    if (best->history.world_size > 1) { fprintf(out, "mpirun -np %lld ", (long long)best->history.world_size); }
    fputs("bertune train ", out);
    put_word(out, "", best->directory, "/config.yaml");
    fputs(" ", out);
    put_word(out, "run.dir=", best->directory, "-again");
    fputs("</pre>\n", out);
}
