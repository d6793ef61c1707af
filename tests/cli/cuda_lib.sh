# shellcheck shell=bash
# Sourced by the cuda_*.sh, with bertune-cuda-host as $1 of the script: GPUs that run on processors
# (tests/cuda_host/README.md), four of them unless a test says otherwise, and a data set and model so small that a step
# is some 30 ms there.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for variable in $(compgen -e CUDA_ || true) $(compgen -e NCCL_ || true); do unset "$variable"; done
export CUDA_HOST_DEVICES=4 LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-$(dirname "$bertune")/tests/cuda_host/nccl}"
export OMPI_MCA_hwloc_base_binding_policy=none  # runs beside each other would share one core
export OMPI_MCA_ess_singleton_isolated=1
LIMIT=${LIMIT:-400}

# set_up_small: data.h5 (128 training rows: 43 steps of 3 rows an epoch, the last of 2), model/ and c.yaml.
set_up_small() {
    head -n 161 "$samples" >reviews.csv
    expect 0 "$bertune" prepare reviews.csv --out data.h5 --build-vocab=100 --vocab-out vocab.txt --max-length 20
    model model
    cat >c.yaml <<YAML
model:
  path: model
  init: random
data:
  path: data.h5
train:
  num_train_epochs: 100
  global_batch_size: 3
  learning_rate: 5.0e-4
run:
  device: cuda
  dir: run
  save_steps: 1000
  step_timeout: 900
YAML
}

running=()
# begin RUN RANKS ARGUMENT ...: `bertune train c.yaml run.dir=RUN ARGUMENT ...` beside others, until finish_all. An
# argument without a dot before its `=` is a variable of the environment.
begin() {
    local run=$1 ranks=$2 start=(env) keys=() argument
    shift 2
    for argument; do
        case ${argument%%=*} in *.*) keys+=("$argument") ;; *) start+=("$argument") ;; esac
    done
    [ "$ranks" = 1 ] || start+=(mpirun -np "$ranks")
    timeout "$LIMIT" "${start[@]}" "$bertune" train c.yaml run.dir="$run" "${keys[@]}" \
        >"$scratch/$run.out" 2>"$scratch/$run.err" &
    running+=("$! $run")
}

finish_all() {
    local entry code
    for entry in "${running[@]}"; do
        code=0
        wait "${entry% *}" || code=$?
        if [ "$code" != 0 ]; then
            out=$scratch/${entry#* }.out err=$scratch/${entry#* }.err
            fail "exit code $code: ${entry#* }"
        fi
    done
    running=()
}

# run RUN RANKS ARGUMENT ...: begin, and nothing beside it.
run() {
    begin "$@"
    finish_all
}

# close A B TOLERANCE: files of numbers, line by line, relative to those of A.
close() {
    paste "$1" "$2" | awk -v tolerance="$3" '
        NF != 2 { print "another number of lines"; exit 1 }
        { d = $1 - $2; if (d < 0) d = -d; m = $1 < 0 ? -$1 : $1 }
        !(d <= tolerance * m) { print "line " NR ": " $1 " and " $2; exit 1 }
        END { if (NR == 0) exit 1 }' >"$scratch/close" || fail "$4 $1 and $2: $(cat "$scratch/close")"
}

# follows A B LOSSES NORMS: run B has the steps and epochs of run A; losses and norms of gradients are as
# near as stated, relative to theirs, and all that is counted is equal.
follows() {
    local event key tolerance
    [ -n "$(events "$1" step)" ] || fail "$1 has no steps"
    for event in step epoch; do
        for key in loss grad_norm train_loss validation_loss; do
            events "$1" $event | grep "\"$key\"" | value $key >"$scratch/a" || true
            [ -s "$scratch/a" ] || continue
            events "$2" $event | value $key >"$scratch/b"
            tolerance=$3
            [ $key != grad_norm ] || tolerance=$4
            close "$scratch/a" "$scratch/b" "$tolerance" "$key of $1 and $2:"
        done
        events "$1" $event | sed 's/"[a-z_]*\(loss\|norm\)": [^,]*, //g' >"$scratch/a"
        events "$2" $event | sed 's/"[a-z_]*\(loss\|norm\)": [^,]*, //g' >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
}

# repeats A B: the same lines of steps and epochs to the last digit, and the same final model.
repeats() {
    local event
    for event in step epoch; do
        events "$1" $event >"$scratch/a"
        events "$2" $event >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
    same "$1/final/model.safetensors" "$2/final/model.safetensors"
}

# launches RUN: of the graph that its steps replay.
launches() { sed -n 's/.*steps are replays of a graph of \([0-9]*\) launches$/\1/p' "$1/logs/rank-0000.log" | tail -n 1; }
