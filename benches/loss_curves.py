#!/usr/bin/env python3
"""Compares the losses of runs on the same batches with those of the first, step by step: a table of
means, and one plot. All runs log every step (train.log_every=1). The plot needs matplotlib.

    benches/loss_curves.py F32/metrics.jsonl BF16/metrics.jsonl AGAIN/metrics.jsonl \\
        --names f32 bf16 "f32 again" [--steps 200] [--plot FILE.svg]
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "pytorch"))
from common import fail, need, table  # noqa: E402


def losses(path, steps):
    """Loss by step, from 1."""
    hint = "give metrics.jsonl of a run, as richsem train writes it"
    try:
        lines = open(path).read().splitlines()
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}", hint)
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            fail(f"{path}, line {number}: {error}", hint)
        if not isinstance(row, dict) or row.get("kind") != "train":
            continue
        for field in ("step", "loss"):
            if not isinstance(row.get(field), (int, float)):
                fail(f"{path}, line {number}: {field}: expected a number, got {row.get(field)}", hint)
        found[row["step"]] = row["loss"]
    if not found:
        fail(f"{path}: no step is logged in it", hint)
    missing = [step for step in range(1, steps + 1) if step not in found]
    if missing:
        fail(f"{path}: {len(missing)} of {steps} steps are not logged, step {missing[0]} first",
             "--set train.log_every=1, and enough epochs")
    for step in range(1, steps + 1):
        if not (math.isfinite(found[step]) and found[step] > 0):
            fail(f"{path}: the loss of step {step}: expected a number above 0, got {found[step]}",
                 hint)
    return [found[step] for step in range(1, steps + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", metavar="METRICS", help="metrics.jsonl of each run")
    parser.add_argument("--names", nargs="+", help="of the runs, as many")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--plot", metavar="FILE", help="writes the plot (.svg, .png)")
    args = parser.parse_args()
    if args.steps < 1:
        fail(f"--steps: expected 1 or more, got {args.steps}")
    names = args.names or args.runs
    if len(args.runs) < 2 or len(names) != len(args.runs):
        fail(f"{len(args.runs)} runs and {len(names)} names: expected two runs or more, a name each")
    runs = [losses(path, args.steps) for path in args.runs]
    mean = lambda values: sum(values) / len(values)
    quarter = max(args.steps // 4, 1)
    rows = []
    for start in range(0, args.steps, quarter):
        first, *others = [run[start:start + quarter] for run in runs]
        row = [f"{start + 1}–{start + len(first)}", f"{mean(first):.3f}"]
        for other in others:
            apart = mean([abs(x - y) / x for x, y in zip(first, other)])
            row += [f"{mean(other):.3f}", f"{(mean(other) / mean(first) - 1) * 100:+.2f} %",
                    f"{apart * 100:.2f} %"]
        rows.append(row)
    headers = [header for name in names[1:] for header in (name, "means", "a step")]
    table(["<steps", names[0], *headers], rows)
    print("means: how far those of the steps differ; a step: how far one differs, on average")
    if args.plot:
        matplotlib = need("matplotlib")
        matplotlib.use("Agg")
        matplotlib.rcParams["svg.hashsalt"] = "the same plot from the same runs"
        figure, axes = need("matplotlib.pyplot").subplots(figsize=(8, 3.6), layout="constrained")
        for values, name in zip(runs, names):
            axes.plot(range(1, args.steps + 1), values, label=name, linewidth=1)
        axes.set(xlabel="training step", ylabel="loss", yscale="log")
        axes.legend()
        try:
            figure.savefig(args.plot, metadata={"Date": None} if args.plot.endswith("svg") else None)
        except (OSError, ValueError) as error:
            fail(f"--plot {args.plot}: {error}", "a file ending in .svg or .png, in a folder that exists")


if __name__ == "__main__":
    main()
