#!/bin/sh
# Every call of the system that moec and its programs make fails, one after the other: allocations, and opening, reading, writing,
# syncing, renaming of files. A command that cannot do its work says so in a line, ends with 1 and leaves what was there; one that
# can ends with 0 and writes what it always does. And files are cut while they are read or mapped. FAULTS=all: every call; else some
# of each command's.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
[ -x "$moec" ] || { echo "faults: no moec at $moec"; exit 1; }
case $("$moec" --version; uname -s) in *Linux*) ;; *) echo "faults: not this system, skipped"; exit 77 ;; esac
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
${CC:-cc} -O1 -shared -fPIC -o "$work/preload.so" "$root/tests/tools/faults/preload.c" -ldl -lpthread || exit 1
if ! LD_PRELOAD=$work/preload.so FAULT_COUNT=$work/count "$moec" --version >/dev/null 2>&1 || [ ! -s "$work/count" ]; then
    echo "faults: this moec takes no LD_PRELOAD, skipped"
    exit 77
fi
points=${POINTS:-12} # of a kind of a command, where not all
failed=0 runs=0 refused=0 of=

mkdir "$work/t5"
cp "$root"/examples/t5-tiny/*.json "$root"/examples/t5-tiny/*.onnx "$root"/tests/fixtures/adapters/mov-e4/spec.json "$root"/tests/fixtures/adapters/mov-e4/adapter.safetensors \
    "$work/t5" || exit 1
chmod -R u+w "$work"
adapter=$work/t5/mov10.json
"$moec" compile "$work/t5" --adapter "$adapter" --train --matmul=native -O0 -o "$work/m" >"$work/err" 2>&1 || { cat "$work/err"; exit 1; }
echo '{"input_ids": [5, 6, 7, 1], "labels": [8, 9, 1]}' >"$work/data.jsonl"
mkdir "$work/kept" && cp -r "$work/t5" "$work/m.weights" "$work/data.jsonl" "$work/kept"

restore() { cp -r "$work"/kept/* "$work"; }

# faulty KIND AT ON COMMAND...: in a copy of what was there, what is written to $work/out.
faulty() {
    kind=$1 at=$2 on=$3
    shift 3
    rm -rf "$work/out" "$work/tmp"
    cp -r "$work/before" "$work/out" && mkdir "$work/tmp"
    [ $kind != cut ] || restore
    (cd "$work/out" && ulimit -t 60 && TMPDIR=$work/tmp FAULT_KIND=$kind FAULT_AT=$at FAULT_ON=$on FAULT_DIR=$work \
        LD_PRELOAD=$work/preload.so "$@") >"$work/stdout" 2>"$work/err"
}

# What counts of the outputs: all of them, but for files that tell of the run.
same() { diff -r "$1$of" "$2$of" >/dev/null 2>&1; }

# judge NAME: what became of it.
judge() {
    runs=$((runs + 1))
    problem=
    case $code in
    0) same "$work/after" "$work/out" || problem="ends with 0 and another output" ;;
    1)
        refused=$((refused + 1))
        [ -s "$work/err" ] || problem="ends with 1 and no word"
        [ -n "$of" ] || same "$work/before" "$work/out" || problem="ends with 1 and leaves something"
        ;;
    *) problem="ends with $code" ;;
    esac
    [ -z "$(ls -A "$work/tmp")" ] || problem="${problem:-leaves something in TMPDIR}"
    [ -z "$problem" ] && return
    echo "faults: $name: $kind, call $at${on:+ and all later ones}: $problem"
    head -3 "$work/err" | cut -c1-200 | sed 's/^/    /'
    failed=$((failed + 1))
}

# sweep NAME COMMAND...: its outputs in the current folder; what stands in $work/before was there.
sweep() {
    name=$1
    shift
    restore
    rm -rf "$work/out" "$work/tmp"
    cp -r "$work/before" "$work/out" && mkdir "$work/tmp"
    (cd "$work/out" && TMPDIR=$work/tmp FAULT_COUNT=$work/count FAULT_DIR=$work LD_PRELOAD=$work/preload.so "$@") >"$work/stdout" 2>"$work/err" ||
        { echo "faults: $name does not work"; cat "$work/err"; failed=$((failed + 1)); return; }
    rm -rf "$work/after" && mv "$work/out" "$work/after"
    read -r memory files reads <"$work/count"
    was=$runs no=$refused
    for kind in memory eio enospc eintr short cut; do
        case $kind in memory) calls=$memory ;; cut) calls=$reads ;; *) calls=$files ;; esac
        step=$(((calls + points - 1) / points))
        if [ "${FAULTS:-}" = all ] || [ $step -lt 1 ]; then step=1; fi
        for on in '' 1; do
            case $kind$on in eintr1 | cut1) continue ;; esac # the first is tried again, and for ever
            at=0
            while [ $at -lt "$calls" ]; do
                faulty $kind $at "$on" "$@"
                code=$?
                judge
                at=$((at + step))
            done
        done
    done
    echo "faults: $name: $memory allocations, $files calls on files, $reads that read; $((runs - was)) runs, $((refused - no)) refused"
}

# before FILE...: what is there before a command.
before() {
    rm -rf "$work/before" && mkdir "$work/before"
    for f; do echo "what was there" >"$work/before/$f"; done
}

before m.c m.h m.weights Makefile
sweep 'compile --emit=c' "$moec" compile "$work/t5" --adapter "$adapter" --emit=c --matmul=native -o m
before m.ir
sweep 'dump' "$moec" dump "$work/t5" --adapter "$work/t5/spec.json" --adapter-weights "$work/t5/adapter.safetensors" -o m.ir
before
sweep 'info' "$moec" info "$work/t5" --adapter "$adapter"
sweep 'generate' "$work/m" generate --ids 5,6,7,1 --max-length 4 --threads 2
of=/run/adapter.safetensors # beside it lie checkpoints and what tells of the time
sweep 'train' "$work/m" train --data "$work/data.jsonl" --steps 2 --batch 1 --threads 1 --out run
echo "faults: $runs runs, $refused refused, $failed failures"
[ $failed = 0 ]
