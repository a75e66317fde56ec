#!/usr/bin/env bash
# Builds examples/own-crate as a user would, outside of the workspace, and has it find objects with a detector that
# is trained here in seconds. Needs target/release/richsem (`make build`, `make test`).
#
#   scripts/own_crate.sh
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
# Here .cargo/config.toml says where libtorch is; outside, the environment does.
export LIBTORCH=${LIBTORCH:-$PWD/.libtorch/cpu}
richsem=$target/release/richsem
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r examples/own-crate "$folder/own"
# What the workspace compiles its dependencies with, so that nothing is compiled twice.
sed -i "s|path = \"../../crates|path = \"$PWD/crates|" "$folder/own/Cargo.toml"
sed -n '/^\[profile/,/^\[workspace.lints/p' Cargo.toml | sed '/^\[workspace.lints/d; /clap_builder/,+1d' \
    | sed "s|path = \"crates|path = \"$PWD/crates|" >> "$folder/own/Cargo.toml"
cp Cargo.lock "$folder/own/"
# The library is another one for Cargo here than in the workspace, and compiled anew. It looks at one image.
(cd "$folder/own" && CARGO_TARGET_DIR=$target "${CARGO:-cargo}" build --release \
    --config profile.release.package.richsem.opt-level=0)

"$richsem" synth "$folder/set" --classes 3 --train-images 12 --val-images 4 --image-size 64,80 --objects-per-image 1,3 > /dev/null
"$richsem" train -c configs/tiny.toml --run "$folder/run" --device cpu --set train.epochs=1 \
    --set data.train.annotations="$folder/set/train.json" --set data.train.images="$folder/set/images" \
    --set data.val.annotations="$folder/set/val.json" --set data.val.images="$folder/set/images" > /dev/null 2>&1
image=$(find "$folder/set/images" -name '*.jpg' | sort | head -1)
"$target/release/own-crate" "$folder/run" "$image" | tee "$folder/found"
grep -q "objects with a score of 0.3" "$folder/found"
if "$target/release/own-crate" "$folder/run" nowhere.jpg 2> "$folder/refused"; then
    echo "error: an image that does not exist is taken" >&2
    exit 1
fi
grep -q nowhere.jpg "$folder/refused"
echo "a crate of one's own detects"
