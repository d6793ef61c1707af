#!/usr/bin/env bash
# What prepare, train, evaluate, predict, tokenize and info print and write.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
set_up

matches() { grep -qE -e "$2" "$1" || fail "$(basename "$1") lacks a line like \`$2\`: ${*:3}"; }
number='[0-9]+\.[0-9]+(e-?[0-9]+)?'

# Help and version.
for command in "" prepare train evaluate predict tokenize bench export info; do
    # shellcheck disable=SC2086
    for option in --help --version; do
        expect 0 "$bertune" $command $option
        [ -s "$out" ] || fail "$command $option prints nothing"
        [ ! -s "$err" ] || fail "$command $option writes to stderr"
        [ $option = --help ] || matches "$out" '^bertune [0-9]+\.[0-9]+\.[0-9]+$'
    done
done
expect 0 "$bertune" train --help
contains "$out" "train.learning_rate"
expect 0 "$bertune" train --print-defaults
same "$out" "$(dirname "$samples")/../../configs/default.yaml"
cp "$out" all.yaml
expect 66 "$bertune" train all.yaml
contains "$err" "data/waimai_10k.h5"
expect 0 "$bertune" info
for name in version commit compiler backends cuda mpi hdf5 processors; do matches "$out" "^$name: ."; done
! grep -qvE '^[a-z0-9 ]+: ' "$out" || fail "info prints something other than name: value"

# stdout that is full or closed.
for command in --help --version "info" "prepare --help" "train --version" "train --help"; do
    # shellcheck disable=SC2086
    expect 74 sh -c "'$bertune' $command >/dev/full"
    contains "$err" stdout "$command"
done
expect 74 sh -c "echo a | '$bertune' tokenize vocab.txt >/dev/full"
expect 74 sh -c "'$bertune' prepare reviews.csv --out closed.h5 --vocab vocab.txt --max-length 48 >&-"
same closed.h5 data.h5
expect 74 sh -c "'$bertune' train c.yaml run.dir=closed train.num_train_epochs=1 >&-"
contains "$err" stdout
[ -e closed/final/model.safetensors ] || fail "the run did not end"
! grep -rqF "Average training loss" closed || fail "what belonged on stdout stands in a file"
expect 0 sh -c "'$bertune' train c.yaml run.dir=closed2 train.max_steps=2 2>&- <&-"
same closed/config.yaml <(sed 's/closed2/closed/; s/max_steps: 2/max_steps: 0/; s/num_train_epochs: 3/num_train_epochs: 1/' closed2/config.yaml)

# prepare: the same bytes twice and through stdin; the learned vocabulary, too.
expect 0 "$bertune" prepare reviews.csv --out again.h5 --build-vocab=500 --vocab-out again.txt --max-length 48
same data.h5 again.h5
same vocab.txt again.txt
contains "$out" "again.h5: 320 rows (256 training, 64 validation)"
expect 0 sh -c "'$bertune' prepare - --out stdin.h5 --vocab vocab.txt --max-length 48 <reviews.csv"
same data.h5 stdin.h5
OMP_NUM_THREADS=1 expect 0 "$bertune" prepare reviews.csv --out one.h5 --vocab <(cat vocab.txt) --max-length=48
same data.h5 one.h5
expect 0 "$bertune" prepare reviews.csv --out other.h5 --vocab vocab.txt --max-length 48 --split-seed 7
! cmp -s data.h5 other.h5 || fail "--split-seed changes nothing"
lacks "$err" $'\r' "a bar without a terminal"
equal "$(find . -name '.*.tmp-*' | wc -l)" 0 "temporary files"

# CRLF, a byte order mark, quotes, other columns: the same rows give the same data but for the source's hash.
printf 'label,review\n1,"a ""b"", c"\n0,d e\n1,f\n0,"g\nh"\n1,i\n' >plain.csv
printf '\xef\xbb\xbfreview,id,label\r\n"a ""b"", c",1,1\r\n"d e",2,0\r\nf,3,1\r\n"g\nh",4,0\r\n"i",5,"1"\r\n' >strange.csv
for name in plain strange; do
    expect 0 "$bertune" prepare $name.csv --out $name.h5 --vocab vocab.txt --max-length 32 --test-size 0.4
    contains "$out" "$name.h5: 5 rows (3 training, 2 validation)"
    sed -n "s/^$name.h5: //p" "$out" >$name.said
    train 0 0 run.dir=$name data.path=$name.h5 train.max_steps=2
done
same plain.said strange.said
same plain/final/model.safetensors strange/final/model.safetensors

# Bad rows: the first one ends it, or all are left out and counted.
printf 'label,review\n1,a\nx,b\n0,c\n1\n0,"d" e\n1,f\n0,g\xff\n0,h\n' >bad.csv
expect 65 "$bertune" prepare bad.csv --out bad.h5 --vocab vocab.txt
contains "$err" "bad.csv:3"
absent bad.h5
expect 0 "$bertune" prepare bad.csv --out bad.h5 --vocab vocab.txt --on-bad-row skip
contains "$out" "bad.h5: 4 rows (3 training, 1 validation; 4 bad rows skipped)"

# /dev comes from the training rows; the parts are disjoint and together all rows.
expect 0 "$bertune" prepare reviews.csv --out dev.h5 --vocab vocab.txt --max-length 48 --dev-size 0.25
contains "$out" "dev.h5: 320 rows (192 training, 64 validation, 64 dev)"
train 0 0 run.dir=dev data.path=dev.h5 train.max_steps=12
rows() { sed -n 's/^rows: //p' "$out"; }
for part in train:192 validation:64 dev:64; do
    expect 0 "$bertune" evaluate dev --data dev.h5 --split ${part%:*}
    equal "$(rows)" ${part#*:} "${part%:*}"
done
# Labels by part add up to those of the CSV, and the validation rows are those of a split without /dev.
total() { "$bertune" evaluate "$1" --data "$2" --split "$3" | awk '/^confusion/ { on = 1; next } on { print $1 + $2 }'; }
for part in train validation dev; do total dev dev.h5 $part; done >"$scratch/a"
equal "$(awk 'NR % 2 { n += $1 } END { print n }' "$scratch/a")" "$(grep -c '^0,' reviews.csv)" "rows labelled 0"
expect 0 "$bertune" evaluate dev --data dev.h5
cp "$out" "$scratch/a"
expect 0 "$bertune" evaluate dev --data data.h5
same "$out" "$scratch/a"

# train: exactly the lines of the notebook on stdout; no bar; what the run directory holds.
expect 0 "$bertune" train c.yaml run.dir=deep/er/run train.num_train_epochs=2 train.learning_rate=2e-3
equal "$(wc -l <"$out")" 4 "lines of stdout"
for epoch in 1 2; do
    matches "$out" "^Epoch $epoch: Average training loss = $number\$"
    matches "$out" "^Epoch $epoch: Validation Loss = $number, Validation Accuracy = $number\$"
    events deep/er/run epoch | sed -n ${epoch}p >"$scratch/event"
    contains "$out" "Epoch $epoch: Average training loss = $(value train_loss <"$scratch/event")"
    contains "$out" "Validation Loss = $(value validation_loss <"$scratch/event"), Validation Accuracy = $(value validation_accuracy <"$scratch/event")"
done
lacks "$err" $'\r'
lacks "$err" $'\033'
mv deep/er/run run
for file in config.yaml metrics.jsonl logs/rank-0000.log final/config.json final/vocab.txt final/tokenizer_config.json \
    final/model.safetensors checkpoints/step-00000032/optimizer.safetensors checkpoints/best/model.safetensors; do
    [ -s "run/$file" ] || fail "no $file"
done
equal "$(find run/final -type f | wc -l)" 5 "files of final/"
same run/final/vocab.txt vocab.txt
contains run/final/config.json '"0": "消极"'
contains run/final/config.json '"1": "积极"'
for event in start step epoch checkpoint end; do matches run/metrics.jsonl "^\{\"event\": \"$event\", .*\}\$"; done
equal "$(grep -vcE '^\{.*\}$' run/metrics.jsonl)" 0
equal "$(sed -n 's/.*"parameters": \([0-9]*\), "trained.*/\1/p' run/metrics.jsonl)" $((500 * 32 + 64 * 32 + 2 * 32 + 64 + 2 * (4 * (32 * 32 + 32) + 64 + 2 * 32 * 64 + 64 + 32 + 64) + 32 * 32 + 32 + 2 * 32 + 2)) parameters

# The resolved configuration starts the same run; the command line goes before the environment, that before the file.
contains run/config.yaml "learning_rate: 0.002"
cp run/config.yaml resolved.yaml
expect 0 "$bertune" train resolved.yaml run.dir=resolved
same resolved/final/model.safetensors run/final/model.safetensors
BERTUNE_TRAIN_SEED=5 BERTUNE_TRAIN_LEARNING_RATE=1e-3 expect 0 "$bertune" train c.yaml run.dir=first train.seed=6 train.max_steps=1
contains first/config.yaml "seed: 6"
contains first/config.yaml "learning_rate: 0.001"
expect 0 sh -c "sed 's/dir: run/dir: piped/' c.yaml | '$bertune' train - train.max_steps=1"
[ -d piped/final ] || fail "no configuration from stdin"

# evaluate: text and JSON; the loss of the last epoch; rows add up.
expect 0 "$bertune" evaluate run --data data.h5
equal "$(rows)" 64
loss=$(sed -n 's/^loss: //p' "$out")
events run epoch | tail -n 1 | value validation_loss >"$scratch/a"
echo "$loss" >"$scratch/b"
near "$scratch/a" "$scratch/b" 1e-6
for label in 消极 积极; do matches "$out" "^$label: precision [01]\.[0-9]{4}, recall [01]\.[0-9]{4}, F1 [01]\.[0-9]{4}\$"; done
confusion=$(awk '/^confusion/ { on = 1; next } on { print $1, $2 }' "$out" | tr '\n' ' ')
equal "$(awk '{ print $1 + $2 + $3 + $4 }' <<<"$confusion")" 64
equal "$(events run epoch | tail -n 1 | sed 's/.*"confusion": //; s/[^0-9 ]//g; s/ *$//')" "${confusion% }" "confusion of the last epoch"
cp "$out" "$scratch/text"
expect 0 "$bertune" evaluate run/final --data data.h5
same "$out" "$scratch/text"
expect 0 "$bertune" evaluate run --data data.h5 --format json
equal "$(wc -l <"$out")" 1
equal "$(value rows <"$out")" 64
equal "$(sed 's/.*"confusion": //; s/[^0-9 ]//g; s/ *$//' "$out")" "${confusion% }"
value loss <"$out" >"$scratch/a"
near "$scratch/a" "$scratch/b" 1e-12
equal "$(value validation_accuracy <"$out")" "$(events run epoch | tail -n 1 | value validation_accuracy)"
expect 0 "$bertune" evaluate run --data data.h5 --split train --batch-size 7
equal "$(rows)" 256

# predict: three formats, texts from everywhere.
expect 0 "$bertune" predict run '太难吃了' '味道好极了, 真的 "好"'
cp "$out" "$scratch/text"
equal "$(wc -l <"$out")" 8
equal "$(sed -n 1p "$out")" "文本: 太难吃了"
equal "$(sed -n 5p "$out")" '文本: 味道好极了, 真的 "好"'
for line in 2 6; do sed -n ${line}p "$out" | grep -qxE '预测标签: (积极|消极)' || fail "line $line"; done
for line in 3 7; do
    sed -n ${line}p "$out" | grep -qxE '积极概率: [01]\.[0-9]{4}, 消极概率: [01]\.[0-9]{4}' || fail "line $line"
    sed -n ${line}p "$out" | awk -F '[:,]' '{ s = $2 + $4; if (s < 0.9998 || s > 1.0002) exit 1 }' || fail "sum in line $line"
done
for line in 4 8; do equal "$(sed -n ${line}p "$out")" "$(printf -- '-%.0s' {1..50})"; done
printf '太难吃了\r\n味道好极了, 真的 "好"' >lines
for command in "predict run" "predict run -" "predict run/final"; do
    expect 0 sh -c "'$bertune' $command <lines"
    same "$out" "$scratch/text" # "$command"
done
printf 'review\n太难吃了\n"味道好极了, 真的 ""好"""\n' >two.csv
expect 0 "$bertune" predict run --csv two.csv
same "$out" "$scratch/text"
expect 0 sh -c "sed 1s/review/text/ two.csv | '$bertune' predict run --csv - --text-column=text"
same "$out" "$scratch/text"
expect 0 "$bertune" predict run --csv two.csv --format json
equal "$(wc -l <"$out")" 2
matches "$out" "^\{\"text\": \"太难吃了\", \"label\": \"(积极|消极)\", \"label_id\": [01], \"probabilities\": \{\"积极\": $number, \"消极\": $number\}\}\$"
contains "$out" '真的 \"好\"'
expect 0 "$bertune" predict run --csv two.csv --format csv
equal "$(head -n 1 "$out")" "text,label,probability_消极,probability_积极"
matches "$out" '^"味道好极了, 真的 ""好""",(积极|消极),[01]\.[0-9]{6},[01]\.[0-9]{6}$'
expect 0 "$bertune" predict run --format csv -- --text ''
equal "$(wc -l <"$out")" 3
expect 0 sh -c "'$bertune' predict run </dev/null"
[ ! -s "$out" ] || fail "predictions of nothing"
# A prediction does not depend on what is predicted with it, and agrees with evaluate.
expect 0 "$bertune" predict run --csv reviews.csv --format csv
equal "$(wc -l <"$out")" 321
tail -n +2 "$out" >"$scratch/many"
for row in 1 77 320; do
    text=$(sed -n $((row + 1))p reviews.csv | cut -d , -f 2-)
    case $text in *[\",]*) continue ;; esac
    expect 0 "$bertune" predict run --format csv "$text"
    equal "$(sed -n 2p "$out")" "$(sed -n ${row}p "$scratch/many")" "row $row"
done
wrong=$(paste -d , <(tail -n +2 reviews.csv | cut -d , -f 1) "$scratch/many" | awk -F , '{ guess = $NF > $(NF - 1); n += guess != $1 } END { print n }')
expect 0 "$bertune" evaluate run --data data.h5 --split train
train_wrong=$(awk '/^confusion/ { on = 1; next } on { line++; n += line == 1 ? $2 : $1 } END { print n }' "$out")
expect 0 "$bertune" evaluate run --data data.h5
valid_wrong=$(awk '/^confusion/ { on = 1; next } on { line++; n += line == 1 ? $2 : $1 } END { print n }' "$out")
equal "$wrong" $((train_wrong + valid_wrong)) "wrong predictions by predict and by evaluate"
# A run without final/: its newest checkpoint.
cp -r run unfinished
rm -r unfinished/final
expect 0 sh -c "'$bertune' predict unfinished <lines"
same "$out" "$scratch/text"

# Names of labels.
expect 0 "$bertune" prepare reviews.csv --out named.h5 --vocab vocab.txt --max-length 48 --label-names 'bad,very "good",rest'
train 0 0 run.dir=named data.path=named.h5 train.max_steps=1
contains named/final/config.json '"2": "rest"'
expect 0 "$bertune" predict named a --format csv
equal "$(head -n 1 "$out")" 'text,label,probability_bad,"probability_very ""good""",probability_rest'
expect 0 "$bertune" predict named a
matches "$out" '^rest概率: 0\.[0-9]{4}, very "good"概率: 0\.[0-9]{4}, bad概率: 0\.[0-9]{4}$'
expect 0 "$bertune" evaluate named --data named.h5 --format json
contains "$out" '"macro_f1"'
# A fine-tuned model trains on as a pretrained one.
expect 0 "$bertune" train c.yaml run.dir=on model.init=pretrained model.path=run/final train.max_steps=1
lacks "$err" "newly initialised"

# tokenize.
expect 0 sh -c "printf '太难吃了\r\n\nHello' | '$bertune' tokenize vocab.txt"
equal "$(wc -l <"$out")" 3
cls=$(($(grep -nxF '[CLS]' vocab.txt | cut -d : -f 1) - 1)) sep=$(($(grep -nxF '[SEP]' vocab.txt | cut -d : -f 1) - 1))
! grep -qvE "^$cls( [0-9]+)* $sep\$" "$out" || fail "a line is not [CLS] ... [SEP]"
equal "$(sed -n 2p "$out")" "$cls $sep"
equal "$(sed -n 1p "$out" | wc -w)" 6
expect 0 sh -c "printf '太难吃了' | '$bertune' tokenize vocab.txt --max-length 4"
equal "$(wc -w <"$out")" 4

# A terminal gets a bar, in colour unless NO_COLOR.
if command -v script >/dev/null; then
    for colour in "" NO_COLOR=1; do
        rm -rf bar
        expect 0 script -qec "env $colour '$bertune' train c.yaml run.dir=bar" /dev/null
        contains "$out" $'\rtrain '
        contains "$out" "48/48"
        contains "$out" "reviews/s  ETA 0:00"
        if [ -n "$colour" ]; then lacks "$out" $'\033[32m'; else contains "$out" $'\033[32m'; fi
    done
else
    echo "SKIPPED: the bar on a terminal (no script command)"
fi
none_left
