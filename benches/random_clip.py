#!/usr/bin/env python3
"""Writes a CLIP RN50 of random weights (OpenAI's keys, image tower alone) and a text table for it, to
measure training with a teacher where CLIP's own weights cannot be had. Needs PyTorch.

    benches/random_clip.py FOLDER [CLASSES]     writes FOLDER/RN50.pt and FOLDER/text.npy
"""

import struct
import sys
from pathlib import Path

import torch


def conv(state, name, norm, out, inp, kernel):
    fan = inp * kernel * kernel
    state[f"{name}.weight"] = torch.randn(out, inp, kernel, kernel) * (2 / fan) ** 0.5
    state[f"{norm}.weight"] = torch.ones(out)
    state[f"{norm}.bias"] = torch.zeros(out)
    state[f"{norm}.running_mean"] = torch.zeros(out)
    state[f"{norm}.running_var"] = torch.ones(out)


def resnet50(width=64, embed=1024, resolution=224):
    state = {"logit_scale": torch.tensor(4.6052)}
    for i, (inp, out) in enumerate([(3, width // 2), (width // 2, width // 2), (width // 2, width)]):
        conv(state, f"visual.conv{i + 1}", f"visual.bn{i + 1}", out, inp, 3)
    inp = width
    for stage, blocks in enumerate([3, 4, 6, 3]):
        planes = width << stage
        for block in range(blocks):
            at = f"visual.layer{stage + 1}.{block}"
            conv(state, f"{at}.conv1", f"{at}.bn1", planes, inp, 1)
            conv(state, f"{at}.conv2", f"{at}.bn2", planes, planes, 3)
            conv(state, f"{at}.conv3", f"{at}.bn3", planes * 4, planes, 1)
            if block == 0:
                conv(state, f"{at}.downsample.0", f"{at}.downsample.1", planes * 4, inp, 1)
            inp = planes * 4
    dim = width * 32
    state["visual.attnpool.positional_embedding"] = \
        torch.randn((resolution // 32) ** 2 + 1, dim) / dim ** 0.5
    for name, out in [("k", dim), ("q", dim), ("v", dim), ("c", embed)]:
        state[f"visual.attnpool.{name}_proj.weight"] = torch.randn(out, dim) / dim ** 0.5
        state[f"visual.attnpool.{name}_proj.bias"] = torch.zeros(out)
    return state


def main():
    folder = Path(sys.argv[1])
    classes = int(sys.argv[2]) if len(sys.argv) > 2 else 1203
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(resnet50(), folder / "RN50.pt")
    rows = torch.randn(classes, 1024)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({classes}, 1024), }}"
    header = header.ljust(117) + "\n"
    with open(folder / "text.npy", "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{rows.numel()}f", *rows.flatten().tolist()))


main()
