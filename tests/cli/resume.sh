#!/usr/bin/env bash
# An interrupted run that goes on ends with the bytes of one that was never interrupted; damage, locks and signals.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1  # no daemon beside one process alone: faster
set_up

# ends_like REFERENCE RUN: the same final model and the same lines of steps and epochs.
ends_like() {
    same "$1/final/model.safetensors" "$2/final/model.safetensors"
    for event in step epoch end; do
        events "$1" $event >"$scratch/a"
        events "$2" $event >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
}

checkpoints() { find "$1/checkpoints" -mindepth 1 -maxdepth 1 -name "${2:-step-*}" -printf '%f\n' | sort | tr '\n' ' '; }

# valid CHECKPOINT: sizes in the MANIFEST are those of the files, and all files stand in it.
valid() {
    local manifest=$1/MANIFEST hash size name
    [ -s "$manifest" ] || fail "$1 has no MANIFEST"
    equal "$(wc -l <"$manifest")" "$(find "$1" -type f ! -name MANIFEST | wc -l)" "files of $1"
    while read -r hash size name; do
        equal "${#hash}" 32 "$manifest"
        equal "$(stat -c %s "$1/$name")" "$size" "$1/$name"
    done < <(cat "$manifest")
}

train 0 0 run.dir=whole
equal "$(events whole step | wc -l)" 48
[ -d whole/checkpoints/best ] || fail "best leads nowhere"

# By max_steps: inside of epochs, at their ends, twice in a row; final/ is that of the step.
train 0 0 run.dir=cut train.max_steps=7
equal "$(checkpoints cut)" "step-00000007 "
same cut/final/model.safetensors cut/checkpoints/step-00000007/model.safetensors
valid cut/checkpoints/step-00000007
for steps in 16 20 47; do
    train 0 0 run.dir=cut train.max_steps=$steps
    contains "$err" "going on from cut/checkpoints/step-"
    same cut/final/model.safetensors "cut/checkpoints/step-000000$steps/model.safetensors"
done
train 0 0 run.dir=cut
ends_like whole cut
same whole/checkpoints/step-00000048/optimizer.safetensors cut/checkpoints/step-00000048/optimizer.safetensors

# On two ranks, and going on with another number of ranks.
train 2 0 run.dir=whole2
train 2 0 run.dir=cut2 train.max_steps=21
cp -r cut2 cut3
train 2 0 run.dir=cut2
ends_like whole2 cut2
train 3 0 run.dir=cut3
equal "$(events cut3 step | wc -l)" 48
events whole2 step | value loss >"$scratch/a"
events cut3 step | value loss >"$scratch/b"
near "$scratch/a" "$scratch/b" 2e-6

# A finished run is left alone, also under mpirun, also when fewer steps are asked for.
hashes whole >"$scratch/before"
for ranks in 0 2; do
    train $ranks 0 run.dir=whole
    contains "$err" "finished already after 48 steps"
    [ ! -s "$out" ] || fail "a finished run prints results"
    hashes whole >"$scratch/after"
    same "$scratch/before" "$scratch/after"
done
train 0 0 run.dir=whole train.max_steps=5
hashes whole >"$scratch/after"
same "$scratch/before" "$scratch/after"
train 0 73 run.dir=whole run.resume=never
contains "$err" whole
hashes whole >"$scratch/after"
same "$scratch/before" "$scratch/after"
train 2 73 run.dir=whole run.resume=never
train 0 0 run.dir=new run.resume=never train.max_steps=1
# What failed before its first step is no run.
train 0 78 run.dir=fresh run.resume=never train.global_batch_size=0
mkdir -p fresh/checkpoints fresh/logs
train 0 0 run.dir=fresh run.resume=never train.max_steps=1

# Other data, batches or seeds are not gone on with.
for change in train.seed=1 train.global_batch_size=8 train.shuffle=false; do
    train 0 78 run.dir=whole train.num_train_epochs=4 "$change"
    contains "$err" "use another run.dir"
done
hashes whole >"$scratch/after"
same "$scratch/before" "$scratch/after"

# Damage: the newest is passed over with a warning and does not crowd out what follows; all damaged: 65.
train 0 0 run.dir=damaged train.max_steps=12 run.save_steps=3 run.save_total_limit=4
equal "$(checkpoints damaged)" "step-00000003 step-00000006 step-00000009 step-00000012 "
cp -r damaged all
cp -r damaged older
flip damaged/checkpoints/step-00000012/model.safetensors 20000
rm damaged/checkpoints/step-00000009/MANIFEST
train 0 0 run.dir=damaged run.save_total_limit=1 train.max_steps=14
contains "$err" "warning: damaged/checkpoints/step-00000012/model.safetensors: damaged"
contains "$err" "warning: damaged/checkpoints/step-00000009/MANIFEST"
contains "$err" "going on from damaged/checkpoints/step-00000006"
equal "$(checkpoints damaged)" "step-00000014 "
train 0 0 run.dir=damaged
lacks "$err" warning
ends_like whole damaged
for file in state.json optimizer.safetensors MANIFEST config.json; do
    rm -rf broken
    cp -r older broken
    flip broken/checkpoints/step-00000012/$file 10
    rm broken/final -r
    train 0 0 run.dir=broken train.max_steps=12
    contains "$err" "going on from broken/checkpoints/step-00000009"
    same older/final/model.safetensors broken/final/model.safetensors
done
for checkpoint in all/checkpoints/step-*; do truncate -s -1 "$checkpoint/vocab.txt"; done
hashes all >"$scratch/before"
for ranks in 0 2; do
    train $ranks 65 run.dir=all
    contains "$err" "all 4 checkpoints are damaged"
    hashes all >"$scratch/after"
    same "$scratch/before" "$scratch/after"
done
rm -r all/final
expect 65 "$bertune" predict all text
contains "$err" damaged

# An older checkpoint by name: what came after it is gone, and the run ends as ever.
train 0 0 run.dir=older run.resume=older/checkpoints/step-00000006 train.max_steps=8 run.save_total_limit=2
equal "$(checkpoints older)" "step-00000006 step-00000008 "
equal "$(events older step | wc -l)" 8
train 0 0 run.dir=older
ends_like whole older
[ -d older/checkpoints/best ] || fail "best leads nowhere"

# final/ of fewer steps does not pass for the end: here the run dies between the last checkpoint and final/.
train 0 0 run.dir=stale train.max_steps=10
rm -r stale/final
train 0 0 run.dir=stale train.max_steps=20
touch stale/.tmp-final
train 0 73 run.dir=stale
rm stale/.tmp-final
absent stale/final
train 0 0 run.dir=stale
ends_like whole stale

# What crashed runs leave is removed.
mkdir -p left/checkpoints/.tmp-step-00000001-99 left/checkpoints/.trash-step-00000009 left/.tmp-final left/.trash-final
touch left/checkpoints/.tmp-step-00000001-99/a left/checkpoints/.trash-step-00000009/a left/.tmp-final/a left/.trash-final/a
train 0 0 run.dir=left train.max_steps=2
mkdir left/.trash-final
touch left/.trash-final/a
train 0 0 run.dir=left train.max_steps=3
equal "$(find left -name '.t*' | wc -l)" 0 "leftovers"
same left/final/model.safetensors left/checkpoints/step-00000003/model.safetensors

# A torn last line of metrics.jsonl goes.
train 0 0 run.dir=torn train.max_steps=10
printf '{"event": "step", "step": 11, "lo' >>torn/metrics.jsonl
train 0 0 run.dir=torn
ends_like whole torn

# Time is up: at least one step each time.
for i in 1 2 3; do
    train 0 75 run.dir=slow run.max_time=0.001
    contains "$err" "run the same command again"
    equal "$(events slow step | wc -l)" "$i"
    valid "slow/checkpoints/step-0000000$i"
    absent slow/final
done
SLURM_JOB_END_TIME=$(($(date +%s) + 30)) train 0 75 run.dir=slow
train 0 0 run.dir=slow
ends_like whole slow
train 2 75 run.dir=slow2 run.max_time=0.001
train 2 0 run.dir=slow2
ends_like whole2 slow2

# Signals, and two jobs on one directory. Checkpoints after each step make the run long enough.
long=(train.num_train_epochs=20 run.save_steps=1)
train 2 0 run.dir=long2 train.num_train_epochs=20
# stop_by_signal RANKS SIGNAL: leaves the exit code in $code.
stop_by_signal() {
    local ranks=$1 signal=$2 start=()
    [ "$ranks" = 0 ] || start=(mpirun -np "$ranks")
    rm -rf stopped
    "${start[@]}" "$bertune" train c.yaml run.dir=stopped "${long[@]}" >"$out" 2>"$err" &
    pid=$!
    wait_for 60 grep '"step": 4,' stopped/metrics.jsonl
    if [ "$signal" = USR2 ]; then
        LIMIT=20 train 0 73 run.dir=stopped "${long[@]}"
        contains "$err" "another job uses this run directory: host "
    fi
    kill -"$signal" $pid
    code=0
    wait $pid || code=$?
}
for signal in USR2 TERM; do
    stop_by_signal 0 $signal
    equal "$code" 75 "after SIG$signal"
    valid "stopped/checkpoints/$(checkpoints stopped | tr ' ' '\n' | tail -n 2 | head -n 1)"
    absent stopped/final
done
stop_by_signal 2 USR2
equal "$code" 75 "mpirun's exit code after SIGUSR2"
valid "stopped/checkpoints/$(checkpoints stopped | tr ' ' '\n' | tail -n 2 | head -n 1)"
steps=$(events stopped step | wc -l)
[ "$steps" -lt 320 ] || fail "stopped too late"
train 2 0 run.dir=stopped train.num_train_epochs=20
ends_like long2 stopped

# Killed: alone, and one rank of two, whose peer must not stay.
train 0 0 run.dir=long1 train.num_train_epochs=20
stop_by_signal 0 KILL
equal "$code" 137 "after SIGKILL"
train 0 0 run.dir=stopped train.num_train_epochs=20
ends_like long1 stopped
equal "$(find stopped -name '.t*' | wc -l)" 0 "leftovers"
rm -rf stopped
mpirun -np 2 "$bertune" train c.yaml run.dir=stopped "${long[@]}" >"$out" 2>"$err" &
pid=$!
wait_for 60 grep '"step": 4,' stopped/metrics.jsonl
kill -9 "$(leftovers | tail -n 1)"
code=0
wait $pid || code=$?
equal "$code" 137 "mpirun's exit code after a rank was killed"
none_left
train 2 0 run.dir=stopped train.num_train_epochs=20
ends_like long2 stopped
none_left
