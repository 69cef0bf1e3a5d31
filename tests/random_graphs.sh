#!/bin/sh
# 2,000 random graphs over every op: the interpreter before the passes, after them, and compiled code, through C and through
# LLVM, give the same results; most at -O0, which is compiled soonest. MOEC_BACKENDS names others, with commas between.
moec=${MOEC:-build/moec}
build=${BUILD_DIR:-build}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
if "$moec" --version | grep -q LLVM; then backends=c,llvm; else backends=c && echo "LLVM: not built in, skipped"; fi
# graphs SEED COUNT LEVEL
graphs() {
    "$build/tools/random_graphs" --seed "$1" --count "$2" -O "$3" --batch 100 --backend "${MOEC_BACKENDS:-$backends}" --shrink 3 --out "$work" || {
        for file in "$work"/*.ir; do
            [ -f "$file" ] && cat "$file"
        done
        exit 1
    }
}
graphs 1 1600 0
graphs 1601 400 1
