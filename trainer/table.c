// See table.h.
#include "trainer/table.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/csv.h"
#include "datasets/dataset.h"
#include "datasets/file.h"

static bool find_column(const Csv *csv, const char *name, size_t *column, Error *error) {
    char found[512] = "";
    for (size_t i = 0; i < csv->count; i++) {
        if (strcmp(csv->fields[i], name) == 0) {
            *column = i;
            return true;
        }
        const size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%s`%.60s`", i ? ", " : "", csv->fields[i]);
    }
    return error_set(error, EX_DATAERR, "%s:%lld: no column `%s`; the header has %s", csv->name,
                     (long long)csv->record_line, name, found);
}

static bool parse_label(const char *text, int32_t *label) {
    char *end;
    const long value = strtol(text, &end, 10);
    *label = (int32_t)value;
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && value < DATASET_MAX_CLASSES;
}

static void append(Table *table, const Csv *csv, size_t text, int32_t label, int64_t record) {
    if (table->rows == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 1024;
        const size_t capacity = (size_t)table->capacity;
        table->texts = check_realloc(table->texts, capacity, sizeof *table->texts);
        table->lengths = check_realloc(table->lengths, capacity, sizeof *table->lengths);
        table->labels = check_realloc(table->labels, capacity, sizeof *table->labels);
        table->source_row = check_realloc(table->source_row, capacity, sizeof *table->source_row);
    }
    table->texts[table->rows] = check_strdup(csv->fields[text]);
    table->lengths[table->rows] = csv->lengths[text];
    table->labels[table->rows] = label;
    table->source_row[table->rows++] = record;
}

typedef struct {
    size_t fields, text, label;
    bool labelled;
} Columns;

static bool read_header(Csv *csv, Columns *columns, const char *text_column, const char *label_column, Error *error) {
    const CsvResult result = csv_next(csv, error);
    if (result == CSV_END) { return error_set(error, EX_DATAERR, "%s: empty, expected a header line", csv->name); }
    columns->fields = csv->count;
    columns->labelled = label_column != NULL;
    return result == CSV_RECORD && find_column(csv, text_column, &columns->text, error) &&
           (!label_column || find_column(csv, label_column, &columns->label, error));
}

static bool take_record(Table *table, const Csv *csv, const Columns *columns, int64_t record, Error *error) {
    int32_t label = 0;
    if (csv->count != columns->fields) {
        return error_set(error, EX_DATAERR, "%s:%lld: expected %zu fields as in the header, found %zu", csv->name,
                         (long long)csv->record_line, columns->fields, csv->count);
    }
    if (columns->labelled && !parse_label(csv->fields[columns->label], &label)) {
        return error_set(error, EX_DATAERR, "%s:%lld: label `%.60s`: expected an integer from 0 to %d", csv->name,
                         (long long)csv->record_line, csv->fields[columns->label], DATASET_MAX_CLASSES - 1);
    }
    append(table, csv, columns->text, label, record);
    return true;
}

static bool read_records(Table *table, Csv *csv, const Columns *columns, bool skip_bad, Error *error) {
    CsvResult result;
    for (int64_t record = 0; (result = csv_next(csv, error)) != CSV_END; record++) {
        const bool ok = result == CSV_RECORD && take_record(table, csv, columns, record, error);
        if (!ok && !skip_bad) { return false; }
        table->skipped += !ok;
    }
    return table->rows > 0 || error_set(error, EX_DATAERR, "%s: no rows behind the header", csv->name);
}

bool table_read(Table *table, const char *path, const char *text_column, const char *label_column, bool skip_bad,
                Error *error) {
    *table = (Table){0};
    char *bytes;
    size_t length;
    if (!file_read(&bytes, &length, path, (size_t)1 << 40, error)) { return false; }
    sha256_hex(table->source_sha256, bytes, length);
    Csv csv;
    Columns columns = {0};
    csv_init(&csv, strcmp(path, "-") == 0 ? "<stdin>" : path, bytes, length);
    const bool ok = read_header(&csv, &columns, text_column, label_column, error) &&
                    read_records(table, &csv, &columns, skip_bad, error);
    csv_free(&csv);
    free(bytes);
    if (!ok) { table_free(table); }
    return ok;
}

void table_free(Table *table) {
    for (int64_t i = 0; i < table->rows; i++) { free(table->texts[i]); }
    free(table->texts);
    free(table->lengths);
    free(table->labels);
    free(table->source_row);
    *table = (Table){0};
}
