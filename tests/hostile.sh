#!/bin/sh
# Hostile files: exit code 1, one located line of printable text, nothing left behind, no time and memory wasted.
# First what the repository has (fixtures/hostile and cases made here); then, where they are (MOEC_SHARED, or
# ../shared/data), the complete set's core cases by its own runner, which needs python3. Without that set the test
# reports itself as skipped (77) once its own cases passed; HOSTILE=all runs every case of the set.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
shared=${MOEC_SHARED:-$root/../shared/data}/hostile
fixtures=$root/tests/fixtures
[ -x "$moec" ] || { echo "hostile: no moec at $moec"; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/out" "$work/tmp" "$work/cwd" "$work/in"
failed=0 cases=0
# Refusing costs less than 1 GiB; a moec with sanitizers reserves terabytes of addresses, and goes without the limit.
if sh -c '(ulimit -v 1500000; "$0" --version); exit $?' "$moec" >/dev/null 2>&1; then memory=1500000; else memory=unlimited; fi

bad() {
    echo "hostile: $label: $*"
    sed 's/^/    /' "$work/err" | head -5
    failed=$((failed + 1))
}

left_over() { find "$work/out" "$work/tmp" "$work/cwd" -mindepth 1 | head -3; }

# moec_in COMMAND...: in an empty directory, with an empty TMPDIR.
moec_in() {
    (cd "$work/cwd" && ulimit -v $memory && TMPDIR=$work/tmp LC_ALL=C timeout 20 "$moec" "$@") \
        >"$work/stdout" 2>"$work/err"
}

# refuse LABEL FILE WORD MODEL OPTIONS...: the diagnostic must have FILE and WORD.
refuse() {
    label=$1 file=$2 word=$3
    shift 3
    cases=$((cases + 1))
    moec_in compile "$@" --matmul=native -O0 -o "$work/out/m"
    code=$?
    [ $code = 1 ] || { bad "exit code $code"; rm -rf "$work"/out/* "$work"/cwd/* "$work"/tmp/*; return; }
    [ ! -s "$work/stdout" ] || bad "writes to standard output"
    lines=$(wc -l <"$work/err")
    [ "$lines" -ge 1 ] && [ "$lines" -le 8 ] || bad "$lines lines"
    [ "$(awk 'length > n { n = length } END { print n + 0 }' "$work/err")" -le 1000 ] || bad "a line is too long"
    ! LC_ALL=C grep -q '[^ -~]' "$work/err" || bad "unprintable bytes"
    ! grep -qv ' \[M[0-9][0-9][0-9][0-9]\]$' "$work/err" || bad "a line without a code"
    grep -qF -e "$file" "$work/err" || bad "does not name the file $file"
    grep -qF -e "$word" "$work/err" || bad "does not name $word"
    [ -z "$(left_over)" ] || bad "leaves $(left_over)"
}

accept() {
    label=$1
    shift
    cases=$((cases + 1))
    moec_in compile "$@" --matmul=native -O0 -o "$work/out/m" || bad "refused"
    [ -z "$(find "$work/tmp" "$work/cwd" -mindepth 1)" ] || bad "leaves scratch files"
}

# fresh: a new copy of the example in $dir.
fresh() {
    dir=$work/in/t5
    rm -rf "$dir"
    mkdir "$dir"
    cp "$root"/examples/t5-tiny/* "$dir"
}

# ---- single files ----

accept control "$fixtures/hostile/control.onnx"
rm -f "$work"/out/*
while read -r name kind word; do
    refuse "$name" "$name.onnx" "$word" "$fixtures/hostile/$name.onnx"
    grep -q "\[$kind\]\$" "$work/err" || bad "is not $kind"
done <"$fixtures/hostile/cases.txt"
label="an output that is declared otherwise, by moec run"
cases=$((cases + 1))
moec_in run "$fixtures/hostile/output-lies.onnx"
[ $? = 1 ] && grep -q "output-lies.onnx: error: output 'y': .*\[M0212\]\$" "$work/err" && [ ! -s "$work/stdout" ] || bad "is taken"

whole=$root/examples/t5-tiny/encoder_model.onnx
bytes=$(wc -c <"$whole")
for n in 0 1 7 $((bytes / 4)) $((bytes / 2)) $((bytes - 1)); do
    head -c "$n" "$whole" >"$work/in/cut.onnx"
    refuse "cut to $n bytes" cut.onnx error: "$work/in/cut.onnx"
done
mkfifo "$work/in/fifo.onnx"
refuse "a FIFO" fifo.onnx regular "$work/in/fifo.onnx"
refuse "a device" /dev/zero regular /dev/zero
refuse "nothing there" none.onnx opened "$work/in/none.onnx"

# ---- directories ----

fresh
accept "the example" "$dir"
rm -f "$work"/out/*
rm "$dir/decoder_model.onnx"
refuse "no decoder" t5 decoder_model.onnx "$dir"
cp "$dir/encoder_model.onnx" "$dir/decoder_model.onnx"
refuse "the encoder twice" t5 decoder "$dir"
for edit in 's/"vocab_size": [0-9]*/"vocab_size": 0/ vocab_size' 's/"d_model": [0-9]*/"d_model": 1e9/ d_model' \
    's/"num_heads"/"d_kv"/ d_kv' 's/"eos_token_id": 1/"eos_token_id": 4294967297/ eos_token_id'; do
    fresh
    sed "${edit% *}" "$root/examples/t5-tiny/config.json" >"$dir/config.json"
    rm -f "$dir/generation_config.json"
    refuse "config: $edit" config.json "${edit##* }" "$dir"
done
printf '{"model_type": "t5"\0}' >"$dir/config.json"
refuse "a NUL in the config" config.json NUL "$dir"
rm "$dir/config.json"
mkfifo "$dir/config.json"
refuse "a FIFO as config" config.json regular "$dir"
fresh
refuse "a token outside the vocabulary" t5 vocab "$dir" --start 1000000

# ---- vocabularies ----

model=$fixtures/tokenizer/spiece.model
fresh
head -c 700 "$model" >"$dir/spiece.model"
refuse "a vocabulary cut short" spiece.model malformed "$dir"
rm "$dir/spiece.model"
mkfifo "$dir/spiece.model"
refuse "a FIFO as vocabulary" spiece.model regular "$dir"
rm "$dir/spiece.model"
truncate -s 6G "$dir/spiece.model"
refuse "6 GB of vocabulary" spiece.model limit "$dir"
rm "$dir/spiece.model"
ln -s /etc/passwd "$dir/spiece.model"
refuse "a vocabulary that is something else" spiece.model error: "$dir"
rm "$dir/spiece.model"

# ---- adapters ----

spec() {
    printf "$2" >"$work/in/spec.json"
    refuse "$1" spec.json "$3" "$dir" --adapter "$work/in/spec.json"
}
spec "not JSON" '{ "moec_adapter": 1, ' error:
spec "a key twice" '{ "moec_adapter": 1, "method": "mov", "experts": 2, "experts": 3 }' experts
spec "an unknown key" '{ "moec_adapter": 1, "method": "mov", "expert": 2 }' "'experts'"
spec "a number that wraps" '{ "moec_adapter": 1, "method": "mov", "experts": 4294967298 }' experts
spec "a NUL" '{ "moec_adapter": 1, "method": "mov", "experts": 2\0 }' NUL
spec "weights elsewhere" '{ "moec_adapter": 1, "method": "mov", "experts": 2, "weights": "../../etc/passwd" }' weights
good=$work/in/good.json
echo '{ "moec_adapter": 1, "method": "mov", "experts": 2 }' >"$good"
tensors() {
    printf "$2" >"$work/in/w.safetensors"
    refuse "$1" w.safetensors "$3" "$dir" --adapter "$good" --adapter-weights "$work/in/w.safetensors"
}
tensors "a header of 2^63 bytes" '\0\0\0\0\0\0\0\200{}' header
tensors "a header past the end" '\100\0\0\0\0\0\0\0{}' header
tensors "no header" '\2\0\0\0\0\0\0\0[]' error:
tensors "bytes nobody owns" '\2\0\0\0\0\0\0\0{}abcd' error:

echo "hostile: $cases cases of its own, $failed failures"
[ $failed = 0 ] || exit 1

# ---- the complete set ----

[ -f "$shared/run_hostile.py" ] && command -v python3 >/dev/null || { echo "hostile: no complete set: set MOEC_SHARED"; exit 77; }
compile='"--matmul=native", "-O0", "-o"'
cat >"$work/config.json" <<END
{ "before": [["moec", "compile", "{base}/t5", "--adapter", "{base}/adapter.json", $compile, "{cache}/t5"],
             ["moec", "compile", "{base}/t5", "--adapter", "{base}/adapter_short.json", "--train", $compile, "{cache}/train"]],
  "dataset": ["{cache}/train", "train", "--data", "{data}", "--steps", "1", "--out", "{out}/run"],
  "dataset@eval": ["{cache}/t5", "eval", "--data", "{data}", "--json", "{out}/r.json"],
  "choices": ["{cache}/t5", "eval", "--data", "{data}", "--json", "{out}/r.json"],
  "choices@train": ["{cache}/train", "train", "--data", "{base}/train.jsonl", "--eval", "{data}", "--steps", "1", "--out", "{out}/run"],
  "onnx": ["moec", "compile", "{model}", $compile, "{out}/m"],
  "onnx@c": ["moec", "compile", "{model}", "--emit=c", "-o", "{out}/c"],
  $(if "$moec" --version | grep -q LLVM; then echo '
  "onnx@ll": ["moec", "compile", "{model}", "--emit=llvm", "-o", "{out}/m.ll"],
  "onnx@llvm": ["moec", "compile", "{model}", "--backend=llvm", "-O0", "-o", "{out}/m"],
  "adapter@ll": ["moec", "compile", "{t5}", "--adapter", "{adapter}", "--emit=llvm", "-o", "{out}/m.ll"],'; fi)
  "onnx@dump": ["moec", "dump", "{model}", "-o", "{out}/m.ir"],
  "dir": ["moec", "compile", "{dir}", $compile, "{out}/m"],
  "dir@c": ["moec", "compile", "{dir}", "--emit=c", "-o", "{out}/c"],
  "dir@train": ["moec", "dump", "{dir}", "--adapter", "{base}/adapter_short.json", "--train", "-o", "{out}/m.ir"],
  "info": ["moec", "info", "{dir}", "--adapter", "{base}/adapter_short.json"],
  "adapter": ["moec", "compile", "{t5}", "--adapter", "{adapter}", $compile, "{out}/m"],
  "adapter@c": ["moec", "compile", "{t5}", "--adapter", "{adapter}", "--emit=c", "-o", "{out}/c"],
  "peft": ["moec", "compile", "{t5}", "--adapter", "{adapter}", $compile, "{out}/m"],
  "peft@import": ["moec", "adapter", "import", "{adapter}", "--model", "{t5}", "-o", "{out}/m.safetensors"],
  "safetensors": ["moec", "compile", "{t5}", "--adapter", "{adapter}", $compile, "{out}/m"],
  "safetensors@run": ["{cache}/t5", "generate", "--adapter", "{weights}", "--ids", "5 9 12 1"],
  "tokenizer": [["moec", "compile", "{dir}", $compile, "{out}/m"], ["{out}/m", "generate", "--text", "a b zq abc"]],
  "tokenizer@c": ["moec", "compile", "{dir}", "--emit=c", "--tokenizer", "-o", "{out}/c"],
  "tokenizer@file": ["{cache}/t5", "generate", "--tokenizer", "{dir}/spiece.model", "--text", "a b zq abc"],
  "check_answer": ["python3", "$work/answer.py", "{out}", "{base}"] }
END
# What was compiled, where it is a program, gives the answers of the base: inputs and outputs by place, whatever they are called.
cat >"$work/answer.py" <<'END'
import os, re, struct, subprocess, sys

def varint(b, i):
    v = s = 0
    while True:
        v |= (b[i] & 127) << s; s += 7; i += 1
        if b[i - 1] < 128: return v, i

def tensor(path):  # a TensorProto's extents and raw data
    b = open(path, "rb").read(); i = 0; dims = []; raw = b""
    while i < len(b):
        key, i = varint(b, i)
        v, i = varint(b, i)
        if key & 7 == 2: part = b[i:i + v]; i += v
        if key == 1 << 3: dims.append(v)
        if key == 1 << 3 | 2:
            j = 0
            while j < len(part): x, j = varint(part, j); dims.append(x)
        if key == 9 << 3 | 2: raw = part
    return dims, raw

def npy(path, t):
    head = "{'descr': '<i8', 'fortran_order': False, 'shape': (%s), }" % "".join("%d, " % d for d in t[0])
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + t[1])

out, base = sys.argv[1:]
program = out + "/m"
if not os.access(program, os.X_OK): sys.exit(0)  # sources
info = subprocess.run([program, "info"], stdout=subprocess.PIPE).stdout
names = re.findall(rb"^    in  (.*?) : ", info, re.M)
names = [re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), n) for n in names]
args = []
for name, file in zip(names, ("input_ids", "attention_mask")):
    npy(out + "/" + file, tensor("%s/%s.pb" % (base, file)))
    args += [b"--in", name + b"=" + ("%s/%s" % (out, file)).encode()]
run = subprocess.run([program, "run", "main", *args, "--out", out + "/answer"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
if run.returncode: sys.exit(run.stdout)
want = tensor(base + "/logits.pb")[1]
want = struct.unpack("<%df" % (len(want) // 4), want)
for name in os.listdir(out + "/answer"):
    b = open("%s/answer/%s" % (out, name), "rb").read()
    b = b[10 + struct.unpack("<H", b[8:10])[0]:]
    got = struct.unpack("<%df" % (len(b) // 4), b)
    most = max(map(abs, want))
    if len(got) != len(want) or not all(abs(x - y) < 1e-4 * most for x, y in zip(got, want)): sys.exit("other answers than the base's")
END
[ $memory = unlimited ] && slow='--slow 10' || slow=
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:allocator_may_return_null=1}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1}"
ln -s "$moec" "$work/in/moec"
run_set() { PATH=$work/in:$PATH python3 "$shared/run_hostile.py" "$shared/open" --config "$work/config.json" $slow "$@"; }
[ "$HOSTILE" = all ] || { run_set --core; exit $?; }
# One kind after the other, for its totals. HOSTILE_KINDS names some alone.
for kind in ${HOSTILE_KINDS:-onnx dir info adapter safetensors peft tokenizer dataset choices}; do
    printf '%-12s' "$kind"
    run_set --kind "$kind" || failed=1
done
exit $failed
