#!/bin/sh
# Names of all kinds stay in comments and strings: random ones in process (tools/names), and a few all the way through compilers,
# linkers, dumps and reports: ONNX names, paths, prefixes, adapter specs, files of data.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
names=$(cd "${BUILD_DIR:-build}" && pwd)/tools/names
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "names: $*" >&2; status=1; }
if "$moec" --version | grep -q LLVM; then llvm=20; else llvm=0 && echo "LLVM: not built in, skipped"; fi
clang=$(command -v clang || command -v clang-19) || echo "clang: not installed, skipped"

"$names" --count "${NAMES:-400}" --llvm $llvm || status=1

# printable WHAT FILE...: one kind of text, bytes of names escaped.
printable() {
    what=$1
    shift
    ! LC_ALL=C grep -qP '[^\t -~]' "$@" || fail "$what: bytes that are not printable"
}

# object LABEL FILE: what a backend made of it.
object() {
    ! nm -g --defined-only "$2" | awk 'NF == 3 { print $3 }' | grep -v '^odd_' >log || fail "$1: symbols $(head -n 3 log)"
}

# strict LABEL FOLDER: every source of the model, without a warning of either compiler; no symbol without the prefix.
strict() {
    for source in "$2"/odd*.c; do
        for cc in gcc $clang; do
            bidi=
            [ $cc = gcc ] && bidi=-Wbidi-chars=any
            $cc -std=c99 -pedantic -trigraphs -Wall -Wextra -Wcomment $bidi -Werror -O0 $3 -c -o odd.o "$source" >log 2>&1 ||
                { fail "$1: $cc: $(head -c 600 log)"; return; }
            object "$1: $cc" odd.o
        done
        printable "$1: $source" "$source"
    done
    printable "$1: texts" "$2/odd.h" "$2/Makefile" "$2/CMakeLists.txt" "$2/README.md"
}

# ---- models -----------------------------------------------------------------------------------------------------------

"$names" --write plain.onnx --seed 0
"$moec" run plain.onnx --dim name14=3 --out plain >/dev/null || fail "the plain model does not run"
mkdir in
cp plain/output_0.npy in/input_0.npy
{
    printf '\223NUMPY\001\000v\000'
    printf "%-117s\n" "{'descr': '|b1', 'fortran_order': False, 'shape': (), }"
    printf '\001'
} >in/input_1.npy
numbers() { sed 's/^.*: f32\[/f32[/' "$1"; } # of a summary, without the name
for backend in interp c ${llvm:+llvm}; do
    [ $backend != llvm ] || [ $llvm != 0 ] || continue
    "$moec" run plain.onnx --inputs in --backend=$backend >want.$backend || fail "plain names: $backend"
done
for case in 1 4-65535 5-5000; do
    seed=${case%-*}
    bytes=0
    [ $case = $seed ] || bytes=${case#*-}
    "$names" --write odd.onnx --seed "$seed" --bytes $bytes
    for backend in interp c llvm; do
        [ -f want.$backend ] || continue
        "$moec" run odd.onnx --inputs in --backend=$backend >got || fail "$case: $backend"
        numbers got >got.numbers && numbers want.$backend | cmp -s - got.numbers || fail "$case: $backend gives other numbers"
        printable "$case: $backend" got
    done
    rm -rf c v
    "$moec" compile odd.onnx --emit=c --prefix=odd -march=generic -o c && strict "$case" c || fail "$case: --emit=c"
    "$moec" compile odd.onnx --emit=c --prefix=odd --embed-weights --dispatch -o v && strict "$case, vectors" v || fail "$case: --emit=c"
    if [ $llvm != 0 ]; then
        "$moec" compile odd.onnx --emit=llvm --prefix=odd -o odd.ll && printable "$case: odd.ll" odd.ll || fail "$case: --emit=llvm"
        "$moec" compile odd.onnx --backend=llvm --emit=obj --prefix=odd -g -o odd.obj && object "$case: llvm" odd.obj || fail "$case: llvm"
    fi
    for report in --opt-report=r.txt --opt-report=r.json --memory-report=r.txt --memory-report=r.html; do
        "$moec" compile odd.onnx --emit=header --prefix=odd $report -o odd.h || fail "$case: $report"
        printable "$case: $report" r.*
        [ ! -f r.html ] || [ "$(grep -c '<script' r.html)" -le 1 ] || fail "$case: a script in a page"
        rm -f r.*
    done
    "$moec" dump odd.onnx --dump-ir=all -o odd.ir >dumps && printable "$case: dumps" dumps odd.ir || fail "$case: dump"
    "$moec" dump odd.onnx --dot -o odd.dot && printable "$case: dot" odd.dot || fail "$case: dot"
    ! command -v dot >/dev/null || { "$moec" dump odd.onnx --svg -o odd.svg && ! grep -q '<script' odd.svg || fail "$case: svg"; }
    "$moec" diff odd.onnx odd.onnx || fail "$case: differs from itself"
    "$moec" diff odd.onnx plain.onnx >differences
    [ $? = 1 ] && printable "$case: diff" differences || fail "$case: diff with plain names"
    for format in text json; do
        "$moec" compile odd.onnx --dim "$(printf 'a*/\n\033[31m"')=1" --diagnostics-format=$format -o no 2>err
        [ $? = 1 ] && [ "$(wc -l <err)" = 1 ] && printable "$case: $format" err || fail "$case: a diagnostic as $format"
    done
done

# ---- paths and prefixes ----------------------------------------------------------------------------------------------------

base=$(printf 'a"b\\c* %%s;$(touch canary)\n\033[31m ??(\377#x.y')
odd=$base/$(printf ' */ int x; ??/')
mkdir -p "$odd"
cp plain.onnx "$odd/$base.onnx"
"$moec" compile "$odd/$base.onnx" -g -O0 -o "$odd/$base" && "./$odd/$base" info >/dev/null || fail "a program with an odd path"
"$moec" compile "$odd/$base.onnx" -g --emit=c --prefix=odd -o "$odd/c" && strict "an odd path" "$odd/c" && make -s -C "$odd/c" CFLAGS=-O0 || fail "a folder with an odd path"
[ $llvm = 0 ] || "$moec" compile "$odd/$base.onnx" --backend=llvm -O0 -g -o "$odd/$base" && "./$odd/$base" info >/dev/null || fail "LLVM with an odd path"
"$moec" info "$odd" 2>err && fail "a folder that is no model" || printable "a path" err
"./$odd/$base" run main --in "$odd=$odd" --out none 2>err
[ $? = 1 ] && printable "a program's message" err || fail "a program that does not know an input"
for prefix in int class while NULL errno __attribute__ odd_; do
    "$moec" compile plain.onnx --emit=c --prefix=$prefix -march=generic -o p.$prefix 2>err
    code=$?
    [ $code = 2 ] || { [ $code = 0 ] && make -s -C p.$prefix CFLAGS=-O0 >log 2>&1; } || fail "--prefix=$prefix: code $code, $(head -c 300 log)"
done
for prefix in '' a-b 'a b' 1a "$odd" 'a;b' 'a*/'; do
    "$moec" compile plain.onnx --emit=c "--prefix=$prefix" -o p 2>err
    [ $? = 2 ] || fail "--prefix '$prefix' is taken"
done

# ---- adapters -----------------------------------------------------------------------------------------------------------------

long=$(awk 'BEGIN { for (i = 0; i < 800; i++) printf "v*/%%s" }')
cat >spec.json <<END
{ "moec_adapter": 1, "method": "mov", "experts": 4, "weights": "od*d\\"%s??.safetensors",
  "sites": [ { "match": "encoder.*.self.{k,*/,\$(touch canary),??/,\\\\,\\n,\\u202e,\\u001b[31m,%n\\", #define int,//}" },
             { "match": "{*.self.v,$long}" }, { "match": "decoder.*.self.k" }, { "match": "*.cross.{k,v}" }, { "match": "*.ffn.act" } ] }
END
cp "$root/tests/fixtures/adapters/mov-e4/adapter.safetensors" 'od*d"%s??.safetensors'
tiny=$root/examples/t5-tiny
"$moec" compile "$tiny" --adapter spec.json --emit=c --prefix=odd -march=generic -o spec && strict "a spec" spec || fail "a spec with odd patterns"
"$moec" compile "$tiny" --adapter spec.json -O0 --matmul=native --prefix=odd -o odd.program && ./odd.program generate --ids "5 9 12 1" >spec.c || fail "a program with odd patterns"
"$moec" compile "$tiny" --adapter "$root/tests/fixtures/adapters/mov-e4/spec.json" --adapter-weights 'od*d"%s??.safetensors' -O0 --matmul=native -o plain.program &&
    ./plain.program generate --ids "5 9 12 1" | cmp -s - spec.c || fail "odd patterns make other answers"
"$moec" dump "$tiny" --adapter spec.json -o spec.ir && printable "a spec's dump" spec.ir && "$moec" opt spec.ir --passes=cse -o again.ir || fail "a spec's dump"
./odd.program eval --data "$odd" 2>err && fail "data that are not there" || printable "data" err
echo "{\"inputs\": \"$(printf '\033[31m')\"}" >"$base.jsonl"
./odd.program eval --data "$base.jsonl" 2>err && fail "a line with a terminal's escapes" || printable "a line" err

[ -z "$(find . -name canary)" ] || fail "something was run"
[ $status = 0 ] && echo "names: ok"
exit $status
