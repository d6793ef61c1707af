// The page around the groups and its pictures. See report_html.h.
#include "trainer/report/report_html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/report/report_pictures.h"
#include "trainer/report/report_text.h"

// A page that is XML, too, so that any parser checks it.
static const char head[] =
    "<!DOCTYPE html>\n"
    "<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
    "<title>bertune report</title>\n<style>\n"
    ":root{color-scheme:light dark;--back:#fff;--text:#1f2933;--soft:#5f6c7b;--line:#d5dbe1;--box:#f4f6f8}\n"
    "@media(prefers-color-scheme:dark){:root{--back:#15191e;--text:#e4e9ee;--soft:#9aa4af;--line:#39424c;"
    "--box:#1f252c}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:1rem;max-width:1180px;background:var(--back);color:var(--text);"
    "font:16px/1.5 system-ui,\"Helvetica Neue\",Arial,\"PingFang SC\",\"Microsoft YaHei\",\"Noto Sans CJK SC\","
    "\"Droid Sans Fallback\",sans-serif}\n"
    "h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.25rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line);"
    "overflow-wrap:anywhere}h3{font-size:1.05rem;margin:1.5rem 0 .5rem}\n"
    "#en:checked~main [lang=zh],#zh:checked~main [lang=en]{display:none}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}\n"
    "th{color:var(--soft);font-weight:600}th:first-child,td:first-child,.trials td:nth-child(2),.trials th:nth-child(2)"
    "{text-align:left}\n"
    "tr.best{background:var(--box);font-weight:600}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem}\n"
    "figure{margin:0 0 1rem;min-width:0}figcaption{font-size:.875rem;color:var(--soft);margin-bottom:.25rem}\n"
    "figure svg{display:block;width:100%;height:auto}svg text{font-family:inherit}\n"
    ".figures svg{max-width:600px}.medium svg{max-width:600px}.wide svg{min-width:620px;max-width:860px}.halo "
    "text{paint-order:stroke;stroke:var(--back);stroke-width:4px;"
    "stroke-linejoin:round}\n"
    ".key,.note{font-size:.8125rem;color:var(--soft);margin:.25rem 0}.key>span{white-space:nowrap}"
    ".swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}\n"
    "pre{background:var(--box);padding:.75rem;overflow-x:auto;font-size:.8125rem}\n"
    "summary{cursor:pointer;color:var(--soft);font-size:.875rem}\n"
    "</style>\n</head>\n<body>\n"
    "<input type=\"radio\" name=\"language\" id=\"en\" checked=\"checked\"/><label for=\"en\">English</label>\n"
    "<input type=\"radio\" name=\"language\" id=\"zh\"/><label for=\"zh\" lang=\"zh\">中文</label>\n<main>\n";

void put_pair(FILE *out, const char *english, const char *chinese) {
    fprintf(out, "<span lang=\"en\">%s</span><span lang=\"zh\">%s</span>", english, chinese);
}

void put_both(FILE *out, const char *english, const char *chinese, ...) {
    va_list arguments, again;
    va_start(arguments, chinese);
    va_copy(again, arguments);
    fputs("<span lang=\"en\">", out);
    vfprintf(out, english, arguments);
    fputs("</span><span lang=\"zh\">", out);
    vfprintf(out, chinese, again);
    fputs("</span>", out);
    va_end(again);
    va_end(arguments);
}

static void put_heading(FILE *out, const char *english, const char *chinese) {
    fputs("<h3>", out);
    put_pair(out, english, chinese);
    fputs("</h3>\n", out);
}

typedef struct {
    Picture *draw;
    const char *english, *chinese;  // the caption, escaped
    const char *class;
    const char *label;  // what a screen reader says; NULL: the English caption
} Plate;

// A picture with its caption, or nothing where the picture is empty.
static bool put_plate(FILE *out, const Group *group, const Plate *plate, Error *error) {
    char *svg = NULL;
    size_t length = 0;
    FILE *picture = open_memstream(&svg, &length);
    CHECK(picture);
    const bool ok = plate->draw(group, picture, plate->label ? plate->label : plate->english, error);
    CHECK(fclose(picture) == 0);
    if (ok && length) {
        fprintf(out, "<figure class=\"%s\"><figcaption>", plate->class);
        put_pair(out, plate->english, plate->chinese);
        fputs("</figcaption><div class=\"scroll\">\n", out);
        fwrite(svg, 1, length, out);
        fputs("</div></figure>\n", out);
    }
    free(svg);
    return ok;
}

static void put_swatch(FILE *out, const char *colour) {
    fprintf(out, "<span class=\"swatch\" style=\"background:%s\"></span>", colour);
}

static void put_entry_key(FILE *out, const Group *group) {
    if (group->entry_count < 2) { return; }
    fputs("<p class=\"key\">", out);
    for (size_t i = 0; i < group->entry_count && i < COLOURS; i++) {
        fputs("<span>", out);
        put_swatch(out, entry_colours[i]);
        put_html(out, group->entries[i].name);
        fputs("</span> ", out);
    }
    if (group->entry_count > COLOURS) {
        put_swatch(out, "#9aa4af");
        put_both(out, "the others", "其余");
    }
    fputs("</p>\n", out);
}

static bool put_curves(FILE *out, const Group *group, Error *error) {
    char *name = NULL;
    size_t length = 0;
    FILE *text = open_memstream(&name, &length);
    CHECK(text);
    put_html_short(text, group->metric, 60);
    CHECK(fclose(text) == 0);
    const Plate plates[] = {
        {picture_metric, name, name, "", group->metric},
        {picture_train_loss, "training loss (mean of an epoch)", "训练损失（每轮平均）", "", NULL},
        {picture_validation_loss, "validation loss", "验证损失", "", NULL},
        {picture_step_loss,
         group->entry_count > 1 ? "training loss over steps, of the best; dark: moving average"
                                : "training loss over steps; dark: moving average",
         group->entry_count > 1 ? "训练损失随步数变化（最佳者）；深色为滑动平均" : "训练损失随步数变化；深色为滑动平均",
         "", NULL},
    };
    put_heading(out, "Learning curves", "学习曲线");
    put_entry_key(out, group);
    fputs("<div class=\"figures\">\n", out);
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof plates / sizeof plates[0]; i++) {
        ok = put_plate(out, group, &plates[i], error);
    }
    fputs("</div>\n", out);
    free(name);
    return ok;
}

static bool put_parameters(FILE *out, const Group *group, Error *error) {
    static const Plate plates[] = {
        {picture_importance, "importance", "重要性", "medium", NULL},
        {picture_parallel, "a line for each trial, from blue (worst) to orange (best); thick: the best trial",
         "每条线为一次试验，从蓝（最差）到橙（最好）；粗线为最佳试验", "wide halo", NULL},
    };
    const int64_t epoch = group_common_epoch(group);
    if (epoch == 0 || group->parameter_count == 0) { return true; }
    put_heading(out, "Parameters", "参数");
    fputs("<p class=\"note\">", out);
    put_both(out,
             "Trials are compared after epoch %lld, the last that all of them reached. Importance: how much of the "
             "metric's variance the values of one parameter explain alone (between groups of equal values; where most "
             "values are different, the squared rank correlation). The orange mark is what chance alone would give: "
             "trust only what is well above it. Effects of parameters together are not shown.",
             "各试验在第 %lld 轮（全部都到达的最后一轮）之后比较。重要性：单个参数的取值能解释指标方差的多少"
             "（相同取值分组的组间方差；若取值大多不同，则为秩相关系数的平方）。橙色标记是纯属偶然时的预期值，"
             "明显高于它才可信。参数之间的共同作用未显示。",
             (long long)epoch);
    fputs("</p>\n", out);
    return put_plate(out, group, &plates[0], error) && put_plate(out, group, &plates[1], error);
}

static void put_state_key(FILE *out) {
    const struct {
        const char *colour, *english, *chinese;
    } keys[] = {
        {state_colours[STATE_FINISHED], "finished", "完成"},
        {state_colours[STATE_PAUSED], "up to a rung", "到达淘汰点"},
        {state_colours[STATE_DIVERGED], "diverged", "发散"},
        {state_colours[STATE_FAILED], "failed", "失败"},
        {winner_colour, "W: winner", "W：优胜者"},
        {state_colours[STATE_RUNNING], "dashed: no result (running or killed)", "虚线：无结果（运行中或被终止）"}};
    fputs("<p class=\"key\">", out);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        fputs("<span>", out);
        put_swatch(out, keys[i].colour);
        put_pair(out, keys[i].english, keys[i].chinese);
        fputs("</span> ", out);
    }
    fputs("</p>\n", out);
}

static bool put_work(FILE *out, const Group *group, Error *error) {
    static const Plate plate = {picture_gantt, "which worker did which trial when", "各工作组何时执行哪次试验", "wide",
                                NULL};
    if (!group->segment_count) { return true; }
    put_heading(out, "Work", "执行");
    put_state_key(out);
    if (!put_plate(out, group, &plate, error)) { return false; }
    put_workers(out, group);
    return true;
}

static void put_title(FILE *out, const Group *group) {
    if (group->sweep) { put_pair(out, "Sweep ", "超参数搜索 "); }
    if (group->title[0]) {
        put_html(out, group->title);
    } else {
        put_pair(out, "Runs", "训练");
    }
}

static void put_contents(FILE *out, const Report *report) {
    if (report->count < 2) { return; }
    fputs("<ul>\n", out);
    for (size_t g = 0; g < report->count; g++) {
        fprintf(out, "<li><a href=\"#g%zu\">", g + 1);
        put_title(out, &report->groups[g]);
        fputs("</a></li>\n", out);
    }
    fputs("</ul>\n", out);
}

static bool put_group(FILE *out, const Group *group, size_t number, Error *error) {
    fprintf(out, "<section id=\"g%zu\">\n<h2>", number);
    put_title(out, group);
    fputs("</h2>\n", out);
    put_summary(out, group);
    put_table(out, group);
    bool ok = put_curves(out, group, error);
    ok = ok && (!group->sweep || (put_parameters(out, group, error) && put_work(out, group, error)));
    put_confusion(out, group);
    put_command(out, group);
    fputs("</section>\n", out);
    return ok;
}

bool report_write_html(const Report *report, FILE *out, Error *error) {
    bool ok = true;
    fputs(head, out);
    fputs("<h1>bertune</h1>\n", out);
    put_contents(out, report);
    for (size_t g = 0; ok && g < report->count; g++) { ok = put_group(out, &report->groups[g], g + 1, error); }
    fputs("</main>\n</body>\n</html>\n", out);
    return ok;
}
