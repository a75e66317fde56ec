"""Golden files of Faster and Cascade R-CNN: tiny heads of detectron2's own classes, in f64.

    python rcnn_detectron2.py CHECKOUT

CHECKOUT is facebookresearch/detectron2 (02b5c4e), whose Python runs uncompiled (fvcore, iopath, omegaconf,
pycocotools and what they need must be installed). Writes detectron2.safetensors (softmax, boxes for each class)
and cascade.safetensors (three stages, sigmoid, one box for all classes) below
crates/richsem/tests/fixtures/rcnn. The backbone and pyramid are those of `rcnn.py`, whose numbers
torchvision's file holds.
"""

import pickle
import sys

import torch
import torchvision
from safetensors.torch import save_file

import rcnn

# detectron2 asks for f32 by name.
torch.set_default_dtype(torch.float64)
torch.float32 = torch.float64
torch.Tensor.float = torch.Tensor.double
sys.path.insert(0, sys.argv[1])

from detectron2.layers import ShapeSpec  # noqa: E402
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator  # noqa: E402
from detectron2.modeling.box_regression import Box2BoxTransform  # noqa: E402
from detectron2.modeling.matcher import Matcher  # noqa: E402
from detectron2.modeling.poolers import ROIPooler  # noqa: E402
from detectron2.modeling.proposal_generator import proposal_utils  # noqa: E402
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead  # noqa: E402
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads  # noqa: E402
from detectron2.modeling.roi_heads import fast_rcnn  # noqa: E402
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead  # noqa: E402
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers  # noqa: E402
from detectron2.structures import Boxes, ImageList, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

# Its own casts to f32.
proposal_utils.batched_nms = fast_rcnn.batched_nms = torchvision.ops.batched_nms
LEVELS = ["p2", "p3", "p4", "p5", "p6"]


def proposals():
    sizes = [[32], [64], [128], [256], [512]]
    strides = [4, 8, 16, 32, 64]
    return RPN(
        in_features=LEVELS,
        head=StandardRPNHead(in_channels=rcnn.FPN, num_anchors=3),
        anchor_generator=DefaultAnchorGenerator(sizes=sizes, aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides, offset=0.0),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=rcnn.ALL,
        positive_fraction=0.5,
        pre_nms_topk=(150, 100),
        post_nms_topk=(60, 40),
        nms_thresh=0.7,
    )


def heads(ious):
    stages = len(ious)
    shape = ShapeSpec(channels=rcnn.FPN, height=7, width=7)
    head = [FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[rcnn.DIM, rcnn.DIM]) for _ in ious]
    predictor = [
        FastRCNNOutputLayers(
            ShapeSpec(channels=rcnn.DIM),
            box2box_transform=Box2BoxTransform(tuple(w * (k + 1) for w in (10.0, 10.0, 5.0, 5.0))),
            num_classes=rcnn.CLASSES,
            test_score_thresh=0.05,
            cls_agnostic_bbox_reg=stages > 1,
            use_sigmoid_ce=stages > 1,
        )
        for k in range(stages)
    ]
    common = dict(
        num_classes=rcnn.CLASSES,
        batch_size_per_image=rcnn.ALL,
        positive_fraction=0.25,
        box_in_features=LEVELS[:4],
        box_pooler=ROIPooler(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
    )
    matchers = [Matcher([iou], [0, 1], allow_low_quality_matches=False) for iou in ious]
    if stages > 1:
        return CascadeROIHeads(box_heads=head, box_predictors=predictor, proposal_matchers=matchers, **common)
    return StandardROIHeads(box_head=head[0], box_predictor=predictor[0], proposal_matcher=matchers[0], **common)


def own(name, x, sigmoid):
    """The name of a parameter of rpn or heads here."""
    for theirs, ours in (
        ("rpn.rpn_head.conv.", "rpn.head.conv.0.0."),
        ("rpn.rpn_head.objectness_logits.", "rpn.head.cls_logits."),
        ("rpn.rpn_head.anchor_deltas.", "rpn.head.bbox_pred."),
    ):
        name = name.replace(theirs, ours)
    name = name.replace(".fc1.", ".fc6.").replace(".fc2.", ".fc7.")
    # With a sigmoid the background's row is computed and never looked at.
    return name, x[:-1] if sigmoid and ".cls_score." in name else x


def case(name, ious):
    model = rcnn.detector()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    backbone = model.backbone
    rpn, roi = proposals(), heads(ious)
    generator = torch.Generator().manual_seed(11)
    parts = {"rpn": rpn, "roi_heads": roi}
    own_names = {}
    with torch.no_grad():
        for part, module in parts.items():
            for key, x in module.named_parameters(prefix=part):
                std = (2.0 / x[0].numel()) ** 0.5 if x.dim() > 1 else 0.1
                # Small codes: boxes of objects stay theirs through all stages.
                std *= 0.05 if "bbox_pred" in key else 0.3 if "cls_score" in key or "anchor_deltas" in key else 1.0
                x.copy_((torch.randn(x.shape, generator=generator, dtype=torch.float64) * std).to(torch.float))
    if name == "detectron2":
        state = {rcnn.theirs(key): x for key, x in backbone.state_dict().items()}
        state |= {f"proposal_generator.{key}": x for key, x in rpn.state_dict().items()}
        state |= {f"roi_heads.{key}": x for key, x in roi.state_dict().items()}
        state = {key: x.to(torch.float).numpy() for key, x in state.items()}
        # As the model zoo has it.
        with open(rcnn.FOLDER / "detectron2.pkl", "wb") as file:
            pickle.dump({"model": state, "__author__": "rcnn_detectron2.py"}, file, protocol=2)
    pixels, images, targets = rcnn.batch()
    out = {}
    sigmoid = len(ious) > 1
    for part, module in parts.items():
        for key, x in module.named_parameters(prefix=part):
            ours, value = own(key, x, sigmoid)
            own_names[key] = ours
            out[f"weights.{ours}"] = value
    features = dict(zip(LEVELS, backbone(images).values()))
    listed = ImageList(images, rcnn.SIZES)
    truth = []
    for size, target in zip(rcnn.SIZES, targets):
        one = Instances(size)
        one.gt_boxes, one.gt_classes = Boxes(target["boxes"]), target["labels"] - 1
        truth.append(one)
    with EventStorage():
        found, losses = rpn(listed, features, truth)
        for i, one in enumerate(found):
            out[f"proposals.{i}"] = one.proposal_boxes.tensor
        _, more = roi(listed, features, found, truth)
    losses |= more
    for key, loss in losses.items():
        out[f"losses.{key}"] = loss
    print({key: loss.item() for key, loss in losses.items()})
    weights = {"loss_rpn_cls": 1.0, "loss_rpn_loc": 0.7, "loss_cls": 1.3, "loss_box_reg": 0.9}
    sum(loss * weights[key.split("_stage")[0]] for key, loss in losses.items()).backward()
    for part, module in parts.items():
        for key, x in module.named_parameters(prefix=part):
            out[f"gradients.{own_names[key]}"] = own(key, x.grad, sigmoid)[1]
    for module in parts.values():
        module.eval()
    with torch.no_grad():
        found, _ = rpn(listed, features)
        detected, _ = roi(listed, features, found)
    for i, one in enumerate(detected):
        rows = [one.pred_boxes.tensor, one.scores[:, None], one.pred_classes[:, None].double()]
        out[f"detections.{i}"] = torch.cat(rows, 1)
        print(len(one), "detections; best", one.scores[:3].tolist())
    path = rcnn.FOLDER / f"{name}.safetensors"
    save_file({key: rcnn.stored(key, x) for key, x in out.items()}, path)
    path.chmod(0o644)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    case("detectron2", [0.5])
    case("cascade", [0.5, 0.6, 0.7])
