#!/bin/sh
# Weights in formats: kernels of products by bf16, int8 and int4, their left operand as it is or rounded, in numbers of columns
# and rows around those of panels and tiles, through C (with vectors of each width this machine has, and as C99) and LLVM,
# with several threads, against the interpreter on the same words. Then a small T5: a training step, and what verify tells.
moec=${MOEC:-build/moec}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "formats: $*" >&2; status=1; }

# ---- kernels of %x : f32[N,72] ----------------------------------------------------------------------------------

# K is no number of whole blocks; 24 columns are one panel, 160 five of them, 4 those of a format that stays f32.
params='' funcs='' calls='' results='' total=0 seed=0
weight() { # NAME EXTENTS
    seed=$((seed + 1))
    params="$params
param @$1 : f32[$2] const init @$1"
    funcs="$funcs
func @$1 init () {
  %s = const {value = i64[] [$seed]} : i64[]
  %r = random %s : f32[$2]
  %a = const {value = f32[] [0.4]} : f32[]
  %m = sub %r, %a : f32[$2]
  return %m \"value\"
}"
}
kernel() { # NAME COLUMNS "WEIGHT:EXTENTS...": the nodes, up to %out, on stdin
    ins='' args=''
    for w in $3; do
        weight "$1.${w%%:*}" "${w#*:}"
        ins="$ins, %${w%%:*} : f32[${w#*:}]"
        args="$args, @$1.${w%%:*}"
    done
    funcs="$funcs
func @$1 kernel (%x : f32[N,72]$ins) {
$(sed 's/^/  /; s/: \[/: f32[/g')
  return %out \"\"
}"
    calls="$calls
  %$1 = call %x$args {func = @$1} : f32[N,$2]"
    results="$results${results:+, }%$1 : f32[N,$2]"
    total=$((total + $2))
}
for c in 4 24 33 64 160; do
    kernel "whole_$c" $c "w:72,$c" <<END
%out = matmul %x, %w : [N,$c]
END
    kernel "gate_$c" $c "w:72,$((2 * c))" <<END
%a = matmul %x, %w : [N,$((2 * c))]
%g = slice %a {start = [0, 0]} : [N,$c]
%u = slice %a {start = [0, $c]} : [N,$c]
%h = gelu %g : [N,$c]
%out = mul %h, %u : [N,$c]
END
    kernel "chain_$c" 72 "w:72,$((8 * c)) w2:$((8 * c)),72" <<END
%a = matmul %x, %w : [N,$((8 * c))]
%b = relu %a : [N,$((8 * c))]
%c = matmul %b, %w2 : [N,72]
%out = add %c, %x : [N,72]
END
    kernel "back_$c" $c "w:$c,72 w2:72,$c" <<END
%a = matmul %x, %w {tb = 1} : [N,$c]
%b = matmul %x, %w2 : [N,$c]
%c = relu %a : [N,$c]
%out = add %b, %c : [N,$c]
END
done
kernel heads 192 "w:72,192 v:3,64" <<END
%a = matmul %x, %w : [N,192]
%b = reshape %a : [N,3,64]
%c = mul %b, %v : [N,3,64]
%out = reshape %c : [N,192]
END
cat >"$work/formats.ir" <<END
sym N = 1..300$params$funcs
func @all kernel ($results) {
  %all = concat $(echo "$results" | sed 's/ : f32\[[^]]*\]//g') {axis = 1} : f32[N,$total]
  return %all ""
}
func @main entry (%x : f32[N,72]) {$calls
  %all = call $(echo "$results" | sed 's/ : f32\[[^]]*\]//g') {func = @all} : f32[N,$total]
  return %all "all"
}
END
for rows in 1 2 3 8 9 130 300; do
    cat >"$work/in.ir" <<END
func @main entry () {
  %s = const {value = i64[] [7]} : i64[]
  %u = random %s : f32[$rows,72]
  %b = const {value = f32[] [0.3]} : f32[]
  %x = sub %u, %b : f32[$rows,72]
  return %x "x"
}
END
    "$moec" run "$work/in.ir" --out "$work/in.$rows" >/dev/null || fail "inputs"
done

# near LABEL WANT GOT TOLERANCE: the largest difference to the largest number
near() {
    python3 - "$@" <<'END' || fail "$1: other results than the interpreter's"
import struct, sys
def load(path):
    data = open(path, "rb").read()
    body = data[10 + struct.unpack("<H", data[8:10])[0]:]
    return struct.unpack("<%df" % (len(body) // 4), body)
want, got = load(sys.argv[2]), load(sys.argv[3])
worst = max(abs(a - b) for a, b in zip(want, got))
largest = max(abs(a) for a in want)
if len(want) != len(got) or not worst <= float(sys.argv[4]) * largest:
    print("largest difference", worst, "of numbers up to", largest)
    sys.exit(1)
END
}

# Rows unlike each other: as before, with one number far above the rest, zeros, hardly anything, no numbers, as before. What is no
# number in a row stays in it, and is seen wherever the interpreter has none.
python3 - "$work/in.9/output_0.npy" "$work/uneven.npy" <<'END' || fail "inputs"
import struct, sys
data = open(sys.argv[1], "rb").read()
head = 10 + struct.unpack("<H", data[8:10])[0]
x = list(struct.unpack("<648f", data[head:]))
x[72 + 5], x[2 * 72 + 71], x[3 * 72] = 1e6, -1e12, 3e4
x[4 * 72 : 5 * 72] = [0.0] * 72
x[5 * 72 : 6 * 72] = [v * 1e-33 for v in x[5 * 72 : 6 * 72]]
x[6 * 72 + 3], x[7 * 72 + 70] = float("inf"), float("nan")
open(sys.argv[2], "wb").write(data[:head] + struct.pack("<648f", *x))
END
near_by_rows() { # LABEL WANT GOT TOLERANCE
    python3 - "$@" <<'END' || fail "$1: other results than the interpreter's of uneven rows"
import math, struct, sys
def load(path):
    data = open(path, "rb").read()
    body = data[10 + struct.unpack("<H", data[8:10])[0]:]
    all = struct.unpack("<%df" % (len(body) // 4), body)
    return [all[i * len(all) // 9 : (i + 1) * len(all) // 9] for i in range(9)]
bad = 0
for row, (want, got) in enumerate(zip(load(sys.argv[2]), load(sys.argv[3]))):
    if row in (6, 7):
        bad += sum(math.isfinite(b) and not math.isfinite(a) for a, b in zip(want, got))
        continue
    worst, largest = max(abs(a - b) for a, b in zip(want, got)), max(map(abs, want))
    if not worst <= float(sys.argv[4]) * largest + 1e-29:
        print("row", row, "largest difference", worst, "of numbers up to", largest)
        bad += 1
sys.exit(bad > 0)
END
}

programs=0
check() { # FORMAT ACTIVATIONS KIND
    label="$1, $2" program="$work/p.$1.$2.$3"
    backend="-march=$3"
    [ "$3" != llvm ] || backend=--backend=llvm
    "$moec" compile "$work/formats.ir" --weights="$1" --activations="$2" -O1 "$backend" -o "$program" || { fail "$label, $3: compile"; return; }
    programs=$((programs + 1))
    for rows in 1 2 3 8 9 130 300; do
        for threads in 1 3; do
            "$program" run main --in x="$work/in.$rows/output_0.npy" --threads $threads --out "$work/got.$threads" >/dev/null ||
                { fail "$label, $3, $rows rows: run"; return; }
        done
        near "$label, $3, $rows rows" "$work/want.$rows/output_0.npy" "$work/got.1/all.npy" $tolerance
        cmp "$work/got.1/all.npy" "$work/got.3/all.npy" || fail "$label, $3, $rows rows: three threads make other bits"
        # whatever the batch, a row has the same bits
        tail -c +129 "$work/got.1/all.npy" >"$work/rows.$rows"
        head -c "$(wc -c <"$work/rows.1")" "$work/rows.$rows" | cmp - "$work/rows.1" || fail "$label, $3, $rows rows: other bits than of one row"
    done
    [ "$2" = f32 ] || return
    "$program" run main --in x="$work/uneven.npy" --out "$work/got.uneven" >/dev/null || { fail "$label, $3, uneven rows: run"; return; }
    near_by_rows "$label, $3" "$work/want.uneven/output_0.npy" "$work/got.uneven/all.npy" $tolerance
}
kinds="native generic" # programs of C
! grep -q avx512f /proc/cpuinfo 2>/dev/null || kinds="$kinds haswell"
if "$moec" --version | grep -q LLVM; then kinds="$kinds llvm"; else echo "LLVM: not built in, skipped"; fi
for pair in bf16/f32 bf16/bf16 int8/f32 int8/int8 int4/f32 int4/int8; do
    format=${pair%/*} activations=${pair#*/} tolerance=2e-5
    [ $activations = f32 ] || tolerance=2e-4 # what is rounded may be a last bit to the other side
    "$moec" dump "$work/formats.ir" --weights="$format" --activations="$activations" --stop-after=pack -o "$work/packed.ir" \
        --opt-report "$work/report" || { fail "$pair: dump"; continue; }
    grep -q "32 columns, $format" "$work/report" && grep -q "is f32, not $format: it has few columns" "$work/report" ||
        fail "$pair: not reported"
    [ "$activations" = f32 ] || grep -q "quantize %.* {format = \"$activations\"}" "$work/packed.ir" || fail "$pair: nothing is rounded"
    for rows in 1 2 3 8 9 130 300; do
        "$moec" run "$work/packed.ir" --input x="$work/in.$rows/output_0.npy" --out "$work/want.$rows" >/dev/null ||
            fail "$pair, $rows rows: interpreter"
    done
    "$moec" run "$work/packed.ir" --input x="$work/uneven.npy" --out "$work/want.uneven" >/dev/null || fail "$pair, uneven rows: interpreter"
    for kind in $kinds; do check "$format" "$activations" "$kind"; done
done

# ---- a T5 --------------------------------------------------------------------------------------------------------

# A training step whose base is in a format, forward and back, with its gradients.
. "$root/tests/both.inc"
for format in bf16 int8 int4; do
    "$moec" dump "$root/examples/t5-tiny" --adapter "$root/examples/t5-tiny/mov10.json" --train --weights=$format --stop-after=pack \
        -o "$work/train.ir" || fail "$format: dump of training"
    ! grep -q quantize "$work/train.ir" || fail "$format: training rounds what products take"
    [ $format = int8 ] || llvm=
    both "$format, training" "$work/train.ir" --func train --dim B=2 --dim S=6 --dim T=5
done

# What a format costs is told, and judged where a tolerance is given.
model=$root/examples/t5-tiny golden=$root/tests/fixtures/t5/t5v11/golden
"$moec" verify "$model" --golden "$golden" --weights=int4 --weights='*.wo=bf16' -O1 >"$work/told" || { cat "$work/told"; fail "verify judges"; }
grep -q "^what the weights' format costs: logits 0" "$work/told" || fail "verify does not tell what a format costs"
! "$moec" verify "$model" --golden "$golden" --weights=int4 --tolerance=1e-5 -O1 >"$work/judged" || fail "verify does not judge by a tolerance"
grep -q FAILED "$work/judged" || fail "verify names nothing that fails"

# A chosen site has its own format; identical layers then have kernels of their own.
"$moec" dump "$model" --weights=bf16 --weights='encoder.0.*=f32' --weights=lm_head=int8 -o "$work/sites.ir" || fail "choices by site"
grep -q '^param .*panels" : f32.* site "encoder.0.ffn.wo"' "$work/sites.ir" && grep -q '^param .*panels" : i32.* site "encoder.1.ffn.wo"' "$work/sites.ir" &&
    grep -q 'format = "int8"' "$work/sites.ir" && [ "$(grep -c '^func @encoder_ffn_wi.* kernel' "$work/sites.ir")" = 4 ] ||
    fail "formats by site"

# LLVM takes the instructions a CPU has, and no others.
takes() { # CPU FORMAT INSTRUCTION ABSENT
    "$moec" compile "$model" --weights="$2" --activations="$2" --backend=llvm --target=x86_64-linux-gnu -mcpu="$1" --emit=asm -O1 \
        -o "$work/asm" || { fail "$1: compile"; return; }
    grep -q "$3" "$work/asm" || fail "$1, $2: no $3"
    ! grep -q "$4" "$work/asm" || fail "$1, $2: $4"
}
if "$moec" --version | grep -q LLVM; then
    takes znver4 int8 'vpdpbusd.*%zmm' vpmaddwd
    takes znver4 bf16 'vdpbf16ps.*%zmm' none
    takes skylake-avx512 int8 'vpmaddwd.*%zmm' vpdpbusd
    takes alderlake int8 'vpdpbusd.*%ymm' %zmm
    takes haswell int8 'vpmaddwd.*%ymm' vpdpbusd
fi

# ---- what may not be asked for -----------------------------------------------------------------------------------

refused() { # WHAT OPTIONS...
    what=$1
    shift
    "$moec" dump "$root/examples/t5-tiny" -o "$work/no.ir" "$@" 2>"$work/err"
    [ $? = 1 ] && grep -qF -e "$what" "$work/err" && [ ! -e "$work/no.ir" ] || { cat "$work/err"; fail "$*: not refused"; }
}
refused "f32, bf16, int8 or int4 was expected" --weights=encoder.*=int7
refused "pattern 'encoder.{0'" "--weights=encoder.{0=int8"
refused "with --train they are f32" --weights=int8 --activations=int8 --train

[ $status = 0 ] && echo "formats: $programs programs"
exit $status
