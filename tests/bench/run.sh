#!/bin/sh
# The bench table of a T5 v1.1 with random weights: sh tests/bench/run.sh [--train] [small|base|large] [SPEC.json]
# With --train that of a training step; SPEC.json is then MoV-10 unless given.
# Needs a built tree: BUILD_DIR, else build/ beside the sources.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD_DIR:-$root/build}
work=${WORK_DIR:-$build/bench}
bench=bench train=
if [ "${1:-}" = --train ]; then
    bench=bench_train train=--train
    shift
fi
size=${1:-base}
spec=${2:-}
mkdir -p "$work"
if [ -n "$train" ] && [ -z "$spec" ]; then
    spec=$work/mov10.json
    echo '{ "moec_adapter": 1, "method": "mov", "experts": 10 }' >"$spec"
fi
[ -f "$work/$size/config.json" ] || "$build/tools/gen_t5" "$work/$size" "$size"
start=$(date +%s)
"$build/moec" compile "$work/$size" ${spec:+--adapter "$spec"} $train --emit=shared --prefix bench -o "$work/bench.so"
echo "compiled in $(($(date +%s) - start)) s"
# OpenBLAS chooses kernels when it is loaded and knows no recent CPU
if grep -q avx512bw /proc/cpuinfo 2>/dev/null; then export OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE:-SkylakeX}"; fi
OPENBLAS_NUM_THREADS=1 "$build/tools/$bench" "$work/bench.so" "$work/bench.weights" bench "$work/$size/config.json"
