#!/bin/sh
# moec verify --per-node: compiled kernels against the interpreter, in order; what was altered is found and named.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
. "$root/tests/quick.inc"
fail() { echo "per_node: $*" >&2; cat "$work/out" "$work/err" >&2; status=1; }
# verify CODE OPTIONS...: what it says in $work/out.
verify() {
    want=$1
    shift
    # shellcheck disable=SC2086
    "$moec" verify "$@" --per-node $quick >"$work/out" 2>"$work/err"
    code=$?
    [ $code = "$want" ] || fail "verify $*: exit code $code"
}
echo '{ "moec_adapter": 1, "method": "molora", "experts": 3, "rank": 2 }' >"$work/molora.json"

# ---- nothing departs: seeded inputs, stored ones, training, any graph, fused text IR
verify 0 "$tiny" --adapter "$work/molora.json"
for func in encode cross step score; do
    grep -q "^function $func: [1-9][0-9]* nodes, worst .* at %" "$work/out" || fail "no line of $func"
done
[ "$(grep -c '^pass .* same results$' "$work/out")" = 10 ] || fail "not a line for each pass"
verify 0 "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --golden "$case" --train --tolerance=1e-4
grep -q '^function train: [1-9][0-9]* nodes, .*, case short$' "$work/out" || fail "no line of the training step"
verify 0 "$root/tests/ir/gradients.ir" --dim B=3 --dim T=7
! "$moec" --version | grep -q LLVM || verify 0 "$root/tests/ir/gradients.ir" --dim B=3 --dim T=7 --backend=llvm

# ---- another reference: the first node that computes something else is named, and so are its element and both values
"$moec" dump "$tiny" --adapter "$work/molora.json" --stop-after=fuse -o "$work/fused.ir" || fail "dump"
verify 0 "$work/fused.ir" --against "$work/fused.ir"
ffn=$(sed -n 's/^func @\(encoder_ffn[a-z_]*_[0-9]*\) kernel.*/\1/p' "$work/fused.ir" | head -1)
sed "/^func @$ffn kernel/,/^}/s/ = gelu / = relu /" "$work/fused.ir" >"$work/relu.ir"
! cmp -s "$work/fused.ir" "$work/relu.ir" || fail "no kernel $ffn with gelu"
verify 1 "$work/fused.ir" --against "$work/relu.ir"
grep -q '^FAILED$' "$work/out" && [ "$(grep -c ' departs at ' "$work/out")" = 1 ] || fail "not encode alone"
sed -n '/^function encode/,/^function cross/p' "$work/out" >"$work/encode"
grep -q "{func = @$ffn, .*  !\"/block.0/layer.1/" "$work/encode" || fail "the node that departs is not the first call of $ffn"
grep -q '^    element \[[0-9]*,[0-9]*,[0-9]*\]: compiled [-0-9.e]*, interpreted [-0-9.e]*$' "$work/encode" || fail "no element"
verify 0 "$work/fused.ir" --against "$work/relu.ir" --tolerance=0.9
# the model itself against an altered dump of it: weights are the model's
verify 1 "$tiny" --adapter "$work/molora.json" --against "$work/relu.ir"
grep -q "{func = @$ffn, .*  !\"/block.0/layer.1/" "$work/out" || fail "the model against an altered dump"

# ---- what cannot be compared
"$moec" dump "$tiny" --adapter "$work/molora.json" --stop-after=cse -o "$work/flat.ir" || fail "dump"
verify 1 "$work/fused.ir" --against "$work/flat.ir"
grep -q 'flat.ir: error: function @encode does not make the calls' "$work/err" || fail "a module of other calls"
verify 2 "$tiny" --per-node --tolerance=none
"$moec" verify "$tiny" --against "$work/flat.ir" --golden "$case" >"$work/out" 2>"$work/err"
[ $? = 2 ] || fail "--against without --per-node"
exit $status
