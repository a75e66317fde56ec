#!/usr/bin/env bash
# The numeric tests under other instruction sets and numbers of threads, one setting at a time: a result
# that depends on the processor is a defect. `make test-matrix` calls this; with --all it runs every test.
set -uo pipefail
cd "$(dirname "$0")/.."

suites=("-p torch-ext" "-p richsem --lib --test golden --test richsem --test training")
[ "${1:-}" = --all ] && suites=(--workspace)
settings=(
    ""
    ATEN_CPU_CAPABILITY=default
    ATEN_CPU_CAPABILITY=avx2
    MKL_CBWR=COMPATIBLE
    MKL_CBWR=AVX2
    ONEDNN_MAX_CPU_ISA=AVX2
    ONEDNN_MAX_CPU_ISA=SSE41
    "OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1"
    "OMP_NUM_THREADS=2 RAYON_NUM_THREADS=2"
    "OMP_NUM_THREADS=4 RAYON_NUM_THREADS=4"
)
table=() failed=0
for setting in "${settings[@]}"; do
    echo "== ${setting:-nothing set}"
    SECONDS=0
    result=passed
    for suite in "${suites[@]}"; do
        # Tests run side by side, one a core; unless the setting says otherwise each computes on one
        # thread.
        # shellcheck disable=SC2086 # a setting and a suite may be several words
        env OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 RAYON_NUM_THREADS=2 $setting \
            "${CARGO:-cargo}" test --release --quiet $suite || result=FAILED failed=1
    done
    table+=("$(printf '%-40s %-7s %4d s' "${setting:-nothing set}" "$result" "$SECONDS")")
done
printf '%s\n' "== test matrix" "${table[@]}"
exit $failed
