#!/usr/bin/env python3
"""PyTorch against bertune on the same GPU, the same batches and the same weights.

  race_gpu.py --data DATA.h5 --model DIR [--bertune PATH] [--batches 16,128,1024] [--rounds 3] [--steps 64] [--only NAME,...]
              [--compile MODE] [--whole] [--quick] [--device cuda] [--out race.json]

DATA.h5 is made by `bertune prepare`, DIR a Hugging Face directory with weights. Before anything is timed, the losses of the first
steps without dropout are held against the notebook's in fp32; a difference beyond its limit ends with exit 1. Then every
contestant runs its steps in every round, one at a time, in an order that changes from round to round. Loading, batching,
compiling and capturing are not timed. The contestants (the names for --only):

  notebook       transformers' own model, rows padded to 128, AdamW, loss.item() every step, fp32
  dynamic        the same, padded to the longest row of the batch
  notebook_bf16  notebook under torch.autocast(bfloat16)
  dynamic_bf16   dynamic under torch.autocast(bfloat16)
  graph          PyTorch at its best: rows packed instead of padded, torch.compile, scaled-dot-product attention, fused AdamW, a
                 whole step as one CUDA graph, nothing that waits for the GPU
  graph_tf32     the same with TF32 products
  graph_bf16     the same under torch.autocast(bfloat16)
  varlen_bf16    graph_bf16 with FlashAttention for rows of any length instead of lines of 128
  lean_bf16      varlen_bf16 with what bertune leaves out, too: words that do not occur, all but [CLS] in the last layer
  bertune        bertune bench, fp32
  bertune_tf32   the same, train.precision=tf32
  bertune_bf16   the same, train.precision=bf16

With --device cpu everything runs without CUDA graphs and FlashAttention: to test this program.
"""

import argparse
import json
import math
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.normpath(os.path.join(HERE, "..", ".."))
sys.path[:0] = [HERE, os.path.join(REPOSITORY, "tests", "reference")]

import compare  # noqa: E402
import packed  # noqa: E402

LENGTH, LEARNING_RATE, WEIGHT_DECAY = 128, 2e-5, 0.01  # the notebook's
CHECKED = 10  # steps whose losses are compared
WARM_UP = {"cuda": 64, "cpu": 10}  # untimed steps of `bertune bench`; of these the last ones are taken here
LIMITS = {"fp32": 2e-5, "tf32": 2e-3, "bf16": 2e-2}  # of losses against the notebook's
QUICK = ("notebook", "dynamic_bf16", "graph_bf16", "lean_bf16", "bertune", "bertune_bf16")
NAMES = ("notebook", "dynamic", "notebook_bf16", "dynamic_bf16", "graph", "graph_tf32", "graph_bf16", "varlen_bf16",
         "lean_bf16", "bertune", "bertune_tf32", "bertune_bf16")


class Unavailable(Exception):
    """A contestant that cannot run here, and why."""


class Failure(Exception):
    """The race cannot go on."""


def precision_of(name):
    return name.rsplit("_", 1)[1] if name.endswith(("_tf32", "_bf16")) else "fp32"


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


class Rows:
    """The training rows in the order of the split, as batches that begin again with every epoch."""

    def __init__(self, path):
        with h5py.File(path, "r") as file:
            offsets, labels = file["train/offsets"][()].tolist(), file["train/labels"][()].tolist()
            tokens, self.active = file["train/tokens"][()].tolist(), file["vocabulary/active"][()].tolist()
        self.rows = [(tokens[begin:end], label) for begin, end, label in zip(offsets, offsets[1:], labels)]

    def batches(self, size):
        """An epoch."""
        return [self.rows[first:first + size] for first in range(0, len(self.rows), size)]


def collate(rows, length=None):
    """Rows padded to length or to the longest, as a notebook's DataLoader gives them."""
    length = length or max(len(ids) for ids, _ in rows)
    return {"input_ids": torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([label for _, label in rows])}


class PyTorch:
    """What contestants in this process have in common."""

    def __init__(self, race, name):
        self.race, self.precision, self.device = race, precision_of(name), race.device

    def load_model(self, dropout):
        config = transformers.AutoConfig.from_pretrained(self.race.args.model)
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.classifier_dropout = dropout
        model = transformers.AutoModelForSequenceClassification.from_pretrained(self.race.args.model, config=config,
                                                                                dtype=torch.float32)
        return model.to(self.device).train()

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)

    def use_precision(self):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def block(self, size):
        """Seconds a step, of the same steps that bertune's bench times."""
        self.use_precision()
        warm_up, steps = self.race.warm_up, self.race.args.steps
        for step in range(warm_up - 10, warm_up):
            self.step(size, step)
        self.synchronize()
        start = time.perf_counter()
        for step in range(warm_up, warm_up + steps):
            self.step(size, step)
        self.synchronize()
        return (time.perf_counter() - start) / steps


class Eager(PyTorch):
    """The notebook's loop."""

    def __init__(self, race, name):
        super().__init__(race, name)
        length = LENGTH if name.startswith("notebook") else None
        self.batches = {size: [collate(rows, length) for rows in batches] for size, batches in race.batches.items()}

    def load(self, dropout=None):
        self.use_precision()
        self.model = self.load_model(dropout)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(self, size, step):
        batch = self.batches[size][step % len(self.batches[size])]
        batch = {key: tensor.to(self.device) for key, tensor in batch.items()}
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def losses(self, size):
        self.load(0.0)
        return [self.step(size, step) for step in range(CHECKED)]

    def prepare(self):
        self.load()


class Graph(PyTorch):
    """Whole steps as CUDA graphs, one for each shape of a batch."""

    def __init__(self, race, name):
        super().__init__(race, name)
        self.lean = name.startswith("lean")
        flat = name.startswith(("varlen", "lean"))
        self.batches, words = {}, {}
        if self.lean:
            words = {token: number for number, token in enumerate(race.rows.active)}
        for size, batches in race.batches.items():
            # About ten shapes.
            pack = packed.Flat(16 * round(math.sqrt(size)) if size > 16 else 64) if flat else packed.Bins(max(1, size // 256))
            self.batches[size] = [
                {key: tensor.to(self.device) for key, tensor in
                 pack([([words.get(token, token) for token in ids], label) for ids, label in rows], size).items()}
                for rows in batches]

    def load(self, dropout=None):
        """The initial weights and, on a GPU, the graphs of all shapes."""
        self.use_precision()
        torch.compiler.reset()
        model = self.load_model(dropout)
        if self.lean:
            packed.keep_vocabulary(model, self.race.rows.active)
        self.module = packed.PackedBert(model, self.lean).train()
        mode = self.race.args.compile
        self.loss = torch.compile(self.module, dynamic=True, mode=mode) if mode else self.module
        on_gpu = self.device == "cuda"
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True,
                                           capturable=on_gpu)
        self.result = torch.zeros((), device=self.device)
        self.graphs, self.pool = {}, None
        if on_gpu:
            self.initial = [parameter.detach().clone() for parameter in self.module.parameters()]
            for size in self.batches:
                for batch in self.batches[size]:
                    if self.shape(batch) not in self.graphs:
                        self.capture(batch)
            self.reset()

    @staticmethod
    def shape(batch):
        return tuple(tuple(tensor.shape) for tensor in batch.values())

    def compute(self, batch):
        """A step, without waiting for anything."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.loss(**batch)
        loss.backward()
        self.optimizer.step()
        self.result.copy_(loss.detach())

    def capture(self, batch):
        """Records the step for batches of this one's shape. The steps before, for the compiler, change the weights."""
        inputs = {key: tensor.clone() for key, tensor in batch.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.compute(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, pool=self.pool):
            self.compute(inputs)
        self.pool = self.pool or graph.pool()
        self.graphs[self.shape(batch)] = (graph, inputs)

    @torch.no_grad()
    def reset(self):
        """Back to the initial weights, in the same memory."""
        for parameter, initial in zip(self.module.parameters(), self.initial, strict=True):
            parameter.copy_(initial)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def step(self, size, step):
        batch = self.batches[size][step % len(self.batches[size])]
        if not self.graphs:
            return self.compute(batch)
        graph, inputs = self.graphs[self.shape(batch)]
        torch._foreach_copy_(list(inputs.values()), list(batch.values()))  # pylint: disable=protected-access
        return graph.replay()

    def losses(self, size):
        if not hasattr(self, "checking"):
            self.load(0.0)
            self.checking = True
        elif self.device == "cuda":
            self.reset()
        else:
            self.load(0.0)
        losses = []
        for step in range(CHECKED):
            self.step(size, step)
            losses.append(self.result.item())
        return losses

    def prepare(self):
        self.load()


class Bertune:
    """A program: `bertune train` for the losses, `bertune bench` for the times."""

    def __init__(self, race, name):
        self.race, self.precision = race, precision_of(name)

    def run(self, command, *settings, ranks=0):
        """The output of a run on the device, in the precision."""
        args = self.race.args
        start = ["mpirun", "-np", str(ranks)] if ranks else []
        result = subprocess.run([*shlex.split(args.launcher), *start, args.bertune, command, self.race.config, *settings,
                                 f"run.device={self.race.device}", f"train.precision={self.precision}"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.startswith("bertune")] or ["no message"]
            reason = f"exit {result.returncode}, {lines[-1]}"
            raise (Unavailable if result.returncode == 78 and "train.precision" in reason else Failure)(reason)
        return result.stdout

    def train(self, *settings, ranks=0):
        """The events of a run."""
        with tempfile.TemporaryDirectory() as work:
            self.run("train", f"run.dir={work}/run", *settings, ranks=ranks)
            with open(f"{work}/run/metrics.jsonl", encoding="utf-8") as file:
                return [json.loads(line) for line in file]

    def losses(self, size):
        events = self.train(f"train.max_steps={CHECKED}", f"train.global_batch_size={size}", "model.hidden_dropout_prob=0",
                            "model.attention_probs_dropout_prob=0")
        return [compare.number(event, "loss") for event in events if event["event"] == "step"]

    def prepare(self):
        pass

    def block(self, size):
        figures = json.loads(self.run("bench", f"train.global_batch_size={size}", "--format", "json", "--steps",
                                      str(self.race.args.steps)))
        if "tokens" in figures and abs(figures["tokens"] - self.race.work(size)["tokens"]) > 0.5:
            raise Failure(f"bertune bench takes {figures['tokens']} tokens a step, not {self.race.work(size)['tokens']}")
        return 1e-3 * figures["mean_milliseconds"]

    def whole(self):
        """Seconds of the job from start to end, and what it says of its steps."""
        start = time.perf_counter()
        events = self.train("train.global_batch_size=16", "train.num_train_epochs=3", ranks=1)
        seconds = time.perf_counter() - start
        end = next(event for event in events if event["event"] == "end")
        epochs = [event for event in events if event["event"] == "epoch"]
        return {"seconds": seconds, "steps": end["steps"], "inside": end["seconds"], "training": end["seconds_train"],
                "accuracy": epochs[-1].get("validation_accuracy") if epochs else None}


def measure_peaks(device, precisions):
    """FLOP/s of a large matrix product through PyTorch, by precision; and bytes/s of a copy, read and written."""
    size = 8192 if device == "cuda" else 1024
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def best(action, work):
        action()
        seconds = []
        for _ in range(5):
            wait()
            start = time.perf_counter()
            for _ in range(5):
                action()
            wait()
            seconds.append((time.perf_counter() - start) / 5)
        return work / min(seconds)

    peaks = {}
    for precision in precisions:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        peaks[precision] = best(lambda: left @ right, 2.0 * size ** 3)  # pylint: disable=cell-var-from-loop
    memory = torch.empty(2, 1 << (30 if device == "cuda" else 25), dtype=torch.uint8, device=device)
    return {"flops": peaks, "copy": best(lambda: memory[0].copy_(memory[1]), 2.0 * memory[0].numel())}


class Race:
    def __init__(self, args, directory):
        self.args, self.device = args, args.device
        self.warm_up = WARM_UP[args.device]
        self.rows = Rows(args.data)
        self.batches = {size: self.rows.batches(size) for size in args.batches}
        self.config = os.path.join(directory, "config.yaml")
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump({
                "model": {"path": os.path.abspath(args.model)},
                "data": {"path": os.path.abspath(args.data)},
                "train": {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "shuffle": False},
            }, file)  # JSON is YAML
        with open(os.path.join(args.model, "config.json"), encoding="utf-8") as file:
            self.model = json.load(file)
        self.results = {"arguments": {key: value for key, value in vars(args).items() if key not in (
            "data", "model", "bertune", "launcher", "out")}, "machine": self.machine(), "check": {}, "unavailable": {}, "race": {}}

    def machine(self):
        gpu = torch.cuda.get_device_properties(0) if self.device == "cuda" else None
        return {"gpu": gpu.name if gpu else "none", "multiprocessors": gpu.multi_processor_count if gpu else 0,
                "torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}

    def work(self, size):
        """Averages of the timed steps: rows, tokens, and the products of a model without padding, its last layer of [CLS]."""
        width, wide = self.model["hidden_size"], self.model["intermediate_size"]
        layers, classes = self.model["num_hidden_layers"], 2
        totals = {"rows": 0, "tokens": 0, "flop": 0.0}
        for step in range(self.warm_up, self.warm_up + self.args.steps):
            rows = self.batches[size][step % len(self.batches[size])]
            lengths = [len(ids) for ids, _ in rows]
            tokens, squares, count = sum(lengths), sum(length ** 2 for length in lengths), len(rows)
            full = 6 * tokens * (4 * width ** 2 + 2 * width * wide) + 12 * width * squares
            last = 12 * tokens * width ** 2 + 6 * count * (2 * width ** 2 + 2 * width * wide) + 12 * width * tokens
            head = 6 * count * (width ** 2 + width * classes)
            totals["rows"] += count
            totals["tokens"] += tokens
            totals["flop"] += (layers - 1) * full + last + head
        return {key: total / self.args.steps for key, total in totals.items()}

    def make(self, name):
        kind = Bertune if name.startswith("bertune") else Eager if name.startswith(("notebook", "dynamic")) else Graph
        return kind(self, name)

    def check(self):
        """The contestants whose losses are the notebook's, ready to be timed."""
        wanted = {}
        notebook = self.make("notebook")
        for size in self.args.batches:
            wanted[size] = notebook.losses(size)
        ready, wrong = {}, []
        for name in self.args.only:
            progress(f"checking {name}")
            start = time.perf_counter()
            try:
                contestant = notebook if name == "notebook" else self.make(name)
                figures = {}
                for size in self.args.batches:
                    differences = [abs(loss - right) for loss, right in zip(contestant.losses(size), wanted[size], strict=True)]
                    figures[size] = math.nan if any(map(math.isnan, differences)) else max(differences)
                contestant.prepare()
            except Failure:
                raise
            except Exception as error:  # the compiler and CUDA raise whatever they like
                if name in ("notebook", "bertune"):
                    raise
                self.results["unavailable"][name] = str(error) if isinstance(error, Unavailable) else first_line(error)
                continue
            limit = LIMITS[precision_of(name)]
            self.results["check"][name] = {"differences": figures, "limit": limit, "seconds": time.perf_counter() - start}
            ready[name] = contestant
            wrong += [name] if not all(figure <= limit for figure in figures.values()) else []
        progress()
        print_table([["contestant", *(f"batch {size}" for size in self.args.batches), "limit"],
                     *([name, *(f"{figure:.1e}" for figure in check["differences"].values()), f"{check['limit']:g}"]
                       for name, check in self.results["check"].items()),
                     *([name, f"not available: {reason}"] for name, reason in self.results["unavailable"].items())])
        if wrong:
            raise Failure(f"the losses of {', '.join(wrong)} are not the notebook's: nothing was timed")
        return ready

    def time(self, contestants, size):
        """Seconds a step of every contestant in every round."""
        shuffle, seconds = random.Random(2023), {name: [] for name in contestants}
        for number in range(self.args.rounds):
            for name in shuffle.sample(list(contestants), len(contestants)):
                progress(f"batch {size}, round {number + 1} of {self.args.rounds}: {name}")
                seconds[name].append(contestants[name].block(size))
        progress()
        return seconds

    def summarize(self, size, seconds):
        work, peaks, summary = self.work(size), self.results["peaks"]["flops"], {}
        for name, blocks in seconds.items():
            precision = precision_of(name)
            middle = statistics.median(blocks)
            rivals = [f"bertune_{precision}" if precision != "fp32" else "bertune", "bertune_bf16"]
            summary[name] = {
                "microseconds": 1e6 * middle, "range": [1e6 * min(blocks), 1e6 * max(blocks)],
                "reviews_per_second": work["rows"] / middle, "tokens_per_second": work["tokens"] / middle,
                "times_bertune": {rival: middle / statistics.median(seconds[rival]) for rival in rivals if rival in seconds},
                "share_of_peak": work["flop"] / middle / peaks[precision]}
        return {"work": work, "seconds": seconds, "summary": summary}

    def table(self, size, race):
        work = race["work"]
        print(f"batch {size}: {work['tokens']:.0f} tokens and {1e-9 * work['flop']:.2f} GFLOP a step")
        rows = [["contestant", "us a step", "range", "reviews/s", "tokens/s", "/ bertune", "/ bertune_bf16", "of peak"]]
        for name, figures in race["summary"].items():
            low, high = figures["range"]
            times = figures["times_bertune"]
            own = next((f"{times[rival]:.2f}" for rival in times if precision_of(rival) == precision_of(name)), "-")
            rows.append([name, f"{figures['microseconds']:.1f}", f"{low:.1f}-{high:.1f}", f"{figures['reviews_per_second']:.0f}",
                         f"{figures['tokens_per_second']:.0f}", own,
                         f"{times['bertune_bf16']:.2f}" if "bertune_bf16" in times else "-",
                         f"{100 * figures['share_of_peak']:.1f} %"])
        print_table(rows)

    def whole(self):
        """bertune's whole job of three epochs, start to end."""
        for name in ("bertune", "bertune_tf32", "bertune_bf16"):
            if name not in self.results["check"]:
                continue
            progress(f"whole job: {name}")
            jobs = [self.make(name).whole() for _ in range(self.args.rounds)]
            self.results.setdefault("whole", {})[name] = jobs
            progress()
            print(f"{name}: {jobs[0]['steps']} steps of three epochs with evaluations and checkpoints, start to end: "
                  f"{statistics.median(job['seconds'] for job in jobs):.2f} s (inside "
                  f"{statistics.median(job['inside'] for job in jobs):.2f} s, of this training "
                  f"{statistics.median(job['training'] for job in jobs):.2f} s)")

    def run(self):
        print("{gpu}, torch {torch}, transformers {transformers}".format(**self.results["machine"]))
        self.results["peaks"] = peaks = measure_peaks(self.device, sorted(set(map(precision_of, self.args.only))))
        print(", ".join(f"{name} {1e-12 * peak:.1f} TFLOP/s" for name, peak in peaks["flops"].items())
              + f", copy {1e-9 * peaks['copy']:.0f} GB/s, as PyTorch reaches them here\n")
        contestants = self.check()
        for size in self.args.batches:
            self.results["race"][size] = self.summarize(size, self.time(contestants, size))
            self.table(size, self.results["race"][size])
            self.write()
        print(f"Medians of {self.args.rounds} rounds of {self.args.steps} steps. `/ bertune`: the time of a step over bertune's in "
              "the same precision; `of peak`: products of unpadded rows and a last layer of [CLS], over PyTorch's peak.\n")
        if self.args.whole:
            self.whole()
        self.write()

    def write(self):
        with open(self.args.out, "w", encoding="utf-8") as file:
            json.dump(self.results, file, indent=1)
            file.write("\n")


def progress(text=""):
    """One line on a terminal that overwrites itself."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def print_table(rows):
    """Rows of cells in Markdown; a short row ends with a remark."""
    full = len(rows[0])
    widths = [max(len(row[column]) for row in rows if column == 0 or len(row) == full) for column in range(full)]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    for row in [rows[0], rule, *rows[1:]]:
        print(f"| {' | '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])} |")
    print(flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="made by bertune prepare")
    parser.add_argument("--model", required=True, help="Hugging Face directory: config.json, model.safetensors")
    parser.add_argument("--bertune", default=os.path.join(REPOSITORY, "build", "release", "bertune"))
    parser.add_argument("--launcher", default="", help="command in front of bertune's: with.sh of a bundle")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batches", default="16,128,1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=64, help="timed steps of a round (64)")
    parser.add_argument("--only", help="contestants, separated by commas (all)")
    parser.add_argument("--compile", default="default", help="torch.compile's mode (default, max-autotune-no-cudagraphs), or none")
    parser.add_argument("--whole", action="store_true", help="time bertune's whole job of three epochs, too")
    parser.add_argument("--quick", action="store_true", help="few contestants, 2 rounds, batches of 16; on a CPU nothing compiled")
    parser.add_argument("--out", default="race.json", help="every figure as JSON (race.json)")
    args = parser.parse_args()
    args.only = args.only.split(",") if args.only else list(QUICK if args.quick else NAMES)
    if not set(args.only) <= set(NAMES):
        parser.error(f"--only takes names among {', '.join(NAMES)}")
    if args.quick:
        args.rounds, args.batches = 2, "16"
        if args.device == "cpu":
            args.steps, args.compile = 4, "none"
    args.batches = [int(size) for size in args.batches.split(",")]
    args.compile = None if args.compile == "none" else args.compile
    if min(args.rounds, args.steps, *args.batches) < 1:
        parser.error("--rounds, --steps and --batches are at least 1")
    return args


def main():
    args = parse_arguments()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(2023)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        return 77
    try:
        with tempfile.TemporaryDirectory(prefix="race-") as directory:
            Race(args, directory).run()
    except (Failure, OSError) as error:
        progress()
        print(f"race_gpu.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
