#!/usr/bin/env bash
# Sweeps: one table whatever the way they are run, however often they are killed; what trials may do wrong; what users
# may. Usage: sweep.sh BERTUNE [KILLS]: of the whole farm, at random moments.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
kills=${2:-3}
export OMP_NUM_THREADS=1
RANDOM=${SEED:-$$}
echo "SEED=${SEED:-$$}"
set_up
expect 0 "$bertune" prepare reviews.csv --out dev.h5 --vocab vocab.txt --max-length 48 --dev-size 0.15
sed -i 's/data.h5/dev.h5/' c.yaml

# sweep NAME [LINE ...]: NAME.yaml of twelve trials of uneven length.
sweep() {
    {
        cat <<YAML
name: $1
config: c.yaml
dir: $1
method: grid
parameters:
  learning_rate: {values: [1e-4, 1e-3, 3e-3]}
  train.global_batch_size: {values: [8, 32]}
  num_train_epochs: {values: [3, 5]}
YAML
        shift
        printf '%s\n' "$@"
    } >"$1.yaml"
}
asha='early_terminate: {type: hyperband, min_iter: 1, eta: 2}'
table() { cut -d, -f 2- "$1/table.csv"; }

# Locally, side by side, as an array and as a farm; and of two ranks each, whose sums round in another order.
for way in one two array farm pairs; do sweep $way "$asha"; done
echo "ranks_per_trial: 2" >>pairs.yaml
expect 0 "$bertune" sweep one.yaml
cp "$out" table.txt
contains table.txt "winner: trial "
expect 0 "$bertune" sweep two.yaml --jobs 2
same one/table.csv two/table.csv
for i in 11 3 0 1 2 4 5 6 7 8 9 10; do expect 0 "$bertune" sweep array.yaml --trial $i; done
contains "$out" "winner: trial "
same one/table.csv array/table.csv
expect 0 mpirun -np 3 "$bertune" sweep farm.yaml
same one/table.csv farm/table.csv
sed 's/one/farm/' table.txt >wanted.txt
same wanted.txt "$out"
for way in two array farm; do same one/winner/final/model.safetensors $way/winner/final/model.safetensors; done
expect 0 mpirun -np 4 "$bertune" sweep pairs.yaml
equal "$(wc -l <pairs/table.csv)" 13 "lines of the table"
grep -q '"ranks": 2' pairs/results/winner.json || fail "not two ranks"
# Half of the trials went on past the first rung, and what was stopped keeps no checkpoint.
equal "$(grep -c ,stopped, one/table.csv)" "$((12 - $(find one/results -name '*-0003.json' -o -name '*-0005.json' | wc -l)))" "stopped trials"
while read -r trial; do
    equal "$(find "one/trials/$trial/checkpoints" -mindepth 1 | wc -l)" 0 "checkpoints of trial $trial"
done < <(awk -F, '$2 == "stopped" { printf "%04d\n", $1 }' one/table.csv)

# A trial is a run that `bertune train` repeats, and the winner one on the uncut data.
best=$(awk -F, 'NR == 2 { printf "%04d", $1 }' one/table.csv)
equal "$(awk -F, 'NR == 2 { print $2 }' one/table.csv)" finished
expect 0 "$bertune" train "one/trials/$best/config.yaml" run.dir=again
same again/final/model.safetensors "one/trials/$best/final/model.safetensors"
expect 0 "$bertune" train one/winner/config.yaml run.dir=uncut data.path=data.h5 data.train_split=train
same uncut/final/model.safetensors one/winner/final/model.safetensors

# Over: nothing is done again.
hashes one >before
expect 0 "$bertune" sweep one.yaml --jobs 2
same table.txt "$out"
hashes one >after
same before after

# A result that is removed by hand is made again; if another trial wins then, nothing of the first winner is gone on from.
cp -r one fixed
sed 's/one/fixed/' one.yaml >fixed.yaml
sed -i 's/"\(dir\|name\)": "one"/"\1": "fixed"/' fixed/sweep.json
first=$(cat fixed/winner/trial.json)
rm fixed/results/winner.json
for file in fixed/results/"$best"-*.json; do sed -i 's/"status": "[a-z]*"/"status": "failed"/; s/"metric": [^,]*/"metric": null/' "$file"; done
expect 0 "$bertune" sweep fixed.yaml
[ "$(cat fixed/winner/trial.json)" != "$first" ] || fail "the same winner"
expect 0 "$bertune" train fixed/winner/config.yaml run.dir=anew
same anew/final/model.safetensors fixed/winner/final/model.safetensors

# The whole farm is killed time after time; nothing is lost, and no trial is trained to its end twice.
sweep killed "$asha"
for ((i = 0; i < kills; i++)); do
    # Its own process group, so that mpirun and all ranks go at once.
    setsid mpirun -np 3 "$bertune" sweep killed.yaml >"$out" 2>>killed.log &
    leader=$!
    sleep "0.$((RANDOM % 900 + 100))"
    pids="$leader $(leftovers)"
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    wait $leader 2>/dev/null || true
    wait_for 10 gone
done
expect 0 mpirun -np 3 "$bertune" sweep killed.yaml
same one/table.csv killed/table.csv
same one/winner/final/model.safetensors killed/winner/final/model.safetensors
for run in killed/trials/*; do
    [ -d "$run/final" ] || continue
    equal "$(grep -c '"event": "end"' "$run/metrics.jsonl")" 1 "ends of $run"
done
equal "$(find killed -name '*tmp*')" "" "temporary files"

# A worker that is killed is started anew, and its trial goes on.
sweep worker "$asha"
: >"$err"
"$bertune" sweep worker.yaml --jobs 2 >"$out" 2>"$err" &
parent=$!
wait_for 20 grep -q "trial" "$err"
for pid in $(leftovers); do
    if grep -q "^PPid:.$parent$" "/proc/$pid/status"; then child=$pid; fi
done
kill -9 "$child"
code=0
wait $parent || code=$?
equal "$code" 0 "exit code after a worker was killed"
contains "$err" "was ended by signal 9"
same one/table.csv worker/table.csv

# Asked to stop: 75 with everything kept, and the same end.
sweep asked "$asha"
for how in local farm; do
    : >"$err"
    if [ $how = local ]; then
        "$bertune" sweep asked.yaml --jobs 2 >"$out" 2>"$err" &
    else
        mpirun -np 3 "$bertune" sweep asked.yaml >"$out" 2>"$err" &
    fi
    pid=$!
    wait_for 20 grep -q "trial" "$err"
    kill -USR2 $pid
    code=0
    wait $pid || code=$?
    [ $code = 75 ] || fail "exit code $code after USR2 ($how)"
done
expect 0 "$bertune" sweep asked.yaml
same one/table.csv asked/table.csv

# Two jobs share the directory.
sweep shared "$asha"
"$bertune" sweep shared.yaml >other.txt 2>&1 &
pid=$!
expect 0 "$bertune" sweep shared.yaml
wait $pid || fail "the other job: $(cat other.txt)"
same one/table.csv shared/table.csv

# Trials that diverge, that no configuration fits, and all of them.
sed 's/learning_rate:.*/learning_rate: {values: [1e-3, 900]}/; s/num_train_epochs:.*/hidden_dropout_prob: {values: [0.1]}/
     s/model.*//' one.yaml | sed 's/^name: one/name: wild/; s/^dir: one/dir: wild/' >wild.yaml
sed -i 's/  train.global_batch_size:.*/  model.path: {values: [model, nowhere]}/' wild.yaml
expect 0 "$bertune" sweep wild.yaml train.num_train_epochs=2
equal "$(grep -c ,diverged, wild/table.csv)" 1 "diverged trials"
equal "$(grep -c ,failed, wild/table.csv)" 2 "failed trials"
contains "$out" "nowhere"
sed 's/^name: wild/name: lost/; s/^dir: wild/dir: lost/; s/\[model, nowhere\]/[nowhere]/' wild.yaml >lost.yaml
expect 78 "$bertune" sweep lost.yaml train.num_train_epochs=2
contains "$err" "no trial was trained to its end"

# On the validation rows, where there are no others.
sweep plain "split: validation"
expect 0 "$bertune" sweep plain.yaml data.path=data.h5 --jobs 2
absent plain/winner
contains "$out" "best: trial "
lacks "$out" "steps:"

# Users' mistakes leave nothing behind.
expect 64 "$bertune" sweep
expect 64 "$bertune" sweep one.yaml --jobs 0
expect 64 "$bertune" sweep one.yaml --trial 12
expect 66 "$bertune" sweep nothing.yaml
expect 78 "$bertune" sweep one.yaml train.lerning_rate=1
expect 78 "$bertune" sweep pairs.yaml
contains "$err" "with mpirun -np"
expect 78 mpirun -np 3 "$bertune" sweep pairs.yaml
expect 78 "$bertune" sweep one.yaml train.seed=5
contains "$err" "holds another sweep"
expect 78 mpirun -np 2 "$bertune" sweep one.yaml train.seed=5
equal "$(grep -c "holds another sweep" "$err")" 1 "lines about another sweep"
sweep new "$asha"
expect 0 "$bertune" sweep new.yaml --dry-run
absent new
equal "$(wc -l <"$out")" 13 "lines of --dry-run"
echo '{"status": "finished"' >one/results/0000-0001.json
expect 65 "$bertune" sweep one.yaml
contains "$err" "0000-0001.json: not a result"
expect 65 mpirun -np 2 "$bertune" sweep one.yaml
contains "$err" "0000-0001.json: not a result"
none_left
