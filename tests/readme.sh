#!/bin/sh
# compiler/README.md has a row for every op and attribute of ops.def, and every pass of passes.def and remark of remarks.def,
# as they stand there.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$root/compiler" || exit 1
status=0
for name in $(sed -n 's/^\(OP\|ATTR\)(\([a-z_0-9]*\),.*/\2/p' ops.def); do
    grep -q "^| \`$name\` |" README.md || { echo "README.md lacks $name" >&2; status=1; }
done
{
    sed -n 's/^PASS(\([a-z]*\), [a-z_]*, "\(.*\)")$/| `\1` | \2 |/p' passes.def
    sed -n 's/^REMARK(\([a-z_]*\), \([a-z]*\), \([a-z]*\), "\(.*\)")$/| `\1` | \2 | \3 | \4 |/p' remarks.def
} >"${TMPDIR:-/tmp}/moec-rows.$$"
while IFS= read -r row; do
    grep -qxF -e "$row" README.md || { echo "README.md lacks: $row" >&2; status=1; }
done <"${TMPDIR:-/tmp}/moec-rows.$$"
rm -f "${TMPDIR:-/tmp}/moec-rows.$$"
exit $status
