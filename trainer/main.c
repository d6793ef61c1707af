// bertune: fine-tunes BERT classifiers on many processes. This file finds the subcommand.
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

// A file opened while one of these was closed would get its number, and messages would be written into it. stdout and
// stderr are opened for reading, so that writing to them stays an error.
static void reserve_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            _exit(EX_OSERR);
        }
    }
}

static int run_command(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    const bool subcommand_version = argc == 3 && strcmp(argv[2], "--version") == 0;
    if (strcmp(name, "--version") == 0 || subcommand_version) { return command_info(1, (char *[]){"--version", NULL}); }
    if (strcmp(name, "--help") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) { return commands[i].run(argc - 1, argv + 1); }
    }
    if (name[0]) { return usage_error("", "unknown command `%s`", name); }
    print_usage(stderr);
    return EX_USAGE;
}

int main(int argc, char **argv) {
    reserve_standard_streams();
    setlocale(LC_CTYPE, "C.UTF-8");
    const int code = run_command(argc, argv);
    // A full disk or a closed pipe behind stdout shows only now, unless an earlier write met it.
    const bool failed_before = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !failed_before) { return code; }
    fprintf(stderr, "bertune: stdout: cannot write: %s\n", failed_before ? "an earlier write failed" : strerror(errno));
    return code ? code : EX_IOERR;
}
