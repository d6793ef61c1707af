# shellcheck shell=bash
# Sourced by the scripts beside it, which set the variables used here; `run train ...` starts `bertune train ...` on all
# tasks of the job, hands on the signal that time is nearly up, and puts the job back into the queue when it is to go on.
#   bertune    the program                       launcher   mpirun or srun
#   requeue    exit codes that mean: go on       restarts   how often at most
: "${bertune:?}" "${launcher:?}" "${requeue:?}" "${restarts:?}"

# An element of a job array is requeued by its own name.
job=$SLURM_JOB_ID
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
restarted=${SLURM_RESTART_COUNT:-0}

say() { echo "job $job: $*" >&2; }

# Ends the script where nothing could be started.
refuse() {
    say "$2"
    exit "$1"
}

# Tells Open MPI and OpenMP what Slurm says of the tasks, and fills the array `start`.
prepare() {
    command -v "$bertune" >/dev/null || refuse 66 "no program $bertune: build it or set BERTUNE=/path/to/bertune"
    command -v "$launcher" >/dev/null || refuse 69 "no $launcher on $(hostname): load the module of your MPI first"
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
    # mpirun waits up to four times as long after a rank has ended with an error, of the time that --signal leaves.
    # It kills ranks so long after it got TERM itself, twice as long after: they must have written their checkpoint.
    export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-10}
    # Jobs that start at once on one node, as elements of an array do, would trip over each other's directories.
    [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ] || export OMPI_MCA_orte_tmpdir_base=${TMPDIR:-/tmp}/bertune-$SLURM_JOB_ID
    case $launcher in
        # Ranks and nodes come from Slurm; the kernel places ranks and threads within the job's CPUs.
        mpirun) start=(mpirun --bind-to none) ;;
        # One lost rank ends all. Tasks see all GPUs of their node, as under mpirun, and each takes its own.
        srun) start=(srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$OMP_NUM_THREADS") ;;
        *) refuse 64 "LAUNCHER is $launcher: it must be mpirun or srun" ;;
    esac
}

# Traps: bertune writes a checkpoint and exits 75 on USR2. mpirun and srun hand USR2 on; TERM they would follow by KILL.
# Once is enough, and a second one would kill an mpirun that is about to end.
hand_on() {
    [ -z "$child" ] || [ -n "$asked" ] || kill -USR2 "$child" 2>/dev/null
    asked=$1
    interrupted=yes
}

# Puts the job back into the queue, or says why not.
put_back() {
    if [ "$restarted" -ge "$restarts" ]; then
        say "not requeued: it has been $restarted times already; submit it again to go on"
        code=1  # not 75, which some clusters requeue by themselves (RequeueExit)
    elif ! command -v scontrol >/dev/null; then
        say "not requeued: no scontrol on $(hostname); submit the same job again to go on"
    else
        trap '' TERM  # by which Slurm ends a job that it requeues
        say "requeued to go on, time $((restarted + 1)) of at most $restarts"
        scontrol requeue "$job" || say "not requeued: scontrol failed; submit the same job again to go on"
    fi
}

run() {
    local start=() child="" asked="" interrupted code
    prepare
    trap 'hand_on USR2' USR2
    trap 'hand_on TERM' TERM
    say "${SLURM_NTASKS:-1} tasks on $SLURM_JOB_NODELIST, $OMP_NUM_THREADS CPUs each, GPUs of a node:" \
        "${SLURM_GPUS_ON_NODE:-none}; restart $restarted; $launcher $bertune $*"
    "${start[@]}" "$bertune" "$@" &
    child=$!
    [ -z "$asked" ] || kill -USR2 "$child"
    interrupted=yes
    while [ -n "$interrupted" ]; do  # a trap ends wait
        interrupted=""
        wait "$child"
        code=$?
    done
    child=""
    rmdir "${OMPI_MCA_orte_tmpdir_base:-}" 2>/dev/null
    # The end of time may come before bertune can catch the signal, or srun kill the ranks that exit a moment later.
    case "$asked $code" in "USR2 137" | "USR2 140" | "USR2 143") code=75 ;; esac
    if [ "$code" = 0 ]; then
        say "done"
    elif [ "$asked" = TERM ]; then
        say "cancelled, preempted or out of time (TERM), exit code $code; the same command goes on from the last checkpoint"
    elif [[ " $requeue " == *" $code "* ]]; then
        put_back
    else
        say "exit code $code, not requeued: see the messages above"
    fi
    exit "$code"
}
