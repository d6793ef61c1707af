# shellcheck shell=bash
# Sourced by the scripts of tests/slurm, with the bertune binary as $1 of the script: a Slurm cluster of two nodes of its
# own, a copy of slurm/ in a directory with a space in its name, and what tests of jobs need. Skips aloud what cannot be.
# shellcheck source-path=SCRIPTDIR source=../cli/lib.sh
# shellcheck disable=SC2034  # variables for the scripts
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
. "$here/../cli/lib.sh"
cluster=$scratch/slurm
export PATH=$PATH:/usr/sbin:/sbin

skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "a Slurm cluster of the tests' own needs root"
for program in munged slurmctld slurmd sbatch srun; do
    command -v $program >/dev/null || skip "no $program: apt-get install slurmctld slurmd slurm-client munge iproute2"
done

# The cluster goes, however the script ends: `kill -9` leaves it to a guard.
leave() {
    local code=$?
    set +e
    "$here/cluster.sh" stop "$cluster"
    [ -z "${guard:-}" ] || kill "$guard"
    ended "$code"
    clean_up
}
ended() { return "$1"; }
trap leave EXIT

fail() {
    local file
    echo "FAILED: $*" >&2
    for file in "$out" "$err" bertune*-"${job:-}"*.log; do
        [ ! -s "$file" ] || { echo "--- $file" && tail -n 40 "$file"; } >&2
    done
    exit 1
}

# start_cluster: as cluster.sh, which see for CLUSTER_GPUS and CLUSTER_CONF.
start_cluster() {
    # shellcheck disable=SC2016
    setsid bash -c 'while [ -e "/proc/$1" ]; do sleep 1; done; "$2" stop "$3"; rm -rf "$4"' guard \
        $$ "$here/cluster.sh" "$cluster" "$scratch" </dev/null >/dev/null 2>&1 &
    guard=$!
    "$here/cluster.sh" start "$cluster" 2 || fail "the cluster does not start"
    network=$(cat "$cluster/net")
    eval "$("$here/cluster.sh" env "$cluster")"
    mkdir "my project"
    cd "my project"
    cp -r "$here/../../slurm" slurm
    export BERTUNE=$bertune
}

# submit ARGUMENT ...: sbatch; leaves the job's number in $job, its log in $log, which is shown should the test fail.
submit() {
    expect 0 sbatch --parsable "$@"
    look_at "$(cat "$out")"
}
look_at() { job=$1 log=bertune-$1.log; }

# field NAME: of $job; of a job array the values that its elements have.
field() { scontrol -o show job "$job" | sed -n "s/.* $1=\([^ ]*\).*/\1/p" | sort -u; }

left_queue() { [ -z "$(squeue -h -j "$job" 2>/dev/null)" ]; }

# until_end STATE CODE: waits until $job has ended so, CODE being the script's.
until_end() {
    wait_for "${LIMIT:-120}" left_queue
    equal "$(field JobState) $(field ExitCode)" "$1 $2:0" "job $job"
}

# until_step N RUN: waits until a step N is in the metrics.
until_step() { wait_for 120 grep "\"step\": $1," "$2/metrics.jsonl"; }

equal_bytes() { same "$1/final/model.safetensors" "$2/final/model.safetensors"; }
