#!/usr/bin/env python3
"""The job of bertune in PyTorch and Hugging Face: the program that bertune is compared with.

  reference.py init DIR --config CONFIG.json --vocab VOCAB.txt --seed S    random weights as a Hugging Face directory
  reference.py train --model DIR --csv FILE --out LOSSES.json [...]        the notebook's loop, every step recorded
  reference.py predict --model DIR --out X.json TEXT...                    probabilities

Training is written out plainly: BertTokenizer, sklearn's train_test_split(test_size=0.2, random_state=2023), batches of 16,
torch.optim.AdamW over all parameters, cross-entropy. Batches are padded with attention mask 0; padding to the longest row and
padding to 128 differ in rounding alone. A literal [PAD] inside a review is text like any other: attended, mask 1.
compare.py holds the output of `train` against a run's metrics.jsonl; make_model_fixture.py uses the functions.
"""

import argparse
import csv
import json
import os
import shutil
import sys

import torch
from sklearn.model_selection import train_test_split
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, get_scheduler

SPLIT = {"test_size": 0.2, "random_state": 2023}


def read_reviews(path):
    """The columns review and label of a CSV file: (texts, labels)."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["review"] for row in rows], [int(row["label"]) for row in rows]


def tokenize(directory, texts, max_length):
    """Token ids of every text, [CLS] and [SEP] included, cut to max_length, not padded."""
    return BertTokenizer.from_pretrained(directory)(texts, truncation=True, max_length=max_length)["input_ids"]


def collate(rows, length=None):
    """A batch of (ids, label) as the model's inputs, padded to length or, without one, to the longest row."""
    length = length or max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([label for _, label in rows]),
    }


def load_model(directory, dropout=None):
    """The classifier in float32; dropout replaces every dropout probability of its config.json."""
    config = BertConfig.from_pretrained(directory)
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.classifier_dropout = dropout
    return BertForSequenceClassification.from_pretrained(directory, config=config, dtype=torch.float32)


def save_model(model, vocab, directory):
    """Writes a Hugging Face directory: config.json, model.safetensors, vocab.txt."""
    model.save_pretrained(directory)
    shutil.copyfile(vocab, os.path.join(directory, "vocab.txt"))


def make_optimizer(model, lr, weight_decay, scope="all"):
    """AdamW; scope no_bias_norm spares biases and LayerNorm weights from decay, as Trainer does."""
    if scope == "all":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups["bias" not in name and "LayerNorm" not in name].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}], lr=lr)


def train_step(model, optimizer, scheduler, batch, clip=0.0):
    """One optimizer step: its loss, the global gradient norm before clipping, and the learning rate it used."""
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    if clip > 0:
        norm = clip_grad_norm_(model.parameters(), clip)
    else:
        norm = get_total_norm([parameter.grad for parameter in model.parameters()])
    lr = scheduler.get_last_lr()[0]
    optimizer.step()
    scheduler.step()
    return {"loss": loss.item(), "grad_norm": norm.item(), "learning_rate": lr}


@torch.no_grad()
def evaluate(model, loader):
    """Validation figures: loss and accuracy as means of batch means, and accuracy over rows."""
    model.eval()
    losses, hits = [], []
    for batch in loader:
        output = model(**batch)
        losses.append(output.loss.item())
        hits.append((output.logits.argmax(1) == batch["labels"]).tolist())
    return {
        "validation_loss": sum(losses) / len(losses),
        "validation_accuracy": sum(sum(batch) / len(batch) for batch in hits) / len(hits),
        "accuracy": sum(map(sum, hits)) / sum(map(len, hits)),
    }


def run_init(args):
    torch.manual_seed(args.seed)
    save_model(BertForSequenceClassification(BertConfig.from_json_file(args.config)), args.vocab, args.directory)


def run_train(args):
    torch.set_num_threads(args.threads)
    model = load_model(args.model, args.dropout)
    texts, labels = read_reviews(args.csv)
    rows = list(zip(tokenize(args.model, texts, args.max_length), labels))
    train, validation = train_test_split(rows, **SPLIT)

    torch.manual_seed(args.seed)
    length = None if args.pad == "longest" else int(args.pad)
    loaders = [DataLoader(part, batch_size=args.batch, shuffle=shuffle, collate_fn=lambda batch: collate(batch, length))
               for part, shuffle in ((train, args.shuffle), (validation, False))]
    total = args.max_steps or args.epochs * len(loaders[0])
    optimizer = make_optimizer(model, args.lr, args.weight_decay, args.weight_decay_scope)
    schedule = "constant_with_warmup" if args.schedule == "constant" else args.schedule
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=args.warmup, num_training_steps=total)

    steps, epochs = [], []
    while len(steps) < total:
        first = len(steps)
        model.train()
        for batch in loaders[0]:
            steps.append({"step": len(steps) + 1, "epoch": len(epochs) + 1,
                          **train_step(model, optimizer, scheduler, batch, args.clip)})
            if len(steps) % 50 == 0:
                print(steps[-1], file=sys.stderr, flush=True)
            if len(steps) == total:
                break
        if len(steps) - first == len(loaders[0]):  # an epoch that --max-steps cut short has no figures
            mean = sum(step["loss"] for step in steps[first:]) / len(loaders[0])
            epochs.append({"epoch": len(epochs) + 1, "train_loss": mean, **evaluate(model, loaders[1])})
            print(epochs[-1], file=sys.stderr, flush=True)

    if args.save:
        save_model(model, os.path.join(args.model, "vocab.txt"), args.save)
    write_json(args.out, {"arguments": {key: value for key, value in vars(args).items() if key != "run"},
                          "train_rows": len(train), "validation_rows": len(validation), "steps": steps, "epochs": epochs})


def run_predict(args):
    model = load_model(args.model).eval()
    predictions = []
    for text, ids in zip(args.text, tokenize(args.model, args.text, args.max_length)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        predictions.append({"text": text, "probabilities": logits.softmax(0).tolist()})
    write_json(args.out, predictions)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    init = commands.add_parser("init")
    init.set_defaults(run=run_init)
    init.add_argument("directory")
    init.add_argument("--config", required=True)
    init.add_argument("--vocab", required=True)
    init.add_argument("--seed", type=int, required=True)

    train = commands.add_parser("train")
    train.set_defaults(run=run_train)
    train.add_argument("--model", required=True)
    train.add_argument("--csv", required=True)
    train.add_argument("--out", required=True)
    train.add_argument("--epochs", type=int, default=3)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--lr", type=float, default=2e-5)
    train.add_argument("--weight-decay", type=float, default=0.01)
    train.add_argument("--weight-decay-scope", choices=["all", "no_bias_norm"], default="all")
    train.add_argument("--max-steps", type=int, default=0, help="0: no limit; else it replaces --epochs")
    train.add_argument("--max-length", type=int, default=128)
    train.add_argument("--schedule", choices=["constant", "linear", "cosine"], default="constant")
    train.add_argument("--warmup", type=int, default=0)
    train.add_argument("--clip", type=float, default=0.0, help="largest gradient norm; 0: no clipping")
    train.add_argument("--dropout", type=float, help="default: config.json's")
    train.add_argument("--no-shuffle", dest="shuffle", action="store_false")
    train.add_argument("--seed", type=int, default=2023, help="of shuffling and dropout")
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--pad", default="longest", help="longest, or a length such as 128")
    train.add_argument("--save", help="directory for the trained model")

    predict = commands.add_parser("predict")
    predict.set_defaults(run=run_predict)
    predict.add_argument("--model", required=True)
    predict.add_argument("--out", required=True)
    predict.add_argument("--max-length", type=int, default=128)
    predict.add_argument("text", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    arguments.run(arguments)
