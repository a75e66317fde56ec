"""torchvision's Faster R-CNN as detector.py and real.py time it: ResNet-50 with a pyramid, frozen norms, the last
three stages trained, random weights. Images are neither resized nor normalised twice: its transform does what it
always does but the resizing. SGD with momentum (fused) updates, as its recipe has it."""

import torch
from common import fail, need
from work import Work


class FasterRcnn(Work):
    """The model and the batch it works on."""

    def build(self):
        need("torchvision")
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.models.resnet import Bottleneck
        from torchvision.ops.misc import FrozenBatchNorm2d
        torch.manual_seed(0)
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3,
                                       norm_layer=FrozenBatchNorm2d)
        # Without statistics residual sums would grow from block to block.
        for module in backbone.modules():
            if isinstance(module, Bottleneck):
                module.bn3.weight.fill_(0.2)
        model = FasterRCNN(backbone, num_classes=self.args.classes + 1, _skip_resize=True)
        return model.to(self.args.device).to(memory_format=self.layout)

    def input(self):
        return [image.float().div_(255) for image in self.upload(self.images)]

    def targets(self):
        scale = torch.tensor([self.images.shape[3], self.images.shape[2]] * 2, device=self.args.device)
        middle, sides = self.upload(self.boxes).chunk(2, dim=-1)
        boxes = torch.cat([middle - sides / 2, middle + sides / 2], -1) * scale
        labels = self.upload(self.labels) + 1  # 0 is the background
        return [{"boxes": b, "labels": c} for b, c in zip(boxes, labels)]

    def training(self):
        model = self.model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-10, momentum=0.9, weight_decay=1e-4, fused=True)

        def step():
            images, targets = self.input(), self.targets()
            with self.autocast():
                loss = sum(model(images, targets).values())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if not loss.item() < float("inf"):
                fail(f"torchvision's loss is {loss.item()}")

        return step

    def inference(self):
        model = self.model.eval()

        def detect():
            with torch.inference_mode(), self.autocast():
                found = model(self.input())
            return [{name: x.cpu() for name, x in one.items()} for one in found]

        return detect
