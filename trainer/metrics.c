// See metrics.h.
#include "trainer/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/number.h"

// Whether a line tells of nothing after the step and so many epochs.
static bool keep_line(const char *line, size_t length, int64_t step, int64_t epochs) {
    json_t *json = json_loadb(line, length, 0, NULL);
    const char *event = json_string_value(json_object_get(json, "event"));
    bool keep = event != NULL;
    if (keep && (strcmp(event, "step") == 0 || strcmp(event, "checkpoint") == 0)) {
        keep = json_integer_value(json_object_get(json, "step")) <= step;
    } else if (keep && strcmp(event, "epoch") == 0) {
        keep = json_integer_value(json_object_get(json, "epoch")) <= epochs;
    } else if (keep && strcmp(event, "end") == 0) {
        keep = false;
    }
    json_decref(json);
    return keep;
}

static bool cut_back(const char *path, int64_t step, int64_t epochs, Error *error) {
    char *text, *kept;
    size_t length, kept_length = 0;
    if (access(path, F_OK) != 0) { return true; }
    if (!file_read(&text, &length, path, (size_t)1 << 40, error)) { return false; }
    FILE *out = open_memstream(&kept, &kept_length);
    CHECK(out);
    for (const char *line = text; *line;) {
        const char *newline = strchr(line, '\n');
        if (!newline) { break; }
        const size_t width = (size_t)(newline + 1 - line);
        if (keep_line(line, width, step, epochs)) { fwrite(line, 1, width, out); }
        line = newline + 1;
    }
    CHECK(fclose(out) == 0);
    const bool ok = kept_length == length || file_write(path, kept, kept_length, error);
    free(kept);
    free(text);
    return ok;
}

json_t *metrics_last_epoch(const char *path, Error *error) {
    char *text;
    size_t length;
    json_t *last = NULL;
    if (!file_read(&text, &length, path, (size_t)1 << 40, error)) { return NULL; }
    for (const char *line = text, *newline; (newline = strchr(line, '\n')); line = newline + 1) {
        json_t *json = json_loadb(line, (size_t)(newline - line), 0, NULL);
        const char *event = json_string_value(json_object_get(json, "event"));
        if (event && strcmp(event, "epoch") == 0) {
            json_decref(last);
            last = json_incref(json);
        }
        json_decref(json);
    }
    free(text);
    if (!last) { error_set(error, EX_DATAERR, "%s: no epoch has ended", path); }
    return last;
}

bool metrics_open(Metrics *metrics, const char *path, int64_t step, int64_t epochs, Error *error) {
    if (!cut_back(path, step, epochs, error)) { return false; }
    snprintf(metrics->path, sizeof metrics->path, "%s", path);
    metrics->file = fopen(path, "a");
    return metrics->file || error_set(error, EX_CANTCREAT, "%s: cannot create: %s", path, strerror(errno));
}

void metrics_close(Metrics *metrics) {
    if (metrics->file && fclose(metrics->file) != 0) {
        die(EX_IOERR, "%s: cannot write: %s", metrics->path, strerror(errno));
    }
    metrics->file = NULL;
}

void metrics_begin(Metrics *metrics, const char *event) { fprintf(metrics->file, "{\"event\": \"%s\"", event); }

void metrics_integer(Metrics *metrics, const char *key, int64_t value) {
    fprintf(metrics->file, ", \"%s\": %lld", key, (long long)value);
}

void metrics_text(Metrics *metrics, const char *key, const char *value) {
    json_t *text = json_string(value);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : check_strdup("null");
    fprintf(metrics->file, ", \"%s\": %s", key, quoted);
    free(quoted);
    json_decref(text);
}

void metrics_real(Metrics *metrics, const char *key, double value) {
    if (isfinite(value)) {
        fprintf(metrics->file, ", \"%s\": %s", key, number_format(value).text);
    } else {
        fprintf(metrics->file, ", \"%s\": null, \"%s_not_finite\": true", key, key);
    }
}

void metrics_confusion(Metrics *metrics, const Scores *scores) {
    fputs(", \"confusion\": ", metrics->file);
    scores_print_confusion(scores, metrics->file);
}

void metrics_json(Metrics *metrics, const char *key, json_t *value) {
    fprintf(metrics->file, ", \"%s\": ", key);
    json_dumpf(value, metrics->file, JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    json_decref(value);
}

void metrics_end(Metrics *metrics) {
    fputs("}\n", metrics->file);
    if (fflush(metrics->file) != 0) { die(EX_IOERR, "%s: cannot write: %s", metrics->path, strerror(errno)); }
}

void metrics_sync(const Metrics *metrics) {
    if (TEMP_FAILURE_RETRY(fsync(fileno(metrics->file))) == 0 || errno == EINVAL || errno == ENOTSUP) { return; }
    die(EX_IOERR, "%s: cannot sync: %s", metrics->path, strerror(errno));
}
