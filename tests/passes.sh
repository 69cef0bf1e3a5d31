#!/bin/sh
# The pipeline on a real export: every pass keeps the results (--paranoid), dumps are complete and read back, and layers of
# one kind share their kernels however many there are.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "passes: $*" >&2; status=1; }

echo '{ "moec_adapter": 1, "method": "mov", "experts": 3 }' >"$work/mov.json"
echo '{ "moec_adapter": 1, "method": "molora", "experts": 3, "rank": 2 }' >"$work/molora.json"
for spec in mov molora; do
    "$moec" dump "$tiny" --adapter "$work/$spec.json" --dim encoder_sequence_length=1..32 --dim decoder_sequence_length=1..32 --paranoid -o "$work/$spec.ir" ||
        fail "--paranoid with $spec"
done

for name in mov-e4 molora-e4-r4 long-mixed molora-sentence; do # trained values: all passes but attach keep the results
    case=$root/tests/fixtures/adapters/$name
    "$moec" dump "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --paranoid -o "$work/$name.ir" \
        2>"$work/log" && [ "$(grep -c 'round trip ok' "$work/log")" = 11 ] || { cat "$work/log"; fail "--paranoid with $name"; }
done

# ---- dumps
"$moec" dump "$tiny" --dump-ir=all --dump-dir="$work/dumps" -o "$work/planned.ir" || fail "--dump-ir=all"
for pass in bind fold match attach derive grad cse remat fuse pack plan; do
    file=$(ls "$work/dumps" | grep "$pass" | head -1)
    [ -n "$file" ] || { fail "no dump of $pass"; continue; }
    case $pass in bind) continue ;; esac
    "$moec" opt "$work/dumps/$file" --passes=cse -o "$work/again.ir" || fail "the dump of $pass does not read back"
done
"$moec" dump "$tiny" --stop-after=fuse -o "$work/fused.ir" && grep -q 'kernel' "$work/fused.ir" || fail "--stop-after=fuse"
"$moec" dump "$tiny" --time-passes -o "$work/timed.ir" 2>"$work/times" && grep -q derive "$work/times" || fail "--time-passes"

# ---- kernels are shared: depth changes the weights, not the code (a decoder layer's cross attention reads its own columns
# of cross_kv, so that one differs)
kernels() {
    "$build/tools/gen_t5" "$work/deep" small d_model=32 d_ff=48 heads=2 d_kv=16 vocab=64 layers="$1" dec_layers="$1" || exit 1
    "$moec" dump "$work/deep" --adapter "$work/mov.json" --stop-after=fuse -o "$work/deep.ir" || exit 1
    grep '^func .* kernel' "$work/deep.ir" | grep -vc '@attention'
}
two=$(kernels 2)
six=$(kernels 6)
[ "$two" = "$six" ] || fail "2 layers have $two kernels, 6 layers have $six"
# the same of the functions that prepare what depends on the adapter; but for the cross-attention keys and values of all
# layers, which are one product
prepared() {
    "$build/tools/gen_t5" "$work/deep" small d_model=32 d_ff=48 heads=2 d_kv=16 vocab=64 layers="$1" dec_layers="$1" || exit 1
    "$moec" compile "$work/deep" --adapter "$work/molora.json" --emit=c --matmul=native --prefix=deep -o "$work/c$1" || exit 1
    cat "$work/c$1"/deep*.c | grep -cE '^MOEC_KEPT (static void |void deep_)k[0-9]+_prepare\(' # deep layers: several files
}
two=$(prepared 2)
six=$(prepared 6)
[ "$two" -gt 0 ] && [ "$two" = "$six" ] || fail "2 layers have $two functions in prepare, 6 layers have $six"

# ---- what a token's q, k and v are made of need not wait for each other: threads meet once
"$build/tools/gen_t5" "$work/wide" small d_model=512 d_ff=64 heads=8 d_kv=64 vocab=64 layers=1 dec_layers=1 || exit 1
"$moec" compile "$work/wide" --emit=c --matmul=native --prefix=wide --dim B=1..4 -o "$work/cwide" || fail "--emit=c"
meetings=$(cat "$work"/cwide/wide*.c | awk '
    /^MOEC_KEPT .*_decoder_self_q_[0-9]+(_any)?\(const moec_frame/ { inside = 1 }
    inside && /moec_parallel\(.*_job/ { n++ }
    inside && /^}/ { print n + 0; exit }')
[ "$meetings" = 1 ] || fail "q, k and v of a decoder's layer: threads meet $meetings times"
exit $status
