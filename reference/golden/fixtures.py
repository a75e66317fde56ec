"""Names as this project has them, and files."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parents[2] / "crates/richsem/tests/fixtures/golden"


def own_name(name):
    """The name of a parameter or buffer in this project, or None: copies under a second name (the
    box and linear class heads are lists of one shared module), CLIP, the semantic branch."""
    if name.startswith("module."):
        name = name.removeprefix("module.")
    parts = name.split(".")
    if "clip" in parts or "clip_visual_proj" in parts:
        return None
    if name.startswith(("transformer.decoder.bbox_embed", "transformer.decoder.class_embed")):
        return None
    if parts[0] in ("bbox_embed", "class_embed") and parts[1].isdigit() and parts[1] != "0":
        return None
    return name


def detector_weights(model):
    return {own_name(k): v for k, v in model.state_dict().items() if own_name(k)}


def branch_weights(model):
    return {"semantic_branch.clip_visual_proj.weight": model.class_embed.clip_visual_proj.weight}


def gradients(model):
    """Of everything trained, under our names."""
    found = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if p.grad is not None and own_name(name):
            found[own_name(name)] = p.grad
    if hasattr(model.class_embed, "clip_visual_proj"):
        name, = branch_weights(model)
        found[name] = model.class_embed.clip_visual_proj.weight.grad
    return found


def teacher_weights(model):
    """The image half of the frozen CLIP, with OpenAI's names."""
    clip = model.class_embed.clip
    weights = {f"visual.{k}": v for k, v in clip.visual.state_dict().items()}
    weights["logit_scale"] = clip.logit_scale
    return {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}


def save(name, tensors, double=()):
    """Floating tensors in f32, save those named in `double`."""
    def stored(key, x):
        x = x.detach().clone().contiguous()
        if x.is_floating_point():
            return x.double() if key in double else x.float()
        return x

    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = {k: stored(k, v) for k, v in tensors.items()}
    path = FOLDER / f"{name}.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)


def save_json(name, value):
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, default=lambda x: x.tolist())
    (FOLDER / f"{name}.json").write_text(text + "\n")


def targets_as_tensors(targets, prefix=""):
    tensors = {}
    for i, target in enumerate(targets):
        for key in ("boxes", "labels", "size", "orig_size"):
            tensors[f"{prefix}target.{i}.{key}"] = target[key].long() if key == "labels" else target[key]
    return tensors


def numbers(losses):
    """The terms that are trained on, or reported for them."""
    kinds = ("loss_ce", "loss_bbox", "loss_giou", "loss_distill")
    return {k: float(v) for k, v in losses.items() if k.startswith(kinds)}


def decided(record, layers, start=(0, 0)):
    """Matched pairs and federated classes of each set of queries, in our order: decoder layers from
    the first to the last, then the encoder's proposals; denoising layers apart. The official code
    matches the last layer first, and samples classes for a layer's denoising queries after it."""
    pairs = record.pairs[start[0]:]
    order = [*range(1, layers), 0, layers]
    found = {"pairs": [[[q.tolist(), t.tolist()] for q, t in pairs[i]] for i in order]}
    classes = record.classes[start[1]:]
    if classes:
        last_noised, last, rest, interm = classes[0], classes[1], classes[2:-1], classes[-1]
        found["classes"] = [x.tolist() for x in [*rest[0::2], last, interm]]
        found["noised_classes"] = [x.tolist() for x in [*rest[1::2], last_noised]]
    return found
