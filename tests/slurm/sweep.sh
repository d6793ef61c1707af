#!/usr/bin/env bash
# Sweeps: a job array, and one job that farms out the trials on two nodes, come to the table of a sweep without Slurm to
# the byte, trials ended early included; also when they are warned, cancelled and submitted again, or lose a node.
# Usage: sweep.sh BERTUNE
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
start_cluster
set_up
expect 0 "$bertune" prepare reviews.csv --out data.h5 --build-vocab=500 --vocab-out vocab.txt --max-length 48 --dev-size 0.2
model model

# sweep NAME EPOCHS MIN_ITER: NAME.yaml of six trials.
sweep() {
    sed "s/^  dir: .*//; s/num_train_epochs: .*/num_train_epochs: $2/" c.yaml >"$1-train.yaml"
    cat >"$1.yaml" <<YAML
name: $1
config: $1-train.yaml
dir: runs/$1
method: grid
parameters:
  train.learning_rate: {values: [1e-5, 2e-3, 5e-4]}
  train.weight_decay: {values: [0.0, 0.1]}
early_terminate: {type: hyperband, min_iter: $3, eta: 2}
YAML
}

# like LOCAL RUN: the same table, and the same winner.
like() {
    same "runs/$1/table.csv" "runs/$2/table.csv"
    same "runs/$1/winner/final/model.safetensors" "runs/$2/winner/final/model.safetensors"
}

# In the background: an element of an array finds its trial claimed by a node that is lost, and takes it all the same.
sweep lost 2 1
mkdir -p runs/lost/claims
echo '{"host": "lost", "pid": 1, "worker": "lost:0", "begin": 1, "started": 1, "boot": "?", "pids": "?"}' >runs/lost/claims/0005-0001.1
"$bertune" sweep lost.yaml --trial 5 >"$scratch/lost" 2>&1 &
lost=$!

start_array() { submit --array=0-5 slurm/sweep.sbatch "$1.yaml"; }
start_farm() { submit --nodes=2 --ntasks-per-node=2 slurm/sweep-farm.sbatch "$1.yaml"; }

for name in local array farm; do sweep $name 4 1; done
expect 0 "$bertune" sweep local.yaml
contains "$out" "winner: trial "
equal "$(grep -c ",stopped," runs/local/table.csv)" 5
for kind in array farm; do
    start_$kind $kind
    until_end COMPLETED 0
    like local $kind
done
contains "bertune-farm-$job.log" "job $job: done"
submit --array=6 slurm/sweep.sbatch array.yaml
until_end FAILED 64
contains "bertune-sweep-${job}_6.log" "the sweep has trials 0 to 5"

# Warned in their first rung, cancelled in later ones, and submitted again.
for name in long long-array long-farm; do sweep $name 24 12; done
expect 0 "$bertune" sweep long.yaml
declare -A jobs logs
for kind in array farm; do
    start_$kind long-$kind
    jobs[$kind]=$job
    if [ $kind = array ]; then logs[$kind]=bertune-sweep-${job}_0.log; else logs[$kind]=bertune-farm-$job.log; fi
    until_step 10 runs/long-$kind/trials/0000
    scancel -b -s USR2 "$job"
    {
        wait_for 90 grep "restart 1; " "${logs[$kind]}"
        wait_for 90 compgen -G "runs/long-$kind/results/*-0012.json"
        scancel "$job"
    } &
done
for kind in array farm; do
    look_at "${jobs[$kind]}"
    wait_for 120 left_queue
    contains "${logs[$kind]}" ": requeued to go on, time 1 of at most 50"
    absent runs/long-$kind/table.csv
    start_$kind long-$kind
    until_end COMPLETED 0
    like long long-$kind
done

code=0
wait $lost || code=$?
equal "$code" 0 "$(cat "$scratch/lost")"
[ -s runs/lost/results/0005-0001.json ] || fail "nobody took the trial of a lost node: $(cat "$scratch/lost")"
none_left
