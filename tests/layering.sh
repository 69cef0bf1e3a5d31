#!/bin/sh
# The rules of the house: who may include whom, and how long a file may get.
#
#   runtime    -> nothing of ours          frontends -> compiler
#   compiler   -> nothing of ours, but compiler/driver may include everything
#   codegen    -> compiler, runtime/moec_rt.h        protobuf-c: frontends only        jansson: frontends, driver
#   llvm-c: one file                                  codegen/llvm/vocabulary.c is moec_kernel.h, compiled for it
#   every source file: at most 1000 lines
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$root" || exit 1
find compiler frontends codegen runtime -name '*.[ch]' -o -name '*.def' -o -name '*.cc' | sort |
xargs awk '
function area(path) {
    if (path ~ /^compiler\/driver\//) return "driver"
    sub(/\/.*/, "", path)
    return path
}
# compiler/../runtime/x.h -> runtime/x.h
function normal(path) {
    while (match(path, /[^\/]+\/\.\.\//)) path = substr(path, 1, RSTART - 1) substr(path, RSTART + RLENGTH)
    gsub(/\/\.\//, "/", path)
    return path
}
function exists(path,   line, r) { r = (getline line < path); close(path); return r >= 0 }
function bad(why) { print FILENAME ":" FNR ": " why; failed = 1 }
BEGIN {
    allow["runtime runtime"] = allow["compiler compiler"] = allow["frontends frontends"] = 1
    allow["frontends compiler"] = allow["codegen codegen"] = allow["codegen compiler"] = 1
    allow["driver driver"] = allow["driver compiler"] = allow["driver frontends"] = allow["driver codegen"] = 1
    allow["driver runtime"] = 1
}
FNR == 1001 { bad("longer than 1000 lines") }
/^[ \t]*#[ \t]*include/ {
    from = area(FILENAME)
    if ($0 ~ /protobuf-c|onnx\.pb-c\.h/ && from != "frontends") bad("only frontends see protobuf-c")
    if ($0 ~ /jansson\.h/ && from != "frontends" && from != "driver") bad("only frontends and the driver see jansson")
    if ($0 ~ /llvm-c\// && FILENAME != "codegen/llvm/builder.h") bad("only codegen/llvm/builder.h includes llvm-c")
    if (!match($0, /"[^"]+"/)) next
    name = substr($0, RSTART + 1, RLENGTH - 2)
    dir = FILENAME
    sub(/[^\/]*$/, "", dir)
    if (exists(normal(dir name))) target = normal(dir name)
    else if (exists(normal(name))) target = normal(name)
    else next
    to = area(target)
    if (from == "codegen" && target == "runtime/moec_rt.h") next
    if (FILENAME == "codegen/llvm/vocabulary.c" && target == "runtime/moec_kernel.h") next
    if (!((from " " to) in allow)) bad(from " may not include " target)
}
END { exit failed }' || exit 1
