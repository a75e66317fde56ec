#!/usr/bin/env python3
"""Times multi-scale deformable attention composed of PyTorch's grid_sample, as transformers has it and
as the official code falls back to: 8 heads of 32, four levels, four points; on the CPU one image of
480x640 (6,380 queries), on CUDA two of 800x1216 (20,197 queries each), and the decoder's 900. With
--ops-check, our kernels (crates/torch-ext/examples/ops_check.rs) in the same table.

    benches/pytorch/attention.py --device cpu --ops-check target/release/examples/ops_check

f32; bf16: values of a linear layer under autocast, locations and weights in f32, as in training.
Backward: of all three inputs.
"""

import time

from common import (command_line, cores, fail, find_device, need, number, processor, quantiles,
                    ratio, run_json, save, table)

LEVELS = {"cpu": [(60, 80), (30, 40), (15, 20), (8, 10)],
          "cuda": [(100, 152), (50, 76), (25, 38), (13, 19)]}
HEADS, DIM, POINTS = 8, 32, 4


def composed(torch, value, levels, locations, weights):
    """[B, S, M, D], [B, Q, M, L, P, 2], [B, Q, M, L, P] to [B, Q, M D]."""
    b, _, m, d = value.shape
    q, l, p = locations.shape[1], locations.shape[3], locations.shape[4]
    grids = 2 * locations - 1
    sampled, start = [], 0
    for level, (h, w) in enumerate(levels):
        plane = value[:, start:start + h * w].flatten(2).transpose(1, 2).reshape(b * m, d, h, w)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(torch.nn.functional.grid_sample(plane, grid, mode="bilinear",
                                                       padding_mode="zeros", align_corners=False))
        start += h * w
    weights = weights.transpose(1, 2).reshape(b * m, 1, q, l * p)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1).view(b, m * d, q)
    return output.transpose(1, 2).contiguous()


def inputs(torch, device, batch, levels, case):
    """As ops_check's: around each query's own pixel, or 900 queries anywhere."""
    shape = lambda q: (batch, q, HEADS, len(levels), POINTS)
    if case == "encoder":
        centers = [torch.stack(torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w,
                                              indexing="ij")[::-1], -1).view(-1, 2) for h, w in levels]
        near = torch.cat(centers).to(device)[None, :, None, None, None]
        sides = torch.tensor([[w, h] for h, w in levels], device=device)[:, None]
        locations = near + torch.randn(*shape(near.shape[1]), 2, device=device) * 2 / sides
    else:
        locations = torch.rand(*shape(900), 2, device=device)
    weights = torch.randn(*shape(locations.shape[1]), device=device).flatten(-2).softmax(-1)
    return locations, weights.view(shape(locations.shape[1]))


def measure(torch, device, batch, case, precision, steps, warmup):
    levels = LEVELS[device.type]
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    torch.manual_seed(0)
    locations, weights = inputs(torch, device, batch, levels, case)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokens = sum(h * w for h, w in levels)
    value = torch.randn(batch, tokens, HEADS, DIM, device=device, dtype=dtype)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    forward, backward, grad = [], [], None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    for _ in range(warmup + steps):
        synchronize()
        start = time.perf_counter()
        with autocast:
            output = composed(torch, value, levels, locations, weights)
        if grad is None:
            grad = torch.randn_like(output)
        synchronize()
        middle = time.perf_counter()
        torch.autograd.grad(output, leaves, grad)
        synchronize()
        forward.append((middle - start) * 1e3)
        backward.append((time.perf_counter() - middle) * 1e3)
    result = {"device": device.type, "batch": batch, "case": case, "precision": precision,
              "queries": locations.shape[1],
              "forward_ms": quantiles(forward[warmup:])["median_ms"],
              "backward_ms": quantiles(backward[warmup:])["median_ms"], "peak_mib": None}
    if device.type == "cuda":
        result["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return result


def main():
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--steps", type=int, default=0, help="runs that are timed; 20 on CUDA, 7 on the CPU, unless given")
    add("--warmup", type=int, default=3, help="runs before the clock starts")
    add("--threads", type=int, help="of both sides on the CPU; all cores, unless given")
    add("--ops-check", metavar="PROGRAM", help="ours, to run beside it")
    add("--json", help="writes all numbers to this file")
    args = parser.parse_args()
    torch = need("torch")
    device = find_device(torch, args.device)
    name = device.type
    if str(device) not in ("cpu", "cuda"):
        fail(f"--device: expected cpu, cuda or auto, got {args.device}")
    cuda = name == "cuda"
    if not cuda:
        args.threads = args.threads or cores()
        torch.set_num_threads(args.threads)
    # ops_check ends with 1 where there is no GPU, after the CPU's table.
    mine = run_json([args.ops_check], args.threads, (0,) if cuda else (0, 1)) if args.ops_check else []
    mine = [row for row in mine if row["device"] == name]
    steps = args.steps or (20 if cuda else 7)
    theirs = [measure(torch, device, 2 if cuda else 1, case, precision, steps, args.warmup)
              for case in ("encoder", "decoder") for precision in ("f32", "bf16")]
    hardware = torch.cuda.get_device_name() if cuda else f"{processor()}, {args.threads} threads"
    print(f"{name}: {hardware}; PyTorch {torch.__version__}; batch {theirs[0]['batch']}, medians of "
          f"{steps} after {args.warmup} to warm up\n")
    rows = []
    for row in theirs:
        key = lambda r: (r["case"], r["precision"])
        own = next((r for r in mine if key(r) == key(row) and r["name"] == "kernel"), {})
        for what in ("forward", "backward"):
            pair = row[f"{what}_ms"], own.get(f"{what}_ms")
            rows.append([f"{row['case']} Q={row['queries']} {row['precision']} {what}, ms",
                         number(pair[0], 3), number(pair[1], 3), ratio(*pair)])
        both = [r["forward_ms"] + r["backward_ms"] if r else None for r in (row, own)]
        rows.append(["  both, ms", number(both[0], 3), number(both[1], 3), ratio(*both)])
        if cuda:
            pair = row["peak_mib"], own.get("peak_mib")
            rows.append(["  peak memory beyond the inputs, MiB", number(pair[0], 0),
                         number(pair[1], 0), ratio(*pair)])
    table(["<what", "PyTorch", "ours", "PyTorch / ours"], rows)
    save({"hardware": hardware, "torch": torch.__version__, "threads": args.threads,
          "pytorch": theirs, "richsem": mine}, args.json)


main()
