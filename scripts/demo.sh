#!/usr/bin/env bash
# The demo: a small long-tailed set is drawn, and a small detector trained on it on the CPU, as it is
# (the baseline) and with RichSem, whose teacher the demo trains itself; both evaluated and shown in one
# report. The two trainings run side by side, each with half of the cores. `make demo` calls this with
# the command it has built.
#
#   scripts/demo.sh [RICHSEM] [FOLDER]
#
#   SEED=N   another seed of everything that is drawn at random: images, weights, order (default: 1)
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=${1:-target/release/richsem}
folder=${2:-demo}
seed=${SEED:-1}
SECONDS=0

# Threads of what follows, where OMP_NUM_THREADS and RAYON_NUM_THREADS do not say. Small work: more than four
# wait for each other.
omp=${OMP_NUM_THREADS:-} rayon=${RAYON_NUM_THREADS:-}
use_threads() {
    local threads=$(($1 < 1 ? 1 : $1 > 4 ? 4 : $1))
    export OMP_NUM_THREADS=${omp:-$threads} RAYON_NUM_THREADS=${rayon:-$threads}
}

# Of an earlier demo in this folder.
rm -rf "$folder/synth" "$folder/baseline" "$folder/richsem" "$folder"/teacher.* "$folder/baseline.log"
mkdir -p "$folder"

# In a terminal commands are bold.
bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
step() { printf '\n%s$ richsem %s%s\n' "$bold" "$*" "$plain"; "$richsem" "$@"; }

use_threads "$(nproc)"
step synth "$folder/synth" --seed "$seed" --classes 12 --train-images 400 --val-images 300 \
    --image-size 128,128 --objects-per-image 1,4 --classification-per-class 400 \
    --classification-size 96 --captioned-images 1200
data=(
    --set seed="$seed"
    --set data.train.annotations="$folder/synth/train.json"
    --set data.train.images="$folder/synth/images"
    --set data.val.annotations="$folder/synth/val.json"
    --set data.val.images="$folder/synth/images"
)

# The teacher learns from images with captions alone: it sees none of the others.
step pretrain-teacher "$folder/synth/captions.jsonl" --output "$folder/teacher.safetensors" \
    -c configs/pretrain_teacher.toml --device cpu --set seed="$seed" --set train.steps=150

use_threads $(($(nproc) / 2))
# As many steps as RichSem will make, and evaluated halfway too, after as many detection batches.
baseline=(train -c configs/demo.toml --run "$folder/baseline" --device cpu "${data[@]}"
    --set train.epochs=36)
printf '\n%s$ richsem %s > %s &%s\n' "$bold" "${baseline[*]}" "$folder/baseline.log" "$plain"
"$richsem" "${baseline[@]}" > "$folder/baseline.log" 2>&1 < /dev/null &
running=$!
trap 'kill "$running" 2> /dev/null || true' EXIT

step train -c configs/demo_richsem.toml --run "$folder/richsem" --device cpu "${data[@]}" \
    --set data.extra.classification.images="$folder/synth/classification" \
    --set teacher.weights="$folder/teacher.safetensors"

if kill -0 "$running" 2> /dev/null; then
    echo "waiting for the baseline:"
    tail -n 1 -f --pid="$running" "$folder/baseline.log"
fi
wait "$running" || {
    tail -n 20 "$folder/baseline.log" >&2
    echo "error: the baseline's training failed; all it said is in $folder/baseline.log" >&2
    exit 1
}
trap - EXIT
step report "$folder/richsem" --compare "$folder/baseline" --output "$folder/report.html" --device cpu \
    --note "A demonstration, no evidence: one seed, four rare classes of drawn shapes, and a teacher that \
was trained here, on drawn images. \`richsem study configs/tinylvis_study.toml\` compares over several seeds."

python3 - "$folder/baseline" "$folder/richsem" <<'END_OF_TABLE'
import json, pathlib, sys
columns = ["AP", "AP50", "APr", "APc", "APf"]
def evaluated(run):
    rows = map(json.loads, (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines())
    return [row["metrics"] for row in rows if "metrics" in row]
baseline, richsem = map(evaluated, sys.argv[1:])
print("\n" + " " * 26 + "".join(f"{c:>7}" for c in columns))
for name, metrics in [("baseline", baseline[0]), ("RichSem", richsem[-1]),
                      ("baseline, as many steps", baseline[-1])]:
    values = [metrics.get(c) for c in columns]
    print(f"{name:26}" + "".join("      –" if v is None else f"{100 * v:7.1f}" for v in values))
END_OF_TABLE
cat <<END

The first two saw as many detection batches; RichSem made as many steps again, on 4800 classification
images, and the last row is the baseline after as many steps. This illustrates, it proves nothing:
one seed, four rare classes of drawn shapes, a teacher that was trained here. \`richsem study
configs/tinylvis_study.toml\` compares over several seeds.

The demo took $((SECONDS / 60)) min $((SECONDS % 60)) s. Open $folder/report.html (both runs), or go on:
  $richsem predict $folder/synth/images/val --weights $folder/richsem --output $folder/found --limit 20
  $richsem eval --weights $folder/richsem --annotations $folder/synth/val.json --images $folder/synth/images --per-class
  $richsem dataset stats YOUR_TRAIN.json      (README.md goes on from there)
END
