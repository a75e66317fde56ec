#!/usr/bin/env bash
# Measurements that need a GPU: kernels and steps, beside PyTorch's own, and three trainings. Takes the
# programs ready built, so that it runs on a machine without a compiler.
#
#   benches/gpu.sh --data FOLDER [--out FOLDER] [--bin FOLDER] [--libtorch FOLDER]
#                [--set K=V …] [SECTION …]
#
#   --data      the project's test data: tinylvis/, lvis/, photos/bccd/, photos/coco_mini/
#   --out       where logs and runs go                         (default: runs/gpu)
#   --bin       where richsem and ops_check are                (default: target/release)
#   --libtorch  a PyTorch 2.11's folder, where the programs do not find the libtorch they were
#               built with; `auto`: the one that python3 imports
#   --set K=V   a setting for all trainings (may be given again)
#   SECTION     checks kernels step                                  ours alone
#               attention backbone train mosaic batch16 inference       beside PyTorch, a table each
#               rcnn                        Faster R-CNN beside torchvision's: a step, inference, real sizes
#               backbones                   Swin, FocalNet, ConvNeXt, ViTDet: likewise (not by default)
#               backbone-memory             steps with large backbones, checkpointed or not (not by default)
#               real real-batch16 real-mosaic  from the first step on, images of LVIS's sizes; likewise
#               losses                      200 steps in bf16, in f32 and in f32 again; needs --data
#               memorise tinylvis bccd      trainings, likewise
#                                                (default: all, one after another)
#
# ops_check, backbone: cargo build --release --workspace --bins --examples
#                   (they are then in target/release/examples)
# Beside PyTorch: python3 (PYTHON=...) with benches/pytorch/requirements.txt; numbers in OUT/*.json.
# LIMIT=20: seconds after which one of PyTorch's ways is given up (cuDNN's trials on all sizes take minutes).
# STEPS=3 WARMUP=1 SIZE=... MOSAIC=... QUERIES=... DEVICE=cpu: smaller, to try the sections out.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

data= out=runs/gpu bin=$root/target/release libtorch= settings=() sections=()
while [ $# -gt 0 ]; do
    case $1 in
        --data | --out | --bin | --libtorch | --set)
            [ $# -gt 1 ] || { echo "error: $1 wants a value" >&2; exit 2; } ;;
    esac
    case $1 in
        --data) data=$2; shift ;;
        --out) out=$2; shift ;;
        --bin) bin=$2; shift ;;
        --libtorch) libtorch=$2; shift ;;
        --set) settings+=(--set "$2"); shift ;;
        checks | kernels | step | attention | backbone | rcnn | backbones | backbone-memory | train | mosaic | batch16 | inference \
            | real | real-batch16 | real-mosaic | losses | memorise | tinylvis | bccd) sections+=("$1") ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#sections[@]} -gt 0 ] || sections=(checks kernels step attention backbone train mosaic batch16
    inference rcnn real real-batch16 real-mosaic losses memorise tinylvis bccd)
richsem=$bin/richsem
[ -x "$richsem" ] || {
    echo "error: there is no program richsem in $bin" >&2
    echo "  hint: cargo build --release -p richsem-cli, and name its folder with --bin" >&2
    exit 1
}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)

if [ "$libtorch" = auto ]; then
    libtorch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))' \
        2> /dev/null) || {
        echo "error: --libtorch auto: $python has no PyTorch" >&2
        echo "  hint: PYTHON=..., or $python -m pip install -r benches/pytorch/requirements.txt" >&2
        exit 1
    }
fi
[ -z "$libtorch" ] || export LD_LIBRARY_PATH=$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

need() {
    [ -e "$data/$1" ] || { echo "error: no $1 in the folder of --data (\`$data\`)" >&2; exit 1; }
}

example() {
    if [ -x "$bin/$1" ]; then echo "$bin/$1"; else echo "$bin/examples/$1"; fi
}

# RichSem's training step (teacher of random weights, and branch) or inference, and PyTorch's.
beside() {
    local name=$1 queries=${QUERIES:-900}
    shift
    if [ ! -e "$out/clip/text.npy" ]; then
        "$python" "$root/benches/random_clip.py" "$out/clip"
    fi
    "$python" "$root/benches/pytorch/detector.py" --device "$device" --richsem "$richsem" \
        --config "$root/configs/richsem_r50.toml" --json "$out/$name.json" \
        --set "teacher.weights=$out/clip/RN50.pt" \
        --set "teacher.text={kind=\"table\",table=\"$out/clip/text.npy\"}" \
        --queries "$queries" --set "model.dino.transformer.num_queries=$queries" \
        --steps "${STEPS:-20}" --warmup "${WARMUP:-5}" "$@" 2> "$out/$name.log" \
        | tee "$out/$name.txt" || { tail -5 "$out/$name.log"; return 1; }
}

# What makes our Faster R-CNN compute as torchvision's, and nothing learned from noise.
rcnn=(--model faster_rcnn --config "$root/configs/faster_rcnn_r50.toml" --classes 80
    --set model.faster_rcnn.variant=torchvision --set model.faster_rcnn.rpn.post_nms_train=2000
    --set train.lr=1e-10 --set train.lr_backbone=1e-10)

# Training from the first step on, on images of many sizes, and PyTorch's on the same batches.
real() {
    local name=$1
    shift
    "$python" "$root/benches/pytorch/real.py" --device "$device" --richsem "$richsem" \
        --sizes "$root/benches/lvis_sizes.txt" --json "$out/$name.json" \
        --set train.precision=bf16 --set data.workers=12 ${LIMIT:+--limit "$LIMIT"} "$@" 2> "$out/$name.log" \
        | tee "$out/$name.txt" || { tail -5 "$out/$name.log"; return 1; }
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
    "$python" - "$out/$name/metrics.jsonl" <<'END'
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
            "$(example ops_check)" > "$out/kernels.txt" || { tail -40 "$out/kernels.txt"; exit 1; }
            sed -n '/^Cpu/,$p' "$out/kernels.txt" | grep -v ' ok$'
            ;;
        step)
            # The full detector on LVIS's 1203 classes: two images of 800x1216.
            for precision in f32 bf16; do
                "$richsem" bench -c "$root/configs/baseline_r50.toml" --device "$device" --batch 2 \
                    --size 800x1216 --steps 20 --set train.precision=$precision \
                    | tee "$out/step-$precision.txt"
            done
            ;;
        attention)
            "$python" "$root/benches/pytorch/attention.py" --device "${device%%:*}" \
                --ops-check "$(example ops_check)" --json "$out/attention.json" \
                2> "$out/attention.log" | tee "$out/attention.txt" \
                || { tail -5 "$out/attention.log"; exit 1; }
            ;;
        backbone)
            "$python" "$root/benches/pytorch/backbone.py" --device "$device" --batch 2 \
                --size "${SIZE:-800x1216}" --backbone "$(example backbone)" --json "$out/backbone.json" \
                --steps "${STEPS:-20}" --warmup "${WARMUP:-5}" \
                2> "$out/backbone.log" | tee "$out/backbone.txt" || { tail -5 "$out/backbone.log"; exit 1; }
            ;;
        backbones)
            for model in ${MODELS:-swin_t swin_s swin_l focalnet_t focalnet_l convnext_t vitdet_b}; do
                "$python" "$root/benches/pytorch/backbone.py" --device "$device" --model "$model" \
                    --batch "${BATCH:-2}" --size "${SIZE:-800x1216}" --backbone "$(example backbone)" \
                    --json "$out/backbone-$model.json" --steps "${STEPS:-20}" --warmup "${WARMUP:-5}" \
                    2> "$out/backbone-$model.log" | tee "$out/backbone-$model.txt" \
                    || { tail -5 "$out/backbone-$model.log"; exit 1; }
            done
            ;;
        backbone-memory)
            for pair in dino_swin_l:swin_l dino_focalnet_l:focalnet_l dino_focalnet_l:focalnet_h \
                dino_convnext_l:convnext_l dino_vitdet_b:vitdet_b; do
                for again in false true; do
                    echo "${pair#*:}, checkpointing = $again"
                    "$richsem" bench -c "$root/configs/${pair%:*}.toml" --device "$device" --batch 1 \
                        --size "${SIZE:-800x1216}" --steps 10 --set train.precision=bf16 \
                        --set model.dino.backbone.name="${pair#*:}" \
                        --set model.dino.backbone.checkpointing=$again
                done
            done 2>&1 | tee "$out/backbone-memory.txt"
            ;;
        train) beside train --only train --batch 2 --size "${SIZE:-800x1216}" --boxes 10 ;;
        mosaic) beside mosaic --only train --batch 2 --size "${MOSAIC:-1280x1280}" --boxes 4 ;;
        batch16)
            # In f32 sixteen images do not fit.
            beside batch16 --only train --batch 16 --size "${SIZE:-800x1216}" --boxes 10 \
                --precisions bf16 --steps "${STEPS:-10}" --warmup "${WARMUP:-3}"
            ;;
        inference)
            for batch in 1 8; do
                beside inference-$batch --only inference --batch $batch --size "${SIZE:-800x1216}"
            done
            ;;
        rcnn)
            for what in train:2 inference:1 inference:2; do
                "$python" "$root/benches/pytorch/detector.py" --device "$device" --richsem "$richsem" \
                    "${rcnn[@]}" --set model.faster_rcnn.padding=official --only "${what%:*}" --batch "${what#*:}" --size "${SIZE:-800x1216}" \
                    --ours "${OURS:-bf16,f32}" --steps "${STEPS:-20}" --warmup "${WARMUP:-5}" \
                    --json "$out/rcnn-${what/:/-}.json" 2> "$out/rcnn-${what/:/-}.log" \
                    | tee "$out/rcnn-${what/:/-}.txt" || { tail -5 "$out/rcnn-${what/:/-}.log"; exit 1; }
            done
            real rcnn-real "${rcnn[@]}" --steps 400 --first "${FIRST:-200}" --compared 40 --precisions tf32
            ;;
        real) real real --config "$root/configs/baseline_r50.toml" ;;
        real-batch16)
            # PyTorch has no memory for sixteen.
            real real-batch16 --config "$root/configs/baseline_r50.toml" --batch 16 --steps 300 \
                --precisions "" ;;
        real-mosaic)
            if [ ! -e "$out/clip/text.npy" ]; then
                "$python" "$root/benches/random_clip.py" "$out/clip"
            fi
            real real-mosaic --config "$root/configs/richsem_r50.toml" --mosaic 1280 --precisions "" \
                --set "teacher.weights=$out/clip/RN50.pt" \
                --set "teacher.text={kind=\"table\",table=\"$out/clip/text.npy\"}"
            ;;
        losses)
            set=$data/tinylvis
            need tinylvis/small_clip_rn.safetensors
            table=$data/lvis/lvis_v1_clip_a+cname.npy
            for name in f32 bf16 again; do
                precision=${name/again/f32}
                rm -rf "${out:?}/losses-$name"
                "$richsem" train -c "$root/configs/tinylvis_richsem.toml" --device "$device" \
                    --run "$out/losses-$name" --set train.precision=$precision \
                    --set train.epochs=1 --set train.lr_drop=[] --set train.log_every=1 \
                    --set data.train.annotations="$set/train.json" \
                    --set data.train.images="$set/images.tar" \
                    --set data.val.annotations="$set/val.json" --set data.val.images="$set/images.tar" \
                    --set data.extra.classification.images="$set/classification.tar" \
                    --set model.dino.backbone.weights="$set/backbone_rn.safetensors" \
                    --set model.class_head.table="$table" --set teacher.text.table="$table" \
                    --set teacher.weights="$set/small_clip_rn.safetensors" "${settings[@]}" \
                    > "$out/losses-$name.txt" 2>&1 \
                    || { tail -5 "$out/losses-$name.txt"; exit 1; }
            done
            "$python" "$root/benches/loss_curves.py" "$out"/losses-{f32,bf16,again}/metrics.jsonl \
                --names f32 bf16 "f32 again" --steps "${STEPS:-200}" | tee "$out/losses.txt"
            ;;
        memorise)
            need photos/coco_mini/instances.json
            # The first eight images with 3 to 12 boxes.
            "$python" - "$data/photos/coco_mini/instances.json" "$out/coco8.json" <<'END'
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
