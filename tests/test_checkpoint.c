// Checkpoints: what is saved is loaded back to the bit, any damage is found, the newest valid one is chosen, the right
// ones are kept, a full disk leaves nothing behind; and metrics.jsonl is cut back to where a run goes on.
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/file.h"
#include "kernels/philox.h"
#include "tests/model_fixture.h"
#include "tests/scratch.h"
#include "trainer/checkpoint.h"
#include "trainer/metrics.h"

typedef struct {
    ModelFixture fixture;
    float *moments;
    Snapshot snapshot;
} Run;

static Progress make_progress(int64_t step) {
    Progress progress = {.step = step,
                         .epoch_loss = 0.1 + 0.2,
                         .best_accuracy = 1.0 / 3,
                         .best_step = 7,
                         .train_rows = 24,
                         .global_batch_size = 8,
                         .divergence = {0.7 / 3, 0.1 / 3, 11},
                         .seed = 9007199254740991,
                         .virtual_shards = 16,
                         .shuffle = true};
    memset(progress.source_sha256, 'c', 64);
    memset(progress.vocabulary_sha256, 'd', 64);
    return progress;
}

static void run_open(Run *run, int64_t step) {
    model_fixture_open(&run->fixture, 2);
    const size_t total = run->fixture.bert.layout.total;
    run->moments = check_calloc(2 * total, sizeof *run->moments);
    for (size_t i = 0; i < 2 * total; i++) {
        run->moments[i] = (float)philox((uint32_t)i, 0, 0, 0, 9, 0).lane[0] * 1e-12f;
    }
    run->snapshot = (Snapshot){&run->fixture.model, &run->fixture.bert,   &run->fixture.weights,
                               run->moments,        run->moments + total, make_progress(step)};
}

static void run_close(Run *run) {
    free(run->moments);
    model_fixture_close(&run->fixture);
}

static void save(Run *run, const char *directory, int64_t step) {
    Error error;
    run->snapshot.progress.step = step;
    if (!checkpoint_save(&run->snapshot, directory, &error)) { fail_msg("%s", error.text); }
}

static ScratchPath join(const ScratchPath *directory, const char *name) {
    ScratchPath path;
    path_join(path.text, sizeof path.text, directory->text, name);
    return path;
}

static void assert_progress(const Progress *a, const Progress *b) {
    assert_int_equal(a->step, b->step);
    assert_true(a->epoch_loss == b->epoch_loss && a->best_accuracy == b->best_accuracy);
    assert_int_equal(a->best_step, b->best_step);
    assert_true(a->divergence.mean == b->divergence.mean && a->divergence.best == b->divergence.best);
    assert_int_equal(a->divergence.steps, b->divergence.steps);
    assert_int_equal(a->train_rows, b->train_rows);
    assert_int_equal(a->global_batch_size, b->global_batch_size);
    assert_int_equal(a->seed, b->seed);
    assert_int_equal(a->virtual_shards, b->virtual_shards);
    assert_int_equal(a->shuffle, b->shuffle);
    assert_string_equal(a->source_sha256, b->source_sha256);
    assert_string_equal(a->vocabulary_sha256, b->vocabulary_sha256);
}

static void assert_weights(const Run *a, const Run *b) {
    const ModelConfig *config = &a->fixture.model.config;
    const Weights *x = &a->fixture.weights, *y = &b->fixture.weights;
    const size_t row = (size_t)config->hidden_size * sizeof(float), total = a->fixture.bert.layout.total;
    assert_memory_equal(x->parameters, y->parameters, total * sizeof(float));
    assert_memory_equal(x->word, y->word, (size_t)config->vocab_size * row);
    assert_memory_equal(x->position, y->position, (size_t)config->max_positions * row);
    assert_memory_equal(x->type, y->type, (size_t)config->type_vocab_size * row);
    assert_memory_equal(a->moments, b->moments, 2 * total * sizeof(float));
}

static void test_save_and_load(void **state) {
    (void)state;
    Run run, other;
    Error error;
    const ScratchPath directory = scratch_directory("save"), path = join(&directory, "step-00000012");
    run_open(&run, 0);
    run_open(&other, 0);
    const size_t total = run.fixture.bert.layout.total;
    for (size_t i = 0; i < total; i++) { run.fixture.weights.parameters[i] *= 1.1f; }
    save(&run, directory.text, 12);
    memset(other.moments, 0, 2 * total * sizeof(float));
    other.snapshot.progress = (Progress){0};
    if (!checkpoint_load(&other.snapshot, path.text, &error)) { fail_msg("%s", error.text); }
    assert_progress(&other.snapshot.progress, &run.snapshot.progress);
    assert_weights(&run, &other);
    assert_int_equal(scratch_count(directory.text), 1);
    assert_int_equal(scratch_count(path.text), 7);

    Model model;  // it is a model directory
    assert_true(model_open(&model, path.text, false, &error));
    assert_int_equal(model.config.layers, 2);
    assert_string_equal(model.vocabulary_sha256, run.fixture.model.vocabulary_sha256);
    model_close(&model);
    run_close(&run);
    run_close(&other);
}

static void test_same_bytes(void **state) {
    (void)state;
    Run run;
    run_open(&run, 0);
    const ScratchPath first = scratch_directory("first"), second = scratch_directory("second");
    save(&run, first.text, 3);
    save(&run, second.text, 3);
    save(&run, second.text, 3);  // in place of one that is there
    unsigned char *manifests[2];
    size_t lengths[2];
    manifests[0] = scratch_read(join(&first, "step-00000003/MANIFEST").text, &lengths[0]);
    manifests[1] = scratch_read(join(&second, "step-00000003/MANIFEST").text, &lengths[1]);
    assert_string_equal((char *)manifests[0], (char *)manifests[1]);
    free(manifests[0]);
    free(manifests[1]);
    run_close(&run);
}

static const char *const files[] = {"MANIFEST",          "config.json",           "vocab.txt", "tokenizer_config.json",
                                    "model.safetensors", "optimizer.safetensors", "state.json"};
enum { FILES = sizeof files / sizeof files[0] };

static void check_damaged(const ScratchPath *checkpoint, const char *file, const char *how) {
    Error error = {0};
    if (checkpoint_verify(checkpoint->text, &error)) { fail_msg("%s %s: passed", file, how); }
    if (error.code != EX_DATAERR && error.code != EX_NOINPUT) { fail_msg("%s %s: %d", file, how, error.code); }
    // Of a damaged MANIFEST any file may be named.
    if (strcmp(file, "MANIFEST") != 0) { assert_non_null(strstr(error.text, file)); }
}

static void damage_file(const ScratchPath *checkpoint, const char *file) {
    const ScratchPath path = join(checkpoint, file);
    size_t length;
    unsigned char *bytes = scratch_read(path.text, &length);
    bytes = check_realloc(bytes, length + 2, 1);
    for (size_t i = 0; i <= 20; i++) {
        const size_t at = i * (length - 1) / 20;
        bytes[at] ^= (unsigned char)(1 << i % 8);
        scratch_write(path.text, bytes, length);
        check_damaged(checkpoint, file, "flipped");
        bytes[at] ^= (unsigned char)(1 << i % 8);
        scratch_write(path.text, bytes, at);
        check_damaged(checkpoint, file, "cut");
    }
    bytes[length] = '\n';
    scratch_write(path.text, bytes, length + 1);
    check_damaged(checkpoint, file, "with a byte more");
    unlink(path.text);
    check_damaged(checkpoint, file, "missing");
    scratch_write(path.text, bytes, length);
    free(bytes);
}

static void test_damage(void **state) {
    (void)state;
    Run run;
    Error error;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("damage"), path = join(&directory, "step-00000001");
    save(&run, directory.text, 1);
    for (int i = 0; i < FILES; i++) { damage_file(&path, files[i]); }
    assert_true(checkpoint_verify(path.text, &error));
    scratch_write(join(&path, "MANIFEST").text, "", 0);
    assert_false(checkpoint_load(&run.snapshot, path.text, &error));
    assert_int_equal(error.code, EX_DATAERR);
    assert_false(checkpoint_verify(join(&directory, "step-00000002").text, &error));
    assert_int_equal(error.code, EX_NOINPUT);
    run_close(&run);
}

// Stands for a checkpoint where its contents do not matter.
static void make_hollow(const ScratchPath *path) {
    assert_int_equal(mkdir(path->text, 0777), 0);
    scratch_write(join(path, "MANIFEST").text, "x", 1);
}

// Writes the MANIFEST that fits the files, so that what is wrong in them is not their bytes.
static void seal(const ScratchPath *checkpoint) {
    Manifest manifest = {0};
    Error error;
    const char *const order[] = {"config.json",           "vocab.txt", "tokenizer_config.json", "model.safetensors",
                                 "optimizer.safetensors", "state.json"};
    for (int i = 0; i < 6; i++) {
        FileHash hash;
        assert_true(file_hash(&hash, join(checkpoint, order[i]).text, &error));
        manifest_add(&manifest, order[i], &hash);
    }
    assert_true(manifest_finish(&manifest, checkpoint->text, &error));
}

static void check_state(const ScratchPath *checkpoint, const char *key, json_t *value, const char *message) {
    const ScratchPath path = join(checkpoint, "state.json");
    Error error;
    json_t *json = json_load_file(path.text, 0, NULL), *changed = json_deep_copy(json);
    assert_non_null(json);
    if (value) {
        json_object_set_new(changed, key, value);
    } else {
        json_object_del(changed, key);
    }
    assert_int_equal(json_dump_file(changed, path.text, 0), 0);
    seal(checkpoint);
    const bool ok = checkpoint_verify(checkpoint->text, &error);
    assert_int_equal(ok, message == NULL);
    if (message) { assert_error(&error, EX_DATAERR, message); }
    json_decref(changed);
    assert_int_equal(json_dump_file(json, path.text, 0), 0);
    json_decref(json);
}

static void test_state(void **state) {
    (void)state;
    Run run;
    Error error;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("state"), path = join(&directory, "step-00000005");
    save(&run, directory.text, 5);
    check_state(&path, "format_version", json_integer(2),
                "state.json: format_version 2; this version of bertune reads 1");
    check_state(&path, "format_version", NULL, "state.json: damaged: no state");
    check_state(&path, "step", json_integer(-1), "a value is missing or of another kind");
    check_state(&path, "step", json_string("5"), "a value is missing or of another kind");
    check_state(&path, "step", json_integer(6), "step-00000005: damaged: state.json is of step 6");
    check_state(&path, "seed", NULL, "a value is missing or of another kind");
    check_state(&path, "virtual_shards", json_string("8"), "a value is missing or of another kind");
    check_state(&path, "virtual_shards", json_integer(-1), "a value is missing or of another kind");
    check_state(&path, "loss_mean", NULL, NULL);  // of an earlier version
    check_state(&path, "something_new", json_integer(1), NULL);

    const ScratchPath file = join(&path, "state.json");
    json_t *earlier = json_load_file(file.text, 0, NULL);
    assert_int_equal(json_object_del(earlier, "virtual_shards"), 0);
    assert_int_equal(json_dump_file(earlier, file.text, 0), 0);
    json_decref(earlier);
    seal(&path);
    if (!checkpoint_load(&run.snapshot, path.text, &error)) { fail_msg("%s", error.text); }
    assert_int_equal(run.snapshot.progress.virtual_shards, SHARDS_UNKNOWN);

    scratch_write(file.text, "[]", 2);
    seal(&path);
    assert_false(checkpoint_load(&run.snapshot, path.text, &error));
    assert_error(&error, EX_DATAERR, "no state");
    run_close(&run);
}

// Links under the names of what is removed go; what they lead to stays, and nothing is written there.
static void test_remove_links(void **state) {
    (void)state;
    Run run;
    Error error;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("links"), target = scratch_directory("links-lead-here");
    const char *const names[] = {".tmp-best", ".tmp-step-00000009-1", ".trash-step-00000001"};
    scratch_write(join(&target, "mine").text, "x", 1);
    for (int i = 0; i < 3; i++) { assert_int_equal(symlink(target.text, join(&directory, names[i]).text), 0); }
    directory_remove(join(&directory, ".tmp-best").text);
    assert_int_equal(scratch_count(directory.text), 2);
    assert_int_equal(checkpoint_remove_leftovers(directory.text), 2);
    assert_int_equal(scratch_count(directory.text), 0);

    char own[64];
    snprintf(own, sizeof own, ".tmp-step-00000003-%ld", (long)getpid());
    const char *const in_the_way[] = {own, "step-00000003", ".tmp-final", "final", ".trash-final"};
    for (int i = 0; i < 5; i++) { assert_int_equal(symlink(target.text, join(&directory, in_the_way[i]).text), 0); }
    save(&run, directory.text, 3);
    assert_true(checkpoint_write_final(&run.snapshot, directory.text, &error));
    assert_int_equal(scratch_count(join(&directory, "step-00000003").text), 7);
    assert_int_equal(scratch_count(join(&directory, "final").text), 5);
    assert_int_equal(scratch_count(directory.text), 2);

    directory_remove(join(&directory, "final").text);
    assert_int_equal(symlink(target.text, join(&directory, "final").text), 0);
    assert_int_equal(symlink(target.text, join(&directory, "step-00000004").text), 0);
    checkpoint_remove_final(directory.text);
    checkpoint_cut_back(directory.text, 3);
    assert_int_equal(scratch_count(directory.text), 1);
    assert_int_equal(scratch_count(target.text), 1);
    run_close(&run);
}

// A checkpoint of another layout: one position less is trained.
static void test_other_layout(void **state) {
    (void)state;
    Run run;
    Error error;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("layout");
    save(&run, directory.text, 1);
    Bert *bert = &run.fixture.bert;
    const Bert whole = *bert;
    bert_init(bert, &run.fixture.model.config, whole.V, whole.P - 1, 0);
    assert_false(checkpoint_load(&run.snapshot, join(&directory, "step-00000001").text, &error));
    assert_error(&error, EX_DATAERR, "tensor `exp_avg.bert.embeddings.position_embeddings.weight` is missing or of");
    bert_free(bert);
    *bert = whole;
    run_close(&run);
}

static void break_checkpoint(const ScratchPath *directory, const char *name) {
    const ScratchPath checkpoint = join(directory, name), state = join(&checkpoint, "state.json");
    scratch_write(state.text, "{}", 2);
}

static void check_newest(const ScratchPath *directory, const char *name, int damaged) {
    char path[4096];
    int found_damaged = -1;
    const bool found = checkpoint_newest(path, sizeof path, directory->text, &found_damaged);
    assert_int_equal(found, name != NULL);
    if (name) { assert_string_equal(path, join(directory, name).text); }
    assert_int_equal(found_damaged, damaged);
}

static void test_newest(void **state) {
    (void)state;
    Run run;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("newest"), none = scratch("no-such-directory");
    check_newest(&none, NULL, 0);
    check_newest(&directory, NULL, 0);
    const int64_t steps[] = {9, 10, 123456789, 100};
    for (int i = 0; i < 4; i++) { save(&run, directory.text, steps[i]); }
    mkdir(join(&directory, "step-5").text, 0777);
    mkdir(join(&directory, "step-000000x5").text, 0777);
    mkdir(join(&directory, ".tmp-step-99999999-1").text, 0777);
    check_newest(&directory, "step-123456789", 0);
    break_checkpoint(&directory, "step-123456789");
    check_newest(&directory, "step-00000100", 1);
    break_checkpoint(&directory, "step-00000100");
    check_newest(&directory, "step-00000010", 2);
    directory_remove(join(&directory, "step-00000010").text);
    check_newest(&directory, "step-00000009", 2);
    break_checkpoint(&directory, "step-00000009");
    check_newest(&directory, NULL, 3);
    run_close(&run);
}

static ScratchPath step_of(const ScratchPath *directory, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    return join(directory, name);
}

static void check_best(const ScratchPath *directory, int64_t best) {
    const ScratchPath link = join(directory, "best"), target = step_of(directory, best);
    char found[256] = "";
    assert_true(readlink(link.text, found, sizeof found - 1) > 0);
    assert_string_equal(found, strrchr(target.text, '/') + 1);
    assert_true(scratch_exists(target.text));
}

// Saves at 12 random steps, each perhaps the best so far, keeping `limit`.
static void check_retention(uint32_t trial) {
    enum { SAVES = 12 };
    const ScratchPath directory = scratch_directory("retain");
    const int limit = 1 + (int)(philox(trial, 0, 0, 0, 3, 0).lane[0] % 4);
    int64_t steps[SAVES], best = 0;
    for (int i = 0; i < SAVES; i++) {
        const Philox r = philox(trial, (uint32_t)i, 1, 0, 3, 0);
        steps[i] = (i ? steps[i - 1] : 0) + 1 + r.lane[0] % 1000;
        const ScratchPath path = step_of(&directory, steps[i]);
        make_hollow(&path);
        if (r.lane[1] % 3 == 0) { best = steps[i]; }
        checkpoint_retain(directory.text, limit, best);
        int kept = 0;
        for (int j = 0; j <= i; j++) {
            const bool keep = j > i - limit || steps[j] == best;
            assert_int_equal(scratch_exists(step_of(&directory, steps[j]).text), keep);
            kept += keep;
        }
        assert_int_equal(scratch_count(directory.text), kept + (best > 0));
        if (best) { check_best(&directory, best); }
    }
}

static void test_retention(void **state) {
    (void)state;
    for (uint32_t trial = 0; trial < 300; trial++) { check_retention(trial); }
}

static void test_leftovers(void **state) {
    (void)state;
    const ScratchPath directory = scratch_directory("leftovers");
    const char *gone[] = {".tmp-step-00000007-123", ".trash-step-00000001", ".tmp-step-x"};
    const char *kept[] = {"step-00000007", "step-abc", "notes", ".hidden", "tmp-step-1"};
    for (int i = 0; i < 3; i++) {
        const ScratchPath path = join(&directory, gone[i]);
        make_hollow(&path);
    }
    for (int i = 0; i < 5; i++) {
        const ScratchPath path = join(&directory, kept[i]);
        make_hollow(&path);
    }
    assert_int_equal(symlink("step-00000007", join(&directory, ".tmp-best").text), 0);
    assert_int_equal(checkpoint_remove_leftovers(directory.text), 4);
    assert_int_equal(scratch_count(directory.text), 5);
    for (int i = 0; i < 5; i++) { assert_true(scratch_exists(join(&directory, kept[i]).text)); }
    assert_int_equal(checkpoint_remove_leftovers(directory.text), 0);
    assert_int_equal(checkpoint_remove_leftovers(scratch("no-such-directory").text), 0);
    checkpoint_retain(scratch("no-such-directory").text, 1, 0);
}

static void test_cut_back(void **state) {
    (void)state;
    const ScratchPath directory = scratch_directory("cut-back");
    for (int64_t step = 5; step <= 25; step += 5) {
        const ScratchPath path = step_of(&directory, step);
        make_hollow(&path);
    }
    checkpoint_cut_back(directory.text, 15);
    assert_int_equal(scratch_count(directory.text), 3);
    assert_true(scratch_exists(step_of(&directory, 15).text));
    checkpoint_cut_back(directory.text, 0);
    assert_int_equal(scratch_count(directory.text), 0);
}

static void write_final(Run *run, const ScratchPath *directory) {
    Error error;
    if (!checkpoint_write_final(&run->snapshot, directory->text, &error)) { fail_msg("%s", error.text); }
}

static void test_final(void **state) {
    (void)state;
    Run run, other;
    Error error;
    char fresh[64];
    run_open(&run, 0);
    run_open(&other, 0);
    const ScratchPath directory = scratch_directory("run"), path = join(&directory, "final");
    write_final(&run, &directory);
    assert_int_equal(scratch_count(path.text), 5);
    assert_true(checkpoint_verify_final(path.text, &error));
    // What a crash in the middle of a replacement left does not stand in the way.
    const ScratchPath temporary = join(&directory, ".tmp-final"), trash = join(&directory, ".trash-final");
    make_hollow(&temporary);
    make_hollow(&trash);
    for (size_t i = 0; i < run.fixture.bert.layout.total; i++) { run.fixture.weights.parameters[i] += 1.0f; }
    write_final(&run, &directory);
    assert_int_equal(scratch_count(directory.text), 1);
    assert_int_equal(scratch_count(path.text), 5);
    assert_true(checkpoint_verify_final(path.text, &error));
    const ModelFixture *fixture = &other.fixture;
    assert_true(weights_load(&other.fixture.weights, &fixture->bert, &fixture->model.config, path.text, 0, fresh,
                             sizeof fresh, &error));
    assert_weights(&run, &other);
    checkpoint_remove_final(directory.text);
    assert_int_equal(scratch_count(directory.text), 0);
    checkpoint_remove_final(directory.text);
    run_close(&run);
    run_close(&other);
}

// A limit on the size of files stands for a full disk: of the tensors, then of the small files, too.
static void test_full_disk(void **state) {
    (void)state;
    Run run;
    run_open(&run, 0);
    const ScratchPath directory = scratch_directory("full");
    save(&run, directory.text, 1);
    write_final(&run, &directory);
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit < 95000; limit += 13500) {
        Error error;
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, before.rlim_max});
        run.snapshot.progress.step = 2;
        const bool saved = checkpoint_save(&run.snapshot, directory.text, &error);
        const int save_code = error.code;
        const bool wrote = limit < 81000 && checkpoint_write_final(&run.snapshot, directory.text, &error);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_false(saved || wrote);
        assert_int_equal(save_code, EX_IOERR);
        assert_int_equal(error.code, EX_IOERR);
        assert_int_equal(scratch_count(directory.text), 2);
        assert_true(checkpoint_verify(join(&directory, "step-00000001").text, &error));
        assert_true(checkpoint_verify_final(join(&directory, "final").text, &error));
    }
    signal(SIGXFSZ, SIG_DFL);
    run_close(&run);
}

static const char full_log[] =
    "{\"event\": \"start\", \"step\": 0}\n"
    "{\"event\": \"step\", \"step\": 1}\n"
    "{\"event\": \"step\", \"step\": 2}\n"
    "{\"event\": \"step\", \"step\": 3}\n"
    "{\"event\": \"epoch\", \"epoch\": 1}\n"
    "{\"event\": \"checkpoint\", \"step\": 3}\n"
    "{\"event\": \"note\", \"step\": 99}\n"
    "{\"event\": \"step\", \"step\": 4}\n"
    "not JSON\n"
    "[1]\n"
    "{\"event\": \"step\", \"step\": 5}\n"
    "{\"event\": \"step\", \"step\": 6}\n"
    "{\"event\": \"epoch\", \"epoch\": 2}\n"
    "{\"event\": \"checkpoint\", \"step\": 6}\n"
    "{\"event\": \"end\", \"steps\": 6}\n"
    "{\"event\": \"st";

// The numbers of the lines above that are left when a run of 3 steps an epoch goes on from step.
static void check_cut(int64_t step, const char *lines) {
    const ScratchPath path = scratch("metrics.jsonl");
    char expected[2048] = "";
    for (const char *line = lines; *line; line++) {
        const char *from = full_log;
        for (int skip = *line - 'a'; skip > 0; skip--) { from = strchr(from, '\n') + 1; }
        strncat(expected, from, strcspn(from, "\n") + 1);
    }
    scratch_write(path.text, full_log, sizeof full_log - 1);
    Metrics metrics = {0};
    Error error;
    assert_true(metrics_open(&metrics, path.text, step, step / 3, &error));
    metrics_close(&metrics);
    size_t length;
    char *text = (char *)scratch_read(path.text, &length);
    assert_string_equal(text, expected);
    free(text);
}

static void test_metrics_cut(void **state) {
    (void)state;
    check_cut(0, "ag");
    check_cut(1, "abg");
    check_cut(2, "abcg");
    check_cut(3, "abcdefg");
    check_cut(4, "abcdefgh");
    check_cut(5, "abcdefghk");
    check_cut(6, "abcdefghklmn");
    check_cut(100, "abcdefghklmn");
}

static void write_line(Metrics *metrics) {
    int64_t confusion[4] = {5, 0, 1, 2};
    const Scores scores = {.classes = 2, .confusion = confusion};
    metrics_begin(metrics, "epoch");
    metrics_integer(metrics, "epoch", INT64_MAX);
    metrics_text(metrics, "path", "a \"b\"\n\xE5\xA5\xBD");
    metrics_real(metrics, "loss", 0.1);
    metrics_real(metrics, "zero", 0.0);
    metrics_real(metrics, "large", 1e300);
    metrics_real(metrics, "nan", (double)NAN);
    metrics_confusion(metrics, &scores);
    metrics_end(metrics);
}

static void test_metrics_lines(void **state) {
    (void)state;
    const ScratchPath path = scratch("lines.jsonl");
    Metrics metrics = {0};
    Error error;
    unlink(path.text);
    assert_true(metrics_open(&metrics, path.text, 0, 1, &error));
    write_line(&metrics);
    size_t length;
    char *text = (char *)scratch_read(path.text, &length);  // flushed
    assert_string_equal(
        text,
        "{\"event\": \"epoch\", \"epoch\": 9223372036854775807, \"path\": \"a \\\"b\\\"\\n\xE5\xA5\xBD\", "
        "\"loss\": 0.1, \"zero\": 0.0, \"large\": 1e+300, \"nan\": null, \"nan_not_finite\": true, "
        "\"confusion\": [[5, 0], [1, 2]]}\n");
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    json_decref(json);
    free(text);
    metrics_close(&metrics);
    metrics_close(&metrics);
    assert_false(metrics_open(&metrics, scratch("none/metrics.jsonl").text, 0, 1, &error));
    assert_error(&error, EX_CANTCREAT, "none/metrics.jsonl");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),       cmocka_unit_test(test_remove_links),  cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_same_bytes),  cmocka_unit_test(test_damage),        cmocka_unit_test(test_other_layout),
        cmocka_unit_test(test_newest),      cmocka_unit_test(test_retention),     cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_cut_back),    cmocka_unit_test(test_final),         cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_metrics_cut), cmocka_unit_test(test_metrics_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
