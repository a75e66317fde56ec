"""DINOv2: by its own code where the environment variable DINOV2 names a checkout (facebookresearch/dinov2), by
transformers with registers, by timm. transformers and timm resize positions of models *without* registers by another
rule than the official code, so these are compared with the official code alone."""

import importlib
import os
import sys

import timm
import transformers
from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers

from .pyramid import Model
from .record import as_saved, f64, write

WIDTH, HEADS, DEPTH, OUT, SIDE, PATCH = 32, 2, 2, 8, 70, 14
SIZES = [(70, 70), (56, 98), (100, 150)]


def settings(name, rest):
    return (f'kind = "vit"\nname = "{name}"\nwidth = {WIDTH}\nheads = {HEADS}\ndepth = {DEPTH}\n'
            f'position_grid = {SIDE // PATCH}\npyramid_width = {OUT}\n{rest}')


def as_map(tokens, images):
    """The patches, which are the last tokens."""
    h, w = (side // PATCH for side in images.shape[-2:])
    return tokens[:, -h * w:].transpose(1, 2).unflatten(2, (h, w))


def official():
    """Sizes that are no multiples of a patch it refuses."""
    sys.path.insert(0, os.environ["DINOV2"])
    vits = importlib.import_module("dinov2.models.vision_transformer")

    def features(backbone, images):
        return as_map(backbone.forward_features(images)["x_norm_patchtokens"], images)

    for name, ours, registers, ffn in [
            ("dinov2_official", "dinov2_s", 0, "mlp"),
            ("dinov2_official_gated", "dinov2_g", 2, "swiglufused")]:
        with f64():
            backbone = vits.DinoVisionTransformer(
                img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
                init_values=1.0, ffn_layer=ffn, block_chunks=0, num_register_tokens=registers,
                interpolate_antialias=registers > 0, interpolate_offset=0.0 if registers else 0.1)
            model = Model(backbone, features, WIDTH, OUT)
            saved = {**backbone.state_dict(keep_vars=True), **model.pyramid.state_dict(keep_vars=True)}
            rest = f"registers = {registers}\n" if registers else ""
            write(name, settings(ours, rest), model, [(70, 70), (56, 98), (112, 42)],
                  lambda model, images: model(images), saved=saved, skip=("mask_token",),
                  of="facebookresearch/dinov2, DinoVisionTransformer")


def huggingface():
    """(Its gated ones are in memory in other parts than in files; the official code's are compared.)"""
    with f64(modeling_dinov2_with_registers):
        config = transformers.Dinov2WithRegistersConfig(
            hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=SIDE,
            patch_size=PATCH, num_register_tokens=3)
        model = Model(
            transformers.Dinov2WithRegistersModel(config),
            lambda backbone, images: as_map(backbone(images).last_hidden_state, images), WIDTH, OUT)
        saved = {**as_saved(model.backbone), **model.pyramid.state_dict(keep_vars=True)}
        saved = {key: tensor for key, tensor in saved.items() if "mask_token" not in key}
        write("dinov2_huggingface", settings("dinov2_s", "registers = 3\n"), model, SIZES,
              lambda model, images: model(images), saved=saved,
              of=f"transformers {transformers.__version__}, Dinov2WithRegistersModel")


def by_timm():
    """With registers, whose files have the class token's position added up. Multiples of a patch alone."""
    with f64():
        backbone = timm.models.vision_transformer.VisionTransformer(
            img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
            init_values=1e-5, reg_tokens=3, no_embed_class=True, dynamic_img_size=True, num_classes=0)
        model = Model(
            backbone, lambda backbone, images: as_map(backbone.forward_features(images), images), WIDTH, OUT)
        saved = {**backbone.state_dict(keep_vars=True), **model.pyramid.state_dict(keep_vars=True)}
        write("dinov2_timm", settings("dinov2_s", "registers = 3\n"), model, [(70, 70), (56, 98)],
              lambda model, images: model(images), saved=saved,
              of=f"timm {timm.__version__}, VisionTransformer")


def main():
    if "DINOV2" in os.environ:
        official()
    else:
        print("dinov2: DINOV2 names no checkout: the official code's fixtures stay as they are")
    huggingface()
    by_timm()
