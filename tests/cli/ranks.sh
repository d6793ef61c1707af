#!/usr/bin/env bash
# The result of a run does not depend on the number of ranks, micro-batches and threads, and is the same bit for bit
# when it is repeated.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
set_up

# compare A B: losses of steps and epochs to rounding; what counts rows is equal.
compare() {
    local key
    for key in loss grad_norm; do
        events "$1" step | value $key >"$scratch/a"
        events "$2" step | value $key >"$scratch/b"
        near "$scratch/a" "$scratch/b" "$([ $key = loss ] && echo 2e-6 || echo 1e-4)"
    done
    events "$1" step | sed 's/"loss": [^,]*, //; s/"grad_norm": [^,]*, //' >"$scratch/a"
    events "$2" step | sed 's/"loss": [^,]*, //; s/"grad_norm": [^,]*, //' >"$scratch/b"
    same "$scratch/a" "$scratch/b"
    for key in train_loss validation_loss; do
        events "$1" epoch | value $key >"$scratch/a"
        events "$2" epoch | value $key >"$scratch/b"
        near "$scratch/a" "$scratch/b" 2e-6
    done
    events "$1" epoch | sed 's/"[a-z]*_loss": [^,]*, //g' >"$scratch/a"
    events "$2" epoch | sed 's/"[a-z]*_loss": [^,]*, //g' >"$scratch/b"
    same "$scratch/a" "$scratch/b"
}

train 0 0 run.dir=alone train.max_steps=34
equal "$(events alone step | wc -l)" 34
equal "$(events alone epoch | wc -l)" 2
for ranks in 1 2 3 4; do
    train $ranks 0 run.dir=ranks$ranks train.max_steps=34
    grep -q "\"world_size\": $ranks," ranks$ranks/metrics.jsonl || fail "world_size is not $ranks"
    equal "$(find ranks$ranks/logs -name 'rank-*.log' | wc -l)" $ranks logs
    compare alone ranks$ranks
done

# One process alone is the same as one under mpirun, bit for bit; so is every repetition.
same alone/final/model.safetensors ranks1/final/model.safetensors
for ranks in 2 3; do
    train $ranks 0 run.dir=again$ranks train.max_steps=34
    same ranks$ranks/final/model.safetensors again$ranks/final/model.safetensors
    same ranks$ranks/checkpoints/step-00000034/optimizer.safetensors again$ranks/checkpoints/step-00000034/optimizer.safetensors
    events ranks$ranks step >"$scratch/a"
    events again$ranks step >"$scratch/b"
    same "$scratch/a" "$scratch/b"
done

for ranks in 2 3; do
    train $ranks 0 run.dir=all$ranks train.max_steps=34 evaluation.ranks=all
    same ranks$ranks/final/model.safetensors all$ranks/final/model.safetensors
    compare ranks$ranks all$ranks
done

for micro in 2 3 100; do
    train 0 0 run.dir=micro$micro train.max_steps=34 train.gradient_accumulation_steps=$micro
    compare alone micro$micro
done
train 2 0 run.dir=micro-ranks train.max_steps=34 train.gradient_accumulation_steps=3
compare alone micro-ranks

for threads in 1 2; do
    OMP_NUM_THREADS=$threads train 0 0 run.dir=threads$threads train.max_steps=34
    grep -q "\"threads\": $threads," threads$threads/metrics.jsonl || fail "not $threads threads"
    compare alone threads$threads
done

# Fewer rows than ranks, batches that do not divide, and no shuffling.
head -n 7 reviews.csv >few.csv
expect 0 "$bertune" prepare few.csv --out few.h5 --vocab vocab.txt --max-length 16
few=(data.path=few.h5 train.global_batch_size=3 train.shuffle=false train.num_train_epochs=2)
train 0 0 run.dir=few "${few[@]}"
for ranks in 3 4; do
    train $ranks 0 run.dir=few$ranks "${few[@]}" evaluation.ranks=all
    compare few few$ranks
done

# A semaphore that a killed run has left in Open MPI's name for the file holds nobody up.
head -c 32 /dev/zero >/dev/shm/sem.OMPIO_held.h5
cp data.h5 held.h5
train 2 0 run.dir=held train.max_steps=2 data.path=held.h5
rm -f /dev/shm/sem.OMPIO_held.h5

# Without dropout and shuffling something else comes out: both do something.
train 0 0 run.dir=other train.max_steps=34 model.hidden_dropout_prob=0 model.attention_probs_dropout_prob=0
cmp -s alone/final/model.safetensors other/final/model.safetensors && fail "dropout changes nothing"
train 0 0 run.dir=sorted train.max_steps=34 train.shuffle=false
cmp -s alone/final/model.safetensors sorted/final/model.safetensors && fail "shuffling changes nothing"
none_left
