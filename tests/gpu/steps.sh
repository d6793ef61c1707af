#!/usr/bin/env bash
# One step of run.sh: steps.sh NAME, with OUT, WORK and BUILD in the environment. Exit code 0: it went well, 77: it
# cannot be had here, and why in the last line. A line that begins with `note: ` goes into the summary.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
bundle=$(dirname "$source")
with=$here/with.sh
bertune=$BUILD/bertune
python=${PYTHON:-python3}

note() { [ -z "$*" ] || echo "note: $*"; }
skip() {
    echo "skipped: $*"
    exit 77
}
ours() { "$with" "$@"; }
has_gpu() { [[ $(nvidia-smi -L 2>/dev/null || true) == GPU* ]]; }

step_machine() {
    has_gpu || skip "no GPU"
    nvidia-smi
    nvidia-smi -q -d CLOCK,POWER
    note "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader)"
}

step_build() {
    local options=(-S "$source" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBERTUNE_CUDA="${BERTUNE_CUDA:-ON}"
        -DBERTUNE_TESTS=ON -DCMAKE_CUDA_FLAGS=-lineinfo)
    local tests=(test_kernels_{ops,attention,cls_attention,dropout,adamw} test_model test_reduce)
    local architectures=native lib=$bundle/root/usr/lib/x86_64-linux-gnu library
    has_gpu || architectures=90
    if [ "${BERTUNE_CUDA:-ON}" = ON ]; then
        options+=(-DCMAKE_CUDA_ARCHITECTURES="${BERTUNE_ARCHITECTURES:-$architectures}"
            -DCMAKE_PROJECT_bertune_INCLUDE="$here/nccl_one_gpu.cmake")
        tests+=(nccl_one_gpu)
    fi
    if [ -d "$lib" ]; then
        export PKG_CONFIG=$bundle/root/usr/bin/pkg-config PATH=$PATH:$bundle/root/usr/bin CMAKE_LIBRARY_PATH=$lib
        options+=(-DCMAKE_EXE_LINKER_FLAGS="-Wl,-rpath-link,$lib:$lib/openmpi/lib")
    fi
    rm -f "$WORK/built"
    nvcc --version || true
    cmake "${options[@]}"
    cmake --build "$BUILD" -j "$(nproc)" -t bertune
    touch "$WORK/built"
    cmake --build "$BUILD" -j "$(nproc)" -t "${tests[@]}" -- -k 0
    # Nothing may be missing, and with a bundle MPI and HDF5 are its own.
    ours ldd "$bertune" | tee "$WORK/libraries"
    if grep -q 'not found' "$WORK/libraries"; then return 1; fi
    for library in libmpi libhdf5_openmpi; do
        [ ! -d "$lib" ] || grep -qF "=> $lib/$library." "$WORK/libraries"
    done
    note "$(sed -n 's/^CMAKE_CUDA_ARCHITECTURES:[A-Z]*=/for /p' "$BUILD/CMakeCache.txt" | head -n 1)"
}

step_info() {
    ours "$bertune" info | tee "$WORK/info"
    ! has_gpu || grep '^gpu 0: .*compute capability' "$WORK/info" | sed 's/^/note: /'
}

step_architectures() {
    local list=$WORK/architectures capability
    command -v cuobjdump >/dev/null || skip "no cuobjdump"
    cuobjdump --list-elf --list-ptx "$bertune" | tee "$list"
    note "$(grep -o 'sm_[0-9a-z]*' "$list" | sort -u | tr '\n' ' ')"
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .) || return 0
    grep "sm_$capability" "$list" >/dev/null
}

# on_gpu PROGRAM [ARGUMENT ...]: a test, whose complaints about a missing GPU are right where there is none.
on_gpu() {
    local log=$WORK/$step.log code=0 passed skipped
    ours env BERTUNE_TEST_DEVICE=cuda "$@" 2>&1 | tee "$log" || code=$?
    if ! has_gpu && [ "$code" != 0 ]; then skip "no GPU, and the program says: $(grep -a '[a-z]' "$log" | tail -n 1)"; fi
    passed=$(grep -ac '^\[       OK \]' "$log" || true)
    skipped=$(grep -ac '^\[  SKIPPED \] [^0-9]' "$log" || true)
    if ! has_gpu && [ "$skipped" != 0 ]; then skip "$(grep -a '^skipped: ' "$log" | head -n 1 | sed 's/^skipped: //')"; fi
    note "$passed tests passed, $skipped skipped"
    grep -a '^skipped: ' "$log" | sort -u | sed 's/^/note: /' || true
    [ "$code" = 0 ] && [ "$passed" -gt 0 ]
}
step_test() { on_gpu "$BUILD/test_$1"; }
step_reduce_staged() { on_gpu mpirun -np "$1" "$BUILD/test_reduce" cuda staged; }

# The reviews, with weights that bertune and PyTorch can both begin with.
step_data() {
    local csv=$bundle/data/reviews.csv given=$bundle/data/model model=$WORK/model init=random
    rm -rf "$WORK/data.h5" "$model" "$WORK/weights"
    mkdir -p "$WORK/runs" "$model"
    if [ -e "$csv" ]; then
        cp "$given"/* "$model/"
        ours "$bertune" prepare "$csv" --vocab "$model/vocab.txt" --out "$WORK/data.h5" --max-length 128
    else
        csv=$source/datasets/samples/reviews.csv
        cp "$source/configs/bert-mini/config.json" "$model/"
        ours "$bertune" prepare "$csv" --build-vocab --vocab-out "$model/vocab.txt" --out "$WORK/data.h5"
    fi
    sha256sum "$csv" "$model/vocab.txt" | tee "$WORK/data.sha256"
    [ ! -e "$model/model.safetensors" ] || init=pretrained
    cat >"$WORK/config.yaml" <<YAML
model: {path: "$model", init: $init}
data: {path: "$WORK/data.h5"}
train: {learning_rate: 2e-4, seed: 2023, shuffle: false}
YAML
    ours "$bertune" train "$WORK/config.yaml" run.dir="$WORK/weights" run.device=cpu train.learning_rate=0 \
        train.weight_decay=0 train.max_steps=1
    cp -L "$WORK/weights/final"/* "$model/"
    sed -i 's/init: random/init: pretrained/' "$WORK/config.yaml"
    note "$(basename "$csv"), $(wc -l <"$model/vocab.txt") tokens"
}

# train NAME RANKS [KEY=VALUE ...]: a run of 50 steps without dropout, anew.
train() {
    local name=$1 ranks=$2 start=()
    shift 2
    [ -e "$WORK/config.yaml" ] || skip "no data: the step failed"
    [ "$ranks" = 1 ] || start=(mpirun -np "$ranks")
    rm -rf "$WORK/runs/$name"
    ours env OMP_NUM_THREADS="$((($(nproc) + ranks - 1) / ranks))" "${start[@]}" "$bertune" train "$WORK/config.yaml" \
        run.dir="$WORK/runs/$name" model.hidden_dropout_prob=0 model.attention_probs_dropout_prob=0 \
        train.max_steps=50 run.device=cuda "$@"
}
# near RUN WANTED LIMIT [--relative]
near() { "$python" "$here/losses.py" "$WORK/runs/$1/metrics.jsonl" "${@:2}" | sed 's/^/note: /'; }
run_of() { echo "$WORK/runs/$1/metrics.jsonl"; }
# Runs that others are compared with are made once.
need() { [ -e "$WORK/runs/$1/final" ] || train "$@"; }

step_losses_fp32() {
    train fp32 1
    train cpu 1 run.device=cpu
    near fp32 "$(run_of cpu)" 1e-4 --relative
}
step_losses_pytorch() {
    if [ ! -e "$bundle/data/reviews.csv" ] || ! grep -q '^b8b5c11c' "$WORK/data.sha256"; then
        skip "the data set is not waimai_10k"
    fi
    [ ! -e "$bundle/data/model/model.safetensors" ] || skip "the recorded losses are of random weights"
    need fp32 1
    near fp32 "$source/tests/fixtures/waimai_losses.tsv" 1e-4 --relative
}
step_losses_tf32() {
    need fp32 1
    train tf32 1 train.precision=tf32
    near tf32 "$(run_of fp32)" 1e-2
}
step_losses_bf16() {
    need fp32 1
    train bf16 1 train.precision=bf16
    near bf16 "$(run_of fp32)" 1e-2
}
# The same bits twice, with dropout; and on from a checkpoint.
step_repeat() {
    local dropout=(model.hidden_dropout_prob=0.1 model.attention_probs_dropout_prob=0.1)
    for name in once again; do train $name 1 "${dropout[@]}"; done
    near once "$(run_of again)" 0
    cmp "$WORK/runs/once/final/model.safetensors" "$WORK/runs/again/final/model.safetensors"
    train resumed 1 "${dropout[@]}" train.max_steps=20
    ours "$bertune" train "$WORK/config.yaml" run.dir="$WORK/runs/resumed" "${dropout[@]}" train.max_steps=50 \
        run.device=cuda
    near resumed "$(run_of once)" 0
    cmp "$WORK/runs/once/final/model.safetensors" "$WORK/runs/resumed/final/model.safetensors"
    note "the same bits twice and resumed"
}
step_ranks() {
    need fp32 1
    train "ranks$1" "$1" run.share_gpu=true
    near "ranks$1" "$(run_of fp32)" 1e-5
}

# Ranks that NCCL takes for ranks of two hosts.
step_nccl_one_gpu() {
    export NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 NCCL_IB_DISABLE=1 NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo
    export NCCL_DEBUG=WARN
    local code=0
    ours mpirun -np 1 -x NCCL_HOSTID=one "$BUILD/nccl_one_gpu" : -np 1 -x NCCL_HOSTID=two "$BUILD/nccl_one_gpu" |
        sed 's/^\([0-9]* ranks\)/note: \1/' || code=$?
    if [ "$code" != 0 ] && ! has_gpu; then skip "no GPU"; fi
    return "$code"
}

# sanitize TOOL WHAT: a test program, or three training steps.
step_sanitize() {
    local tool=$1 what=$2 command
    has_gpu || skip "no GPU"
    command -v compute-sanitizer >/dev/null || skip "no compute-sanitizer"
    # Started once more by itself, the program would be another process.
    export GOMP_SPINCOUNT=10000 OMP_NUM_THREADS=2 BERTUNE_TEST_DEVICE=cuda
    case $what in
        train*)
            [ -e "$WORK/config.yaml" ] || skip "no data: the step failed"
            command=("$bertune" train "$WORK/config.yaml" run.dir="$WORK/runs/$step" run.device=cuda train.max_steps=3)
            [ "$what" = train ] || command+=(train.precision="${what#train_}")
            rm -rf "$WORK/runs/$step"
            ;;
        *) command=("$BUILD/test_$what") ;;
    esac
    ours compute-sanitizer --tool "$tool" --error-exitcode 86 --print-limit 30 "${command[@]}" 2>&1 |
        tee "$WORK/$step.log"
    note "$(grep -a 'SUMMARY' "$WORK/$step.log" | tail -n 1 | sed 's/^=* *//')"
}

# Where the time of a step goes.
step_bench() {
    local rows=$1 precision options
    [ -e "$WORK/config.yaml" ] || skip "no data: the step failed"
    for precision in fp32 tf32 bf16; do
        options=(run.device=cuda train.global_batch_size="$rows" train.precision="$precision")
        ours "$bertune" bench "$WORK/config.yaml" "${options[@]}" --steps 512 --format json |
            tee "$OUT/bench-$rows-$precision.json"
        ours "$bertune" bench "$WORK/config.yaml" "${options[@]}" run.profile=true
        note "$precision $("$python" -c "import json
print(round(1e3 * json.load(open('$OUT/bench-$rows-$precision.json'))['mean_milliseconds'], 1), 'us')")"
    done
}

step_race() {
    [ -e "$WORK/config.yaml" ] || skip "no data: the step failed"
    has_gpu || skip "no GPU"
    "$python" -c 'import torch, transformers, h5py' || skip "no PyTorch, transformers or h5py"
    local options=()
    [ -z "${BERTUNE_QUICK:-}" ] || options=(--quick)
    export TORCHINDUCTOR_CACHE_DIR=$WORK/inductor
    # shellcheck disable=SC2086
    "$python" -u "$here/race_gpu.py" --data "$WORK/data.h5" --model "$WORK/model" --bertune "$bertune" --launcher "$with" \
        --whole --out "$OUT/race.json" "${options[@]}" ${RACE_OPTIONS:-}
}

# Trials of a sweep at once on the one GPU.
step_trials() {
    [ -e "$WORK/config.yaml" ] || skip "no data: the step failed"
    has_gpu || skip "no GPU"
    local options=()
    [ -z "${BERTUNE_QUICK:-}" ] || options=(--rounds 1)
    "$python" -u "$here/trials.py" --bertune "$bertune" --config "$WORK/config.yaml" --work "$WORK/trials" \
        --launcher "$with" --out "$OUT/trials.json" "${options[@]}"
}

step=$1
mkdir -p "$WORK"
case $step in
    kernels_* | model) step_test "$step" ;;
    reduce_staged_* | ranks_* | bench_*) "step_${step%_*}" "${step##*_}" ;;
    memcheck_* | racecheck_* | synccheck_* | initcheck_*) step_sanitize "${step%%_*}" "${step#*_}" ;;
    *) "step_$step" ;;
esac
