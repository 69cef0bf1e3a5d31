#!/bin/sh
# The bench table of a T5 v1.1 with random weights: sh tests/bench/run.sh [small|base|large] [SPEC.json]
# Needs a built tree: BUILD_DIR, else build/ beside the sources.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD_DIR:-$root/build}
size=${1:-base}
work=${WORK_DIR:-$build/bench}
mkdir -p "$work"
[ -f "$work/$size/config.json" ] || "$build/tools/gen_t5" "$work/$size" "$size"
start=$(date +%s)
if [ $# -gt 1 ]; then
    "$build/moec" compile "$work/$size" --adapter "$2" --emit=shared --prefix bench -o "$work/bench.so"
else
    "$build/moec" compile "$work/$size" --emit=shared --prefix bench -o "$work/bench.so"
fi
echo "compiled in $(($(date +%s) - start)) s"
# OpenBLAS chooses kernels when it is loaded and knows no recent CPU
if grep -q avx512bw /proc/cpuinfo 2>/dev/null; then export OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE:-SkylakeX}"; fi
OPENBLAS_NUM_THREADS=1 "$build/tools/bench" "$work/bench.so" "$work/bench.weights" bench "$work/$size/config.json"
