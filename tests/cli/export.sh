#!/usr/bin/env bash
# bertune export: what it writes, from what, and that it writes all of it or nothing.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
set_up
export_() { expect "$1" "$bertune" export "${@:2}"; }
files="config.json model.safetensors special_tokens_map.json tokenizer_config.json vocab.txt"
# whole DIR SOURCE: nothing but the model, and each file as in SOURCE.
whole() {
    local file
    # shellcheck disable=SC2012
    equal "$(ls -A "$1" | tr '\n' ' ')" "$files "
    for file in config.json model.safetensors tokenizer_config.json vocab.txt; do same "$1/$file" "$2/$file"; done
}
# nothing_else: no temporary directory is left.
nothing_else() { equal "$(find . -name '.*.tmp-*')" ""; }

train 0 0 run.dir=run train.max_steps=6 run.save_steps=3
for command in "export --help" "export --version"; do
    # shellcheck disable=SC2086
    expect 0 "$bertune" $command
    [ -s "$out" ] || fail "$command prints nothing"
done

# From a run, a run that has not ended, a checkpoint, a model directory.
export_ 0 run plain
whole plain run/final
contains "$out" "plain: the model of run/final, 2 labels"
for file in $files; do contains "$out" " $(stat -c %s "plain/$file")  $file"; done
[ ! -s "$err" ] || fail "it complains"
cp -r run unfinished
rm -r unfinished/final
mkdir empty
export_ 0 unfinished empty/
whole empty run/checkpoints/step-00000006
contains "$out" "the model of unfinished/checkpoints/step-00000006"
export_ 0 run/checkpoints/step-00000003 third
whole third run/checkpoints/step-00000003
! cmp -s third/model.safetensors plain/model.safetensors || fail "the third step's weights are the sixth's"
export_ 0 -- plain again
whole again plain
same again/special_tokens_map.json plain/special_tokens_map.json
export_ 0 run "$PWD/名 字"
whole "名 字" plain

# It predicts the same.
for model in run plain; do
    expect 0 "$bertune" predict $model --csv reviews.csv --format json
    cp "$out" "$scratch/$model.json"
done
same "$scratch/run.json" "$scratch/plain.json"

# A damaged newest checkpoint is passed over; one that was asked for, and final/, are refused.
flip unfinished/checkpoints/step-00000006/model.safetensors 5000
export_ 0 unfinished older
contains "$err" "trying the checkpoint before it"
whole older run/checkpoints/step-00000003
export_ 65 unfinished/checkpoints/step-00000006 no
contains "$err" "unfinished/checkpoints/step-00000006/model.safetensors: damaged"
rm unfinished/checkpoints/step-00000003/MANIFEST
export_ 65 unfinished/checkpoints/step-00000003 no
export_ 65 unfinished no
contains "$err" "all checkpoints are damaged"
cp -r run damaged
flip damaged/final/vocab.txt 20
export_ 65 damaged no
contains "$err" "damaged/final/vocab.txt: damaged"
cp -r plain short
truncate -s -4 short/model.safetensors
export_ 65 short no
contains "$err" "short/model.safetensors"

# What is there stays; what is missing is named.
export_ 73 run plain
contains "$err" "plain: is there already"
whole plain run/final
: >file
export_ 73 run file
[ ! -s file ] || fail "file was written to"
ln -s empty link
rm empty/*
export_ 73 run link
equal "$(ls -A empty)" ""
export_ 73 run nowhere/no
contains "$err" "no directory nowhere"
absent nowhere
export_ 73 run .
export_ 66 nowhere no
export_ 66 empty no
export_ 64
export_ 64 run
export_ 64 run no more
export_ 64 --format run no
absent no
nothing_else
if [ "$(id -u)" != 0 ]; then
    mkdir closed
    chmod 555 closed
    export_ 73 run closed/no
fi

# Hugging Face loads it and computes the same.
python=${PYTHON:-python3}
if "$python" -c 'import torch, transformers' 2>/dev/null; then
    tail -n +2 reviews.csv | cut -d , -f 2- | grep -v '"' | head -n 40 >texts
    expect 0 sh -c "'$bertune' predict plain --format json <texts"
    cp "$out" "$scratch/ours"
    cat >load.py <<'PYTHON'
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, info = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
assert not any(info.values()), info
worst = 0.0
for line in open(sys.argv[2], encoding="utf-8"):
    ours = json.loads(line)
    with torch.no_grad():
        logits = model.eval()(**tokenizer(ours["text"], truncation=True, return_tensors="pt")).logits[0]
    theirs = torch.softmax(logits.double(), 0)
    assert model.config.id2label[int(theirs.argmax())] == ours["label"]
    for index, name in model.config.id2label.items():
        worst = max(worst, abs(float(theirs[index]) - ours["probabilities"][name]))
print(worst)
assert worst < 2e-6
PYTHON
    expect 0 env HF_HUB_OFFLINE=1 "$python" load.py plain "$scratch/ours"
    echo "probabilities differ from transformers' by $(tail -n 1 "$out") at most"
else
    echo "SKIPPED: no PyTorch and transformers (PYTHON names a Python that has them)"
fi
none_left
