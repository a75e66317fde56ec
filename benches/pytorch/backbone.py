#!/usr/bin/env python3
"""Times torchvision's ResNet-50 with frozen norms, random weights, bf16 autocast: forward, and forward
with backward (stem and first stage not trained, as in the detector). With --backbone, ours
(crates/richsem/examples/backbone.rs) in the same table.

    benches/pytorch/backbone.py --device cuda --batch 2 --size 800x1216 --backbone target/release/examples/backbone

Contiguous and channels-last tensors, cuDNN choosing its algorithms by trial; the faster counts.
"""


from common import (command_line, cores, find_device, need, number, processor, quantiles, ratio,
                    run_json, save, size, table, timed)


def measure(torch, torchvision, args, layout_name):
    layout = torch.channels_last if layout_name == "channels_last" else torch.contiguous_format
    norm = torchvision.ops.FrozenBatchNorm2d
    torch.manual_seed(0)
    resnet = torchvision.models.resnet50(weights=None, norm_layer=norm)
    for name, parameter in resnet.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    backbone = torchvision.models._utils.IntermediateLayerGetter(
        resnet, {"layer2": "c3", "layer3": "c4", "layer4": "c5"})
    backbone = backbone.to(args.device).to(memory_format=layout).train()
    images = torch.randn(args.batch, 3, args.height, args.width, device=args.device)
    images = images.contiguous(memory_format=layout)
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    autocast = lambda: torch.autocast(args.device.type, torch.bfloat16)

    def forward():
        with torch.no_grad(), autocast():
            backbone(images)

    def both():
        with autocast():
            maps = backbone(images)
            loss = sum(m.float().mean() for m in maps.values())
        torch.autograd.grad(loss, parameters)

    synchronize = torch.cuda.synchronize if args.device.type == "cuda" else (lambda: None)
    return {"layout": layout_name,
            "forward_ms": quantiles(timed(forward, args.steps, args.warmup, synchronize))["median_ms"],
            "both_ms": quantiles(timed(both, args.steps, args.warmup, synchronize))["median_ms"]}


def main():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    add("--batch", type=int, default=2, help="images at once")
    add("--size", default="800x1216", help="their height and width, in pixels")
    add("--steps", type=int, default=20, help="runs that are timed")
    add("--warmup", type=int, default=5, help="runs before the clock starts")
    add("--threads", type=int, help="of both sides on the CPU; all cores, unless given")
    add("--backbone", metavar="PROGRAM", help="ours, to run beside it")
    add("--json", help="writes all numbers to this file")
    args = parser.parse_args()
    args.height, args.width = size(args.size)
    torch, torchvision = need("torch", "torchvision")
    args.device = find_device(torch, args.device)
    name = str(args.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if args.device.type == "cuda":
        hardware = torch.cuda.get_device_name()
    else:
        args.threads = args.threads or cores()
        torch.set_num_threads(args.threads)
        hardware = f"{processor()}, {args.threads} threads"
    mine = run_json([args.backbone, name, args.batch, args.height, args.width, args.steps, args.warmup],
                    args.threads) if args.backbone else {}
    tried = [measure(torch, torchvision, args, layout) for layout in ("contiguous", "channels_last")]
    print(f"{name}: {hardware}; PyTorch {torch.__version__}, torchvision {torchvision.__version__}\n"
          f"ResNet-50, frozen norms, bf16, batch {args.batch} of {args.height}×{args.width}; medians of "
          f"{args.steps} after {args.warmup} to warm up\n")
    rows = []
    for key, what in (("forward_ms", "forward, ms"), ("both_ms", "forward and backward, ms")):
        pair = min(run[key] for run in tried), mine.get(key)
        rows.append([what, *[number(run[key]) for run in tried], number(pair[1]), ratio(*pair)])
    table(["<backbone", *[f"PyTorch {run['layout']}" for run in tried], "ours", "PyTorch's best / ours"], rows)
    save({"hardware": hardware, "torch": torch.__version__, "torchvision": torchvision.__version__,
          "batch": args.batch, "height": args.height, "width": args.width, "pytorch": tried,
          "richsem": mine}, args.json)


main()
