#!/bin/sh
# ONNX operator tests: interpreted as imported (dynamic ops), interpreted after all passes, compiled as C and by LLVM.
# MOEC_SHARED: a folder with onnx_node_tests/open, the complete set; without it the bundled selection runs alone.
tool=${BUILD_DIR:-build}/tools/onnx_nodes
source=${SOURCE_DIR:-.}
shared=${MOEC_SHARED:-$source/../shared/data}/onnx_node_tests/open
failed=0
if "${MOEC:-build/moec}" --version | grep -q LLVM; then llvm=llvm; else llvm= && echo "llvm: not built in, skipped"; fi
for mode in direct "bound --paranoid" compiled $llvm; do
    echo "bundled:"
    "$tool" --mode=$mode "$source/tests/fixtures/onnx_nodes" || failed=1
    if [ -f "$shared/manifest.json" ]; then
        echo "complete:"
        "$tool" --mode=$mode "$shared" || failed=1
    else
        echo "complete: skipped, set MOEC_SHARED"
    fi
done
exit $failed
