// `bertune tokenize`: token ids of the lines of stdin.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "datasets/tokenizer.h"
#include "trainer/commands.h"
#include "trainer/lines.h"
#include "trainer/number.h"

static const char usage[] =
    "Usage: bertune tokenize VOCAB.txt [--max-length N] < LINES\n"
    "Writes a line of space-separated token ids for each line of stdin, as Hugging Face's BertTokenizer gives them.\n\n"
    "  --max-length N  tokens of a line, [CLS] and [SEP] counted [128]\n"
    "  --help, --version\n";

static const struct option long_options[] = {
    {"max-length", required_argument, NULL, 'm'}, {"help", no_argument, NULL, 'h'}, {0}};

static bool tokenize(const char *vocabulary, int max_length, Error *error) {
    Tokenizer tokenizer;
    TextLines lines;
    if (!tokenizer_open(&tokenizer, vocabulary, error)) { return false; }
    const bool ok = lines_read(&lines, "-", error);
    if (ok) {
        int32_t *ids = check_calloc((size_t)max_length, sizeof *ids);
        for (int64_t i = 0; i < lines.count; i++) {
            const int count = tokenizer_encode(&tokenizer, lines.texts[i], lines.lengths[i], max_length, ids);
            for (int t = 0; t < count; t++) { printf("%s%d", t ? " " : "", ids[t]); }
            putchar('\n');
        }
        free(ids);
        lines_free(&lines);
    }
    tokenizer_free(&tokenizer);
    return ok;
}

int command_tokenize(int argc, char **argv) {
    double max_length = 128;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
            case 'm':
                if (!number_parse_integer(optarg, &max_length) || max_length < 2 || max_length > 1 << 16) {
                    return usage_error("tokenize", "--max-length: expected an integer from 2 to 65536, found `%s`",
                                       optarg);
                }
                break;
            case 'h':
                fputs(usage, stdout);
                return EX_OK;
            default:
                return usage_error("tokenize", "unknown option or missing value: `%s`", argv[optind - 1]);
        }
    }
    if (argc - optind != 1) { return usage_error("tokenize", "expected one VOCAB.txt"); }
    Error error;
    if (check_single_process("tokenize", &error) && tokenize(argv[optind], (int)max_length, &error)) { return EX_OK; }
    print_error(&error);
    return error.code;
}
