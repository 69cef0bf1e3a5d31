#!/bin/sh
# The contract with programs that embed a model: tests/embedding/check.c watches one; and what a program that uses every
# function of moec_rt.h and moec_train.h links neither prints nor ends the process.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "embedding: $*" >&2; status=1; }
strict="-std=c11 -Wall -Wextra -Wshadow -Werror"

# ---- watched from inside ------------------------------------------------------------------------------------

# watch TOLERANCE OPTIONS...
watch() {
    tolerance=$1
    shift
    "$moec" compile "$root/examples/t5-tiny" --adapter "$case/spec.json" --train --dim B=1..8 --dim S=1..16 --dim T=1..32 \
        --emit=lib -o t5.a "$@" || exit 1
    libraries="-lm -lpthread"
    [ "$tolerance" = 0 ] || libraries="-lopenblas $libraries"
    # shellcheck disable=SC2086
    cc -g $strict -I. -o check "$root/tests/embedding/check.c" t5.a $libraries || exit 1
    ./check t5.weights "$case/adapter.safetensors" . "$tolerance" || fail "with $*"
}
watch 1e-5 -O1 --matmul=openblas
watch 0 -O1

# ---- what is linked -----------------------------------------------------------------------------------------

nm "$build/libmoec_rt.a" | awk '$2 == "T" { print $3 }' | sort -u >defined
grep -Eoh 'moec_[a-z0-9_]+\(' "$root/runtime/moec_rt.h" "$root/runtime/moec_train.h" | tr -d '(' | sort -u |
    comm -12 - defined >public
[ "$(wc -l <public)" -ge 30 ] || fail "few public functions were found: $(cat public)"
{
    printf '#include "t5.h"\n#include "moec_train.h"\ntypedef void any(void);\nany *volatile all[] = {\n'
    sed 's/.*/    (any *)&,/' public
    printf '};\nint main(void) { return t5_program() == 0 || !all[0]; }\n'
} >all.c
# shellcheck disable=SC2086
cc -std=c11 -I. -o all all.c t5.a -lm -lpthread -Wl,-Map,map || fail "a public function cannot be linked"
sed -n '/^LOAD/q; s/^t5\.a(\([a-z_0-9.]*\.o\)).*/\1/p' map | sort -u >members
[ "$(wc -l <members)" -ge 10 ] || fail "few members were linked: $(cat members)"
grep -E '^(cli_|main|checkpoint|dataset|npy|metrics)' members && fail "the command line is linked with an embedding program"
# printf into buffers of the caller's is all that is used of stdio.
forbidden='(__)?(v?f?printf|v?dprintf|puts|fputs|putchar|putc|fputc|fwrite|fopen|fdopen|freopen|fclose|fflush|perror|getenv|system)(_chk)?'
ends='exit|_exit|_Exit|quick_exit|abort|__assert_fail|raise|kill|atexit|signal|sigaction'
streams='stdout|stderr|stdin'
mkdir members.d
while read -r member; do
    (cd members.d && ar x ../t5.a "$member") || fail "no member $member"
    allowed=
    [ "$member" != dispatch.c.o ] || allowed=getenv # MOEC_VARIANT, when a program of several variants is asked for
    nm -u "members.d/$member" | awk '{ print $2 }' | sed 's/@.*//' | grep -vx "$allowed" | grep -E "^($forbidden|$ends|$streams)$" >bad &&
        fail "$member uses $(tr '\n' ' ' <bad)"
done <members
# The check sees what it looks for.
nm -u "$build/libmoec_rt.a" 2>/dev/null | awk '{ print $2 }' | sed 's/@.*//' | grep -qE "^($forbidden|$streams)$" ||
    fail "the command line prints nothing?"

# ---- a shared library has all of it -------------------------------------------------------------------------

"$moec" compile "$root/examples/t5-tiny" --adapter "$case/spec.json" --train -O0 --matmul=native --emit=shared --prefix=t5 -o t5.so || exit 1
nm -D --defined-only t5.so | awk '{ print $3 }' | sort -u >exported
comm -23 public exported >missing
[ ! -s missing ] || fail "t5.so lacks $(tr '\n' ' ' <missing)"
[ $status = 0 ] && echo "embedding: $(wc -l <public) functions, $(wc -l <members) objects: nothing allocated, nothing printed"
exit $status
