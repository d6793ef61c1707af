#!/usr/bin/env bash
# Phases (bench, run.profile), bfloat16, and the same bits for any number of threads.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set_up

phases=(embedding qkv attention "attention output" feed-forward layernorm "pooler and loss" "feed-forward backward"
    "attention backward" "qkv backward" "embedding backward" reduction adamw)

# bench: every phase, the machine's limits, and nothing left behind.
find . | sort >"$scratch/before"
expect 0 "$bertune" bench c.yaml --steps 4
for phase in "${phases[@]}"; do grep -qE "^$phase +[0-9.]+ +[0-9.]+%" "$out" || fail "no phase $phase"; done
grep -qE '^4 steps of [0-9.]+ tokens; multiply-add peak [0-9.]+ GFLOP/s, copy [0-9.]+ GB/s' "$out" || fail "no limits"
grep -qE '^1 rank x [0-9]+ threads? on cpu, fp32: median step [0-9.]+ ms' "$out" || fail "no median"
expect 0 mpirun -np 2 "$bertune" bench c.yaml --steps 25 --format json train.global_batch_size=8
equal "$(wc -l <"$out")" 1
for key in '"world_size": 2' '"steps": 25' '"precision": "fp32"'; do contains "$out" "$key"; done
for phase in "${phases[@]}"; do contains "$out" "\"name\": \"$phase\""; done
# Shares of a whole: the phases add up to the step, and that is most of what the steps' own clock says, never more.
tr '{' '\n' <"$out" | awk '
    /"mean_milliseconds"/ { clock = $0; sub(/.*"mean_milliseconds": /, "", clock) }
    /"step_milliseconds"/ { step = $0; sub(/.*"step_milliseconds": /, "", step) }
    /"name"/ { ms = $0; sub(/.*"milliseconds": /, "", ms); sum += ms + 0 }
    END {
        step += 0; clock += 0
        exit !(step > 0 && sum > 0.999 * step && sum < 1.001 * step && sum > 0.5 * clock && sum < 1.001 * clock)
    }' || fail "the phases are not the step"
# --advise: every figure is measured, fitted or modelled; rows follow from each other; the step that was timed is there.
expect 0 mpirun -np 2 "$bertune" bench c.yaml --advise --steps 6
grep -qE '^2 ranks x [0-9]+ threads? on cpu on 1 node, fp32$' "$out" || fail "no ranks"
! grep -E '[0-9]\.[0-9]' "$out" | grep -vqE '^(measured|fitted|modelled)\*? ' || fail "a figure of unknown origin"
for rows in 16 4 1; do grep -qE "^measured +step of a rank by itself, rows: +$rows, " "$out" || fail "no $rows rows"; done
equal "$(grep -cE '^measured +sum of .* MB over +2 ranks' "$out")" 4
for table in strong weak; do
    sed -n "/^$table scaling: 16 rows a step/,/^$/p" "$out" >"$scratch/$table"
    equal "$(grep -E '^modelled' "$scratch/$table" | awk '{ print $2 }' | tr '\n' ' ')" "1 2 4 8 16 32 64 128 256 512 1024 "
    # On this node no network could be measured.
    equal "$(grep -cE '^modelled\*' "$scratch/$table")" 9
done
equal "$(grep '^measured' "$scratch/strong" | awk '{ print $2 }' | tr '\n' ' ')" "1 2 "
grep -qE '^modelled +([0-9]+ ranks? takes? the fastest step|the step still gets faster)' "$out" || fail "no advice"
contains "$out" "trials of a sweep side by side"
expect 0 mpirun -np 2 "$bertune" bench c.yaml --advise --steps 6 --format json train.gradient_accumulation_steps=2
equal "$(wc -l <"$out")" 1
tr '{' '\n' <"$out" | awk '
    function number(key) { v = $0; if (!sub(".*\"" key "\": ", "", v)) { return -1 } return v + 0 }
    function near(a, b) { d = a - b; return (d < 0 ? -d : d) <= 1e-6 * (b < 0 ? -b : b) }
    /"alone": / { alone = 1 }
    /"milliseconds"/ && /"tokens"/ && !whole { whole = number("milliseconds") }
    /"step_milliseconds"/ { step = number("step_milliseconds") }
    /"basis": "modelled.*"speedup"/ {
        ms = number("milliseconds"); p = number("ranks"); samples = number("samples_per_second")
        if (p == 1) { first = samples; tables++ }
        ok += near(number("speedup"), samples / first) && near(number("efficiency"), samples / first / p) &&
            near(samples, number("rows_per_rank") * p * 1e3 / ms)
    }
    /"basis": "measured"/ {
        ms = number("milliseconds"); measured++
        ok += ms > 0 && near(ms, number("ranks") == 1 ? whole : step)
    }
    END { exit !(ok == 25 && measured == 3 && tables == 2 && step > 0) }' || fail "the tables are not what they are made of"
for key in '"alpha_microseconds": ' '"token_microseconds": ' '"best_ranks": {"basis": "modelled"' '"nodes": 1'; do
    contains "$out" "$key"
done
# One rank: what can be measured, and how to get the rest.
expect 0 "$bertune" bench c.yaml --advise --steps 3 train.global_batch_size=1
grep -qE '^measured +step of a rank by itself, rows: +2, ' "$out" || fail "no second batch"
contains "$out" "mpirun -np 2"
lacks "$out" modelled
expect 0 "$bertune" bench c.yaml --advise --steps 3 --format json
contains "$out" '"note": "'
lacks "$out" '"strong"'
expect 78 mpirun -np 2 "$bertune" bench c.yaml --advise train.determinism=elastic
contains "$err" "train.determinism"
expect 64 "$bertune" bench
expect 64 "$bertune" bench c.yaml --steps 0
expect 64 "$bertune" bench c.yaml --format xml
expect 66 "$bertune" bench nowhere.yaml
expect 78 "$bertune" bench c.yaml train.epochs=1
# SIGTERM ends it at once: there is nothing to save.
expect 143 timeout --preserve-status --signal TERM --kill-after 20 3 "$bertune" bench c.yaml --steps 1000000
find . | sort >"$scratch/after"
same "$scratch/before" "$scratch/after"

# run.profile changes nothing but adds a table and an event.
train 0 0 run.dir=plain train.max_steps=20
train 0 0 run.dir=profiled train.max_steps=20 run.profile=true
grep -qE '^feed-forward backward +[0-9.]+' "$err" || fail "no table"
equal "$(grep -c '"event": "profile"' profiled/metrics.jsonl)" 1
contains profiled/metrics.jsonl '"peak_gflops": '
same plain/final/model.safetensors profiled/final/model.safetensors

# The same bits for any number of threads.
for threads in 1 3; do
    OMP_NUM_THREADS=$threads train 0 0 run.dir=threads$threads train.max_steps=20
    same plain/final/model.safetensors threads$threads/final/model.safetensors
done

# bf16: near fp32, and not it; or refused clearly.
if expect 0 "$bertune" info && grep -qx 'bf16: yes' "$out"; then
    train 0 0 run.dir=bf16 train.max_steps=20 train.precision=bf16
    for run in plain bf16; do events $run step | value loss >"$scratch/$run"; done
    near "$scratch/plain" "$scratch/bf16" 0.02
    ! cmp -s "$scratch/plain" "$scratch/bf16" || fail "bf16 computes as fp32"
    train 2 0 run.dir=bf16-2 train.max_steps=20 train.precision=bf16
    events bf16-2 step | value loss >"$scratch/b"
    near "$scratch/bf16" "$scratch/b" 0.02
    expect 0 "$bertune" evaluate bf16 --data data.h5 --precision bf16
    sed -n 's/^loss: //p' "$out" >"$scratch/a"
    expect 0 "$bertune" evaluate bf16 --data data.h5
    sed -n 's/^loss: //p' "$out" >"$scratch/b"
    near "$scratch/a" "$scratch/b" 0.02
    expect 0 "$bertune" predict bf16 --precision bf16 好吃
else
    echo "SKIPPED: bf16 (this processor lacks AVX512-BF16)"
    train 0 78 run.dir=bf16 train.precision=bf16
    contains "$err" "AVX512-BF16"
    absent bf16
    expect 78 "$bertune" predict plain --precision bf16 好吃
fi
expect 64 "$bertune" predict plain --precision fp64 好吃
train 2 78 run.dir=tf32 train.precision=tf32
contains "$err" "CUDA"
none_left
