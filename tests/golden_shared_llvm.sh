#!/bin/sh
# golden_shared.sh through LLVM.
moec=${MOEC:-build/moec}
"$moec" --version | grep -q LLVM || { echo "moec was built without LLVM: skipped"; exit 77; }
BACKEND=llvm exec sh "$(dirname "$0")/golden_shared.sh"
