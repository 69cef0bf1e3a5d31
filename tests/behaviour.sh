#!/bin/sh
# The compiled program: batches equal single inputs, thread counts and adapters swapped in change nothing they should not,
# and what it refuses it refuses with a message, exit status 1 and nothing on standard output.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
adapters=$root/tests/fixtures/adapters
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "behaviour: $*" >&2; status=1; }
same() { cmp -s "$2" "$3" || fail "$1: $(head -c 300 "$2") ... $(head -c 300 "$3")"; }

# Forty prompts of different lengths; the last is long.
awk 'BEGIN {
    srand(7)
    for (i = 0; i < 40; i++) {
        n = i == 39 ? 300 : 2 + i % 9
        printf "{\"input_ids\": [%d", 3 + i % 4
        for (j = 0; j < n; j++) printf ", %d", 10 + int(rand() * 240)
        print ", 1]}"
    }
}' >"$work/in.jsonl"

for kind in mov-e4 molora-e4-r4; do
    case=$adapters/$kind
    for matmul in native openblas; do
        exe=$work/$kind-$matmul
        "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" -O1 --matmul=$matmul \
            -o "$exe" || exit 1
        # ---- batches
        for batch in 1 7 40; do
            "$exe" generate --jsonl "$work/in.jsonl" --max-length 16 --batch $batch >"$work/tokens.$batch" || fail "generate --batch $batch"
        done
        [ "$(wc -l <"$work/tokens.1")" = 40 ] || fail "not a line for each input"
        same "$kind $matmul: a batch of 7 and single inputs" "$work/tokens.1" "$work/tokens.7"
        same "$kind $matmul: a batch of 40 and single inputs" "$work/tokens.1" "$work/tokens.40"
        # ---- threads
        for threads in 1 2 4; do
            "$exe" encode --jsonl "$work/in.jsonl" --batch 40 --threads $threads --out "$work/hidden.$threads.npy" || fail "encode"
            sed 's/}$/, "labels": [20, 30, 40, 1]}/' "$work/in.jsonl" |
                "$exe" score --jsonl - --batch 40 --threads $threads >"$work/score.$threads" || fail "score"
            "$exe" generate --jsonl "$work/in.jsonl" --max-length 16 --threads $threads >"$work/tokens.t$threads" || fail "generate"
        done
        for threads in 2 4; do
            same "$kind $matmul: encode with $threads threads" "$work/hidden.1.npy" "$work/hidden.$threads.npy"
            same "$kind $matmul: score with $threads threads" "$work/score.1" "$work/score.$threads"
            same "$kind $matmul: generate with $threads threads" "$work/tokens.t1" "$work/tokens.t$threads"
        done
        [ "$(wc -c <"$work/hidden.1.npy")" -gt 1000000 ] || fail "encode --out: too short"
    done

    # ---- an adapter swapped in, against one compiled in: fresh values of the same spec, then the trained ones
    "$moec" compile "$tiny" --adapter "$case/spec.json" -O1 --matmul=native -o "$work/fresh" || exit 1
    exe=$work/$kind-native
    "$exe" encode --jsonl "$work/in.jsonl" --out "$work/compiled.npy" || fail "encode"
    "$work/fresh" encode --jsonl "$work/in.jsonl" --out "$work/fresh.npy" || fail "encode"
    "$work/fresh" encode --jsonl "$work/in.jsonl" --out "$work/swapped.npy" --adapter "$case/adapter.safetensors" || fail "encode --adapter"
    same "$kind: swapped in and compiled in" "$work/compiled.npy" "$work/swapped.npy"
    cmp -s "$work/fresh.npy" "$work/swapped.npy" && fail "$kind: the adapter has no effect"
    other=$adapters/lora-r4/adapter.safetensors
    "$exe" encode --ids 3,5,1 --adapter "$other" >"$work/out" 2>"$work/err"
    [ $? = 1 ] && [ ! -s "$work/out" ] && grep -q "adapter.safetensors: error: .*" "$work/err" || fail "$kind: another spec's adapter: $(cat "$work/err")"
done

# ---- what it says

exe=$work/mov-e4-native
"$exe" info | grep -q 'vocabulary 256' || fail "info"
"$exe" info | grep -q 'method.*mov\|mov.*experts' || fail "info does not show the adapter: $("$exe" info | head -5)"
[ "$("$exe" encode --ids 3,5,9,1 | wc -l)" = 4 ] || fail "encode: a line for each token"
[ "$("$exe" generate --ids 4,60,70,80,1 --ids 6,90,80,70,1 --max-length 8 | wc -l)" = 2 ] || fail "generate: a line for each input"
"$exe" score --ids 4,60,70,1 --targets 70,60,1 >"$work/a"
printf '{"input_ids": [4, 60, 70, 1], "labels": [70, 60, 1]}\n' | "$exe" score --jsonl - >"$work/b"
same "score from ids and from JSONL" "$work/a" "$work/b"
awk '{ d = $1 - $2 - $3 - $4; exit !(NF == 4 && d < 1e-5 && d > -1e-5 && $1 < 0) }' "$work/a" || fail "score: the sum, then each token: $(cat "$work/a")"

# refuse CODE PATTERN ARGUMENTS...
refuse() {
    code=$1 pattern=$2
    shift 2
    "$exe" "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    [ $got = "$code" ] && [ ! -s "$work/out" ] && grep -q -e "$pattern" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] ||
        fail "$*: exit $got, $(cat "$work/out" "$work/err")"
}
line() { printf '%s\n' "$1" >"$work/bad.jsonl"; }
refuse 1 '300 is outside the vocabulary of 256' generate --ids 3,300,1
refuse 1 'outside the vocabulary' encode --ids 3,-5,1
refuse 1 'outside the vocabulary' score --ids 3,1 --targets 256,1
refuse 2 "unknown option '--beams'" generate --ids 3,1 --beams 4
refuse 2 "unknown command 'fly'" fly
refuse 1 'tokenizer' generate --text hello
line '{"input_ids": [3, 999]}'
refuse 1 'bad.jsonl:1: error: .*999' generate --jsonl "$work/bad.jsonl"
line '{"input_ids": [3, 5'
refuse 1 'bad.jsonl:1' generate --jsonl "$work/bad.jsonl"
line '{"labels": [3, 5]}'
refuse 1 'bad.jsonl:1' generate --jsonl "$work/bad.jsonl"
refuse 1 'cannot be opened' generate --jsonl "$work/none.jsonl"
refuse 1 'cannot be opened' generate --ids 3,1 --weights "$work/none.weights"
refuse 1 'weights.*error' generate --ids 3,1 --weights "$work/molora-e4-r4-native.weights"
head -c 5000 "$exe.weights" >"$work/short.weights"
refuse 1 'short.weights: error' generate --ids 3,1 --weights "$work/short.weights"
refuse 1 'error' generate --ids 3,1 --weights "$work"
mv "$exe.weights" "$work/away"
refuse 1 'mov-e4-native.weights: error: cannot be opened' generate --ids 3,1
mv "$work/away" "$exe.weights"
# Both are named: what the file is and what the program is.
refuse 1 "molora-e4-r4-native.weights: error: belongs to another compilation: it is 'molora_e4_r4_native', hash [0-9a-f]*, .*; this \
program is 'mov_e4_native', hash" generate --ids 3,1 --weights "$work/molora-e4-r4-native.weights"
refuse 1 "adapter.safetensors: error: tensor .*: the file is {.*molora.*}; this program, 'mov_e4_native', takes {.*mov.*}" \
    generate --ids 3,1 --adapter "$adapters/molora-e4-r4/adapter.safetensors"
"$exe" generate --ids 3,10,20,1 --max-length 6 >"$work/want" || fail generate
for how in --map --check "--map --check"; do
    # shellcheck disable=SC2086
    "$exe" generate --ids 3,10,20,1 --max-length 6 $how >"$work/got" || fail "generate $how"
    same "generate $how" "$work/want" "$work/got"
done
bytes=$(wc -c <"$exe.weights")
cp "$exe.weights" "$work/damaged.weights"
printf x | dd of="$work/damaged.weights" bs=1 seek=$((bytes - 100)) conv=notrunc 2>/dev/null
refuse 1 'damaged.weights: error: is damaged: its contents have hash [0-9a-f]*, its header says [0-9a-f]*$' \
    generate --ids 3,1 --weights "$work/damaged.weights" --check
refuse 1 'damaged.weights: error: is damaged' generate --ids 3,1 --weights "$work/damaged.weights" --check --map
"$exe" generate --ids 3,1 --max-length 2 --weights "$work/damaged.weights" >/dev/null || fail "contents were hashed unasked"
cp "$exe.weights" "$work/order.weights"
printf '\01\02\03\04' | dd of="$work/order.weights" bs=1 seek=12 conv=notrunc 2>/dev/null
refuse 1 'order.weights: error: is of another byte order: it is .*, big-endian; this program is .*, little-endian$' \
    generate --ids 3,1 --weights "$work/order.weights"
cp "$exe.weights" "$work/abi.weights"
printf '\143' | dd of="$work/abi.weights" bs=1 seek=8 conv=notrunc 2>/dev/null
refuse 1 'abi.weights: error: is of another version: it is .*, ABI 99, .*; this program is .*, ABI [0-9]*,' \
    generate --ids 3,1 --weights "$work/abi.weights"
"$moec" info "$exe.weights" --check >"$work/out" && grep -q "^weights     'mov_e4_native'$" "$work/out" &&
    grep -q "$("$exe" info | sed -n '1s/.*hash //p'), that of its contents" "$work/out" || fail "moec info: $(cat "$work/out")"
"$moec" info "$work/damaged.weights" --check --json >"$work/out" 2>"$work/err"
[ $? = 1 ] && [ ! -s "$work/out" ] && grep -q 'damaged.weights: error: is damaged: .* \[M0513\]$' "$work/err" || fail "moec info --check: $(cat "$work/err")"

# A file that is cut or overwritten while the program runs: it has been read, and nothing changes; mapped, it is an error.
mkfifo "$work/lines"
mkdir "$work/cut"
printf '{"input_ids": [3, 10, 20, 1], "labels": [5, 6, 1]}\n' >"$work/pair.jsonl"
"$exe" eval --data "$work/pair.jsonl" --json "$work/pair.json" >/dev/null || fail eval
# meanwhile OPTIONS...: the file is cut when the program has opened it, since its results wait under another name, and before its data.
meanwhile() {
    cp "$exe.weights" "$work/cut.weights"
    "$exe" eval --data - --weights "$work/cut.weights" --json "$work/cut/cut.json" "$@" <"$work/lines" >"$work/out" 2>"$work/err" &
    exec 5>"$work/lines"
    for i in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(ls -A "$work/cut")" ] && break
        sleep 0.2
    done
    dd if=/dev/zero of="$work/cut.weights" bs=64 seek=1 count=$((bytes / 64 - 1)) conv=notrunc 2>/dev/null
    : >"$work/cut.weights"
    cat "$work/pair.jsonl" >&5
    exec 5>&-
    wait $!
}
meanwhile && cmp "$work/pair.json" "$work/cut/cut.json" || fail "weights were cut: $(cat "$work/err")"
rm "$work/cut/cut.json"
meanwhile --map
code=$?
[ $code = 1 ] && grep -q 'cut.weights: error: a part of it cannot be read' "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] ||
    fail "mapped weights were cut: exit $code, $(cat "$work/err")"

refuse 1 'cannot be' encode --ids 3,1 --out "$work/no/such.npy"
"$exe" generate --ids 3,1 --max-length 4 >/dev/full 2>"$work/err" && fail "a full standard output goes unnoticed"

# Pipes are written to, not replaced: by the program and by moec.
mkfifo "$work/pipe"
"$exe" encode --ids 3,10,20,1 --out "$work/whole.npy" || fail "encode --out"
cat "$work/pipe" >"$work/through.npy" &
"$exe" encode --ids 3,10,20,1 --out "$work/pipe" || fail "encode --out into a pipe"
wait
[ -p "$work/pipe" ] && cmp "$work/whole.npy" "$work/through.npy" || fail "encode --out: the pipe"
"$moec" dump "$tiny" --stop-after=bind -o "$work/whole.ir" || fail "dump -o"
cat "$work/pipe" >"$work/through.ir" &
"$moec" dump "$tiny" --stop-after=bind -o "$work/pipe" || fail "dump -o into a pipe"
wait
[ -p "$work/pipe" ] && cmp "$work/whole.ir" "$work/through.ir" || fail "dump -o: the pipe"

[ $status = 0 ] && echo "behaviour: batches, threads, adapters and refusals as expected"
exit $status
