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
