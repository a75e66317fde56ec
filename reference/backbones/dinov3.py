"""DINOv3, by transformers and timm."""

from functools import partial

import timm
import torch
import transformers
from timm.layers import pos_embed_sincos
from transformers.models.dinov3_vit import modeling_dinov3_vit

from .pyramid import Model
from .record import as_saved, f64, write

WIDTH, HEADS, DEPTH, OUT, PATCH = 32, 2, 2, 8, 16


def settings(name):
    return (f'kind = "vit"\nname = "{name}"\nwidth = {WIDTH}\nheads = {HEADS}\ndepth = {DEPTH}\n'
            f'registers = 3\npyramid_width = {OUT}\n')


def as_map(tokens, images):
    """The patches, which are the last tokens."""
    h, w = (side // PATCH for side in images.shape[-2:])
    return tokens[:, -h * w:].transpose(1, 2).unflatten(2, (h, w))


def huggingface():
    for name, ours, gated in [
            ("dinov3_huggingface", "dinov3_s", False), ("dinov3_huggingface_gated", "dinov3_s_plus", True)]:
        with f64(modeling_dinov3_vit):
            config = transformers.DINOv3ViTConfig(
                hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=DEPTH,
                num_attention_heads=HEADS, image_size=64, patch_size=PATCH, num_register_tokens=3,
                use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")
            model = Model(
                transformers.DINOv3ViTModel(config),
                lambda backbone, images: as_map(backbone(images).last_hidden_state, images), WIDTH, OUT)
            saved = {**as_saved(model.backbone), **model.pyramid.state_dict(keep_vars=True)}
            saved = {key: tensor for key, tensor in saved.items() if "mask_token" not in key}
            write(name, settings(ours), model, [(64, 64), (80, 112), (90, 119)],
                  lambda model, images: model(images), saved=saved,
                  of=f"transformers {transformers.__version__}, DINOv3ViTModel")


def by_timm():
    """Multiples of a patch alone."""
    with f64(pos_embed_sincos):
        backbone = timm.models.eva.Eva(
            img_size=64, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
            qkv_bias=True, init_values=1e-5, rope_type="dinov3", rope_temperature=100,
            use_rot_pos_emb=True, use_abs_pos_emb=False, rope_rotate_half=True, num_reg_tokens=3,
            mlp_ratio=6 * 2 / 3, swiglu_mlp=True, swiglu_align_to=8, use_fc_norm=False, dynamic_img_size=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-5))
        d = WIDTH // HEADS
        # Made in f32 before anything can ask for f64.
        backbone.rope.periods = 100.0 ** (torch.arange(d // 4) * 4 / d)
        model = Model(
            backbone, lambda backbone, images: as_map(backbone.forward_features(images), images), WIDTH, OUT)
        saved = {**dict(backbone.named_parameters()), **model.pyramid.state_dict(keep_vars=True)}
        write("dinov3_timm_gated", settings("dinov3_s_plus"), model, [(64, 64), (80, 112)],
              lambda model, images: model(images), saved=saved, of=f"timm {timm.__version__}, Eva")


def main():
    huggingface()
    by_timm()
