"""Golden files of Faster R-CNN: a tiny detector of torchvision's own classes, in f64.

    python rcnn.py

Writes crates/richsem/tests/fixtures/rcnn/torchvision.safetensors: weights under this project's names, a
batch, and what torchvision makes of it: pyramid, anchors, proposals, losses, gradients, detections. And
torchvision.pth, the same model as torch.save writes it. Losses
do not depend on a random generator: all anchors and boxes take part. The canvas around the second image is
noise, so that no two scores are equal.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

FOLDER = Path(__file__).resolve().parents[1] / "crates/richsem/tests/fixtures/rcnn"
CLASSES, WIDTH, FPN, DIM = 5, 2, 8, 16
HEIGHT, BREADTH = 128, 64
SIZES = [(128, 64), (96, 48)]
ALL = 10**6


def resnet():
    """torchvision's ResNet of one basic block a stage, WIDTH channels wide."""
    net = ResNet.__new__(ResNet)
    nn.Module.__init__(net)
    net._norm_layer, net.inplanes, net.dilation = FrozenBatchNorm2d, WIDTH, 1
    net.groups, net.base_width = 1, 64
    net.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
    net.bn1, net.relu, net.maxpool = FrozenBatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    for stage in range(4):
        layer = net._make_layer(BasicBlock, WIDTH << stage, 1, stride=1 if stage == 0 else 2)
        setattr(net, f"layer{stage + 1}", layer)
    return net


def detector():
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    channels = [WIDTH << i for i in range(4)]
    backbone = BackboneWithFPN(resnet(), layers, channels, FPN, LastLevelMaxPool())
    anchors = AnchorGenerator(tuple((s,) for s in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        box_head=TwoMLPHead(FPN * 49, DIM),
        box_predictor=FastRCNNPredictor(DIM, CLASSES + 1),
        rpn_batch_size_per_image=ALL,
        box_batch_size_per_image=ALL,
        rpn_post_nms_top_n_train=60,
        rpn_post_nms_top_n_test=40,
        rpn_pre_nms_top_n_train=150,
        rpn_pre_nms_top_n_test=100,
    )
    generator = torch.Generator().manual_seed(7)

    def draw(x, std, mean=0.0):
        # Weights are stored in f32: the model computes with what is stored.
        x.copy_((torch.randn(x.shape, generator=generator, dtype=torch.float) * std + mean).to(torch.float))

    with torch.no_grad():
        for name, x in model.state_dict().items():
            if name.endswith("running_var"):
                x.copy_(torch.rand(x.shape, generator=generator, dtype=torch.float) + 0.5)
            elif ".bn" in name or "downsample.1" in name:
                draw(x, 0.2, 1.0 if name.endswith("weight") else 0.0)
            elif x.dim() > 1:
                fan_in = x[0].numel()
                draw(x, (2.0 / fan_in) ** 0.5 * (0.3 if "bbox_pred" in name or "predictor" in name else 1.0))
            else:
                draw(x, 0.1)
    return model.double()


def own(name, x):
    """This project has the background last among the classes, and no boxes for it."""
    if name.startswith("roi_heads.box_predictor.cls_score"):
        x = torch.cat([x[1:], x[:1]])
    elif name.startswith("roi_heads.box_predictor.bbox_pred"):
        x = x[4:]
    return name, x


def theirs(name):
    """detectron2's name of a parameter or buffer of torchvision's backbone and pyramid, by the table of its
    tools/convert-torchvision-to-d2.py."""
    for ours, d2 in (
        ("fpn.inner_blocks.0.0", "fpn_lateral2"),
        ("fpn.inner_blocks.1.0", "fpn_lateral3"),
        ("fpn.inner_blocks.2.0", "fpn_lateral4"),
        ("fpn.inner_blocks.3.0", "fpn_lateral5"),
        ("fpn.layer_blocks.0.0", "fpn_output2"),
        ("fpn.layer_blocks.1.0", "fpn_output3"),
        ("fpn.layer_blocks.2.0", "fpn_output4"),
        ("fpn.layer_blocks.3.0", "fpn_output5"),
    ):
        name = name.replace(ours, d2)
    if not name.startswith("body."):
        return f"backbone.{name}"
    k = name.removeprefix("body.")
    if "layer" not in k:
        k = "stem." + k
    for t in [1, 2, 3, 4]:
        k = k.replace(f"layer{t}", f"res{t + 1}")
    for t in [1, 2, 3]:
        k = k.replace(f"bn{t}", f"conv{t}.norm")
    return "backbone.bottom_up." + k.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def batch():
    """Pixels, images and targets. Images are smooth: noise would make all scores alike. Boxes are nearly as
    large as an anchor: where a box lies in several anchors of one area, or they in it, which of them overlaps
    it most is a matter of rounding."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, HEIGHT, BREADTH), generator=generator, dtype=torch.uint8)
    targets = [
        {
            "boxes": torch.tensor([[5, 9, 26, 53], [17, 33, 60, 119], [1, 70, 31, 100]]).double(),
            "labels": torch.tensor([1, 5, 2]),
        },
        {"boxes": torch.tensor([[3, 39, 48, 60], [18, 6, 39, 48]]).double(), "labels": torch.tensor([3, 3])},
    ]
    images = torch.nn.functional.avg_pool2d(pixels.double() / 255, 9, 1, 4) * 6 - 3
    return pixels, images, targets


def stored(name, x):
    """Numbers that decide in f64, others in f32."""
    x = x.detach().clone().contiguous()
    exact = name.startswith(("losses", "detections", "proposals", "anchors"))
    return x if exact or not x.is_floating_point() else x.to(torch.float)


def main():
    torch.set_num_threads(1)
    # torchvision asks for labels in f32 by name.
    torch.float32 = torch.float64
    model = detector()
    pixels, images, targets = batch()
    out = {"pixels": pixels}
    for i, target in enumerate(targets):
        out[f"boxes.{i}"], out[f"labels.{i}"] = target["boxes"], target["labels"] - 1
    for name, x in map(lambda item: own(*item), model.state_dict().items()):
        out[f"weights.{name}"] = x

    model.train()
    features = model.backbone(images)
    listed = ImageList(images, SIZES)
    for i, (_, x) in enumerate(features.items()):
        out[f"pyramid.{i}"] = x
    for i, x in enumerate(model.rpn.anchor_generator(listed, list(features.values()))[:1]):
        out["anchors"] = x
    proposals, losses = model.rpn(listed, features, targets)
    for i, x in enumerate(proposals):
        out[f"proposals.{i}"] = x
    _, more = model.roi_heads(features, proposals, SIZES, targets)
    losses |= more
    names = {
        "loss_objectness": "loss_rpn_cls",
        "loss_rpn_box_reg": "loss_rpn_loc",
        "loss_classifier": "loss_cls",
        "loss_box_reg": "loss_box_reg",
    }
    for name, loss in losses.items():
        out[f"losses.{names[name]}"] = loss
    # Each term has a weight of its own, so that no error of one hides in another.
    sum(loss * weight for loss, weight in zip(losses.values(), (1.0, 0.7, 1.3, 0.9))).backward()
    for name, parameter in model.named_parameters():
        out[f"gradients.{name}"] = own(name, parameter.grad)[1]

    model.eval()
    with torch.no_grad():
        features = model.backbone(images)
        proposals, _ = model.rpn(listed, features)
        found, _ = model.roi_heads(features, proposals, SIZES)
    for i, one in enumerate(found):
        print(len(one["boxes"]), "detections,", len(proposals[i]), "proposals; best", one["scores"][:3].tolist())
        out[f"detections.{i}"] = torch.cat([one["boxes"], one["scores"][:, None], one["labels"][:, None] - 1.0], 1)
    print({name: x.item() for name, x in losses.items()})

    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "torchvision.safetensors"
    save_file({name: stored(name, x) for name, x in out.items()}, path)
    path.chmod(0o644)
    print(path.stat().st_size, "bytes")
    # As a user has it.
    state = {name: x.to(torch.float) for name, x in model.state_dict().items()}
    torch.save(state, FOLDER / "torchvision.pth")


if __name__ == "__main__":
    main()
