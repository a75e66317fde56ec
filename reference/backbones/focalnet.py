"""FocalNets, by transformers and timm."""

import timm
import transformers

from .record import as_saved, normed, write

WIDTH, LAYERS = 16, [2, 1, 2, 1]


def by_transformers(name, settings, sizes, **changes):
    """Its own maps are after the merge: hooks take those before it."""
    config = transformers.FocalNetConfig(**{**dict(
        embed_dim=WIDTH, depths=LAYERS, hidden_sizes=[WIDTH << s for s in range(4)],
        drop_path_rate=0.0, out_features=["stage4"]), **changes})
    model = transformers.FocalNetBackbone(config)
    maps = []

    def keep(block, inputs, output):
        batch, _, channels = output.shape
        maps.append((output, batch, channels))

    for stage in model.focalnet.encoder.stages:
        stage.layers[-1].register_forward_hook(keep)

    def forward(model, images):
        maps.clear()
        model(images)
        height, width = (-(-side // 4) for side in images.shape[2:])
        found = []
        for output, batch, channels in maps:
            found.append(normed(output.view(batch, height, width, channels)))
            height, width = -(-height // 2), -(-width // 2)
        return found

    settings = f'kind = "focalnet"\nwidth = {WIDTH}\nlayers = {LAYERS}\n{settings}'
    write(name, settings, model, sizes, forward, saved=as_saved(model),
          of=f"transformers {transformers.__version__}, FocalNetBackbone")


def by_timm(name, settings, size, **changes):
    model = timm.models.focalnet.FocalNet(
        embed_dim=WIDTH, depths=LAYERS, num_classes=5, **changes)

    def forward(model, images):
        x, maps = model.stem(images), []
        for stage in model.layers:
            x = stage(x)
            maps.append(normed(x.permute(0, 2, 3, 1)))
        return maps

    settings = f'kind = "focalnet"\nwidth = {WIDTH}\nlayers = {LAYERS}\n{settings}'
    write(name, settings, model, [size], forward, of=f"timm {timm.__version__}")


def main():
    sizes = [(64, 64), (97, 131), (31, 203)]
    by_transformers(
        "focalnet_huggingface_small", 'name = "focalnet_t"\nfocal_levels = 3\n', sizes,
        focal_levels=[3] * 4, focal_windows=[3] * 4)
    by_transformers(
        "focalnet_huggingface_large", 'name = "focalnet_l"\nfocal_levels = 4\n', sizes,
        focal_levels=[4] * 4, focal_windows=[3] * 4, use_conv_embed=True, use_post_layernorm=True,
        use_layerscale=True, normalize_modulator=True)
    by_transformers(
        "focalnet_huggingface_huge", 'name = "focalnet_h"\nfocal_levels = 3\n', [(97, 131)],
        focal_levels=[3] * 4, focal_windows=[3] * 4, use_conv_embed=True, use_post_layernorm=True,
        use_layerscale=True, use_post_layernorm_in_modulation=True)
    by_timm(
        "focalnet_timm_small", 'name = "focalnet_t"\nfocal_levels = 2\n', (128, 96),
        focal_levels=(2,) * 4)
    by_timm(
        "focalnet_timm_huge", 'name = "focalnet_h"\n', (64, 96),
        focal_levels=(4,) * 4, focal_windows=(3,) * 4, use_overlap_down=True, use_post_norm=True,
        use_post_norm_in_modulation=True, layerscale_value=1e-4)
