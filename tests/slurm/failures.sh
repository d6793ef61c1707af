#!/usr/bin/env bash
# What goes wrong in a job is said in its log, and only what helps is requeued: mistakes and divergence are not; the end
# of its time, lost ranks and whatever the cluster's own rules say are, but not for ever. Usage: failures.sh BERTUNE
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
start_cluster
set_up
export OMPI_MCA_odls_base_sigkill_timeout=0

# Time is up: Slurm looks at its jobs each half minute.
submit --time=1 --signal=B:USR2@55 slurm/train.sbatch c.yaml run.dir=late run.save_steps=5 train.num_train_epochs=5000
late=$job

# fails CODE TEXT ARGUMENT ...: the job ends so, says so, and is not requeued.
fails() {
    local code=$1 text=$2
    shift 2
    submit "$@"
    until_end FAILED "$code"
    contains "$log" "$text"
    contains "$log" "job $job: "
    lacks "$log" "requeued to go on"
    equal "$(field Restarts)" 0
}

fails 78 "unknown key \`train.learning_rat\`" slurm/train.sbatch c.yaml train.learning_rat=1
contains "$log" "job $job: exit code 78, not requeued: see the messages above"
fails 66 "none.h5" slurm/train.sbatch c.yaml data.path=none.h5
fails 66 "nothing.yaml" slurm/preemptible.sbatch nothing.yaml
fails 80 "diverged" slurm/train.sbatch c.yaml train.learning_rate=1000 train.num_train_epochs=50
BERTUNE="no where/bertune" fails 66 "no program no where/bertune: build it or set BERTUNE" slurm/train.sbatch c.yaml
LAUNCHER=mpiexec.none fails 69 "no mpiexec.none on " slurm/train.sbatch c.yaml
LAUNCHER=true fails 64 "LAUNCHER is true" slurm/train.sbatch c.yaml
mkdir elsewhere
(cd elsewhere && sbatch --parsable -o "../bertune-%j.log" ../slurm/train.sbatch c.yaml >"$out")
look_at "$(cat "$out")"
until_end FAILED 66
contains "$log" "submit from the directory that has slurm/run.sh"

# Instead of bertune: exits with $CODE until it has been restarted $TIMES times.
cat >"$scratch/stand-in" <<'SH'
#!/bin/bash
echo "called: $*"
[ "${SLURM_RESTART_COUNT:-0}" -ge "$TIMES" ] || exit "$CODE"
SH
chmod +x "$scratch/stand-in"
sed -i 's/^restarts=[0-9]* /restarts=1/' slurm/train.sbatch
declare -A jobs

# stand_in SCRIPT CODE TIMES ARGUMENT ...
stand_in() {
    local script=$1 code=$2 times=$3
    shift 3
    BERTUNE=$scratch/stand-in CODE=$code TIMES=$times submit --ntasks-per-node=1 "$@" "slurm/$script.sbatch" c.yaml
    jobs[$script-$code-$times]=$job
}
# ends RESTARTS JOB STATE CODE
ends() {
    look_at "${jobs[$2]}"
    until_end "$3" "$4"
    equal "$(field Restarts)" "$1"
}
stand_in train 75 1
stand_in train 75 2
stand_in train 81 1
stand_in train-multinode 75 1
stand_in preemptible 81 1
stand_in sweep 75 1 --array=0-1
ends 1 train-75-1 COMPLETED 0
equal "$(grep -c "^called: train c.yaml$" "$log")" 2
ends 1 train-75-2 FAILED 1
contains "$log" "job $job: not requeued: it has been 1 times already; submit it again to go on"
ends 0 train-81-1 FAILED 81
ends 1 train-multinode-75-1 COMPLETED 0
ends 1 preemptible-81-1 COMPLETED 0
contains "$log" "called: train c.yaml run.save_steps=200"

# Elements of a job array are requeued one by one.
array=${jobs[sweep-75-1]}
for element in 0 1; do
    job=${array}_$element log=bertune-sweep-${array}_$element.log
    until_end COMPLETED 0
    equal "$(field Restarts)" 1
    contains "$log" "job $job: requeued to go on"
    equal "$(grep -c "^called: sweep c.yaml --trial $element$" "$log")" 2
done

# No requeueing where there is no scontrol, or where the job must not be.
mkdir bin
ln -s /usr/bin/* bin/
rm bin/scontrol
PATH=$PWD/bin stand_in train 75 3
ends 0 train-75-3 FAILED 75
contains "$log" "job $job: not requeued: no scontrol on "
stand_in train 75 4 --no-requeue
ends 0 train-75-4 FAILED 75
contains "$log" "job $job: not requeued: scontrol failed"

look_at "$late"
wait_for 90 grep "restart 1; mpirun" "$log"
wait_for 20 grep "going on from late/checkpoints/step-" "$log"
contains "$log" "bertune: stopped early at step "
scancel "$job"
wait_for 40 left_queue

# A cluster that requeues by exit code itself: as often as the script has it, and not what was cancelled.
echo RequeueExit=75 >>"$SLURM_CONF"
scontrol reconfigure
stand_in train 75 5
submit slurm/train.sbatch c.yaml run.dir=cancelled train.num_train_epochs=500
until_step 10 cancelled
scancel "$job"
wait_for 40 left_queue
equal "$(field JobState) $(field Restarts)" "CANCELLED 0"
ends 1 train-75-5 FAILED 1
none_left
