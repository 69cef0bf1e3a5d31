#!/bin/sh
# moec dump --dot and --svg: Graphviz takes the graph of every pass, layers are folded, names from files stay text.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "graph: $*" >&2; status=1; }
have_dot=$(command -v dot)
echo '{ "moec_adapter": 1, "method": "mov", "experts": 3 }' >"$work/mov.json"

# ---- without Graphviz: a diagnostic, and nothing written
mkdir "$work/empty"
if PATH=$work/empty "$(command -v "$moec" || echo "$moec")" dump "$tiny" --svg -o "$work/no.svg" 2>"$work/err"; then
    fail "--svg without dot"
fi
grep -q "error: the program 'dot' is not installed; .*graphviz" "$work/err" && [ ! -e "$work/no.svg" ] || fail "--svg: $(cat "$work/err")"

# ---- every pass, with and without folding, plain and for training
for options in "" "--adapter $work/mov.json --train"; do
    # Paths of mktemp and our own words: splitting them is meant.
    # shellcheck disable=SC2086
    "$moec" dump "$tiny" $options --dump-ir=all --dump-dir="$work/dumps" -o "$work/last.ir" || fail "dump $options"
    for file in "$work"/dumps/*.ir; do
        for fold in "" --no-fold; do
            case $options$fold$file in --no-fold*0[1-2]-*) continue ;; esac # seconds of layout
            # shellcheck disable=SC2086
            "$moec" opt "$file" --dot $fold -o "$work/graph.dot" || fail "--dot of $file"
            [ -n "$have_dot" ] || continue
            case $options in # the layout of a whole training step takes minutes: its grammar is what is looked at
            *--train*) gc -n "$work/graph.dot" >"$work/drawn" 2>"$work/err" ;;
            *) dot -Tsvg "$work/graph.dot" >"$work/drawn" 2>"$work/err" ;;
            esac && [ -s "$work/drawn" ] && [ ! -s "$work/err" ] || fail "dot does not take $file $fold: $(head -3 "$work/err")"
        done
    done
    rm -r "$work/dumps"
done

# ---- layers stand once: the graph of six is as large as that of three
graph() { # LAYERS PASS OPTIONS...
    layers=$1 pass=$2
    shift 2
    "$build/tools/gen_t5" "$work/t5-$layers" small d_model=32 d_ff=48 heads=2 d_kv=16 vocab=64 layers="$layers" dec_layers="$layers" || exit 1
    "$moec" dump "$work/t5-$layers" --adapter "$work/mov.json" --stop-after="$pass" --dot "$@" -o "$work/$pass-$layers.dot" || exit 1
}
for pass in fold match attach derive fuse; do
    for layers in 2 4 6; do graph $layers $pass; done
    for what in '->' 'label='; do
        two=$(grep -c -e "$what" "$work/$pass-2.dot") four=$(grep -c -e "$what" "$work/$pass-4.dot") six=$(grep -c -e "$what" "$work/$pass-6.dot")
        [ "$four" -gt 0 ] && [ "$four" -ge "$six" ] && [ "$six" -lt $((2 * two)) ] ||
            fail "after $pass, lines with $what: $two of 2 layers, $four of 4, $six of 6"
    done
    graph 6 $pass --no-fold
    unfolded=$(grep -c 'label=' "$work/$pass-6.dot")
    [ "$unfolded" -gt "$six" ] || fail "--no-fold after $pass folds"
done
graph 6 match
[ "$(grep -c 'label="x6"' "$work/match-6.dot")" = 2 ] || fail "encoder and decoder of 6 layers are not two clusters x6"
for layers in 3 5; do graph $layers derive --train; done
[ "$(wc -l <"$work/derive-5.dot")" -lt "$((2 * $(wc -l <"$work/derive-3.dot")))" ] || fail "the graph of training grows with the layers"

# ---- one function
"$moec" dump "$tiny" --dot --func=step -o "$work/step.dot" && [ "$(grep -c '    label="@' "$work/step.dot")" = 1 ] || fail "--dot --func"
"$moec" dump "$tiny" --dot --func=none -o "$work/none.dot" 2>"$work/err" && fail "--dot --func=none"
grep -q "error: there is no function 'none'" "$work/err" || fail "--func=none: $(cat "$work/err")"

# ---- names from files
cat >"$work/odd.ir" <<'END'
param @"<script>\042\134" : f32[2] frozen
func @"a\042];evil[label=\042b" entry (%"x\012y\134" : f32[2]) {
  %0 = add %"x\012y\134", @"<script>\042\134" {site = "&lt;\042];evil2;\134"} : f32[2]
  return %0 "\134\042];evil3;"
}
END
"$moec" opt "$work/odd.ir" --dot -o "$work/odd.dot" || fail "--dot of odd names"
if [ -n "$have_dot" ]; then
    [ "$(dot -Tplain "$work/odd.dot" | grep -c '^node ')" = 4 ] || fail "names become nodes: $(cat "$work/odd.dot")"
    "$moec" opt "$work/odd.ir" --svg -o "$work/odd.svg" || fail "--svg of odd names"
    grep -q '^<svg' "$work/odd.svg" && grep -q '&lt;script&gt;' "$work/odd.svg" && ! grep -q '<script' "$work/odd.svg" || fail "the drawing of odd names"
    "$moec" dump "$tiny" --stop-after=match --svg | grep -q '</svg>' || fail "--svg on stdout"
else
    echo "graph: skipped what needs Graphviz"
fi
exit $status
