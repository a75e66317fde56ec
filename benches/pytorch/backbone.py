#!/usr/bin/env python3
"""Times torchvision's ResNet-50 with frozen norms, random weights, bf16 autocast: forward, and forward
with backward (stem and first stage not trained, as in the detector). With --backbone, ours
(crates/richsem/examples/backbone.rs) in the same table. With --model, transformers' module of another backbone.

    benches/pytorch/backbone.py --device cuda --batch 2 --size 800x1216 --backbone target/release/examples/backbone
    benches/pytorch/backbone.py --model swin_l --batch 1 --backbone target/release/examples/backbone

ViTDet's pyramid is in ours alone.

Contiguous and channels-last tensors, cuDNN choosing its algorithms by trial; the faster counts. On a GPU ours is
timed launched one by one, as PyTorch's, and recorded as CUDA graphs, as a training runs it. The share of the peak is
PyTorch's own count of the forward pass's operations (`FlopCounterMode`), three times that with the backward pass, in
the time taken, of what a product of two bf16 matrices of 8192² reaches here.
"""


import json
import tempfile
from pathlib import Path

from common import (command_line, cores, fail, find_device, need, number, processor, quantiles,
                    ratio, run as run_program, save, size, table, timed)


LAST_THREE = ["stage2", "stage3", "stage4"]
DEPTHS = {"t": [2, 2, 6, 2]}
SWIN = {"t": (96, 3, 7), "s": (96, 3, 7), "b": (128, 4, 12), "l": (192, 6, 12)}
FOCALNET = {"t": 96, "s": 96, "b": 128, "l": 192, "xl": 256, "h": 352}
CONVNEXT = {"t": 96, "s": 96, "b": 128, "l": 192, "xl": 256}
VITDET = {"b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}


def other(name):
    """transformers' module of that name, with drop path off, and our settings."""
    transformers = need("transformers")
    kind, size = name.rsplit("_", 1)
    depths = DEPTHS.get(size, [2, 2, 18, 2])
    if kind == "swin" and size in SWIN:
        width, heads, window = SWIN[size]
        config = transformers.SwinConfig(
            embed_dim=width, depths=depths, num_heads=[heads << i for i in range(4)],
            window_size=window, drop_path_rate=0.0, out_features=LAST_THREE)
        return transformers.SwinBackbone(config), f'kind = "swin", name = "{name}"'
    if kind == "focalnet" and size in FOCALNET:
        large = size in ("l", "xl", "h")
        levels, width = 4 if large else 3, FOCALNET[size]
        config = transformers.FocalNetConfig(
            embed_dim=width, depths=depths, hidden_sizes=[width << i for i in range(4)],
            focal_levels=[levels] * 4, focal_windows=[3] * 4, use_conv_embed=large,
            use_post_layernorm=large, use_layerscale=large, normalize_modulator=size == "l",
            use_post_layernorm_in_modulation=size == "h", drop_path_rate=0.0,
            out_features=LAST_THREE)
        return transformers.FocalNetBackbone(config), f'kind = "focalnet", name = "{name}"'
    if kind == "convnext" and size in CONVNEXT:
        depths = [3, 3, 9 if size == "t" else 27, 3]
        config = transformers.ConvNextConfig(
            depths=depths, hidden_sizes=[CONVNEXT[size] << i for i in range(4)],
            drop_path_rate=0.0, out_features=LAST_THREE)
        return transformers.ConvNextBackbone(config), f'kind = "convnext", name = "{name}"'
    if kind == "vitdet" and size in VITDET:
        width, depth, heads = VITDET[size]
        everywhere = {depth * i // 4 - 1 for i in range(1, 5)}
        config = transformers.VitDetConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
            image_size=1024, pretrain_image_size=224, window_size=14,
            window_block_indices=[i for i in range(depth) if i not in everywhere],
            use_relative_position_embeddings=True, drop_path_rate=0.0,
            out_features=[f"stage{depth}"])
        return transformers.VitDetBackbone(config), f'kind = "vit", name = "{name}"'
    fail(f"--model: no module for {name}", "swin_t, focalnet_l, convnext_b, vitdet_b and the like")


def measure(torch, torchvision, args, layout_name):
    layout = torch.channels_last if layout_name == "channels_last" else torch.contiguous_format
    if args.model != "resnet50":
        backbone, _ = other(args.model)
        return run(torch, args, layout_name, layout, backbone, lambda found: found.feature_maps)
    norm = torchvision.ops.FrozenBatchNorm2d
    torch.manual_seed(0)
    resnet = torchvision.models.resnet50(weights=None, norm_layer=norm)
    for name, parameter in resnet.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    backbone = torchvision.models._utils.IntermediateLayerGetter(
        resnet, {"layer2": "c3", "layer3": "c4", "layer4": "c5"})
    return run(torch, args, layout_name, layout, backbone, dict.values)


def run(torch, args, layout_name, layout, backbone, maps_of):
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
            loss = sum(m.float().mean() for m in maps_of(backbone(images)))
        torch.autograd.grad(loss, parameters, allow_unused=True)

    cuda = args.device.type == "cuda"
    synchronize = torch.cuda.synchronize if cuda else (lambda: None)
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        forward()
    # It counts the backward pass of grouped convolutions as if they had no groups.
    flops = {"forward_ms": counter.get_total_flops(), "both_ms": 3 * counter.get_total_flops()}
    forward_ms = quantiles(timed(forward, args.steps, args.warmup, synchronize))["median_ms"]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    both_ms = quantiles(timed(both, args.steps, args.warmup, synchronize))["median_ms"]
    return {"layout": layout_name, "forward_ms": forward_ms, "both_ms": both_ms, "flops": flops,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0}


def peak(torch, args):
    """Operations a second of a product of matrices."""
    synchronize = torch.cuda.synchronize if args.device.type == "cuda" else (lambda: None)
    side = 8192 if args.device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    median = quantiles(timed(lambda: a @ b, 20, 5, synchronize))["median_ms"]
    return 2 * side**3 / median * 1e3


def ours(args, name):
    command = [args.backbone, name, args.batch, args.height, args.width, args.steps, args.warmup]
    settings = []
    if args.model != "resnet50":
        again = ", checkpointing = true" if args.checkpointing else ""
        settings = [other(args.model)[1] + ", drop_path = 0" + again]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        run_program([*command, "--json", file, *settings], args.threads)
        return json.loads(file.read_text())


def main():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    add("--batch", type=int, default=2, help="images at once")
    add("--size", default="800x1216", help="their height and width, in pixels")
    add("--steps", type=int, default=20, help="runs that are timed")
    add("--warmup", type=int, default=5, help="runs before the clock starts")
    add("--threads", type=int, help="of both sides on the CPU; all cores, unless given")
    add("--model", default="resnet50", help="resnet50, or one of transformers': swin_t, focalnet_l, …")
    add("--checkpointing", action="store_true", help="ours runs its blocks again in the backward pass")
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
    mine = ours(args, name) if args.backbone else {}
    tried = [measure(torch, torchvision, args, layout) for layout in ("contiguous", "channels_last")]
    print(f"{name}: {hardware}; PyTorch {torch.__version__}, torchvision {torchvision.__version__}\n"
          f"{'ResNet-50, frozen norms' if args.model == 'resnet50' else args.model}, bf16, batch {args.batch} of {args.height}×{args.width}; medians of "
          f"{args.steps} after {args.warmup} to warm up\n")
    rows = []
    most = peak(torch, args)
    keys = ["", "recorded_"] if "recorded_both_ms" in mine else [""]
    for key, what in (("forward_ms", "forward"), ("both_ms", "forward and backward")):
        best, own = min(run[key] for run in tried), [mine.get(prefix + key) for prefix in keys]
        rows.append([f"{what}, ms", *[number(run[key]) for run in tried], *map(number, own), ratio(best, own[-1])])
        share = lambda ms: number(100 * tried[0]["flops"][key] / ms * 1e3 / most) if ms else ""
        rows.append([f"{what}, % of the peak", *[share(run[key]) for run in tried], *map(share, own), ""])
    rows.append(["most memory, GiB", *[number(run["peak_gib"], 2) for run in tried],
                 number(mine.get("peak_gib"), 2), *[""] * len(keys)])
    print(f"Products of matrices reach {most / 1e12:.0f} TFLOP/s; the model has "
          f"{tried[0]['flops']['both_ms'] / 1e12:.2f} TFLOP forward and backward.\n")
    names = ["ours", "ours, recorded"][: len(keys)]
    table(["<backbone", *[f"PyTorch {run['layout']}" for run in tried], *names, "PyTorch's best / ours"], rows)
    save({"hardware": hardware, "torch": torch.__version__, "torchvision": torchvision.__version__,
          "batch": args.batch, "height": args.height, "width": args.width, "peak": most, "pytorch": tried,
          "richsem": mine}, args.json)


main()
