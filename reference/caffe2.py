"""Golden file of a Faster R-CNN of detectron2's older model zoo: a ResNet-50, narrow, under Caffe2's names.

    python reference/caffe2.py

Writes caffe2.pkl, a pickle of NumPy arrays as the zoo has it (blue first, the stride in the first 1x1 convolution,
norms that only scale and shift, momenta of the optimizer beside the weights), and caffe2.safetensors, what
torchvision's modules compute with these weights in f64, below crates/richsem/tests/fixtures/rcnn. detectron2's
`checkpoint/c2_model_loading.py` says which name is what.
"""

import pickle

import torch
from safetensors.torch import save_file
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

import rcnn

LAYERS, WIDTH, CLASSES, DIM = (3, 4, 6, 3), 2, 3, 8
BOXES = [[0, 3.0, 8.0, 50.0, 100.0], [1, 2.0, 4.0, 40.0, 80.0], [1, 11.5, 30.0, 44.0, 61.0]]


def body():
    net = ResNet.__new__(ResNet)
    torch.nn.Module.__init__(net)
    net._norm_layer, net.inplanes, net.dilation = FrozenBatchNorm2d, WIDTH, 1
    net.groups, net.base_width = 1, 64
    net.conv1 = torch.nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
    net.bn1, net.relu, net.maxpool = FrozenBatchNorm2d(WIDTH), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1)
    for stage, blocks in enumerate(LAYERS):
        layer = net._make_layer(Bottleneck, WIDTH << stage, blocks, stride=1 if stage == 0 else 2)
        setattr(net, f"layer{stage + 1}", layer)
        if stage > 0:
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return net


def theirs(name):
    """Caffe2's name of a parameter of body or pyramid."""
    parts = name.split(".")
    if parts[0] in ("inner_blocks", "layer_blocks"):
        level = int(parts[1])
        leaf = {"weight": "w", "bias": "b"}[parts[3]]
        stage = f"res{level + 2}_{LAYERS[level] - 1}_sum"
        if parts[0] == "layer_blocks":
            return f"fpn_{stage}_{leaf}"
        return f"fpn_inner_{stage}{'_lateral' if level < 3 else ''}_{leaf}"
    leaf = {"weight": "s", "bias": "b"}[parts[-1]]
    if parts[0] == "conv1":
        return "conv1_w"
    if parts[0] == "bn1":
        return f"res_conv1_bn_{leaf}"
    block = f"res{int(parts[0][5:]) + 1}_{parts[1]}"
    branch = "branch1" if parts[2] == "downsample" else "branch2" + "abc"[int(parts[2][-1]) - 1]
    norm = parts[2].startswith("bn") or parts[2:4] == ["downsample", "1"]
    return f"{block}_{branch}_bn_{leaf}" if norm else f"{block}_{branch}_w"


def main():
    torch.set_num_threads(1)
    net = body().double()
    pyramid = FeaturePyramidNetwork([WIDTH * 4 << i for i in range(4)], rcnn.FPN, LastLevelMaxPool()).double()
    generator = torch.Generator().manual_seed(31)

    def draw(x, std, mean=0.0):
        x.copy_((torch.randn(x.shape, generator=generator, dtype=torch.float) * std + mean).to(torch.float))

    blobs = {}
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
        for name, x in [*net.state_dict().items(), *pyramid.state_dict().items()]:
            if "running" in name:
                x.fill_(1.0 if name.endswith("var") else 0.0)
                continue
            if x.dim() > 1:
                draw(x, (2.0 / x[0].numel()) ** 0.5 * (0.3 if "conv3" in name else 1.0))
            else:
                draw(x, 0.2, 1.0 if name.endswith("weight") else 0.0)
            blobs[theirs(name)] = x
        for name, *size in (
            ("conv_rpn_fpn2", rcnn.FPN, rcnn.FPN, 3, 3),
            ("rpn_cls_logits_fpn2", 3, rcnn.FPN, 1, 1),
            ("rpn_bbox_pred_fpn2", 12, rcnn.FPN, 1, 1),
            ("fc6", DIM, rcnn.FPN * 49),
            ("fc7", DIM, DIM),
            ("cls_score", CLASSES + 1, DIM),
            ("bbox_pred", 4 * (CLASSES + 1), DIM),
        ):
            weight, bias = torch.zeros(size, dtype=torch.float64), torch.zeros(size[0], dtype=torch.float64)
            draw(weight, (2.0 / weight[0].numel()) ** 0.5)
            draw(bias, 0.1)
            blobs[f"{name}_w"], blobs[f"{name}_b"] = weight, bias

        pixels, _, _ = rcnn.batch()
        # Red, green, blue, smooth, from 0 to 255 less the mean; the weights see blue first.
        smooth = torch.nn.functional.avg_pool2d(pixels.double(), 9, 1, 4)
        images = smooth - torch.tensor([123.675, 116.28, 103.53]).double().view(3, 1, 1)
        x = net.maxpool(net.relu(net.bn1(net.conv1(images.flip(1)))))
        maps = {}
        for i in range(4):
            x = getattr(net, f"layer{i + 1}")(x)
            maps[str(i)] = x
        levels = list(pyramid(maps).values())
        # Of P2 the boxes' features say enough.
        out = {f"pyramid.{i}": x for i, x in enumerate(levels) if i > 0}

        def conv(x, name):
            weight = blobs[f"{name}_w"]
            return torch.nn.functional.conv2d(x, weight, blobs[f"{name}_b"], padding=weight.shape[-1] // 2)

        def flat(x, numbers):
            b, _, h, w = x.shape
            return x.view(b, 3, numbers, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, numbers)

        hidden = [conv(x, "conv_rpn_fpn2").relu() for x in levels]
        out["rpn_logits"] = torch.cat([flat(conv(x, "rpn_cls_logits_fpn2"), 1) for x in hidden[1:]], 1).squeeze(2)
        out["rpn_deltas"] = torch.cat([flat(conv(x, "rpn_bbox_pred_fpn2"), 4) for x in hidden[1:]], 1)

        def layer(x, name):
            return x @ blobs[f"{name}_w"].T + blobs[f"{name}_b"]

        out["boxes"] = torch.tensor(BOXES, dtype=torch.float64)
        pooled = roi_align(levels[0], out["boxes"], 7, 0.25, 0, aligned=True).flatten(1)
        x = layer(layer(pooled, "fc6").relu(), "fc7").relu()
        logits = layer(x, "cls_score")
        # The background is first in the file, and last here; its boxes are nobody's.
        out["logits"] = torch.cat([logits[:, 1:], logits[:, :1]], 1)
        out["deltas"] = layer(x, "bbox_pred")[:, 4:]
    arrays = {name: x.float().numpy() for name, x in blobs.items()}
    arrays |= {f"{name}_momentum": x * 0 for name, x in arrays.items() if name.startswith("fc7")}
    arrays["lr"] = torch.tensor([0.02]).numpy()
    with open(rcnn.FOLDER / "caffe2.pkl", "wb") as file:
        pickle.dump({"blobs": arrays}, file, protocol=2)
    path = rcnn.FOLDER / "caffe2.safetensors"
    save_file({name: x.float().contiguous() for name, x in out.items()}, path)
    path.chmod(0o644)
    print({name: (list(x.shape), round(x.abs().mean().item(), 3)) for name, x in out.items()})
    print(path.stat().st_size, (rcnn.FOLDER / "caffe2.pkl").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
