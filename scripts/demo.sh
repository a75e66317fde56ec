#!/usr/bin/env bash
# The demo: a small long-tailed set is drawn, a small detector trained on it on the CPU, measured,
# and shown in a report. `make demo` calls this with the command it has built.
#
#   scripts/demo.sh [RICHSEM] [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=${1:-target/release/richsem}
folder=${2:-demo}
SECONDS=0

# Of an earlier demo in this folder.
rm -rf "$folder/synth" "$folder/run"

step() { printf '\n\033[1m$ richsem %s\033[0m\n' "$*"; "$richsem" "$@"; }

step synth "$folder/synth" --classes 12 --train-images 400 --val-images 120 \
    --classification-per-class 0
step train -c configs/tiny.toml --run "$folder/run" --device cpu \
    --set data.train.annotations="$folder/synth/train.json" \
    --set data.train.images="$folder/synth/images" \
    --set data.val.annotations="$folder/synth/val.json" \
    --set data.val.images="$folder/synth/images"

python3 - "$folder/run/eval" <<'END'
import json, pathlib, sys
last = max(pathlib.Path(sys.argv[1]).iterdir())
classes = json.loads(last.read_text())["per_class"]
for letter, group in [("f", "frequent"), ("c", "common"), ("r", "rare")]:
    values = [c["ap50"] for c in classes if c["frequency"] == letter and c["ap50"] is not None]
    if values:
        print(f"AP50 of the {len(values)} {group} classes: {100 * sum(values) / len(values):.1f}")
END
cat <<END

The demo took $((SECONDS / 60)) min $((SECONDS % 60)) s. Open $folder/run/report.html, or go on:
  $richsem predict $folder/synth/images/val --weights $folder/run --output $folder/found --limit 20
  $richsem eval --weights $folder/run --annotations $folder/synth/val.json --images $folder/synth/images --per-class
  $richsem dataset stats YOUR_TRAIN.json      (README.md goes on from there)
END
