#!/usr/bin/env python3
"""Trials of a sweep side by side on one GPU, each a process of its own with one rank: how many trials an hour, against one after
the other? Also through the multi-process service (MPS), where nvidia-cuda-mps-control can be had.

  trials.py --bertune BERTUNE --config CONFIG.yaml --work DIR [--launcher with.sh] [--out trials.json]

First checks that trials at once end with the same bytes as alone; then trains EIGHT trials, K at a time, for K = 1, 2, 4, 8, in an
order that changes from round to round. Time is from the start of the first process to the end of the last: what a sweep sees.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

EIGHT = 8


def steps_of(directory):
    with open(os.path.join(directory, "metrics.jsonl"), encoding="utf-8") as file:
        return [event["seconds"] for event in map(json.loads, file) if event["event"] == "step"]


def hash_of(directory):
    with open(os.path.join(directory, "final", "model.safetensors"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Trials:
    def __init__(self, options):
        self.options = options
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_ess_singleton_isolated="1")

    def start(self, trial, steps):
        """Starts a trial anew; its directory and its process."""
        directory = os.path.join(self.options.work, f"trial-{trial}")
        shutil.rmtree(directory, ignore_errors=True)
        launcher = [self.options.launcher] if self.options.launcher else []
        command = [*launcher, self.options.bertune, "train", self.options.config, f"run.dir={directory}", "run.device=cuda",
                   f"train.learning_rate={1e-5 * (1 + trial)}", f"train.max_steps={steps}", "train.num_train_epochs=1000000",
                   f"run.save_steps={steps}"]
        with open(f"{directory}.log", "wb") as log:
            return directory, subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def run(self, count, at_once, steps):
        """Trains so many trials, so many at once. Seconds, seconds of a step, hashes of the results."""
        begin, waiting, running, directories = time.monotonic(), list(range(count)), [], []
        while waiting or running:
            while waiting and len(running) < at_once:
                directory, process = self.start(waiting.pop(0), steps)
                directories.append(directory)
                running.append((directory, process))
            for entry in list(running):
                if entry[1].poll() is None:
                    continue
                if entry[1].returncode != 0:
                    for _, process in running:
                        process.kill()
                    with open(f"{entry[0]}.log", encoding="utf-8", errors="replace") as file:
                        raise RuntimeError(f"a trial ended with {entry[1].returncode}: {file.read()[-600:]}")
                running.remove(entry)
            time.sleep(0.002)
        seconds = time.monotonic() - begin
        steps_taken = [statistics.median(steps_of(directory)) for directory in directories]
        return seconds, statistics.median(steps_taken), [hash_of(directory) for directory in directories]


class Mps:
    """The multi-process service, for as long as this lasts."""

    def __init__(self, trials):
        self.trials = trials

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="mps-")
        self.before = self.trials.environment
        self.trials.environment = dict(self.before, CUDA_MPS_PIPE_DIRECTORY=self.folder, CUDA_MPS_LOG_DIRECTORY=self.folder)
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=self.trials.environment, check=True, timeout=30)

    def __exit__(self, *_):
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", env=self.trials.environment, check=False, timeout=60)
        self.trials.environment = self.before
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(trials, mps, rounds, steps, at_once):
    """A row of the table for each number of trials at once."""
    times = {k: [] for k in at_once}
    step_times = {k: [] for k in at_once}
    wanted = None
    for turn in range(rounds):
        for k in at_once if turn % 2 == 0 else reversed(at_once):
            seconds, step, hashes = trials.run(EIGHT, k, steps)
            wanted = wanted or hashes
            if hashes != wanted:
                raise RuntimeError(f"with {k} at once a trial ends differently")
            times[k].append(seconds)
            step_times[k].append(step)
    return [{"at_once": k, "mps": mps, "seconds": statistics.median(times[k]), "all_seconds": times[k],
             "trials_per_hour": EIGHT * 3600 / statistics.median(times[k]),
             "step_microseconds": 1e6 * statistics.median(step_times[k])} for k in at_once]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bertune", "config", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--launcher", help="what starts bertune (with.sh)")
    parser.add_argument("--out", help="all figures as JSON")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the steps of a trial that has the GPU for itself [2]")
    parser.add_argument("--steps", type=int, help="of a trial, instead of --seconds")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    trials = Trials(options)

    _, step, alone = trials.run(EIGHT, 1, options.steps or 512)
    _, _, together = trials.run(EIGHT, EIGHT, options.steps or 512)
    if alone != together:
        sys.exit("trials.py: trials at once end differently from trials alone")
    steps = options.steps or max(512, round(options.seconds / step))
    at_once = [1, 2, 4, 8]
    rows, notes = measure(trials, False, options.rounds, steps, at_once), []
    if shutil.which("nvidia-cuda-mps-control"):
        try:
            with Mps(trials):
                rows += measure(trials, True, options.rounds, steps, at_once)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            notes.append(f"with MPS: {error}")
    else:
        notes.append("no nvidia-cuda-mps-control, so nothing through MPS")
    for row in rows:
        row["relative"] = row["trials_per_hour"] / rows[0]["trials_per_hour"]

    print(f"{EIGHT} trials of {steps} steps, {options.rounds} rounds; results have the same bytes however many run at once\n")
    print("| at once | MPS | seconds of all | trials an hour | of one after the other | us a step |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['at_once']} | {'yes' if row['mps'] else 'no'} | {row['seconds']:.2f} | {row['trials_per_hour']:.0f} "
              f"| {row['relative']:.2f} | {row['step_microseconds']:.1f} |")
    for note in notes:
        print(f"note: {note}")
    best = max(rows, key=lambda row: row["relative"])
    print(f"note: {best['at_once']} at once{' through MPS' if best['mps'] else ''}: {best['relative']:.2f} times the trials an hour")
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({"steps": steps, "trials": EIGHT, "rounds": options.rounds, "rows": rows, "notes": notes}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
