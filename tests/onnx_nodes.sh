#!/bin/sh
# ONNX operator tests: interpreted as imported (dynamic ops), interpreted after all passes, compiled as C and by LLVM.
# MOEC_SHARED: a folder with onnx_node_tests/open, the complete set; without it a selection of them that is bundled.
tool=${BUILD_DIR:-build}/tools/onnx_nodes
source=${SOURCE_DIR:-.}
shared=${MOEC_SHARED:-$source/../shared/data}/onnx_node_tests/open
nodes=$shared
[ -f "$shared/manifest.json" ] || { nodes=$source/tests/fixtures/onnx_nodes && echo "the complete set: skipped, set MOEC_SHARED"; }
failed=0
if "${MOEC:-build/moec}" --version | grep -q LLVM; then llvm=llvm; else llvm= && echo "llvm: not built in, skipped"; fi
for mode in direct "bound --paranoid" compiled $llvm; do
    # shellcheck disable=SC2086
    "$tool" --mode=$mode "$nodes" || failed=1
done
exit $failed
