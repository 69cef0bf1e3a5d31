#!/bin/sh
# The folder of --emit=c in other hands: text in and out, CMake, two models in one program.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "folder_use: $*" >&2; status=1; }
. "$root/tests/folder.inc"
# shellcheck disable=SC2086
compile() { "$moec" compile $mov_e4 "$@"; }

# ---- text ----------------------------------------------------------------------------------------------------

mkdir "$work/text"
cp "$tiny"/*.json "$tiny"/*.onnx "$root/tests/fixtures/tokenizer/spiece.model" "$work/text"
text() { "$moec" compile "$work/text" "$@"; }
if text --matmul=native -O0 -o "$work/exe" && text --emit=c --tokenizer -march=generic --prefix=t5 -o "$work/t" &&
    make -C "$work/t" -j2 CFLAGS="-O0 $strict" CXXFLAGS=-O0 >"$work/log" 2>&1; then
    mv "$work/text" "$work/gone"
    for line in "a b zq abc" hello; do
        want=$("$work/exe" generate --text "$line" --max-length 8)
        got=$(cd / && "$work/t/t5" --text "$line" --max-length 8)
        [ -n "$want" ] && [ "$got" = "$want" ] || fail "--text '$line' gives '$got', not '$want'"
    done
    grep -q "t5.spiece.model" "$work/t/README.md" && grep -q sentencepiece "$work/t/README.md" || fail "README.md says nothing of text"
else
    cat "$work/log"
    fail "--tokenizer"
fi
compile --emit=c --tokenizer -o "$work/no" 2>"$work/log" && fail "--tokenizer without a vocabulary"
grep -q "error: .*no spiece.model" "$work/log" || fail "message without a vocabulary: $(cat "$work/log")"
compile --tokenizer -o "$work/no" 2>"$work/log"
[ $? = 2 ] && grep -q -e "--emit=c" "$work/log" || fail "--tokenizer of an executable: $(cat "$work/log")"
[ ! -e "$work/no" ] || fail "something was made"

# ---- CMake -----------------------------------------------------------------------------------------------------

compile --emit=c --prefix=t5 -o "$work/a" || exit 1
if cmake -S "$work/a" -B "$work/a/build" -DCMAKE_BUILD_TYPE=Debug >"$work/log" 2>&1 && cmake --build "$work/a/build" -j2 >>"$work/log" 2>&1; then
    golden CMake "$work/a/build/t5"
else
    cat "$work/log"
    fail "CMake does not build it"
fi

# What README.md says of other programs is C.
{
    echo '#include "t5.h"'
    echo '#include <stdio.h>'
    echo 'int main(void) { int64_t n = 2, ids[2] = {4, 1}, mask[2] = {1, 1}, tokens[20], steps, sym[9] = {0}; void *arg[9] = {0};'
    sed -n '/^    #include/,/moec_close/p' "$work/a/README.md" | sed '/#include/d'
    echo 'return 0; }'
} >"$work/readme.c"
grep -q moec_generate "$work/readme.c" && gcc $strict -fsyntax-only -I "$work/a" "$work/readme.c" || fail "README.md shows what is no C"

# ---- two models in one program ---------------------------------------------------------------------------------

"$build/tools/gen_t5" "$work/model" small d_model=32 d_ff=48 d_kv=8 heads=2 layers=1 dec_layers=1 vocab=100 >/dev/null &&
    "$moec" compile "$work/model" --emit=c --prefix=other -o "$work/b" || exit 1
cat >"$work/two.c" <<'C'
#include "other.h"
#include "t5.h"
#include <stdio.h>
static int generate(const moec_program *p, const char *weights) {
    char text[256] = "";
    moec_options options = {0};
    moec_instance *m = NULL;
    int64_t ids[6] = {4, 60, 70, 80, 90, 1}, mask[6] = {1, 1, 1, 1, 1, 1}, token[8], steps = 0;
    moec_generate_options o = {8, -1, NULL};
    options.weights = weights;
    options.message = text;
    options.message_room = sizeof text;
    if (moec_open(p, &options, &m) || moec_generate(m, 1, 6, ids, mask, NULL, &o, token, &steps, NULL, NULL)) {
        printf("%s\n", text);
        return 1;
    }
    for (int64_t i = 0; i < steps; i++) printf(i ? " %d" : "%d", (int)token[i]);
    printf("\n");
    moec_close(m);
    return 0;
}
int main(int argc, char **argv) {
    return argc != 3 || generate(t5_program(), argv[1]) || generate(other_program(), argv[2]);
}
C
part() { sed -n "s/^| .\([^ ]*\.c\). | $1 |.*/\1/p" "$2/README.md"; }
mkdir "$work/two"
for file in $(part model "$work/a") $(part runtime "$work/a"); do cp "$work/a/$file" "$work/two"; done
for file in $(part model "$work/b"); do cp "$work/b/$file" "$work/two"; done
cp "$work"/a/*.h "$work"/b/other*.h "$work/two.c" "$work/two"
if make -C "$work/b" -j2 CFLAGS=-O0 >"$work/log" 2>&1 && (cd "$work/two" && gcc -O0 $strict -o ../both ./*.c -lm -lpthread) >"$work/log" 2>&1; then
    ids=4,60,70,80,90,1
    want=$("$work/a/build/t5" --ids $ids --max-length 8 && "$work/b/other" --ids $ids --max-length 8)
    got=$("$work/both" "$work/a/t5.weights" "$work/b/other.weights")
    [ "$got" = "$want" ] || fail "two models give '$got', not '$want'"
    [ "$(printf '%s\n' "$want" | sort -u | wc -l)" = 2 ] || fail "the two models say the same"
else
    cat "$work/log"
    fail "two models do not link"
fi
[ $status = 0 ] && echo "folder_use: text, CMake and a second model work"
exit $status
