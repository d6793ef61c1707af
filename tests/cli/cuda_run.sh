#!/usr/bin/env bash
# What becomes of a run on GPUs, run on processors: it goes on with the same bytes after stops of all kinds, and what
# fails ends all ranks with the right code, the right words and without a hang.
# Usage: cuda_run.sh BERTUNE-CUDA-HOST [STEPS, from 50]
# shellcheck source-path=SCRIPTDIR source=cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
steps=${2:-90}
set_up_small
LIMIT=100

# cuda RANKS CODE ARGUMENT ...: `train` of lib.sh, of which variables of the environment are the first arguments.
cuda() {
    local ranks=$1 code=$2 start=(env)
    shift 2
    while [[ ${1:-} =~ ^[A-Z_]+= ]]; do start+=("$1") && shift; done
    [ "$ranks" = 1 ] || start+=(mpirun -np "$ranks")
    expect "$code" "${start[@]}" "$bertune" train c.yaml "$@"
}

# Interrupted within and between epochs, with checkpoints within a window of steps: the bytes of an uninterrupted run.
begin whole1 1 train.max_steps="$steps"
begin whole2 2 train.max_steps="$steps"
begin often 1 train.max_steps="$steps" run.save_steps=7
finish_all
repeats whole1 often
for ranks in 1 2; do
    for at in 20 33 43 $((steps - 3)) "$steps"; do
        cuda $ranks 0 run.dir=cut$ranks train.max_steps="$at"
        [ "$at" = 20 ] || contains "$err" "going on from cut$ranks/checkpoints/step-"
    done
    repeats whole$ranks cut$ranks
    same "$(echo whole$ranks/checkpoints/step-*"$steps")/optimizer.safetensors" \
        "$(echo cut$ranks/checkpoints/step-*"$steps")/optimizer.safetensors"
done
cuda 2 0 run.dir=whole1 train.max_steps="$steps"
contains "$err" "finished already after $steps steps"

# From the CPU to the GPU and back, and to other numbers of ranks.
begin whole-cpu 1 run.device=cpu train.max_steps="$steps"
cuda 1 0 run.dir=mixed train.max_steps=15 run.device=cpu
cuda 1 0 run.dir=mixed train.max_steps=25
cuda 2 0 run.dir=mixed train.max_steps=30 run.device=cpu
cuda 2 0 run.dir=mixed train.max_steps=43
cuda 2 0 CUDA_HOST_DEVICES=1 run.dir=mixed train.max_steps=$((steps - 5)) run.share_gpu=true
cuda 1 0 run.dir=mixed train.max_steps="$steps" run.device=cpu
finish_all
follows whole-cpu mixed 1e-5 1e-4

# An epoch with a larger batch than those before: the step is recorded anew.
{
    echo label,review
    for i in $(seq 20); do echo "$((i % 2)),$([ $((i % 10)) != 3 ] || echo 味道不错送餐快下次还来好吃)好$i"; done
} >few.csv
expect 0 "$bertune" prepare few.csv --out few.h5 --vocab vocab.txt --max-length 20
few=(data.path=few.h5 train.global_batch_size=2 train.max_steps=96)
begin few-cpu 1 run.device=cpu "${few[@]}"
begin few 1 "${few[@]}"
finish_all
events few step | value tokens | awk 'NR <= 8 { first = first > $1 ? first : $1 } { all = all > $1 ? all : $1 }
    END { exit !(all > 1.2 * first) }' || fail "no batch is larger than those of the first epoch"
follows few-cpu few 1e-5 1e-4

# Signals stop it some steps later: those that the GPU has been given already.
# stop_by_signal RANKS SIGNAL
stop_by_signal() {
    local ranks=$1 start=() pid seen code=0
    [ "$ranks" = 1 ] || start=(mpirun -np "$ranks")
    rm -rf stopped
    "${start[@]}" "$bertune" train c.yaml run.dir=stopped >"$out" 2>"$err" &
    pid=$!
    wait_for 60 grep '"step": 4,' stopped/metrics.jsonl
    kill -"$2" $pid
    seen=$(events stopped step | wc -l)
    wait $pid || code=$?
    equal "$code" 75 "after SIG$2"
    absent stopped/final
    stopped_at=$(events stopped step | wc -l)
    [ $((stopped_at - seen)) -le 128 ] || fail "$ranks ranks take $((stopped_at - seen)) steps to stop"
    contains "$err" "stopped early at step $stopped_at"
    cuda "$ranks" 0 run.dir=stopped train.max_steps=$((stopped_at + 5))
    contains "$err" "going on from stopped/checkpoints/step-"
    lacks "$err" damaged
    rm -rf straight
    cuda "$ranks" 0 run.dir=straight train.max_steps=$((stopped_at + 5))
    repeats straight stopped
}
stop_by_signal 1 TERM
stop_by_signal 1 USR2
stop_by_signal 2 USR2
for ranks in 1 2; do
    cuda $ranks 75 run.dir=slow$ranks run.max_time=0.001
    contains "$err" "run the same command again"
    cuda $ranks 0 run.dir=slow$ranks train.max_steps="$steps"
    repeats whole$ranks slow$ranks
done

# A rank is killed: its peer does not stay.
mpirun -np 2 "$bertune" train c.yaml run.dir=killed >"$out" 2>"$err" &
pid=$!
wait_for 60 grep '"step": 4,' killed/metrics.jsonl
kill -9 "$(leftovers | tail -n 1)"
code=0
wait $pid || code=$?
equal "$code" 137 "mpirun's exit code after a rank was killed"
none_left

# Not-a-number: the weight of a rare word. The step and its rows are those that the CPU names, whichever rank had them,
# and what was saved stays.
cuda 1 0 run.dir=sound train.max_steps=1
cp -r sound/final bad
header=$(od -An -tu4 -N 4 bad/model.safetensors)
first=$(head -c $((header + 8)) bad/model.safetensors | tail -c +9 |
    sed 's/.*word_embeddings.weight":{[^}]*"data_offsets":\[\([0-9]*\),.*/\1/')
printf '\0\0\300\177' |
    dd of=bad/model.safetensors bs=1 seek=$((8 + header + first + 4 * 32 * 99)) conv=notrunc status=none
bad=(model.init=pretrained model.path=bad train.max_steps=60)
cuda 1 80 run.dir=nan "${bad[@]}" run.device=cpu
grep diverged "$err" >nan.said
contains nan.said "diverged at step 24: loss nan, gradient norm nan; the weights were not updated. Rows"
# nan RANKS ARGUMENT ...
nan() {
    local ranks=$1
    shift
    rm -rf nan
    cuda "$ranks" 80 "$@" run.dir=nan "${bad[@]}"
    grep diverged "$err" >"$scratch/a"
    same "$scratch/a" nan.said
    absent nan/final
    lacks nan/metrics.jsonl nan
}
nan 1
equal "$(events nan step | wc -l)" 23
equal "$(find nan/checkpoints -mindepth 1)" ""
nan 2
nan 1 CUDA_HOST_ORDER=late run.save_steps=10
for again in 1 2; do
    [ "$again" = 1 ] || cuda 1 80 run.dir=nan "${bad[@]}" run.save_steps=10
    [ "$again" = 1 ] || contains "$err" "going on from nan/checkpoints/step-00000020"
    contains "$err" "diverged at step 24:"
    equal "$(find nan/checkpoints -name 'step-*' -printf '%f\n' | sort | tr '\n' ' ')" "step-00000010 step-00000020 "
done
nan 2 CUDA_HOST_DEVICES=1 run.share_gpu=true
nan 4 CUDA_HOST_ORDER=late
nan 1 run.profile=true

# GPUs that are not there.
cuda 2 69 CUDA_HOST_DEVICES=1 run.dir=none
contains "$err" "rank 0 and rank 1 are both on GPU 0 of host"
contains "$err" "start at most 1 rank there, or let them take turns through host memory with run.share_gpu=true"
cuda 2 0 CUDA_HOST_DEVICES=1 run.dir=fallback run.device=auto train.max_steps=2
contains "$err" "bertune: run.device: cpu: rank 0 and rank 1 are both on GPU 0"
contains fallback/metrics.jsonl '"device": "cpu"'
for ranks in 1 2; do
    cuda $ranks 69 CUDA_HOST_DEVICES=0 run.dir=none
    contains "$err" "run.device: cuda: no GPU for rank 0 on host"
    contains "$err" "use run.device=cpu or auto"
    absent none
    rm -rf fallback
    cuda $ranks 0 CUDA_HOST_DEVICES=0 run.dir=fallback run.device=auto train.max_steps=2
    contains "$err" "bertune: run.device: cpu: no GPU for rank 0"
    contains fallback/metrics.jsonl '"device": "cpu"'
done
cuda 1 0 run.dir=auto run.device=auto train.max_steps=2
contains "$err" "bertune: run.device: cuda: Host emulation"
contains auto/metrics.jsonl '"device": "cuda"'
cuda 3 0 CUDA_HOST_DEVICES=2 run.dir=uneven run.share_gpu=true train.max_steps=5
events whole-cpu step | head -n 5 | value loss >"$scratch/a"
events uneven step | value loss >"$scratch/b"
close "$scratch/a" "$scratch/b" 1e-5
mkdir empty
echo text >empty/libnccl.so.2
cuda 2 0 LD_LIBRARY_PATH="$PWD/empty" run.dir=no-nccl train.max_steps=2 run.device=auto
contains "$err" "a GPU for each of 2 ranks (Host emulation), sums through host memory: rank 0 on host "

# Too little memory, at the start or for the step; with enough the directory is used.
for memory in 1000 300000 700000; do
    rm -rf tight
    for ranks in 1 2; do
        cuda $ranks 69 CUDA_HOST_MEMORY=$memory run.dir=tight
        contains "$err" "use a smaller train.global_batch_size, more train.gradient_accumulation_steps or another GPU"
        none_left
    done
    cuda 1 0 run.dir=tight train.max_steps=1
done

# GPUs of an earlier kind.
for precision in bf16 tf32; do
    cuda 2 78 CUDA_HOST_CAPABILITY=7.5 run.dir=none train.precision=$precision
    contains "$err" "train.precision: bf16 and tf32 need a GPU of compute capability 8.0 or later"
    absent none
done
cuda 1 0 CUDA_HOST_CAPABILITY=7.5 run.dir=old train.max_steps=5
events old step | value loss >"$scratch/b"
close "$scratch/a" "$scratch/b" 1e-5

# Calls that fail on one rank or on all, in steps and between them: 69, and nobody waits for who is gone.
# fails CODE WORDS ARGUMENT ...: two ranks.
fails() {
    local code=$1 words=$2
    shift 2
    rm -rf failed
    cuda 2 "$code" "$@" run.dir=failed run.save_steps=5
    contains "$err" "$words"
    none_left
}
for fault in cudaGraphLaunch:8:719 kernel:300:700 kernel:20:700 cudaMemcpyAsync:9:999 cudaStreamBeginCapture:1:900 \
    cudaGraphInstantiate:1:2 cudaLaunchKernelEx:20:701 cudaEventRecord:9:700 cudaHostAlloc:1:2; do
    cuda 1 69 CUDA_HOST_FAIL=$fault run.dir=failed
    contains "$err" "bertune: rank 0"
    rm -rf failed
done
for order in early late; do
    for fault in cudaGraphLaunch:8:719 kernel:300:700; do
        fails 69 "bertune: rank " CUDA_HOST_FAIL=$fault CUDA_HOST_ORDER=$order
    done
done
for fault in cudaGraphLaunch:8:719 kernel:300:700 cudaMemcpyAsync:18:999; do
    rm -rf failed
    expect 69 mpirun -np 1 "$bertune" train c.yaml run.dir=failed run.save_steps=5 : \
        -np 1 env CUDA_HOST_FAIL=$fault "$bertune" train c.yaml run.dir=failed run.save_steps=5
    contains "$err" "bertune: rank 1"
    none_left
done
# What was saved before is gone on with.
cuda 2 0 run.dir=failed train.max_steps="$steps"
contains "$err" "going on from failed/checkpoints/step-000000"
repeats whole2 failed

# NCCL: while ranks connect and try it, and later, where a not-a-number that it leaves behind is no divergence.
for fault in init init@1 call:1 reduce:2@0; do
    fails 69 "made to fail; run.device=cpu goes without NCCL" NCCL_HOST_FAIL=$fault
    absent failed
done
fails 69 "NCCL_HOST_FAIL: made to fail" NCCL_HOST_FAIL=call:5@0
for order in early late; do
    fails 81 "started again, the run goes on from its last checkpoint" NCCL_HOST_FAIL=reduce:31@1 CUDA_HOST_ORDER=$order
done
cuda 2 0 run.dir=failed train.max_steps="$steps"
contains "$err" "going on from failed/checkpoints/step-000000"
repeats whole2 failed

# info, bench, and the profile of steps that are not recorded.
expect 0 "$bertune" info
for line in "gpus: 4" "nccl: 2.99.0" "gpu 3: Host emulation, GPU-"; do contains "$out" "$line"; done
CUDA_HOST_DEVICES=0 expect 0 "$bertune" info
contains "$out" "gpus: 0: "
find . | sort >"$scratch/before"
expect 0 "$bertune" bench c.yaml --steps 4
grep -qE '^a step is a graph of [0-9]+ launches$' "$out" || fail "no launches"
grep -qE '^1 rank on cuda \(Host emulation\), fp32: median step [0-9.]+ ms, best [0-9.]+ ms$' "$out" || fail "no median"
expect 0 mpirun -np 2 "$bertune" bench c.yaml --steps 40 --format json train.precision=bf16
equal "$(wc -l <"$out")" 1
for key in '"device": "cuda"' '"device_model": "Host emulation"' '"world_size": 2' '"precision": "bf16"' \
    '"launches": '; do contains "$out" "$key"; done
expect 0 "$bertune" bench c.yaml --steps 4 --format json run.profile=true
for key in '"name": "attention backward"' '"name": "adamw"' '"peak_gflops": '; do contains "$out" "$key"; done
find . | sort >"$scratch/after"
same "$scratch/before" "$scratch/after"
begin profiled1 1 train.max_steps=50 run.profile=true
begin profiled2 2 train.max_steps=50 run.profile=true
finish_all
for ranks in 1 2; do
    equal "$(launches profiled$ranks)" "" "steps with a profile are recorded"
    equal "$(grep -c '"event": "profile"' profiled$ranks/metrics.jsonl)" 1
    for key in loss grad_norm; do
        events whole$ranks step | head -n 50 | value $key >"$scratch/a"
        events profiled$ranks step | value $key >"$scratch/b"
        close "$scratch/a" "$scratch/b" 1e-6 "$key with a profile:"
    done
done
none_left
