#!/usr/bin/env bash
# The demo: a small long-tailed set is drawn and a small detector trained on it twice on the CPU, as
# it is and with RichSem, whose teacher the demo trains itself; both measured and shown in one report.
# `make demo` calls this with the command it has built.
#
#   scripts/demo.sh [RICHSEM] [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=${1:-target/release/richsem}
folder=${2:-demo}
SECONDS=0

# Of an earlier demo in this folder.
rm -rf "$folder/synth" "$folder/run" "$folder/richsem" "$folder"/teacher.*

step() { printf '\n\033[1m$ richsem %s\033[0m\n' "$*"; "$richsem" "$@"; }

step synth "$folder/synth" --classes 12 --train-images 400 --val-images 120 \
    --classification-per-class 60 --captioned-images 1200
data=(
    --set data.train.annotations="$folder/synth/train.json"
    --set data.train.images="$folder/synth/images"
    --set data.val.annotations="$folder/synth/val.json"
    --set data.val.images="$folder/synth/images"
)
step train -c configs/tiny.toml --run "$folder/run" --device cpu "${data[@]}"

# The teacher learns from pictures with captions alone: it sees none of the others.
step pretrain-teacher "$folder/synth/captions.jsonl" --output "$folder/teacher.safetensors" \
    -c configs/pretrain_teacher.toml --device cpu
step train -c configs/tiny_richsem.toml --run "$folder/richsem" --device cpu "${data[@]}" \
    --set data.extra.classification.images="$folder/synth/classification" \
    --set teacher.weights="$folder/teacher.safetensors"
step report "$folder/richsem" --compare "$folder/run" --output "$folder/report.html" --device cpu

python3 - "$folder/run" "$folder/richsem" <<'END_OF_TABLE'
import json, pathlib, sys
columns = ["AP", "AP50", "APr", "APc", "APf"]
print("\n" + " " * 10 + "".join(f"{c:>7}" for c in columns))
for name, run in zip(["baseline", "RichSem"], sys.argv[1:]):
    rows = map(json.loads, (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines())
    metrics = [row["metrics"] for row in rows if "metrics" in row][-1]
    values = [metrics.get(c) for c in columns]
    print(f"{name:10}" + "".join("      –" if v is None else f"{100 * v:7.1f}" for v in values))
END_OF_TABLE
cat <<END

Both runs saw as many detection batches; RichSem's made as many updates again, on 720 classification
pictures. This illustrates, it measures nothing: one seed, four rare classes of drawn shapes. The
measurement is \`richsem study configs/tinylvis_study.toml\`.

The demo took $((SECONDS / 60)) min $((SECONDS % 60)) s. Open $folder/report.html (both runs), or go on:
  $richsem predict $folder/synth/images/val --weights $folder/richsem --output $folder/found --limit 20
  $richsem eval --weights $folder/richsem --annotations $folder/synth/val.json --images $folder/synth/images --per-class
  $richsem dataset stats YOUR_TRAIN.json      (README.md goes on from there)
END
