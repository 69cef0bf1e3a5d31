#!/bin/sh
# Every input that fuzzers begin with, and every one that was a finding, through its harness as it is compiled here. With clang
# tests/fuzz/run.sh looks for more.
tool=$(cd "${BUILD_DIR:-build}" && pwd)/tools/fuzz
source=${SOURCE_DIR:-$(dirname "$0")/..}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
MOEC_FUZZ_GRAPHS=10 sh "$source/tests/fuzz/seeds.sh" "$work/seeds" || exit 1
export TMPDIR="$work" ASAN_OPTIONS="${ASAN_OPTIONS:-allocator_may_return_null=0}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1}"
failed=0
for name in $("$tool" --list | cut -d' ' -f1); do
    if "$tool" "$name" "$work/seeds/$name" >"$work/out" 2>"$work/err"; then tail -1 "$work/out"
    else
        echo "fuzz: $name: code $?: $(tail -1 "$work/out")"
        tail -20 "$work/err"
        failed=1
    fi
done
exit $failed
