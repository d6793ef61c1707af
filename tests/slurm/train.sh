#!/usr/bin/env bash
# The scripts that train run as they are, with mpirun and srun, and their results are those of a run without Slurm: to
# the byte on as many ranks, to rounding on two nodes, over whose network the gradients go. Usage: train.sh BERTUNE
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
start_cluster
set_up
train 2 0 run.dir=local

submit slurm/train.sbatch c.yaml run.dir="one node"
until_end COMPLETED 0
contains "$log" "job $job: 2 tasks on node"
contains "$log" "1 CPUs each, GPUs of a node: none; restart 0; mpirun $bertune train c.yaml run.dir=one node"
contains "$log" "bertune: done: one node/final"
contains "$log" "job $job: done"
equal_bytes local "one node"

LAUNCHER=srun submit slurm/train.sbatch c.yaml run.dir=srun
until_end COMPLETED 0
contains "$log" "srun $bertune train"
equal_bytes local srun

submit --gpus-per-node=0 slurm/preemptible.sbatch c.yaml run.dir=preemptible run.save_steps=7
until_end COMPLETED 0
equal_bytes local preemptible

# sent NODE: bytes that a node has sent.
sent() { nsenter --net="/run/netns/btslurm$(cat "$cluster/number")-$1" cat /proc/net/dev | awk '/eth0:/ { print $10 }'; }

for launcher in mpirun srun; do
    [ "$network" = none ] || before=$(sent node2)
    LAUNCHER=$launcher submit slurm/train-multinode.sbatch c.yaml run.dir=two-$launcher
    for attempt in 1 2 3 4 5; do  # slurm/README.md
        wait_for 120 left_queue
        if [ $launcher:$attempt = srun:5 ] || ! grep -q "^srun: .*Segmentation fault" "$log"; then break; fi
        echo "AGAIN: Slurm's PMIx plugin let a step of two nodes crash at its start"
        LAUNCHER=$launcher submit slurm/train-multinode.sbatch c.yaml run.dir=two-$launcher
    done
    until_end COMPLETED 0
    equal "$(events two-$launcher start | value world_size)" 4
    equal "$(events two-$launcher step | wc -l)" 48
    for event in step:loss epoch:train_loss epoch:validation_loss; do
        for run in local "two-$launcher"; do events "$run" "${event%:*}" | value "${event#*:}" >"$scratch/$run"; done
        near "$scratch/local" "$scratch/two-$launcher" 2e-6
    done
    if [ "$network" = none ]; then
        echo "NOT CHECKED: that gradients go over the network: no network namespaces here"
    else
        least=$(($(events two-$launcher start | value trained_parameters) * 4 * 48 / 2))
        bytes=$(($(sent node2) - before))
        echo "$launcher: node2 sent $bytes bytes"
        [ "$bytes" -ge "$least" ] || fail "node2 sent $bytes bytes only, not $least"
    fi
done
equal_bytes two-mpirun two-srun
none_left
