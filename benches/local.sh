#!/usr/bin/env bash
# What this machine can measure, with or without a GPU: `make bench`. Beside PyTorch where python3
# (PYTHON=...) has it: `$PYTHON -m pip install -r benches/pytorch/requirements.txt`.
#
#   benches/local.sh [RICHSEM]
#
#   DATA=FOLDER         the project's test data: photos/coco_mini/       (default: ../shared/data)
#   OUT=FOLDER          where the numbers go, as JSON                    (default: runs/bench)
#   EVAL_IMAGES=N       images of the LVIS evaluation; val has 19809     (default: 2000)
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=${1:-target/release/richsem}
cargo=${CARGO:-cargo}
python=${PYTHON:-python3}
data=${DATA:-../shared/data}
out=${OUT:-runs/bench}
device=cpu
"$richsem" checks --device cuda > /dev/null 2>&1 && device=cuda
mkdir -p "$out"

title() { printf '\n== %s\n' "$*"; }

# Whether python has these modules; says what is left out if not.
with() {
    local missing
    missing=$("$python" - "$@" <<'END'
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
END
    )
    [ -n "$missing" ] || return 0
    echo "(without what it is compared with: $python has no $missing; for that, PYTHON=... or" \
        "$python -m pip install -r benches/pytorch/requirements.txt)"
    return 1
}

# A script beside this one, its table alone; what else it said where it fails.
beside() {
    local name=$1 script=$2
    shift 2
    "$python" "benches/pytorch/$script.py" "$@" --json "$out/$name.json" 2> "$out/$name.log" \
        || { tail -5 "$out/$name.log" >&2; return 1; }
}

title "The machine"
"$richsem" checks --device "$device"

title "Start-up"
"$python" benches/startup.py "$richsem" --json "$out/startup.json"

$cargo build --release --quiet -p torch-ext --example ops_check
ops_check=${CARGO_TARGET_DIR:-target}/release/examples/ops_check

title "Deformable attention, forward and backward, at the shapes of 480x640"
if with torch; then
    beside attention attention --device cpu --ops-check "$ops_check"
else
    # Without a GPU it ends with 1 after the CPU's table: there was nothing to compare with.
    "$ops_check" | sed -n '/^Cpu/,$p' || [ "$device" = cpu ]
fi

title "The full detector: inference on one image of 480x640, on the CPU"
if with torch transformers scipy; then
    beside inference detector --device cpu --batch 1 --size 480x640 --only inference --steps 5 \
        --warmup 1 --richsem "$richsem"
else
    "$richsem" bench -c configs/baseline_r50.toml --device cpu --batch 1 --size 480x640 \
        --only inference --steps 5 --warmup 1 --set train.precision=f32
fi

title "The full detector: a training step on one image of 480x640, $device"
"$richsem" bench -c configs/baseline_r50.toml --device "$device" --batch 1 --size 480x640 --only train \
    --steps 3 --warmup 1 --set train.precision=f32 --json "$out/train.json"

title "A training step and inference: a small detector (configs/tiny.toml), 8 images of 160x160, $device"
"$richsem" bench -c configs/tiny.toml --device "$device" --batch 8 --size 160x160 --classes 12 \
    --json "$out/tiny.json"

title "Reading, augmenting, collating photographs as for LVIS"
photos=$data/photos/coco_mini
if [ ! -e "$photos/instances.json" ]; then
    echo "(left out: no photos/coco_mini/instances.json in $data; DATA=FOLDER)"
elif with torch torchvision PIL; then
    beside loader loader --annotations "$photos/instances.json" --images "$photos/images" \
        --richsem "$richsem"
else
    "$richsem" bench -c configs/baseline_r50.toml --loader --json "$out/loader.json" \
        --set data.train.annotations="$photos/instances.json" --set data.train.images="$photos/images"
fi

title "Evaluation by LVIS's rules: generated detections, 300 an image"
if with numpy pycocotools lvis; then
    beside lvis_eval lvis_eval --richsem "$richsem" --images "${EVAL_IMAGES:-2000}"
elif with numpy; then
    beside lvis_eval lvis_eval --richsem "$richsem" --images "${EVAL_IMAGES:-2000}" --ours-alone
fi

title "Annotations of the size of LVIS's training set: seconds and memory to load them"
$cargo run --release --quiet -p richsem --example lvis_scale
