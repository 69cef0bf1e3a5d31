#!/bin/sh
# Every dump is valid input: what a pass leaves of a model, plain, with an adapter and for training, goes through moec opt
# unchanged, and moec run executes it, interpreted and compiled, with the same results.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "dumps: $*" >&2; status=1; }
level=-O0
. "$root/tests/both.inc"

echo '{ "moec_adapter": 1, "method": "mov", "experts": 3 }' >"$work/mov.json"
for options in "" "--adapter $work/mov.json" "--adapter $work/mov.json --train"; do
    case $options in *--train) kind=train ;; *mov*) kind=mov ;; *) kind=plain ;; esac
    # Paths of mktemp and our own words: splitting them is meant.
    # shellcheck disable=SC2086
    "$moec" dump "$root/examples/t5-tiny" $options --dump-changed --dump-dir="$work/$kind" -o "$work/last.ir" 2>"$work/err" ||
        fail "dump $options: $(cat "$work/err")"
    [ "$(ls "$work/$kind" | wc -l)" -ge 8 ] || fail "$kind: dumps are missing: $(ls "$work/$kind")"
    for file in "$work/$kind"/*.ir; do
        name="$kind ${file##*/}"
        "$moec" opt "$file" -o "$work/again.ir" && sed 1d "$file" | cmp -s - "$work/again.ir" || fail "$name does not go through opt unchanged"
        for func in encoder decoder encode cross score; do
            grep -q "^func @$func entry" "$file" || continue
            "$moec" run "$file" --func $func >"$work/out" 2>"$work/err" && [ -s "$work/out" ] || fail "$name, $func: $(cat "$work/err")"
        done
        if grep -q '^func @step entry' "$file"; then
            [ $kind = train ] || both "$name, step" "$file" --func step --matmul=native
        elif [ $kind != train ]; then # the rest of the pipeline, named
            rest=derive,grad,cse,remat,fuse,pack,plan
            case $name in *attach*) ;; *) rest=bind,fold,match,attach,$rest ;; esac
            both "$name, step" "$file" --func step --passes=$rest --matmul=native
        else # the rest of the pipeline, as moec sees what has run
            "$moec" run "$file" --func step --backend=c -O0 --matmul=native >"$work/b" 2>"$work/err" || fail "$name, compiled: $(cat "$work/err")"
        fi
        # gradients that are still to be made are differences of the whole step: an hour of interpreting
        ! grep -q '^func @train entry' "$file" || grep -q ' = gradient ' "$file" || both "$name, train" "$file" --func train --matmul=native
    done
done
# a dump from before its functions for training takes the options that make them
"$moec" run "$work/train/04-after-attach.ir" --train --func train --backend=c -O0 --matmul=native >"$work/out" 2>"$work/err" &&
    grep -q '^loss' "$work/out" || fail "training from the adapter's dump: $(cat "$work/err")"
# an adapter is not attached twice, nor dropped without a word
"$moec" run "$work/mov/11-after-plan.ir" --adapter "$work/mov.json" --func step >"$work/out" 2>"$work/err" && fail "a second adapter is taken"
grep -q '11-after-plan.ir: error: the adapter of this dump is attached already' "$work/err" || fail "a second adapter: $(cat "$work/err")"
exit $status
