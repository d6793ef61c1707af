// See report_csv.h.
#include "trainer/report/report_csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/number.h"

const char *state_name(State state) {
    static const char *const names[STATES] = {"finished",    "stopped", "paused",   "running",
                                              "interrupted", "waiting", "diverged", "failed"};
    return names[state];
}

static void put_field(FILE *out, const char *text) {
    if (!strpbrk(text, ",\"\r\n") && text[0] != ' ') {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) { fprintf(out, "%s%c", *text == '"' ? "\"" : "", *text); }
    fputc('"', out);
}

static void put_real(FILE *out, double value) { fprintf(out, ",%s", isnan(value) ? "" : number_format(value).text); }

static size_t find_name(char *const *names, size_t count, const char *name) {
    size_t i = 0;
    while (i < count && strcmp(names[i], name) != 0) { i++; }
    return i;
}

// The names of all parameters, borrowed, in the order of the groups.
static char **all_parameters(const Report *report, size_t *count) {
    char **names = NULL;
    *count = 0;
    for (size_t g = 0; g < report->count; g++) {
        const Group *group = &report->groups[g];
        for (size_t i = 0; i < group->parameter_count; i++) {
            if (find_name(names, *count, group->parameters[i]) < *count) { continue; }
            names = room_for(names, *count, sizeof *names);
            names[(*count)++] = group->parameters[i];
        }
    }
    return names;
}

static void put_entry(FILE *out, const Group *group, const Entry *entry, char *const *names, size_t count) {
    put_field(out, group->sweep ? group->title : "");
    fputc(',', out);
    put_field(out, entry->name);
    fputc(',', out);
    put_field(out, entry->directory);
    fprintf(out, ",%s,%lld,%lld,", state_name(entry->state), (long long)entry->epochs, (long long)entry->steps);
    put_field(out, group->metric);
    put_real(out, entry->metric);
    put_real(out, entry->validation_loss);
    put_real(out, entry->accuracy);
    put_real(out, entry->f1);
    for (size_t i = 0; i < count; i++) {
        const size_t own = find_name(group->parameters, group->parameter_count, names[i]);
        fputc(',', out);
        if (own < group->parameter_count) { put_field(out, entry->values[own]); }
    }
    put_real(out, entry->seconds);
    put_real(out, entry->samples_per_second);
    fputs("\r\n", out);
}

void report_write_csv(const Report *report, FILE *out) {
    size_t count;
    char **names = all_parameters(report, &count);
    fputs("sweep,trial,directory,status,epochs,steps,metric_name,metric,validation_loss,accuracy,f1", out);
    for (size_t i = 0; i < count; i++) {
        fputc(',', out);
        put_field(out, names[i]);
    }
    fputs(",seconds,samples_per_second\r\n", out);
    for (size_t g = 0; g < report->count; g++) {
        const Group *group = &report->groups[g];
        for (size_t i = 0; i < group->entry_count; i++) { put_entry(out, group, &group->entries[i], names, count); }
        if (group->winner) { put_entry(out, group, group->winner, names, count); }
    }
    free(names);
}
