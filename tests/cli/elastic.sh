#!/usr/bin/env bash
# determinism: elastic ends with the same bytes on every number of ranks and threads, also when these change at every
# resume.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set_up

elastic=(train.determinism=elastic train.max_steps=36 train.max_grad_norm=0.5 train.global_batch_size=20)
# A batch of 20 rows, the last of an epoch of 16: shards of 2 and 3 rows.
train 0 0 run.dir=alone "${elastic[@]}"
for ranks in 1 2 4 8; do
    train $ranks 0 run.dir=ranks$ranks "${elastic[@]}"
    same alone/final/model.safetensors ranks$ranks/final/model.safetensors
    same alone/checkpoints/step-00000036/optimizer.safetensors \
        ranks$ranks/checkpoints/step-00000036/optimizer.safetensors
    events alone step >"$scratch/a"
    events ranks$ranks step >"$scratch/b"
    same "$scratch/a" "$scratch/b"
done
OMP_NUM_THREADS=3 train 2 0 run.dir=threads "${elastic[@]}"
same alone/final/model.safetensors threads/final/model.safetensors

# Another number of ranks at every resume, in the middle of epochs and at their ends.
for leg in 4:7 1:13 8:20 2:29 1:36; do
    train ${leg%:*} 0 run.dir=changing "${elastic[@]}" train.max_steps=${leg#*:}
done
same alone/final/model.safetensors changing/final/model.safetensors

# The order of the sum is what makes it so: without it the ranks' results differ in the last bits.
train 1 0 run.dir=run1 "${elastic[@]}" train.determinism=run
train 4 0 run.dir=run4 "${elastic[@]}" train.determinism=run
cmp -s run1/final/model.safetensors run4/final/model.safetensors && fail "elastic has nothing to do"

# Another order of sums would change the bits half way: neither other shards nor another mode are gone on with.
train 2 0 run.dir=order "${elastic[@]}" train.max_steps=3
train 1 0 run.dir=plain "${elastic[@]}" train.determinism=off train.max_steps=3
for ranks in 0 2; do
    train $ranks 78 run.dir=order "${elastic[@]}" train.virtual_shards=16
    contains "$err" "train.determinism: elastic with virtual_shards 8; now elastic with virtual_shards 16; use another"
    train $ranks 78 run.dir=order "${elastic[@]}" train.determinism=run
    contains "$err" "train.determinism: elastic with virtual_shards 8; now off or run; use another run.dir"
    train $ranks 78 run.dir=plain "${elastic[@]}"
    contains "$err" "train.determinism: off or run; now elastic with virtual_shards 8; use another run.dir"
done
train 1 0 run.dir=plain "${elastic[@]}" train.determinism=run train.virtual_shards=16 train.max_steps=6
train 4 0 run.dir=order "${elastic[@]}"
same alone/final/model.safetensors order/final/model.safetensors

# Fewer rows than shards: some are empty.
for ranks in 1 4; do
    train $ranks 0 run.dir=small$ranks "${elastic[@]}" train.global_batch_size=5 train.max_steps=12
done
same small1/final/model.safetensors small4/final/model.safetensors

for wrong in train.virtual_shards=6 train.virtual_shards=2; do
    train 4 78 run.dir=wrong "${elastic[@]}" $wrong
    contains "$err" "virtual_shards must be a power of two"
done
train 3 78 run.dir=wrong "${elastic[@]}"
absent wrong
none_left
