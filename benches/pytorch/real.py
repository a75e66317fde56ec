#!/usr/bin/env python3
"""Trains on batches of as many sizes as a data set has: `richsem bench --sizes` first, then PyTorch's side
(detector.py's: transformers' Deformable DETR, or with --model torchvision's Faster R-CNN) on the same sequence of batches, noise of the same sizes.

    benches/pytorch/real.py --richsem target/release/richsem --sizes benches/lvis_sizes.txt

Each precision and layout of PyTorch runs in a process of its own, and goes over the batches twice: the first time
cuDNN plans for sizes that are new (as for most in a training's first thousand steps), the second time for none.
The fastest of them runs with cuDNN's trials too and, with --compile, by torch.compile with dynamic shapes. The
fastest second time counts. PyTorch's batches lie ready in pinned memory. Ours is timed on the same steps, as they
came.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import detector
from common import (command_line, cores, fail, find_device, need, number, ratio, run_json, save,
                    table)


def arguments():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    add("--richsem", required=True, help="our program")
    add("--config", default="configs/baseline_r50.toml", help="ours")
    add("--set", action="append", default=[], help="a setting of ours (may be given again)")
    add("--sizes", required=True, help="lines of height, width and count")
    add("--mosaic", type=int, help="every other batch is of this height and width")
    add("--model", choices=["deformable_detr", "faster_rcnn"], default="deformable_detr")
    add("--batch", type=int, default=2, help="images at once")
    add("--boxes", type=int, default=10, help="boxes an image, on average")
    add("--classes", type=int, default=1203)
    add("--queries", type=int, default=900)
    add("--steps", type=int, default=1200, help="ours")
    add("--first", type=int, default=200, help="where the steps begin that both are timed on")
    add("--compared", type=int, default=40, help="and how many they are")
    add("--warmup", type=int, default=5, help="steps of PyTorch before those")
    add("--precisions", default="bf16,tf32", help="of PyTorch; empty: ours alone")
    add("--compile", action="store_true", help="tries torch.compile too")
    add("--limit", type=float, help="seconds after which one of PyTorch's is given up")
    add("--json", help="writes all numbers to this file")
    add("--variant", help="for this script itself: one of PyTorch's, as JSON")
    args = parser.parse_args()
    args.threads = None
    return args


def batches(args, torch, shapes, layout):
    """Noise of these shapes and boxes around its middle, pinned."""
    random = torch.Generator().manual_seed(0)
    pin = (lambda t: t.pin_memory()) if args.device.type == "cuda" else (lambda t: t)
    for images, height, width in shapes:
        shape = (images, 3, height, width)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        sides = torch.rand((images, args.boxes, 2), generator=random) * 0.35 + 0.05
        boxes = torch.cat([torch.full((images, args.boxes, 2), 0.5), sides], 2)
        labels = torch.randint(0, args.classes, (images, args.boxes), generator=random)
        mask = torch.ones((images, height, width), dtype=torch.bool)
        yield [pin(t) for t in (pixels.contiguous(memory_format=layout), mask, boxes, labels)]


def measure(args, torch, variant, shapes):
    """Seconds of each time over the steps behind the warm-up, and memory."""
    layout_name = variant["layout"]
    layout = getattr(torch, f"{layout_name}_format" if layout_name == "contiguous" else layout_name)
    cuda = args.device.type == "cuda"
    own = SimpleNamespace(**{**vars(args), "height": 64, "width": 64})
    result = dict(variant, seconds=None)
    try:
        work = detector.work_of(args.model)(own, torch, variant["precision"], layout)
        torch.backends.cudnn.benchmark = variant["trials"]
        if variant["compiled"]:
            work.model = torch.compile(work.model, dynamic=True)
        step = work.training()
        times = []
        for _ in range(2):
            seconds = 0.0
            for number, batch in enumerate(batches(args, torch, shapes, layout)):
                work.images, work.mask, work.boxes, work.labels = batch
                if cuda:
                    torch.cuda.synchronize()
                start = time.perf_counter()
                step()
                if cuda:
                    torch.cuda.synchronize()
                if number >= args.warmup:
                    seconds += time.perf_counter() - start
            times.append(seconds)
        result.update(first=times[0], seconds=times[1])
    except torch.OutOfMemoryError:
        result["problem"] = "no memory"
    except Exception as error:  # torch.compile does not take every model
        if not variant["compiled"]:
            raise
        result["problem"] = str(error).splitlines()[0][:200]
    if cuda:
        result["memory_mib"] = torch.cuda.max_memory_reserved() / 2**20
    return result


def in_a_process(args, shapes, **variant):
    variant = {"trials": False, "compiled": False, **variant}
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "shapes.json", Path(folder) / "result.json"
        given.write_text(json.dumps(shapes))
        command = [sys.executable, __file__, *sys.argv[1:], "--variant",
                   json.dumps({**variant, "shapes": str(given), "result": str(made)})]
        print(f"+ PyTorch {variant}", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(command, stdout=sys.stderr, timeout=args.limit)
        except subprocess.TimeoutExpired:
            result = dict(variant, seconds=None, problem=f"not done in {args.limit:.0f} s")
        else:
            if done.returncode != 0:
                fail(f"PyTorch {variant} failed; what it said is above")
            result = json.loads(made.read_text())
        print(f"  {result}", file=sys.stderr, flush=True)
        return result


def main():
    args = arguments()
    torch = need("torch")
    args.device = find_device(torch, args.device)
    if args.variant:
        variant = json.loads(args.variant)
        shapes, made = json.loads(Path(variant.pop("shapes")).read_text()), variant.pop("result")
        Path(made).write_text(json.dumps(measure(args, torch, variant, shapes)))
        return
    command = [args.richsem, "bench", "-c", args.config, "--device", args.device, "--sizes", args.sizes,
               "--batch", args.batch, "--boxes", args.boxes, "--classes", args.classes,
               "--steps", args.steps]
    if args.mosaic:
        command += ["--mosaic", args.mosaic]
    for setting in args.set:
        command += ["--set", setting]
    mine = run_json(command)
    steps = mine["real"]["steps"]
    end = args.first + args.compared
    if args.first < args.warmup or end > len(steps):
        fail(f"--first and --compared: expected steps {args.warmup} to {len(steps)}, got "
             f"{args.first} to {end}")
    shapes = [step[:3] for step in steps[args.first - args.warmup:end]]
    compared = steps[args.first:end]
    images = sum(step[0] for step in compared)
    pixels = sum(step[0] * step[1] * step[2] for step in compared)
    runs = [in_a_process(args, shapes, precision=precision, layout=layout)
            for precision in filter(None, args.precisions.split(","))
            for layout in ("contiguous", "channels_last")]
    fastest = lambda: min((run for run in runs if run["seconds"]), key=lambda run: run["seconds"],
                          default=None)
    first = fastest()
    if first:
        same = {key: first[key] for key in ("precision", "layout")}
        runs.append(in_a_process(args, shapes, trials=True, **same))
        if args.compile:
            runs.append(in_a_process(args, shapes, compiled=True, **same))
    best, own = fastest(), sum(step[3] for step in compared) / 1e3
    name = torch.cuda.get_device_name() if args.device.type == "cuda" else f"{cores()} cores"
    print(f"{args.device}: {name}; PyTorch {torch.__version__}; batch {args.batch}, sizes of "
          f"{args.sizes}; steps {args.first} to {end}\n")
    rows = []
    for run in runs:
        what = [run["precision"], run["layout"].replace("_", " ")]
        what += ["with trials"] * run["trials"] + ["compiled"] * run["compiled"]
        for time_over, took in (("sizes new", run.get("first")), ("planned", run["seconds"])):
            rows.append(["PyTorch, " + ", ".join([*what, time_over]), number(took and images / took),
                         number(took and pixels / took / 1e6), number(run.get("memory_mib"), 0),
                         ratio(took, own)])
    rows.append(["ours", number(images / own), number(pixels / own / 1e6),
                 number(mine["real"]["memory_mib"], 0), ""])
    table(["<what", "images/s", "Mpixel/s", "MiB", "ours / it"], rows)
    for window in mine["real"]["windows"]:
        print(f"ours, steps {window['from']} to {window['to']}: "
              f"{window['images'] / window['seconds']:.1f} images/s, slow {window['slow']:.2%}")
    for run in runs:
        if "problem" in run:
            print(f"PyTorch {run}")
    if best:
        print(f"PyTorch's best / ours: {ratio(best['seconds'], own)}")
    save({"hardware": name, "torch": torch.__version__, "pytorch": runs, "richsem": mine,
          "first": args.first, "compared": args.compared}, args.json)


if __name__ == "__main__":
    main()
