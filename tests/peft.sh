#!/bin/sh
# moec adapter: PEFT directories in and out as a person types it, and as --adapter of the other commands. What the import
# makes of every tensor is test_peft.c's.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
peft=$root/tests/fixtures/peft tiny=$root/examples/t5-tiny adapters=$root/tests/fixtures/adapters
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
status=0
fail() { echo "peft: $*" >&2; status=1; }

# check LABEL GOLDEN OPTIONS...: the adapted model gives the library's numbers.
check() {
    label=$1 golden=$2
    shift 2
    if "$moec" verify "$tiny" --golden "$golden" -O1 --matmul=native "$@" >"$work/text" 2>&1 && grep -q '^3 compared, 0 failed' "$work/text"; then
        echo "$label: $(tail -1 "$work/text")"
    else
        fail "$label: $(cat "$work/text")"
    fi
}

# refuse CODE WORD ARGUMENTS...: nothing on standard output, one line with WORD, nothing made.
refuse() {
    code=$1 word=$2
    shift 2
    "$moec" adapter "$@" >"$work/text" 2>"$work/err"
    [ $? = "$code" ] || fail "$*: not exit code $code"
    [ ! -s "$work/text" ] || fail "$*: writes to standard output"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$*: $(cat "$work/err")"
    grep -qF -e "$word" "$work/err" || fail "$*: '$word' expected, there is $(cat "$work/err")"
    [ -z "$(ls "$work/out")" ] || fail "$*: leaves $(ls "$work/out")"
}

# ---- in: directly, and by import

check "LoRA directory" "$peft/lora-qv" --adapter "$peft/lora-qv/peft"
check "IA3 directory" "$peft/ia3" --adapter "$peft/ia3/peft/"
"$moec" adapter import "$peft/lora-qv/peft" -o "$work/qv.safetensors" >"$work/table" || fail "import of LoRA"
check "LoRA imported" "$peft/lora-qv" --adapter "$work/qv.safetensors"
[ "$(grep -c '^base_model' "$work/table")" = 24 ] || fail "the table has not every tensor: $(cat "$work/table")"
"$moec" adapter import "$peft/ia3/peft" --model "$tiny" -o "$work/ia3.safetensors" >"$work/table" || fail "import of IA3"
check "IA3 imported" "$peft/ia3" --adapter "$work/ia3.safetensors"
"$moec" info "$tiny" --adapter "$peft/ia3/peft" | grep -q '^sites *16 of 40$' || fail "info of an IA3 directory"
"$moec" dump "$tiny" --adapter "$peft/ia3/peft" --stop-after=attach | grep -q '^param @encoder.0.self.k.scale .*adapter' ||
    fail "dump with an IA3 directory"

# ---- a mixture, out and in again

set -- "$peft"/lora-mix3/peft_*
"$moec" adapter import "$@" --seed 7 -o "$work/mix.safetensors" >"$work/table" || fail "import of three experts"
grep -q 'molora of 3 experts; their routers are fresh .*seed 7' "$work/table" || fail "not said: the routers are fresh"
[ "$(grep -c '^-  *[a-z0-9.]*\.router ' "$work/table")" = 12 ] || fail "the table has not every router"
"$moec" adapter export "$work/mix.safetensors" --model "$tiny" -o "$work/experts" >"$work/table" 2>"$work/err" || fail "export: $(cat "$work/err")"
grep -q 'warning: 12 router tensors are left out' "$work/err" || fail "dropped in silence: $(cat "$work/err")"
[ "$(grep -c 'dropped: router' "$work/table")" = 12 ] || fail "the table has not every router"
[ "$(ls "$work/experts")" = "$(printf 'expert_0\nexpert_1\nexpert_2')" ] || fail "directories: $(ls "$work/experts")"
"$moec" adapter import "$work"/experts/expert_* --seed 7 -o "$work/again.safetensors" >/dev/null || fail "import of what was exported"
cmp "$work/mix.safetensors" "$work/again.safetensors" || fail "out and in again is another file"
for e in 0 1 2; do # the library's own bytes of the tensors, in another order of the file: compared by importing both
    "$moec" adapter import "$work/experts/expert_$e" -o "$work/a.safetensors" >/dev/null &&
        "$moec" adapter import "$peft/lora-mix3/peft_$e" -o "$work/b.safetensors" >/dev/null &&
        cmp "$work/a.safetensors" "$work/b.safetensors" || fail "expert $e"
done
"$moec" adapter export "$adapters/mov-e4/adapter.safetensors" -o "$work/mov" >/dev/null 2>&1 || fail "export of MoV"
"$moec" adapter import "$work"/mov/expert_* --model "$tiny" -o "$work/mov.safetensors" >/dev/null || fail "import of MoV"
"$moec" compile "$tiny" --adapter "$work/mov/expert_2" --matmul=native -O0 -o "$work/m" || fail "compile with an expert"
"$work/m" generate --ids 4,60,70,80,1 --adapter "$work/mov.safetensors" 2>"$work/err" && fail "a mixture in the place of one expert"

# ---- what is refused, before anything is made

out=$work/out/x
refuse 1 "--model" import "$peft/ia3/peft" -o "$out"
refuse 1 "$work/out/none/adapter_config.json" import "$work/out/none" -o "$out"
refuse 1 "peft_type" import "$peft/lora-mix3/peft_0" "$peft/ia3/peft" -o "$out"
refuse 1 "q.lora_A.weight" import "$peft/lora-mix3/peft_0" "$peft/lora-qv/peft" -o "$out"
refuse 1 "config.json" import "$peft/ia3/peft" --model "$work" -o "$out"
refuse 1 "$work/out/no/x" import "$peft/lora-qv/peft" -o "$work/out/no/x"
refuse 1 "files in it" export "$work/qv.safetensors" -o "$work/experts"
refuse 1 "no tensors" export "$adapters/mov-e4/spec.json" -o "$out"
refuse 1 "--model" export "$adapters/lora-r4/adapter.safetensors" -o "$out"
mkdir "$work/pickle"
cp "$peft/lora-qv/peft/adapter_config.json" "$work/pickle"
: >"$work/pickle/adapter_model.bin"
refuse 1 "pickle" import "$work/pickle" -o "$out"
rm "$work/pickle/adapter_config.json"
mkfifo "$work/pickle/adapter_config.json"
refuse 1 "regular file" import "$work/pickle" -o "$out"
# a full disk: every write past 4 KB fails
for verb in "import $peft/lora-qv/peft" "export $work/qv.safetensors" "export $work/mix.safetensors"; do
    (trap '' XFSZ; ulimit -f 8; "$moec" adapter $verb -o "$out") >/dev/null 2>"$work/err" && fail "$verb: succeeds without room"
    grep -q 'x.*: error: cannot .*too large' "$work/err" || fail "$verb: without room: $(cat "$work/err")"
    [ -z "$(ls -A "$work/out")" ] || fail "$verb: leaves $(ls -A "$work/out") without room"
done
refuse 2 "no verb given"
refuse 2 "no verb 'inport'" inport "$peft/ia3/peft"
refuse 2 "no PEFT_DIR" import
refuse 2 "one ADAPTER at a time" export "$work/qv.safetensors" "$work/mix.safetensors" -o "$out"
refuse 2 "no -o" export "$work/qv.safetensors"
refuse 2 "--adapter" import "$peft/ia3/peft" --adapter x
"$moec" compile "$tiny" --model x 2>&1 | grep -q "unknown option '--model'" || fail "an option of another command is taken"
for help in "adapter --help" "adapter import --help" "adapter export --help"; do
    "$moec" $help | grep -q -e '--model=DIR' || fail "$help"
done
exit $status
