"""Swin Transformers, by transformers, timm and torchvision."""

import timm
import torchvision
import transformers

from .record import as_saved, normed, write

SMALL = dict(width=16, head_width=8, window=4, layers=[2, 1, 3, 1])
SETTINGS = 'kind = "swin"\nwidth = 16\nhead_width = 8\nwindow = 4\nlayers = [2, 1, 3, 1]\n'
HEADS = [2, 4, 8, 16]


def huggingface():
    """Any size. Its files have the prefix `swin.` of the classifier; norms of the outputs are a backbone's."""
    config = transformers.SwinConfig(
        embed_dim=16, depths=SMALL["layers"], num_heads=HEADS, window_size=4, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"])
    model = transformers.SwinBackbone(config)
    write(
        "swin_huggingface", SETTINGS, model, [(64, 64), (97, 131), (31, 203)],
        lambda model, images: model(images).feature_maps, saved=as_saved(model),
        of=f"transformers {transformers.__version__}, SwinBackbone")


def by_timm():
    """It pads no maps: at multiples of all windows alone. Of its blocks none is shifted where the map is one
    window: the last stage has a single block."""
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=128, window_size=4, embed_dim=16, depths=SMALL["layers"], num_heads=HEADS,
        num_classes=5)

    def forward(model, images):
        x, maps = model.patch_embed(images), []
        for stage in model.layers:
            x = stage(x)
            maps.append(normed(x))
        return maps

    write("swin_timm", SETTINGS, model, [(128, 128)], forward, of=f"timm {timm.__version__}")


def by_torchvision():
    model = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=16, depths=SMALL["layers"], num_heads=HEADS,
        window_size=[4, 4], num_classes=5, stochastic_depth_prob=0.0)

    def forward(model, images):
        x, maps = images, []
        for i, part in enumerate(model.features):
            x = part(x)
            if i % 2 == 1:
                maps.append(normed(x))
        return maps

    write(
        "swin_torchvision", SETTINGS, model, [(128, 128)], forward,
        of=f"torchvision {torchvision.__version__}")


def main():
    huggingface()
    by_timm()
    by_torchvision()
