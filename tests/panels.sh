#!/bin/sh
# Products by weights in panels: kernels with what stands behind a product, in numbers of columns around those of panels, on
# numbers of rows around those of tiles, through C (with vectors of each width this machine has, and as C99) and LLVM, with
# several threads. All numbers are small integers, so every result is exact: the bytes are the interpreter's.
moec=${MOEC:-build/moec}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "panels: $*" >&2; status=1; }

# ---- kernels of %x : f32[N,40], %r : f32[N,1] and weights of integers ------------------------------------------

n=0 params='' funcs='' calls='' named='' results='' total=0
weight() { # NAME EXTENTS
    n=$((n + 1))
    params="$params
param @$1 : f32[$2] const init @$1"
    funcs="$funcs
func @$1 init () {
  %s = const {value = i64[] [$n]} : i64[]
  %r = random %s : f32[$2]
  %a = const {value = f32[] [5]} : f32[]
  %b = const {value = f32[] [2]} : f32[]
  %m = mul %r, %a : f32[$2]
  %f = floor %m : f32[$2]
  %d = sub %f, %b : f32[$2]
  return %d \"value\"
}"
}
# kernel NAME COLUMNS "WEIGHT:EXTENTS...": the nodes, up to %out, on stdin; types as [EXTENTS]. COLUMNS: a row's elements of
# the result.
kernel() {
    name=$1 columns=$2 ins='' args=''
    for w in $3; do
        weight "$name.${w%%:*}" "${w#*:}"
        ins="$ins, %${w%%:*} : f32[${w#*:}]"
        args="$args, @$name.${w%%:*}"
    done
    nodes=$(sed 's/^/  /; s/: \[/: f32[/g') out=%out
    case $nodes in
    *"%out = "*" : f32[N,$columns]") ;;
    *) nodes="$nodes
  %all = reshape %out : f32[N,$columns]" out=%all ;;
    esac
    funcs="$funcs
func @$name kernel (%x : f32[N,40], %r : f32[N,1]$ins) {
$nodes
  return $out \"\"
}"
    calls="$calls
  %$name = call %x, %r$args {func = @$name} : f32[N,$columns]"
    named="$named $name:$columns"
    results="$results${results:+, }%$name : f32[N,$columns]"
    total=$((total + columns))

}

for c in 1 15 16 17 31 32 33 50; do
    two=$((2 * c)) three=$((3 * c)) five=$((5 * c)) more=$((c + 9)) far=$((c + 32))
    kernel "whole_$c" $c "w:40,$c" <<END
%out = matmul %x, %w : [N,$c]
END
    kernel "added_$c" $c "w:40,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = relu %a : [N,$c]
%out = add %b, %r : [N,$c]
END
    kernel "chain_$c" $c "w:40,$c w2:$c,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = relu %a : [N,$c]
%c = matmul %b, %w2 : [N,$c]
%out = add %c, %r : [N,$c]
END
    kernel "gate_$c" $c "w:40,$two" <<END
%a = matmul %x, %w : [N,$two]
%g = slice %a {start = [0, 0]} : [N,$c]
%u = slice %a {start = [0, $c]} : [N,$c]
%h = relu %g : [N,$c]
%out = mul %h, %u : [N,$c]
END
    kernel "swapped_$c" $c "w:40,$three" <<END
%a = matmul %x, %w : [N,$three]
%g = slice %a {start = [0, $two]} : [N,$c]
%u = slice %a {start = [0, 0]} : [N,$c]
%h = relu %g : [N,$c]
%out = sub %u, %h : [N,$c]
END
    kernel "inside_$c" $c "w:40,$more" <<END
%a = matmul %x, %w : [N,$more]
%b = slice %a {start = [0, 5]} : [N,$c]
%out = relu %b : [N,$c]
END
    kernel "every_second_$c" $c "w:40,$two" <<END
%a = matmul %x, %w : [N,$two]
%b = slice %a {start = [0, 0], step = [1, 2]} : [N,$c]
%out = relu %b : [N,$c]
END
    kernel "apart_$c" $c "w:40,$((4 * c))" <<END
%a = matmul %x, %w : [N,$((4 * c))]
%b = slice %a {start = [0, 0], step = [1, 2]} : [N,$c]
%c = slice %a {start = [0, $two], step = [1, 2]} : [N,$c]
%d = add %b, %c : [N,$c]
%out = relu %d : [N,$c]
END
    kernel "overlapping_$c" $c "w:40,$far" <<END
%a = matmul %x, %w : [N,$far]
%b = slice %a {start = [0, 0]} : [N,$c]
%c = slice %a {start = [0, 32]} : [N,$c]
%d = relu %b : [N,$c]
%out = sub %d, %c : [N,$c]
END
    kernel "twice_$c" $c "w:40,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = relu %a : [N,$c]
%out = sub %b, %a : [N,$c]
END
    kernel "two_$c" $c "w:40,$c w2:40,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = matmul %x, %w2 : [N,$c]
%c = relu %a : [N,$c]
%out = mul %c, %b : [N,$c]
END
    kernel "sum_$c" $c "w:40,$c w2:40,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = matmul %x, %w2 : [N,$c]
%out = add %a, %b : [N,$c]
END
    kernel "mixed_$c" $c "w:40,$c w2:$c,40" <<END
%a = matmul %x, %w : [N,$c]
%b = matmul %x, %w2 {tb = 1} : [N,$c]
%c = add %a, %b : [N,$c]
%out = add %c, %r : [N,$c]
END
    kernel "mixed_relu_$c" $c "w:40,$c w2:$c,40" <<END
%a = matmul %x, %w : [N,$c]
%b = relu %a : [N,$c]
%c = matmul %x, %w2 {tb = 1} : [N,$c]
%out = add %b, %c : [N,$c]
END
    kernel "greatest_$c" 1 "w:40,$c" <<END
%a = matmul %x, %w : [N,$c]
%out = reduce_max %a {axes = [1], keep = 1} : [N,1]
END
    kernel "wider_$c" $five "w:40,$c v:5,$c" <<END
%a = matmul %x, %w : [N,$c]
%b = reshape %a : [N,1,$c]
%out = mul %b, %v : [N,5,$c]
END
    kernel "heads_$c" $three "w:40,$three v:3,$c" <<END
%a = matmul %x, %w : [N,$three]
%b = reshape %a : [N,3,$c]
%out = mul %b, %v : [N,3,$c]
END
    kernel "batch_$c" $five "w:5,8,$c" <<END
%a = reshape %x : [N,5,1,8]
%b = matmul %a, %w : [N,5,1,$c]
%c = reshape %b : [N,5,$c]
%out = relu %c : [N,5,$c]
END
    kernel "batch_whole_$c" $five "w:5,8,$c" <<END
%a = reshape %x : [N,5,1,8]
%out = matmul %a, %w : [N,5,1,$c]
END
    kernel "batch_rows_$c" $((10 * c)) "w:5,4,$c" <<END
%a = reshape %x : [N,5,2,4]
%b = matmul %a, %w : [N,5,2,$c]
%out = relu %b : [N,5,2,$c]
END
    kernel "batch_flat_$c" $five "w:5,8,$c" <<END
%a = reshape %x : [N,5,1,8]
%b = matmul %a, %w : [N,5,1,$c]
%c = reshape %b : [N,$five]
%out = relu %c : [N,$five]
END
    kernel "batch_one_$c" $five "w:5,40,$c" <<END
%a = reshape %x : [N,1,1,40]
%b = matmul %a, %w : [N,5,1,$c]
%c = reshape %b : [N,5,$c]
%out = relu %c : [N,5,$c]
END
    kernel "batch_two_$c" $((10 * c)) "w:2,5,4,$c" <<END
%a = reshape %x : [N,2,5,1,4]
%b = matmul %a, %w : [N,2,5,1,$c]
%c = reshape %b : [N,10,$c]
%out = relu %c : [N,10,$c]
END
    kernel "batch_some_$c" $((10 * c)) "w:2,5,8,$c" <<END
%a = reshape %x : [N,1,5,1,8]
%b = matmul %a, %w : [N,2,5,1,$c]
%c = reshape %b : [N,10,$c]
%out = relu %c : [N,10,$c]
END
    kernel "batch_behind_$c" $five "w:5,8,$c" <<END
%a = reshape %x : [N,1,5,1,8]
%b = matmul %a, %w : [N,1,5,1,$c]
%c = reshape %b : [N,5,$c]
%out = relu %c : [N,5,$c]
END
    kernel "inner_$c" $five "w:8,$c" <<END
%a = reshape %x : [N,5,8]
%b = matmul %a, %w : [N,5,$c]
%out = relu %b : [N,5,$c]
END
    kernel "strided_$c" $c "w:20,$c" <<END
%a = slice %x {start = [0, 1], step = [1, 2]} : [N,20]
%b = matmul %a, %w : [N,$c]
%out = relu %b : [N,$c]
END
    kernel "turned_$c" $((8 * c)) "w:5,$c" <<END
%a = reshape %x : [N,5,8]
%b = transpose %a {perm = [0, 2, 1]} : [N,8,5]
%c = matmul %b, %w : [N,8,$c]
%out = relu %c : [N,8,$c]
END
    kernel "transposed_$c" $((8 * c)) "w:5,$c" <<END
%a = reshape %x : [N,5,8]
%out = matmul %a, %w {ta = 1} : [N,8,$c]
END
    kernel "nine_$c" $c "w1:40,$c w2:40,$c w3:40,$c w4:40,$c w5:40,$c w6:40,$c w7:40,$c w8:40,$c w9:40,$c" <<END
%b1 = matmul %x, %w1 : [N,$c]
$(for i in 2 3 4 5 6 7 8 9; do printf '%%a%s = matmul %%x, %%w%s : [N,%s]\n%%b%s = sub %%b%s, %%a%s : [N,%s]\n' $i $i $c $i $((i - 1)) $i $c; done)
%out = relu %b9 : [N,$c]
END
done
cat >"$work/panels.ir" <<END
sym N = 1..300$params$funcs
func @all kernel ($results) {
  %all = concat $(echo "$results" | sed 's/ : f32\[[^]]*\]//g') {axis = 1} : f32[N,$total]
  return %all ""
}
func @main entry (%x : f32[N,40], %r : f32[N,1]) {$calls
  %all = call $(echo "$results" | sed 's/ : f32\[[^]]*\]//g') {func = @all} : f32[N,$total]
  return %all "all"
}
END

# ---- what the kernels are here for -----------------------------------------------------------------------------

"$moec" dump "$work/panels.ir" -o "$work/planned.ir" --opt-report "$work/report" || exit 1
for part in 'relu runs on blocks of 32 columns of 1 product' 'relu, mul run on blocks of 32 columns of 1 product' \
    'relu, mul run on blocks of 32 columns of 2 products' 'runs on blocks of 16 columns' \
    'sub, sub, sub, sub, sub, sub, sub, sub, relu run on blocks of 32 columns of 9 products' \
    'the kernel returns it' 'it is stored in another shape' \
    'what reads it begins inside a panel' 'a slice takes other than columns side by side' 'it is read more than once' \
    'reduce_max reads it' 'what reads it repeats its elements' 'each row of the kernel has several of its rows' \
    'the last axis of what is stored is no number of whole panels' 'a block of columns would be of several matrices' \
    'its left operand repeats along some batches, or has several axes of them' 'the left operand is read transposed'; do
    grep -qF -e "$part" "$work/report" || fail "no kernel is here for: $part"
done

# ---- the programs ----------------------------------------------------------------------------------------------

kinds="native generic"
[ "$(uname -m)" != x86_64 ] || kinds="$kinds x86-64"
! grep -q avx512f /proc/cpuinfo 2>/dev/null || kinds="$kinds haswell" # the other kinds of x86 are this machine's own
for kind in $kinds; do
    "$moec" compile "$work/panels.ir" -O1 -march="$kind" -o "$work/c.$kind" || fail "C, $kind: compile"
done
programs=$(echo " $kinds" | sed 's/ / c./g')
if "$moec" --version | grep -q LLVM; then
    "$moec" compile "$work/panels.ir" -O1 --backend=llvm -o "$work/llvm" || fail "LLVM: compile"
    programs="$programs llvm"
else
    echo "LLVM: not built in, skipped"
fi

for rows in 1 2 3 5 7 8 9 127 128 129 300; do
    cat >"$work/in.ir" <<END
func @main entry () {
  %s = const {value = i64[] [$rows]} : i64[]
  %u = random %s : f32[$rows,40]
  %a = const {value = f32[] [9]} : f32[]
  %b = const {value = f32[] [4]} : f32[]
  %m = mul %u, %a : f32[$rows,40]
  %f = floor %m : f32[$rows,40]
  %x = sub %f, %b : f32[$rows,40]
  %r = slice %x {start = [0, 3]} : f32[$rows,1]
  return %x "x", %r "r"
}
END
    "$moec" run "$work/in.ir" --out "$work/in" >/dev/null && "$moec" run "$work/panels.ir" --input x="$work/in/output_0.npy" \
        --input r="$work/in/output_1.npy" --out "$work/want" >/dev/null || { fail "$rows rows: interpreter"; continue; }
    for program in $programs; do
        for threads in 1 3; do
            "$work/$program" run main --in x="$work/in/output_0.npy" --in r="$work/in/output_1.npy" --threads $threads \
                --out "$work/got" >/dev/null || { fail "$program, $rows rows: run"; continue; }
            cmp -i 128 "$work/want/output_0.npy" "$work/got/all.npy" >"$work/differ" || fail "$program, $rows rows, $threads threads: $(
                sed 's/.* byte \([0-9]*\),.*/\1/' "$work/differ" | awk -v total=$total -v named="$named" '{
                    column = int(($1 - 1) / 4) % total
                    k = split(named, kernel, " ")
                    for (i = 1; i <= k; i++) {
                        split(kernel[i], part, ":")
                        if (column < part[2]) break
                        column -= part[2]
                    }
                    print "kernel " part[1] ", column " column
                }')"
        done
    done
done

# ---- rows that are not the kernel's, more than a tile has ------------------------------------------------------

params='' funcs=''
weight w 40,50
cat >"$work/inner.ir" <<END
sym N = 1..3
sym T = 1..3000$params$funcs
func @k kernel (%x : f32[N,T,40], %w : f32[40,50]) {
  %y = matmul %x, %w : f32[N,T,50]
  %z = reduce_max %y {axes = [1], keep = 1} : f32[N,1,50]
  return %y "", %z ""
}
func @main entry (%x : f32[N,T,40]) {
  %y, %z = call %x, @w {func = @k} : f32[N,T,50], f32[N,1,50]
  return %y "y", %z "z"
}
END
cat >"$work/in.ir" <<END
func @main entry () {
  %s = const {value = i64[] [1]} : i64[]
  %u = random %s : f32[2,1000,40]
  %a = const {value = f32[] [9]} : f32[]
  %m = mul %u, %a : f32[2,1000,40]
  %x = floor %m : f32[2,1000,40]
  return %x "x"
}
END
"$moec" run "$work/in.ir" --out "$work/in" >/dev/null && "$moec" run "$work/inner.ir" --input x="$work/in/output_0.npy" \
    --out "$work/want" >/dev/null && "$moec" compile "$work/inner.ir" -O1 -o "$work/inner" || fail "inner rows"
"$work/inner" run main --in x="$work/in/output_0.npy" --out "$work/got" >/dev/null &&
    cmp -i 128 "$work/want/output_0.npy" "$work/got/y.npy" && cmp -i 128 "$work/want/output_1.npy" "$work/got/z.npy" ||
    fail "inner rows: other results"
[ $status = 0 ] && echo "panels: $(echo "$named" | wc -w) kernels of $n weights, $(echo "$programs" | wc -w) programs"
exit $status
