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
# sweep NAME [EPOCHS]: NAME.yaml of six trials.
sweep() {
    sed "s/^  dir: .*//; s/num_train_epochs: .*/num_train_epochs: ${2:-4}/" c.yaml >"$1-train.yaml"
    cat >"$1.yaml" <<YAML
name: $1
config: $1-train.yaml
dir: runs/$1
method: grid
parameters:
  train.learning_rate: {values: [1e-5, 2e-3, 5e-4]}
  train.weight_decay: {values: [0.0, 0.1]}
early_terminate: {type: hyperband, min_iter: 1, eta: 2}
YAML
}
for name in local array farm; do sweep $name; done
expect 0 "$bertune" sweep local.yaml
cat runs/local/table.csv
submit --array=0-5 slurm/sweep.sbatch array.yaml
until_end COMPLETED 0
same runs/local/table.csv runs/array/table.csv
submit --nodes=2 --ntasks-per-node=2 slurm/sweep-farm.sbatch farm.yaml
until_end COMPLETED 0
same runs/local/table.csv runs/farm/table.csv
cat *.log
