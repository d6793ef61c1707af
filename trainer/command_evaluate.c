// `bertune evaluate`: the figures of a model on a part of a data set.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/classifier.h"
#include "trainer/commands.h"
#include "trainer/number.h"

static const char usage[] =
    "Usage: bertune evaluate MODEL_OR_RUN --data DATA.h5 [OPTION ...]\n"
    "Loss, accuracy, precision, recall, F1 and confusion matrix of a model on a data set of `bertune prepare`.\n\n"
    "  --data FILE       the data set\n"
    "  --split NAME      train | validation | dev [validation]\n"
    "  --format FORMAT   text | json [text]\n"
    "  --batch-size N    loss is the mean of the means of batches of N rows, as training prints it [16]\n"
    "  --device NAME     auto | cpu | cuda [auto: a GPU where there is one]\n"
    "  --precision P     fp32 | bf16: inputs of matrix products rounded, faster [fp32]\n"
    "  --help, --version\n";

typedef struct {
    const char *model, *data, *split, *format;
    int64_t batch_size;
    Compute compute;
} Options;

static const struct option long_options[] = {
    {"data", required_argument, NULL, 'd'},   {"split", required_argument, NULL, 's'},
    {"format", required_argument, NULL, 'f'}, {"batch-size", required_argument, NULL, 'b'},
    {"device", required_argument, NULL, 'D'}, {"precision", required_argument, NULL, 'p'},
    {"help", no_argument, NULL, 'h'},         {0},
};

static void print_text(const Scores *scores, const ModelConfig *config) {
    printf("rows: %lld\nloss: %s\naccuracy: %.4f\n", (long long)scores->rows, number_format(scores->loss).text,
           scores->accuracy);
    for (int c = 0; c < scores->classes; c++) {
        printf("%s: precision %.4f, recall %.4f, F1 %.4f\n", config->label_names[c], scores->precision[c],
               scores->recall[c], scores->f1[c]);
    }
    puts("confusion matrix (line: label, column: prediction):");
    for (int label = 0; label < scores->classes; label++) {
        for (int c = 0; c < scores->classes; c++) {
            printf("%8lld", (long long)scores->confusion[(size_t)label * (size_t)scores->classes + (size_t)c]);
        }
        printf("  %s\n", config->label_names[label]);
    }
}

static void print_json(const Scores *scores, const ModelConfig *config) {
    json_t *labels = json_object(), *json = json_object(), *confusion = json_array();
    for (int c = 0; c < scores->classes; c++) {
        json_object_set_new(labels, config->label_names[c],
                            json_pack("{sf,sf,sf}", "precision", scores->precision[c], "recall", scores->recall[c],
                                      "f1", scores->f1[c]));
        json_t *line = json_array();
        for (int p = 0; p < scores->classes; p++) {
            json_array_append_new(line,
                                  json_integer(scores->confusion[(size_t)c * (size_t)scores->classes + (size_t)p]));
        }
        json_array_append_new(confusion, line);
    }
    const size_t main_class = scores->classes == 2 ? 1 : 0;
    json_object_set_new(json, "rows", json_integer(scores->rows));
    json_object_set_new(json, "loss", json_real(scores->loss));
    json_object_set_new(json, "accuracy", json_real(scores->accuracy));
    json_object_set_new(json, "validation_accuracy", json_real(scores->batch_accuracy));
    if (scores->classes == 2) {
        json_object_set_new(json, "precision", json_real(scores->precision[main_class]));
        json_object_set_new(json, "recall", json_real(scores->recall[main_class]));
    }
    json_object_set_new(json, "f1", json_real(scores_f1(scores)));
    json_object_set_new(json, "macro_f1", json_real(scores->macro_f1));
    json_object_set_new(json, "labels", labels);
    json_object_set_new(json, "confusion", confusion);
    json_dumpf(json, stdout, JSON_REAL_PRECISION(17));
    puts("");
    json_decref(json);
}

static bool check_data(const Classifier *classifier, const DatasetInfo *info, const char *path, Error *error) {
    if (!model_check_vocabulary(&classifier->model, classifier->directory, info, path, error)) { return false; }
    if (info->max_length > classifier->model.config.max_positions || info->classes > classifier->model.config.classes ||
        info->vocabulary_size > classifier->model.config.vocab_size) {
        return error_set(error, EX_CONFIG, "%s: rows of up to %d tokens and %d labels, the model takes %d and %d", path,
                         info->max_length, info->classes, classifier->model.config.max_positions,
                         classifier->model.config.classes);
    }
    return true;
}

static bool evaluate_reviews(Classifier *classifier, const Options *options, const Reviews *reviews, Error *error) {
    const int classes = classifier->bert.C;
    const size_t rows = (size_t)reviews->rows;
    float *losses = check_calloc(rows, sizeof *losses), *logits = classifier_logits(classifier, reviews, losses, error);
    if (!logits) {
        free(losses);
        return false;
    }
    int32_t *predictions = check_calloc(rows, sizeof *predictions);
    for (size_t i = 0; i < rows; i++) { predictions[i] = largest_of(logits + i * (size_t)classes, classes); }
    Scores scores;
    scores_compute(&scores, losses, predictions, reviews->labels, reviews->rows, classes, options->batch_size);
    if (strcmp(options->format, "json") == 0) {
        print_json(&scores, &classifier->model.config);
    } else {
        print_text(&scores, &classifier->model.config);
    }
    scores_free(&scores);
    free(predictions);
    free(losses);
    free(logits);
    return true;
}

static bool evaluate(const Options *options, Error *error) {
    Classifier classifier = {0};
    Dataset dataset = {0};
    Reviews reviews = {0};
    bool ok = classifier_open(&classifier, options->model, options->compute, error) &&
              dataset_verify(options->data, error) && dataset_open(&dataset, options->data, H5P_DEFAULT, error) &&
              check_data(&classifier, &dataset.info, options->data, error) &&
              dataset_read(&dataset, options->split, &reviews, error);
    if (ok && dataset.info.max_length > classifier.max_length) {
        inference_close(&classifier.inference);
        inference_open(&classifier.inference, classifier.device, &classifier.bert, dataset.info.max_length);
    }
    ok = ok && evaluate_reviews(&classifier, options, &reviews, error);
    reviews_free(&reviews);
    dataset_close(&dataset);
    classifier_close(&classifier);
    return ok;
}

static bool one_of(const char *value, const char *a, const char *b, const char *c) {
    return strcmp(value, a) == 0 || strcmp(value, b) == 0 || strcmp(value, c) == 0;
}

int command_evaluate(int argc, char **argv) {
    Options options = {.split = "validation", .format = "text", .batch_size = 16};
    double number;
    opterr = 0;
    const char *expected;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
            case 'd':
                options.data = optarg;
                break;
            case 's':
                options.split = optarg;
                break;
            case 'f':
                options.format = optarg;
                break;
            case 'b':
                if (!number_parse_integer(optarg, &number) || number < 1 || number > 1 << 20) {
                    return usage_error("evaluate", "--batch-size: expected an integer from 1, found `%s`", optarg);
                }
                options.batch_size = (int64_t)number;
                break;
            case 'D':
            case 'p':
                if (!compute_parse(&options.compute, option, optarg, &expected)) {
                    return usage_error("evaluate", "--%s: expected %s, found `%s`",
                                       option == 'D' ? "device" : "precision", expected, optarg);
                }
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("evaluate", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (argc - optind != 1) { return usage_error("evaluate", "expected one model or run directory"); }
    options.model = argv[optind];
    if (!options.data) { return usage_error("evaluate", "--data is missing"); }
    if (!one_of(options.split, "train", "validation", "dev")) {
        return usage_error("evaluate", "--split: expected train, validation or dev, found `%s`", options.split);
    }
    if (!one_of(options.format, "text", "json", "json")) {
        return usage_error("evaluate", "--format: expected text or json, found `%s`", options.format);
    }
    Error error;
    if (check_single_process("evaluate", &error) && evaluate(&options, &error)) { return EX_OK; }
    print_error(&error);
    return error.code;
}
