"""Ten optimiser steps by the official training loop: detection and extra batches take turns."""

from unittest import mock

import torch

from . import denoising, fixtures, small
from .forward import LAYERS, double_batch
from .record import recording

STEPS = 10
# Seeds of the batches, boxes of their two images.
DETECTION = [(11, (3, 2)), (12, (1, 5))]
EXTRA = [(21, (4, 2)), (22, (1, 1))]


def batches():
    return [double_batch(*DETECTION[i // 2 % 2]) if i % 2 == 0 else
            double_batch(*EXTRA[i // 2 % 2], extra=True) for i in range(STEPS)]


def write(seed, name="steps"):
    """From the weights of `text_weights`, whose seed it is."""
    import engine
    from util.get_param_dicts import get_param_dict
    from util.misc import MetricLogger

    small.in_single()
    args = small.arguments(mask_bbox=True, mask_giou=True, lr=5e-4, lr_backbone=5e-5)
    model, criterion, _ = small.build(args, seed)
    small.in_double(model, criterion)
    optimizer = torch.optim.AdamW(get_param_dict(args, model), lr=args.lr,
                                  weight_decay=args.weight_decay)
    torch.manual_seed(seed)
    noised, totals, norms, terms, tokens, decisions, soft = [], [], [], [], [], [], []
    clip, update = torch.nn.utils.clip_grad_norm_, MetricLogger.update

    def clipped(*a, **k):
        norms.append(float(clip(*a, **k)))

    def updated(self, **k):
        if "loss" in k:
            totals.append(k["loss"])
        update(self, **k)

    with recording(model, criterion) as record, denoising.watching(record, noised), \
            mock.patch("torch.nn.utils.clip_grad_norm_", clipped), \
            mock.patch("util.misc.MetricLogger.update", updated):
        start = [0, 0]

        def after(module, inputs, losses):
            terms.append(fixtures.numbers(losses))
            tokens.append(record.tokens)
            soft.append([torch.cat([t[k] for t in inputs[1]])
                         for k in ("clip_logits", "clip_prompt")])
            decisions.append(fixtures.decided(record, LAYERS, tuple(start)))
            start[:] = len(record.pairs), len(record.classes)

        handle = criterion.register_forward_hook(after)
        engine.train_one_epoch(model, criterion, batches(), optimizer, torch.device("cpu"), 0,
                               args.clip_max_norm, args=args)
        handle.remove()

    tensors = {}
    for i, (queries, chosen) in enumerate(zip(noised, tokens, strict=True)):
        tensors[f"{i}.tokens"] = chosen
        tensors.update(denoising.tensors(queries, f"{i}."))
    for i in range(4):
        samples, targets = batches()[i]
        tensors[f"batch.{i}.images"] = samples.tensors
        tensors[f"batch.{i}.mask"] = samples.mask
        tensors[f"batch.{i}.soft.logits"], tensors[f"batch.{i}.soft.features"] = soft[i]
        tensors.update(fixtures.targets_as_tensors(targets, f"batch.{i}."))
    exact = [k for k in tensors if "noised.references" in k or "soft." in k]
    fixtures.save(name, tensors, double=exact)
    rows = zip(noised, totals, norms, terms, decisions, strict=True)
    fixtures.save_json(name, [
        {"groups": queries.groups, "most": queries.most, "total": total, "norm": norm,
         "losses": losses, **decision}
        for queries, total, norm, losses, decision in rows
    ])
