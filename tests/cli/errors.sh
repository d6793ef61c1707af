#!/usr/bin/env bash
# What must fail: the exit code, a text on stderr that names the culprit, nothing on stdout, no file left behind, no
# process left, no hang; for `train` both alone and on two ranks.
# shellcheck disable=SC2016  # backquotes in messages are meant

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
cases=0
LIMIT=20

# bad CODE TEXT COMMAND ...
bad() {
    local code=$1 text=$2
    shift 2
    cases=$((cases + 1))
    find . | sort >"$scratch/before"
    expect "$code" "$@" </dev/null
    contains "$err" "$text" "$@"
    lacks "$err" "runtime error" "$@"
    lacks "$err" "check failed" "$@"
    [ ! -s "$out" ] || fail "it prints results: $*"
    find . | sort >"$scratch/after"
    same "$scratch/before" "$scratch/after"
}

# bad_train CODE TEXT ARGUMENT ...: `bertune train ARGUMENT ...`, alone and on two ranks.
bad_train() {
    local code=$1 text=$2
    shift 2
    bad "$code" "$text" "$bertune" train "$@"
    bad "$code" "$text" mpirun -np 2 "$bertune" train "$@"
    equal "$(grep -c '^bertune' "$err")" 1 "one message from all ranks: $*"
}

bad_prepare() {
    local code=$1 text=$2 csv=$3
    shift 3
    bad "$code" "$text" "$bertune" prepare "$csv" --out new.h5 --vocab vocab.txt "$@"
}

set_up

# The command line.
bad 64 "Usage: bertune COMMAND" "$bertune"
bad 64 "fly" "$bertune" fly
bad 64 "--fly" "$bertune" --fly
for command in prepare train evaluate predict tokenize info; do bad 64 "--fly" "$bertune" $command --fly; done
bad 64 "CSV" "$bertune" prepare
bad 64 "CSV" "$bertune" prepare reviews.csv data.h5 --out new.h5 --vocab vocab.txt
bad 64 "--out" "$bertune" prepare reviews.csv --vocab vocab.txt
bad 64 "--vocab" "$bertune" prepare reviews.csv --out new.h5
bad 64 "--vocab-out" "$bertune" prepare reviews.csv --out new.h5 --build-vocab
bad 64 "--build-vocab" "$bertune" prepare reviews.csv --out new.h5 --vocab vocab.txt --build-vocab --vocab-out v.txt
bad 64 "--build-vocab" "$bertune" prepare reviews.csv --out new.h5 --build-vocab=5 --vocab-out v.txt
bad_prepare 64 "--max-length" reviews.csv --max-length 1
bad_prepare 64 "--max-length" reviews.csv --max-length twelve
bad_prepare 64 "--test-size" reviews.csv --test-size 1.5
bad_prepare 64 "--test-size" reviews.csv --test-size nan
bad_prepare 64 "--dev-size" reviews.csv --dev-size -1
bad_prepare 64 "--split-seed" reviews.csv --split-seed 4294967296
bad_prepare 64 "--on-bad-row" reviews.csv --on-bad-row ignore
bad_prepare 64 "--label-names" reviews.csv --label-names "a,,b"
bad_prepare 64 "--label-names" reviews.csv --label-names "same,same"
bad_prepare 64 "--label-names" reviews.csv --label-names $'\xff,b'
bad_prepare 64 "--label-names" reviews.csv --label-names "$(seq -s, 1025)"
bad_prepare 65 "label 1" reviews.csv --label-names "one"
bad 64 "reviews.csv" "$bertune" prepare reviews.csv --out reviews.csv --vocab vocab.txt
bad 64 "vocab.txt" "$bertune" prepare reviews.csv --out ./vocab.txt --vocab vocab.txt
bad 64 "new.h5" "$bertune" prepare reviews.csv --out new.h5 --build-vocab --vocab-out new.h5
bad 64 "CONFIG.yaml" "$bertune" train
bad 64 "learning_rate" "$bertune" train c.yaml learning_rate
bad 64 "model or run" "$bertune" evaluate --data data.h5
bad 64 "--data" "$bertune" evaluate model
bad 64 "test" "$bertune" evaluate model --data data.h5 --split test
bad 64 "xml" "$bertune" evaluate model --data data.h5 --format xml
bad 64 "--batch-size" "$bertune" evaluate model --data data.h5 --batch-size 0
bad 64 "model or run" "$bertune" predict
bad 64 "xml" "$bertune" predict model --format xml
bad 64 "--csv" "$bertune" predict model --csv reviews.csv text
bad 64 "VOCAB.txt" "$bertune" tokenize
bad 64 "--max-length" "$bertune" tokenize vocab.txt --max-length 1

# CSV files.
mkdir directory
bad_prepare 66 "none.csv" none.csv
bad_prepare 66 "directory" directory
csv() { printf '%b' "$1" >bad.csv; }
csv ''; bad_prepare 65 "bad.csv" bad.csv
csv 'label,review\n'; bad_prepare 65 "bad.csv: no rows" bad.csv
csv 'label,text\n1,a\n'; bad_prepare 65 '`review`' bad.csv
csv 'stars,review\n1,a\n'; bad_prepare 65 '`label`' bad.csv
bad_prepare 65 '`body`' reviews.csv --text-column body
csv 'label,review\n1,"a\n0,b\n'; bad_prepare 65 "bad.csv:2" bad.csv
csv 'label,review\n1,a\n0,"b"c\n'; bad_prepare 65 "bad.csv:3" bad.csv
csv 'label,review\n1,a\n0,b\0c\n'; bad_prepare 65 "bad.csv:3: a NUL byte" bad.csv
csv 'label,review\n1,a\n0,\xe6\x97\n'; bad_prepare 65 "bad.csv:3: invalid UTF-8" bad.csv
csv 'label,review\n1,a\nx,b\n'; bad_prepare 65 'bad.csv:3: label `x`' bad.csv
csv 'label,review\n1,a\n-1,b\n'; bad_prepare 65 'bad.csv:3: label `-1`' bad.csv
csv 'label,review\n1,a\n1.0,b\n'; bad_prepare 65 'bad.csv:3: label `1.0`' bad.csv
csv 'label,review\n1,a\n99999999999999999999,b\n'; bad_prepare 65 'bad.csv:3: label' bad.csv
csv 'label,review\n1,a\n,b\n'; bad_prepare 65 'bad.csv:3: label ``' bad.csv
csv 'label,review\n1,a\n0\n'; bad_prepare 65 "bad.csv:3: expected 2 fields" bad.csv
csv 'label,review\n1,a\n0,b,c\n'; bad_prepare 65 "bad.csv:3: expected 2 fields" bad.csv
csv 'label,review\nx,a\ny,b\n'; bad_prepare 65 "bad.csv" bad.csv --on-bad-row skip
csv 'label,review\n1,a\n'; bad_prepare 78 "1 rows" bad.csv

# Vocabularies.
bad 66 "none.txt" "$bertune" prepare reviews.csv --out new.h5 --vocab none.txt
bad 66 "directory" "$bertune" tokenize directory
vocabulary() { printf '%b' "$1" >bad.txt; }
try_vocabulary() {
    bad 65 "$1" "$bertune" prepare reviews.csv --out new.h5 --vocab bad.txt
    bad 65 "$1" "$bertune" tokenize bad.txt
}
special='[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'
vocabulary ''; try_vocabulary "bad.txt"
vocabulary "${special}a\nb\na\n"; try_vocabulary 'bad.txt:8: the token "a"'
vocabulary "[PAD]\n[CLS]\n[SEP]\n[MASK]\n"; try_vocabulary '[UNK]'
vocabulary "${special}a\n\nb\n"; try_vocabulary "bad.txt:7"
vocabulary "${special}a\n\xff\n"; try_vocabulary "bad.txt:7"

# Places to write.
bad 73 "none" "$bertune" prepare reviews.csv --out none/new.h5 --vocab vocab.txt
bad 73 "directory" "$bertune" prepare reviews.csv --out directory --vocab vocab.txt
bad 73 "vocab.txt" "$bertune" prepare reviews.csv --out vocab.txt/new.h5 --vocab vocab.txt
bad 73 "none" "$bertune" prepare reviews.csv --out new.h5 --build-vocab --vocab-out none/v.txt
bad 73 "directory" "$bertune" prepare reviews.csv --out new.h5 --build-vocab --vocab-out directory
mkdir read-only
chmod a-w read-only
chmod a+rx "$scratch"
user=()
[ "$(id -u)" != 0 ] || user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
if "${user[@]}" "$bertune" --version >"$out" 2>"$err"; then
    bad 73 "read-only" "${user[@]}" "$bertune" prepare reviews.csv --out read-only/new.h5 --vocab vocab.txt
    bad 73 "read-only" "${user[@]}" "$bertune" train c.yaml run.dir=read-only/run
else
    echo "SKIPPED: a read-only directory (no other user can start bertune)"
fi
bad_train 73 "vocab.txt" c.yaml run.dir=vocab.txt
bad_train 73 "vocab.txt" c.yaml run.dir=vocab.txt/run

# Configurations.
yaml() { printf '%b' "$1" >bad.yaml; }
bad_train 66 "none.yaml" none.yaml
bad_train 66 "directory" directory
yaml 'train:\n  seed: [1\n'; bad_train 78 "bad.yaml" bad.yaml
yaml 'train:\n\tseed: 1\n'; bad_train 78 "bad.yaml" bad.yaml
yaml 'just text\n'; bad_train 78 "bad.yaml:1" bad.yaml
yaml 'train:\n  seed: 1\n  lerning_rate: 1\n'; bad_train 78 'bad.yaml:3: unknown key `train.lerning_rate`; did you mean `train.learning_rate`?' bad.yaml
yaml 'trian:\n  seed: 1\n'; bad_train 78 'bad.yaml:1: unknown key `trian`' bad.yaml
yaml 'train:\n  seed: one\n'; bad_train 78 'bad.yaml:2: train.seed' bad.yaml
yaml 'train:\n  seed: 1.5\n'; bad_train 78 'bad.yaml:2: train.seed' bad.yaml
yaml 'train:\n  shuffle: yes\n'; bad_train 78 'bad.yaml:2: train.shuffle' bad.yaml
yaml 'train:\n  learning_rate: .nan\n'; bad_train 78 'bad.yaml:2: train.learning_rate' bad.yaml
yaml 'train:\n  learning_rate: "1e-5"\n'; bad_train 78 'bad.yaml:2: train.learning_rate' bad.yaml
yaml 'train:\n  seed: 1\n  seed: 1\n'; bad_train 78 'bad.yaml:3' bad.yaml
yaml 'train:\n  seed: 1\ndata:\n  path: a\ntrain:\n  shuffle: true\n'; bad_train 78 'bad.yaml:5' bad.yaml
yaml 'train:\n  adam_beta1: 1\n'; bad_train 78 'bad.yaml:2: train.adam_beta1' bad.yaml
yaml 'train:\n  global_batch_size: 0\n'; bad_train 78 'bad.yaml:2: train.global_batch_size' bad.yaml
yaml 'train: &anchor\n  seed: 1\n'; bad_train 78 'anchors' bad.yaml
yaml 'train:\n  seed:\n    - 1\n'; bad_train 78 'bad.yaml:2' bad.yaml
bad_train 78 "train.lerning_rate" c.yaml train.lerning_rate=1
bad_train 78 "train.learning_rate" c.yaml train.learning_rate=fast
bad_train 78 "train.learning_rate" c.yaml train.learning_rate=
bad_train 78 "train.learning_rate" c.yaml train.learning_rate=-1
bad_train 78 "model.init" c.yaml model.init=zero
export BERTUNE_TRAIN_LERNING_RATE=1
bad_train 78 'BERTUNE_TRAIN_LERNING_RATE: unknown key `train.lerning_rate`; did you mean `train.learning_rate`?' c.yaml
unset BERTUNE_TRAIN_LERNING_RATE
export BERTUNE_TRAIN_SEED=x
bad_train 78 "BERTUNE_TRAIN_SEED" c.yaml
unset BERTUNE_TRAIN_SEED
bad_train 69 "cuda" c.yaml run.device=cuda
bad_train 78 "train.precision" c.yaml train.precision=tf32
bad_train 78 "train.precision" c.yaml train.precision=fp8

# Data sets.
bad_train 66 "none.h5" c.yaml data.path=none.h5
bad_train 66 "directory" c.yaml data.path=directory
bad_train 65 "reviews.csv" c.yaml data.path=reviews.csv
: >bad.h5; bad_train 65 "bad.h5" c.yaml data.path=bad.h5
head -c 3000 data.h5 >bad.h5; bad_train 65 "bad.h5" c.yaml data.path=bad.h5
head -c 8 data.h5 >bad.h5; bad_train 65 "bad.h5" c.yaml data.path=bad.h5
head -c -1 data.h5 >bad.h5; flip bad.h5 30; bad_train 65 "bad.h5" c.yaml data.path=bad.h5
cp data.h5 bad.h5; flip bad.h5 9000; bad_train 65 "bad.h5" c.yaml data.path=bad.h5
bad 66 "model.safetensors" "$bertune" evaluate model --data bad.h5
expect 0 "$bertune" prepare reviews.csv --out no-validation.h5 --vocab vocab.txt --max-length 48 --test-size 0
bad_train 65 "validation" c.yaml data.path=no-validation.h5

# Model directories.
bad_train 66 "none" c.yaml model.path=none
bad_train 66 "vocab.txt" c.yaml model.path=vocab.txt
model bad
try_config() {
    printf '%s' "$2" >bad/config.json
    bad_train "$1" "bad/config.json" c.yaml model.path=bad
    contains "$err" "$3"
}
try_config 65 '{"model_type": ' "not a JSON object"
try_config 65 '[1]' "not a JSON object"
try_config 65 '{"model_type": "roberta"}' model_type
try_config 65 '{"hidden_size": 32, "num_attention_heads": 5}' "multiple of num_attention_heads"
try_config 65 '{"hidden_size": 32, "num_attention_heads": 2, "hidden_act": "gelu_new"}' hidden_act
try_config 65 '{"hidden_size": -32}' hidden_size
try_config 65 '{"hidden_size": "32"}' hidden_size
try_config 65 '{"hidden_size": 1e99999}' "not a JSON object"
model bad
rm bad/vocab.txt
bad_train 66 "bad/vocab.txt" c.yaml model.path=bad
sed 's/^\[UNK\]$/[unk]/' vocab.txt >bad/vocab.txt
bad_train 65 "[UNK]" c.yaml model.path=bad
sed '$d' vocab.txt >bad/vocab.txt
bad_train 78 "$(sha256sum <bad/vocab.txt | cut -d ' ' -f 1)" c.yaml model.path=bad
contains "$err" "$(sha256sum <vocab.txt | cut -d ' ' -f 1)"
expect 0 "$bertune" prepare reviews.csv --out long.h5 --vocab vocab.txt --max-length 65
bad_train 78 "max_position_embeddings" c.yaml data.path=long.h5

# Weights: an empty run directory is all that may be left, so it is there before.
expect 0 "$bertune" train c.yaml run.dir=good train.max_steps=2
mkdir -p weights/checkpoints weights/logs
touch weights/.lock
pretrained=(c.yaml model.init=pretrained model.path=bad run.dir=weights)
model bad
bad_train 66 "bad/model.safetensors" "${pretrained[@]}"
touch bad/pytorch_model.bin
bad_train 65 "save_pretrained" "${pretrained[@]}"
bad 65 "save_pretrained" "$bertune" predict bad text
try_weights() {
    bad_train 65 "bad/model.safetensors" "${pretrained[@]}"
    contains "$err" "$1"
    bad 65 "bad/model.safetensors" "$bertune" predict bad text
}
tensors=good/final/model.safetensors
head -c 60000 $tensors >bad/model.safetensors; try_weights truncated
head -c 500 $tensors >bad/model.safetensors; try_weights truncated
: >bad/model.safetensors; try_weights truncated
printf '\x08\0\0\0\0\0\0\0{"a": 1}' >bad/model.safetensors; try_weights '`a`'
LC_ALL=C sed 's/layer.1.output.dense.bias"/layer.1.output.dense.BIAS"/' $tensors >bad/model.safetensors
try_weights 'bert.encoder.layer.1.output.dense.bias` is missing'
LC_ALL=C sed 's/\[32,64\]/[64,32]/' $tensors >bad/model.safetensors
try_weights 'bert.encoder.layer.0.output.dense.weight` has shape (64, 32), config.json says (32, 64)'
LC_ALL=C sed 's/"dtype":"F32","shape":\[32,64\]/"dtype":"I32","shape":[32,64]/' $tensors >bad/model.safetensors
try_weights 'bert.encoder.layer.0.output.dense.weight'
(cat $tensors && echo) >bad/model.safetensors; try_weights "behind the last tensor"

# Other directories.
mkdir -p unfinished/checkpoints unfinished/logs
touch unfinished/metrics.jsonl
bad 66 "unfinished" "$bertune" predict unfinished text
bad 66 "unfinished" "$bertune" evaluate unfinished --data data.h5
bad 66 "none" "$bertune" predict none text
bad 66 "vocab.txt" "$bertune" predict vocab.txt text
bad 66 "none.h5" "$bertune" evaluate good --data none.h5
bad 65 "reviews.csv" "$bertune" evaluate good --data reviews.csv
bad 65 "dev" "$bertune" evaluate good --data data.h5 --split dev
bad 66 "none.csv" "$bertune" predict good --csv none.csv
bad 65 '`body`' "$bertune" predict good --csv reviews.csv --text-column body
bad 65 "argument 2" "$bertune" predict good text $'\xff'
printf 'a\nb\0\n' >bad.lines
bad 65 "line 2" sh -c "'$bertune' predict good <bad.lines"
bad 65 "line 2" sh -c "'$bertune' tokenize vocab.txt <bad.lines"
sed '$d' vocab.txt >other.txt
expect 0 "$bertune" prepare reviews.csv --out other.h5 --vocab other.txt --max-length 48
bad 78 "$(sha256sum <other.txt | cut -d ' ' -f 1)" "$bertune" evaluate good --data other.h5
contains "$err" "$(sha256sum <vocab.txt | cut -d ' ' -f 1)"
bad 78 "long.h5: rows of up to 65 tokens" "$bertune" evaluate good --data long.h5
bad_train 66 "none" c.yaml run.resume=none run.dir=weights
bad_train 66 "good/final" c.yaml run.resume=good/final run.dir=weights

# Wrong launches.
bad 78 "SLURM" env SLURM_STEP_NUM_TASKS=2 "$bertune" predict good text
bad 78 "srun" env SLURM_STEP_NUM_TASKS=2 "$bertune" train c.yaml
bad 78 "OMPI_COMM_WORLD_SIZE is 3" env OMPI_COMM_WORLD_SIZE=3 "$bertune" train c.yaml
for command in "predict good text" "evaluate good --data data.h5" "tokenize vocab.txt" \
    "prepare reviews.csv --out new.h5 --vocab vocab.txt"; do
    # shellcheck disable=SC2086
    bad 78 "one process" mpirun -np 2 "$bertune" $command
done

# Divergence: the step and the rows of its batch are named; what was there stays as it was.
model bad
cp $tensors bad/model.safetensors
header=$(od -An -tu4 -N 4 bad/model.safetensors)
head -c 16000 /dev/zero | tr '\0' '\377' | dd of=bad/model.safetensors bs=1 seek=$((header + 8)) conv=notrunc status=none
for ranks in 0 2; do
    rm -rf nan
    train $ranks 80 run.dir=nan model.init=pretrained model.path=bad
    cases=$((cases + 1))
    contains "$err" "diverged at step 1:"
    contains "$err" "rows of the CSV): "
    equal "$(sed -n 's/.*rows of the CSV): //p' "$err" | tr ',' '\n' | awk '$1 >= 0 && $1 < 320' | wc -l)" 16 rows
    [ ! -s "$out" ] || fail "it prints results"
    absent nan/final
    equal "$(find nan/checkpoints -mindepth 1)" ""
    rm -rf wild
    train $ranks 80 run.dir=wild train.learning_rate=1000 train.num_train_epochs=50
    contains "$err" "diverged at step"
    lacks wild/metrics.jsonl nan
    absent wild/final
done

none_left
echo "$cases cases"
