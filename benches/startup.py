#!/usr/bin/env python3
"""Times what a user waits for before anything happens: `richsem --help`, and `richsem predict` on one
image with a tiny detector (configs/tiny.toml, one epoch on a drawn set of 16 images, made here).
The disk is warm: each is run once before the clock starts. Needs Python's standard library alone.

    benches/startup.py target/release/richsem [--json FILE]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "pytorch"))
from common import fail, processor, quantiles, save, table  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def run(command):
    try:
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", "build it: cargo build --release, and name it")
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")


def timed(command, runs):
    run(command)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run(command)
        times.append((time.perf_counter() - start) * 1e3)
    return quantiles(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("richsem", help="our program")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", help="writes all numbers to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data, trained = folder / "synth", folder / "run"
        run([args.richsem, "synth", data, "--classes", 4, "--train-images", 16, "--val-images", 4,
             "--classification-per-class", 0])
        run([args.richsem, "train", "-c", ROOT / "configs/tiny.toml", "--device", "cpu", "--run", trained,
             "--set", f"data.train.annotations={data / 'train.json'}",
             "--set", f"data.train.images={data / 'images'}",
             "--set", "train.epochs=1", "--set", "train.lr_drop=[]", "--set", "train.eval_every=0"])
        image = sorted((data / "images").rglob("*.*"))[0]
        found = folder / "found"
        rows = {
            "richsem --help": (None, timed([args.richsem, "--help"], args.runs)),
            "richsem predict, one image, tiny detector": (1000, timed(
                [args.richsem, "predict", image, "--weights", trained, "--output", found,
                 "--device", "cpu"], args.runs)),
        }
        if not (found / "detections.json").is_file():
            fail("predict wrote no detections.json")
    print(f"{processor()}; medians of {args.runs} processes\n")
    table(["<start", "median ms", "p10 ms", "p90 ms", "at most"],
          [[name, *(f"{times[key]:.1f}" for key in ("median_ms", "p10_ms", "p90_ms")), most or "–"]
           for name, (most, times) in rows.items()])
    save({"hardware": processor(), "runs": args.runs,
          **{name: {**times, "at_most_ms": most} for name, (most, times) in rows.items()}}, args.json)


main()
