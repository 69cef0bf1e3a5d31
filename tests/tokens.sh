#!/bin/sh
# Where token ids come from (config.json, --config, --pad --eos --start, T5's own), and text in and out of an executable.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
whole=$root/tests/fixtures/t5/t5v10/plain-op17 tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "tokens: $*" >&2; status=1; }

# ids WARNINGS "pad = P, eos = E, start = S" MODEL OPTIONS...
ids() {
    warnings=$1 want=$2
    shift 2
    "$moec" dump "$@" >"$work/ir" 2>"$work/err" || fail "$*: $(cat "$work/err")"
    grep '^seq2seq' "$work/ir" | grep -qF "$want" || fail "$*: $want expected, there is $(grep '^seq2seq' "$work/ir")"
    [ "$(grep -c "$work.*: warning: .*--config" "$work/err")" = "$warnings" ] || fail "$*: warnings: $(cat "$work/err")"
    [ "$(wc -l <"$work/err")" = "$warnings" ] || fail "$*: says more: $(cat "$work/err")"
}

mkdir "$work/pair" "$work/whole"
cp "$tiny"/*coder_model.onnx "$work/pair"
cp "$whole/model.onnx" "$work/whole"
own='pad = 0, eos = 1, start = 0'
ids 0 "$own" "$tiny"
ids 0 "$own" "$whole"
ids 1 "$own" "$work/pair"
ids 1 "$own" "$work/whole"
ids 0 'pad = 2, eos = 3, start = 4' "$work/pair" --pad=2 --eos=3 --start=4
ids 1 'pad = 0, eos = 3, start = 0' "$work/whole" --eos 3
sed 's/"eos_token_id": [0-9]*/"eos_token_id": 7/' "$tiny/config.json" >"$work/t5.json"
ids 0 'pad = 0, eos = 7, start = 0' "$work/pair" --config "$work/t5.json"
ids 0 'pad = 0, eos = 7, start = 5' "$work/whole/model.onnx" --config "$work/t5.json" --start 5
cp "$work/t5.json" "$work/whole/config.json"
ids 0 'pad = 0, eos = 7, start = 0' "$work/whole"
ids 0 'pad = 0, eos = 7, start = 0' "$work/whole/model.onnx"

mkdir "$work/text"
cp "$tiny"/*.json "$tiny"/*.onnx "$root/tests/fixtures/tokenizer/spiece.model" "$work/text"
if "$moec" compile "$work/text" --matmul=native -O1 -o "$work/m"; then
    rm -rf "$work/text"
    "$work/m" generate --text "a b zq abc" --max-length 8 >"$work/out" || fail "generate --text"
    [ "$(wc -l <"$work/out")" = 1 ] || fail "one line of text was expected: $(cat "$work/out")"
else
    fail "compile with a vocabulary"
fi
[ $status = 0 ] && echo "tokens: configs, options, defaults and text as expected"
exit $status
