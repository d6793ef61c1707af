// The table of a group and what stands in its cells. See report_html.h.
#include <math.h>

#include "trainer/number.h"
#include "trainer/report/report_csv.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_text.h"

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

static void put_column(FILE *out, const char *english, const char *chinese) {
    fputs("<th>", out);
    put_pair(out, english, chinese);
    fputs("</th>", out);
}

static void put_header(FILE *out, const Group *group) {
    fputs("<tr>", out);
    put_column(out, group->sweep ? "trial" : "run", group->sweep ? "试验" : "训练");
    put_column(out, "status", "状态");
    put_column(out, "epochs", "轮数");
    fputs("<th>", out);
    put_html(out, group->metric);
    fputs("</th>", out);
    for (size_t i = 0; i < group->parameter_count; i++) {
        fputs("<th title=\"", out);
        put_html(out, group->parameters[i]);
        fputs("\">", out);
        put_html(out, group_parameter_name(group, i));
        fputs("</th>", out);
    }
    put_column(out, "validation loss", "验证损失");
    put_column(out, "accuracy", "准确率");
    put_column(out, "F1", "F1");
    put_column(out, "time", "时间");
    put_column(out, "samples/s", "样本/秒");
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
    fputs("</td><td", out);
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
