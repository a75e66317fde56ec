#!/usr/bin/env python3
"""Times PyTorch's side of the detector: transformers' Deformable DETR (two stages, box refinement,
900 queries, ResNet-50 with frozen norms, four levels, 1203 classes, feed-forward width 2048), random
weights, random images, nothing downloaded. With --richsem, `richsem bench` of the same sizes before
it, and both in one table.

    benches/pytorch/detector.py --device cuda --batch 2 --size 800x1216 --richsem target/release/richsem
    benches/pytorch/detector.py --device cpu --batch 1 --size 480x640 --only inference --steps 3 --warmup 1

A training step: upload of a u8 batch and its boxes, normalisation, forward, losses of all six layers
(with their Hungarian matching), backward, clipping of the gradient, AdamW (fused). Transformers leaves
out what DINO adds to that: denoising queries and the loss of the proposals. Inference: from a u8 batch
in host memory to the best 300 boxes in host memory. Each is timed with contiguous and with
channels-last tensors, cuDNN choosing its algorithms by trial, and the faster counts.

With --model faster_rcnn it is torchvision's Faster R-CNN instead (faster_rcnn.py): the same work, its own
losses, SGD.

Precisions: f32, PyTorch's default (TF32 in convolutions alone); tf32, in matrix products too; bf16,
autocast. Memory: what PyTorch has taken of the GPU's, and in brackets the most that lived at once.
"""

import gc
import os

from common import (command_line, cores, fail, find_device, need, number, processor, quantiles,
                    ratio, run_json, save, size, table, timed)
from work import Work


def arguments():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    add("--model", choices=["deformable_detr", "faster_rcnn"], default="deformable_detr")
    add("--batch", type=int, default=2, help="images at once")
    add("--size", default="800x1216", help="their height and width, in pixels")
    add("--boxes", type=int, default=10, help="boxes an image")
    add("--classes", type=int, default=1203)
    add("--queries", type=int, default=900, help="fewer for images of a few pixels")
    add("--steps", type=int, default=20, help="runs that are timed")
    add("--warmup", type=int, default=5, help="runs before the clock starts")
    add("--only", choices=["train", "inference"])
    add("--precisions", help="of PyTorch, as f32,tf32,bf16; all that the device has, unless given")
    add("--layout", choices=["contiguous", "channels_last"], help="only this one")
    add("--threads", type=int, help="of both sides on the CPU; all cores, unless given")
    add("--json", help="writes all numbers to this file")
    add("--richsem", help="our program, to run beside it")
    add("--config", default="configs/baseline_r50.toml", help="ours")
    add("--set", action="append", default=[], help="a setting of ours (may be given again)")
    add("--ours", help="our precisions; bf16 on CUDA, f32,bf16 on the CPU, unless given")
    args = parser.parse_args()
    args.height, args.width = size(args.size)
    return args


def work_of(model):
    """The class that works as a model does."""
    if model == "faster_rcnn":
        from faster_rcnn import FasterRcnn
        return FasterRcnn
    return Work


def measure(args, torch, what, precision, layout_name):
    cuda = args.device.type == "cuda"
    layout = getattr(torch, f"{layout_name}_format" if layout_name == "contiguous" else layout_name)
    synchronize = torch.cuda.synchronize if cuda else (lambda: None)
    gc.collect()  # modules refer to themselves: the model before this one may still be there
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        work = work_of(args.model)(args, torch, precision, layout)
        run = work.training() if what == "train" else work.inference()
        result = quantiles(timed(run, args.steps, args.warmup, synchronize))
    except torch.OutOfMemoryError:
        return {"median_ms": None, "layout": layout_name, "out_of_memory": True}
    result.update(layout=layout_name, memory_mib=None, peak_allocated_mib=None)
    if cuda:
        result["memory_mib"] = torch.cuda.max_memory_reserved() / 2**20
        result["peak_allocated_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def ours(args, wanted):
    """`richsem bench` of the same sizes, by precision."""
    results = {}
    for precision in (args.ours or ("bf16" if args.device.type == "cuda" else "f32,bf16")).split(","):
        command = [args.richsem, "bench", "-c", args.config, "--device", args.device,
                   "--batch", args.batch, "--size", args.size, "--boxes", args.boxes,
                   "--classes", args.classes, "--steps", args.steps, "--warmup", args.warmup,
                   "--set", f"train.precision={precision}"]
        for setting in args.set:
            command += ["--set", setting]
        if len(wanted) == 1:
            command += ["--only", wanted[0]]
        results[precision] = run_json(command, args.threads)
    return results


def show(args, result):
    theirs, mine = result["pytorch"], result["richsem"]
    precisions = list(dict.fromkeys(p for by in theirs.values() for p in by))
    columns = ["<what", *[f"PyTorch {p}" for p in precisions], "<ours", "ours", "PyTorch's best / ours"]
    rows, memory = [], []
    for what, by in theirs.items():
        name = {"train": "training step", "inference": "inference"}[what]
        cells = ["no memory" if by[p].get("out_of_memory") else number(by[p]["median_ms"])
                 for p in precisions]
        measured = [by[p]["median_ms"] for p in precisions if by[p]["median_ms"] is not None]
        best = min(measured, default=None)
        mib = [by[p].get("memory_mib") for p in precisions]
        held = [number(m, 0) if m is None else f"{m:.0f} ({by[p]['peak_allocated_mib']:.0f})"
                for m, p in zip(mib, precisions)]
        least = min((m for m in mib if m is not None), default=None)
        for precision, own in mine.items() or [("–", {})]:
            median = own.get(what, {}).get("median_ms")
            rows.append([f"{name}, ms", *cells, precision, number(median), ratio(best, median)])
            rate = lambda ms: None if ms is None else args.batch * 1e3 / ms
            rows.append([f"{name}, images/s",
                         *[number(rate(by[p]["median_ms"])) for p in precisions],
                         precision, number(rate(median)), ""])
            taken = own.get(what, {}).get("memory_mib")
            if least is not None:
                memory.append([f"{name}, MiB", *held, precision, number(taken, 0),
                               ratio(least, taken)])
    table(columns, rows + memory)


def main():
    args = arguments()
    torch = need("torch")
    args.device = find_device(torch, args.device)
    name = str(args.device)
    if args.device.type == "cuda":
        hardware = torch.cuda.get_device_name(args.device)
    else:
        args.threads = args.threads or cores()
        torch.set_num_threads(args.threads)
        hardware = f"{processor()}, {args.threads} threads on both sides"
    default = "f32,tf32,bf16" if args.device.type == "cuda" else "f32,bf16"
    precisions = (args.precisions or default).split(",")
    for precision in precisions:
        if precision not in ("f32", "tf32", "bf16"):
            fail(f"--precisions: expected f32, tf32, bf16, got {precision}")
    wanted = [args.only] if args.only else ["train", "inference"]
    layouts = [args.layout] if args.layout else ["contiguous", "channels_last"]
    package = {"deformable_detr": "transformers", "faster_rcnn": "torchvision"}[args.model]
    version = need(package).__version__
    print(f"{args.device}: {hardware}; PyTorch {torch.__version__}, {package} {version}\nbatch {args.batch} of {args.height}×{args.width}, "
          f"{args.boxes} boxes an image, {args.classes} classes; medians of {args.steps} after "
          f"{args.warmup} to warm up\n", flush=True)
    # Ours first: nothing of PyTorch's is on the device yet.
    mine = ours(args, wanted) if args.richsem else {}
    theirs, tried = {}, []
    for what in wanted:
        theirs[what] = {}
        for precision in precisions:
            runs = [measure(args, torch, what, precision, layout) for layout in layouts]
            tried += [{"what": what, "precision": precision, **run} for run in runs]
            theirs[what][precision] = min(runs, key=lambda r: r["median_ms"] or float("inf"))
    result = {"hardware": hardware, "torch": torch.__version__,
              package: version, "host_cores": os.cpu_count(),
              "batch": args.batch, "height": args.height, "width": args.width, "boxes": args.boxes,
              "classes": args.classes, "steps": args.steps, "warmup": args.warmup,
              "threads": args.threads, "pytorch": theirs, "tried": tried, "richsem": mine}
    show(args, result)
    for run in tried:
        print(f"# PyTorch {run['what']} {run['precision']} {run['layout']}: "
              f"{number(run['median_ms'])} ms")
    save(result, args.json)


if __name__ == "__main__":
    main()
