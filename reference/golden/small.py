"""The official model at a few thousandths of its size, with random weights, and batches for it.

Sizes are chosen to differ from each other where they can, so that a swapped axis shows.
"""

import copy
import importlib
import math
from types import SimpleNamespace

import torch
import torchvision

CLASSES = 7  # ids 1 to 7; the official code adds a class 0, "none"
QUERIES = 12
TEXT_WIDTH = 24
NAMES = ["aerosol_can", "air conditioner", "Bob", "alarm-clock", "almond", "ambulance", "amplifier"]
IMAGE_COUNTS = [40, 9, 400, 3, 25, 1, 120]


def categories():
    """As `dataset.cats` has them."""
    rows = zip(range(1, CLASSES + 1), NAMES, IMAGE_COUNTS)
    return {i: {"id": i, "name": name, "image_count": count} for i, name, count in rows}


def arguments(**changes):
    """The settings of configs/RichSem/richsem_4scale.py that the constructors read, made small."""
    settings = dict(
        device="cpu", num_classes=CLASSES + 1, dn_labelbook_size=CLASSES + 1, backbone="resnet50",
        hidden_dim=32, nheads=4, num_queries=QUERIES, enc_layers=2, unic_layers=0, dec_layers=2,
        dim_feedforward=48, num_feature_levels=4, enc_n_points=3, dec_n_points=2, dropout=0.0,
        return_interm_indices=[1, 2, 3], lr_backbone=1e-5, dilation=False,
        position_embedding="sine", pe_temperatureH=20, pe_temperatureW=20,
        backbone_freeze_keywords=None, pre_norm=False, query_dim=4, num_patterns=0,
        random_refpoints_xy=False, fix_refpoints_hw=-1, use_deformable_box_attn=False,
        box_attn_type="roi_align", dec_layer_number=None, decoder_layer_noise=False,
        add_channel_attention=False, add_pos_value=False, two_stage_type="standard",
        two_stage_pat_embed=0, two_stage_add_query_num=0, two_stage_bbox_embed_share=False,
        two_stage_class_embed_share=False, two_stage_learn_wh=False,
        two_stage_keep_all_tokens=False, num_select=20, transformer_activation="relu", masks=False,
        aux_loss=True, matcher_type="HungarianMatcher", set_cost_class=2.0, set_cost_bbox=5.0,
        set_cost_giou=2.0, cls_loss_coef=1.0, bbox_loss_coef=5.0, giou_loss_coef=2.0,
        interm_loss_coef=1.0, no_interm_box_loss=False, focal_alpha=0.25, decoder_sa_type="sa",
        decoder_module_seq=["sa", "ca", "ffn"], nms_iou_threshold=-1,
        dec_pred_bbox_embed_share=True, dec_pred_class_embed_share=True, enc_cls_agn=False,
        use_dn=True, dn_number=50, dn_box_noise_scale=1.0, dn_label_noise_ratio=0.5,
        embed_init_tgt=True, dn_labelbook_reuse_cls=True, use_detached_boxes_dec_out=False,
        check_pos_dn=False, add_gt=False, attn_label_enc=False, use_language=True,
        use_visual_distill=True, use_mlp_proj=False, use_cls_mlp_proj=True, share_vl_proj=False,
        distill_random_boxes=False, use_clip_visual_query=False, clip_visual_resolution=224,
        distill_aux_layers=False, use_cnn_clip=True, clip_model="RN50", two_stage_cls=False,
        distill_loss_coef=0.5, distill_type="clip_logits", clip_distill_objective="gt",
        use_dynamic_distill_weight=False, use_fed_loss=True, use_fed_on_kd=False,
        fed_num_sample_cats=5, use_imagenet_pusedo_labels=False, clip_pusedo_th=0.05,
        resnet_pretrain_path="", param_dict_type="default", lr=1e-3, weight_decay=1e-4,
        clip_max_norm=0.1, amp=False, onecyclelr=False, use_ema=False, debug=False,
        mask_bbox=False, mask_giou=False, mask_labels=False,
    )
    unknown = set(changes) - set(settings)
    assert not unknown, unknown
    return SimpleNamespace(**{**settings, **changes})


class SmallResNet(torchvision.models.ResNet):
    """torchvision's ResNet-50 with one block a stage and a width of 4 instead of 64."""

    WIDTH = 4

    def __init__(self, norm_layer):
        block = torchvision.models.resnet.Bottleneck
        super().__init__(block, [1, 1, 1, 1], norm_layer=norm_layer)
        width = self.inplanes = self.WIDTH
        self.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(width)
        for stage in range(4):
            stride = 1 if stage == 0 else 2
            setattr(self, f"layer{stage + 1}", self._make_layer(block, width << stage, 1, stride))


def small_backbone(args):
    from models.richsem import backbone as official

    backbone = SmallResNet(official.FrozenBatchNorm2d)
    channels = [4 * SmallResNet.WIDTH << stage for stage in range(1, 4)]
    backbone = official.BackboneBase(backbone, True, channels, args.return_interm_indices)
    joined = official.Joiner(backbone, official.build_position_encoding(args))
    joined.num_channels = channels
    return joined


def small_clip(name):
    from clip.model import CLIP

    return CLIP(
        embed_dim=TEXT_WIDTH, image_resolution=64, vision_layers=(1, 1, 1, 1), vision_width=4,
        vision_patch_size=None, context_length=77, vocab_size=49408, transformer_width=64,
        transformer_heads=1, transformer_layers=1,
    ).float()


def shake(module, seed):
    """Makes every weight matter: norms that are not one, biases and last layers that are not zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        return mean + std * torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point() or name.endswith("logit_scale"):
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.dim() == 1 and name.endswith("weight"):
                tensor.copy_(normal(tensor, 1.0, 0.2))
            elif "token_embedding" in name:
                tensor.copy_(normal(tensor, 0.0, 0.3))
            elif tensor.dim() == 4:
                tensor.copy_(normal(tensor, 0.0, math.sqrt(2 / tensor[0].numel())))
            else:
                tensor.add_(normal(tensor, 0.0, 0.1))


def build(args, seed):
    """Model, criterion and post-processing, in f32, with the text table of the seven names."""
    from models.richsem import richsem as official

    torch.manual_seed(seed)
    official.build_backbone = small_backbone
    model, criterion, post = official.build_richsem(args)
    finish(model, args.use_language, categories(), lambda: shake(model, seed))
    criterion.set_cats(categories())
    return model, criterion, post


def finish(model, language, cats, shake):
    """New weights by `shake`; then one CLIP and one text table for both class heads."""
    if not language:
        # The official baseline's encoder compares with text even when its decoder does not. DINO,
        # and this project, give the encoder a linear head of its own.
        model.transformer.enc_out_class_embed = copy.deepcopy(model.class_embed[0])
    shake()
    # Of the encoder and, last, of the decoder. The checkpoint's two copies of CLIP are one and the
    # same; shaken, they would differ.
    heads = [m for m in model.modules() if hasattr(m, "set_total_text")]
    if heads:
        heads[-1].eval()  # as the official code does with a frozen CLIP, before its first forward
        heads[-1].set_total_text(cats)
    for head in heads:
        head.clip.load_state_dict(heads[-1].clip.state_dict())
        head.text_embed = heads[-1].text_embed


class Wide:
    """torch, for a module of the official code that asks for f32 by name: it gets f64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_double(model=None, criterion=None):
    """From here on everything is f64, also what the official code makes in f32 by name (position
    encodings, reference points): sines and powers in f32 differ in their last digit from one
    instruction set to another."""
    for module in positions():
        module.torch = Wide()
    torch.set_default_dtype(torch.float64)
    if model is None:
        return
    model.double()
    if criterion is not None and criterion.use_fed_loss:
        criterion.fed_weight = criterion.fed_weight.double()
    for module in model.modules():
        if getattr(module, "text_embed", None) is not None:
            module.text_embed = module.text_embed.double()


def in_single():
    """From here on f32 is made again."""
    for module in positions():
        module.torch = torch
    torch.set_default_dtype(torch.float32)


def positions():
    """The modules that make positions. (The valid ratio is f32 all the same: of maps whose sides are
    powers of two it is exact.)"""
    for name in ("position_encoding", "deformable_transformer", "utils"):
        yield importlib.import_module(f"models.richsem.{name}")


def batch(seed, boxes, extra=False):
    """Two images of 64 × 64, the second padded below and at the right, and their targets."""
    from util.misc import NestedTensor

    generator = torch.Generator().manual_seed(seed)
    sizes = [(64, 64), (41, 52)]
    images = torch.zeros(2, 3, 64, 64)
    mask = torch.ones(2, 64, 64, dtype=torch.bool)
    targets = []
    for i, ((h, w), count) in enumerate(zip(sizes, boxes)):
        images[i, :, :h, :w] = torch.randn(3, h, w, generator=generator, dtype=torch.float32)
        mask[i, :h, :w] = False
        size = 0.15 + 0.4 * torch.rand(count, 2, generator=generator, dtype=torch.float32)
        room = torch.rand(count, 2, generator=generator, dtype=torch.float32)
        centre = size / 2 + (1 - size) * room
        found = torch.cat([centre, size], 1)
        if extra:
            found = torch.tensor([[0.5, 0.5, 1.0, 1.0]] * count).float()
        targets.append({
            "boxes": found.to(images.dtype),
            "labels": torch.randint(1, CLASSES + 1, (count,), generator=generator),
            "size": torch.tensor([h, w]),
            "orig_size": torch.tensor([2 * h, 2 * w + 1]),
            "image_id": torch.tensor(seed * 10 + i),
        })
        if extra:
            targets[-1]["is_extra"] = True
    return NestedTensor(images, mask), targets
