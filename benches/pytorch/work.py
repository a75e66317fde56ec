"""What detector.py and real.py time: a model and the batch it works on. This one is transformers' Deformable DETR."""

from common import fail, need


def build(args, torch, layout):
    transformers = need("transformers")
    need("scipy")  # the matching
    transformers.logging.set_verbosity_error()
    backbone = transformers.ResNetConfig(out_features=["stage2", "stage3", "stage4"])
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        num_queries=args.queries, two_stage=True, two_stage_num_proposals=args.queries,
        with_box_refine=True, num_feature_levels=4, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
        dropout=0.0, auxiliary_loss=True, num_labels=args.classes)
    torch.manual_seed(0)
    model = transformers.DeformableDetrForObjectDetection(config)
    # As our detector and the paper: stem and first stage stay, the others learn. (Transformers looks
    # for timm's names of them, and would freeze a ResNet of its own altogether.)
    learned = 0
    for name, parameter in model.model.backbone.model.named_parameters():
        parameter.requires_grad_(any(f"stages.{stage}." in name for stage in (1, 2, 3)))
        learned += parameter.requires_grad
    assert learned == 3 * (4 + 6 + 3) + 3, f"the layout of transformers' ResNet has changed: {learned}"
    return model.to(args.device).to(memory_format=layout)


class Work:
    """One model and the batch it works on."""

    def __init__(self, args, torch, precision, layout):
        self.torch, self.args, self.layout = torch, args, layout
        self.cuda = args.device.type == "cuda"
        tf32 = precision != "f32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        self.autocast = lambda: torch.autocast(args.device.type, torch.bfloat16,
                                               enabled=precision == "bf16")
        self.model = self.build()
        random = torch.Generator().manual_seed(0)
        shape = (args.batch, 3, args.height, args.width)
        pin = (lambda t: t.pin_memory()) if self.cuda else (lambda t: t)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        self.images = pin(images.contiguous(memory_format=layout))
        self.mask = pin(torch.ones((args.batch, args.height, args.width), dtype=torch.bool))
        middle = torch.full((args.batch, args.boxes, 2), 0.5)
        sides = torch.rand((args.batch, args.boxes, 2), generator=random) * 0.35 + 0.05
        self.boxes = pin(torch.cat([middle, sides], 2))
        self.labels = pin(torch.randint(0, args.classes, (args.batch, args.boxes), generator=random))
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=args.device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=args.device).view(1, 3, 1, 1)

    def build(self):
        return build(self.args, self.torch, self.layout)

    def upload(self, tensor):
        return tensor.to(self.args.device, non_blocking=True)

    def input(self):
        mask = self.upload(self.mask)
        images = self.upload(self.images).float().div_(255).sub_(self.mean).div_(self.std)
        return images.masked_fill_(~mask[:, None], 0), mask

    def training(self):
        torch, model = self.torch, self.model.train()
        learned = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        groups = [{"params": [p for n, p in learned if ("backbone" in n) == backbone], "lr": lr}
                  for backbone, lr in ((False, 1e-10), (True, 1e-11))]
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)
        parameters = [p for _, p in learned]

        def step():
            images, mask = self.input()
            boxes, labels = self.upload(self.boxes), self.upload(self.labels)
            targets = [{"boxes": b, "class_labels": c} for b, c in zip(boxes, labels)]
            with self.autocast():
                loss = model(pixel_values=images, pixel_mask=mask, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            # As any training reads it; last, so that nothing waits for it.
            if not loss.item() < float("inf"):
                fail(f"PyTorch's loss is {loss.item()}")

        return step

    def inference(self):
        torch, model, args = self.torch, self.model.eval(), self.args
        scale = torch.tensor([args.width, args.height] * 2, device=args.device)
        most = min(300, args.queries * args.classes)

        def detect():
            with torch.inference_mode(), self.autocast():
                images, mask = self.input()
                output = model(pixel_values=images, pixel_mask=mask)
                scores, best = output.logits.float().sigmoid().flatten(1).topk(most, dim=1)
                query, label = best // args.classes, best % args.classes
                center, sides = output.pred_boxes.float().chunk(2, dim=-1)
                corners = torch.cat([center - sides / 2, center + sides / 2], -1) * scale
                boxes = corners.gather(1, query[..., None].expand(-1, -1, 4))
                # One transfer.
                found = torch.cat([boxes, scores[..., None], label[..., None].float()], -1)
                return found.cpu()

        return detect
