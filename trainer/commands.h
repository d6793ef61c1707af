// The subcommands of bertune. Each takes its own arguments with argv[0] being the subcommand, and returns the exit
// code.
#ifndef BERTUNE_COMMANDS_H
#define BERTUNE_COMMANDS_H

#include "kernels/check.h"

int command_prepare(int argc, char **argv);
int command_train(int argc, char **argv);
int command_evaluate(int argc, char **argv);
int command_predict(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_export(int argc, char **argv);
int command_report(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_sweep(int argc, char **argv);
int command_info(int argc, char **argv);

// Prints "bertune: <text>" to stderr.
void print_error(const Error *error);

// Prints the message and where to find help; returns EX_USAGE.
int usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The arguments of a command without options but --help: *first is the number of the first of them. False when the
// command is over, with its exit code.
bool plain_arguments(const char *command, const char *usage, int argc, char **argv, int *first, int *code);

// For commands that run as one process: false with EX_CONFIG when mpirun or srun started several.
bool check_single_process(const char *command, Error *error);

#endif
