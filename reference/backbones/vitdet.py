"""ViTDet: the trunk by transformers, the simple feature pyramid from PyTorch's layers (as detectron2 has it)."""

import torch
import transformers

from .record import as_saved, write

WIDTH, HEADS, DEPTH, OUT = 48, 3, 4, 12


class ChannelNorm(torch.nn.LayerNorm):
    """Over the channels of [B, C, H, W]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Conv(torch.nn.Conv2d):
    """Without bias, and a norm behind it."""

    def __init__(self, channels, out, kernel):
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(out, eps=1e-6)

    def forward(self, x):
        return self.norm(super().forward(x))


def pyramid():
    def double(channels):
        return torch.nn.ConvTranspose2d(channels, channels // 2, 2, 2)

    sizes = {
        2: [double(WIDTH), ChannelNorm(WIDTH // 2, eps=1e-6), torch.nn.GELU(), double(WIDTH // 2)],
        3: [double(WIDTH)],
        4: [],
        5: [torch.nn.MaxPool2d(2, 2)],
    }
    channels = {2: WIDTH // 4, 3: WIDTH // 2, 4: WIDTH, 5: WIDTH}
    levels = torch.nn.ModuleDict()
    for level, parts in sizes.items():
        convs = [Conv(channels[level], OUT, 1), Conv(OUT, OUT, 3)]
        levels[f"simfp_{level}"] = torch.nn.Sequential(*parts, *convs)
    return levels


class Model(torch.nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.pyramid = trunk, pyramid()

    def forward(self, images):
        x = self.trunk(images).feature_maps[-1]
        return [level(x) for level in self.pyramid.values()]


def main():
    config = transformers.VitDetConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=DEPTH, image_size=160,
        pretrain_image_size=64, window_size=4, window_block_indices=[0, 2],
        use_relative_position_embeddings=True, drop_path_rate=0.0, out_features=[f"stage{DEPTH}"])
    model = Model(transformers.VitDetBackbone(config))
    saved = {**as_saved(model.trunk), **model.pyramid.state_dict(keep_vars=True)}
    settings = (
        f'kind = "vit"\nwidth = {WIDTH}\nheads = {HEADS}\ndepth = {DEPTH}\nwindow = 4\n'
        f'global_blocks = [1, 3]\nposition_grid = 4\nrelative_grid = 10\npyramid_width = {OUT}\n')
    write("vitdet_huggingface", settings, model, [(160, 160), (96, 208), (100, 150)],
          lambda model, images: model(images), saved=saved,
          of=f"transformers {transformers.__version__}, VitDetBackbone")
