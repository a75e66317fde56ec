"""One training step of the whole model, part by part: modules, selection, denoising, matching, every
loss term, soft labels and the gradient of every parameter."""

import sys

import torch

from . import denoising, fixtures, small
from .record import recording

LAYERS = 2


def double_batch(*args, **kwargs):
    samples, targets = small.batch(*args, **kwargs)
    samples.tensors = samples.tensors.double()
    for target in targets:
        target["boxes"] = target["boxes"].double()
    return samples, targets


def step(model, criterion, args, seed):
    """Forward and loss on the one batch of this file. The same seed, the same noise."""
    samples, targets = double_batch(3, (3, 2))
    model.train()
    criterion.train()
    torch.manual_seed(seed)
    noised = []
    with recording(model, criterion) as record, denoising.watching(record, noised):
        outputs, targets = model(samples, targets)
        losses = criterion(outputs, targets)
    return samples, targets, record, noised[0], outputs, losses


def objective(criterion, losses):
    weights = criterion.weight_dict
    return sum(losses[k] * weights[k] for k in losses if k in weights)


def smooth_seed(first, **changes):
    """The first seed whose gradient has no kink within reach of f32.

    The objective is piecewise smooth: ReLU, max pooling and the cell of a bilinear sample switch, and
    at a switch a gradient jumps by what one unit contributes (1e-3 to 3e-2 of its largest value here),
    whatever the precision. In f32 a pass is some 1e-6 off, differently on every instruction set. So
    all weights are shaken by ROUNDS times REACH: a smooth gradient moves by its condition, some
    thirty to a hundred times that; one that moves by more than MOST has a kink there."""
    REACH, ROUNDS, MOST = 2e-6, 12, 3e-4
    for seed in range(first, first + 50):
        small.in_single()
        args = small.arguments(**changes)
        model, criterion, _ = small.build(args, seed)
        small.in_double(model, criterion)

        def gradients():
            model.zero_grad(set_to_none=True)
            *_, losses = step(model, criterion, args, seed)
            objective(criterion, losses).backward()
            return {k: v.clone() for k, v in fixtures.gradients(model).items()}

        kept = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
        generator = torch.Generator().manual_seed(0)
        expected = gradients()
        largest = max(g.abs().max() for g in expected.values())
        worst = 0.0
        for _ in range(ROUNDS):
            with torch.no_grad():
                for name, value in kept.items():
                    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                    model.state_dict()[name].copy_(value * (1 + REACH * noise))
            for name, got in gradients().items():
                size = expected[name].abs().max()
                if size > 1e-9 * largest:
                    worst = max(worst, float((got - expected[name]).abs().max() / size))
        print(f"seed {seed}: gradients move by {worst:.1e}", file=sys.stderr)
        if worst < MOST:
            return seed
    sys.exit("no seed without a kink")


def stacked(outputs):
    """Logits and boxes of all layers, first to last."""
    layers = [*outputs["aux_outputs"], outputs]
    return [torch.stack([layer[key] for layer in layers]) for key in ("pred_logits", "pred_boxes")]


def write(name, seed, **changes):
    """`name`.safetensors and .json, `name`_weights and `name`_gradients."""
    small.in_single()
    args = small.arguments(**changes)
    model, criterion, _ = small.build(args, seed)
    fixtures.save(f"{name}_weights", {**fixtures.detector_weights(model), **(
        fixtures.branch_weights(model) if args.use_visual_distill else {})})
    text = model.class_embed.text_embed if args.use_language else None
    if args.use_language:
        fixtures.save("teacher", fixtures.teacher_weights(model))
    small.in_double(model, criterion)
    samples, targets, record, noised, outputs, losses = step(model, criterion, args, seed)
    total = objective(criterion, losses)
    total.backward()
    fixtures.save(f"{name}_gradients", fixtures.gradients(model))

    logits, boxes = stacked(outputs)
    noised_logits, noised_boxes = stacked(outputs["dn_meta"]["output_known_lbs_bboxes"])
    hidden, references, *_ = record.seen["transformer"][2]
    predicted = {
        "logits": logits, "boxes": boxes,
        "interm.logits": outputs["interm_outputs"]["pred_logits"],
        "interm.boxes": outputs["interm_outputs"]["pred_boxes"],
        "noised.logits": noised_logits, "noised.boxes": noised_boxes,
        "hidden": torch.stack(hidden), "references": torch.stack(references[:-1]),
    }
    tensors = {
        "images": samples.tensors, "mask": samples.mask, "tokens": record.tokens,
        **fixtures.targets_as_tensors(targets), **denoising.tensors(noised),
        **denoising.draws(noised), **predicted,
        "scores": record.scores,  # best class logit of every token
    }
    if text is not None:
        tensors["text"] = text
    if args.use_visual_distill:
        tensors["soft.logits"] = torch.cat([t["clip_logits"] for t in targets])
        tensors["soft.features"] = torch.cat([t["clip_prompt"] for t in targets])
        tensors["dense"] = model.clip_features
    tensors.update(inside(record))
    found = {
        "groups": noised.groups, "most": noised.most, "total": float(total),
        "losses": fixtures.numbers(losses), **fixtures.decided(record, LAYERS),
    }
    if args.use_visual_distill:
        found["variants"] = variants(args, seed, model, tensors)
    exact = [*predicted, "soft.logits", "soft.features", "noised.references", "soft.layer.logits",
             "soft.layer.features"]
    fixtures.save(name, tensors, double=exact)
    fixtures.save_json(name, found)


def inside(record):
    """What goes into and comes out of the transformer's parts."""
    sources, masks, _, positions, *_ = record.seen["transformer"][0]
    tensors = {"memory": record.seen["encoder"][2][0]}
    tensors["valid_ratios"] = record.seen["encoder"][1]["valid_ratios"]
    for level, (source, mask, position) in enumerate(zip(sources, masks, positions)):
        tensors[f"level.{level}.tokens"] = source
        tensors[f"level.{level}.mask"] = mask
        tensors[f"level.{level}.positions"] = position
    for layer in range(LAYERS):
        tensors[f"encoder.{layer}"] = record.seen[f"encoder.{layer}"][2]
    for i, features in record.seen["backbone"][2].items():
        tensors[f"backbone.{i}"] = features.tensors
    return tensors


# What the paper's study varies, and the classes of the loss.
VARIANTS = {
    "all_classes": dict(use_fed_loss=False),
    "l1": dict(distill_type="clip_l1"),
    "entropy": dict(use_dynamic_distill_weight=True),
    "federated": dict(use_fed_on_kd=True),
    "matched": dict(clip_distill_objective="pred", distill_aux_layers=True),
    "all": dict(clip_distill_objective="pred_all"),
    "all_l1": dict(clip_distill_objective="pred_all", distill_type="clip_l1"),
    "aux_layers": dict(distill_aux_layers=True),
}


def variants(args, seed, model, tensors):
    """The loss terms under other settings, on the same weights and noise."""
    found = {}
    for name, changes in VARIANTS.items():
        small.in_single()
        own = small.arguments(**{**vars(args), **changes})
        other, criterion, _ = small.build(own, seed)
        small.in_double(other, criterion)
        *_, record, _, outputs, losses = step(other, criterion, own, seed)
        found[name] = {"losses": fixtures.numbers(losses), **fixtures.decided(record, LAYERS)}
        if name == "matched":
            # The teacher at every query's input reference, denoising ones first, layer by layer.
            # (What the official code does with boxes that reach beyond the image is another
            # matter: it lets RoIAlign look into the padding.)
            layers = [*outputs["aux_outputs"], outputs]
            noised = outputs["dn_meta"]["output_known_lbs_bboxes"]
            noised = [*noised["aux_outputs"], noised]
            for ours, theirs in (("logits", "clip_logits"), ("features", "hs_prompt")):
                both = [torch.cat([n[theirs], x[theirs]], 1) for n, x in zip(noised, layers)]
                tensors[f"soft.layer.{ours}"] = torch.stack(both)
    return found
