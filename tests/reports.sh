#!/bin/sh
# --opt-report and --memory-report: what they say of the example with MoV, MoLORA, training, and of a graph that is no T5;
# forms, escaping of hostile names, refusals. JSON and the page are parsed where python3 is there.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "reports: $*" >&2; status=1; }
# has FILE LINE...: lines, or parts of lines, that stand in it
has() {
    file=$1
    shift
    for line in "$@"; do grep -qF -e "$line" "$file" || fail "$(basename "$file") lacks: $line"; done
}
# under FILE FUNCTION: the lines of one function
under() { awk -v f="@$2" '/^[^ ]/ { on = $0 == f } on' "$1"; }
python=$(command -v python3) && "$python" -c 'import json, html.parser, xml.dom.minidom' 2>/dev/null || python=

echo '{ "moec_adapter": 1, "method": "molora", "experts": 4, "rank": 2 }' >"$work/molora.json"
echo '{ "moec_adapter": 1, "method": "full" }' >"$work/full.json"

# ---- what is told ------------------------------------------------------------------------------------------------------

"$moec" dump "$tiny" --adapter "$tiny/mov10.json" -o "$work/mov.ir" --opt-report "$work/mov.txt" --memory-report "$work/mov.mem" || fail "dump with MoV"
under "$work/mov.txt" encoder >"$work/part"
has "$work/part" 'match  applied  encoder.{0,1}.self: self attention' 'match  applied  encoder.{0,1}.ffn: gated feed-forward block' \
    'a bias of 183 distances a head' 'attach applied  encoder.{0,1}.self.k: mov, 10 experts, router reads its value, head by head' \
    'attach note     encoder.{0,1}.self.q: no adapter'
under "$work/mov.txt" encode >"$work/part"
has "$work/part" 'fuse   applied  encoder.{0,1}.self.q: gain of "/block.*/layer.0/layer_norm/Mul_1" in the weight' \
    'one product of 192 columns: "encoder.*.self.q" | "encoder.*.self.k" | "encoder.*.self.v"' \
    'encoder.{0,1}.self.k: its adapter is part of the kernel of "encoder.*.self.q": matmul, softmax, matmul, mul' \
    'encoder.{0,1}.ffn.act: its adapter is part of the kernel of "encoder.*.ffn.wi"' \
    '/block.{0,1}/layer.1/Add: the sum stands in the kernel of "encoder.*.ffn.wo"' \
    'missed   encoder.{0,1}.self.o: matmul: not in the kernel of' 'plan   note     14 values in'
kernel=$(sed -n 's/.*kernel @\(encoder_ffn_wi_[0-9]*\):.*/\1/p' "$work/part" | head -1)
under "$work/mov.txt" "$kernel" >"$work/part"
has "$work/part" 'pack   applied  weight in panels of 16 columns, f32: %9 = matmul %8, %1' \
    'lower  applied  up to 128 rows column by column, more in parallel over tiles of rows' \
    'lower  missed   stored as a whole, softmax reads it: %9 = matmul' 'lower  note     stored, it is read more than once: %8 = gelu' \
    'lower  applied  mul, gelu run on blocks of 32 columns of 1 product before they are stored: %5 = matmul' \
    'lower  applied  mul, mul, mul run on blocks of 32 columns of 2 products before they are stored: %11 = matmul %10, %2 : f32[B,S,128]; %5 = matmul' \
    'lower  applied  add runs on blocks of 32 columns of 1 product'

# what compiler/README.md shows of it
sed -n 's/^    \(  \(fuse\|pack\|lower\) *\(applied\|missed\|note\) .*\)/\1/p' "$root/compiler/README.md" >"$work/shown"
[ -s "$work/shown" ] || fail "the README shows no remarks"
while IFS= read -r line; do has "$work/mov.txt" "$line"; done <"$work/shown"
sed -n '/^    function encode: [0-9]* steps/,/^$/s/^    //p' "$root/compiler/README.md" >"$work/shown"
[ -s "$work/shown" ] || fail "the README shows no plan"
while IFS= read -r line; do has "$work/mov.mem" "$line"; done <"$work/shown"

"$moec" dump "$tiny" --adapter "$work/molora.json" -o "$work/m.ir" --opt-report "$work/molora.txt" || fail "dump with MoLORA"
under "$work/molora.txt" encode >"$work/part"
has "$work/part" '"encoder.*.self.q", whose input it reads: its weight comes with the adapter, the other is frozen' \
    'encoder.{0,1}.self.q: its adapter is part of the kernel of "encoder.*.self.q"' 'computed whenever an adapter is loaded'

"$moec" dump "$tiny" --adapter "$tiny/mov10.json" --train --dim B=2 --dim S=8 --dim T=8 -o "$work/m.ir" --opt-report "$work/train.txt" \
    --memory-report "$work/train.mem" || fail "dump for training"
under "$work/train.txt" train >"$work/part"
has "$work/part" 'remat  note' 'computed again by the backward pass' \
    'something else reads the weight as it is, the backward pass for one' 'the backward pass of its adapter'
has "$work/train.txt" 'pack   applied  weight in panels of 32 columns' '{tb = 1}'
has "$work/train.mem" 'kept for the backward pass' 'backward pass  ' 'gradients' 'optimiser state'
"$moec" dump "$tiny" --adapter "$work/full.json" --train --dim B=2 --dim S=8 --dim T=8 -o "$work/m.ir" --opt-report "$work/full.txt" || fail "dump of method full"
has "$work/full.txt" 'attach applied' ': trained'

# numbers that `info` shows as well
"$moec" info "$tiny" --adapter "$tiny/mov10.json" --train --dim B=2 --dim S=8 --dim T=8 --memory-report "$work/info.mem" >"$work/info.txt" || fail "info --memory-report"
cmp "$work/info.mem" "$work/train.mem" || fail "info and dump tell different plans"
for part in weights gradients scratch; do
    shown=$(awk -v p="$part" '$1 == p { print $2 }' "$work/info.txt") told=$(awk -v p="$part" '$1 == p { print $3 }' "$work/train.mem")
    [ "$part" = scratch ] || [ "$shown" = "$told" ] || fail "$part: info says $shown MiB, the report $told"
done

# a graph that is no T5
for dir in gen_dynquant_matmul_chain_1 gen_matmul_const_0; do
    "$moec" run "$root/tests/fixtures/onnx_nodes/$dir/model.onnx" --backend=c --matmul=native -O1 --opt-report "$work/plain.txt" >"$work/out" || fail "run of $dir"
    has "$work/plain.txt" '@main' 'fuse   note' 'lower  '
done
"$moec" dump "$root/tests/fixtures/onnx_nodes/gen_dynquant_matmul_chain_1/model.onnx" -o "$work/m.ir" --opt-report "$work/plain.txt" --memory-report "$work/plain.mem" || fail "dump of no T5"
has "$work/plain.mem" 'function main'
"$moec" run "$work/mov.ir" --func cross --opt-report "$work/interp.txt" >"$work/out" || fail "run, interpreted"
grep -q lower "$work/interp.txt" && fail "nothing was lowered, but told of"

# compile tells what dump tells
"$moec" compile "$tiny" --adapter "$tiny/mov10.json" --emit=c --matmul=native -o "$work/c" --opt-report "$work/c.txt" --memory-report "$work/c.mem" || fail "compile"
cmp "$work/c.txt" "$work/mov.txt" || fail "compile and dump tell different things"
cmp "$work/c.mem" "$work/mov.mem" || fail "compile and dump plan differently"

"$moec" verify "$tiny" --golden "$root/tests/fixtures/t5/t5v11/golden" --matmul=native -O1 --opt-report "$work/v.txt" --memory-report "$work/v.mem" >"$work/out" ||
    fail "verify"
has "$work/v.txt" 'lower  applied'
has "$work/v.mem" 'function step'

# ---- the plan adds up --------------------------------------------------------------------------------------------------

# No two values that are alive together overlap, all lie inside, and as much is alive at most as is said.
adds_up() {
    awk '
function check(   i, j, s, alive, most) {
    for (i = 1; i <= n; i++) {
        if (at[i] + size[i] > arena) print name ": a value ends behind the arena"
        for (j = 1; j < i; j++)
            if (from[i] <= to[j] && from[j] <= to[i] && at[i] < at[j] + size[j] && at[j] < at[i] + size[i]) print name ": values overlap"
        for (s = from[i]; s <= to[i]; s++) live[s] += int((size[i] + 63) / 64) * 64
    }
    for (s in live) if (live[s] > most) most = live[s]
    if (most + 0 != peak + 0) print name ": " most " bytes alive, not " peak
    for (i = 1; i <= n; i++) if ((star[i] == "*") != (from[i] <= step && step <= to[i])) print name ": the mark of the peak"
    delete live
    n = peak = 0
}
/^function / { if (name) check(); name = $2; arena = $6; functions++; next }
/ bytes alive at once/ { peak = $1; step = 0; if (match($0, /at step [0-9]+/)) step = substr($0, RSTART + 8, RLENGTH - 8) + 0 }
/^  [ *] +[0-9]+ +[0-9]+ +[0-9]+\.\.[0-9]+ / {
    star[++n] = substr($0, 3, 1)
    line = substr($0, 4)
    split(line, w, " ")
    at[n] = w[1]; size[n] = w[2]
    split(w[3], t, "[.][.]")
    from[n] = t[1]; to[n] = t[2]
}
END { check(); if (functions < 1) print "no functions" }' "$1" >"$work/sums"
    [ ! -s "$work/sums" ] || { head -5 "$work/sums"; fail "$(basename "$1") does not add up"; }
}
for file in mov train plain; do adds_up "$work/$file.mem"; done
[ "$(grep -c '^function' "$work/train.mem")" = 10 ] || fail "ten functions are planned for training: four of them twice, with padding and without"

# Without padding, where no router reads the sentence as a whole and a batch has several rows.
grep -q "derive applied  tokens of a batch can stand in one row, without padding" "$work/mov.txt" || fail "no functions without padding"
padded() { # padded REASON OPTIONS...
    reason=$1
    shift
    "$moec" dump "$tiny" "$@" --stop-after=derive -o "$work/padded.ir" --opt-report="$work/padded.txt" || fail "dump $*"
    grep -q "derive missed *[^ ]*:* *rows keep their padding: .*$reason" "$work/padded.txt" || fail "$*: not '$reason': $(grep derive "$work/padded.txt")"
    if grep -q '_packed' "$work/padded.ir"; then fail "$*: functions without padding"; fi
}
padded "batches have one row" --dim B=1
padded "routers read the sentence as a whole" --adapter "$root/tests/fixtures/adapters/molora-sentence/spec.json"

# ---- forms ---------------------------------------------------------------------------------------------------------------

"$moec" dump "$tiny" --adapter "$tiny/mov10.json" -o "$work/m.ir" --opt-report="$work/mov.json" --memory-report="$work/mov.html" || fail ".json, .html"
"$moec" dump "$tiny" --adapter "$tiny/mov10.json" -o "$work/m.ir" --opt-report=- --opt-report-format=json --memory-report="$work/again.html" >"$work/stdout.json"
cmp "$work/mov.json" "$work/stdout.json" || fail "--opt-report-format=json on standard output"
cmp "$work/mov.html" "$work/again.html" || fail "the page is another one the second time"
"$moec" dump "$tiny" --adapter "$tiny/mov10.json" -o "$work/m.ir" --opt-report="$work/text.json" --opt-report-format=text
cmp "$work/mov.txt" "$work/text.json" || fail "--opt-report-format=text"
[ "$(wc -l <"$work/mov.json")" = "$(awk 'NR == 1 { print $2 + $4 + $6 }' "$work/mov.txt")" ] || fail "remarks of the text and lines of JSON"

# page FILE TEXT: nothing from elsewhere, as many rectangles and rows as the text has values
page() {
    grep -qiE 'https?:|<script|src=|@import|url\(' "$1" && fail "$(basename "$1") needs something else"
    values=$(grep -cE '^  [ *] +[0-9]+ +[0-9]+ ' "$2")
    [ "$(grep -c '<rect' "$1")" = "$values" ] && [ "$(grep -c '<tr id=' "$1")" = "$values" ] || fail "$(basename "$1"): not $values rectangles and rows"
    [ "$(LC_ALL=C tr -d '\n -~' <"$1" | wc -c)" = 0 ] || fail "$(basename "$1"): bytes that are no ASCII"
}
page "$work/mov.html" "$work/mov.mem"

# ---- hostile names -------------------------------------------------------------------------------------------------------

cat >"$work/hostile.ir" <<'END'
sym "</title><s>" = 1..4
param @w : f32[8,8] frozen
func @"<b>\042\047&\012" entry (%"<i>\033[31m" : f32["</title><s>",8]) {
  %a = matmul %"<i>\033[31m", @w {site = "]]>\074script\076.0.self.q"} : f32["</title><s>",8]  !"</title>\074script\076alert(1)</script>\303\244\012--\076"
  %n = cumsum %a {axis = 0, exclusive = 0, reverse = 0} : f32["</title><s>",8]  !"\042 onload=\047x()\047\303\244\012"
  %c = exp %n : f32["</title><s>",8]  !"%n%s\134u0000"
  return %c "</svg>"
}
END
"$moec" opt "$work/hostile.ir" --passes=fuse,plan -o "$work/h.ir" --opt-report "$work/h.json" --memory-report "$work/h.html" || fail "hostile names"
"$moec" opt "$work/hostile.ir" --passes=fuse,plan -o "$work/h.ir" --opt-report "$work/h.txt" --memory-report "$work/h.mem" || fail "hostile names as text"
page "$work/h.html" "$work/h.mem"
grep -qE '<(b|i|s|script)>|<title>.*onload=.x' "$work/h.html" && fail "names reach the page as they are"
has "$work/h.html" '&#60;script&#62;' '&#34;'
has "$work/h.txt" '\303\244\012'
for file in h.txt h.mem h.json; do
    [ "$(LC_ALL=C tr -d '\n -~' <"$work/$file" | wc -c)" = 0 ] || fail "$file: bytes that no terminal should see"
done
if [ -n "$python" ]; then
    for file in mov.json h.json; do
        "$python" - "$work/$file" <<'END' || fail "$file is not JSON"
import json, sys
keys = {"pass", "kind", "name", "function", "place", "origin", "message"}
for line in open(sys.argv[1]):
    x = json.loads(line)
    assert set(x) == keys and all(isinstance(v, str) for v in x.values()) and x["kind"] in ("applied", "missed", "note"), x
END
    done
    for file in mov.html h.html; do # elements are closed as XML wants it, too
        "$python" -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' "$work/$file" || fail "$file is not well-formed"
    done
fi

# ---- refusals ------------------------------------------------------------------------------------------------------------

# refused CODE WORD OPTIONS...
refused() {
    want=$1 word=$2
    shift 2
    "$moec" dump "$tiny" "$@" >"$work/out" 2>"$work/err"
    code=$?
    [ $code = "$want" ] && grep -qF -e "$word" "$work/err" || { cat "$work/err"; fail "$*: exit code $code"; }
    [ ! -e "$work/none" ] || { fail "$*: left a file"; rm -f "$work/none"; }
}
refused 2 "standard output takes one thing" --opt-report=-
refused 2 "standard output takes one thing" -o "$work/m.ir" --opt-report - --memory-report -
refused 2 "text or json" --opt-report "$work/none" --opt-report-format xml
refused 2 "needs --opt-report" --opt-report-format json
refused 1 "up to \`plan\`" -o "$work/m.ir" --stop-after=fuse --memory-report "$work/none"
refused 1 "cannot create" -o "$work/m.ir" --opt-report "$work/nowhere/x.txt"
[ -n "$python" ] || echo "reports: without python3 JSON and pages were not parsed"
exit $status
