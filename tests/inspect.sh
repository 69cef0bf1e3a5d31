#!/bin/sh
# Looking inside: moec diff and its exit codes, --dump-changed.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "inspect: $*" >&2; status=1; }
# exits CODE WHAT COMMAND...: its output in $work/out, its messages in $work/err.
exits() {
    want=$1 what=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    code=$?
    [ $code = "$want" ] || { cat "$work/out" "$work/err"; fail "$what: exit code $code, not $want"; }
}

# ---- dumps of what changed: `grad` has nothing to do without --train
"$moec" dump "$tiny" --dump-ir=all --dump-dir="$work/all" -o "$work/same.ir" || fail "--dump-ir=all"
"$moec" dump "$tiny" --dump-changed --dump-dir="$work/changed" -o "$work/planned.ir" 2>"$work/err" || fail "--dump-changed"
before=$work/all/01-before-bind.ir
for after in "$work"/all/*-after-*.ir; do
    name=${after##*/}
    pass=${name#*-after-}
    pass=${pass%.ir}
    sed 1d "$before" >"$work/a"
    sed 1d "$after" >"$work/b"
    if cmp -s "$work/a" "$work/b"; then
        [ ! -e "$work/changed/$name" ] || fail "$name is written though nothing changed"
        grep -q "^# no change: $pass\$" "$work/err" || fail "$pass is not named among those that changed nothing"
    else
        cmp -s "$after" "$work/changed/$name" || fail "$name is not what --dump-ir writes"
        ! grep -q "no change: $pass\$" "$work/err" || fail "$pass is named among those that changed nothing"
    fi
    before=$after
done
grep -q 'no change: grad' "$work/err" || fail "grad changes something without --train"
cmp -s "$work/all/01-before-bind.ir" "$work/changed/01-before-bind.ir" || fail "no dump of what came in"
"$moec" dump "$tiny" --stop-after=fold --dump-changed=diff -o "$work/folded.ir" >"$work/out" || fail "--dump-changed=diff"
grep -q '^# fold changed$' "$work/out" && grep -q '^@@ .* func @decoder$' "$work/out" && grep -q '^-  ' "$work/out" ||
    fail "--dump-changed=diff shows no difference"
"$moec" opt "$work/folded.ir" --passes=fold --dump-changed -o "$work/again.ir" | grep -q '^# no change: fold' || fail "fold twice"
exits 2 "--dump-changed=some" "$moec" dump "$tiny" --dump-changed=some

# ---- differences: as diff's, 0, 1 and 2
all=$work/all
exits 0 "diff of a file and itself" "$moec" diff "$all/01-before-bind.ir" "$all/01-before-bind.ir"
[ ! -s "$work/out" ] || fail "a file differs from itself"
exits 0 "diff of a model and its dump" "$moec" diff "$tiny" "$all/01-before-bind.ir"
sed 's/@attention_\([0-9]*\)/@attention_9\1/g; s/%_block/%b_lock/g' "$work/planned.ir" >"$work/renamed.ir"
! cmp -s "$work/planned.ir" "$work/renamed.ir" || fail "nothing was renamed"
exits 0 "diff of renamed values and kernels" "$moec" diff "$work/planned.ir" "$work/renamed.ir"
sed 's/ = gelu / = relu /' "$work/planned.ir" >"$work/relu.ir"
exits 1 "diff of gelu and relu" "$moec" diff "$work/planned.ir" "$work/relu.ir"
[ "$(grep -c '^-  .* = gelu ' "$work/out")" = "$(grep -c ' = gelu ' "$work/planned.ir")" ] &&
    [ "$(grep -c '^[-+] ' "$work/out")" = "$((2 * $(grep -c ' = gelu ' "$work/planned.ir")))" ] || fail "gelu for relu: $(cat "$work/out")"
head -1 "$work/out" | grep -q "^--- $work/planned.ir\$" || fail "the first file is not named"
exits 1 "diff --stat" "$moec" diff --stat "$all/03-after-match.ir" "$all/05-after-derive.ir"
grep -q 'func @score (added)$' "$work/out" && grep -q 'func @decoder (removed)$' "$work/out" || fail "--stat: $(cat "$work/out")"
exits 1 "diff --func" "$moec" diff --func=step "$all/08-after-remat.ir" "$all/09-after-fuse.ir"
! grep '^@@' "$work/out" | grep -qv 'func @step$' || fail "--func shows others, too"
exits 2 "diff of an unknown function" "$moec" diff --func=none "$all/08-after-remat.ir" "$all/09-after-fuse.ir"
grep -q "neither module has a function 'none'" "$work/err" || fail "--func=none: $(cat "$work/err")"
exits 2 "diff of a file that is not there" "$moec" diff "$all/08-after-remat.ir" "$work/none.ir"
exits 2 "diff of one" "$moec" diff "$all/08-after-remat.ir"
exits 2 "diff of three" "$moec" diff "$work/planned.ir" "$work/planned.ir" "$work/planned.ir"
exit $status
