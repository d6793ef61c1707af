# shellcheck shell=bash
# Sourced by the scripts of tests/cli as `. lib.sh`, with the bertune binary as $1 of the script. Makes a scratch
# directory that is removed at the end and works in it; asserts; makes a tiny data set and model.
set -eu

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# Seconds less each time: no search for networks, and no second's grace for the ranks when one has failed.
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_odls_base_sigkill_timeout=0
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}" LC_ALL=C.UTF-8
export OMP_WAIT_POLICY=passive  # spinning threads starve each other where cores are few or shared
unset OMP_NUM_THREADS NO_COLOR SLURM_JOB_END_TIME SLURM_STEP_NUM_TASKS OMPI_COMM_WORLD_SIZE
for variable in $(compgen -e BERTUNE_ || true); do unset "$variable"; done

bertune=$(realpath "${1:?usage: $0 BERTUNE}")
samples=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../datasets/samples/reviews.csv")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/bertune-cli-XXXXXX")
out=$scratch/out err=$scratch/err  # of the last `expect`
mkdir "$scratch/work"
export OMPI_MCA_orte_tmpdir_base=$scratch/mpi  # else processes without mpirun take each other's directory away
# What killed ranks leave of Open MPI's shared memory goes with the test, and is not taken for a later job's.
segments=$(mktemp -d /dev/shm/bertune-cli-XXXXXX 2>/dev/null || mktemp -d "$scratch/segments-XXXXXX")
export OMPI_MCA_btl_vader_backing_directory=$segments
mkdir "$scratch/mpi"
chmod 1777 "$scratch/mpi" "$segments"  # some run as other users
cd "$scratch/work"

# The processes of this test that are still there.
leftovers() {
    local exe cwd
    while read -r exe; do
        cwd=$(readlink "${exe%/exe}/cwd" 2>/dev/null || true)
        case $cwd in "$scratch"*) echo "${exe//[!0-9]/}" ;; esac
    done < <(find /proc -maxdepth 2 -name exe \( -lname "$bertune" -o -lname '*/orted' \) 2>/dev/null)
}

clean_up() {
    local code=$? pid
    for pid in $(leftovers); do kill -9 "$pid" 2>/dev/null || true; done
    cd /
    [ -z "${mounted:-}" ] || umount "$mounted" || true
    rm -rf "$scratch" "$segments"
    exit "$code"
}
trap clean_up EXIT

fail() {
    echo "FAILED: $*" >&2
    [ ! -s "$out" ] || { echo "--- stdout" && head -c 2000 "$out"; } >&2
    [ ! -s "$err" ] || { echo "--- stderr" && head -c 4000 "$err"; } >&2
    exit 1
}

# expect CODE COMMAND ...: runs it, stdout in $out and stderr in $err, and checks its exit code.
expect() {
    local wanted=$1 code=0
    shift
    timeout "${LIMIT:-120}" "$@" >"$out" 2>"$err" || code=$?
    [ "$code" = "$wanted" ] || fail "exit code $code instead of $wanted: $*"
}

contains() { grep -qF -e "$2" "$1" || fail "$(basename "$1") lacks \`$2\`: ${*:3}"; }
lacks() { ! grep -qF -e "$2" "$1" || fail "$(basename "$1") has \`$2\`: ${*:3}"; }
equal() { [ "$1" = "$2" ] || fail "expected \`$2\`, found \`$1\`: ${*:3}"; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ: $(diff "$1" "$2" 2>&1 | head -4)"; }
absent() { if [ -e "$1" ] || [ -L "$1" ]; then fail "$1 is there"; fi; }

# train RANKS CODE ARGUMENT ...: `bertune train c.yaml ARGUMENT ...`, without mpirun for 0 ranks.
train() {
    local ranks=$1 code=$2 start=()
    shift 2
    [ "$ranks" = 0 ] || start=(mpirun -np "$ranks")
    expect "$code" "${start[@]}" "$bertune" train c.yaml "$@"
}

# Lines of a run's metrics of one event, without times.
events() { grep "\"event\": \"$2\"" "$1/metrics.jsonl" | sed 's/, "seconds[_a-z]*": [^,}]*//g'; }

# value KEY: of each line of JSON on stdin.
value() { sed "s/.*\"$1\": //; s/[,}].*//"; }

# near A B TOLERANCE: files of numbers, line by line.
near() {
    paste "$1" "$2" | awk -v tolerance="$3" '
        NF != 2 { print "another number of lines"; exit 1 }
        { d = $1 - $2; if (d < 0) d = -d; if (!(d <= tolerance)) { print "line " NR ": " $1 " and " $2; exit 1 } }
        END { if (NR == 0) exit 1 }' >"$scratch/near" || fail "$1 and $2: $(cat "$scratch/near")"
}

# wait_for SECONDS COMMAND ...: until the command succeeds.
wait_for() {
    local left=$(($1 * 50))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "waited in vain for: $*"
        sleep 0.02
    done
}

gone() { [ -z "$(leftovers)" ]; }
# Ends a script: no process of it may be left, after a moment for MPI's own.
none_left() { wait_for 10 gone; }

# await_launcher PID: until it has ended; sets its exit $code. An mpirun one of whose ranks is killed while they greet
# each other may lock itself out when it ends, all ranks gone (seen with Open MPI 4.1.4 and PMIx 4.2.2: a mutex in
# pmix_rte_finalize): that one is killed after 15 s, and counted in $locked.
locked=0
await_launcher() {
    local empty=0 left=6000
    code=0
    while kill -0 "$1" 2>/dev/null; do
        sleep 0.02
        empty=$((empty + 1)) left=$((left - 1))
        [ $((left % 50)) != 0 ] || gone || empty=0
        [ "$left" -gt 0 ] || fail "the launcher does not end"
        [ "$empty" -lt 750 ] || { kill -9 "$1" && locked=$((locked + 1)) && break; }
    done
    wait "$1" 2>/dev/null || code=$?
}

# flip FILE OFFSET [MASK]: inverts one byte, or the bits of the mask.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ ${3:-255})))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# Hashes of all files below a run directory but the logs and the lock.
hashes() { (cd "$1" && find . -type f ! -path './logs/*' ! -name .lock -exec sha256sum {} + | LC_ALL=C sort -k 2); }

# model DIRECTORY [CONFIG]: config.json (given or of the tiny model) and vocab.txt.
model() {
    mkdir -p "$1"
    cp vocab.txt "$1/vocab.txt"
    cat >"$1/config.json" <<JSON
{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
 "max_position_embeddings": 64, "vocab_size": $(wc -l <vocab.txt)}
JSON
}

# set_up: reviews.csv (320 rows: 16 steps an epoch), data.h5, vocab.txt, model/ and c.yaml (model.init: random).
set_up() {
    head -n 321 "$samples" >reviews.csv
    expect 0 "$bertune" prepare reviews.csv --out data.h5 --build-vocab=500 --vocab-out vocab.txt --max-length 48
    model model
    cat >c.yaml <<YAML
model:
  path: model
  init: random
data:
  path: data.h5
train:
  num_train_epochs: 3
  learning_rate: 5.0e-4
run:
  dir: run
YAML
}
