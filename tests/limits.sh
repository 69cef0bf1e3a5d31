#!/bin/sh
# Limits (compiler/limits.def): what is just below one is taken, or refused for another reason; just above it is refused with the
# number and the place. Every row of the table has its case: `row NAME` says which one the next cases are about. The table in
# compiler/README.md is what `moec explain limits` prints. And --max-compile-memory.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
much=$(cd "${BUILD_DIR:-build}" && pwd)/tools/too_much
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
cases=0 failed=0 row=
: >covered
fail() { echo "limits: $*: $(head -c 300 err)" >&2; failed=$((failed + 1)); }

row() { row=$1; }
# unit NAME TEST: the cases of a row are in a unit test, which says its name.
unit() { ! grep -q "[^A-Z_]$1[^A-Z_]" "$root/tests/unit/$2.c" || echo "$1" >>covered; }

# ok LABEL COMMAND...; refused LABEL CODE WORDS COMMAND...: one line with the code and the words.
ok() {
    label=$1
    shift
    cases=$((cases + 1))
    "$@" >out 2>err || fail "$label is refused"
}
refused() {
    label=$1 code=$2 words=$3
    shift 3
    cases=$((cases + 1))
    "$@" >out 2>err
    [ $? = 1 ] && [ "$(wc -l <err)" = 1 ] || fail "$label: not one line and exit code 1"
    grep -q "$code" err || fail "$label is not $code"
    grep -qF -e "$words" err || fail "$label: '$words' is missing"
    [ ! -e x.ir ] || fail "$label leaves a file"
    rm -f x.ir
    echo "$row" >>covered
}

# ---- the table ---------------------------------------------------------------------------------------------------------

"$moec" explain limits >table || fail "explain limits"
sed -n '/^## Limits/,/^## Ops/{/^|/p}' "$root/compiler/README.md" | cmp -s - table || fail "compiler/README.md has another table than moec explain limits"
limit() { awk -F ' [|] ' -v of="$1" -v what="$2" '$1 == "| " of && index($3, what) == 1 { gsub(",", "", $2); print $2 }' table; }

# ---- ONNX -----------------------------------------------------------------------------------------------------------------

# onnx WHAT N LABEL CODE WORDS: N is taken, N + 1 is not.
onnx() {
    "$much" "$1" "$2" m.onnx && ok "$3" "$moec" dump m.onnx -o y.ir
    "$much" "$1" $(($2 + 1)) m.onnx && refused "$3 and one" "$4" "$5" "$moec" dump m.onnx -o x.ir
}
row MOEC_MAX_RANK
onnx rank "$(limit tensor axes)" "16 axes" M0003 "m.onnx: error: input 'x': rank 17 is above the limit of 16"
row NODE_INPUTS
onnx inputs "$(limit 'ONNX file' 'inputs of')" "65,536 inputs" M0003 "node 'it': Max: has 65537 inputs; the limit is 65536"
row NAME
onnx name "$(limit 'ONNX file' 'bytes of a name')" "a name of 65,535 bytes" M0003 "a name of 65536 bytes; the limit is 65535"
row ONNX_ITEMS
onnx items "$(limit 'ONNX file' graphs,)" "a million items" M0003 "more than 1000000 graphs, nodes, tensors, value infos and functions"
row ONNX_SUBGRAPH
onnx branches "$(limit 'ONNX file' '`If`')" "16 branches" M0003 "sub-graphs are nested more than 16 deep"
row NODE_ATTRS
"$much" attributes 64 m.onnx && refused "64 attributes" M0206 "'extra1'" "$moec" dump m.onnx -o x.ir
"$much" attributes 65 m.onnx && refused "65 attributes" M0003 "node 'it': Softmax: has 65 attributes; the limit is 64" "$moec" dump m.onnx -o x.ir
row ONNX_GRAPHS
"$much" graphs 10000 m.onnx && refused "10,000 graphs" M0204 "operator" "$moec" dump m.onnx -o x.ir
"$much" graphs 10001 m.onnx && refused "10,001 graphs" M0003 "more than 10000 graphs and functions" "$moec" dump m.onnx -o x.ir
row LIMIT_VALUE_BYTES
"$much" extent 68719476736 m.onnx && ok "a value of 256 GiB" "$moec" dump m.onnx -o y.ir
"$much" extent 68719476737 m.onnx && refused "a value of more" M0704 "more than 256 GiB" "$moec" dump m.onnx -o x.ir
row MOEC_MAX_TENSOR
"$much" extent 140737488355328 m.onnx && refused "2^47 elements" M0212 "input 'x': extent 140737488355328" "$moec" dump m.onnx -o x.ir
row ONNX_FILE
truncate -s 2147483648 big.onnx && refused "2 GiB of ONNX" M0103 "2^31 - 1" "$moec" dump big.onnx -o x.ir
row ONNX_NESTING
"$much" nesting 64 m.onnx && "$moec" dump m.onnx -o x.ir 2>err
grep -q "sub-graphs are nested" err || fail "64 messages inside each other"
"$much" nesting 65 m.onnx && refused "65 messages inside each other" M0003 "messages are nested more than 64 deep" "$moec" dump m.onnx -o x.ir
row EQUAL_SYMBOLS
onnx symbols "$(limit module symbolic)" "512 equal symbols" M0003 "more than 512 symbolic extents must be equal"
row NODES_AGAIN
"$much" again 4000 m.onnx && refused "2,000,000 nodes bound again" M0003 "more than 2000000 nodes are bound since symbolic extents must be equal" "$moec" dump m.onnx -o x.ir
row FOLD_ONE
for case in 8388608-1 8388609-0; do
    "$much" constant ${case%-*} m.onnx && ok "a constant of ${case%-*}" "$moec" dump m.onnx --stop-after=fold -o y.ir
    [ "$(grep -c '^param.* init ' y.ir)" = ${case#*-} ] && echo "$row" >>covered || fail "a constant of ${case%-*}"
done
row FOLD_ALL
"$much" constants 80 m.onnx && ok "1.25 GiB of constants" "$moec" dump m.onnx --stop-after=fold -o y.ir
[ "$(grep -c '^param.* init ' y.ir)" = 64 ] && echo "$row" >>covered || fail "not 1 GiB of constants are folded"

# ---- text IR ----------------------------------------------------------------------------------------------------------------

list() { awk -v n="$1" -v what="$2" 'BEGIN { for (i = 0; i < n; i++) printf "%s%s", i ? ", " : "", what }'; }
text() { printf '%s\n' "$@" >m.ir; }
row MOEC_MAX_RANK
text "param @w : f32[$(list 16 1)] const = splat 0"
ok "16 axes of text" "$moec" opt m.ir -o y.ir --passes=fold
text "param @w : f32[$(list 17 1)] const = splat 0"
refused "17 axes of text" M0003 "m.ir:1:" "$moec" opt m.ir -o x.ir
operands() { text 'func @main entry (%x : f32[2]) {' "  %y = concat $(list "$1" %x) {axis = 0} : f32[$((2 * $1))]" '  return %y "y"' '}'; }
row IR_OPERANDS
operands 65536
ok "65,536 operands" "$moec" opt m.ir -o y.ir --passes=fold
operands 65537
refused "65,537 operands" M0003 "m.ir:2:" "$moec" opt m.ir -o x.ir
row IR_SPLAT
text 'param @w : i8[1073741825] const = splat 0'
refused "1 GiB made by splat" M0003 "splat" "$moec" opt m.ir -o x.ir
row IR_TEXT
truncate -s 1073741825 big.ir && refused "1 GiB of text" M0103 "1073741824" "$moec" opt big.ir -o x.ir
calls() {
    awk -v n="$1" 'BEGIN {
        printf "func @f0 body (%%x : f32[2]) {\n  %%y = exp %%x : f32[2]\n  return %%y \"y\"\n}\n"
        for (i = 1; i <= n; i++) {
            printf "func @%s %s (%%x : f32[2]) {\n", i == n ? "main" : "f" i, i == n ? "entry" : "body"
            printf "  %%y = call %%x {func = @f%d} : f32[2]\n  return %%y \"y\"\n}\n", i - 1
        }
    }' >m.ir
}
row CALL_DEPTH
calls 100
ok "100 calls inside each other" "$moec" opt m.ir -o y.ir --passes=cse
calls 101
refused "101 calls inside each other" M0606 "deeper than 100" "$moec" opt m.ir -o x.ir --passes=cse

row INTERP_DEPTH
interpret() { "$moec" run m.ir --backend=interp --passes=cse; }
calls 47
ok "48 functions inside each other" interpret
calls 48
refused "49 functions inside each other" M0003 "48" interpret

# A tree of functions that call each other twice: 2^n leaves, some calls of nothing else.
tree() {
    awk -v n="$1" -v more="$2" 'BEGIN {
        printf "func @f0 body (%%x : f32[2]) {\n  %%y = exp %%x : f32[2]\n  return %%y \"y\"\n}\n"
        for (i = 1; i <= n; i++) {
            printf "func @%s %s (%%x : f32[2]) {\n", i == n ? "main" : "f" i, i == n ? "entry" : "body"
            printf "  %%z = call %%x {func = @f%d} : f32[2]\n  %%y = call %%z {func = @f%d} : f32[2]\n", i - 1, i - 1
            printf "  return %%y \"y\"\n}\n"
        }
    }' >m.ir
}
row NODES
tree 15
ok "98,303 nodes inlined" "$moec" opt m.ir -o y.ir --passes=bind
tree 19
refused "1,572,863 nodes inlined" M0003 "m.ir: error: function 'main': the model has more than 1000000 nodes after inlining" "$moec" opt m.ir -o x.ir --passes=bind
tree 99
refused "2^99 nodes inlined" M0003 "more than 1000000 nodes after inlining" "$moec" opt m.ir -o x.ir --passes=bind

# ---- JSON -------------------------------------------------------------------------------------------------------------------

t5=$root/examples/t5-tiny
deep() { awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "["; for (i = 0; i < n; i++) printf "]" }'; }
row JSON_DEPTH
echo "{ \"moec_adapter\": 1, \"method\": \"mov\", \"experts\": $(deep 63) }" >s.json
refused "64 levels" M0304 "must be an integer" "$moec" info "$t5" --adapter s.json
echo "{ \"moec_adapter\": 1, \"method\": \"mov\", \"experts\": $(deep 64) }" >s.json
refused "65 levels" M0301 "s.json:1: error: JSON nested too deep: more than 64 levels" "$moec" info "$t5" --adapter s.json
row JSON_FOREIGN_DEPTH
cp -r "$t5" t5
sed "s/{/{ \"deep\": $(deep 2046),/" "$t5/config.json" >t5/config.json
ok "2,047 levels" "$moec" info t5
sed "s/{/{ \"deep\": $(deep 2048),/" "$t5/config.json" >t5/config.json
refused "2,049 levels" M0301 "more than 2048 levels" "$moec" info t5
row JSON_FILE
truncate -s 16777217 big.json && refused "16 MiB of JSON" M0103 "16777216" "$moec" info "$t5" --adapter big.json
sites() { echo "{ \"moec_adapter\": 1, \"method\": \"mov\", \"experts\": 2, \"sites\": [$(list "$1" '{ "match": "*.self.k" }')] }" >s.json; }
row SPEC_SITES
sites 4096
ok "4,096 sites" "$moec" info "$t5" --adapter s.json
sites 4097
refused "4,097 sites" M0402 "has 4097 entries; the limit is 4096" "$moec" info "$t5" --adapter s.json
pattern() { echo "{ \"moec_adapter\": 1, \"method\": \"mov\", \"experts\": 2, \"sites\": [{ \"match\": \"$(awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "*" }')\" }] }" >s.json; }
row PATTERN
for n in 4096 4097; do
    pattern $n
    "$moec" info "$t5" --adapter s.json >out 2>err
    [ $n = 4097 ] || ! grep -q 4096 err || fail "a pattern of 4,096 bytes"
done
refused "a pattern of 4,097 bytes" M0402 "4096 bytes" "$moec" info "$t5" --adapter s.json
for key in experts:1024:EXPERTS rank:65536:LORA_RANK; do
    row "${key##*:}"
    most=${key#*:} key=${key%%:*}
    most=${most%:*}
    echo "{ \"moec_adapter\": 1, \"method\": \"molora\", \"experts\": 2, \"rank\": 2, \"$key\": $((most + 1)) }" | sed "s/\"$key\": 2, //" >s.json
    refused "$key" M0304 "from 1 to $most" "$moec" info "$t5" --adapter s.json
done
for key in num_layers:1024:CONFIG_LAYERS d_model:1048576:CONFIG_WIDTH vocab_size:67108864:CONFIG_VOCAB; do
    row "${key##*:}"
    most=${key#*:} key=${key%%:*}
    most=${most%:*}
    sed "s/\"$key\": [0-9]*/\"$key\": $((most + 1))/" "$t5/config.json" >t5/config.json
    refused "$key" M0304 "from 1 to $most" "$moec" info t5
done

# ---- safetensors, npy -------------------------------------------------------------------------------------------------------

echo '{ "moec_adapter": 1, "method": "mov", "experts": 2 }' >s.json
row SAFETENSORS_HEADER
printf '\001\341\365\005\0\0\0\0{' >w.safetensors && truncate -s 100000100 w.safetensors
refused "a header of 100,000,001 bytes" M0501 "header length 100000001" "$moec" info "$t5" --adapter s.json --adapter-weights w.safetensors
row SAFETENSORS_TENSORS
awk 'BEGIN { for (i = 0; i <= 200000; i++) printf "%s\"%d\":{}", i ? "," : "{", i; printf "}" }' >header
{ n=$(wc -c <header); printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $((n % 256)) $((n / 256 % 256)) $((n / 65536 % 256)) $((n / 16777216)))\\0\\0\\0\\0"; cat header; } >w.safetensors
refused "200,001 tensors" M0003 "w.safetensors: error: more than 200000 tensors" "$moec" info "$t5" --adapter s.json --adapter-weights w.safetensors

row NPY_HEADER
text 'func @main entry (%x : f32[2]) {' '  %y = exp %x : f32[2]' '  return %y "y"' '}'
npy() { # a header of so many bytes, of version 2
    printf "\\223NUMPY\\002\\000$(printf '\\%03o\\%03o\\%03o' $(($1 % 256)) $(($1 / 256 % 256)) $(($1 / 65536)))\\000" >x.npy
    printf "%-$(($1 - 1))s\n" "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" >>x.npy
    printf '\0\0\0\0\0\0\0\0' >>x.npy
}
npy 65536
ok "a header of 65,536 bytes" "$moec" run m.ir --input x=x.npy
npy 65537
refused "a header of 65,537 bytes" M0504 "x.npy: error: the header is too long" "$moec" run m.ir --input x=x.npy

# ---- PEFT ---------------------------------------------------------------------------------------------------------------------

cp -r "$root/tests/fixtures/peft/lora-qv/peft" peft
chmod -R u+w peft
# peft N MORE EXPRESSION: N patterns like it, with their numbers, and MORE bytes in the first.
peft() {
    awk -v n="$1" -v more="$2" -v e="$3" 'BEGIN {
        printf "  \"rank_pattern\": {"
        for (i = 0; i < n; i++) printf "%s\"%s%04d\": 4", i ? ", " : "", i ? e : substr(e "'"$(list 2000 x | tr -d ', ')"'", 1, length(e) + more), i
        print "},"
    }' >patterns
    sed -e '/"rank_pattern"/{r patterns
d' -e '}' "$root/tests/fixtures/peft/lora-qv/peft/adapter_config.json" >peft/adapter_config.json
}
import() { "$moec" adapter import peft --model "$t5" -o x.ir; }
taken() { label=$1; ok "$label" import && rm -f x.ir; }
row PEFT_PATTERNS
peft 4096 0 x
taken "4,096 patterns"
peft 4097 0 x
refused "4,097 patterns" M0507 "has 4097 patterns of 20485 bytes; the limits are 4096 and 262144" import
row PEFT_PATTERN_BYTES
peft 512 0 "$(list 508 x | tr -d ', ')"
taken "262,144 bytes of patterns"
peft 512 1 "$(list 508 x | tr -d ', ')"
refused "262,145 bytes of patterns" M0507 "has 512 patterns of 262145 bytes" import
row REGEXP
peft 1 20 "$(list 1000 x | tr -d ', ')"
taken "an expression of 1,024 bytes"
peft 1 21 "$(list 1000 x | tr -d ', ')"
refused "an expression of 1,025 bytes" M0507 "an expression that is not understood" import
row PEFT_PATTERN_STEPS
peft 480 0 "(.*x)*$(list 500 '.*' | tr -d ', ' | head -c 500)"
refused "200 million steps" M0507 "take more than 200000000 steps" import

# ---- the runtime's ----------------------------------------------------------------------------------------------------------

unit MOEC_SPIECE_LIMIT test_tokenizer
unit MOEC_SPIECE_PIECES test_tokenizer
unit MOEC_SPIECE_PIECE test_tokenizer
unit MOEC_JSONL_LINE test_jsonl
for row in $(sed -n 's/^LIMIT\(_STATED\)*(\([A-Z_]*\),.*/\2/p' "$root/compiler/limits.def"); do
    grep -qx "$row" covered || { fail "$row has no case"; }
done

# ---- memory ------------------------------------------------------------------------------------------------------------------

mkdir o tmp
small() { (cd o && TMPDIR=$work/tmp "$moec" compile "$t5" --max-compile-memory="$1" $2 --prefix=p -o r) >out 2>err; }
for how in --emit=c --emit=lib --emit=llvm; do
    [ $how != --emit=llvm ] || "$moec" --version | grep -q LLVM || continue
    TMPDIR=$work/tmp "$moec" compile "$t5" $how --prefix=p -o want || fail "$how without a limit"
    small 2G $how && diff -r want o/r >/dev/null || fail "$how: a limit changes the result"
    rm -rf o/* want want.*
    refusals=0
    for size in 1 64K 200K 1M 1500K 2M 3M 4M 5M 6M 7M 8M 9M 10M 12M 14M 16M 18M 20M 22M 24M 28M; do
        cases=$((cases + 1))
        small $size $how && { rm -rf o/*; continue; }
        [ $? = 1 ] && [ "$(wc -l <err)" = 1 ] || fail "$how $size: exit code or lines"
        grep -q "^moec: error: --max-compile-memory=$size.* wants [0-9]* bytes more, [0-9]* are in use \[M0004\]\$" err || fail "$how $size"
        [ $size = 1 ] || [ $size = 64K ] || [ $size = 200K ] || grep -qE ": (pass|file|step) '" err || fail "$how $size does not tell for what"
        [ -z "$(find o tmp -mindepth 1)" ] || { fail "$how $size leaves $(find o tmp -mindepth 1 | head -n 2)"; rm -rf o/* tmp/*; }
        refusals=$((refusals + 1))
    done
    [ $refusals -gt 10 ] || fail "$how: $refusals refusals"
done
refused "a limit as JSON" M0004 '"message":"--max-compile-memory=1M: ' "$moec" dump "$t5" --max-compile-memory=1M --diagnostics-format=json -o x.ir
"$moec" dump "$t5" --max-compile-memory=lots -o x.ir 2>err
[ $? = 2 ] || fail "a size that is none"

echo "limits: $cases cases, $failed failures"
[ $failed = 0 ]
