#!/usr/bin/env bash
# Two trials of a sweep on two cores: one after the other with two threads each, or both at once with a thread and a core
# of its own each. Which gives more trials an hour?
#
#   side_by_side.sh BERTUNE DATA.h5 MODEL_DIR [BATCH ...]      batches: 16 32
#
# ROUNDS (5) times in turns, with STEPS (100) steps a trial, from random weights, without evaluations. First checks that
# both ways end with the same bytes. Prints a table; "whole" is from the start of the first process to the end of the
# last, "steps" the steps alone, as in a long trial. The ratio is trials an hour at once over one after the other. Rounds
# in which other programs used more than QUIET (0.1) cores on average count only where there are no others.
set -euo pipefail
shopt -s inherit_errexit
if [ $# -lt 3 ]; then
    sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$0" >&2
    exit 64
fi
bertune=$(realpath "$1") data=$(realpath "$2") model=$(realpath "$3")
shift 3
[ $# -gt 0 ] || set -- 16 32
rounds=${ROUNDS:-5} steps=${STEPS:-100} quiet=${QUIET:-0.1}
command -v taskset >/dev/null || { echo "skipped: no taskset" && exit 77; }

# The first two processors that this process may use.
mapfile -t cores < <(awk '/^Cpus_allowed_list/ { n = split($2, parts, ",")
    for (i = 1; i <= n; i++) {
        m = split(parts[i], ends, "-")
        for (c = ends[1]; c <= ends[m]; c++) print c
    } }' /proc/self/status | head -n 2)
[ "${#cores[@]}" = 2 ] || { echo "skipped: one processor" && exit 77; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_ess_singleton_isolated=1 LC_ALL=C.UTF-8
work=$(mktemp -d "${TMPDIR:-/tmp}/bertune-side-XXXXXX")
trap 'rm -rf "$work"' EXIT
cat >"$work/c.yaml" <<YAML
model: {path: "$model", init: random}
data: {path: "$data"}
YAML
rates=(1e-4 3e-4)  # of the two trials

# trial DIR TRIAL THREADS CORES
trial() {
    rm -rf "${work:?}/$1$2"
    OMP_NUM_THREADS=$3 taskset -c "$4" "$bertune" train "$work/c.yaml" run.dir="$work/$1$2" run.device=cpu \
        train.learning_rate="${rates[$2]}" train.global_batch_size="$batch" train.max_steps="$steps" \
        >/dev/null 2>"$work/$1$2.err" || { cat "$work/$1$2.err" >&2 && return 1; }
}
one_by_one() { trial one 0 2 "${cores[0]},${cores[1]}" && trial one 1 2 "${cores[0]},${cores[1]}"; }
at_once() {
    trial two 0 1 "${cores[0]}" &
    local first=$!
    trial two 1 1 "${cores[1]}"
    wait "$first"
}
# Seconds of the steps of a trial.
step_seconds() {
    grep '"event": "step"' "$work/$1/metrics.jsonl" | sed 's/.*"seconds": //; s/[,}].*//' | awk '{ s += $1 } END { print s }'
}
# Seconds that all processors have worked for others than the ended processes of this shell (a subshell has none).
others_work() {
    times >"$work/own"
    awk -v tick="$(getconf CLK_TCK)" '
        FILENAME != "/proc/stat" && FNR == 2 { gsub(/[ms]/, " "); own = $1 * 60 + $2 + $3 * 60 + $4 }
        /^cpu / { print ($2 + $3 + $4 + $7 + $8 + $9) / tick - own }' "$work/own" /proc/stat >"$work/others"
}
# timed HOW: seconds of both trials: whole, and of their steps; and the cores that others used meanwhile.
timed() {
    local begin end first second others
    others_work
    others=$(cat "$work/others")
    begin=$EPOCHREALTIME
    "$1"
    end=$EPOCHREALTIME
    others_work
    others=$(awk "BEGIN { print ($(cat "$work/others") - $others) / ($end - $begin) }")
    case $1 in one_by_one) first=one ;; *) first=two ;; esac
    second=$(step_seconds ${first}1)
    first=$(step_seconds ${first}0)
    awk -v how="$1" -v whole="$(awk "BEGIN { print $end - $begin }")" -v a="$first" -v b="$second" -v others="$others" \
        'BEGIN { print whole, how == "one_by_one" ? a + b : (a > b ? a : b), others }'
}

for batch in "$@"; do
    one_by_one
    at_once
    for t in 0 1; do
        if ! cmp "$work/one$t/final/model.safetensors" "$work/two$t/final/model.safetensors"; then
            echo "side_by_side.sh: trial $t ends differently at once" >&2
            exit 1
        fi
    done
    for round in $(seq "$rounds"); do
        # Whoever is first changes from round to round.
        if [ $((round % 2)) = 1 ]; then order="one_by_one at_once"; else order="at_once one_by_one"; fi
        for how in $order; do
            seconds=$(timed "$how")
            echo "$batch $round $how $seconds" >>"$work/times"
        done
    done
done

echo "two trials of $steps steps, processors ${cores[*]}, $rounds rounds; both ways end with the same bytes"
echo
echo "| batch | what | rounds that count | one after the other, s | at once, s | trials an hour, one by one | at once | ratio: median | lowest to highest |"
echo "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
awk -v quiet="$quiet" '
    # The median of list (n); leaves the ends in low and high.
    function median(list, n,   i, j, v, sorted) {
        for (i = 1; i <= n; i++) {
            v = list[i]
            for (j = i - 1; j > 0 && sorted[j] > v; j--) sorted[j + 1] = sorted[j]
            sorted[j + 1] = v
        }
        low = sorted[1]
        high = sorted[n]
        return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
    }
    function row(batch, what, k,   r, n, m1, m2, m, one, two, ratio) {
        for (r = 1; r <= rounds; r++) {
            if (calm[batch] && disturbed[batch, r]) continue
            one[++n] = seconds[batch, "one_by_one", k, r]
            two[n] = seconds[batch, "at_once", k, r]
            ratio[n] = one[n] / two[n]
        }
        m1 = median(one, n)
        m2 = median(two, n)
        m = median(ratio, n)
        printf "| %s | %s | %d of %d%s | %.2f | %.2f | %.0f | %.0f | %.2f | %.2f to %.2f |\n", batch, what, n, rounds,
            calm[batch] ? "" : ", disturbed", m1, m2, 7200 / m1, 7200 / m2, m, low, high
    }
    {
        if (!($1 in seen)) batches[++count] = $1
        seen[$1]++
        if ($2 > rounds) rounds = $2
        for (k = 1; k <= 2; k++) seconds[$1, $3, k, $2] = $(3 + k)
        if ($6 > quiet) disturbed[$1, $2] = 1
    }
    END {
        for (b = 1; b <= count; b++) {
            for (r = 1; r <= rounds; r++) calm[batches[b]] += !disturbed[batches[b], r]
            row(batches[b], "whole", 1)
            row(batches[b], "steps", 2)
        }
    }' "$work/times"
