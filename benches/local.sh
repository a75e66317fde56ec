#!/usr/bin/env bash
# What this machine can measure, with or without a GPU: `make bench`.
#
#   benches/local.sh [RICHSEM]
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=${1:-target/release/richsem}
cargo=${CARGO:-cargo}
device=cpu
"$richsem" checks --device cuda > /dev/null 2>&1 && device=cuda

title() { printf '\n== %s\n' "$*"; }

title "The machine"
"$richsem" checks --device "$device"

title "Deformable attention, own kernels against the composition of libtorch's operations"
# Without a GPU it ends with 1 after the CPU's table: there was nothing to compare with.
$cargo run --release --quiet -p torch-ext --example ops_check || [ "$device" = cpu ]

title "A training step and inference: the demo's detector, 8 pictures of 160x160, $device"
"$richsem" bench -c configs/tiny.toml --device "$device" --batch 8 --size 160x160 --classes 12

title "The same: the full detector, one picture of 480x640, $device"
"$richsem" bench -c configs/baseline_r50.toml --device "$device" --batch 1 --size 480x640 \
    --steps 3 --warmup 1 --set train.precision=f32

title "Annotations of the size of LVIS's training set: seconds and memory to load them"
$cargo run --release --quiet -p richsem --example lvis_scale
