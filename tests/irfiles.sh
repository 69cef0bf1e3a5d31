#!/bin/sh
# Text in, text out: every tests/ir/*.ir whose first line is `# moec: COMMAND OPTIONS` is run through
# `moec COMMAND FILE OPTIONS`; what it prints has to equal the comment lines after `# want:`. BLESS=1 rewrites them.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
[ -x "$moec" ] || { echo "$moec is not there" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0 count=0
for file in "$root"/tests/ir/*.ir; do
    line=$(sed -n '1s/^# moec: //p' "$file")
    [ -n "$line" ] || continue
    count=$((count + 1))
    command=${line%% *}
    options=${line#"$command"}
    # Options are words of our own files: splitting them is meant.
    # shellcheck disable=SC2086
    (cd "$root/tests/ir" && "$moec" "$command" "$(basename "$file")" $options) >"$work/got" 2>&1
    echo "exit $?" >>"$work/got"
    sed -n '/^# want:$/,$p' "$file" | sed '1d; s/^# \{0,1\}//' >"$work/want"
    if [ -n "$BLESS" ]; then
        { sed '/^# want:$/,$d' "$file"; echo "# want:"; sed 's/^/# /; s/ *$//' "$work/got"; } >"$work/new"
        cat "$work/new" >"$file"
    elif ! diff -u "$work/want" "$work/got" >"$work/diff"; then
        echo "$(basename "$file"): moec $line" >&2
        cat "$work/diff" >&2
        status=1
    fi
done
echo "$count IR files"
[ "$count" -gt 0 ] || status=1
exit $status
