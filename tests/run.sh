#!/bin/sh
# Installs what is missing, builds, runs every test. Usage: sh tests/run.sh [cmake options]
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/install.inc"
build=${BUILD_DIR:-$root/build}
cmake -S "$root" -B "$build" -DBUILD_TESTING=ON -DMOEC_WERROR=ON "$@"
cmake --build "$build" -j2
cd "$build"
ctest --output-on-failure -j "$(nproc)"
BUILD_DIR=$build sh "$root/tests/fuzz/run.sh" || [ $? = 77 ]
