"""The simple feature pyramid on a plain vision transformer, from PyTorch's layers (as detectron2 has it)."""

import torch


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


def pyramid(width, out):
    def double(channels):
        return torch.nn.ConvTranspose2d(channels, channels // 2, 2, 2)

    sizes = {
        2: [double(width), ChannelNorm(width // 2, eps=1e-6), torch.nn.GELU(), double(width // 2)],
        3: [double(width)],
        4: [],
        5: [torch.nn.MaxPool2d(2, 2)],
    }
    channels = {2: width // 4, 3: width // 2, 4: width, 5: width}
    levels = torch.nn.ModuleDict()
    for level, parts in sizes.items():
        convs = [Conv(channels[level], out, 1), Conv(out, out, 3)]
        levels[f"simfp_{level}"] = torch.nn.Sequential(*parts, *convs)
    return levels


class Model(torch.nn.Module):
    """A backbone with the pyramid. `features(backbone, images)` gives [B, C, h, w]."""

    def __init__(self, backbone, features, width, out):
        super().__init__()
        self.backbone, self.pyramid, self.features = backbone, pyramid(width, out), features

    def forward(self, images):
        x = self.features(self.backbone, images)
        return [level(x) for level in self.pyramid.values()]
