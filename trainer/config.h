// The configuration of a run: one table of options (config_options.c) from which the file parser, the command line, the
// environment, the help text, validation and the resolved file all follow.
// Precedence: KEY=VALUE on the command line, BERTUNE_SECTION_KEY in the environment, the YAML file, the default.
#ifndef BERTUNE_CONFIG_H
#define BERTUNE_CONFIG_H

#include <stdio.h>

#include "kernels/check.h"

enum { CONFIG_TEXT_SIZE = 2048 };

typedef enum { INIT_PRETRAINED, INIT_RANDOM } Init;
typedef enum { SCHEDULE_CONSTANT, SCHEDULE_CONSTANT_WITH_WARMUP, SCHEDULE_LINEAR, SCHEDULE_COSINE } Schedule;
typedef enum { DECAY_ALL, DECAY_NO_BIAS_NORM } DecayScope;
typedef enum { DETERMINISM_OFF, DETERMINISM_RUN, DETERMINISM_ELASTIC } Determinism;
typedef enum { RANKS_ROOT, RANKS_ALL } EvaluationRanks;
typedef enum { TRAIN_SPLIT_TRAIN, TRAIN_SPLIT_ALL } TrainSplit;
typedef enum { EVALUATION_VALIDATION, EVALUATION_DEV } EvaluationSplit;
typedef enum { CHOICE_AUTO, CHOICE_CPU, CHOICE_CUDA } DeviceChoice;

// Plain data without pointers: rank 0 reads it and sends it to the others as bytes. The help texts of
// config_options.c say what each field means.
typedef struct {
    char model_path[CONFIG_TEXT_SIZE];
    int64_t model_init;
    double hidden_dropout_prob, attention_probs_dropout_prob;  // below 0: config.json's
    char data_path[CONFIG_TEXT_SIZE];
    int64_t train_split;
    int64_t num_train_epochs, max_steps;
    int64_t global_batch_size, gradient_accumulation_steps;
    double learning_rate;
    int64_t lr_scheduler_type;
    int64_t warmup_steps;
    double warmup_ratio;
    double weight_decay;
    int64_t weight_decay_scope;
    double adam_beta1, adam_beta2, adam_epsilon;
    double max_grad_norm;
    double divergence_factor;
    int64_t divergence_window;
    int64_t seed;
    bool shuffle;
    int64_t precision, determinism, virtual_shards;
    int64_t evaluation_batch_size, evaluation_ranks, evaluation_split;
    char run_dir[CONFIG_TEXT_SIZE];
    int64_t device;
    bool share_gpu;
    char resume[CONFIG_TEXT_SIZE];  // auto, never, or a checkpoint directory
    double max_time, step_timeout;
    bool profile;
    int64_t save_steps, save_total_limit;
} Config;

// Reads path (YAML; "-": stdin), the environment and count overrides KEY=VALUE. Errors are EX_CONFIG with file and line
// and the nearest known key, or EX_NOINPUT for a missing file.
bool config_load(Config *config, const char *path, char *const *overrides, int count, Error *error);

// The same of a file alone: what a run has resolved already.
bool config_read(Config *config, const char *path, Error *error);

// The resolved configuration as YAML; release with free.
char *config_to_yaml(const Config *config);

// Every option with its default and meaning, for --help.
void config_print_help(FILE *out);

// A configuration file of all defaults, with the meaning of each key as a comment: configs/default.yaml.
void config_print_defaults(FILE *out);

#endif
