#!/usr/bin/env bash
# bertune verify: whole and damaged checkpoints, runs, models and data sets. And what is said of leftovers, of a run that
# diverges and of ranks whose weights differ.
# Usage: verify.sh BERTUNE [DAMAGES [SEED]]: so many random damages besides, by default 12.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
faults=${FAULTS:-}
damages=${2:-12}
RANDOM=${3:-1}
set_up
verify() { expect "$1" "$bertune" verify "${@:2}"; }

# Whole.
train 0 0 run.dir=run train.max_steps=18 run.save_steps=6 run.save_total_limit=9
verify 0 run data.h5 run/checkpoints/best/ ./run/final
equal "$(cat "$out")" "run/checkpoints/step-00000006: ok: checkpoint
run/checkpoints/step-00000012: ok: checkpoint
run/checkpoints/step-00000016: ok: checkpoint
run/checkpoints/step-00000018: ok: checkpoint
run/final: ok: model
data.h5: ok: data set, 256 train rows, 64 validation rows
run/checkpoints/best: ok: checkpoint
./run/final: ok: model"
[ ! -s "$err" ] || fail "it complains"
cp -r run/checkpoints/step-00000006 'a copy 好'
verify 0 'a copy 好'
mkdir fresh fresh/checkpoints
verify 0 fresh
contains "$out" "fresh: ok: run without a checkpoint"
rm -r run/checkpoints/step-00000018
verify 0 run
cp -r run/final plain
rm plain/MANIFEST
verify 0 plain
contains "$out" "plain: ok: model without a MANIFEST: only its form was checked"

# Missing.
verify 66 nowhere
contains "$out" "nowhere: missing: "
verify 66 run nowhere
contains "$out" "run/final: ok"
mkdir nothing
verify 66 nothing
verify 66 run/checkpoints/step-00000018

# Damaged: each file, at its ends and in the middle, in a checkpoint and in final/.
cases=0
damaged() {
    local path=$1 file=$2 why=$3
    verify 65 "$path"
    equal "$(wc -l <"$out")" 1
    contains "$out" "$path: damaged: $file: $why"
    cases=$((cases + 1))
}
for path in run/checkpoints/step-00000012 run/final; do
    for file in config.json vocab.txt tokenizer_config.json model.safetensors optimizer.safetensors state.json; do
        [ -e $path/$file ] || continue
        cp $path/$file kept
        size=$(stat -c %s kept)
        for at in 0 $((size / 2)) $((size - 1)); do
            flip $path/$file "$at"
            damaged $path $file "its bytes are not those of the MANIFEST"
            cp kept $path/$file
        done
        truncate -s -1 $path/$file
        damaged $path $file "$((size - 1)) bytes instead of $size"
        : >$path/$file
        damaged $path $file "0 bytes instead of $size"
        echo >>$path/$file
        cp kept $path/$file
        echo >>$path/$file
        damaged $path $file "$((size + 1)) bytes instead of $size"
        rm $path/$file
        damaged $path $file missing
        mkdir $path/$file
        verify 65 $path
        rmdir $path/$file
        cp kept $path/$file
    done
    cp $path/MANIFEST kept
    truncate -s 60 $path/MANIFEST
    damaged $path MANIFEST "cut short before the line of "
    cp kept $path/MANIFEST
    echo more >>$path/MANIFEST
    damaged $path MANIFEST "bytes behind the last line"
    cp kept $path/MANIFEST
    verify 0 $path
done

# Damaged at random: a bit flipped, cut short, bytes behind the end.
files=(run/checkpoints/step-00000012/* run/final/* data.h5)
flips=0 cuts=0
for ((i = 0; i < damages; i++)); do
    file=${files[RANDOM % ${#files[@]}]}
    size=$(stat -c %s "$file")
    at=$(((RANDOM << 15 | RANDOM) % size))
    cp "$file" kept
    case $((RANDOM % 6)) in
        0 | 1) truncate -s $at "$file" && cuts=$((cuts + 1)) ;;
        2) head -c $((1 + RANDOM % 99)) /dev/zero >>"$file" ;;
        *) flip "$file" $at $((1 << RANDOM % 8)) && flips=$((flips + 1)) ;;
    esac
    verify 65 "${file%/*}"
    contains "$out" "${file%/*}: damaged: " "damage $i, of $file at $at"
    cp kept "$file"
done
verify 0 run data.h5
echo "$damages random damages, all found: $flips bits flipped, $cuts files cut, $((damages - flips - cuts)) longer"
rm run/checkpoints/step-00000012/MANIFEST
damaged run/checkpoints/step-00000012 MANIFEST missing
verify 65 run nowhere
equal "$(grep -c ': ok: ' "$out")" 3 "of a run with a damaged checkpoint"
contains "$out" "run/checkpoints/step-00000012: damaged: MANIFEST: missing"
mv run/checkpoints/step-00000016 run/checkpoints/step-00000017
verify 65 run/checkpoints/step-00000017
contains "$out" "state.json is of step 16"
sed -i 's/"format_version": 1/"format_version": 9/' 'a copy 好/state.json'
verify 65 'a copy 好'
rm plain/vocab.txt
damaged plain vocab.txt "No such file"

size=$(stat -c %s data.h5)
for at in 0 1000 $((size / 2)) $((size - 1)); do
    cp data.h5 bad.h5
    flip bad.h5 "$at"
    verify 65 bad.h5
    contains "$out" "bad.h5: damaged: "
    cases=$((cases + 1))
done
verify 65 vocab.txt

# The command line.
verify 64
verify 64 --wrong
expect 0 "$bertune" verify --help
contains "$out" "Usage: bertune verify PATH"
expect 78 mpirun -np 2 "$bertune" verify data.h5

# What killed runs leave goes at the next start, aloud; what is not theirs stays.
train 0 0 run.dir=left train.max_steps=1
mkdir -p left/checkpoints/.tmp-step-00000001-99 left/checkpoints/.trash-step-00000009 left/.tmp-final left/.trash-final
touch left/.config.yaml.tmp-17 left/.metrics.jsonl.tmp-4 left/.notes.tmp-3 left/checkpoints/.tmp-step-00000001-99/a
ln -s step-00000001 left/checkpoints/.tmp-best
train 0 0 run.dir=left train.max_steps=2
contains "$err" "left: removed what a killed run left: 7 temporary files"
verify 0 left/checkpoints/step-00000001
equal "$(find left -name '.*' | sort | tr '\n' ' ')" "left/.lock left/.notes.tmp-3 "
train 0 0 run.dir=left train.max_steps=3
lacks "$err" "removed what"
# Links of such names go themselves, and never what they lead to; nothing is written there.
mkdir elsewhere
echo mine >elsewhere/file
for name in .tmp-final .trash-final .config.yaml.tmp-1 checkpoints/.tmp-step-00000001-9 checkpoints/.trash-step-00000001; do
    ln -s "$PWD/elsewhere" left/$name
done
rm -r left/checkpoints/step-00000002 left/final
for name in final checkpoints/step-00000009; do ln -s "$PWD/elsewhere" left/$name; done
train 0 0 run.dir=left train.max_steps=4 run.save_total_limit=1
contains "$err" "left: removed what a killed run left: 5 temporary files"
equal "$(find left -type l | sort | tr '\n' ' ')$(find elsewhere -type f)$(cat elsewhere/file)" "elsewhere/filemine"
verify 0 left

# Two jobs that start at the same time: one trains, the other leaves without touching anything, or finds it finished.
train 0 0 run.dir=one train.max_steps=20
for round in 1 2 3; do
    rm -rf two
    "$bertune" train c.yaml run.dir=two train.max_steps=20 >/dev/null 2>"$scratch/first" &
    first=$!
    "$bertune" train c.yaml run.dir=two train.max_steps=20 >"$out" 2>"$err" &
    codes=
    for pid in $first $!; do
        code=0
        wait "$pid" || code=$?
        codes="$codes $code"
    done
    case $codes in
        " 0 0" | " 0 73" | " 73 0") ;;
        *) fail "round $round: exit codes$codes" ;;
    esac
    grep -qE "another job|finished already" "$scratch/first" "$err" || fail "round $round: both train"
    same one/final/model.safetensors two/final/model.safetensors
    verify 0 two
done

# The divergence rule: 80, the checkpoints stay, and the run goes on from one; off by default.
wild=(run.dir=wild train.learning_rate=1 train.max_steps=48 train.divergence_window=5 run.save_steps=4)
for ranks in 0 2; do
    rm -rf wild
    train $ranks 80 "${wild[@]}" train.divergence_factor=1.2
    contains "$err" "the mean loss of the last 5 steps is"
    contains "$err" "train.divergence_factor 1.2"
    absent wild/final
    verify 0 wild
    [ -d wild/checkpoints/step-00000004 ] || [ "$(find wild/checkpoints -name 'step-*' | wc -l)" -gt 0 ] ||
        fail "no checkpoint is left"
done
newest=$(find wild/checkpoints -name 'step-*' | sort | tail -n 1)
train 0 0 "${wild[@]}" train.learning_rate=1e-5 "run.resume=$newest"
contains "$err" "going on from $newest"
rm -rf wild
train 0 0 "${wild[@]}"
# Interrupted just before, it ends at the same step.
rm -rf wild
train 0 80 "${wild[@]}" train.divergence_factor=1.2
at=$(sed -n 's/.*diverged at step \([0-9]*\):.*/\1/p' "$err")
rm -rf wild
train 0 0 "${wild[@]}" train.divergence_factor=1.2 train.max_steps=$((at - 1))
train 0 80 "${wild[@]}" train.divergence_factor=1.2
contains "$err" "diverged at step $at:"

# Not a number: found before the update, the last checkpoint stays and is as it was.
nan=(run.dir=nan train.max_steps=48 run.save_steps=4 run.save_total_limit=99)
train 0 0 "${nan[@]}" train.max_steps=8
hashes nan/checkpoints >"$scratch/before"
train 0 80 "${nan[@]}" train.learning_rate=1e3 train.num_train_epochs=50 train.max_steps=800 run.save_steps=0
contains "$err" "the weights were not updated. Rows of the batch (0-based rows of the CSV): "
grep -vE 'best|step-0000001[0-9]' "$scratch/before" >"$scratch/a"
(cd nan/checkpoints && sha256sum -c "$scratch/a") >"$out" 2>&1 || fail "an old checkpoint has changed"
verify 0 nan

# Ranks whose weights differ: a bug, and no checkpoint of it.
if [ -n "$faults" ]; then
    expect 70 env FAULTS_WRONG_HASH=1 ASAN_OPTIONS="$ASAN_OPTIONS:verify_asan_link_order=0" \
        mpirun -np 2 -x LD_PRELOAD="$faults" "$bertune" train c.yaml run.dir=differ train.max_steps=2
    contains "$err" "a bug: at step 2 the weights of rank 1 ("
    equal "$(find differ/checkpoints -mindepth 1)" ""
    absent differ/final
fi
none_left
echo "$cases damages"
