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
echo "compiled $out/t5mov; now it sorts (task 6) and reverses (task 4) a few tokens:"
"$out/t5mov" generate --ids 6,40,12,77,23,1 --max-length 16
"$out/t5mov" generate --ids 4,40,12,77,23,1 --max-length 16
