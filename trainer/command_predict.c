// `bertune predict`: labels and probabilities of texts from the command line, a CSV file, or lines of stdin.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/classifier.h"
#include "trainer/commands.h"
#include "trainer/lines.h"
#include "trainer/table.h"

static const char usage[] =
    "Usage: bertune predict MODEL_OR_RUN [TEXT ...] [OPTION ...]\n"
    "Labels texts: those given, or a column of a CSV file, or (with neither, or with `-`) the lines of stdin.\n\n"
    "  --csv FILE          texts of a CSV file\n"
    "  --text-column NAME  its column [review]\n"
    "  --format FORMAT     text | json (an object a line) | csv [text]\n"
    "  --device NAME       auto | cpu | cuda [auto: a GPU where there is one]\n"
    "  --precision P       fp32 | bf16: inputs of matrix products rounded, faster [fp32]\n"
    "  --help, --version\n";

typedef struct {
    const char *model, *csv, *text_column, *format;
    char **texts;  // of the command line
    int text_count;
    Compute compute;
} Options;

static const struct option long_options[] = {
    {"csv", required_argument, NULL, 'c'},
    {"text-column", required_argument, NULL, 't'},
    {"format", required_argument, NULL, 'f'},
    {"device", required_argument, NULL, 'D'},
    {"precision", required_argument, NULL, 'p'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_text(const char *text, const float *probabilities, const ModelConfig *config) {
    printf("文本: %s\n预测标签: %s\n", text, config->label_names[largest_of(probabilities, config->classes)]);
    for (int c = config->classes - 1; c >= 0; c--) {
        printf("%s概率: %.4f%s", config->label_names[c], probabilities[c], c ? ", " : "\n");
    }
    puts("--------------------------------------------------");
}

static void print_json(const char *text, const float *probabilities, const ModelConfig *config) {
    json_t *each = json_object(), *json = json_object();
    const int label = largest_of(probabilities, config->classes);
    for (int c = config->classes - 1; c >= 0; c--) {
        json_object_set_new(each, config->label_names[c], json_real(probabilities[c]));
    }
    json_object_set_new(json, "text", json_string(text));
    json_object_set_new(json, "label", json_string(config->label_names[label]));
    json_object_set_new(json, "label_id", json_integer(label));
    json_object_set_new(json, "probabilities", each);
    json_dumpf(json, stdout, JSON_REAL_PRECISION(9));
    puts("");
    json_decref(json);
}

// A field as RFC 4180 wants it.
static void print_field(const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) { printf("%s%c", *text == '"' ? "\"" : "", *text); }
    putchar('"');
}

static void print_csv(const char *text, const float *probabilities, const ModelConfig *config) {
    print_field(text);
    putchar(',');
    print_field(config->label_names[largest_of(probabilities, config->classes)]);
    for (int c = 0; c < config->classes; c++) { printf(",%.6f", probabilities[c]); }
    puts("");
}

static void print_csv_header(const ModelConfig *config) {
    fputs("text,label", stdout);
    for (int c = 0; c < config->classes; c++) {
        char name[DATASET_NAME_SIZE + 16];
        snprintf(name, sizeof name, "probability_%s", config->label_names[c]);
        putchar(',');
        print_field(name);
    }
    puts("");
}

// The tokens of the texts end to end; release with reviews_free.
static Reviews tokenize(const Classifier *classifier, char *const *texts, const size_t *lengths, int64_t count) {
    Reviews reviews = {.rows = count};
    size_t capacity = 0;
    reviews.offsets = check_calloc((size_t)count + 1, sizeof *reviews.offsets);
    reviews.labels = check_calloc((size_t)count, sizeof *reviews.labels);
    for (int64_t i = 0; i < count; i++) {
        const size_t at = (size_t)reviews.offsets[i];
        if (at + (size_t)classifier->max_length > capacity) {
            capacity = 2 * (at + (size_t)classifier->max_length);
            reviews.tokens = check_realloc(reviews.tokens, capacity, sizeof *reviews.tokens);
        }
        reviews.offsets[i + 1] = reviews.offsets[i] + tokenizer_encode(&classifier->tokenizer, texts[i], lengths[i],
                                                                       classifier->max_length, reviews.tokens + at);
    }
    reviews.token_count = reviews.offsets[count];
    return reviews;
}

static bool predict_texts(Classifier *classifier, const char *format, char *const *texts, const size_t *lengths,
                          int64_t count, Error *error) {
    const ModelConfig *config = &classifier->model.config;
    const size_t classes = (size_t)classifier->bert.C;
    Reviews reviews = tokenize(classifier, texts, lengths, count);
    float *logits = classifier_logits(classifier, &reviews, NULL, error);
    if (logits && strcmp(format, "csv") == 0) { print_csv_header(config); }
    for (int64_t i = 0; logits && i < count; i++) {
        float *probabilities = logits + (size_t)i * classes;
        softmax(probabilities, classifier->bert.C);
        if (strcmp(format, "json") == 0) {
            print_json(texts[i], probabilities, config);
        } else if (strcmp(format, "csv") == 0) {
            print_csv(texts[i], probabilities, config);
        } else {
            print_text(texts[i], probabilities, config);
        }
    }
    const bool ok = logits != NULL;
    free(logits);
    reviews_free(&reviews);
    return ok;
}

static bool predict_csv(Classifier *classifier, const Options *options, Error *error) {
    Table table;
    if (!table_read(&table, options->csv, options->text_column, NULL, false, error)) { return false; }
    const bool ok = predict_texts(classifier, options->format, table.texts, table.lengths, table.rows, error);
    table_free(&table);
    return ok;
}

static bool predict_lines(Classifier *classifier, const Options *options, Error *error) {
    TextLines lines;
    const bool from_stdin =
        options->text_count == 0 || (options->text_count == 1 && strcmp(options->texts[0], "-") == 0);
    bool ok =
        from_stdin ? lines_read(&lines, "-", error) : lines_take(&lines, options->texts, options->text_count, error);
    if (!ok) { return false; }
    ok = predict_texts(classifier, options->format, lines.texts, lines.lengths, lines.count, error);
    lines_free(&lines);
    return ok;
}

static bool predict(const Options *options, Error *error) {
    Classifier classifier = {0};
    const bool ok =
        classifier_open(&classifier, options->model, options->compute, error) &&
        (options->csv ? predict_csv(&classifier, options, error) : predict_lines(&classifier, options, error));
    classifier_close(&classifier);
    return ok;
}

int command_predict(int argc, char **argv) {
    Options options = {.text_column = "review", .format = "text"};
    opterr = 0;
    const char *expected;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
            case 'c':
                options.csv = optarg;
                break;
            case 't':
                options.text_column = optarg;
                break;
            case 'f':
                options.format = optarg;
                break;
            case 'D':
            case 'p':
                if (!compute_parse(&options.compute, option, optarg, &expected)) {
                    return usage_error("predict", "--%s: expected %s, found `%s`",
                                       option == 'D' ? "device" : "precision", expected, optarg);
                }
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("predict", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (optind == argc) { return usage_error("predict", "expected a model or run directory"); }
    options.model = argv[optind++];
    options.texts = argv + optind;
    options.text_count = argc - optind;
    if (options.csv && options.text_count) { return usage_error("predict", "--csv and TEXT exclude each other"); }
    if (strcmp(options.format, "text") != 0 && strcmp(options.format, "json") != 0 &&
        strcmp(options.format, "csv") != 0) {
        return usage_error("predict", "--format: expected text, json or csv, found `%s`", options.format);
    }
    Error error;
    if (check_single_process("predict", &error) && predict(&options, &error)) { return EX_OK; }
    print_error(&error);
    return error.code;
}
