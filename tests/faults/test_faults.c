// Every system call of every operation on checkpoints, failing and interrupted, and power cuts at each of them:
// whatever happens, what was safe before is safe after, what is there under its name is whole, and nothing else is ever
// loaded. And 1,000 random damages to a checkpoint's files: all are found.
//
// Usage: test_faults [N]: N times as many random cases, and more kinds of failures. 0, for slow builds: every 7th call
// and fewer random cases.
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "datasets/file.h"
#include "kernels/philox.h"
#include "tests/faults/faults.h"
#include "tests/model_fixture.h"
#include "tests/scratch.h"
#include "trainer/checkpoint.h"

enum { SEED = 20, STEPS = 4 };
static int factor = 1;

// From one call that is tried to the next.
static int64_t stride(void) { return factor ? 1 : 7; }

typedef struct {
    ModelFixture fixture;
    float *moments;
    Snapshot snapshot;
} Run;

static const char *const files[] = {"MANIFEST",          "config.json",           "vocab.txt", "tokenizer_config.json",
                                    "model.safetensors", "optimizer.safetensors", "state.json"};
enum { FILES = sizeof files / sizeof files[0] };

static Run run;                    // what is saved and loaded
static float *trained[STEPS + 1];  // (3 * total) of each step: parameters and moments

static size_t total(void) { return run.fixture.bert.layout.total; }

static uint32_t drawn(uint32_t a, uint32_t b, uint32_t c) { return philox(a, b, c, SEED, 11, 0).lane[0]; }

static int open_run(void **state) {
    (void)state;
    model_fixture_open(&run.fixture, 1);
    run.moments = check_calloc(2 * total(), sizeof *run.moments);
    for (uint32_t step = 1; step <= STEPS; step++) {
        trained[step] = check_calloc(3 * total(), sizeof(float));
        for (size_t i = 0; i < 3 * total(); i++) { trained[step][i] = (float)drawn(step, (uint32_t)i, 0) * 1e-10f; }
    }
    return 0;
}

static int close_run(void **state) {
    (void)state;
    for (int step = 1; step <= STEPS; step++) { free(trained[step]); }
    free(run.moments);
    model_fixture_close(&run.fixture);
    return 0;
}

static Snapshot *snapshot(void) {
    run.snapshot = (Snapshot){&run.fixture.model, &run.fixture.bert,     &run.fixture.weights,
                              run.moments,        run.moments + total(), run.snapshot.progress};
    return &run.snapshot;
}

static bool save(const char *directory, int64_t step, Error *error) {
    memcpy(run.fixture.weights.parameters, trained[step], total() * sizeof(float));
    memcpy(run.moments, trained[step] + total(), 2 * total() * sizeof(float));
    run.snapshot.progress = (Progress){.step = step, .best_accuracy = -1, .train_rows = 24, .global_batch_size = 8};
    return checkpoint_save(snapshot(), directory, error);
}

static void must(bool ok, const Error *error) {
    if (!ok) { fail_msg("%s", error->text); }
}

// Loads the checkpoint and compares every byte with what was saved at its step, which it gives; 0: not loaded.
static int64_t load(const char *path, Error *error) {
    const int64_t largest = STEPS;
    memset(run.fixture.weights.parameters, 255, total() * sizeof(float));
    memset(run.moments, 255, 2 * total() * sizeof(float));
    if (!checkpoint_load(snapshot(), path, error)) { return 0; }
    const int64_t step = run.snapshot.progress.step;
    if (step < 1 || step > largest ||
        memcmp(run.fixture.weights.parameters, trained[step], total() * sizeof(float)) != 0 ||
        memcmp(run.moments, trained[step] + total(), 2 * total() * sizeof(float)) != 0) {
        fail_msg("%s: loaded, but not what was saved", path);
    }
    return step;
}

// ---- What is done to a run directory, and what must be true at any time.

typedef struct {
    ScratchPath run, checkpoints, lost;
} Place;

typedef struct {
    const char *name;
    void (*prepare)(const Place *place);
    bool (*operate)(const Place *place, Error *error);
    int64_t before, after;  // the newest checkpoint before and after it; 0: none
    int64_t between;        // allowed meanwhile besides
    int64_t keeps;          // a checkpoint that stays in any case; 0: none
    bool no_exchange;
    bool final_before, final_after;
} Scenario;

static ScratchPath below(const ScratchPath *directory, const char *name) {
    ScratchPath path;
    path_join(path.text, sizeof path.text, directory->text, name);
    return path;
}

static ScratchPath checkpoint(const Place *place, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    return below(&place->checkpoints, name);
}

static void prepare_none(const Place *place) { (void)place; }

static void prepare_steps(const Place *place, int64_t steps) {
    Error error;
    must(directory_create(place->checkpoints.text, &error), &error);
    for (int64_t step = 1; step <= steps; step++) { must(save(place->checkpoints.text, step, &error), &error); }
}

static void prepare_one(const Place *place) { prepare_steps(place, 1); }

static void prepare_two(const Place *place) { prepare_steps(place, 2); }

static void prepare_three(const Place *place) { prepare_steps(place, 3); }

static void prepare_best(const Place *place) {
    prepare_steps(place, 2);
    checkpoint_retain(place->checkpoints.text, 2, 1);
}

static void prepare_damaged(const Place *place) {
    prepare_two(place);
    const ScratchPath path = checkpoint(place, 2);
    scratch_write(below(&path, "state.json").text, "x", 1);
}

static void prepare_final(const Place *place) {
    Error error;
    prepare_one(place);
    must(checkpoint_write_final(snapshot(), place->run.text, &error), &error);
}

static bool first_save(const Place *place, Error *error) {
    return directory_create(place->checkpoints.text, error) && save(place->checkpoints.text, 1, error);
}

static bool save_two(const Place *place, Error *error) {
    if (!save(place->checkpoints.text, 2, error)) { return false; }
    checkpoint_retain(place->checkpoints.text, 1, 0);
    return true;
}

static bool save_three(const Place *place, Error *error) {
    if (!save(place->checkpoints.text, 3, error)) { return false; }
    checkpoint_retain(place->checkpoints.text, 1, 1);
    return true;
}

static bool save_best(const Place *place, Error *error) {
    if (!save(place->checkpoints.text, 3, error)) { return false; }
    checkpoint_retain(place->checkpoints.text, 1, 3);
    return true;
}

static bool save_two_again(const Place *place, Error *error) { return save(place->checkpoints.text, 2, error); }

static bool cut_back(const Place *place, Error *error) {
    (void)error;
    checkpoint_cut_back(place->checkpoints.text, 1);
    return true;
}

static bool write_final(const Place *place, Error *error) {
    return checkpoint_write_final(snapshot(), place->run.text, error);
}

static bool remove_final(const Place *place, Error *error) {
    (void)error;
    checkpoint_remove_final(place->run.text);
    return true;
}

static const Scenario scenarios[] = {
    {"the first save", prepare_none, first_save, 0, 1, 0, 0, false, false, false},
    {"a save in place of the one before", prepare_one, save_two, 1, 2, 0, 0, false, false, false},
    {"a save beside the best", prepare_best, save_three, 2, 3, 0, 1, false, false, false},
    {"a new best", prepare_best, save_best, 2, 3, 0, 0, false, false, false},
    {"a save under a name that is taken", prepare_two, save_two_again, 2, 2, 0, 0, false, false, false},
    {"the same without exchange", prepare_two, save_two_again, 2, 2, 1, 0, true, false, false},
    {"a save in place of a damaged one", prepare_damaged, save_two_again, 1, 2, 0, 1, false, false, false},
    {"cutting back", prepare_three, cut_back, 3, 1, 2, 1, false, false, false},
    {"the first final", prepare_one, write_final, 1, 1, 0, 1, false, false, true},
    {"another final", prepare_final, write_final, 1, 1, 0, 1, false, true, true},
    {"no final any more", prepare_final, remove_final, 1, 1, 0, 1, false, true, false},
};
enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

static Place make_place(const Scenario *scenario) {
    Place place = {.run = scratch_directory("run"), .lost = scratch_directory("lost")};
    place.checkpoints = below(&place.run, "checkpoints");
    run.snapshot.progress = (Progress){.step = 1};
    scenario->prepare(&place);
    return place;
}

// The exit code of a child that does the operation under these faults, or minus its signal.
static int attempt(const Scenario *scenario, const Place *place, Faults faults, int64_t *calls) {
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    fflush(stdout);
    fflush(stderr);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        Error error = {0};
        if (!freopen("/dev/null", "w", stderr)) { _exit(95); }
        faults.below = place->run.text;
        faults.lost = place->lost.text;
        faults.no_exchange = scenario->no_exchange;
        faults_arm(faults);
        const bool ok = scenario->operate(place, &error);
        const int64_t count = faults_calls();
        if (ok && faults.kind == FAULT_POWER) { faults_cut_power(); }
        faults_arm((Faults){.below = "/no such place/"});
        if (write(pipes[1], &count, sizeof count) != sizeof count) { _exit(94); }
        _exit(ok ? 0 : error.code ? error.code : 93);
    }
    close(pipes[1]);
    *calls = 0;
    if (read(pipes[0], calls, sizeof *calls) < 0) { fail(); }
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

typedef struct {
    const Scenario *scenario;
    const Place *place;
    char what[256];  // for messages
} Trial;

// Every checkpoint that has its name is whole, unless the scenario began with a damaged one.
static bool all_whole(const Trial *trial, Error *error) {
    const Place *place = trial->place;
    int count;
    int64_t *steps = checkpoint_steps(place->checkpoints.text, &count);
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        ok = checkpoint_verify(checkpoint(place, steps[i]).text, error) ||
             (trial->scenario->prepare == prepare_damaged && steps[i] == 2);
    }
    free(steps);
    return ok;
}

// Without the warnings, of which there would be thousands.
static bool find_newest(char path[PATH_MAX], const Place *place, int *damaged) {
    static FILE *nowhere;
    FILE *old = stderr;
    if (!nowhere) { nowhere = fopen("/dev/null", "w"); }
    assert_non_null(nowhere);
    stderr = nowhere;
    const bool found = checkpoint_newest(path, PATH_MAX, place->checkpoints.text, damaged);
    stderr = old;
    return found;
}

// What must be true after anything. Gives false with a reason.
static bool still_safe(const Trial *trial, bool done, Error *error) {
    const Scenario *scenario = trial->scenario;
    const Place *place = trial->place;
    char path[PATH_MAX];
    int damaged;
    if (!all_whole(trial, error)) { return false; }
    const bool found = find_newest(path, place, &damaged);
    const int64_t newest = found ? load(path, error) : 0;
    if (found && !newest) { return false; }
    const bool expected = newest == scenario->after || (!done && newest == scenario->before) ||
                          (!done && scenario->between && newest == scenario->between);
    if (!expected) { return error_set(error, 1, "the newest checkpoint is of step %lld", (long long)newest); }
    const int64_t keeps = scenario->keeps;
    if (keeps && load(checkpoint(place, keeps).text, error) != keeps) { return false; }
    const ScratchPath final = below(&place->run, "final");
    const bool has_final = scratch_exists(final.text);
    if (has_final && !checkpoint_verify_final(final.text, error)) { return false; }
    if (!has_final && scenario->final_before && scenario->final_after) { return error_set(error, 1, "final/ is lost"); }
    return !done || has_final == scenario->final_after || error_set(error, 1, "final/ is there or is not");
}

// What the next start does: temporary files go, and everything works again.
static void recover(const Trial *trial) {
    const Place *place = trial->place;
    Error error;
    must(directory_create(place->checkpoints.text, &error), &error);
    checkpoint_remove_leftovers(place->checkpoints.text);
    int count;
    free(checkpoint_steps(place->checkpoints.text, &count));
    const int links = scratch_exists(below(&place->checkpoints, "best").text);
    if (scratch_count(place->checkpoints.text) != count + links) { fail_msg("%s: something is left", trial->what); }
    if (!all_whole(trial, &error)) { fail_msg("%s, and then a start: %s", trial->what, error.text); }
    if (!save(place->checkpoints.text, STEPS, &error)) { fail_msg("%s: %s", trial->what, error.text); }
    if (load(checkpoint(place, STEPS).text, &error) != STEPS) { fail_msg("%s: %s", trial->what, error.text); }
}

static void check(const Trial *trial, bool done) {
    Error error;
    if (!still_safe(trial, done, &error)) { fail_msg("%s: %s", trial->what, error.text); }
    recover(trial);
}

static int64_t count_calls(const Scenario *scenario) {
    int64_t calls;
    const Place place = make_place(scenario);
    Trial trial = {scenario, &place, "without faults"};
    assert_int_equal(attempt(scenario, &place, (Faults){.kind = FAULT_NONE}, &calls), 0);
    check(&trial, true);
    return calls;
}

static Trial trial_of(const Scenario *scenario, const Place *place, const char *kind, int64_t at) {
    Trial trial = {.scenario = scenario, .place = place};
    snprintf(trial.what, sizeof trial.what, "%s, %s at call %lld", scenario->name, kind, (long long)at);
    return trial;
}

// ---- Stops.

static void test_kills(void **state) {
    (void)state;
    int64_t all = 0;
    for (int s = 0; s < SCENARIOS; s++) {
        const int64_t count = count_calls(&scenarios[s]);
        assert_true(count > 5);
        for (int64_t at = 1; at <= count; at += stride()) {
            for (int in = 0; in < 2; in++) {
                int64_t calls;
                const Place place = make_place(&scenarios[s]);
                const Trial trial = trial_of(&scenarios[s], &place, in ? "killed in" : "killed before", at);
                const Faults faults = {.kind = in ? FAULT_KILL_IN : FAULT_KILL, .at = at};
                assert_int_equal(attempt(&scenarios[s], &place, faults, &calls), -SIGKILL);
                check(&trial, false);
                all++;
            }
        }
    }
    print_message("%lld kills, before and in each call of %d operations\n", (long long)all, SCENARIOS);
}

// ---- Failing calls.

typedef struct {
    const char *name;
    FaultKind kind;
    int error;
    bool passes;  // the operation succeeds all the same
} Failure;

static const Failure failures[] = {
    {"EIO", FAULT_ERROR, EIO, false},
    {"half a write", FAULT_SHORT, 0, true},
    {"EINTR", FAULT_ERROR, EINTR, false},
    {"ENOSPC for ever", FAULT_BROKEN, ENOSPC, false},
    // The long form only:
    {"EIO for ever", FAULT_BROKEN, EIO, false},
    {"ENOSPC", FAULT_ERROR, ENOSPC, false},
    {"EDQUOT", FAULT_ERROR, EDQUOT, false},
    {"EROFS", FAULT_ERROR, EROFS, false},
};
enum { FAILURES = sizeof failures / sizeof failures[0], SHORT_FAILURES = 4 };

static void check_failure(const Scenario *scenario, const Failure *failure, int64_t at) {
    int64_t calls;
    const Place place = make_place(scenario);
    const Trial trial = trial_of(scenario, &place, failure->name, at);
    const Faults faults = {.kind = failure->kind, .error = failure->error, .at = at};
    const int code = attempt(scenario, &place, faults, &calls);
    if (code != 0 && code != EX_IOERR && code != EX_CANTCREAT) { fail_msg("%s: exit code %d", trial.what, code); }
    if (code != 0 && failure->passes) { fail_msg("%s: exit code %d", trial.what, code); }
    // One call that fails leaves no temporary files, if the operation as a whole has failed.
    if (code != 0 && failure->kind == FAULT_ERROR && scratch_exists(place.checkpoints.text)) {
        int count;
        free(checkpoint_steps(place.checkpoints.text, &count));
        const int links = scratch_exists(below(&place.checkpoints, "best").text);
        if (scratch_count(place.checkpoints.text) != count + links) { fail_msg("%s: something is left", trial.what); }
    }
    // Removing may fail in silence: what is not wanted any more stays until the next start.
    const bool removes = scenario->after < scenario->before || (scenario->final_before && !scenario->final_after);
    check(&trial, code == 0 && !removes);
}

static void test_failures(void **state) {
    (void)state;
    int64_t all = 0;
    for (int s = 0; s < SCENARIOS; s++) {
        const int64_t count = count_calls(&scenarios[s]);
        for (int64_t at = 1; at <= count; at += stride()) {
            for (int f = 0; f < (factor > 1 ? FAILURES : SHORT_FAILURES); f++) {
                check_failure(&scenarios[s], &failures[f], at);
                all++;
            }
        }
    }
    print_message("%lld failures of each call of %d operations\n", (long long)all, SCENARIOS);
}

// ---- Power cuts.

// Whether the state after a power cut before call `at` (after the operation if there are not so many) is safe.
static bool survives(const Scenario *scenario, const Faults *faults, bool done, Trial *trial, Error *error) {
    int64_t calls;
    static Place place;
    place = make_place(scenario);
    *trial = trial_of(scenario, &place, "power cut", faults->at);
    assert_int_equal(attempt(scenario, &place, *faults, &calls), -SIGKILL);
    const bool removes = scenario->after < scenario->before || (scenario->final_before && !scenario->final_after);
    const bool safe = still_safe(trial, done && !removes, error);
    if (safe) { recover(trial); }
    return safe;
}

static void test_power_cuts(void **state) {
    (void)state;
    const int trials = factor ? 2 * factor : 1;
    int64_t all = 0;
    for (int s = 0; s < SCENARIOS; s++) {
        const int64_t count = count_calls(&scenarios[s]);
        for (int64_t at = 1; at <= count + 1; at += stride()) {
            for (int i = 0; i < trials; i++) {
                Trial trial;
                Error error;
                const uint32_t seed = drawn((uint32_t)s, (uint32_t)at, (uint32_t)i);
                const Faults faults = {.kind = FAULT_POWER, .at = at, .seed = seed};
                if (!survives(&scenarios[s], &faults, at > count, &trial, &error)) {
                    fail_msg("%s, seed %u: %s", trial.what, seed, error.text);
                }
                all++;
            }
        }
    }
    print_message("%lld power cuts\n", (long long)all);
}

// Whether some power cut breaks a save that has forgotten one fsync.
static bool is_missed(const Scenario *scenario, int64_t sync, int64_t count) {
    for (int64_t at = count + 1; at > 0; at--) {
        for (uint32_t i = 0; i < 2; i++) {
            Trial trial;
            Error error;
            const uint32_t seed = drawn((uint32_t)sync, (uint32_t)at, 100 + i);
            const Faults faults = {.kind = FAULT_POWER, .at = at, .seed = seed, .forget_sync = sync};
            if (!survives(scenario, &faults, at > count, &trial, &error)) { return true; }
        }
    }
    return false;
}

// The power cuts would find an fsync that is missing: of any of the files, of the temporary directory, and of the one
// above it after the rename. (That of the temporary directory's own name is not needed: what follows makes up for it.)
static void test_every_sync_counts(void **state) {
    (void)state;
    const Scenario *scenario = &scenarios[4];
    const int64_t count = count_calls(scenario);
    int missed = 0;
    for (int64_t sync = 1; sync <= FILES + 3; sync++) { missed += is_missed(scenario, sync, count); }
    print_message("%d of a save's %d fsyncs are missed when one is left out\n", missed, FILES + 3);
    assert_int_equal(missed, FILES + 2);
}

// ---- Damage.

// Changes the bytes of a file in a random way; gives how, or NULL when they are still the same.
static const char *damage(unsigned char *bytes, size_t *length, const unsigned char *other, size_t other_length,
                          uint32_t trial) {
    const size_t at = drawn(trial, 1, 2) % *length;
    const size_t most = *length - at < 4096 ? *length - at : 4096;
    switch (drawn(trial, 0, 2) % 8) {
        case 0:
            *length = at;
            return "cut";
        case 1:
            *length = drawn(trial, 2, 2) % 2 ? *length - 1 : 0;
            return "cut by one byte or to nothing";
        case 2:
            for (size_t i = 0; i < most; i++) {
                if (bytes[at + i]) {
                    memset(bytes + at, 0, most);
                    return "zeros";
                }
            }
            return NULL;
        case 3:
            bytes[(*length)++] = (unsigned char)drawn(trial, 3, 2);
            return "a byte more";
        case 4:
            if (other_length == *length && memcmp(bytes, other, *length) == 0) { return NULL; }
            memcpy(bytes, other, other_length);
            *length = other_length;
            return "the file of another checkpoint";
        default:
            bytes[at] ^= (unsigned char)(1 << drawn(trial, 4, 2) % 8);
            return "a bit flipped";
    }
}

// One damage to the newest of two checkpoints: it is named, the one before is taken, and it cannot be loaded.
static bool check_damage(const Place *place, uint32_t trial) {
    const char *name = files[drawn(trial, 5, 2) % FILES];
    const ScratchPath newest = checkpoint(place, 2), before = checkpoint(place, 1);
    const ScratchPath path = below(&newest, name), other_path = below(&before, name);
    size_t length, other_length;
    unsigned char *whole = scratch_read(path.text, &length), *other = scratch_read(other_path.text, &other_length);
    unsigned char *bytes = check_calloc(length + other_length + 1, 1);
    memcpy(bytes, whole, length);
    size_t damaged_length = length;
    const char *how = damage(bytes, &damaged_length, other, other_length, trial);
    if (how) {
        char chosen[PATH_MAX];
        int damaged;
        Error error = {0};
        scratch_write(path.text, bytes, damaged_length);
        if (checkpoint_verify(newest.text, &error)) { fail_msg("%s, %s (trial %u): passed", name, how, trial); }
        assert_int_equal(error.code, EX_DATAERR);
        // Of a MANIFEST that is of another checkpoint, or has another hash in it, another file seems damaged.
        if (strcmp(name, "MANIFEST") != 0 && !strstr(error.text, name)) { fail_msg("%s: %s", name, error.text); }
        assert_true(find_newest(chosen, place, &damaged));
        assert_string_equal(chosen, before.text);
        assert_int_equal(damaged, 1);
        assert_false(checkpoint_load(snapshot(), newest.text, &error));
        if (trial % 16 == 0) { assert_int_equal(load(before.text, &error), 1); }
        scratch_write(path.text, whole, length);
    }
    free(bytes);
    free(other);
    free(whole);
    return how != NULL;
}

static void test_damage(void **state) {
    (void)state;
    Error error;
    const Place place = make_place(&scenarios[4]);  // with two
    const int wanted = factor ? 1000 * factor : 200;
    int found = 0;
    for (uint32_t trial = 0; found < wanted; trial++) { found += check_damage(&place, trial); }
    assert_int_equal(load(checkpoint(&place, 2).text, &error), 2);
    print_message("%d damages, all found\n", found);
}

// A checkpoint under the name of another, and one of another version.
static void test_misnamed(void **state) {
    (void)state;
    Error error;
    const Place place = make_place(&scenarios[4]);
    const ScratchPath two = checkpoint(&place, 2), nine = checkpoint(&place, 9),
                      copy = below(&place.checkpoints, "copy");
    assert_int_equal(rename(two.text, nine.text), 0);
    assert_false(checkpoint_verify(nine.text, &error));
    assert_error(&error, EX_DATAERR, "state.json is of step 2");
    assert_int_equal(rename(nine.text, copy.text), 0);
    must(checkpoint_verify(copy.text, &error), &error);
    assert_int_equal(load(copy.text, &error), 2);
}

// A call that fails while a checkpoint is read: it is passed over or refused, never loaded in part.
static void test_reading(void **state) {
    (void)state;
    Error error;
    const Place place = make_place(&scenarios[4]);
    const ScratchPath two = checkpoint(&place, 2);
    faults_arm((Faults){.below = place.run.text});
    assert_int_equal(load(two.text, &error), 2);
    const int64_t count = faults_calls();
    for (int64_t at = 1; at <= count; at++) {
        for (int kind = 0; kind < 3; kind++) {
            const Faults faults[] = {{.below = place.run.text, .kind = FAULT_ERROR, .error = EIO, .at = at},
                                     {.below = place.run.text, .kind = FAULT_BROKEN, .error = EIO, .at = at},
                                     {.below = place.run.text, .kind = FAULT_SHORT, .at = at}};
            faults_arm(faults[kind]);
            const int64_t step = load(two.text, &error);
            faults_arm((Faults){.below = place.run.text});
            if (step != 2 && kind == 2) { fail_msg("half a read at call %lld: %s", (long long)at, error.text); }
            if (step != 2 && error.code != EX_DATAERR && error.code != EX_IOERR && error.code != EX_NOINPUT) {
                fail_msg("read error at call %lld: code %d, %s", (long long)at, error.code, error.text);
            }
        }
    }
    print_message("%lld calls of loading failed in 3 ways\n", (long long)count);
}

int main(int argc, char **argv) {
    if (argc > 1) { factor = atoi(argv[1]); }
    if (factor < 0) { factor = 1; }
    print_message("seed %d, factor %d\n", SEED, factor);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kills),      cmocka_unit_test(test_failures),
        cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_every_sync_counts),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_misnamed),
        cmocka_unit_test(test_reading),
    };
    return cmocka_run_group_tests(tests, open_run, close_run);
}
