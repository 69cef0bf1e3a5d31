#!/bin/sh
# What moec compile makes, runtime and model, built with sanitizers: generates, scores and trains as stored with four threads,
# without a race (thread), a wrong access, a leak (address) or undefined behaviour.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "sanitizers: $*" >&2; status=1; }
. "$root/tests/folder.inc"

# shellcheck disable=SC2086
"$moec" compile $mov_e4 --train --emit=c -march=generic --prefix=t5 -o "$work/c" || exit 1
export TSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1
for sanitizer in thread address,undefined; do
    echo 'int main(void) { return 0; }' >"$work/probe.c"
    if ! { cc -fsanitize=$sanitizer -o "$work/probe" "$work/probe.c" && "$work/probe"; } >/dev/null 2>&1; then
        echo "sanitizers: no $sanitizer here, skipped"
        continue
    fi
    cp -r "$work/c" "$work/$sanitizer"
    flags="-fsanitize=$sanitizer -fno-sanitize-recover=all"
    if make -C "$work/$sanitizer" -j2 CFLAGS="-O0 -g $flags -fno-omit-frame-pointer" LDFLAGS="$flags" >"$work/log" 2>&1; then
        golden $sanitizer "$work/$sanitizer/t5" --threads 4
        golden_training $sanitizer 3 "$work/$sanitizer/t5" --threads 4
    else
        cat "$work/log"
        fail "$sanitizer: it does not build"
    fi
done
[ $status = 0 ] && echo "sanitizers: compiled programs are clean with four threads"
exit $status
