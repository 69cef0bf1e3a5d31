#!/bin/sh
# What moec compile makes, runtime and model, built with sanitizers: with four threads it generates, scores and trains as stored,
# evaluates and goes on from a checkpoint, without a race (thread), a wrong access, a leak (address) or undefined behaviour.
# SANITIZERS names others: memory, of clang, finds what is read before it is written, values of the model included, which count
# as unwritten whenever one of its functions starts (moec_mem_forget); valgrind runs what is built without any.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0 clean=
fail() { echo "sanitizers: $*" >&2; status=1; }
. "$root/tests/folder.inc"

# trained LABEL COMMAND...: evaluates, and trains two steps and one more from the checkpoint of the second.
trained() {
    label=$1
    shift
    rm -rf "$work/run"
    "$@" eval --data "$work/train.jsonl" --batch 3 >"$work/got" 2>&1 || { cat "$work/got"; fail "$label: eval"; }
    for steps in 2 3; do
        "$@" train --data "$work/train.jsonl" --batch 4 --save-every 1 --steps $steps --out "$work/run" \
            $([ $steps = 2 ] || echo --resume) >"$work/got" 2>&1 || { cat "$work/got"; fail "$label: train, $steps steps"; }
    done
    [ "$(grep -c '"loss"' "$work/run/metrics.jsonl")" = 3 ] || fail "$label: metrics of $(cat "$work/run/metrics.jsonl")"
}

# shellcheck disable=SC2086
"$moec" compile $mov_e4 --train --emit=c -march=generic --prefix=t5 -o "$work/c" || exit 1
export TSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1
for sanitizer in ${SANITIZERS:-thread address,undefined}; do
    cc=cc run= flags="-fsanitize=$sanitizer -fno-sanitize-recover=all"
    case $sanitizer in
        memory) cc=clang flags="$flags -fsanitize-memory-track-origins" ;;
        valgrind) flags= run="valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect" ;;
    esac
    echo 'int main(void) { return 0; }' >"$work/probe.c"
    # shellcheck disable=SC2086
    if ! { $cc $flags -o "$work/probe" "$work/probe.c" && $run "$work/probe"; } >/dev/null 2>&1; then
        echo "sanitizers: no $sanitizer here, skipped"
        continue
    fi
    cp -r "$work/c" "$work/$sanitizer"
    if make -C "$work/$sanitizer" -j2 CC=$cc CFLAGS="-O0 -g $flags -fno-omit-frame-pointer" LDFLAGS="$flags" >"$work/log" 2>&1; then
        golden $sanitizer $run "$work/$sanitizer/t5" --threads 4
        golden_training $sanitizer 3 $run "$work/$sanitizer/t5" --threads 4
        trained $sanitizer $run "$work/$sanitizer/t5" --threads 4
        clean="$clean $sanitizer"
    else
        cat "$work/log"
        fail "$sanitizer: it does not build"
    fi
done
[ $status = 0 ] && echo "sanitizers: compiled programs are clean with four threads:$clean"
exit $status
