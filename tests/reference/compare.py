#!/usr/bin/env python3
"""Compares a bertune run with the reference: compare.py METRICS.jsonl LOSSES.json [limits]

METRICS.jsonl is the run's, LOSSES.json comes from `reference.py train` on the same weights, rows and settings. Prints the
largest differences and exits 1 if one exceeds its limit, if a step or epoch of the reference is missing, or if one occurs twice.
A figure that is not a number (null) or absent fails too. Learning rates must agree to a millionth; gradient norms are shown
without a limit. Further steps and epochs of the run are ignored. Needs only the standard library.
"""

import argparse
import json
import math
import sys


def read_events(path, kind):
    """The events of one kind in a metrics.jsonl, in order."""
    with open(path, encoding="utf-8") as file:
        return [event for event in map(json.loads, file) if event["event"] == kind]


def number(event, key):
    """A figure of an event; null and absent count as not a number."""
    value = event.get(key)
    return math.nan if value is None else value


def largest(pairs, key, relative=False):
    """The largest difference of one figure over pairs of (ours, reference): (difference, where); not a number wins."""
    worst, where = 0.0, ""
    for ours, reference in pairs:
        difference = abs(number(ours, key) - reference[key]) / (max(abs(reference[key]), 1e-12) if relative else 1.0)
        if math.isnan(difference) or difference > worst:
            worst, where = difference, f"step {reference['step']}" if "step" in reference else f"epoch {reference['epoch']}"
        if math.isnan(difference):
            break
    return worst, where


def match(ours, reference, key):
    """Pairs of (ours, reference) with the same key, and a list of complaints about those that have no or several partners."""
    found, complaints = {}, []
    for event in ours:
        if event[key] in found:
            complaints.append(f"{key} {event[key]} occurs twice")
        found[event[key]] = event
    missing = [event[key] for event in reference if event[key] not in found]
    if missing:
        complaints.append(f"{len(missing)} of {len(reference)} {key}s are missing, the first is {missing[0]}")
    return [(found[event[key]], event) for event in reference if event[key] in found], complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics")
    parser.add_argument("losses")
    parser.add_argument("--first", type=int, default=50, help="steps that --tolerance-first holds for (50)")
    parser.add_argument("--tolerance-first", type=float, default=5e-6, help="of the first steps' losses (5e-6)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the later steps' losses (1e-4)")
    parser.add_argument("--tolerance-epoch", type=float, default=2e-5, help="of the epochs' figures (2e-5)")
    args = parser.parse_args()

    with open(args.losses, encoding="utf-8") as file:
        reference = json.load(file)
    steps, complaints = match(read_events(args.metrics, "step"), reference["steps"], "step")
    epochs, more = match(read_events(args.metrics, "epoch"), reference["epochs"], "epoch")
    complaints += more
    first = [pair for pair in steps if pair[1]["step"] <= args.first]
    later = [pair for pair in steps if pair[1]["step"] > args.first]

    table = [(f"loss, steps 1 to {args.first}", len(first), *largest(first, "loss"), args.tolerance_first),
             ("loss, later steps", len(later), *largest(later, "loss"), args.tolerance),
             ("learning_rate (relative)", len(steps), *largest(steps, "learning_rate", True), 1e-6),
             ("grad_norm (relative)", len(steps), *largest(steps, "grad_norm", True), None)]
    table += [(key, len(epochs), *largest(epochs, key), args.tolerance_epoch)
              for key in ("train_loss", "validation_loss", "validation_accuracy", "accuracy")]
    print(f"{'figure':<26}{'compared':>9}{'difference':>12}{'limit':>10}  at")
    for name, count, worst, where, limit in table:
        bad = limit is not None and not worst <= limit
        complaints += [f"{name}: {worst:.3g} exceeds {limit:g}"] if bad else []
        shown = "-" if limit is None else f"{limit:g}"
        print(f"{name:<26}{count:>9}{worst:>12.3g}{shown:>10}  {where}{'  EXCEEDED' if bad else ''}")
    for complaint in complaints:
        print("compare.py: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
