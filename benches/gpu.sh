#!/usr/bin/env bash
# Measurements that need a GPU: kernels, training steps, three trainings. Takes the programs ready
# built, so that it runs on a machine without a compiler.
#
#   benches/gpu.sh --data FOLDER [--out FOLDER] [--bin FOLDER] [--libtorch FOLDER] [SECTION …]
#
#   --data      the project's test data: tinylvis/, lvis/, photos/bccd/, photos/coco_mini/
#   --out       where logs and runs go                         (default: runs/gpu)
#   --bin       where richsem and ops_check are                (default: target/release)
#   --libtorch  a PyTorch 2.11's folder, where the programs do not find the libtorch they were
#               built with; `auto`: the one that python3 imports
#   --set K=V   a setting for all trainings (may be given again)
#   SECTION     checks kernels step memorise tinylvis bccd     (default: all, one after another)
#
# ops_check: cargo build --release -p torch-ext --example ops_check
#            (it is then in target/release/examples)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

data= out=runs/gpu bin=$root/target/release libtorch= settings=() sections=()
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2; shift ;;
        --out) out=$2; shift ;;
        --bin) bin=$2; shift ;;
        --libtorch) libtorch=$2; shift ;;
        --set) settings+=(--set "$2"); shift ;;
        checks | kernels | step | memorise | tinylvis | bccd) sections+=("$1") ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#sections[@]} -gt 0 ] || sections=(checks kernels step memorise tinylvis bccd)
richsem=$bin/richsem
device=${DEVICE:-cuda}
mkdir -p "$out"

if [ "$libtorch" = auto ]; then
    libtorch=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')
fi
[ -z "$libtorch" ] || export LD_LIBRARY_PATH=$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

need() {
    [ -e "$data/$1" ] || { echo "error: no $1 in the folder of --data (\`$data\`)" >&2; exit 1; }
}

# Trains, with a log, and prints the last measurement.
run() {
    local name=$1 annotations=$2 images=$3 val_annotations=$4 val_images=$5
    shift 5
    rm -rf "${out:?}/$name"
    SECONDS=0
    "$richsem" train -c "$root/configs/$name.toml" --device "$device" --run "$out/$name" \
        --set data.train.annotations="$annotations" --set data.train.images="$images" \
        --set data.val.annotations="$val_annotations" --set data.val.images="$val_images" \
        "$@" "${settings[@]}" > "$out/$name.txt" 2>&1 || { tail -5 "$out/$name.txt"; return 1; }
    echo "$name: $SECONDS s in all"
    python3 - "$out/$name/metrics.jsonl" <<'END'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
train = [r for r in rows if r["kind"] == "train"]
for row in train[-1:]:
    print("step {step}, loss {loss:.3f}, {memory_mib:.0f} MiB".format(**row), end="; ")
    speeds = sorted(r["images_per_second"] for r in train)
    print(f"{speeds[len(speeds) // 2]:.1f} images/s (median)")
for row in [r for r in rows if r["kind"] == "eval"][-1:]:
    print("  ".join(f"{k} {v:.4f}" for k, v in row["metrics"].items() if v is not None))
END
}

for section in "${sections[@]}"; do
    printf '\n== %s\n' "$section"
    case $section in
        checks)
            "$richsem" checks --device "$device" | tee "$out/checks.txt"
            ;;
        kernels)
            check=$bin/ops_check
            [ -x "$check" ] || check=$bin/examples/ops_check
            "$check" > "$out/kernels.txt" || { tail -40 "$out/kernels.txt"; exit 1; }
            sed -n '/^Cpu/,$p' "$out/kernels.txt" | grep -v ' ok$'
            ;;
        step)
            # The full detector on LVIS's 1203 classes: two pictures of 800x1216.
            for precision in f32 bf16; do
                "$richsem" bench -c "$root/configs/baseline_r50.toml" --device "$device" --batch 2 \
                    --size 800x1216 --steps 20 --set train.precision=$precision \
                    | tee "$out/step-$precision.txt"
            done
            ;;
        memorise)
            need photos/coco_mini/instances.json
            # The first eight pictures with 3 to 12 boxes.
            python3 - "$data/photos/coco_mini/instances.json" "$out/coco8.json" <<'END'
import collections, json, sys
data = json.load(open(sys.argv[1]))
boxes = collections.Counter(a["image_id"] for a in data["annotations"])
data["images"] = [i for i in data["images"] if 3 <= boxes[i["id"]] <= 12][:8]
kept = {i["id"] for i in data["images"]}
data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
json.dump(data, open(sys.argv[2], "w"))
END
            images=$data/photos/coco_mini/images
            run memorise "$out/coco8.json" "$images" "$out/coco8.json" "$images"
            ;;
        tinylvis)
            set=$data/tinylvis
            need tinylvis/images.tar
            run tinylvis "$set/train.json" "$set/images.tar" "$set/val.json" "$set/images.tar" \
                --set model.dino.backbone.weights="$set/backbone_rn.safetensors" \
                --set model.class_head.table="$data/lvis/lvis_v1_clip_a+cname.npy"
            ;;
        bccd)
            need photos/bccd/BCCD.tar
            rm -rf "${out:?}/bccd-data"
            "$richsem" dataset from-voc "$data/photos/bccd/BCCD.tar" "$out/bccd-data"
            set=$out/bccd-data
            run bccd "$set/train.json" "$set/images" "$set/test.json" "$set/images"
            ;;
    esac
done
