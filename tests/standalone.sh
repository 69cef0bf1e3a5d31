#!/bin/sh
# What moec compile makes, used without moec: objects, libraries, headers (folders: folder*.sh). And: two compiles of one
# input give the same bytes; no symbol but PREFIX_ and moec_ leaves an object; optimised, sources compile without a warning.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "standalone: $*" >&2; status=1; }
clang=$(command -v clang || command -v clang-19) || echo "clang: not installed, skipped"
strict="-std=c99 -pedantic -Wall -Wextra -Werror"
# want TOKENS: of this prompt, adapted.
prompt=4,60,70,80,90,1
compile() { "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" "$@"; }

compile --matmul=native -O0 -o "$work/exe" || exit 1
want=$("$work/exe" generate --ids $prompt --max-length 8)
[ -n "$want" ] || fail "the executable generates nothing"

compile --emit=c --prefix=tiny -o "$work/c" || fail "--emit=c"
for cc in gcc $clang; do
    $cc -O3 -march=native $strict -c -o "$work/model.o" "$work/c/tiny.c" >"$work/log" 2>&1 && [ ! -s "$work/log" ] ||
        { cat "$work/log"; fail "$cc: warnings in the generated code"; }
done
(ulimit -f 100 && trap '' XFSZ && compile --matmul=native -o "$work/full") >/dev/null 2>&1 && fail "a full disk goes unnoticed"
compile --cc=false -o "$work/taken" 2>/dev/null && fail "a failing C compiler goes unnoticed"
for left in "$work"/taken* "$work"/full*; do [ ! -e "$left" ] || fail "left behind: $left"; done

# ---- objects and libraries in another program -------------------------------------------------------------------

for kind in obj lib shared; do
    mkdir "$work/$kind"
    case $kind in obj) file=tiny.o ;; lib) file=libtiny.a ;; shared) file=libtiny.so ;; esac
    compile --emit=$kind --matmul=native -O0 --prefix=tiny -o "$work/$kind/$file" || { fail "--emit=$kind"; continue; }
    header=$work/$kind/${file%.*}.h
    [ "${file%.*}" = tiny ] || cp "$header" "$work/$kind/tiny.h"
    rt=$build/libmoec_rt.a
    [ $kind = obj ] || rt= # the others have it inside
    cc -std=c99 -Wall -Werror -I "$work/$kind" -o "$work/$kind/use" "$root/tests/fixtures/use/use.c" "$work/$kind/$file" $rt \
        -Wl,-rpath,"$work/$kind" -lm -lpthread || { fail "$kind does not link"; continue; }
    got=$("$work/$kind/use" "${header%.h}.weights")
    [ "$got" = "$want" ] || fail "$kind gives '$got', not '$want'"
    symbols=-g
    [ $kind != shared ] || symbols=-gD
    nm $symbols --defined-only "$work/$kind/$file" | awk 'NF == 3 { print $3 }' | grep -Ev '^(tiny_|moec_)' >"$work/log"
    [ ! -s "$work/log" ] || fail "$kind has other global symbols: $(cat "$work/log")"
done
compile --emit=header --prefix=tiny -o "$work/tiny.h" && cmp -s "$work/tiny.h" "$work/c/tiny.h" || fail "--emit=header"
if command -v g++ >/dev/null 2>&1; then
    printf '#include "tiny.h"\nint main() { return tiny_program() == nullptr; }\n' >"$work/use.cc"
    g++ -Wall -Wextra -Werror -pedantic -fsyntax-only -I "$work/obj" "$work/use.cc" || fail "the header is no C++"
fi

# ---- the same bytes ------------------------------------------------------------------------------------------------

mkdir "$work/elsewhere" "$work/elsewhere/model"
cp "$tiny"/* "$work/elsewhere/model"
for kind in exe c shared lib; do
    compile --emit=$kind -O0 --prefix=same -o "$work/first.$kind" &&
        (cd "$work/elsewhere" && TMPDIR=. "$moec" compile model --adapter "$case/spec.json" \
            --adapter-weights "$case/adapter.safetensors" --emit=$kind -O0 --prefix=same -o second.$kind) || fail "--emit=$kind"
    diff -r "$work/first.$kind" "$work/elsewhere/second.$kind" || fail "two compiles of one input differ: $kind"
done
cmp "$work/first.weights" "$work/elsewhere/second.weights" || fail "two compiles of one input differ: weights"
if grep -l -e "$work" -e /moec\\. "$work/first.exe" "$work/first.shared" "$work"/first.c/*; then fail "a path is in the result"; fi
[ $status = 0 ] && echo "standalone: sources, objects and libraries work by themselves"
exit $status
