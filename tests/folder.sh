#!/bin/sh
# The folder of --emit=c with nothing but a C compiler, make and a shell: builds without a warning as C99, gives the stored
# answers, names its files, is the same when made again, and is not there when something went wrong.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "folder: $*" >&2; status=1; }
. "$root/tests/folder.inc"
# shellcheck disable=SC2086
compile() { "$moec" compile $mov_e4 "$@"; }

# ---- a clean environment -----------------------------------------------------------------------------------

compile --emit=c -march=generic --prefix=t5 -o "$work/c/" || exit 1
mkdir "$work/bin"
ln -s "$(command -v make)" "$(command -v sh)" "$work/bin"
# gcc finds its assembler and linker in PATH, or where -B says.
printf '#!/bin/sh\nexec %s -B%s/ "$@"\n' "$(command -v gcc)" "$(dirname "$(command -v as)")" >"$work/bin/cc"
chmod +x "$work/bin/cc"
cp -r "$work/c" "$work/gcc"
if (cd "$work/gcc" && env -i PATH="$work/bin" "$work/bin/make" -j2 CFLAGS="-O1 $strict") >"$work/log" 2>&1; then
    golden gcc env -i "$work/gcc/t5"
else
    cat "$work/log"
    fail "gcc: does not build in a clean environment"
fi
ldd "$work/gcc/t5" | awk '{ print $1 }' | grep -Ev '^(linux-vdso|libc|libm|libpthread|.*/ld-linux[^/]*)\.so' && fail "other libraries than C's"

"$work/gcc/t5" >"$work/log" 2>&1
[ $? = 2 ] && grep -q -e --help "$work/log" || fail "the program alone: $(cat "$work/log")"
"$work/gcc/t5" train --data x --steps 1 >"$work/log" 2>&1
[ $? = 1 ] && grep -q "compile it again with --train" "$work/log" || fail "train without --train: $(cat "$work/log")"
"$work/gcc/t5" --help | grep -q train && ! "$work/gcc/t5" --help | grep -q "train it" || fail "--help"

clang=$(command -v clang || command -v clang-19)
if [ -n "$clang" ]; then
    cp -r "$work/c" "$work/clang"
    if make -C "$work/clang" -j2 CC="$clang" CFLAGS="-O1 $strict" >"$work/log" 2>&1; then golden clang "$work/clang/t5"
    else
        cat "$work/log"
        fail "clang: does not build"
    fi
else
    echo "clang: not installed, skipped"
fi

# ---- what it says of itself ------------------------------------------------------------------------------------

for file in "$work"/c/*; do
    name=$(basename "$file")
    grep -q "^| .$name. |" "$work/c/README.md" || fail "README.md does not name $name"
done
sed -n 's/^| `\([^`]*\)` |.*/\1/p' "$work/c/README.md" | while read -r name; do
    [ -f "$work/c/$name" ] || echo "$name"
done >"$work/missing"
[ ! -s "$work/missing" ] || fail "README.md names files that are not there: $(cat "$work/missing")"
grep -l -e cblas -e checkpoint.h "$work"/c/*.c | grep -v cli_export && fail "it has more than it needs"
compile --emit=c -march=generic --prefix=t5 -o "$work/again" && diff -r "$work/c" "$work/again" || fail "made again it differs"

# ---- weights inside; the flags of its own Makefile ----------------------------------------------------------------------------------------------

compile --emit=c -O1 --embed-weights --prefix=t5 -o "$work/embedded" && make -C "$work/embedded" -j2 >"$work/log" 2>&1 &&
    mv "$work/embedded/t5" "$work/alone" && golden "weights inside" "$work/alone" || fail "--embed-weights: $(cat "$work/log")"

# ---- names that another file has, folders that cannot be made: nothing is left behind -------------------------------------

for name in json cli moec_rt clean text Makefile; do
    compile --emit=c --prefix=$name -o "$work/taken" 2>"$work/log" && fail "--prefix=$name was taken"
    grep -q "choose a name with --prefix" "$work/log" || fail "message for --prefix=$name: $(cat "$work/log")"
done
for name in main moec; do
    compile --emit=c --prefix=$name -o "$work/taken" 2>"$work/log" && fail "--prefix=$name was taken"
    grep -q "other than main and moec" "$work/log" || fail "message for --prefix=$name: $(cat "$work/log")"
done
compile --emit=c --embed-weights --prefix=weights -o "$work/taken" 2>/dev/null && fail "two objects of one name"
compile --emit=c -march='x;y' -o "$work/taken" 2>/dev/null && fail "-march=x;y was taken"
compile --emit=c -o "$work/no/such/folder" 2>/dev/null && fail "a folder in a missing folder"
(ulimit -f 100 && trap '' XFSZ && compile --emit=c -o "$work/full") >/dev/null 2>&1 && fail "a full disk goes unnoticed"
for left in "$work"/taken* "$work"/full*; do [ ! -e "$left" ] || fail "left behind: $left"; done
[ $status = 0 ] && echo "folder: builds with a C compiler alone and gives the stored answers"
exit $status
