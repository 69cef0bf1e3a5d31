#!/bin/sh
# Text in, text out: every tests/ir/*.ir whose first line is `# moec: COMMAND OPTIONS` is run through
# `moec COMMAND FILE OPTIONS`; what it prints has to equal the comment lines after `# want:`. BLESS=1 rewrites them. What runs
# through C at -O0 has to print the same through LLVM.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
[ -x "$moec" ] || { echo "$moec is not there" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0 count=0
if "$moec" --version | grep -q LLVM; then llvm=llvm; else llvm= && echo "LLVM: not built in, skipped"; fi
# try FILE COMMAND OPTIONS...: what it prints, and its exit code, in $work/got.
try() {
    name=$(basename "$1") what=$2
    shift 2
    (cd "$root/tests/ir" && "$moec" "$what" "$name" "$@") >"$work/got" 2>&1
    echo "exit $?" >>"$work/got"
}
# same FILE WHAT: whether that is what the file wants.
same() {
    sed -n '/^# want:$/,$p' "$1" | sed '1d; s/^# \{0,1\}//' >"$work/want"
    diff -u "$work/want" "$work/got" >"$work/diff" && return
    echo "$(basename "$1"): moec $2" >&2
    cat "$work/diff" >&2
    status=1
}
for file in "$root"/tests/ir/*.ir; do
    line=$(sed -n '1s/^# moec: //p' "$file")
    [ -n "$line" ] || continue
    count=$((count + 1))
    command=${line%% *}
    options=${line#"$command"}
    # Options are words of our own files: splitting them is meant.
    # shellcheck disable=SC2086
    try "$file" "$command" $options
    if [ -n "$BLESS" ]; then
        { sed '/^# want:$/,$d' "$file"; echo "# want:"; sed 's/^/# /; s/ *$//' "$work/got"; } >"$work/new"
        cat "$work/new" >"$file"
    else
        same "$file" "$line"
    fi
    case $llvm$line in
    llvm*--backend=c*-O0*)
        options=$(echo "$options" | sed 's/--backend=c/--backend=llvm/')
        # shellcheck disable=SC2086
        try "$file" "$command" $options
        same "$file" "$command $options"
        ;;
    esac
done
echo "$count IR files"
[ "$count" -gt 0 ] || status=1
exit $status
