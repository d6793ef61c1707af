#!/usr/bin/env bash
# cuda_built.sh BERTUNE SOURCES: the CUDA backend built with nvcc for two architectures: machine code and PTX are in it, no
# kernel spills more registers than it may, and without a driver it uses the CPU. Needs nvcc, but no GPU.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
sources=$(realpath "$2")
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc) || {
    echo "SKIPPED: no nvcc on this machine"
    exit 77
}

LIMIT=1500 expect 0 cmake -S "$sources" -B build -G Ninja -DBERTUNE_CUDA=ON -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CUDA_COMPILER="$nvcc" "-DCMAKE_CUDA_ARCHITECTURES=80-real;90" "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"
LIMIT=1500 expect 0 cmake --build build --target bertune
cp "$out" log

# Registers: bytes that kernels may keep in memory for want of registers.
awk -v most=256 '
    /Compiling entry function/ { name = $0; sub(/.*function ./, "", name); sub(/. for.*/, "", name); kernels++ }
    /bytes spill stores/ && $5 > most { print name " spills " $5 " bytes"; bad = 1 }
    END { if (kernels < 40) { print "only " kernels + 0 " kernels seen"; bad = 1 }; exit bad }
' log || fail "see above"

"$sources/tests/cuda_code.py" build/bertune >codes
printf 'compute_90 ptx\nsm_80 elf\nsm_90 elf\n' >wanted
same codes wanted

expect 0 build/bertune info
contains "$out" "backends: cpu cuda"
grep -Eq '^cuda: built \([0-9]+\.[0-9]+; sm_80 sm_90 compute_90\)$' "$out" || fail "info says nothing of cuda"

# The rest is for machines without a GPU: no driver, or none that finds one.
grep -q '^gpus: 0' "$out" || exit 0
bertune=$PWD/build/bertune
set_up
train 0 0 run.dir=auto train.max_steps=4
contains "$err" "run.device: cpu"
train 2 0 run.dir=two train.max_steps=4
train 0 69 run.dir=cuda run.device=cuda
contains "$err" "run.device"
absent cuda
expect 0 "$bertune" predict auto 好吃
expect 69 "$bertune" predict auto --device cuda 好吃
none_left
