#!/usr/bin/env python3
"""The whole model: a checkpoint as the official code saves it, three images, and what it makes of
them, for `make parity`.

    python whole_model.py CHECKOUT FOLDER IMAGE...

Writes below FOLDER, for RichSem (`richsem`) and its baseline in DINO's layout (`dino`):

    NAME.pth                  model, optimizer's place, epoch, arguments; random weights
    NAME.in.safetensors       images, mask and tokens: what `richsem predict --tensor` reads
    NAME.free.in.safetensors  the same without tokens
    NAME.out.safetensors      pred_logits, pred_boxes; scores, labels and boxes of the best 300
    NAME.f64.safetensors      pred_logits, pred_boxes and tokens of the same in f64, and the text table
    categories.json           the classes, as an annotation file
    resized.safetensors       the normalised images one by one, for comparing decoding and resizing
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

from golden import standins


def evaluate(model, post, samples, sizes):
    topk, chosen = torch.topk, []

    def watched(x, k, *args, **kwargs):
        values = topk(x, k, *args, **kwargs)
        if k == 900 and x.dim() == 2:
            chosen.append(values[1])
        return values

    torch.topk = watched
    try:
        # Without targets, the official forward asks for an attribute that is never set; of these it
        # reads the sizes alone, for a CLIP whose answer evaluation does not use.
        inside = [{"size": torch.tensor([int((~m[:, 0]).sum()), int((~m[0]).sum())])}
                  for m in samples.mask]
        with torch.no_grad():
            outputs = model(samples, inside)
            return outputs, chosen[0], post(outputs, sizes)
    finally:
        torch.topk = topk


def write(name, folder, samples, sizes):
    from golden import full, small

    print(f"{name}: building", flush=True)
    model, post = full.build(language=name == "richsem", seed=1)
    args = argparse.Namespace(config_file=f"config/{name}.py", lr=1e-4, num_classes=13)
    checkpoint = {"model": model.state_dict(), "epoch": 0, "args": args}
    torch.save(checkpoint, folder / f"{name}.pth")
    print(f"{name}: {(folder / f'{name}.pth').stat().st_size / 1e6:.0f} MB; running", flush=True)
    outputs, tokens, found = evaluate(model, post, samples, sizes)
    tensors = {"images": samples.tensors, "mask": samples.mask}
    save_file(tensors, folder / f"{name}.free.in.safetensors")
    save_file({**tensors, "tokens": tokens.contiguous()}, folder / f"{name}.in.safetensors")
    best = {key: torch.stack([result[key] for result in found]) for key in found[0]}
    kept = {"pred_logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"],
            "sizes": sizes, **best}
    save_file({k: v.contiguous() for k, v in kept.items()}, folder / f"{name}.out.safetensors")
    print(f"{name}: running in f64", flush=True)
    small.in_double(model)
    try:
        wide = type(samples)(samples.tensors.double(), samples.mask)
        outputs, tokens, _ = evaluate(model, post, wide, sizes)
    finally:
        small.in_single()
    kept = {"pred_logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"],
            "tokens": tokens}
    if name == "richsem":
        kept["text"] = model.class_embed.text_embed
    save_file({k: v.contiguous() for k, v in kept.items()}, folder / f"{name}.f64.safetensors")


def main():
    if len(sys.argv) < 4 or not (Path(sys.argv[1]) / "models/richsem").is_dir():
        sys.exit("usage: whole_model.py CHECKOUT FOLDER IMAGE...")
    warnings.filterwarnings("ignore")
    standins.install(Path(sys.argv[1]).resolve())
    from golden import full

    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    paths = sys.argv[3:]
    samples, sizes = full.batch(paths)
    alone = {Path(path).name: full.read_image(path)[0].contiguous() for path in paths}
    save_file(alone, folder / "resized.safetensors")
    rows = [{"id": c["id"], "name": c["name"], "image_count": c["image_count"]}
            for c in full.categories().values()]
    # An annotation file without images is refused: this one has one, with one box.
    image = {"id": 1, "file_name": "none.jpg", "width": 10, "height": 10}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    annotated = {"images": [image], "annotations": [box], "categories": rows}
    (folder / "categories.json").write_text(json.dumps(annotated))
    for name in ("richsem", "dino"):
        write(name, folder, samples, sizes)


main()
