#!/bin/sh
# From a fresh Debian 12 to a trained adapter: installs what is missing, builds moec, compiles the bundled T5 with a
# mixture-of-vectors adapter into one executable, runs it, and teaches it a task it cannot do.
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
packages=build
. "$root/tests/install.inc"
build=${BUILD_DIR:-$root/build}
tests= # what a tree that is there has stays as it is
[ -f "$build/CMakeCache.txt" ] || tests=-DBUILD_TESTING=OFF
cmake -S "$root" -B "$build" $tests
cmake --build "$build" -j2 --target moec
out=$build/quickstart
rm -rf "$out"
mkdir -p "$out"

echo
echo "== compile: the bundled T5 with ten (IA)3 experts at every site, for inference and training"
"$build/moec" compile "$root/examples/t5-tiny" --adapter "$root/examples/t5-tiny/mov10.json" --train \
    --dim B=1..32 --dim S=1..32 --dim T=1..32 -o "$out/t5mov"
echo "it sorts 90 80 70 (task 6) and reverses 60 70 80 90 (task 4), 1 ending each:"
"$out/t5mov" generate --ids 6,90,80,70,1 --max-length 8
"$out/t5mov" generate --ids 4,60,70,80,90,1 --max-length 8

# Examples of a new task, 7: the smallest of three to six numbers.
examples() { # COUNT SEED
    awk -v count="$1" -v state="$2" '
    function draw(n) { state = (state * 16807) % 2147483647; return state % n }
    BEGIN {
        for (i = 0; i < count; i++) {
            ids = "7"
            least = 1000
            for (n = 3 + draw(4); n > 0; n--) {
                x = 10 + draw(240)
                ids = ids "," x
                if (x < least) least = x
            }
            printf "{\"input_ids\": [%s,1], \"labels\": [%d,1]}\n", ids, least
        }
    }'
}
examples 4000 1 >"$out/train.jsonl"
examples 200 2 >"$out/dev.jsonl"

echo
echo "== train: task 7, the smallest of some numbers, is new to it; on 200 examples it will not train on:"
"$out/t5mov" eval --data "$out/dev.jsonl"
"$out/t5mov" train --data "$out/train.jsonl" --eval "$out/dev.jsonl" --steps 300 --batch 32 --optimizer adamw --lr 0.01 \
    --dropout 0 --log-every 50 --out "$out/run"
echo "after 300 steps; the weights of the base are what they were:"
"$out/t5mov" eval --data "$out/dev.jsonl" --adapter "$out/run/adapter.safetensors"
echo "the smallest of 200 31 120 77, then 1:"
"$out/t5mov" generate --ids 7,200,31,120,77,1 --adapter "$out/run/adapter.safetensors" --max-length 4
