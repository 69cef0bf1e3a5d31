#!/bin/sh
# What moec compile makes, used without moec: the folder of C sources, objects, libraries, headers. And: two compiles of one
# input give the same bytes; no symbol but PREFIX_ and moec_ leaves an object; sources compile without a warning.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "standalone: $*" >&2; status=1; }
compilers="gcc"
if command -v clang >/dev/null 2>&1; then compilers="gcc clang"; else echo "clang: not installed, skipped"; fi
strict="-Wall -Wextra -Werror -std=c99 -pedantic"
# want TOKENS: of this prompt, adapted.
prompt=4,60,70,80,90,1
compile() { "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" "$@"; }

compile --matmul=plain -O1 -o "$work/exe" || exit 1
want=$("$work/exe" generate --ids $prompt --max-length 8)
[ -n "$want" ] || fail "the executable generates nothing"

# ---- the folder -------------------------------------------------------------------------------------------

compile --emit=c --matmul=plain --prefix=tiny -o "$work/c/" || fail "--emit=c"
for cc in $compilers; do
    mkdir "$work/$cc"
    cp "$work"/c/* "$work/$cc"
    if (cd "$work/$cc" && env -i PATH=/usr/bin:/bin make CC=$cc CFLAGS="-O1 $strict") >"$work/log" 2>&1; then
        got=$(cd "$work/$cc" && env -i ./tiny generate --ids $prompt --max-length 8)
        [ "$got" = "$want" ] || fail "$cc: the folder's program gives '$got', not '$want'"
    else
        cat "$work/log"
        fail "$cc: the folder does not build"
    fi
    for options in "-O3 -march=native $strict" "-O3 -Wall"; do
        # shellcheck disable=SC2086
        $cc $options -c -o "$work/model.o" "$work/c/tiny.c" >"$work/log" 2>&1 && [ ! -s "$work/log" ] ||
            { cat "$work/log"; fail "$cc $options: warnings in the generated code"; }
    done
done
for file in "$work"/c/*; do
    name=$(basename "$file")
    [ "$name" = README.md ] || grep -q "^| .$name. |" "$work/c/README.md" || fail "README.md does not name $name"
done
sed -n 's/^| `\([^`]*\)` |.*/\1/p' "$work/c/README.md" | while read -r name; do
    [ -f "$work/c/$name" ] || echo "$name"
done >"$work/missing"
[ ! -s "$work/missing" ] || fail "README.md names files that are not there: $(cat "$work/missing")"

compile --emit=c --matmul=plain --embed-weights --prefix=tiny -o "$work/embedded" && (cd "$work/embedded" && make CFLAGS=-O1 >/dev/null) &&
    mv "$work/embedded/tiny" "$work/alone" && [ "$("$work/alone" generate --ids $prompt --max-length 8)" = "$want" ] ||
    fail "--embed-weights: the program needs its folder"

# A name another file of the folder has is refused; so is one that cannot be made; neither leaves anything behind.
compile --emit=c --prefix=json -o "$work/taken" 2>"$work/log" && fail "--prefix=json was taken"
grep -q "choose a name with --prefix" "$work/log" || fail "message for --prefix=json: $(cat "$work/log")"
compile --emit=c -o "$work/no/such/folder" 2>/dev/null && fail "a folder in a missing folder"
(ulimit -f 100 && trap '' XFSZ && compile --emit=c -o "$work/full") >/dev/null 2>&1 && fail "a full disk goes unnoticed"
(ulimit -f 100 && trap '' XFSZ && compile --matmul=plain -o "$work/full") >/dev/null 2>&1 && fail "a full disk goes unnoticed"
compile --cc=false -o "$work/taken" 2>/dev/null && fail "a failing C compiler goes unnoticed"
for left in "$work"/taken* "$work"/full*; do [ ! -e "$left" ] || fail "left behind: $left"; done

# ---- objects and libraries in another program -------------------------------------------------------------------

cat >"$work/use.c" <<'C'
#include "tiny.h"
#include <stdio.h>
int main(int argc, char **argv) {
    char text[256] = "";
    moec_options options = {0};
    moec_instance *m = NULL;
    int64_t ids[6] = {4, 60, 70, 80, 90, 1}, mask[6] = {1, 1, 1, 1, 1, 1}, token[8], steps = 0;
    moec_generate_options o = {8, -1};
    options.weights = argc > 1 ? argv[1] : NULL;
    options.message = text;
    options.message_room = sizeof text;
    if (moec_open(tiny_program(), &options, &m) || moec_generate(m, 1, 6, ids, mask, NULL, &o, token, &steps, NULL, NULL)) {
        printf("%s\n", text);
        return 1;
    }
    for (int64_t i = 0; i < steps; i++) printf(i ? " %d" : "%d", (int)token[i]);
    printf("\n");
    moec_close(m);
    return 0;
}
C
for kind in obj lib shared; do
    mkdir "$work/$kind"
    case $kind in obj) file=tiny.o ;; lib) file=libtiny.a ;; shared) file=libtiny.so ;; esac
    compile --emit=$kind --matmul=plain -O1 --prefix=tiny -o "$work/$kind/$file" || { fail "--emit=$kind"; continue; }
    header=$work/$kind/${file%.*}.h
    [ "${file%.*}" = tiny ] || cp "$header" "$work/$kind/tiny.h"
    rt=$build/libmoec_rt.a
    [ $kind = obj ] || rt= # the others have it inside
    cc -std=c99 -Wall -Werror -I "$work/$kind" -o "$work/$kind/use" "$work/use.c" "$work/$kind/$file" $rt \
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
    compile --emit=$kind -O1 --prefix=same -o "$work/first.$kind" &&
        (cd "$work/elsewhere" && TMPDIR=. "$moec" compile model --adapter "$case/spec.json" \
            --adapter-weights "$case/adapter.safetensors" --emit=$kind -O1 --prefix=same -o second.$kind) || fail "--emit=$kind"
    diff -r "$work/first.$kind" "$work/elsewhere/second.$kind" || fail "two compiles of one input differ: $kind"
done
cmp "$work/first.weights" "$work/elsewhere/second.weights" || fail "two compiles of one input differ: weights"
if grep -l -e "$work" -e /moec\\. "$work/first.exe" "$work/first.shared" "$work"/first.c/*; then fail "a path is in the result"; fi
[ $status = 0 ] && echo "standalone: sources, objects and libraries work by themselves"
exit $status
