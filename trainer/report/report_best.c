// What the best of a group got right, and the command that repeats it. See report_html.h.
#include <math.h>
#include <stdlib.h>

#include "datasets/file.h"
#include "trainer/model_config.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_pictures.h"
#include "trainer/report/report_text.h"

enum { CONFUSION_CLASSES = 40 };

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
    fputs("<td>", out);
    put_number(out, recall);
    fputs("</td></tr>\n", out);
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
