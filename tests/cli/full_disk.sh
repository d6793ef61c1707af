#!/usr/bin/env bash
# A full disk: exit code 74, the path is named, nothing half-written under its final name, and the run goes on once
# there is room. Needs a small tmpfs; exits 77 (skipped) where none can be mounted.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
set_up
mkdir small
if ! mount -t tmpfs -o size=700k tmpfs small 2>"$err"; then
    echo "SKIPPED: no tmpfs can be mounted here: $(cat "$err")"
    exit 77
fi
mounted=$scratch/work/small
temporaries() { find small -name '.tmp*' -o -name '.*.tmp-*' -o -name '.trash*'; }

# prepare: neither data set nor vocabulary; what was there before stays.
head -c 680000 /dev/zero >small/ballast
expect 74 "$bertune" prepare reviews.csv --out small/data.h5 --vocab vocab.txt
contains "$err" "data.h5"
contains "$err" "No space left on device"
absent small/data.h5
[ ! -s "$out" ] || fail "it prints results"
echo old >small/vocab.txt
head -c 660000 /dev/zero >small/ballast
expect 74 "$bertune" prepare reviews.csv --out small/data.h5 --build-vocab --vocab-out small/vocab.txt
absent small/data.h5
equal "$(cat small/vocab.txt)" old
equal "$(temporaries)" ""
rm small/*

# train: the first checkpoint has room, the second has not.
train 0 0 run.dir=whole
for ranks in 0 2; do
    train $ranks 74 run.dir=small/run run.save_steps=2 run.save_total_limit=9
    contains "$err" "small/run/checkpoints/"
    contains "$err" "No space left on device ("
    contains "$err" " bytes free)"
    equal "$(grep -c '^bertune: small/run' "$err")" 1 "one message from all ranks"
    equal "$(find small/run/checkpoints -mindepth 1 -maxdepth 1 -printf '%f\n')" step-00000002
    absent small/run/final
    equal "$(temporaries)" ""
    mount -o remount,size=20m small
    train 0 0 run.dir=small/run
    contains "$err" "going on from small/run/checkpoints/step-00000002"
    [ "$ranks" != 0 ] || same small/run/final/model.safetensors whole/final/model.safetensors
    rm -r small/run
    mount -o remount,size=700k small
done

# The last checkpoint has room, final/ has not.
mount -o remount,size=2m small
checkpoint=$(du -B1 -s whole/checkpoints/step-00000048 | cut -f 1)
head -c $((2 * 1024 * 1024 - checkpoint - 80000)) /dev/zero >small/ballast
train 0 74 run.dir=small/run run.save_total_limit=1 train.num_train_epochs=1
contains "$err" "small/run/.tmp-final"
absent small/run/final
equal "$(temporaries)" ""
rm small/ballast
train 0 0 run.dir=small/run run.save_total_limit=1 train.num_train_epochs=1
same small/run/final/model.safetensors small/run/checkpoints/step-00000016/model.safetensors
none_left
