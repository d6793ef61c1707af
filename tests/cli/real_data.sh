#!/usr/bin/env bash
# waimai_10k itself, where a checkout has ../shared (else skipped): rows of the split, and the losses of BERT-mini's
# first 50 steps on two ranks against PyTorch's. bertune's own random weights make the recorded losses possible without
# shipping any: `train.learning_rate=0 train.weight_decay=0 train.max_steps=1` wrote them to final/, and
# tests/reference/reference.py train --no-shuffle --dropout 0 --lr 2e-4 --max-steps 50 went on from there.
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/lib.sh
. "$here/lib.sh"
shared=$here/../../../shared

if [ ! -e "$shared/data/waimai_10k.csv" ]; then
    echo "skipped: no $shared/data/waimai_10k.csv"
    exit 77
fi

expect 0 "$bertune" prepare "$shared/data/waimai_10k.csv" --vocab "$shared/models/bert-mini/vocab.txt" --out data.h5
contains "$out" "11987 rows (9589 training, 2398 validation), 316872 tokens"
cat >c.yaml <<YAML
model:
  path: $shared/models/bert-mini
  init: random
  hidden_dropout_prob: 0
  attention_probs_dropout_prob: 0
data:
  path: data.h5
train:
  learning_rate: 2e-4
  shuffle: false
  seed: 2023
  max_steps: 50
run:
  dir: run
YAML
train 2 0
events run step | value loss >losses
events run step | value grad_norm >norms
grep -v '^#' "$here/../fixtures/waimai_losses.tsv" | cut -f 2 >losses.wanted
grep -v '^#' "$here/../fixtures/waimai_losses.tsv" | cut -f 3 >norms.wanted
near losses losses.wanted 5e-6
near norms norms.wanted 2e-4
echo passed
