#!/bin/sh
# Every call of the system that moec and its programs make fails, one after the other: allocations, and opening, reading, writing,
# syncing, renaming of files (tests/tools/faults/). A command that cannot do its work says so in a line, ends with 1 and leaves what
# was there; one that can ends with 0, and writes and prints what it always does. A training run that failed can be gone on from.
# And files are cut while they are read or mapped.
#
# A moec under the address sanitizer has no allocation fail, and its program is built with the sanitizer as well: nothing may leak.
#
# Some of each command's calls; FAULTS=all: every one. ONLY=PATTERN: commands by their name. PART=K/N: one of N parts of their runs.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
[ -x "$moec" ] || { echo "faults: no moec at $moec"; exit 1; }
case $("$moec" --version; uname -s) in *Linux*) ;; *) echo "faults: not this system, skipped"; exit 77 ;; esac
tmp=$(mktemp -d) && tmp=$(cd "$tmp" && pwd -P) || exit 1
trap 'rm -rf "$tmp"' EXIT
work=$tmp/work store=$tmp/store
mkdir "$work" "$store" || exit 1
tools=$root/tests/tools/faults
sanitized= define=
if ldd "$moec" | grep -q libasan; then
    sanitized=-t define=-DFAULT_FILES_ALONE
    export ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=1:exitcode=86 UBSAN_OPTIONS=halt_on_error=1:exitcode=86
fi
${CC:-cc} -O1 $define -shared -fPIC -o "$tmp/preload.so" "$tools/preload.c" -ldl -lpthread &&
    ${CC:-cc} -O1 -o "$tmp/driver" "$tools/driver.c" && ${CC:-cc} -O1 -o "$tmp/store-cc" "$tools/cc.c" &&
    ln "$tmp/store-cc" "$tmp/store-ld" || exit 1
# What is there before a command: of the files named, one with some text in it each.
before() {
    rm -rf "$work/before" && mkdir "$work/before" || exit 1
    for f; do
        mkdir -p "$(dirname "$work/before/$f")" && echo "what was there" >"$work/before/$f" || exit 1
    done
}

# Calls of a kind that are tried of a command that takes long, and of another; allocations in one run.
case ${FAULTS:-} in all) few=0 many=0 series=0 ;; *) few=${POINTS:-3} many=${POINTS:-8} series=${SERIES:-24} ;; esac
points=$few
bad=0
# sweep [OPTION...] NAME COMMAND...: options as driver.c's.
sweep() {
    options=$sanitized
    while case $1 in -*) ;; *) false ;; esac; do
        options="$options $1"
        case $1 in -[kox]) options="$options $2"; shift ;; esac
        shift
    done
    case $1 in ${ONLY:-*}) ;; *) return ;; esac
    set -f
    FAULT_STORE=$store "$tmp/driver" -l "$tmp/preload.so" -w "$work" -n "$points" -m "$series" -p "${PART:-0/1}" $options "$@" || bad=1
    set +f
}

if ! before || ! "$tmp/driver" -l "$tmp/preload.so" -w "$work" -n 1 -m 1 version "$moec" --version >"$tmp/log" 2>&1; then
    if grep -q LD_PRELOAD "$tmp/log"; then
        echo "faults: this moec takes no LD_PRELOAD, skipped"
        exit 77
    fi
    cat "$tmp/log"
    exit 1
fi

t5=$work/t5 adapter=$work/t5/mov10.json m=$work/m
mkdir "$t5"
fixture=$root/tests/fixtures/adapters/mov-e4
cp "$root"/examples/t5-tiny/*.json "$root"/examples/t5-tiny/*.onnx "$fixture/spec.json" "$fixture/adapter.safetensors" "$t5" || exit 1
chmod -R u+w "$work"
make_program() {
    [ "$sanitized" ] || { "$moec" compile "$t5" --adapter "$adapter" --train --matmul=native -O0 -o "$m"; return; }
    "$moec" compile "$t5" --adapter "$adapter" --train --matmul=native --emit=c -o "$tmp/m" &&
        make -C "$tmp/m" CFLAGS="-O1 -g -fsanitize=address,undefined" LDFLAGS=-fsanitize=address,undefined && cp "$tmp/m/m" "$tmp/m/m.weights" "$work"
}
make_program >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
data=$work/data.jsonl
cat >"$data" <<'END'
{"input_ids": [5, 6, 7, 1], "labels": [8, 9, 1]}
{"input_ids": [5, 7, 1], "labels": [9, 1]}
END
cat >"$work/choices.jsonl" <<'END'
{"input_ids": [5, 6, 7, 1], "choices": [[8, 9, 1], [4, 1]], "label": 0}
END
peft=$work/peft
cp -r "$root/tests/fixtures/peft/lora-qv" "$peft" && cp "$root/tests/ir/append.ir" "$work/f.ir" && chmod -R u+w "$work" || exit 1
kept=$tmp/kept
mkdir "$kept" && cp -r "$t5" "$peft" "$work/f.ir" "$data" "$work/choices.jsonl" "$m" "$m.weights" "$kept" || exit 1

# ---- moec ----

compile="$moec compile $t5 --adapter $adapter --matmul=native"
before m.c m.h m.weights Makefile
sweep -k "$kept" 'compile --emit=c' $compile --emit=c -o m
before m/m.c m/m.h m/m.weights m/rt.c m/own.txt
sweep 'compile --emit=c, in a folder' $compile --emit=c -o m
before m m.weights
sweep 'compile' $compile -O0 --cc="$tmp/store-cc" -o m
before m.a m.h m.weights moec_rt.h
sweep 'compile --emit=lib -g' $compile -O0 -g --emit=lib --cc="$tmp/store-cc" -o m.a
case $("$moec" --version) in
*LLVM*)
    before m m.weights
    sweep 'compile --backend=llvm' $compile --backend=llvm -O0 --linker="$tmp/store-ld" -o m
    ;;
esac
before m.ir
sweep -k "$kept" 'dump' "$moec" dump "$t5" --adapter "$t5/spec.json" --adapter-weights "$t5/adapter.safetensors" -o m.ir
before
points=$many
sweep -k "$kept" 'info' "$moec" info "$t5" --adapter "$adapter"
points=$few
sweep 'verify' "$moec" verify "$t5" --golden "$peft" --adapter "$peft/peft" --matmul=native -O0 --threads=1 --cc="$tmp/store-cc"
points=$many
sweep -k "$kept" 'run' "$moec" run "$work/f.ir" --dim P=2 --out new
before old/output_0.npy old/output_1.npy old/own
sweep 'run, in a folder' "$moec" run "$work/f.ir" --dim P=2 --out old
before qv.safetensors
sweep -k "$kept" 'adapter import' "$moec" adapter import "$peft/peft" -o qv.safetensors
before
"$moec" adapter import "$peft/peft" -o "$work/qv.safetensors" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
sweep 'adapter export' "$moec" adapter export "$work/qv.safetensors" --model "$t5" -o new

# ---- a program ----

sweep -t -k "$kept" 'generate' "$m" generate --ids 5,6,7,1 --max-length 4 --threads 2
sweep -k "$kept" 'score' "$m" score --ids 5,6,7,1 --targets 8,9,1 --threads 1
before results.json
sweep -k "$kept" 'eval' "$m" eval --data "$work/choices.jsonl" --threads 1 --json results.json
train="$m train --data $data --batch 1 --threads 1 --save-every 1"
before states.npy
sweep -k "$kept" 'encode' "$m" encode --ids 5,6,7,1 --threads 1 --out states.npy
before a.safetensors
sweep 'export' "$m" export --threads 1 --out a.safetensors
before
# an older checkpoint may stay where it cannot be removed
sweep -r -x 'checkpoint-*' -o tokens_per_second 'train' $train --steps 3 --out run --resume
(cd "$work/before" && $train --steps 2 --out run) >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
sweep -r -x 'checkpoint-*' -o tokens_per_second 'train --resume' $train --steps 4 --out run --resume

# ---- standard output that takes nothing ----

full=0
for command in "$moec explain limits" "$moec explain M0104" "$moec --help" "$moec describe man" "$moec info $t5" "$moec dump $t5" \
    "$moec run $work/f.ir --dim P=2" "$m --help" "$m info" "$m generate --ids 5,6" "$m score --ids 5 --targets 6"; do
    $command >/dev/full 2>"$tmp/log"
    code=$?
    full=$((full + 1))
    [ $code = 1 ] && grep -q 'standard output' "$tmp/log" || { echo "faults: $command >/dev/full ends with $code: $(cat "$tmp/log")"; bad=1; }
done
echo "faults: $full commands whose output is lost"
exit $bad
