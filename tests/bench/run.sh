#!/bin/sh
# The bench table of a T5 v1.1 with random weights, by both backends: sh tests/bench/run.sh [--train] [small|base|large] [SPEC.json]
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
backends=c
if "$build/moec" --version | grep -q LLVM; then backends="c llvm"; fi
libraries=
for backend in $backends; do
    start=$(date +%s.%N)
    "$build/moec" compile "$work/$size" ${spec:+--adapter "$spec"} $train --backend=$backend --emit=shared --prefix bench -o "$work/$backend.so"
    echo "$backend: compiled in $(echo "$start $(date +%s.%N)" | awk '{ printf "%.1f", $2 - $1 }') s"
    libraries="$libraries $backend=$work/$backend.so"
done
# OpenBLAS chooses kernels when it is loaded and knows no recent CPU
if grep -q avx512bw /proc/cpuinfo 2>/dev/null; then export OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE:-SkylakeX}"; fi
export OPENBLAS_NUM_THREADS=1
# The weights of all backends are one file's bytes. A training step has the memory to itself.
if [ -n "$train" ]; then
    for library in $libraries; do "$build/tools/$bench" "$work/c.weights" bench "$work/$size/config.json" 0 "$library"; done
else
    # shellcheck disable=SC2086
    "$build/tools/$bench" "$work/c.weights" bench "$work/$size/config.json" 0 $libraries
fi
