#!/bin/sh
# compiler/README.md has a row for every op and attribute of ops.def.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$root/compiler" || exit 1
status=0
for name in $(sed -n 's/^\(OP\|ATTR\)(\([a-z_0-9]*\),.*/\2/p' ops.def); do
    grep -q "^| \`$name\` |" README.md || { echo "README.md lacks $name" >&2; status=1; }
done
exit $status
