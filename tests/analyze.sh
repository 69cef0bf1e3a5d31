#!/bin/sh
# Static analysis: no finding but those of tests/analyze.suppress. A tool that is not installed is skipped; one that crashes, or
# cannot read a file, is a finding. cppcheck always; where ANALYZE=all also gcc -fanalyzer and clang-tidy (.clang-tidy), which
# take minutes, over what moec and its programs consist of; gcc and cppcheck over what moec emits for inference and training;
# and rows of tests/analyze.suppress that suppress nothing. PART=K/N: of the latter files every N-th alone, what else there is
# where K is 1, and nothing about rows.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
moec=${MOEC:-$build/moec}
commands=$build/compile_commands.json
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
has() { command -v "$1" >/dev/null && return; echo "analyze: no $1, skipped"; missing=1; return 1; }
[ -f "$commands" ] || { echo "analyze: no compile_commands.json, skipped"; exit 77; }
cd "$root" || exit 1
done=0 bad=0 missing=0 part=${PART:-1/1}
k=${part%/*} n=${part#*/}
: >"$tmp/used"

# One command line for each file of ours, the first of those that compile it.
compilations() {
    sed -n 's/^ *"command": "\(.*\)",\{0,1\}$/\1/p' "$commands" | sed 's/\\\(.\)/\1/g' |
        awk -v root="$root/" '{ f = $NF; if (index(f, root) != 1) next; f = substr($NF, length(root) + 1) }
            f ~ /^(compiler|frontends|codegen|runtime)\/.*\.c$/ && !seen[f]++'
}

# What of a log is a finding: FILE:LINE:COLUMN: ... [CHECK], once, that no row CHECK:FILE:TEXT of analyze.suppress tells of:
# a row's text is part of the line of source, and its number goes to $tmp/used. And every other error.
findings() {
    awk -v root="$root/" -v tmp="$tmp/" '
        function source(file, line,    k, text) {
            if (!(file in known)) {
                known[file] = 1
                while ((getline text <file) > 0) content[file, ++k] = text
                close(file)
            }
            return content[file, line]
        }
        FNR == NR {
            if ($0 ~ /^(#|$)/) next
            a = index($0, ":"); b = a + index(substr($0, a + 1), ":")
            check[++n] = substr($0, 1, a - 1); place[n] = substr($0, a + 1, b - a - 1); text[n] = substr($0, b + 1); row[n] = FNR
            if (a <= 1 || b <= a + 1 || text[n] == "") print FILENAME ":" FNR ": not CHECK:FILE:TEXT"
            next
        }
        / note: / || !(/^[^:]+:[0-9]+:[0-9]+: / && /\]$/ || /(^|: )(fatal )?error: /) || seen[$0]++ { next }
        {
            split($0, at, ":"); id = $0; file = at[1]
            sub(/.*\[/, "", id); sub(/\]$/, "", id); sub(/^-W/, "", id)
            if (index(file, root) == 1) file = substr(file, length(root) + 1)
            if (index(file, tmp) == 1) file = substr(file, length(tmp) + 1)
            for (i = 1; i <= n; i++)
                if (check[i] == id && place[i] == file && index(source(at[1], at[2]), text[i])) {
                    print row[i] >>(tmp "used")
                    next
                }
            sub(root, ""); sub(tmp, ""); print
        }' tests/analyze.suppress "$1"
}

# NAME: what it finds in its log, $tmp/NAME.log, and what went wrong in $tmp/NAME.failed.
report() {
    findings "$tmp/$1.log" >"$tmp/found"
    cat "$tmp/$1.failed" >>"$tmp/found" 2>/dev/null
    done=1
    [ -s "$tmp/found" ] || { echo "analyze: $1 finds nothing"; return; }
    cat "$tmp/found" >&2
    echo "analyze: $1 has findings" >&2
    bad=1
}

# NAME: runs the commands of standard input, one a line, two at a time. Their output goes to $tmp/NAME.log, those that end with
# anything but 0 to $tmp/NAME.failed.
run_all() {
    mkdir "$tmp/logs" || exit 1
    tr '\n' '\0' | xargs -0 -P2 -n1 sh -c '
        log=$(mktemp "$0/XXXXXX") && { sh -c "$1" >"$log" 2>&1 || echo "exit code $?: $1" >"$log.failed"; }' "$tmp/logs" ||
        echo "xargs: exit code $?" >"$tmp/logs/xargs.failed"
    find "$tmp/logs" -name '*.failed' -exec cat {} + >>"$tmp/$1.failed"
    find "$tmp/logs" -type f ! -name '*.failed' -exec cat {} + >>"$tmp/$1.log"
    [ -n "$(ls "$tmp/logs")" ] || echo "no command was run" >>"$tmp/$1.failed"
    rm -rf "$tmp/logs"
}

# NAME OPTIONS...: cppcheck of what the options say.
check() {
    name=$1
    shift
    cppcheck -q -j2 --enable=warning,portability,performance --library=tests/analyze.cfg \
        --template='{file}:{line}:{column}: {message} [{id}]' --template-location='' "$@" >>"$tmp/$name.log" 2>&1 ||
        echo "exit code $?: cppcheck $*" >>"$tmp/$name.failed"
}

# NAME OPTIONS...: a program as moec emits it, in $tmp/NAME.
emit() {
    name=$1
    shift
    "$moec" compile examples/t5-tiny --adapter tests/fixtures/adapters/mov-e4/spec.json \
        --adapter-weights tests/fixtures/adapters/mov-e4/adapter.safetensors --emit=c --prefix=t5 "$@" -o "$tmp/$name" ||
        { echo "analyze: nothing is emitted to analyse" >&2; bad=1; }
}

analyzer="-fanalyzer -fdiagnostics-plain-output -o /dev/null"
if [ "$k" = 1 ] && has cppcheck; then
    check cppcheck --std=c11 --project="$commands" --suppress='*:*/gen/*' # made by protoc-c
    report cppcheck
fi
if [ "$ANALYZE" = all ]; then
    compilations | awk -v k="$k" -v n="$n" 'NR % n == k % n' >"$tmp/compilations"
    if has gcc; then
        sed "s/^[^ ]*/gcc/; s/ -Werror / /; s| -o [^ ]*| $analyzer|" "$tmp/compilations" | run_all gcc
        report gcc
    fi
    if has clang-tidy; then
        awk -v build="$build" '{ print "clang-tidy -p " build " --quiet " $NF " 2>/dev/null" }' "$tmp/compilations" | run_all clang-tidy
        report clang-tidy
    fi
fi
if [ "$ANALYZE" = all ] && [ "$k" = 1 ]; then
    emit inference -march=native
    emit training --train -march=generic
    if has gcc; then # the runtime's files were looked at above
        for file in "$tmp"/*/t5*.c; do echo "gcc -std=c99 -O1 -c $file $analyzer"; done | run_all emitted-gcc
        report emitted-gcc
    fi
    if has cppcheck; then
        for folder in inference training; do check emitted-cppcheck --std=c99 "$tmp/$folder"; done
        report emitted-cppcheck
    fi
    if [ $missing = 0 ] && [ "$n" = 1 ]; then
        awk 'FNR == NR && FILENAME != "tests/analyze.suppress" { used[$1]; next } !/^(#|$)/ && !(FNR in used)' \
            "$tmp/used" tests/analyze.suppress >"$tmp/found"
        if [ -s "$tmp/found" ]; then
            cat "$tmp/found" >&2
            echo "analyze: these rows of tests/analyze.suppress suppress nothing" >&2
            bad=1
        fi
    fi
fi
[ $bad = 0 ] || exit 1
[ $done = 1 ] || exit 77
