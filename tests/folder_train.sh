#!/bin/sh
# The folder of --emit=c with --train: the model in several files, none long, that train as stored; only PREFIX_ and moec_
# are global. Large models: no file above 1 MB, the same bytes again.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "folder_train: $*" >&2; status=1; }
. "$root/tests/folder.inc"
. "$root/tests/refusals.inc"

# shellcheck disable=SC2086
"$moec" compile $mov_e4 --train --emit=c -march=generic --prefix=t5 -o "$work/t" || exit 1
for kind in encoder decoder train_forward train_backward; do
    [ -f "$work/t/t5_$kind.c" ] || fail "there is no t5_$kind.c"
done
if make -C "$work/t" -j2 CFLAGS="-O1 $strict -Wshadow -Wstrict-prototypes -Wmissing-prototypes" >"$work/log" 2>&1; then
    golden "several files" "$work/t/t5"
    golden_training "several files" 10 "$work/t/t5"
    others
    refusals "several files" t5 "$work/t/t5"
else
    cat "$work/log"
    fail "it does not build"
fi
clang=$(command -v clang || command -v clang-19) || echo "clang: not installed, skipped"
for file in "$work"/t/*.c; do
    # shellcheck disable=SC2086
    [ -z "$clang" ] || "$clang" $strict -fsyntax-only "$file" || fail "clang: $file"
done
nm -g --defined-only "$work"/t/*.o | awk 'NF == 3 { print $3 }' | grep -Ev '^(t5_|moec_|main$)' && fail "other global symbols"

# Two times 16 layers, ten experts at every site.
echo '{"moec_adapter": 1, "method": "molora", "experts": 10, "rank": 2, "alpha": 2}' >"$work/spec.json"
"$build/tools/gen_t5" "$work/model" small d_model=16 d_ff=16 d_kv=8 heads=2 layers=16 dec_layers=16 vocab=64 >/dev/null || exit 1
for folder in big again; do
    "$moec" compile "$work/model" --adapter "$work/spec.json" --train --emit=c --prefix=big -o "$work/$folder" || exit 1
done
diff -r "$work/big" "$work/again" || fail "two times the same model differ"
rm -rf "$work/again"
find "$work/big" -name '*.[chS]*' -size +999999c | grep . && fail "files above 1 MB"
[ -f "$work/big/big_train_backward_2.c" ] || fail "gradients stand in one file"
for file in "$work"/big/*; do
    grep -q "^| .$(basename "$file"). |" "$work/big/README.md" || fail "README.md does not name $(basename "$file")"
done
if make -C "$work/big" -j2 CFLAGS=-O0 >"$work/log" 2>&1; then
    "$work/big/big" score --ids "4 5 6 1" --targets "7 1" >"$work/got" || fail "a large model does not run"
else
    cat "$work/log"
    fail "a large model does not build"
fi
[ $status = 0 ] && echo "folder_train: models in several files give the stored answers and train as stored"
exit $status
