"""Golden file of Detic's heads: three stages against text on a tiny pyramid, in f64.

    python reference/detic.py

What Detic (facebookresearch/Detic, Apache-2.0) computes, written anew: two layers with ReLU; a projection with a
bias, of length one, times 50, against the classes' text of length one and a column of zeros for the background;
boxes by two layers with ReLU between. Writes detic.pth, the weights under Detic's names (with the proposals of a
region proposal network), and detic.safetensors, what the stages say of boxes, below
crates/richsem/tests/fixtures/rcnn. The backbone and pyramid are those of `rcnn.py`.
"""

import torch
from safetensors.torch import save_file
from torchvision.ops import roi_align

import rcnn

DIM, TEXT, STAGES = 8, 12, 3
# All are read from P2.
BOXES = [[0, 3.0, 8.0, 50.0, 100.0], [0, 20.0, 10.0, 60.0, 50.5], [1, 2.0, 4.0, 40.0, 80.0], [1, 11.5, 30.0, 44.0, 61.0]]


def main():
    torch.set_num_threads(1)
    model = rcnn.detector().eval()
    generator = torch.Generator().manual_seed(21)

    def draw(*size, std=None):
        std = (2.0 / size[-1]) ** 0.5 if std is None else std
        return (torch.randn(size, generator=generator, dtype=torch.float) * std).double()

    # [TEXT, C + 1], each column of length one, the last zero.
    text = torch.nn.functional.normalize(draw(TEXT, rcnn.CLASSES), dim=0)
    text = torch.cat([text, torch.zeros(TEXT, 1)], 1).float().double()
    state = {rcnn.theirs(name): x for name, x in model.backbone.state_dict().items()}
    for ours, theirs in (("conv.0.0", "conv"), ("cls_logits", "objectness_logits"), ("bbox_pred", "anchor_deltas")):
        for leaf in ("weight", "bias"):
            state[f"proposal_generator.rpn_head.{theirs}.{leaf}"] = model.rpn.head.state_dict()[f"{ours}.{leaf}"]
    for k in range(STAGES):
        head, predictor = f"roi_heads.box_head.{k}", f"roi_heads.box_predictor.{k}"
        for name, out, given in (
            (f"{head}.fc1", DIM, rcnn.FPN * 49),
            (f"{head}.fc2", DIM, DIM),
            (f"{predictor}.cls_score.linear", TEXT, DIM),
            (f"{predictor}.bbox_pred.0", DIM, DIM),
            (f"{predictor}.bbox_pred.2", 4, DIM),
        ):
            state[f"{name}.weight"], state[f"{name}.bias"] = draw(out, given), draw(out, std=0.1)
        state[f"{predictor}.cls_score.zs_weight"] = text

    with torch.no_grad():
        _, images, _ = rcnn.batch()
        p2 = model.backbone(images)["0"]
        boxes = torch.tensor(BOXES, dtype=torch.float64)
        pooled = roi_align(p2, boxes, 7, 0.25, 0, aligned=True).flatten(1)
        out = {"boxes": boxes}

        def layer(name, x):
            return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

        for k in range(STAGES):
            x = layer(f"roi_heads.box_head.{k}.fc2", layer(f"roi_heads.box_head.{k}.fc1", pooled).relu()).relu()
            predictor = f"roi_heads.box_predictor.{k}"
            seen = 50 * torch.nn.functional.normalize(layer(f"{predictor}.cls_score.linear", x), dim=1)
            logits = seen @ torch.nn.functional.normalize(text, dim=0)
            assert (logits[:, -1] == 0).all()
            # Its inference drops the background's column behind the sigmoid.
            out[f"probabilities.{k}"] = logits.sigmoid()[:, :-1]
            out[f"logits.{k}"] = logits[:, :-1]
            out[f"deltas.{k}"] = layer(f"{predictor}.bbox_pred.2", layer(f"{predictor}.bbox_pred.0", x).relu())
    path = rcnn.FOLDER / "detic.safetensors"
    save_file({name: x.contiguous() for name, x in out.items()}, path)
    path.chmod(0o644)
    torch.save({"model": {name: x.float() for name, x in state.items()}}, rcnn.FOLDER / "detic.pth")
    print({name: round(x.abs().mean().item(), 3) for name, x in out.items()})
    print(path.stat().st_size, (rcnn.FOLDER / "detic.pth").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
