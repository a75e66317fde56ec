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


def build(args, torch, layout):
    transformers = need("transformers")
    need("scipy")  # the matching
    transformers.logging.set_verbosity_error()
    backbone = transformers.ResNetConfig(out_features=["stage2", "stage3", "stage4"])
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        num_queries=args.queries, two_stage=True, two_stage_num_proposals=args.queries,
        with_box_refine=True, num_feature_levels=4, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
        dropout=0.0, auxiliary_loss=True, num_labels=args.classes)
    torch.manual_seed(0)
    model = transformers.DeformableDetrForObjectDetection(config)
    # As our detector and the paper: stem and first stage stay, the others learn. (Transformers looks
    # for timm's names of them, and would freeze a ResNet of its own altogether.)
    learned = 0
    for name, parameter in model.model.backbone.model.named_parameters():
        parameter.requires_grad_(any(f"stages.{stage}." in name for stage in (1, 2, 3)))
        learned += parameter.requires_grad
    assert learned == 3 * (4 + 6 + 3) + 3, f"the layout of transformers' ResNet has changed: {learned}"
    return model.to(args.device).to(memory_format=layout)


class Work:
    """One model and the batch it works on."""

    def __init__(self, args, torch, precision, layout):
        self.torch, self.args, self.layout = torch, args, layout
        self.cuda = args.device.type == "cuda"
        tf32 = precision != "f32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        self.autocast = lambda: torch.autocast(args.device.type, torch.bfloat16,
                                               enabled=precision == "bf16")
        self.model = self.build()
        random = torch.Generator().manual_seed(0)
        shape = (args.batch, 3, args.height, args.width)
        pin = (lambda t: t.pin_memory()) if self.cuda else (lambda t: t)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        self.images = pin(images.contiguous(memory_format=layout))
        self.mask = pin(torch.ones((args.batch, args.height, args.width), dtype=torch.bool))
        middle = torch.full((args.batch, args.boxes, 2), 0.5)
        sides = torch.rand((args.batch, args.boxes, 2), generator=random) * 0.35 + 0.05
        self.boxes = pin(torch.cat([middle, sides], 2))
        self.labels = pin(torch.randint(0, args.classes, (args.batch, args.boxes), generator=random))
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=args.device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=args.device).view(1, 3, 1, 1)

    def build(self):
        return build(self.args, self.torch, self.layout)

    def upload(self, tensor):
        return tensor.to(self.args.device, non_blocking=True)

    def input(self):
        mask = self.upload(self.mask)
        images = self.upload(self.images).float().div_(255).sub_(self.mean).div_(self.std)
        return images.masked_fill_(~mask[:, None], 0), mask

    def training(self):
        torch, model = self.torch, self.model.train()
        learned = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        groups = [{"params": [p for n, p in learned if ("backbone" in n) == backbone], "lr": lr}
                  for backbone, lr in ((False, 1e-10), (True, 1e-11))]
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)
        parameters = [p for _, p in learned]

        def step():
            images, mask = self.input()
            boxes, labels = self.upload(self.boxes), self.upload(self.labels)
            targets = [{"boxes": b, "class_labels": c} for b, c in zip(boxes, labels)]
            with self.autocast():
                loss = model(pixel_values=images, pixel_mask=mask, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            # As any training reads it; last, so that nothing waits for it.
            if not loss.item() < float("inf"):
                fail(f"PyTorch's loss is {loss.item()}")

        return step

    def inference(self):
        torch, model, args = self.torch, self.model.eval(), self.args
        scale = torch.tensor([args.width, args.height] * 2, device=args.device)
        most = min(300, args.queries * args.classes)

        def detect():
            with torch.inference_mode(), self.autocast():
                images, mask = self.input()
                output = model(pixel_values=images, pixel_mask=mask)
                scores, best = output.logits.float().sigmoid().flatten(1).topk(most, dim=1)
                query, label = best // args.classes, best % args.classes
                center, sides = output.pred_boxes.float().chunk(2, dim=-1)
                corners = torch.cat([center - sides / 2, center + sides / 2], -1) * scale
                boxes = corners.gather(1, query[..., None].expand(-1, -1, 4))
                # One transfer.
                found = torch.cat([boxes, scores[..., None], label[..., None].float()], -1)
                return found.cpu()

        return detect


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
