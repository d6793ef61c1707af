#!/usr/bin/env python3
"""Holds the losses of a run against those of another: losses.py RUN WANTED LIMIT [--relative] [--steps N]

RUN is a metrics.jsonl, WANTED another or a table like tests/fixtures/waimai_losses.tsv (step, loss). Prints the largest difference
of a step's loss and where it is; exit 1 if it is above LIMIT, or where a step is missing. Needs only the standard library.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))

import compare  # noqa: E402


def read(path):
    """The steps of a metrics.jsonl or of a table."""
    if path.endswith(".jsonl"):
        return compare.read_events(path, "step")
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    return [{"step": int(row[0]), "loss": float(row[1])} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("wanted")
    parser.add_argument("limit", type=float)
    parser.add_argument("--relative", action="store_true")
    parser.add_argument("--steps", type=int, default=50, help="steps that both must have (50)")
    args = parser.parse_args()
    pairs, complaints = compare.match(read(args.run), read(args.wanted), "step")
    worst, where = compare.largest(pairs, "loss", args.relative)
    print(f"{len(pairs)} steps, losses differ by up to {worst:.2g}{' relatively' if args.relative else ''} "
          f"({where or 'nowhere'}), limit {args.limit:g}")
    if len(pairs) < args.steps:
        complaints.append(f"{args.steps} steps were wanted")
    for complaint in complaints:
        print(f"losses.py: {complaint}", file=sys.stderr)
    return 0 if worst <= args.limit and not complaints else 1


if __name__ == "__main__":
    sys.exit(main())
