"""The denoising queries of a forward pass, as the official code lays them out."""

import contextlib
from unittest import mock

import torch


class Queries:
    """`labels` and `used` `[B, P]`, `references` `[B, P, 4]` before the sigmoid, `content`
    `[B, P, D]`, `hidden` the attention mask; `draws` the random numbers, in the order drawn."""


@contextlib.contextmanager
def watching(record, found):
    """Appends the queries of each forward pass to `found`."""
    from models.richsem import richsem as official

    prepare = official.prepare_for_cdn

    def watched(dn_args, label_enc, **kwargs):
        queries, labels = Queries(), []

        def embed(m):
            labels.append(m)
            return label_enc(m)

        first = len(record.draws)
        result = prepare(dn_args=dn_args, label_enc=embed, **kwargs)
        queries.content, queries.references, queries.hidden, meta = result
        queries.draws = record.draws[first:]
        counts = [len(target["labels"]) for target in dn_args[0]]
        queries.groups, queries.most = meta["num_dn_group"], max(counts)
        # Labels come copy by copy: positives of group 0, its negatives, …, each of all images.
        shape = (len(counts), 2 * queries.groups * queries.most)
        queries.labels = torch.zeros(shape, dtype=torch.long)
        queries.used = torch.zeros(shape)
        flat = iter(labels[0].tolist())
        for copy in range(2 * queries.groups):
            for image, count in enumerate(counts):
                for i in range(count):
                    slot = copy * queries.most + i
                    queries.labels[image, slot] = next(flat)
                    queries.used[image, slot] = 1
        assert next(flat, None) is None
        found.append(queries)
        return result

    with mock.patch("models.richsem.richsem.prepare_for_cdn", watched):
        yield


def tensors(queries, prefix=""):
    return {
        f"{prefix}noised.labels": queries.labels,
        f"{prefix}noised.used": queries.used,
        f"{prefix}noised.references": queries.references,
    }


def draws(queries):
    """Order of copies as above; corners x0, y0, x1, y1."""
    flips, labels, signs, parts = queries.draws
    return {
        "noise.flip": flips,  # the label flips where this is below a quarter
        "noise.label": labels,  # of those that flip, in order
        "noise.sign": signs,  # 0 or 1
        "noise.part": parts,  # negatives add 1
        "noised.content": queries.content,
        "noised.hidden": queries.hidden,
    }
