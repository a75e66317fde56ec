"""Runs a model on values that its parameters' names decide, in f64, and writes down what comes out.

A fixture has no weights: the tests make the same ones again. Of a map and of a gradient it has two
numbers, the dot product with a random direction and the squared norm.
"""

import contextlib
import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy
import safetensors.torch
import torch

FOLDER = Path(__file__).resolve().parents[2] / "crates/richsem/tests/fixtures/backbones"


def uniform(name, shape):
    """Numbers in [-1, 1) that the name decides: FNV-1a of the name, then SplitMix64 of each place."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) % 2**64
    count = int(numpy.prod(shape))
    with numpy.errstate(over="ignore"):
        place = numpy.arange(1, count + 1, dtype=numpy.uint64)
        x = numpy.uint64(key) + place * numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    unit = (x >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53
    return torch.from_numpy(2 * unit - 1).reshape(shape)


def value(name, shape):
    """The value of a parameter: scales of norms about 1, other vectors about 0, matrices by fan-in."""
    u = uniform(name, shape)
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.3 * u
    if len(shape) <= 1:
        return 0.2 * u
    return u * (3 / numpy.prod(shape[1:])) ** 0.5


def numbers(tensor, direction):
    r = uniform(direction, tuple(tensor.shape))
    return [float((tensor * r).sum()), float((tensor * tensor).sum())]


class AllInF64:
    """The module `torch`, but that f32 is f64."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


@contextlib.contextmanager
def f64(*modules):
    """f64 also where these modules, defaults of their functions, and `.float()` ask for f32 by name."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "torch", AllInF64()))
            for function in vars(module).values():
                defaults = getattr(function, "__defaults__", None) or ()
                if torch.float32 in defaults:
                    wide = tuple(torch.float64 if d == torch.float32 else d for d in defaults)
                    stack.enter_context(mock.patch.object(function, "__defaults__", wide))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def normed(channels_last, eps=1e-5):
    """A map as ours is whose norm has just started: norms of outputs are a detector's alone."""
    x = torch.nn.functional.layer_norm(channels_last, channels_last.shape[-1:], eps=eps)
    return x.permute(0, 3, 1, 2)


def as_saved(model):
    """The parameters of a model of transformers by the names that its files have, which since release 5 are
    others than in memory. Each is filled with a number of its own, and found again by it in a file."""
    own = {}
    with torch.no_grad():
        for i, (name, tensor) in enumerate(model.state_dict(keep_vars=True).items()):
            if tensor.is_floating_point():
                tensor.fill_(i)
                own[i] = tensor
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = safetensors.torch.load_file(Path(folder) / "model.safetensors")
    found = {name: own[int(tensor.flatten()[0])] for name, tensor in file.items()}
    assert len(found) == len(own) and all(found[n].shape == t.shape for n, t in file.items())
    return found


def write(name, settings, model, sizes, forward, saved=None, of=None, skip=()):
    """`settings` are ours, as TOML. `forward(model, images)` gives the maps. `saved` are the tensors as the
    files of this implementation have them, where the model in memory has other names (tensors of the same
    storage); default: the state dict. `of` says which model is asked; `skip` are names of no parameters."""
    model = model.double().eval()
    saved = saved or model.state_dict(keep_vars=True)
    saved = {k: v for k, v in saved.items() if v.is_floating_point() and k not in skip}
    with torch.no_grad():
        for key, tensor in saved.items():
            tensor.copy_(value(key, tuple(tensor.shape)))
    loss, cases = 0, []
    for height, width in sizes:
        images = uniform(f"images {height} {width}", (2, 3, height, width))
        maps = forward(model, images)
        for level, found in enumerate(maps):
            loss = loss + (found * uniform(f"map {level}", tuple(found.shape))).sum()
        cases.append({
            "size": [height, width],
            "maps": [
                {"shape": list(found.shape), "numbers": numbers(found.detach(), f"map {level}")}
                for level, found in enumerate(maps)
            ],
        })
    model.zero_grad()
    loss.backward()
    parameters = {}
    for key, tensor in saved.items():
        grad = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
        parameters[key] = {"shape": list(tensor.shape), "gradient": numbers(grad, f"gradient {key}")}
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"of": of, "settings": settings, "cases": cases, "parameters": parameters})
    (FOLDER / f"{name}.json").write_text(text.replace("}, ", "},\n") + "\n")
    print(f"{name}: {len(parameters)} tensors, {len(text) // 1024} KB")
