#!/bin/sh
# The compiled loss and random numbers: the same bits for every number of threads, bad labels refused, no warning in the
# generated code.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "loss: $*" >&2; status=1; }

# ---- inputs: 7 * 101 tokens are six tiles --------------------------------------------------------------------

uniform() { echo "  %$1 = random %seed$2 : f32[$3]"; }
{
    echo "func @main entry () {"
    for i in 1 2 3 4 5 6 7 8; do echo "  %seed$i = const {value = i64[] [$i]} : i64[]"; done
    uniform x 1 7,101,8
    uniform longer 2 7,104,8
    uniform flat 3 707,8
    uniform w 4 8,2500
    uniform wt 5 2500,8
    uniform wider 6 8,2700
    uniform apart 7 8,5000
    uniform dloss 8 7,101
    echo "  %labels = iota {axis = 1} : i64[7,101]"
    echo "  %s = const {value = f32[] [0.25]} : f32[]"
    echo "  %z = const {value = f32[] [0.01]} : f32[]"
    echo '  return %x "x", %longer "longer", %flat "flat", %w "w", %wt "wt", %wider "wider", %apart "apart", %dloss "dloss", %labels "labels", %s "s", %z "z"'
    echo "}"
} >"$work/make.ir"
"$moec" run "$work/make.ir" --out="$work/in" >/dev/null || exit 1
inputs="" n=0
for name in x longer flat w wt wider apart dloss labels s z; do
    inputs="$inputs --in $name=$work/in/output_$n.npy"
    n=$((n + 1))
done

# ---- threads -------------------------------------------------------------------------------------------------

for matmul in native openblas; do
    "$moec" compile "$root/tests/ir/loss.ir" --matmul=$matmul -o "$work/exe" || { fail "$matmul does not compile"; continue; }
    for threads in 1 2 5; do
        # shellcheck disable=SC2086
        "$work/exe" run main $inputs --threads $threads --out "$work/out.$threads" >/dev/null || fail "$matmul, $threads threads"
        diff -r "$work/out.1" "$work/out.$threads" >/dev/null || fail "$matmul: other bits with $threads threads"
    done
done
[ "$(ls "$work/out.1" | wc -l)" = 13 ] || fail "not 13 results"

# ---- labels --------------------------------------------------------------------------------------------------

for label in 5 -1 -101; do
    cat >"$work/label.ir" <<END
func @main entry (%x : f32[1,2,4], %w : f32[4,5], %s : f32[], %z : f32[]) {
  %l = const {value = i64[1,2] [-100, $label]} : i64[1,2]
  %loss, %log_z = cross_entropy %x, %w, %l, %s, %z : f32[1,2], f32[1,2]
  return %loss "loss"
}
END
    for backend in interp c; do
        "$moec" run "$work/label.ir" --backend=$backend -O1 --passes=bind,fold,cse,fuse,plan >"$work/got" 2>"$work/err"
        [ $? = 1 ] && [ ! -s "$work/got" ] && [ "$(wc -l <"$work/err")" = 1 ] || fail "label $label under $backend: $(cat "$work/got" "$work/err")"
    done
done

# ---- the generated code -----------------------------------------------------------------------------------------

# A weight of @random is an operand here: C sources need values.
sed 's/^param.*//; s/@w/%w/g; s/%x : f32\[B,T,24\])/%x : f32[B,T,24], %w : f32[24,24])/' "$root/tests/ir/random.ir" >"$work/random.ir"
for file in "$root/tests/ir/loss.ir" "$work/random.ir"; do
    rm -rf "$work/c"
    "$moec" compile "$file" --emit=c --matmul=native --prefix=model -o "$work/c" || fail "$file: no C sources"
    for cc in gcc clang; do
        command -v $cc >/dev/null 2>&1 || continue
        $cc -O1 -Wall -Wextra -Werror -std=c99 -pedantic -c -o "$work/model.o" "$work/c/model.c" || fail "$cc warns"
    done
done
[ $status = 0 ] && echo "loss: threads, labels and generated code as expected"
exit $status
