"""Writes down what a forward pass of the official code draws, chooses and computes on its way."""

import contextlib
from unittest import mock

import torch

from .small import QUERIES


class Record:
    """`draws`: random tensors in order. `tokens`: two-stage selection. `pairs`: matchings in order.
    `classes`: federated samples in order. `seen`: inputs and outputs of modules."""

    def __init__(self):
        self.draws, self.pairs, self.classes, self.seen = [], [], [], {}
        self.tokens = None
        self.scores = None


@contextlib.contextmanager
def recording(model, criterion):
    record = Record()
    topk, rand_like, randint_like = torch.topk, torch.rand_like, torch.randint_like
    from models.richsem import fed_loss

    sample = fed_loss.get_fed_loss_inds

    def chosen(x, k, *args, **kwargs):
        values = topk(x, k, *args, **kwargs)
        if k == QUERIES and x.dim() == 2:
            record.scores, record.tokens = x.detach(), values[1]
        return values

    def drawn(function):
        def draw(*args, **kwargs):
            values = function(*args, **kwargs)
            record.draws.append(values.clone())
            return values
        return draw

    def federated(*args, **kwargs):
        classes = sample(*args, **kwargs)
        record.classes.append(classes)
        return classes

    def keep(name):
        def hook(module, args, kwargs, output):
            record.seen[name] = (args, kwargs, output)
        return hook

    transformer = model.transformer
    modules = {
        "backbone": model.backbone[0],
        "transformer": transformer,
        "encoder": transformer.encoder,
        "enc_out_class_embed": transformer.enc_out_class_embed,
        **{f"encoder.{i}": layer for i, layer in enumerate(transformer.encoder.layers)},
    }
    handles = [m.register_forward_hook(keep(n), with_kwargs=True) for n, m in modules.items()]
    handles.append(criterion.matcher.register_forward_hook(
        lambda module, args, output: record.pairs.append(output)))
    with mock.patch("torch.topk", chosen), mock.patch("torch.rand_like", drawn(rand_like)), \
            mock.patch("torch.randint_like", drawn(randint_like)), \
            mock.patch("models.richsem.fed_loss.get_fed_loss_inds", federated):
        try:
            yield record
        finally:
            for handle in handles:
                handle.remove()
