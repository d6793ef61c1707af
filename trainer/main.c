// bertune: fine-tunes BERT classifiers on many processes. This file finds the subcommand.
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"prepare", command_prepare, "tokenize and split a CSV file into a data set (HDF5)"},
    {"train", command_train, "fine-tune a model, alone or under mpirun or srun"},
    {"evaluate", command_evaluate, "loss, accuracy, F1 and confusion matrix of a model on a data set"},
    {"predict", command_predict, "label texts"},
    {"tokenize", command_tokenize, "token ids of lines of text"},
    {"info", command_info, "what this build and machine can do"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out) {
    fputs("Usage: bertune COMMAND [ARGUMENTS]\n\nCommands (bertune COMMAND --help tells more):\n", out);
    for (size_t i = 0; i < COMMANDS; i++) { fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].what); }
    fputs("\n  --help     this text\n  --version  version, backends and libraries\n", out);
}

void print_error(const Error *error) { fprintf(stderr, "bertune: %s\n", error->text); }

int usage_error(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "bertune%s%s: ", command[0] ? " " : "", command);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nTry `bertune%s%s --help`.\n", command[0] ? " " : "", command);
    va_end(arguments);
    return EX_USAGE;
}

bool check_single_process(const char *command, Error *error) {
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const char *size = getenv(sizes[i]);
        if (size && atoi(size) > 1) {
            return error_set(error, EX_CONFIG,
                             "`bertune %s` is one process, but %s processes were started (%s); run it "
                             "without mpirun or with one task",
                             command, size, sizes[i]);
        }
    }
    return true;
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "C.UTF-8");
    const char *name = argc > 1 ? argv[1] : "";
    const bool subcommand_version = argc == 3 && strcmp(argv[2], "--version") == 0;
    if (strcmp(name, "--version") == 0 || subcommand_version) { return command_info(1, (char *[]){"--version", NULL}); }
    if (strcmp(name, "--help") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    int code = -1;
    for (size_t i = 0; i < COMMANDS && code < 0; i++) {
        if (strcmp(commands[i].name, name) == 0) { code = commands[i].run(argc - 1, argv + 1); }
    }
    if (code < 0) {
        if (!name[0]) {
            print_usage(stderr);
            return EX_USAGE;
        }
        return usage_error("", "unknown command `%s`", name);
    }
    // A full disk or a closed pipe behind stdout shows only now.
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("bertune: stdout");
        return code ? code : EX_IOERR;
    }
    return code;
}
