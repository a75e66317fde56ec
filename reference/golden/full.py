"""The official model at full size, and images as it is given them."""

from unittest import mock

import torch
import torchvision
from PIL import Image

from . import small, standins

# A few classes: a text table of all of LVIS takes an hour of CPU time on either side.
NAMES = ["person", "fire_hydrant", "stop sign", "alarm-clock", "Bible", "bow_(weapon)", "car_(automobile)",
         "dog", "elephant", "teddy bear", "traffic_light", "zebra"]
SIZES = dict(
    num_classes=len(NAMES) + 1, dn_labelbook_size=len(NAMES) + 1, hidden_dim=256, nheads=8,
    num_queries=900, enc_layers=6, dec_layers=6, dim_feedforward=2048, enc_n_points=4,
    dec_n_points=4, num_select=300,
)


def categories():
    rows = enumerate(NAMES, start=1)
    return {i: {"id": i, "name": name, "image_count": 10 * i} for i, name in rows}


def clip_rn50(name):
    assert name == "RN50", name
    from clip.model import CLIP

    return CLIP(
        embed_dim=1024, image_resolution=224, vision_layers=(3, 4, 6, 3), vision_width=64,
        vision_patch_size=None, context_length=77, vocab_size=49408, transformer_width=512,
        transformer_heads=8, transformer_layers=12,
    ).float()


def build(language, seed):
    """With the official constructors' own initial weights, and norms, biases and last layers that do
    something."""
    standins.serve_clip(clip_rn50)  # before the modules that import it by name
    from models.richsem import richsem as official

    resnet50 = torchvision.models.resnet50

    def without_download(pretrained=False, **settings):
        return resnet50(weights=None, **settings)

    torch.manual_seed(seed)
    changes = {} if language else dict(use_visual_distill=False, dn_labelbook_reuse_cls=False)
    args = small.arguments(use_language=language, **SIZES, **changes)
    with mock.patch("torchvision.models.resnet50", without_download):
        model, _, post = official.build_richsem(args)
    small.finish(model, language, categories(), lambda: shake(model, seed))
    with torch.no_grad():
        without_none(model)
        quiet(model.transformer)
    return model.eval(), post["bbox"]


def shake(model, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(x, mean, std):
        return mean + std * torch.randn(x.shape, generator=generator)

    with torch.no_grad():
        for name, x in model.state_dict().items():
            if not x.is_floating_point() or name.endswith("logit_scale"):
                continue
            if name.endswith("running_var"):
                x.copy_(0.5 + torch.rand(x.shape, generator=generator))
            elif name.endswith("bn3.weight"):
                # A trained backbone's branches add little to what passes by them.
                x.copy_(normal(x, 0.3, 0.05))
            elif x.dim() == 1 and name.endswith("weight"):
                x.copy_(normal(x, 1.0, 0.1))
            elif x.dim() == 1 and "sampling_offsets" not in name and "class_embed" not in name:
                x.copy_(normal(x, 0.0, 0.05))
            elif "attention_weights.weight" in name or "sampling_offsets.weight" in name:
                x.copy_(normal(x, 0.0, 0.02))
            elif ".layers.2.weight" in name and "bbox_embed" in name:
                x.copy_(normal(x, 0.0, 0.02))


def without_none(model):
    """Makes class 0, "none", another class 1. It is no class of this project, and the official
    selection goes by the best of all its classes: with random weights "none" can win everywhere."""
    for head in (model.transformer.enc_out_class_embed, model.class_embed):
        if hasattr(head, "set_total_text"):
            head.text_embed = head.text_embed.clone()
            head.text_embed[0] = head.text_embed[1]
            continue
        for linear in head if isinstance(head, torch.nn.ModuleList) else [head]:
            linear.weight[0], linear.bias[0] = linear.weight[1], linear.bias[1]


def quiet(transformer):
    """Lets tokens that may not propose (padding, edges) score low. The official code has them compete,
    all with what its heads make of a zero feature: with random weights that can be nine tenths of the
    proposals, and nothing would be compared but their corner of the image."""
    transformer.enc_output.bias.zero_()
    head, bias = transformer.enc_out_class_embed, transformer.enc_output_norm.bias
    if hasattr(head, "weight"):
        weight = head.weight
    else:
        text = head.text_embed / head.text_embed.norm(dim=-1, keepdim=True)
        weight = text @ head.dino_visual_proj.weight
    # Away from every class: the least-squares answer to "minus one for each".
    answer = torch.linalg.lstsq(weight[1:], -torch.ones(len(weight) - 1, 1)).solution[:, 0]
    bias.copy_(0.3 * answer / answer.norm())


def read_image(path):
    """As the official evaluation resizes and normalises: shorter side 800, longer at most 1333."""
    image = Image.open(path).convert("RGB")
    w, h = image.size
    short = 800
    if max(w, h) / min(w, h) * short > 1333:
        short = int(round(1333 * min(w, h) / max(w, h)))
    size = (int(short * h / w), short) if w < h else (short, int(short * w / h))
    functional = torchvision.transforms.functional
    image = functional.to_tensor(functional.resize(image, size))
    return functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), (h, w)


def batch(paths):
    """Padded to multiples of 32, as the official collate does."""
    from util.misc import NestedTensor

    found = [read_image(path) for path in paths]
    height, width = (max(x.shape[axis] for x, _ in found) for axis in (1, 2))
    height, width = (-(-side // 32) * 32 for side in (height, width))
    images = torch.zeros(len(found), 3, height, width)
    mask = torch.ones(len(found), height, width, dtype=torch.bool)
    for i, (x, _) in enumerate(found):
        images[i, :, : x.shape[1], : x.shape[2]] = x
        mask[i, : x.shape[1], : x.shape[2]] = False
    return NestedTensor(images, mask), torch.tensor([size for _, size in found])
