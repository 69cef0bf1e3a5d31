#!/bin/sh
# --dispatch: one result for several CPUs. Every variant that this machine runs gives what the model compiled for it alone
# gives; an emulated CPU gets the variant it can run; every form, through C and LLVM; sources; what is refused.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "dispatch: $*" >&2; status=1; }
unset MOEC_VARIANT
if "$moec" --version | grep -q LLVM; then backends="c llvm"; else backends=c && echo "LLVM: not built in, skipped"; fi
. "$root/tests/quick.inc"
# compile BACKEND OPTIONS...: LLVM's soonest level is its own.
compile() {
    level=$quick
    [ "$1" = c ] || level="--matmul=native -O0"
    # shellcheck disable=SC2086
    "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" $level --backend="$@"
}
prompt=4,60,70,80,90,1

if [ "$(uname -m)" != x86_64 ]; then
    compile c --dispatch -o "$work/exe" 2>"$work/err" && fail "taken where there is one variant"
    grep -q "leave it out" "$work/err" || fail "not refused by name: $(cat "$work/err")"
    exit $status
fi

# ---- programs ------------------------------------------------------------------------------------------------

# The march of each variant by itself, and whether this machine runs it.
march() { case $1 in avx512) echo x86-64-v4 ;; avx2) echo x86-64-v3 ;; base) echo generic ;; esac; }
flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
runs=base
case $flags in *" avx2 "*) case $flags in *" fma "*) runs="avx2 $runs" ;; esac ;; esac
case $flags in *" avx512bw "*) case $flags in *" avx512dq "*) case $flags in *" avx512vl "*) runs="avx512 $runs" ;; esac ;; esac ;; esac
for backend in $backends; do
    exe=$work/$backend
    compile $backend --dispatch --prefix=tiny -o "$exe" || { fail "$backend: compile"; continue; }
    [ "$("$exe" info | grep '^variant: ')" = "variant: ${runs%% *}" ] || fail "$backend: $("$exe" info | grep variant), not ${runs%% *}"
    want=$("$exe" generate --ids $prompt --max-length 8)
    [ -n "$want" ] || fail "$backend: nothing generated"
    for variant in $runs; do
        [ "$(MOEC_VARIANT=$variant "$exe" info | grep '^variant: ')" = "variant: $variant" ] || fail "$backend: no $variant when asked for"
        MOEC_VARIANT=$variant "$exe" encode --ids $prompt --out "$work/several.npy" || fail "$backend, $variant: encode"
        compile $backend -march="$(march "$variant")" --prefix=tiny -o "$work/one" && "$work/one" encode --ids $prompt --out "$work/one.npy" ||
            fail "$backend, $variant: the only one"
        case $backend$variant in
        cbase) ;; # with -march=generic sources have no vectors: rounding may differ
        *) cmp -s "$work/several.npy" "$work/one.npy" || fail "$backend, $variant: not what -march=$(march "$variant") gives" ;;
        esac
        cmp -s "$exe.weights" "$work/one.weights" || fail "$backend: weights differ"
        "$work/one" info | grep -q '^variant' && fail "the only one calls itself a variant"
    done
    MOEC_VARIANT=mmx "$exe" info >"$work/out" 2>"$work/err"
    [ $? = 1 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "MOEC_VARIANT: there is no 'mmx'" "$work/err" ||
        fail "an unknown variant: $(cat "$work/out" "$work/err")"
    command -v qemu-x86_64 >/dev/null 2>&1 || { echo "qemu-x86_64: not installed, skipped"; continue; }
    for cpu in Haswell:avx2 Nehalem:base; do
        qemu-x86_64 -cpu "${cpu%:*}" "$exe" info 2>/dev/null | grep -q "^variant: ${cpu#*:}$" || fail "$backend: ${cpu%:*} does not run ${cpu#*:}"
        [ "$(qemu-x86_64 -cpu "${cpu%:*}" "$exe" generate --ids $prompt --max-length 8 2>/dev/null)" = "$want" ] || fail "$backend: ${cpu%:*} gives others"
    done
    compile $backend --dispatch -march=x86-64-v3 -o "$work/v3" && MOEC_VARIANT=base "$work/v3" encode --ids $prompt --out "$work/v3.npy" ||
        fail "$backend: -march=x86-64-v3"
    MOEC_VARIANT=avx2 "$work/v3" info >/dev/null 2>&1 && fail "$backend: a variant for what the base has"
    compile $backend --dispatch -O1 --weights=int8 --activations=int8 -o "$work/int8" && "$work/int8" generate --ids $prompt --max-length 8 >/dev/null ||
        fail "$backend: words of weights"
done

# ---- compared with the interpreter, each variant; with debug information and a profile -------------------------

for variant in $runs; do
    # shellcheck disable=SC2086
    MOEC_VARIANT=$variant "$moec" verify "$tiny" --golden "$case" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" \
        $quick --dispatch >"$work/out" 2>&1 || { cat "$work/out"; fail "$variant: goldens"; }
done
for backend in $backends; do
    compile $backend --dispatch -g --profile -o "$work/g" && "$work/g" generate --ids $prompt --max-length 8 --profile >/dev/null 2>"$work/err" &&
        grep -q MatMul "$work/err" || fail "$backend: -g --profile"
done

# ---- the other forms: one global symbol, in another program ------------------------------------------------------

want=$("$work/c" generate --ids $prompt --max-length 8)
use() { # LABEL FOLDER FILE RUNTIME
    cc -std=c99 -I "$2" -o "$work/use" "$root/tests/fixtures/use/use.c" "$3" $4 -Wl,-rpath,"$2" -lm -lpthread || { fail "$1 does not link"; return; }
    [ "$("$work/use" "$2/tiny.weights")" = "$want" ] || fail "$1: other tokens"
    nm "${5:--g}" --defined-only "$3" | awk 'NF == 3 { print $3 }' | grep -Ev '^(tiny_|moec_)' && fail "$1 has other global symbols"
}
for backend in $backends; do
    for kind in obj lib shared; do
        at=$work/$backend.$kind rt=
        mkdir "$at"
        compile $backend --dispatch --emit=$kind --prefix=tiny -o "$at/tiny.$kind" || { fail "$backend: --emit=$kind"; continue; }
        [ $kind != obj ] || rt=$build/libmoec_rt.a
        case $kind in shared) use "$backend $kind" "$at" "$at/tiny.$kind" "" -gD ;; *) use "$backend $kind" "$at" "$at/tiny.$kind" "$rt" ;; esac
    done
    compile $backend --dispatch --embed-weights -o "$work/embedded" && [ "$("$work/embedded" generate --ids $prompt --max-length 8)" = "$want" ] ||
        fail "$backend: --embed-weights"
done
case $backends in *llvm)
    for kind in asm llvm bc; do compile llvm --dispatch --emit=$kind --prefix=tiny -o "$work/tiny.$kind" || fail "--emit=$kind"; done
    cc -c -o "$work/asm.o" -x assembler "$work/tiny.asm" && use asm "$work/llvm.obj" "$work/asm.o" "$build/libmoec_rt.a"
    ;;
esac

# ---- sources: make, CMake, several files; without the file that chooses, any compiler's ---------------------------

strict="-O0 -std=c99 -pedantic -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes"
compile c --dispatch --emit=c --train --prefix=tiny -o "$work/split" || fail "--emit=c"
[ -f "$work/split/tiny_train_backward.c" ] || fail "the model stands in one file"
if make -C "$work/split" -j2 CFLAGS="$strict" >"$work/log" 2>&1; then
    [ "$("$work/split/tiny" info | grep '^variant: ')" = "variant: ${runs%% *}" ] || fail "sources: $("$work/split/tiny" info | grep variant)"
    [ "$("$work/split/tiny" generate --ids $prompt --max-length 8)" = "$want" ] || fail "sources: other tokens"
    make -C "$work/split" clean >/dev/null && [ -z "$(find "$work/split" -name '*.o')" ] || fail "make clean leaves objects"
else
    cat "$work/log"
    fail "sources do not build"
fi
compile c --dispatch --emit=c -O0 --prefix=tiny -march=x86-64-v2 -o "$work/folder" && cmake -S "$work/folder" -B "$work/folder/build" -DCMAKE_BUILD_TYPE=Debug >"$work/log" &&
    cmake --build "$work/folder/build" -j2 >>"$work/log" 2>&1 && [ "$("$work/folder/build/tiny" generate --ids $prompt --max-length 8)" = "$want" ] ||
    { cat "$work/log"; fail "sources: CMake"; }
compile c --dispatch --weights=bf16 --activations=bf16 --emit=c --prefix=tiny -o "$work/words" || fail "sources: words of weights"
for variant in avx512_dot avx2_dot; do
    grep -q "^FLAGS_$variant =" "$work/words/Makefile" || fail "no variant $variant for products of words"
    grep -q "^FLAGS_$variant =" "$work/folder/Makefile" && fail "a variant $variant without products of words"
done
rm "$work/folder/tiny_variants.c"
# shellcheck disable=SC2086
(cd "$work/folder" && cc $strict -DMOEC_NO_TRAINING -o one ./*.c -lm -lpthread) && [ "$("$work/folder/one" generate --weights "$work/folder/tiny.weights" --ids $prompt --max-length 8)" = "$want" ] ||
    fail "sources: as one variant"
"$work/folder/one" info | grep -q '^variant' && fail "sources: the only one calls itself a variant"

# ---- what is refused: one line, nothing left behind -----------------------------------------------------------------

refuse() { # BACKEND WORD OPTIONS...
    backend=$1 word=$2
    shift 2
    compile "$backend" --dispatch -o "$work/refused" "$@" 2>"$work/err"
    code=$?
    [ $code = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -qF -e "$word" "$work/err" || fail "$*: exit $code, $(cat "$work/err")"
    for left in "$work"/refused*; do [ ! -e "$left" ] || fail "left behind: $left"; done
}
for march in native x86-64-v4 haswell; do refuse c "not '$march'" -march=$march; done
refuse c "choose one variant" --emit=asm
case $backends in *llvm) refuse llvm "leave it out" --target=aarch64-linux-gnu --emit=obj ;; esac
command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 && refuse c "leave it out" --cc=aarch64-linux-gnu-gcc --emit=obj
[ $status = 0 ] && echo "dispatch: variants, forms, sources and refusals as expected; this machine runs $runs"
exit $status
