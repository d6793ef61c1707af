#!/usr/bin/env bash
# Jobs that are stopped early go back into the queue, go on, and end with the bytes of an undisturbed one: warned by USR2,
# on a lost node, cancelled and submitted again. Usage: preempt.sh BERTUNE
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
start_cluster
set_up
long=(train.num_train_epochs=12 run.save_steps=5)
train 2 0 run.dir=whole2 "${long[@]}"
train 4 0 run.dir=whole4 "${long[@]}"
declare -A jobs

# begin SCRIPT LAUNCHER: a job whose run has both their names, until its first steps are done.
begin() {
    LAUNCHER=$2 submit "slurm/$1.sbatch" c.yaml run.dir="$1-$2" "${long[@]}"
    jobs[$1-$2]=$job
    until_step 10 "$1-$2"
}

# went_on RUN WHOLE: it did so once, and the result is WHOLE's.
went_on() {
    look_at "${jobs[$1]}"
    until_end COMPLETED 0
    contains "$log" "restart 1; "
    contains "$log" "going on from $1/checkpoints/step-"
    equal "$(field Restarts)" 1
    equal_bytes "$2" "$1"
}

# USR2 to the script, as Slurm sends it before the end of its time; with either launcher, on one node and on two.
for run in train:mpirun train:srun train-multinode:mpirun; do
    begin ${run%:*} ${run#*:}
    scancel -b -s USR2 "$job"
done
for run in "${!jobs[@]}"; do
    case $run in train-multinode-*) whole=whole4 ;; *) whole=whole2 ;; esac
    went_on "$run" $whole
    contains "$log" "bertune: stopped early at step "
    contains "$log" "job $job: requeued to go on, time 1 of at most 50"
done

# A node that is marked down.
begin preemptible mpirun
node=$(field NodeList)
scontrol update nodename="$node" state=down reason=test
went_on preemptible-mpirun whole2

# Cancelled: ranks hear TERM from Slurm and write a checkpoint. Nobody requeues it; submitted again, it goes on.
rm -r train-*
long+=(run.save_steps=1000)
for launcher in mpirun srun; do
    OMPI_MCA_odls_base_sigkill_timeout=5 begin train $launcher
    scancel "$job"
done
for launcher in mpirun srun; do
    look_at "${jobs[train-$launcher]}"
    wait_for 60 left_queue
    equal "$(field JobState)" CANCELLED
    lacks "$log" "requeued to go on"
    absent train-$launcher/final
    tail -n 1 train-$launcher/metrics.jsonl >"$out"
    contains "$out" '"event": "checkpoint"'
    begin train $launcher
    until_end COMPLETED 0
    contains "$log" "going on from train-$launcher/checkpoints/step-"
    equal_bytes whole2 train-$launcher
done
none_left
