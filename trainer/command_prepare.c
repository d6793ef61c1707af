// `bertune prepare`: CSV to data set.
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "datasets/file.h"
#include "trainer/commands.h"
#include "trainer/number.h"
#include "trainer/prepare.h"

static const char usage[] =
    "Usage: bertune prepare CSV --out DATA.h5 (--vocab VOCAB.txt | --build-vocab[=SIZE] --vocab-out VOCAB.txt)\n"
    "Tokenizes a CSV file of labelled texts as Hugging Face's BertTokenizer does, splits it as scikit-learn's\n"
    "train_test_split does, and writes it as HDF5. CSV `-` is stdin.\n\n"
    "  --out FILE            data set to write; its directory must exist\n"
    "  --vocab FILE          vocab.txt of the model; a tokenizer_config.json beside it is honoured\n"
    "  --build-vocab[=SIZE]  learn a WordPiece vocabulary of at most SIZE tokens from the training rows [8000]\n"
    "  --vocab-out FILE      where to write it\n"
    "  --max-length N        tokens of a row, [CLS] and [SEP] counted [128]\n"
    "  --test-size F         part of the rows for validation [0.2]\n"
    "  --split-seed N        random_state of train_test_split [2023]\n"
    "  --dev-size F          part of the training rows for /dev, by the same rule [0]\n"
    "  --text-column NAME    [review]\n"
    "  --label-column NAME   integers from 0 [label]\n"
    "  --label-names A,B,... names of the labels 0, 1, ... [two labels: 消极,积极]\n"
    "  --on-bad-row WHAT     error: stop | skip: leave the row out and count it [error]\n"
    "  --help, --version\n";

enum {
    OUT = 1,
    VOCAB,
    BUILD_VOCAB,
    VOCAB_OUT,
    MAX_LENGTH,
    TEST_SIZE,
    SPLIT_SEED,
    DEV_SIZE,
    TEXT_COLUMN,
    LABEL_COLUMN,
    LABEL_NAMES,
    ON_BAD_ROW,
    HELP
};

static const struct option options[] = {
    {"out", required_argument, NULL, OUT},
    {"vocab", required_argument, NULL, VOCAB},
    {"build-vocab", optional_argument, NULL, BUILD_VOCAB},
    {"vocab-out", required_argument, NULL, VOCAB_OUT},
    {"max-length", required_argument, NULL, MAX_LENGTH},
    {"test-size", required_argument, NULL, TEST_SIZE},
    {"split-seed", required_argument, NULL, SPLIT_SEED},
    {"dev-size", required_argument, NULL, DEV_SIZE},
    {"text-column", required_argument, NULL, TEXT_COLUMN},
    {"label-column", required_argument, NULL, LABEL_COLUMN},
    {"label-names", required_argument, NULL, LABEL_NAMES},
    {"on-bad-row", required_argument, NULL, ON_BAD_ROW},
    {"help", no_argument, NULL, HELP},
    {0},
};

static bool number_option(const char *name, const char *text, bool whole, double least, double most, double *value,
                          Error *error) {
    const bool ok = whole ? number_parse_integer(text, value) : number_parse_real(text, value);
    if (ok && *value >= least && *value <= most) { return true; }
    return error_set(error, EX_USAGE, "--%s: expected %s from %g to %g, found `%s`", name,
                     whole ? "an integer" : "a number", least, most, text);
}

static bool set_option(PrepareOptions *prepare, int option, const char *value, Error *error) {
    double number = 8000;
    bool ok = true;
    switch (option) {
        case OUT:
            prepare->out = value;
            break;
        case VOCAB:
            prepare->vocabulary = value;
            break;
        case VOCAB_OUT:
            prepare->vocabulary_out = value;
            break;
        case TEXT_COLUMN:
            prepare->text_column = value;
            break;
        case LABEL_COLUMN:
            prepare->label_column = value;
            break;
        case LABEL_NAMES:
            prepare->label_names = value;
            break;
        case BUILD_VOCAB:
            ok = !value || number_option("build-vocab", value, true, 100, 1 << 24, &number, error);
            prepare->build_size = (int64_t)number;
            break;
        case MAX_LENGTH:
            ok = number_option("max-length", value, true, 2, 1 << 16, &number, error);
            prepare->max_length = (int)number;
            break;
        case SPLIT_SEED:
            ok = number_option("split-seed", value, true, 0, UINT32_MAX, &number, error);
            prepare->split_seed = (uint32_t)number;
            break;
        case TEST_SIZE:
            ok = number_option("test-size", value, false, 0, 0.999999, &prepare->test_size, error);
            break;
        case DEV_SIZE:
            ok = number_option("dev-size", value, false, 0, 0.999999, &prepare->dev_size, error);
            break;
        case ON_BAD_ROW:
            prepare->skip_bad_rows = strcmp(value, "skip") == 0;
            ok = prepare->skip_bad_rows || strcmp(value, "error") == 0 ||
                 error_set(error, EX_USAGE, "--on-bad-row: expected error or skip, found `%s`", value);
            break;
        default:
            return error_set(error, EX_USAGE, "unknown option or missing value");
    }
    return ok;
}

static bool check_options(const PrepareOptions *prepare, Error *error) {
    const bool build = prepare->build_size > 0;
    if (!prepare->csv) { return error_set(error, EX_USAGE, "expected one CSV file"); }
    if (!prepare->out) { return error_set(error, EX_USAGE, "--out is missing"); }
    if (build == (prepare->vocabulary != NULL)) {
        return error_set(error, EX_USAGE, "expected either --vocab or --build-vocab");
    }
    if (build != (prepare->vocabulary_out != NULL)) {
        return error_set(error, EX_USAGE, "--build-vocab and --vocab-out go together");
    }
    return true;
}

int command_prepare(int argc, char **argv) {
    PrepareOptions prepare = {
        .max_length = 128, .test_size = 0.2, .split_seed = 2023, .text_column = "review", .label_column = "label"};
    Error error;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == HELP) {
            fputs(usage, stdout);
            return EX_OK;
        }
        if (option == '?') { return usage_error("prepare", "unknown option or missing value: `%s`", argv[optind - 1]); }
        if (!set_option(&prepare, option, optarg, &error)) { return usage_error("prepare", "%s", error.text); }
    }
    if (argc - optind == 1) { prepare.csv = argv[optind]; }
    if (!check_options(&prepare, &error)) { return usage_error("prepare", "%s", error.text); }
    if (!check_single_process("prepare", &error) || !prepare_run(&prepare, &error)) {
        print_error(&error);
        return error.code;
    }
    return EX_OK;
}
