#!/usr/bin/env python3
"""The table of a run of run.sh and its summary.json: summary.py OUT_DIR COMMAND <names of the steps"""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys


def first_line(*command):
    """What a program says first, or why it cannot."""
    if not shutil.which(command[0]):
        return f"no {command[0]}"
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return (result.stdout or result.stderr).strip().splitlines()[0] if result.stdout or result.stderr else ""


def read(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def remark(log, status):
    """The notes of a step, and what ended it."""
    notes = re.findall(r"^note: (.+)$", log, re.MULTILINE)
    if status == "ok":
        return "; ".join(notes)
    lines = [line for line in log.splitlines() if re.search("[a-z]", line) and not line.startswith("note: ")]
    told = [line for line in lines if re.search(r"^skipped: |^bertune: (?!done|\d+ rank)|rror|ERROR|FAILED|fatal", line)]
    return "; ".join([*notes, *(line.removeprefix("skipped: ").removeprefix("bertune: ") for line in (told or lines)[-1:])])


def main():
    out, command = sys.argv[1:]
    steps = []
    for name in sys.stdin.read().split():
        result = read(os.path.join(out, f"{name}.result")).split()
        if result:
            log = read(os.path.join(out, f"{name}.log"))
            steps.append({"step": name, "status": result[0], "seconds": round(float(result[1]), 1), "exit": int(result[2]),
                          "remark": remark(log, result[0])})
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    origin = read(os.path.join(source, "..", "source.txt")) or first_line("git", "-C", source, "describe", "--always", "--dirty")
    summary = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "gpu": first_line("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
        "nvcc": next(iter(re.findall(r"release [0-9.]+, V[0-9.]+", read(os.path.join(out, "build.log")))), ""),
        "source": origin.split("\n")[:3],
        "failed": [step["step"] for step in steps if step["status"] == "failed"],
        "skipped": [step["step"] for step in steps if step["status"] == "skipped"],
        "steps": steps,
    }
    with open(os.path.join(out, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, ensure_ascii=False, indent=1)
        file.write("\n")
    width = max([len(step["step"]) for step in steps] + [4])
    print(f"{summary['date']}, {summary['gpu']}, {summary['command']}\n")
    print(f"{'step':<{width}}  {'result':<8} {'seconds':>8}  remark")
    for step in steps:
        print(f"{step['step']:<{width}}  {step['status']:<8} {step['seconds']:>8.1f}  {step['remark'][:160]}")
    counts = {status: sum(step["status"] == status for step in steps) for status in ("ok", "failed", "skipped")}
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for name in ("race", "trials"):
        table = read(os.path.join(out, f"{name}.log"))
        if "\n|" in table:
            print("\n" + table.strip())


if __name__ == "__main__":
    main()
