#!/usr/bin/env python3
"""Times reading, augmenting and collating a training set: a PyTorch DataLoader with Pillow doing what
our loader does by default (DETR's recipe: flip; resize to a random scale, or resize, crop, resize), and
with --richsem ours on the same files, as many threads as the DataLoader has processes.

    benches/pytorch/loader.py --annotations instances.json --images images/ --richsem target/release/richsem

Both give a padded batch of u8 pixels, a mask of the padding, boxes and labels; pixels are normalised on
the GPU. A second row has PyTorch normalise in its workers, as torchvision's and DETR's own code does.
"""

import json
import random
import time
from pathlib import Path

from common import (command_line, cores, need, number, processor, ratio, run_json, save, table)

SCALES = list(range(480, 801, 32))
LONGEST = 1333
CROP_SCALES, CROP_MIN, CROP_MAX = [400, 500, 600], 384, 600
PAD = 32


def new_size(width, height, shorter, longest):
    low, high = min(width, height), max(width, height)
    if longest is not None and high / low * shorter > longest:
        shorter = round(longest * low / high)
    longer = int(shorter * high / low)
    return (shorter, longer) if width < height else (longer, shorter)


def resize(image, boxes, shorter, longest, pil):
    width, height = new_size(*image.size, shorter, longest)
    boxes[:, 0::2] *= width / image.width
    boxes[:, 1::2] *= height / image.height
    return image.resize((width, height), pil.Resampling.BILINEAR), boxes


def crop(image, boxes, labels):
    width, height = (random.randint(min(CROP_MIN, side), min(side, CROP_MAX)) for side in image.size)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    boxes[:, 0::2] = (boxes[:, 0::2] - left).clip(0, width)
    boxes[:, 1::2] = (boxes[:, 1::2] - top).clip(0, height)
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return image, boxes[kept], labels[kept]


class Images:
    """A map-style dataset, as DataLoader wants it."""

    def __init__(self, annotations, images, normalize):
        import numpy
        import torch
        from PIL import Image

        self.numpy, self.torch, self.pil = numpy, torch, Image
        self.folder, self.normalize = Path(images), normalize
        data = json.loads(Path(annotations).read_text())
        classes = {c["id"]: i for i, c in enumerate(sorted(data["categories"], key=lambda c: c["id"]))}
        by_image = {image["id"]: [] for image in data["images"]}
        for annotation in data["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        self.items = []
        for image in data["images"]:
            found = by_image[image["id"]]
            boxes = numpy.array([a["bbox"] for a in found], numpy.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = numpy.array([classes[a["category_id"]] for a in found], numpy.int64)
            self.items.append((image["file_name"], boxes, labels))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        name, boxes, labels = self.items[index]
        boxes = boxes.copy()
        image = self.pil.open(self.folder / name).convert("RGB")
        if random.random() < 0.5:
            image = image.transpose(self.pil.Transpose.FLIP_LEFT_RIGHT)
            boxes[:, [0, 2]] = image.width - boxes[:, [2, 0]]
        if random.random() < 0.5:
            image, boxes = resize(image, boxes, random.choice(CROP_SCALES), None, self.pil)
            image, boxes, labels = crop(image, boxes, labels)
        image, boxes = resize(image, boxes, random.choice(SCALES), LONGEST, self.pil)
        width, height = image.size
        corners = boxes / self.numpy.array([width, height] * 2, self.numpy.float32)
        boxes = self.numpy.concatenate([(corners[:, :2] + corners[:, 2:]) / 2,
                                        corners[:, 2:] - corners[:, :2]], 1)
        if self.normalize:
            from torchvision.transforms import functional
            pixels = functional.normalize(functional.to_tensor(image), [0.485, 0.456, 0.406],
                                          [0.229, 0.224, 0.225])
        else:
            pixels = self.torch.from_numpy(self.numpy.array(image)).permute(2, 0, 1)
        return pixels, self.torch.from_numpy(boxes), self.torch.from_numpy(labels)


def collate(samples):
    """One padded batch, sides a multiple of 32; memory as the pixels have it (u8: channels last)."""
    import torch

    up = lambda side: -(-side // PAD) * PAD
    height = up(max(pixels.shape[1] for pixels, _, _ in samples))
    width = up(max(pixels.shape[2] for pixels, _, _ in samples))
    kind = samples[0][0].dtype
    if kind == torch.uint8:
        batch = torch.zeros((len(samples), height, width, 3), dtype=kind).permute(0, 3, 1, 2)
    else:
        batch = torch.zeros((len(samples), 3, height, width), dtype=kind)
    mask = torch.ones((len(samples), height, width), dtype=torch.bool)
    for i, (pixels, _, _) in enumerate(samples):
        batch[i, :, :pixels.shape[1], :pixels.shape[2]] = pixels
        mask[i, :pixels.shape[1], :pixels.shape[2]] = False
    return batch, mask, [(boxes, labels) for _, boxes, labels in samples]


def measure(args, torch, normalize):
    dataset = Images(args.annotations, args.images, normalize)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=args.batch, shuffle=True, drop_last=True, num_workers=args.workers,
        collate_fn=collate, persistent_workers=True, prefetch_factor=max(2, 8 // args.workers))
    speeds = []
    for number_of_pass in range(args.warmup + args.passes):
        start, images = time.perf_counter(), 0
        for batch, _, _ in loader:
            images += len(batch)
        if number_of_pass >= args.warmup:
            speeds.append(images / (time.perf_counter() - start))
    speeds.sort()
    return {"median": speeds[round((len(speeds) - 1) / 2)], "passes": speeds, "images": images}


def main():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--annotations", required=True, help="COCO or LVIS JSON")
    add("--images", required=True, help="the folder that its file names are relative to")
    add("--workers", type=int, default=0, help="of both sides; all cores, unless given")
    add("--batch", type=int, default=2, help="images of a batch")
    add("--passes", type=int, default=5, help="over the set, timed")
    add("--warmup", type=int, default=1, help="passes before the clock starts")
    add("--json", help="writes all numbers to this file")
    add("--richsem", help="our program, to run beside it")
    add("--config", default="configs/baseline_r50.toml", help="ours; its augmentation is the default")
    args = parser.parse_args()
    args.workers = args.workers or cores()
    torch, pil, _ = need("torch", "PIL", "torchvision")
    mine = None
    if args.richsem:
        mine = run_json([args.richsem, "bench", "-c", args.config, "--loader",
                         "--steps", args.passes, "--warmup", args.warmup, "--batch", args.batch,
                         "--set", f"data.workers={args.workers}",
                         "--set", f"data.train.annotations={args.annotations}",
                         "--set", f"data.train.images={args.images}"])["loader"]
    theirs = {"u8 batches, as ours": measure(args, torch, False),
              "f32 batches, normalised": measure(args, torch, True)}
    used = min(args.workers, cores())
    first = next(iter(theirs.values()))
    print(f"{processor()}; {args.workers} workers on {used} cores; PyTorch {torch.__version__}, Pillow "
          f"{pil.__version__}\n{first['images']} images a pass, batches of {args.batch}; medians of "
          f"{args.passes} passes after {args.warmup} to warm up, images/s\n")
    own = mine and mine["median"]
    table(["<PyTorch's DataLoader", "PyTorch", "ours", "ours / PyTorch", "PyTorch per core", "ours per core"],
          [[what, number(row["median"]), number(own), ratio(own, row["median"]),
            number(row["median"] / used), number(own and own / used)] for what, row in theirs.items()])
    save({"hardware": processor(), "workers": args.workers, "cores": used, "torch": torch.__version__,
          "pillow": pil.__version__, "pytorch": theirs, "richsem": mine}, args.json)


main()
