#!/bin/sh
# The LLVM backend: every form it emits, programs made without a C compiler, other machines, the same bytes twice, and what is
# refused. Its numbers are the business of golden_llvm.sh, backends.sh and onnx_nodes.sh.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
"$moec" --version | grep -q LLVM || { echo "moec was built without LLVM: skipped"; exit 77; }
moec=$(cd "$(dirname "$moec")" && pwd)/$(basename "$moec")
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "llvm: $*" >&2; status=1; }
prompt=4,60,70,80,90,1
compile() { "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --backend=llvm -O0 "$@"; }

# ---- programs, with no compiler to be found -----------------------------------------------------------------

"$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --matmul=native -O0 -o "$work/c" || exit 1
want=$("$work/c" generate --ids $prompt --max-length 8)
[ -n "$want" ] || fail "the C backend's program generates nothing"
mkdir "$work/bin"
ln -s "$(command -v ld)" "$work/bin/ld"
alone() { (PATH=$work/bin && export PATH && compile "$@"); }
for options in "--matmul=native" "--matmul=openblas" "--matmul=native --embed-weights" "--matmul=native -march=generic -O2" "--matmul=native -O1"; do
    # shellcheck disable=SC2086
    alone $options -o "$work/t5" || { fail "$options: compile"; continue; }
    [ "$("$work/t5" generate --ids $prompt --max-length 8)" = "$want" ] || fail "$options: other tokens"
done
if compile --cc=/no/such/cc --backend=c -o "$work/none" 2>"$work/err"; then fail "a C compiler that is not there goes unnoticed"; fi
grep -q -e "--backend=llvm" "$work/err" || fail "the message does not name --backend=llvm: $(cat "$work/err")"
if compile --linker=/no/such/ld -o "$work/none" 2>"$work/err"; then fail "a linker that is not there goes unnoticed"; fi
grep -q -e "--linker" "$work/err" || fail "the message does not name --linker: $(cat "$work/err")"

# Text: the tokenizer is C++, its library the system's.
mkdir "$work/text"
cp "$tiny"/*.onnx "$tiny/config.json" "$root/tests/fixtures/tokenizer/spiece.model" "$work/text"
for backend in c llvm; do
    "$moec" compile "$work/text" --backend=$backend --matmul=native -O0 -o "$work/speaks" &&
        "$work/speaks" generate --text "a small house" --max-length 6 >"$work/said.$backend" || fail "$backend: text"
done
[ -s "$work/said.c" ] && cmp "$work/said.c" "$work/said.llvm" || fail "other text"

# ---- the other forms ------------------------------------------------------------------------------------------

for kind in asm obj lib shared llvm bc; do
    for time in 1 2; do
        mkdir -p "$work/$time"
        (cd "$work/$time" && TMPDIR=$work/$time compile --matmul=native --emit=$kind --prefix=tiny -o tiny.$kind) || fail "--emit=$kind"
    done
    cmp "$work/1/tiny.$kind" "$work/2/tiny.$kind" || fail "$kind: two compiles of one input differ"
    grep -q -e "$work" -e "$root" -e "$build" "$work/1/tiny.$kind" && fail "$kind names a folder of this machine"
    cmp "$work/1/tiny.weights" "$work/2/tiny.weights" || fail "$kind: weights differ"
done
"$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --emit=header --prefix=tiny -o "$work/tiny.h" &&
    cmp "$work/tiny.h" "$work/1/tiny.h" || fail "the header is not the C backend's"
grep -q '^define .*ptr @tiny_program()' "$work/1/tiny.llvm" || fail "no IR of LLVM"
[ "$(head -c 2 "$work/1/tiny.bc")" = BC ] || fail "no bitcode"
cc -c -o "$work/asm.o" -x assembler "$work/1/tiny.asm" || fail "the assembly does not assemble"

# One main for both backends, with objects, libraries and shared libraries.
"$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --matmul=native -O0 --emit=obj --prefix=tiny \
    -o "$work/tiny.o" || fail "C: --emit=obj"
cc -std=c99 -I "$work/1" -c -o "$work/use.o" "$root/tests/fixtures/use/use.c" || exit 1
for file in "$work/tiny.o" "$work/1/tiny.obj" "$work/asm.o" "$work/1/tiny.lib" "$work/1/tiny.shared"; do
    rt=$build/libmoec_rt.a
    case $file in *.lib | *.shared) rt= ;; esac
    cc -o "$work/use" "$work/use.o" "$file" $rt -Wl,-rpath,"$work/1" -lm -lpthread || { fail "$file does not link"; continue; }
    [ "$("$work/use" "$work/1/tiny.weights")" = "$want" ] || fail "$file: other tokens"
done
for file in tiny.obj tiny.lib tiny.shared; do
    symbols=-g
    [ $file != tiny.shared ] || symbols=-gD
    nm $symbols --defined-only "$work/1/$file" | awk 'NF == 3 { print $3 }' | grep -Ev '^(tiny_|moec_)' >"$work/log"
    [ ! -s "$work/log" ] || fail "$file has other global symbols: $(cat "$work/log")"
done

# ---- other machines ----------------------------------------------------------------------------------------------

"$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --emit=c --matmul=native -O0 --prefix=tiny \
    -o "$work/folder" || fail "--emit=c"
for machine in aarch64 riscv64; do
    compile --matmul=native --target=$machine-linux-gnu --emit=obj --prefix=tiny -o "$work/$machine.o" || { fail "$machine: compile"; continue; }
    cross=$machine-linux-gnu-gcc
    command -v $cross >/dev/null 2>&1 && command -v qemu-$machine >/dev/null 2>&1 || { echo "$cross or qemu-$machine: not installed, skipped"; continue; }
    mkdir "$work/$machine"
    cp "$work/folder"/*.[ch] "$work/$machine"
    rm "$work/$machine/tiny.c"
    (cd "$work/$machine" && $cross -std=c99 -O0 -DMOEC_NO_TRAINING -I. -o tiny ./*.c ../$machine.o -lm -lpthread) || { fail "$machine: link"; continue; }
    got=$(qemu-$machine -L /usr/$machine-linux-gnu "$work/$machine/tiny" generate --weights "$work/folder/tiny.weights" --ids $prompt --max-length 8)
    [ "$got" = "$want" ] || fail "$machine: '$got', not '$want'"
done

# ---- what is refused: one line, nothing left behind ------------------------------------------------------------------

refuse() {
    pattern=$1
    shift
    compile --matmul=native -o "$work/refused" "$@" 2>"$work/err"
    code=$?
    [ $code = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -e "$pattern" "$work/err" || fail "$*: exit $code, $(cat "$work/err")"
    for left in "$work"/refused*; do [ ! -e "$left" ] || fail "left behind: $left"; done
}
for target in pdp11-unknown i386-linux-gnu s390x-linux-gnu x86_64-apple-darwin x86_64-linux-gnux32; do
    refuse "not '$target\|not 'x86_64.*'\|not 'i386\|not 's390x\|not 'pdp11" --target=$target --emit=obj
done
refuse "no CPU 'z80'" -march=z80 --emit=obj
refuse "no CPU 'i686'" -march=i686 --emit=obj
refuse "no CPU 'sifive-e20'" --target=riscv64-linux-gnu -mcpu=sifive-e20 --emit=obj
refuse "native is this machine" --target=aarch64-linux-gnu -march=native --emit=obj
refuse "leave one out" -march=generic -mcpu=x86-64-v2
refuse "in a file beside" --emit=llvm --embed-weights
refuse "use --emit=obj" --target=aarch64-linux-gnu
refuse "need --backend=llvm" --backend=c -mcpu=generic

# ---- built without LLVM ------------------------------------------------------------------------------------------------

without=$build/moec_without_llvm
"$without" --version | grep -q LLVM && fail "$without names LLVM"
"$without" compile "$tiny" --backend=llvm -o "$work/refused" 2>"$work/err" && fail "$without compiles through LLVM"
grep -q "built without LLVM" "$work/err" || fail "$without: $(cat "$work/err")"
[ "$("$without" run "$tiny" --func encode --backend=c -O0)" = "$("$moec" run "$tiny" --func encode --backend=c -O0)" ] || fail "$without: other results"
[ $status = 0 ] && echo "llvm: every form, without a C compiler, for three machines"
exit $status
