"""What the scripts beside this one share: errors that help, medians, tables, running `richsem`."""

import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def fail(problem, hint=None):
    print(f"error: {problem}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    sys.exit(2)


def need(*modules):
    """Imports them, or says how to get them."""
    found = []
    for module in modules:
        try:
            found.append(importlib.import_module(module))
        except ImportError as error:
            fail(f"{sys.executable} cannot import {module}: {error}",
                 f"{sys.executable} -m pip install -r {REQUIREMENTS}")
    return found[0] if len(found) == 1 else found


def command_line(doc):
    """A parser that tells what a script's own text tells."""
    about, details = doc.split("\n\n", 1)
    return argparse.ArgumentParser(description=about, epilog=details,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def find_device(torch, name):
    """The device of --device, made the current one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not re.fullmatch(r"cuda(:\d+)?", name):
        fail(f"--device: expected auto, cpu, cuda or cuda:N, got {name}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        fail("--device: PyTorch finds no GPU", "--device cpu")
    device = torch.device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def size(text):
    """Height and width, as 800x1216."""
    try:
        height, width = (int(side) for side in text.lower().replace("×", "x").split("x"))
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        fail(f"--size: expected height and width as 800x1216, got {text}")
    return height, width


def quantiles(times):
    """Median, and the times that a tenth of the runs were below and above: as `richsem bench`."""
    times = sorted(times)
    at = lambda share: times[round((len(times) - 1) * share)]
    return {"median_ms": at(0.5), "p10_ms": at(0.1), "p90_ms": at(0.9)}


def timed(run, steps, warmup, synchronize=lambda: None):
    """Milliseconds of each of `steps` calls."""
    for _ in range(warmup):
        run()
    synchronize()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def table(columns, rows):
    """Prints a table; columns whose name starts with `<` are flush left."""
    cells = [[c.lstrip("<") for c in columns], *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for number, row in enumerate(cells):
        line = (cell.ljust(width) if name.startswith("<") else cell.rjust(width)
                for name, cell, width in zip(columns, row, widths))
        print("  ".join(line).rstrip())
        if number == 0:
            print("─" * (sum(widths) + 2 * (len(widths) - 1)))
    print(flush=True)


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def ratio(theirs, ours):
    return "–" if theirs is None or ours is None else f"{theirs / ours:.2f}×"


def processor():
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run(command, threads=None, allowed=(0,)):
    """Runs a program of ours; its output goes to stderr, so that stdout holds the tables alone."""
    env = dict(os.environ)
    if threads:
        env.update(OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads))
    command = [str(part) for part in command]
    print("+ " + " ".join(command), file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, env=env, stdout=sys.stderr)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}",
             "build it: cargo build --release --workspace --examples, and name it")
    if done.returncode not in allowed:
        fail(f"{command[0]} ended with {done.returncode}; what it said is above")
    return done.returncode


def run_json(command, threads=None, allowed=(0,)):
    """Runs a program of ours that takes `--json FILE`, and reads that file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        run([*command, "--json", file], threads, allowed)
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError) as error:
            fail(f"{command[0]} left no result: {error}")


def save(result, file):
    """Writes a result for other programs; the file is whole or not there."""
    if file is None:
        return
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(file)
    print(f"written: {file}", file=sys.stderr)
