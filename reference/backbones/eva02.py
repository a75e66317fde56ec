"""EVA-02, by timm's blocks. Its detectors' code has windows, with positions of their own, and interpolates the table
of positions as detectron2 does; both are here around timm's blocks."""

import timm
import torch
from timm.layers import pos_embed_sincos

from .pyramid import Model
from .record import f64, write

WIDTH, HEADS, DEPTH, OUT, PATCH, SIDE, WINDOW = 32, 2, 3, 8, 16, 64, 3


def rope(height, width):
    sin, cos = pos_embed_sincos.build_rotary_pos_embed(
        (height, width), dim=WIDTH // HEADS, in_pixels=False, ref_feat_shape=(16, 16))
    return torch.cat([sin, cos], -1)


def features(windowed):
    def forward(backbone, images):
        x = backbone.patch_embed(images)
        b, h, w, c = x.shape
        grid = SIDE // PATCH
        table = backbone.pos_embed.reshape(1, grid, grid, c).permute(0, 3, 1, 2)
        if (h, w) != (grid, grid):
            table = torch.nn.functional.interpolate(table, size=(h, w), mode="bicubic", align_corners=False)
        x = (x + table.permute(0, 2, 3, 1)).flatten(1, 2)
        for i, block in enumerate(backbone.blocks):
            y = block.norm1(x)
            if i in windowed:
                y = y.reshape(b, h, w, c)
                below, right = -h % WINDOW, -w % WINDOW
                y = torch.nn.functional.pad(y, (0, 0, 0, right, 0, below))
                rows, columns = (h + below) // WINDOW, (w + right) // WINDOW
                y = y.reshape(b, rows, WINDOW, columns, WINDOW, c).transpose(2, 3)
                y = block.attn(y.reshape(-1, WINDOW * WINDOW, c), rope=rope(WINDOW, WINDOW))
                y = y.reshape(b, rows, columns, WINDOW, WINDOW, c).transpose(2, 3)
                y = y.reshape(b, h + below, w + right, c)[:, :h, :w].flatten(1, 2)
            else:
                y = block.attn(y, rope=rope(h, w))
            x = x + y
            x = x + block.mlp(block.norm2(x))
        return x.transpose(1, 2).unflatten(2, (h, w))
    return forward


def main():
    large = dict(qkv_fused=False, scale_mlp=True)
    for name, ours, options, windowed in [
            ("eva02_timm", "eva02_b", large, []),
            ("eva02_timm_windows", "eva02_b", large, [0, 2]),
            ("eva02_timm_small", "eva02_t", {}, [])]:
        with f64(pos_embed_sincos):
            backbone = timm.models.eva.Eva(
                img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
                class_token=False, swiglu_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16),
                mlp_ratio=8 / 3, dynamic_img_size=True, **options)
            model = Model(backbone, features(windowed), WIDTH, OUT)
            saved = {**dict(backbone.named_parameters()), **model.pyramid.state_dict(keep_vars=True)}
            # The norms behind the backbone are a classifier's.
            saved = {k: v for k, v in saved.items() if not k.startswith(("norm.", "fc_norm."))}
            blocks = [i for i in range(DEPTH) if i not in windowed]
            settings = (f'kind = "vit"\nname = "{ours}"\nwidth = {WIDTH}\nheads = {HEADS}\ndepth = {DEPTH}\n'
                        f'position_grid = {SIDE // PATCH}\nwindow = {WINDOW}\nglobal_blocks = {blocks}\n'
                        f'pyramid_width = {OUT}\n')
            write(name, settings, model, [(64, 64), (80, 112), (48, 144)],
                  lambda model, images: model(images), saved=saved,
                  of=f"timm {timm.__version__}, blocks of Eva")
