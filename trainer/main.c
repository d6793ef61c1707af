// bertune: fine-tunes BERT classifiers on many processes. This file finds the subcommand.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/commands.h"
#include "trainer/stop.h"

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
    {"sweep", command_sweep, "train many variants side by side and find the best"},
    {"bench", command_bench, "time the phases of training steps"},
    {"report", command_report, "runs and sweeps as a page, a table or for TensorBoard"},
    {"export", command_export, "write the model of a run as a plain Hugging Face directory"},
    {"verify", command_verify, "check the bytes of checkpoints, runs and data sets"},
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

bool plain_arguments(const char *command, const char *usage, int argc, char **argv, int *first, int *code) {
    *first = 1;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        *code = EX_OK;
        return false;
    }
    if (argc > 1 && strcmp(argv[1], "--") == 0) {
        *first = 2;
    } else if (argc > 1 && argv[1][0] == '-') {
        *code = usage_error(command, "unknown option `%s`", argv[1]);
        return false;
    }
    return true;
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

// --version anywhere before `--`.
static bool asks_version(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--version") == 0) { return true; }
    }
    return false;
}

// Threads of GNU OpenMP spin at every barrier for milliseconds, which makes a run many times slower where others use
// the processors, too. The length is read before main, so the program starts itself once more with a shorter one.
static void shorten_spinning(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) { return; }
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0 || setenv("GOMP_SPINCOUNT", "10000", 1) != 0) { return; }
    path[length] = 0;
    stop_hold();
    execv(path, argv);
}

static int run_command(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (asks_version(argc, argv)) { return command_info(1, (char *[]){"--version", NULL}); }
    if (strcmp(name, "--help") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0) { continue; }
        if (commands[i].run == command_train || commands[i].run == command_sweep) { stop_catch(); }
        if (commands[i].run == command_prepare || commands[i].run == command_export) { stop_leave(); }
        stop_release();
        return commands[i].run(argc - 1, argv + 1);
    }
    if (name[0]) { return usage_error("", "unknown command `%s`", name); }
    print_usage(stderr);
    return EX_USAGE;
}

int main(int argc, char **argv) {
    shorten_spinning(argv);
    reserve_standard_streams();
    setlocale(LC_CTYPE, "C.UTF-8");
    const int code = run_command(argc, argv);
    // A full disk or a closed pipe behind stdout shows only now, unless an earlier write met it.
    const bool failed_before = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !failed_before) { return code; }
    fprintf(stderr, "bertune: stdout: cannot write: %s\n", failed_before ? "an earlier write failed" : strerror(errno));
    return code ? code : EX_IOERR;
}
