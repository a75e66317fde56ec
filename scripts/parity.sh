#!/usr/bin/env bash
# The whole model at full size against the official code: `make parity` calls this.
#
#   scripts/parity.sh RICHSEM CHECKOUT FOLDER IMAGE...
set -euo pipefail
cd "$(dirname "$0")/.."
richsem=$(realpath "$1") checkout=$(realpath "$2") folder=$3
shift 3
export RICHSEM_PARITY=$(realpath -m "$folder") RICHSEM_PHOTOS=
for image; do RICHSEM_PHOTOS+="$(realpath "$image") "; done
mkdir -p "$RICHSEM_PARITY"

# The official side; kept once it is there, for it takes minutes.
if [ ! -e "$RICHSEM_PARITY/dino.f64.safetensors" ]; then
    (cd reference && ${PYTHON:-python3} whole_model.py "$checkout" "$RICHSEM_PARITY" $RICHSEM_PHOTOS)
fi

for name in richsem dino; do
    at=$RICHSEM_PARITY/$name
    "$richsem" convert "$at.pth" "$at.safetensors" --annotations "$RICHSEM_PARITY/categories.json"
    for part in "" .free; do
        "$richsem" predict --tensor "$at$part.in.safetensors" --weights "$at.safetensors" \
            --raw "$at$part.raw.safetensors" --device cpu
    done
done
${CARGO:-cargo} test --release -p richsem --test parity -- --ignored --nocapture --test-threads 1
