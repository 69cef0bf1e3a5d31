#!/bin/sh
# 2,000 random graphs over every op: the interpreter before the passes, after them, and compiled code give the same results.
# Backends are named in MOEC_BACKENDS, with commas between.
build=${BUILD_DIR:-build}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"$build/tools/random_graphs" --seed 1 --count 2000 --batch 100 --backend "${MOEC_BACKENDS:-c}" --shrink 3 --out "$work" || {
    for file in "$work"/*.ir; do
        [ -f "$file" ] && cat "$file"
    done
    exit 1
}
