#!/usr/bin/env bash
# Training on GPUs, run on processors: it follows the CPU's losses on any number of ranks, with sums by NCCL or through
# host memory, and has the same bits whenever it is repeated, also where the emulation does late and backwards what a
# GPU may do so. Usage: cuda_train.sh BERTUNE-CUDA-HOST [STEPS [STEPS-OF-BERT-MINI]]
# shellcheck source-path=SCRIPTDIR source=cuda_lib.sh
. "$(dirname "$0")/cuda_lib.sh"
steps=${2:-200} full=${3:-3}
set_up_small

# Rounding grows with the steps: 2e-6 and 2e-5 were seen after 200.
begin cpu 1 run.device=cpu train.max_steps="$steps"
begin gpu1 1 train.max_steps="$steps"
begin gpu1-late 1 train.max_steps="$steps" CUDA_HOST_ORDER=late
finish_all
equal "$(events cpu step | wc -l)" "$steps"
events cpu step | value loss | awk 'NR == 1 { first = $1 } { last = last * 0.9 + 0.1 * $1 } END { exit !(last < first) }' ||
    fail "nothing is learned that could go wrong"
contains "$scratch/gpu1.err" "1 rank on cuda (Host emulation)"
for ranks in 2 4; do
    begin gpu$ranks $ranks train.max_steps="$steps"
    finish_all
    begin gpu$ranks-late $ranks train.max_steps="$steps" CUDA_HOST_ORDER=late
    finish_all
done
for order in early late; do
    run staged-$order 2 train.max_steps="$steps" run.share_gpu=true CUDA_HOST_DEVICES=1 CUDA_HOST_ORDER=$order
done
for ranks in 1 2 4; do
    follows cpu gpu$ranks 1e-4 1e-3
    repeats gpu$ranks gpu$ranks-late
    grep -q "\"world_size\": $ranks,.*\"device\": \"cuda\"" gpu$ranks/metrics.jsonl || fail "not $ranks ranks on cuda"
    [ -n "$(launches gpu$ranks)" ] || fail "steps of gpu$ranks are not recorded"
done
follows cpu staged-early 1e-4 1e-3
repeats staged-early staged-late
equal "$(launches staged-early)" "" "sums through host memory cannot be recorded"

# Repeated, in the same order.
few=$((steps / 4))
for ranks in 1 2 4; do
    run again$ranks $ranks train.max_steps=$few
    events again$ranks step >"$scratch/a"
    events gpu$ranks step | head -n $few >"$scratch/b"
    same "$scratch/a" "$scratch/b"
done

# What else there is to configure; micro-batches are not recorded. Not late where ranks sum such: one would wait in
# MPI before anything makes its emulation sum, where a GPU just goes on.
options=("train.max_steps=$few" train.weight_decay=0.5 train.weight_decay_scope=no_bias_norm train.max_grad_norm=0.35
    train.lr_scheduler_type=linear train.warmup_steps=10)
begin options-cpu 1 run.device=cpu "${options[@]}"
begin options-gpu1 1 "${options[@]}"
begin options-gpu2 2 "${options[@]}" evaluation.ranks=all CUDA_HOST_ORDER=late
begin micro-cpu 1 run.device=cpu "${options[@]}" train.gradient_accumulation_steps=2
begin micro-gpu1 1 "${options[@]}" train.gradient_accumulation_steps=2 CUDA_HOST_ORDER=late
begin micro-gpu2 2 "${options[@]}" train.gradient_accumulation_steps=2
finish_all
for kind in options micro; do
    for ranks in 1 2; do follows $kind-cpu $kind-gpu$ranks 1e-5 1e-4; done
done
equal "$(launches micro-gpu1)" "" "micro-batches are recorded"
events options-cpu step | value grad_norm | awk '$1 > 0.35 { n++ } END { exit !(n > 2) }' || fail "nothing is clipped"
for key in train.weight_decay_scope=all train.max_grad_norm=0 train.lr_scheduler_type=constant; do
    begin other 1 "${options[@]}" "$key"
    finish_all
    ! cmp -s other/final/model.safetensors options-gpu1/final/model.safetensors || fail "$key changes nothing"
    rm -r other
done

# determinism: elastic has the same bits on any number of ranks, with NCCL and without.
elastic=(train.max_steps=$((few / 4)) train.determinism=elastic train.global_batch_size=5)
begin elastic-cpu 1 run.device=cpu "${elastic[@]}"
begin elastic1 1 "${elastic[@]}" CUDA_HOST_ORDER=late
finish_all
run elastic2 2 "${elastic[@]}" run.share_gpu=true CUDA_HOST_DEVICES=1
run elastic4 4 "${elastic[@]}"
follows elastic-cpu elastic1 1e-5 1e-4
repeats elastic1 elastic2
repeats elastic1 elastic4

# Other precisions are near, and not the same.
for precision in tf32 bf16; do begin $precision 1 train.max_steps=$few train.precision=$precision; done
finish_all
for precision in tf32 bf16; do
    for run in gpu1 $precision; do events "$run" step | head -n $few | value loss >"$scratch/$run"; done
    close "$scratch/gpu1" "$scratch/$precision" 1e-2 $precision
    ! cmp -s "$scratch/gpu1" "$scratch/$precision" || fail "$precision computes as fp32"
done
! cmp -s "$scratch/tf32" "$scratch/bf16" || fail "bf16 computes as tf32"

# BERT-mini itself, with a vocabulary of the sample reviews.
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
expect 0 "$bertune" prepare "$samples" --out data.h5 --build-vocab=4000 --vocab-out vocab.txt --max-length 128
cp vocab.txt model/vocab.txt
sed "s/\"vocab_size\": [0-9]*/\"vocab_size\": $(wc -l <vocab.txt)/" "$here/../../configs/bert-mini/config.json" \
    >model/config.json
mini=(train.global_batch_size=16 train.learning_rate=5e-5 train.max_steps="$full")
run mini-cpu 1 run.device=cpu "${mini[@]}"
begin mini 1 "${mini[@]}"
begin mini2 2 "${mini[@]}" train.max_steps=1
finish_all
follows mini-cpu mini 1e-4 1e-3
for run in mini mini2; do
    launches=$(launches $run)
    if [ -z "$launches" ] || [ "$launches" -gt 60 ]; then fail "$run: $launches launches a step"; fi
done
none_left
