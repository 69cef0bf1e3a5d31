#!/bin/sh
# Weights of another model, version or byte order, adapters and checkpoints of another model: refused by programs of LLVM and with
# weights inside, with both sides named. C folders do the same in folder_train.sh, programs of the C backend in behaviour.sh.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "refusals: $*" >&2; status=1; }
"$moec" --version | grep -q LLVM || { echo "refusals: LLVM: not built in, skipped"; exit 77; }
. "$root/tests/refusals.inc"

others
for embed in '' --embed-weights; do
    name=llvm${embed:+_whole}
    # shellcheck disable=SC2086
    "$moec" compile "$root/examples/t5-tiny" --adapter "$root/tests/fixtures/adapters/mov-e4/spec.json" --train -O0 --matmul=native --backend=llvm \
        $embed -o "$work/$name" && refusals "LLVM $embed" "$name" "$work/$name" || fail "LLVM $embed"
done

# Values are not judged when they are read; when nothing can be learnt from them, the file and the place are told.
fixture=$root/tests/fixtures/adapters/mov-e4/adapter.safetensors
for value in 'inf \0\0\200\177' 'nan \0\0\300\177'; do
    cp "$fixture" "$work/odd.safetensors"
    printf "${value#* }" | dd of="$work/odd.safetensors" bs=1 seek=$(($(wc -c <"$fixture") - 8)) conv=notrunc 2>/dev/null
    "$work/llvm" train --data "$work/others/data.jsonl" --steps 1 --batch 1 --out "$work/odd" --adapter "$work/odd.safetensors" >"$work/log" 2>&1
    [ $? = 1 ] && grep -q "odd.safetensors: error: step 1: the loss is .*most extreme value is ${value%% *}, element [0-9]* of tensor '[a-z0-9.]*'" "$work/log" ||
        fail "an adapter of ${value%% *}: $(cat "$work/log")"
done
[ $status = 0 ] && echo "refusals: both sides are named"
exit $status
