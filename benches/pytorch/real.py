#!/usr/bin/env python3
"""Trains on batches of as many sizes as a data set has: `richsem bench --sizes` first, then PyTorch's side
(detector.py's: transformers' Deformable DETR) on the same sequence of batches, noise of the same sizes.

    benches/pytorch/real.py --richsem target/release/richsem --sizes benches/lvis_sizes.txt

PyTorch's batches lie ready in pinned memory. Each precision and layout is tried without cuDNN's trials, the
fastest of them with trials too and, with --compile, by torch.compile with dynamic shapes; the fastest counts.
Both sides are timed on the same steps. PyTorch's warm up on those before.
"""

import time
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
    add("--json", help="writes all numbers to this file")
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


def measure(args, torch, precision, layout_name, shapes, trials=False, compiled=False):
    """Seconds of the steps behind the warm-up, and memory."""
    layout = getattr(torch, f"{layout_name}_format" if layout_name == "contiguous" else layout_name)
    cuda = args.device.type == "cuda"
    result = {"precision": precision, "layout": layout_name, "trials": trials, "compiled": compiled}
    own = SimpleNamespace(**{**vars(args), "height": 64, "width": 64})
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        work = detector.Work(own, torch, precision, layout)
        torch.backends.cudnn.benchmark = trials
        if compiled:
            work.model = torch.compile(work.model, dynamic=True)
        step = work.training()
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
        result["seconds"] = seconds
    except torch.OutOfMemoryError:
        result["seconds"] = None
    except Exception as error:  # torch.compile does not take every model
        if not compiled:
            raise
        result.update(seconds=None, problem=str(error).splitlines()[0][:200])
    if cuda:
        result["memory_mib"] = torch.cuda.max_memory_reserved() / 2**20
    return result


def main():
    args = arguments()
    torch = need("torch")
    args.device = find_device(torch, args.device)
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
    runs = [measure(args, torch, precision, layout, shapes)
            for precision in filter(None, args.precisions.split(",")) for layout in ("contiguous", "channels_last")]
    fastest = lambda: min((run for run in runs if run["seconds"]), key=lambda run: run["seconds"],
                          default=None)
    first = fastest()
    if first:
        runs.append(measure(args, torch, first["precision"], first["layout"], shapes, trials=True))
        if args.compile:
            runs.append(measure(args, torch, first["precision"], first["layout"], shapes,
                                compiled=True))
    best, own = fastest(), sum(step[3] for step in compared) / 1e3
    name = torch.cuda.get_device_name() if args.device.type == "cuda" else f"{cores()} cores"
    print(f"{args.device}: {name}; PyTorch {torch.__version__}; batch {args.batch}, sizes of "
          f"{args.sizes}; steps {args.first} to {end}\n")
    rows = []
    for run in runs:
        what = [run["precision"], run["layout"].replace("_", " ")]
        what += ["with trials"] * run["trials"] + ["compiled"] * run["compiled"]
        took = run["seconds"]
        rows.append(["PyTorch, " + ", ".join(what), number(took and images / took),
                     number(took and pixels / took / 1e6), number(run.get("memory_mib"), 0),
                     ratio(took, own)])
    rows.append(["ours", number(images / own), number(pixels / own / 1e6),
                 number(mine["real"]["memory_mib"], 0), ""])
    table(["<what", "images/s", "Mpixel/s", "MiB", "ours / it"], rows)
    for window in mine["real"]["windows"]:
        print(f"ours, steps {window['from']} to {window['to']}: "
              f"{window['images'] / window['seconds']:.1f} images/s, slow {window['slow']:.2%}")
    print(f"PyTorch's best / ours: {ratio(best and best['seconds'], own)}")
    save({"hardware": name, "torch": torch.__version__, "pytorch": runs, "richsem": mine,
          "first": args.first, "compared": args.compared}, args.json)


if __name__ == "__main__":
    main()
