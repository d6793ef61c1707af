#!/usr/bin/env python3
"""PyTorch against bertune on the same cores, the same batches and the same weights.

  race.py --csv REVIEWS.csv --model DIR [--bertune PATH] [--threads 2] [--rounds 5] [--steps 20] [--only NAME,...]
          [--whole] [--markdown] [--out results.json]

Before anything is timed, the losses of the first steps without dropout are held against the notebook's; a difference beyond its
limit ends with exit 1. Then every contestant runs its steps in every round, one at a time, in an order that changes from round to
round. Loading, tokenizing, batching and compiling are not timed. The contestants (the names for --only):

  notebook            the original loop: rows padded to 128, batch 16, AdamW, fp32
  dynamic             the same, padded to the longest row of the batch
  bf16                dynamic under torch.autocast(bfloat16)
  compiled            PyTorch at its best: rows packed instead of padded, torch.compile, sdpa attention, fused AdamW
  compiled_bf16       the same under torch.autocast(bfloat16)
  bertune             one process with all the threads
  bertune_ranks       as many MPI ranks as threads, one thread each
  bertune_bf16        one process, train.precision=bf16
  bertune_bf16_ranks  MPI ranks, train.precision=bf16
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles

import torch
import transformers
from sklearn.model_selection import train_test_split

REPOSITORY = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(REPOSITORY, "tests", "reference"))

import compare  # noqa: E402
import reference  # noqa: E402

BATCH, LENGTH, LEARNING_RATE, WEIGHT_DECAY = 16, 128, 2e-5, 0.01  # the notebook's
CHECKED = 10  # steps whose losses are compared
WARM_UP = 3  # untimed steps at the start of every block
NAMES = ("notebook", "dynamic", "bf16", "compiled", "compiled_bf16",
         "bertune", "bertune_ranks", "bertune_bf16", "bertune_bf16_ranks")
BASES = ("notebook", "dynamic")  # what the others are compared with


class Unavailable(Exception):
    """A contestant that cannot run here, and why."""


class Failure(Exception):
    """The race cannot go on."""


def pack(rows):
    """A batch with next to no padding: rows end to end in lines as long as the longest row, kept apart by the mask."""
    length, lines = max(len(ids) for ids, _ in rows), []
    for row in sorted(rows, key=lambda row: -len(row[0])):
        line = next((line for line in lines if sum(len(ids) for ids, _ in line) + len(row[0]) <= length), None)
        if line is None:
            lines.append(line := [])
        line.append(row)
    tokens, positions, owners = torch.zeros(3, len(lines), length, dtype=torch.long)
    for number, line in enumerate(lines):
        at = 0
        for owner, (ids, _) in enumerate(line, 1):
            place = (number, slice(at, at := at + len(ids)))
            tokens[place], positions[place], owners[place] = torch.tensor(ids), torch.arange(len(ids)), owner
    return {
        "input_ids": tokens,
        "position_ids": positions,
        "attention_mask": (owners[:, :, None] == owners[:, None, :])[:, None],
        "first": torch.nonzero((positions == 0) & (owners > 0)).T.contiguous(),
        "labels": torch.tensor([label for line in lines for _, label in line]),
    }


def padded_loss(model, batch):
    return model(**batch).loss


def packed_loss(model, batch):
    """BertForSequenceClassification's loss, with the [CLS] states picked from wherever they are packed."""
    states = model.bert(**{key: batch[key] for key in ("input_ids", "position_ids", "attention_mask")}).last_hidden_state
    pooled = model.bert.pooler(states[batch["first"][0], batch["first"][1]][:, None])
    return torch.nn.functional.cross_entropy(model.classifier(model.dropout(pooled)), batch["labels"])


class PyTorch:
    """A contestant in this process; between its blocks its threads sleep."""

    def __init__(self, directory, batches, bf16=False, compiled=False):
        self.directory, self.batches, self.bf16, self.compiled = directory, batches, bf16, compiled

    def load(self, dropout=None):
        """Takes up the initial weights, and compiles if it does."""
        self.model = reference.load_model(self.directory, dropout).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
                                           fused=self.compiled or None)
        self.loss = padded_loss
        if self.compiled:  # fallback_random: dropout masks from PyTorch's generator, faster on CPUs than the compiler's
            self.loss = torch.compile(packed_loss, dynamic=True, options={"fallback_random": True})

    def step(self, batch):
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.model, batch)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def run(self, batches, dropout=None):
        self.load(dropout)
        try:
            return [self.step(batch) for batch in batches]
        except Exception as error:  # the compiler raises whatever it likes
            if not self.compiled:
                raise
            raise Unavailable(f"torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0]}") from error

    def losses(self):
        """The losses of the first steps without dropout."""
        return self.run(self.batches[:CHECKED], dropout=0.0)

    def prepare(self):
        """Everything that is not timed: weights with dropout again, and every shape once."""
        self.run(self.batches)

    def block(self):
        """The seconds of each timed step."""
        seconds = []
        for batch in self.batches:
            start = time.perf_counter()
            self.step(batch)
            seconds.append(time.perf_counter() - start)
        return seconds[WARM_UP:]


class Bertune:
    """A contestant that is a program: every block is a run of `bertune train`, timed by its own metrics."""

    def __init__(self, binary, config, steps, ranks, threads, precision):
        self.binary, self.config, self.steps, self.precision = binary, config, steps, precision
        self.launcher = ["mpirun", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(threads),
                                OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def train(self, steps, *settings, watch=None):
        """Trains from the initial weights: the step events. watch is called with the metrics' path and the process."""
        if self.launcher and not shutil.which(self.launcher[0]):
            raise Unavailable("mpirun is not installed")
        with tempfile.TemporaryDirectory(dir=os.path.dirname(self.config)) as work:
            metrics, messages = os.path.join(work, "run", "metrics.jsonl"), os.path.join(work, "messages")
            command = [*self.launcher, self.binary, "train", self.config, f"run.dir={work}/run", "run.device=cpu",
                       f"train.max_steps={steps}", f"train.precision={self.precision}", *settings]
            with open(messages, "w", encoding="utf-8") as stderr:
                process = subprocess.Popen(command, env=self.environment, start_new_session=True,
                                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
            try:
                if watch:
                    watch(metrics, process)
                process.wait()
            except BaseException:  # Ctrl-C reaches this process alone: told twice, mpirun abandons its ranks
                process.terminate()
                process.wait()
                raise
            if process.returncode:
                raise self.complaint(process.returncode, messages)
            return compare.read_events(metrics, "step")

    @staticmethod
    def complaint(code, messages):
        """The error behind an exit code; 78 about the precision says that this build or machine does not have it."""
        with open(messages, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.startswith("bertune:")]
        reason = f"exit {code}, {lines[-1] if lines else 'no message'}"
        return (Unavailable if code == 78 and "train.precision" in reason else Failure)(reason)

    def losses(self):
        events = self.train(CHECKED, "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0")
        return [compare.number(event, "loss") for event in events]

    def prepare(self):
        pass

    def block(self):
        return [event["seconds"] for event in self.train(self.steps)][WARM_UP:]


def progress(text=""):
    """One line on a terminal that overwrites itself."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def bertune(args, *arguments):
    """The output of a short bertune command."""
    result = subprocess.run([args.bertune, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"bertune {arguments[0]}: {result.stderr.strip()}")
    return result.stdout.strip()


def write_config(args, directory, model):
    """bertune's side of the job: the prepared data set and the configuration; its path."""
    data, config = os.path.join(directory, "data.h5"), os.path.join(directory, "config.yaml")
    bertune(args, "prepare", args.csv, "--vocab", os.path.join(model, "vocab.txt"), "--out", data, "--max-length", str(LENGTH))
    with open(config, "w", encoding="utf-8") as file:
        json.dump({
            "model": {"path": model},
            "data": {"path": data},
            "train": {"global_batch_size": BATCH, "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "shuffle": False},
        }, file)  # JSON is YAML
    return config


def make_contestants(args, directory):
    """All contestants by name, with the same initial weights and the same batches."""
    model = os.path.join(directory, "model")
    torch.manual_seed(2023)  # for the classifier, where the model comes without one
    reference.save_model(reference.load_model(args.model), os.path.join(args.model, "vocab.txt"), model)
    texts, labels = reference.read_reviews(args.csv)
    train, _ = train_test_split(list(zip(reference.tokenize(model, texts, LENGTH), labels)), **reference.SPLIT)
    steps = WARM_UP + args.steps
    if steps * BATCH > len(train):
        raise Failure(f"{steps} steps of {BATCH} rows are more than the {len(train)} training rows")
    rows = [train[first:first + BATCH] for first in range(0, steps * BATCH, BATCH)]
    padded, dynamic, packed = ([collate(batch) for batch in rows]
                               for collate in (lambda batch: reference.collate(batch, LENGTH), reference.collate, pack))
    config = write_config(args, directory, model)
    contestants = {
        "notebook": PyTorch(model, padded),
        "dynamic": PyTorch(model, dynamic),
        "bf16": PyTorch(model, dynamic, bf16=True),
        "compiled": PyTorch(model, packed, compiled=True),
        "compiled_bf16": PyTorch(model, packed, bf16=True, compiled=True),
    }
    for precision, suffix in (("fp32", ""), ("bf16", "_bf16")):
        contestants[f"bertune{suffix}"] = Bertune(args.bertune, config, steps, 1, args.threads, precision)
        contestants[f"bertune{suffix}_ranks"] = Bertune(args.bertune, config, steps, args.threads, 1, precision)
    return contestants


def limit_of(name):
    """How far a contestant's losses may be from the notebook's."""
    return 0.02 if "bf16" in name else 1e-6 if name.startswith("bertune") else 1e-5


def check(notebook, contestants):
    """Compares losses, and prepares: (figures by name, reasons of those that are unavailable)."""
    figures, reasons = {}, {}
    progress("check: the notebook's losses")
    wanted = [{"step": step, "loss": loss} for step, loss in enumerate(notebook.losses(), 1)]
    for name, contestant in contestants.items():
        progress(f"check: {name}")
        try:
            losses = [{"loss": loss} for loss in contestant.losses()]
            contestant.prepare()
        except Unavailable as reason:
            reasons[name] = str(reason)
            continue
        worst, where = compare.largest(zip(losses, wanted, strict=True), "loss")
        figures[name] = {"difference": worst, "limit": limit_of(name), "where": where}
    return figures, reasons


def others():
    """CPU seconds that the machine has spent on everything but this program and its children that ended."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def observe(action):
    """What action returns, the seconds that it took, and the cores that other programs used meanwhile."""
    start, used = time.perf_counter(), others()
    result = action()
    seconds = time.perf_counter() - start
    return result, seconds, (others() - used) / seconds


def race(contestants, rounds):
    """The order of every round, and by name and round the seconds of the steps and the cores that others used."""
    shuffle, orders = random.Random(2023), []
    seconds, disturbance = ({name: [] for name in contestants} for _ in range(2))
    for number in range(rounds):
        orders.append(shuffle.sample(list(contestants), len(contestants)))
        for name in orders[-1]:
            progress(f"round {number + 1} of {rounds}: {name}")
            block, _, cores = observe(contestants[name].block)
            seconds[name].append(block)
            disturbance[name].append(cores)
    return {"orders": orders, "seconds": seconds, "disturbance": disturbance}


def ratios(seconds, name, base):
    """How many times faster name is than base: of all steps' medians, and the median and range over the rounds."""
    rounds = [median(slow) / median(fast) for slow, fast in zip(seconds[base], seconds[name], strict=True)]
    return {"all": median(sum(seconds[base], [])) / median(sum(seconds[name], [])),
            "rounds": rounds, "median": median(rounds), "min": min(rounds), "max": max(rounds)}


def summarize(seconds):
    """Per contestant: milliseconds of a step over all rounds, and the ratios to the two plain PyTorch loops that ran."""
    summary = {}
    for name, rounds in seconds.items():
        steps = [1e3 * second for block in rounds for second in block]
        low, middle, high = quantiles(steps, n=4)
        summary[name] = {"steps": len(steps), "median": middle, "min": min(steps), "quartiles": [low, high],
                         "faster_than": {base: ratios(seconds, name, base) for base in BASES if base in seconds}}
    return summary


def has_step(metrics):
    """Whether a step's line is complete in a metrics.jsonl that is being written."""
    try:
        with open(metrics, encoding="utf-8") as file:
            return any(json.loads(line)["event"] == "step" for line in file if line.endswith("\n"))
    except FileNotFoundError:
        return False


def first_step(contestant):
    """Seconds from the start of the process to step 1's line in its metrics."""
    def watch(metrics, process):
        while process.poll() is None and not has_step(metrics):
            time.sleep(0.005)
        seen.append(time.perf_counter())

    seen, start = [], time.perf_counter()
    contestant.train(1, watch=watch)
    return seen[0] - start


def whole_job(contestant, rounds):
    """Start-up, rounds times, and once the whole job: three epochs with evaluations and checkpoints."""
    waits = []
    for number in range(rounds):
        progress(f"start to first step: {number + 1} of {rounds}")
        waits.append(first_step(contestant))
    progress("whole job")
    steps, seconds, cores = observe(lambda: contestant.train(0, "train.num_train_epochs=3"))
    return {"steps": len(steps), "seconds": seconds, "disturbance": cores, "first_step": waits}


def print_table(rows, markdown):
    """Rows of cells under a heading, names to the left and figures to the right; a short row ends with a remark."""
    full = len(rows[0])
    widths = [max(len(row[column]) for row in rows if column == 0 or len(row) == full) for column in range(full)]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    for row in [rows[0], rule, *rows[1:]] if markdown else rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells))
    print(flush=True)


def check_table(figures, reasons):
    return [["contestant", "largest difference of a loss", "limit", "at"],
            *([name, f"{figure['difference']:.2g}", f"{figure['limit']:g}", figure["where"] or "-"]
              for name, figure in figures.items()),
            *([name, f"not available: {reason}"] for name, reason in reasons.items())]


def race_table(summary, reasons):
    bases = [base for base in BASES if base in summary]
    rows = [["contestant", "median ms", "min", "quartiles"]]
    for base in bases:
        rows[0] += [f"{base} /", "by round (range)"]
    for name, figure in summary.items():
        low, high = figure["quartiles"]
        rows.append([name, f"{figure['median']:.1f}", f"{figure['min']:.1f}", f"{low:.1f}-{high:.1f}"])
        for base in bases:
            ratio = figure["faster_than"][base]
            rows[-1] += [f"{ratio['all']:.2f}", f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"]
    return rows + [[name, f"not available: {reason}"] for name, reason in reasons.items()]


def machine(args):
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "threads": args.threads, "python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__, "bertune": bertune(args, "--version").splitlines()[0]}


def compete(args, directory):
    """The checks, the rounds and the tables; everything goes into the results."""
    results = {"machine": machine(args), "arguments": vars(args)}
    print("{cpu}, {threads} of {cores} cores; torch {torch}, {bertune}".format(**results["machine"]), end="\n\n")
    everybody = make_contestants(args, directory)
    contestants = {name: everybody[name] for name in args.only}
    results["check"], results["unavailable"] = figures, reasons = check(everybody["notebook"], contestants)
    progress()
    print_table(check_table(figures, reasons), args.markdown)
    wrong = [name for name, figure in figures.items() if not figure["difference"] <= figure["limit"]]
    if wrong:
        raise Failure(f"the losses of {', '.join(wrong)} are not the notebook's: nothing was timed")

    results.update(race({name: contestants[name] for name in figures}, args.rounds))
    results["summary"] = summarize(results["seconds"])
    progress()
    print(f"{args.rounds} rounds of {args.steps} steps; milliseconds a step, and how many times faster than PyTorch. Other "
          f"programs used up to {max(sum(results['disturbance'].values(), [0])):.2f} cores.\n")
    print_table(race_table(results["summary"], reasons), args.markdown)
    if args.whole:
        results["whole"] = whole = whole_job(everybody["bertune"], args.rounds)
        progress()
        print(f"bertune, start to first step: {median(whole['first_step']):.2f} s; {whole['steps']} steps of three epochs with "
              f"evaluations and checkpoints, start to end: {whole['seconds']:.1f} s. "
              f"Other programs used {whole['disturbance']:.2f} cores.")
    reference.write_json(args.out, results)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="reviews: columns review and label")
    parser.add_argument("--model", required=True, help="Hugging Face directory: config.json, vocab.txt, model.safetensors")
    parser.add_argument("--bertune", default=os.path.join(REPOSITORY, "build", "release", "bertune"))
    parser.add_argument("--threads", type=int, default=2, help="cores for every contestant (2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help=f"timed steps of a round, at least {CHECKED} (20)")
    parser.add_argument("--only", default=",".join(NAMES), help="contestants, separated by commas (all)")
    parser.add_argument("--whole", action="store_true", help="time bertune's start-up and three epochs too (minutes)")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--out", default="results.json", help="every figure as JSON (results.json)")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if not set(args.only) <= set(NAMES):
        parser.error(f"--only takes names among {', '.join(NAMES)}")
    if min(args.threads, args.rounds) < 1 or args.steps < CHECKED:
        parser.error(f"--threads and --rounds are at least 1, --steps at least {CHECKED}")
    return args


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory(prefix="race-") as directory:
            compete(args, directory)
    except (Failure, OSError) as error:
        progress()
        print(f"race.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress()
        print("race.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
