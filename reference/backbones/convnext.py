"""ConvNeXts of both versions, by transformers, timm and torchvision. Their convolutions floor sizes."""

import timm
import torchvision
import transformers

from .record import as_saved, normed, write

WIDTH, LAYERS = 16, [1, 1, 4, 1]
WIDTHS = [WIDTH << stage for stage in range(4)]
SIZES = [(64, 96), (97, 131), (45, 203)]


def settings(name):
    return f'kind = "convnext"\nname = "{name}"\nwidth = {WIDTH}\nlayers = {LAYERS}\n'


def by_transformers(name, file, config, kind):
    config = config(
        depths=LAYERS, hidden_sizes=WIDTHS, out_features=[f"stage{s}" for s in range(1, 5)])
    model = kind(config)
    write(file, settings(name), model, SIZES, lambda model, images: model(images).feature_maps,
          saved=as_saved(model), of=f"transformers {transformers.__version__}, {kind.__name__}")


def by_timm(name, file, **changes):
    model = timm.models.convnext.ConvNeXt(depths=LAYERS, dims=WIDTHS, num_classes=5, **changes)

    def forward(model, images):
        x, maps = model.stem(images), []
        for stage in model.stages:
            x = stage(x)
            maps.append(normed(x.permute(0, 2, 3, 1), 1e-6))
        return maps

    write(file, settings(name), model, SIZES[1:2], forward, of=f"timm {timm.__version__}")


def by_torchvision():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    blocks = [CNBlockConfig(w, w * 2 if w < WIDTHS[3] else None, n) for w, n in zip(WIDTHS, LAYERS)]
    model = ConvNeXt(blocks, num_classes=5)

    def forward(model, images):
        x, maps = images, []
        for i, part in enumerate(model.features):
            x = part(x)
            if i % 2 == 1:
                maps.append(normed(x.permute(0, 2, 3, 1), 1e-6))
        return maps

    write("convnext_torchvision", settings("convnext_t"), model, SIZES[1:2], forward,
          of=f"torchvision {torchvision.__version__}")


def main():
    by_transformers(
        "convnext_t", "convnext_huggingface", transformers.ConvNextConfig,
        transformers.ConvNextBackbone)
    by_transformers(
        "convnext_v2_t", "convnext_v2_huggingface", transformers.ConvNextV2Config,
        transformers.ConvNextV2Backbone)
    by_timm("convnext_t", "convnext_timm")
    by_timm("convnext_v2_t", "convnext_v2_timm", use_grn=True, ls_init_value=None)
    by_torchvision()
