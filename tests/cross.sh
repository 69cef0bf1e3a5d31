#!/bin/sh
# Other machines than this one, emulated: the folder of --emit=c and executables of `moec compile --cc=...` for aarch64 and
# riscv64 give the stored answers, and train as stored.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "cross: $*" >&2; status=1; }
. "$root/tests/folder.inc"
# shellcheck disable=SC2086
compile() { "$moec" compile $mov_e4 "$@"; }
tried=0
# there CPU: whether its compiler and emulator are.
there() {
    command -v "$1-linux-gnu-gcc" >/dev/null 2>&1 && command -v "qemu-$1" >/dev/null 2>&1 && tried=1 && return
    echo "$1: its gcc or qemu-user is not installed, skipped"
    return 1
}
emulated() { cpu=$1; shift; qemu-"$cpu" -L "/usr/$cpu-linux-gnu" "$@"; }

if there riscv64; then
    compile --emit=c -march=generic --prefix=t5 -o "$work/riscv64" &&
        make -C "$work/riscv64" -j2 CC=riscv64-linux-gnu-gcc CFLAGS="-O1 $strict" >"$work/log" 2>&1 || { cat "$work/log"; fail "riscv64: the folder"; }
    golden "riscv64, folder" emulated riscv64 "$work/riscv64/t5"
fi
if there aarch64; then
    # the folder's own flags, of which a cross compiler does not know -march=native
    compile --emit=c --train -O1 --prefix=t5 -o "$work/aarch64" && make -C "$work/aarch64" -j2 CC=aarch64-linux-gnu-gcc >"$work/log" 2>&1 ||
        { cat "$work/log"; fail "aarch64: the folder"; }
    golden "aarch64, folder" emulated aarch64 "$work/aarch64/t5"
    golden_training "aarch64, folder" 2 emulated aarch64 "$work/aarch64/t5"
    compile --cc=aarch64-linux-gnu-gcc -O0 --embed-weights -o "$work/exe" || fail "aarch64: no executable"
    golden "aarch64, executable" emulated aarch64 "$work/exe"
    "$moec" verify "$tiny" --golden "$case" --cc=aarch64-linux-gnu-gcc >"$work/log" 2>&1
    [ $? = 1 ] && grep -q "error: .*aarch64.*does not run" "$work/log" || fail "verify with a cross compiler: $(cat "$work/log")"
fi
[ $tried = 1 ] || exit 77
[ $status = 0 ] && echo "cross: other machines give the stored answers"
exit $status
