#!/bin/sh
# Static analysis: no finding but those of tests/analyze.suppress. A tool that is not installed is skipped.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
command -v cppcheck >/dev/null || { echo "analyze: no cppcheck, skipped"; exit 77; }
[ -f "$build/compile_commands.json" ] || { echo "analyze: no compile_commands.json, skipped"; exit 77; }
cd "$root" || exit 1
cppcheck -q -j2 --enable=warning,portability,performance --std=c11 --project="$build/compile_commands.json" \
    --library=tests/analyze.cfg --suppressions-list=tests/analyze.suppress --error-exitcode=1 \
    --template='{file}:{line}: {id}: {message}' --template-location='' || { echo "analyze: cppcheck has findings" >&2; exit 1; }
echo "analyze: cppcheck finds nothing"
