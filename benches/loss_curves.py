#!/usr/bin/env python3
"""Compares the losses of two runs on the same batches, step by step: a table of means, and one plot.
Both runs log every step (train.log_every=1). The plot needs matplotlib.

    benches/loss_curves.py F32/metrics.jsonl BF16/metrics.jsonl [--steps 200] [--plot FILE.svg]
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
        if not math.isfinite(found[step]):
            fail(f"{path}: the loss of step {step} is {found[step]}")
    return [found[step] for step in range(1, steps + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs=2, metavar="METRICS", help="metrics.jsonl of each run")
    parser.add_argument("--names", nargs=2, default=["f32", "bf16"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--plot", metavar="FILE", help="writes the plot (.svg, .png)")
    args = parser.parse_args()
    if args.steps < 1:
        fail(f"--steps: expected 1 or more, got {args.steps}")
    first, second = (losses(path, args.steps) for path in args.runs)
    mean = lambda values: sum(values) / len(values)
    quarter = max(args.steps // 4, 1)
    rows = []
    for start in range(0, args.steps, quarter):
        a, b = first[start:start + quarter], second[start:start + quarter]
        apart = mean([abs(x - y) / x for x, y in zip(a, b)])
        rows.append([f"{start + 1}–{start + len(a)}", f"{mean(a):.3f}", f"{mean(b):.3f}",
                     f"{(mean(b) / mean(a) - 1) * 100:+.2f} %", f"{apart * 100:.2f} %"])
    table(["<steps", *args.names, "difference of means", "a step apart by"], rows)
    if args.plot:
        need("matplotlib").use("Agg")
        figure, axes = need("matplotlib.pyplot").subplots(figsize=(8, 3.6), layout="constrained")
        for values, name in zip((first, second), args.names):
            axes.plot(range(1, args.steps + 1), values, label=name, linewidth=1)
        axes.set(xlabel="training step", ylabel="loss", yscale="log")
        axes.legend()
        figure.savefig(args.plot, metadata={"Date": None} if args.plot.endswith("svg") else None)


if __name__ == "__main__":
    main()
