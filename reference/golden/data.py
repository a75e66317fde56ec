"""What has no weights: position encodings, matching, mosaic, repeat factors, post-processing."""

import random
from unittest import mock

import numpy as np
import torch
from PIL import Image

from . import fixtures, small


def positions():
    from models.richsem.position_encoding import PositionEmbeddingSineHW
    from models.richsem.utils import gen_sineembed_for_position
    from util.misc import NestedTensor

    mask = torch.ones(2, 9, 13, dtype=torch.bool)
    mask[0] = False
    mask[1, :6, :11] = False
    encode = PositionEmbeddingSineHW(16, temperatureH=20, temperatureW=20, normalize=True)
    generator = torch.Generator().manual_seed(1)
    small.in_double()
    boxes = torch.rand(2, 5, 4, generator=generator)
    tensors = {
        "mask": mask,
        "pixels": encode(NestedTensor(torch.zeros(2, 1, 9, 13), mask)),
        "boxes": boxes,
        "encoded_boxes": gen_sineembed_for_position(boxes, 16),
    }
    small.in_single()
    fixtures.save("positions", tensors, double=tensors)


def matching():
    """Random predictions, more boxes than queries in one image, none in another."""
    from models.richsem.matcher import HungarianMatcher

    generator = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)
    matcher = HungarianMatcher(cost_class=2.0, cost_bbox=5.0, cost_giou=2.0)
    logits, boxes = 6 * rand(3, 9, 8) - 3, 0.1 + 0.8 * rand(3, 9, 4)
    counts = [4, 11, 0]
    targets = [{"labels": (8 * rand(n)).long(), "boxes": 0.1 + 0.8 * rand(n, 4)} for n in counts]
    outputs = {"pred_logits": logits.float(), "pred_boxes": boxes.float()}
    for target in targets:
        target["boxes"] = target["boxes"].float()
    pairs = matcher(outputs, targets)
    tensors = {"logits": logits, "boxes": boxes}
    for i, target in enumerate(targets):
        tensors.update({f"{i}.boxes": target["boxes"], f"{i}.labels": target["labels"]})
    fixtures.save("matching", tensors)
    fixtures.save_json("matching", [[q.tolist(), t.tolist()] for q, t in pairs])


def postprocessing():
    from models.richsem.richsem import PostProcess

    generator = torch.Generator().manual_seed(4)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float32)
    logits, boxes = 8 * rand(2, 12, 8) - 6, rand(2, 12, 4)
    sizes = torch.tensor([[480, 641], [333, 500]])
    found = PostProcess(num_select=20)({"pred_logits": logits, "pred_boxes": boxes}, sizes)
    tensors = {"logits": logits, "boxes": boxes, "sizes": sizes}
    for i, result in enumerate(found):
        tensors.update({f"{i}.{key}": value for key, value in result.items()})
    fixtures.save("postprocessing", tensors)


def repeat_factors():
    from datasets.samplers import RepeatFactorTrainingSampler

    rng = random.Random(6)
    images = [[rng.choice([1, 1, 1, 2, 2, 3, 4, 5]) for _ in range(rng.randrange(4))]
              for _ in range(60)] + [[7], [7, 6, 1]]
    records = [{"annotations": [{"category_id": c} for c in labels]} for labels in images]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    fixtures.save_json("repeat_factors", {
        "images": images,
        "factors": {str(t): factors(records, t).tolist() for t in (0.001, 0.05, 0.3)},
    })


def mosaic():
    """Small tiles; one of their own size, one larger, one wider, one higher than the tile."""
    from datasets import transforms as official

    tile, sizes = 32, [(32, 20), (50, 60), (24, 11), (13, 40)]  # (height, width)
    rng = np.random.default_rng(7)
    # Smooth images: two bilinear filters may differ by a level at an edge.
    images = [np.asarray(Image.fromarray(rng.integers(0, 255, (5, 4, 3), dtype=np.uint8))
                         .resize((w, h), Image.BICUBIC)) for h, w in sizes]
    cases = []
    tensors = {f"picture.{i}": torch.tensor(p) for i, p in enumerate(images)}
    for case, shares in enumerate([(0.5, 1.4999), (1.1, 0.77), (1.49, 1.3)]):
        tiles = []
        for i, (pixels, (h, w)) in enumerate(zip(images, sizes)):
            boxes = torch.tensor([[0, 0, w, h], [0.1 * w, 0.2 * h, 0.6 * w, 0.9 * h]])
            tiles.append((Image.fromarray(pixels), {
                "boxes": boxes.float(), "labels": torch.tensor([i, i + 4])}))
        (image, target), others = tiles[0], tiles[1:]
        target["mix_results"] = others
        # `prob` is asked first, then the centre's x and y.
        draws = iter([0.0, *shares])
        with mock.patch("random.uniform", lambda *_: next(draws)):
            canvas, found = official.Mosaic(img_scale=(tile, tile))(image, target)
        tensors[f"{case}.canvas"] = torch.tensor(np.asarray(canvas))
        tensors[f"{case}.boxes"] = found["boxes"].float()
        tensors[f"{case}.labels"] = found["labels"].long()
        cases.append({"centre": [int(share * tile) for share in shares]})
    fixtures.save("mosaic", tensors)
    fixtures.save_json("mosaic", cases)


def write():
    small.in_single()
    positions()
    matching()
    postprocessing()
    repeat_factors()
    mosaic()
