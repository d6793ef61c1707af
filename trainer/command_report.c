// `bertune report`: runs and sweeps as a page, a table or event files of TensorBoard.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/commands.h"
#include "trainer/report/report_csv.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_tensorboard.h"

static const char usage[] =
    "Usage: bertune report RUN_OR_DIR ... [-o FILE] [--csv FILE] [--tensorboard DIR]\n"
    "Shows runs and sweeps: run directories, sweep directories, and what lies below other directories.\n\n"
    "  -o, --output FILE   one page of HTML with everything in it, in English and Chinese; needs gnuplot\n"
    "  --csv FILE          the table of all runs and trials\n"
    "  --tensorboard DIR   event files, a directory for each run\n"
    "  --help, --version\n\n"
    "At least one of the three is needed; - as a FILE is stdout.\n";

typedef struct {
    const char *html, *csv, *tensorboard;
} Options;

static const struct option long_options[] = {
    {"output", required_argument, NULL, 'o'},
    {"csv", required_argument, NULL, 'c'},
    {"tensorboard", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

// Both are made before anything is written: a page that cannot be drawn leaves no table either.
typedef struct {
    char *bytes;
    size_t length;
} Text;

static bool make_html(const Report *report, Text *text, Error *error) {
    FILE *out = open_memstream(&text->bytes, &text->length);
    CHECK(out);
    const bool ok = report_write_html(report, out, error);
    CHECK(fclose(out) == 0);
    return ok;
}

static void make_csv(const Report *report, Text *text) {
    FILE *out = open_memstream(&text->bytes, &text->length);
    CHECK(out);
    report_write_csv(report, out);
    CHECK(fclose(out) == 0);
}

static bool write_text(const char *path, const Text *text, Error *error) {
    if (!path) { return true; }
    if (strcmp(path, "-") != 0) { return file_write(path, text->bytes, text->length, error); }
    fwrite(text->bytes, 1, text->length, stdout);
    return true;
}

static bool write_report(const Report *report, const Options *options, Error *error) {
    Text html = {0}, csv = {0};
    make_csv(report, &csv);
    const bool ok = (!options->html || make_html(report, &html, error)) && write_text(options->html, &html, error) &&
                    write_text(options->csv, &csv, error) &&
                    (!options->tensorboard || report_write_tensorboard(report, options->tensorboard, error));
    free(html.bytes);
    free(csv.bytes);
    return ok;
}

static bool make_report(const Options *options, char **directories, int count, Error *error) {
    Report report;
    if (!check_single_process("report", error) || !report_read(&report, directories, count, error)) { return false; }
    const bool ok = write_report(&report, options, error);
    report_free(&report);
    return ok;
}

int command_report(int argc, char **argv) {
    Options options = {0};
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "o:", long_options, NULL)) != -1;) {
        switch (option) {
            case 'o':
                options.html = optarg;
                break;
            case 'c':
                options.csv = optarg;
                break;
            case 't':
                options.tensorboard = optarg;
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("report", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (optind == argc) { return usage_error("report", "expected a directory of a run or sweep"); }
    if (!options.html && !options.csv && !options.tensorboard) {
        return usage_error("report", "one of --output, --csv and --tensorboard is needed");
    }
    if (options.html && options.csv && strcmp(options.html, options.csv) == 0) {
        return usage_error("report", "--output and --csv name the same file");
    }
    Error error;
    if (make_report(&options, argv + optind, argc - optind, &error)) { return EX_OK; }
    print_error(&error);
    return error.code;
}
