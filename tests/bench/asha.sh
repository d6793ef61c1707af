#!/usr/bin/env bash
# What successive halving saves and loses: a sweep of 24 trials of a small model, once with rungs and once with every
# trial to its end. Prints the steps of one as a part of the other's, and both winners' accuracies on the development
# rows (taken from the complete sweep, so that they compare) and on the validation rows.
# Usage: asha.sh BERTUNE CSV [JOBS]: a CSV like waimai_10k.csv; by default the sample reviews, which are too few to say much.
# shellcheck source-path=SCRIPTDIR/../cli source=../cli/lib.sh
. "$(dirname "$0")/../cli/lib.sh"
csv=$(cd "$OLDPWD" && realpath "${2:-$samples}") jobs=${3:-$(nproc)}
expect 0 "$bertune" prepare "$csv" --out data.h5 --build-vocab --vocab-out vocab.txt --dev-size 0.2
model model
sed -i 's/"hidden_size": 32/"hidden_size": 64/; s/"intermediate_size": 64/"intermediate_size": 256/
        s/"max_position_embeddings": 64/"max_position_embeddings": 128/' model/config.json
cat >c.yaml <<YAML
model: {path: model, init: random}
data: {path: data.h5}
train: {num_train_epochs: 6, lr_scheduler_type: linear, global_batch_size: 32}
YAML
for name in grid asha; do
    cat >$name.yaml <<YAML
name: $name
config: c.yaml
dir: $name
seed: 7
method: grid
parameters:
  learning_rate: {values: [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3]}
  warmup_ratio: {values: [0.0, 0.1]}
  weight_decay: {values: [0.01, 0.1]}
YAML
done
echo 'early_terminate: {type: hyperband, min_iter: 1, eta: 3}' >>asha.yaml
for name in asha grid; do LIMIT=7200 expect 0 "$bertune" sweep $name.yaml --jobs "$jobs" && cat "$out"; done

# row TABLE TRIAL: the figure of the trial whose parameters are the same, since numbers differ.
values() { awk -F, -v n="$2" 'NR > 1 && $1 == n { for (i = 5; i <= NF; i++) printf ",%s", $i }' "$1"; }
chosen=$(values asha/table.csv "$(awk -F, 'NR == 2 { print $1 }' asha/table.csv)")
echo
awk -F, -v chosen="$chosen" '
    NR > 1 { v = ""; for (i = 5; i <= NF; i++) v = v "," $i; if (NR == 2) best = $4; if (v == chosen) it = $4 }
    END { printf "best of all 24 on the development rows: %.4f; the one found with rungs: %.4f, %.2f points less\n",
          best, it, 100 * (best - it) }' grid/table.csv
none_left
