#!/bin/sh
# From a fresh Debian 12 to generated tokens: installs what is missing, builds moec, compiles the bundled T5 with a
# mixture-of-vectors adapter into one executable, and runs it.
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/install.inc"
build=${BUILD_DIR:-$root/build}
cmake -S "$root" -B "$build"
cmake --build "$build" -j2 --target moec
out=$build/quickstart
mkdir -p "$out"
"$build/moec" compile "$root/examples/t5-tiny" --adapter "$root/examples/t5-tiny/mov10.json" -o "$out/t5mov"
echo "compiled $out/t5mov; now it sorts 90 80 70 (task 6) and reverses 60 70 80 90 (task 4), 1 ending each:"
"$out/t5mov" generate --ids 6,90,80,70,1 --max-length 8
"$out/t5mov" generate --ids 4,60,70,80,90,1 --max-length 8
