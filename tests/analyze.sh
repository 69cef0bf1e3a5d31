#!/bin/sh
# Static analysis: no finding but those of tests/analyze.suppress. A tool that is not installed is skipped. cppcheck always;
# gcc -fanalyzer and clang-tidy (.clang-tidy), which take minutes, over what moec and its programs consist of where ANALYZE=all.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
commands=$build/compile_commands.json
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
has() { command -v "$1" >/dev/null && return; echo "analyze: no $1, skipped"; return 1; }
[ -f "$commands" ] || { echo "analyze: no compile_commands.json, skipped"; exit 77; }
cd "$root" || exit 1
done=0 bad=0

# One command line for each file of ours, the first of those that compile it.
compilations() {
    sed -n 's/^ *"command": "\(.*\)",\{0,1\}$/\1/p' "$commands" | sed 's/\\\(.\)/\1/g' |
        awk -v root="$root/" '{ f = $NF; if (index(f, root) != 1) next; sub(/^.*\//, "", f); f = substr($NF, length(root) + 1) }
            f ~ /^(compiler|frontends|codegen|runtime)\/.*\.c$/ && !seen[f]++'
}

# What of a log is a finding: FILE:LINE:COLUMN: ... [CHECK], once, and CHECK:FILE not in analyze.suppress.
findings() {
    awk -v root="$root/" '
        FNR == NR { if ($0 !~ /^#/ && split($0, p, ":") == 2) { gsub(/[.+]/, "\\\\&", p[2]); gsub(/\*/, ".*", p[2]); place[p[1], ++n] = "^" p[2] "$"; id[n] = p[1] } next }
        /^[^ :]+:[0-9]+:[0-9]+: / && /\]$/ && !seen[$0]++ {
            check = $0; sub(/.*\[/, "", check); sub(/(,-warnings-as-errors)?\]$/, "", check); sub(/^-W/, "", check)
            file = $0; sub(/:.*/, "", file)
            for (i = 1; i <= n; i++) if (id[i] == check && file ~ place[check, i]) next
            sub(root, ""); print
        }
        /: (fatal )?error: / && !/\]$/ || !/^[^ :]+:[0-9]+:[0-9]+: / && /,-warnings-as-errors\]$/' tests/analyze.suppress "$1"
}

# NAME, and what it wrote to its log.
report() {
    findings "$tmp/$1" >"$tmp/found"
    done=1
    [ -s "$tmp/found" ] || { echo "analyze: $1 finds nothing"; return; }
    cat "$tmp/found" >&2
    echo "analyze: $1 has findings" >&2
    bad=1
}

if has cppcheck; then
    done=1
    if cppcheck -q -j2 --enable=warning,portability,performance --std=c11 --project="$commands" \
        --library=tests/analyze.cfg --suppressions-list=tests/analyze.suppress --error-exitcode=1 \
        --template='{file}:{line}: {id}: {message}' --template-location=''
    then echo "analyze: cppcheck finds nothing"
    else echo "analyze: cppcheck has findings" >&2; bad=1
    fi
fi
if [ "$ANALYZE" = all ]; then
    compilations >"$tmp/compilations"
    if has gcc; then
        sed 's/^[^ ]*/gcc/; s/ -Werror / /; s/ -o [^ ]*/ -fanalyzer -fdiagnostics-plain-output -o \/dev\/null/' "$tmp/compilations" |
            tr '\n' '\0' | xargs -0 -P2 -n1 sh -c >"$tmp/gcc" 2>&1
        report gcc
    fi
    if has clang-tidy; then
        awk '{ print $NF }' "$tmp/compilations" | xargs -P2 -n1 clang-tidy -p "$build" --quiet >"$tmp/clang-tidy" 2>/dev/null
        report clang-tidy
    fi
fi
[ $bad = 0 ] || exit 1
[ $done = 1 ] || exit 77
