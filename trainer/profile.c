// See profile.h.
#include "trainer/profile.h"

#include "trainer/progress.h"

static const char *const names[PHASES] = {
    [PHASE_BATCH] = "batch",
    [PHASE_EMBEDDING] = "embedding",
    [PHASE_QKV] = "qkv",
    [PHASE_ATTENTION] = "attention",
    [PHASE_ATTENTION_OUTPUT] = "attention output",
    [PHASE_FEED_FORWARD] = "feed-forward",
    [PHASE_LAYERNORM] = "layernorm",
    [PHASE_LOSS] = "pooler and loss",
    [PHASE_LOSS_BACKWARD] = "pooler and loss backward",
    [PHASE_LAYERNORM_BACKWARD] = "layernorm backward",
    [PHASE_FEED_FORWARD_BACKWARD] = "feed-forward backward",
    [PHASE_ATTENTION_OUTPUT_BACKWARD] = "attention output backward",
    [PHASE_ATTENTION_BACKWARD] = "attention backward",
    [PHASE_QKV_BACKWARD] = "qkv backward",
    [PHASE_EMBEDDING_BACKWARD] = "embedding backward",
    [PHASE_REDUCTION] = "reduction",
    [PHASE_ADAMW] = "adamw",
};

void profile_start(Profile *profile, Device *device) {
    *profile = (Profile){.peak_flops = device_peak_flops(device), .copy_bandwidth = device_copy_bandwidth(device)};
}

void profile_reset(Profile *profile) {
    *profile = (Profile){.peak_flops = profile->peak_flops, .copy_bandwidth = profile->copy_bandwidth};
}

void profile_leave(Profile *profile) {
    if (!profile || profile->since == 0.0) { return; }
    profile->phases[profile->current].seconds += seconds_now() - profile->since;
    profile->since = 0.0;
}

void profile_enter(Profile *profile, Phase phase, double flop, double bytes) {
    if (!profile || !device_leader()) { return; }
    const double now = seconds_now();
    if (profile->since != 0.0) { profile->phases[profile->current].seconds += now - profile->since; }
    profile->phases[phase].flop += flop;
    profile->phases[phase].bytes += bytes;
    profile->current = phase;
    profile->since = now;
}

PhaseSums profile_total(const Profile *profile) {
    PhaseSums total = {0};
    for (int i = 0; i < PHASES; i++) {
        total.seconds += profile->phases[i].seconds;
        total.flop += profile->phases[i].flop;
        total.bytes += profile->phases[i].bytes;
    }
    return total;
}

static void print_line(const Profile *profile, const char *name, const PhaseSums *sums, double all, FILE *out) {
    const double steps = (double)profile->steps, flops = sums->flop / sums->seconds;
    fprintf(out, "%-26s %9.3f %6.1f%%", name, 1e3 * sums->seconds / steps, 100 * sums->seconds / all);
    if (sums->flop > 0) {
        fprintf(out, " %9.1f %6.1f%%", 1e-9 * flops, 100 * flops / profile->peak_flops);
    } else {
        fprintf(out, " %9s %7s", "-", "-");
    }
    if (sums->bytes > 0) {
        const double rate = sums->bytes / sums->seconds;
        fprintf(out, " %8.1f %6.1f%%\n", 1e-9 * rate, 100 * rate / profile->copy_bandwidth);
    } else {
        fprintf(out, " %8s %7s\n", "-", "-");
    }
}

void profile_print(const Profile *profile, FILE *out) {
    if (profile->steps == 0) { return; }
    const PhaseSums total = profile_total(profile);
    fprintf(out, "%-26s %9s %7s %9s %7s %8s %7s\n", "phase", "ms/step", "time", "GFLOP/s", "of peak", "GB/s",
            "of copy");
    for (int i = 0; i < PHASES; i++) {
        if (profile->phases[i].seconds > 0) { print_line(profile, names[i], &profile->phases[i], total.seconds, out); }
    }
    print_line(profile, "step", &total, total.seconds, out);
    fprintf(out, "%lld steps of %.1f tokens; multiply-add peak %.1f GFLOP/s, copy %.1f GB/s, both measured here\n",
            (long long)profile->steps, (double)profile->tokens / (double)profile->steps, 1e-9 * profile->peak_flops,
            1e-9 * profile->copy_bandwidth);
}

json_t *profile_json(const Profile *profile) {
    const double steps = profile->steps ? (double)profile->steps : 1.0;
    const PhaseSums total = profile_total(profile);
    json_t *phases = json_array();
    for (int i = 0; i < PHASES; i++) {
        const PhaseSums *sums = &profile->phases[i];
        if (sums->seconds == 0.0) { continue; }
        json_array_append_new(
            phases, json_pack("{ss,sf,sf,sf}", "name", names[i], "milliseconds", 1e3 * sums->seconds / steps, "gflop",
                              1e-9 * sums->flop / steps, "gbyte", 1e-9 * sums->bytes / steps));
    }
    return json_pack("{sI,sf,sf,sf,sf,sf,so}", "steps", (json_int_t)profile->steps, "step_milliseconds",
                     1e3 * total.seconds / steps, "tokens", (double)profile->tokens / steps, "gflop",
                     1e-9 * total.flop / steps, "peak_gflops", 1e-9 * profile->peak_flops, "copy_gbs",
                     1e-9 * profile->copy_bandwidth, "phases", phases);
}
