#!/usr/bin/env python3
"""The kill test of tests/cli/kills.sh on Hugging Face's Trainer: a tiny BERT on the CPU, 90 steps with dropout, a
checkpoint every 4 steps of which 2 are kept, kill -9 at random moments outside and inside a save, and
trainer.train(resume_from_checkpoint=True).

    python3 tests/faults/hf_trainer.py [--kills 20] [--seed 1]

Needs torch, transformers and accelerate. Nothing of the project is needed or tested."""

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

STEPS, EVERY, ROWS, BATCH = 90, 4, 240, 16


class Rows(torch.utils.data.Dataset):
    """Rows of random tokens; the label is whether a certain token occurs."""

    def __init__(self):
        draw = random.Random(7)
        self.rows = [[draw.randrange(5, 200) for _ in range(24)] for _ in range(ROWS)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return {
            "input_ids": torch.tensor(row),
            "attention_mask": torch.ones(len(row), dtype=torch.long),
            "labels": torch.tensor(int(any(token < 15 for token in row))),
        }


def train(directory, resume):
    """In a process of its own: trains to the end and writes a hash of the weights."""
    transformers.set_seed(1)
    config = BertConfig(vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)
    arguments = TrainingArguments(
        output_dir=str(directory), num_train_epochs=STEPS * BATCH // ROWS, per_device_train_batch_size=BATCH,
        learning_rate=5e-4, save_strategy="steps", save_steps=EVERY, save_total_limit=2, seed=1, use_cpu=True,
        report_to=[], logging_strategy="no", disable_tqdm=True)
    trainer = Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=Rows())
    trainer.train(resume_from_checkpoint=resume)
    digest = hashlib.sha256()
    for name, value in sorted(trainer.model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    (directory / "digest").write_text(digest.hexdigest())


def start(directory, resume):
    """A child that trains; it exits 0, or 1 with the exception in the file `exception`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        train(directory, resume)
        code = 0
    except BaseException as error:  # pylint: disable=broad-exception-caught
        (directory / "exception").write_text(f"{type(error).__name__}: {error}")
    os._exit(code)


def finish(directory):
    """Resumes to the end; gives the hash, or the exception."""
    (directory / "exception").unlink(missing_ok=True)
    _, status = os.waitpid(start(directory, True), 0)
    if status == 0:
        return (directory / "digest").read_text(), None
    exception = directory / "exception"
    return None, exception.read_text() if exception.exists() else f"status {status}"


def checkpoints(directory):
    return sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def contents(path):
    return {file.name: file.stat().st_size for file in path.iterdir()} if path.exists() else {}


def complete(path, whole):
    """Whether a checkpoint has the files of the undisturbed run's, of their sizes (those of JSON vary a little)."""
    found = contents(path)
    return found.keys() == whole.keys() and all(
        found[name] == size or (name.endswith(".json") and found[name]) for name, size in whole.items())


def ended(child):
    return os.waitpid(child, os.WNOHANG)[0] == child


def kill_once(directory, inside, whole, seconds, draw):
    """Kills a run; True when it was hit as wanted, with at least one complete checkpoint before."""
    child = start(directory, False)
    if inside:
        goal = draw.randrange(2, STEPS // EVERY)
        while not ended_or(child, lambda: (directory / f"checkpoint-{EVERY * goal}").exists()):
            time.sleep(0.0005)
        time.sleep(draw.random() * 0.004)
    else:
        while not ended_or(child, lambda: complete(directory / f"checkpoint-{EVERY}", whole)):
            time.sleep(0.001)
        time.sleep(draw.random() * seconds)
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return False
    found = checkpoints(directory)
    return bool(found) and not (directory / "digest").exists() and complete(found[-1], whole) != inside


def ended_or(child, condition):
    return condition() or ended(child)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind [20]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="hf-trainer-"))
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, seed {options.seed}", flush=True)
    try:
        begun = time.time()
        (root / "whole").mkdir()
        if os.waitpid(start(root / "whole", False), 0)[1]:
            sys.exit((root / "whole" / "exception").read_text())
        seconds = time.time() - begun
        digest = (root / "whole" / "digest").read_text()
        whole = contents(checkpoints(root / "whole")[-1])
        (root / "again").mkdir()
        os.waitpid(start(root / "again", False), 0)
        print(f"two undisturbed runs equal: {(root / 'again' / 'digest').read_text() == digest}; "
              f"files of a checkpoint: {', '.join(sorted(whole))}", flush=True)
        for inside in (False, True):
            results, errors, repaired, hits, tries = Counter(), Counter(), Counter(), 0, 0
            while hits < options.kills and tries < 20 * options.kills:
                tries += 1
                directory = root / "run"
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                if not kill_once(directory, inside, whole, seconds, draw):
                    continue
                hits += 1
                found, exception = finish(directory)
                results["crash" if exception else "equal" if found == digest else "differs"] += 1
                if exception:
                    errors[exception.split(str(directory))[0][:90]] += 1
                    shutil.rmtree(checkpoints(directory)[-1])  # by hand
                    found, exception = finish(directory)
                    repaired["crash" if exception else "equal" if found == digest else "differs"] += 1
            print(f"kill -9 {'inside' if inside else 'outside'} a save: {hits} kills, resume: {dict(results)}")
            for text, count in errors.most_common():
                print(f"    {count} x {text}")
            if repaired:
                print(f"    after removing the newest checkpoint by hand: {dict(repaired)}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
