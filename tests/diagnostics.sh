#!/bin/sh
# Diagnostics: every row of diag.def is used, pinned and explained; the examples of `moec explain` do what they say, and
# as JSON the same codes come in the same order.
moec=$(cd "$(dirname "${MOEC:-build/moec}")" && pwd)/$(basename "${MOEC:-build/moec}")
root=$(cd "${SOURCE_DIR:-$(dirname "$0")/..}" && pwd)
[ -x "$moec" ] || { echo "diagnostics: no moec at $moec"; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0 ran=0
fail() {
    echo "diagnostics: $*"
    failed=$((failed + 1))
}
cd "$root" || exit 1
sed -n 's/^DIAG(\([0-9]*\), \([A-Z0-9_]*\), .*/\1 \2/p' compiler/diag.def >"$work/rows"
[ "$(wc -l <"$work/rows")" -gt 50 ] || fail "diag.def has few rows: $(wc -l <"$work/rows")"

# ---- the table ----

"$moec" explain --list >"$work/list" || fail "--list fails"
pinned=tests/fixtures/diagnostics.txt
[ "$(grep -c . $pinned)" = "$(awk '!seen[$1]++ && !seen[$2]++' $pinned | wc -l)" ] || fail "$pinned gives a number twice"
while read -r number name; do
    code=$(printf 'M%04d' "$number")
    find compiler frontends codegen -name '*.c' -exec grep -qw "DIAG_$name" {} + || fail "no call site has DIAG_$name"
    grep -qx "$number $name" $pinned || fail "$number $name is not in $pinned, where a number stays for ever"
    grep -q "^$code  ." "$work/list" || fail "--list lacks $code"
done <"$work/rows"
for name in $(sed -n 's/^    \(MOEC_E_[A-Z]*\),.*/\1/p' runtime/moec_rt.h); do
    "$moec" explain "$name" | grep -q '^Right:' || fail "$name is not explained"
    grep -q "^$name  ." "$work/list" || fail "--list lacks $name"
done
for spelling in m0204 0204 204; do
    [ "$("$moec" explain $spelling)" = "$("$moec" explain M0204)" ] || fail "explain $spelling"
done
for code in 0 M M0199 20400000000 M0204x MOEC_OK ''; do
    "$moec" explain "$code" >"$work/out" 2>"$work/err"
    [ $? = 2 ] && [ ! -s "$work/out" ] && grep -q 'explain --list.*\[M1101\]$' "$work/err" || fail "explain '$code': $(cat "$work/err")"
done

# ---- the examples ----

# example WHICH: that part of what explain printed.
example() { sed -n "/^$1:\$/,/^\$/{/^    /s/^    //p}" "$work/text"; }

# try OPTION: runs $work/example with OPTION behind every moec, messages to $work/err; false where it is nothing to run.
try() {
    option=$1
    rm -rf "$work/box"
    mkdir -p "$work/box" "$work/bin"
    cp -r examples/t5-tiny "$work/box/t5"
    cp examples/t5-tiny/mov10.json "$work/box"
    printf '#!/bin/sh\nexec "%s" "$@" %s\n' "$moec" "$option" >"$work/bin/moec"
    chmod +x "$work/bin/moec"
    case $(head -n 1 "$work/example") in
    '# moec '*) cp "$work/example" "$work/box/x.ir" && sed -n '1s/^# //p' "$work/example" >"$work/command" ;;
    '{ "moec_adapter"'*) cp "$work/example" "$work/box/x.json" && echo "moec dump t5/ --adapter x.json -o x.ir" >"$work/command" ;;
    '$ '*) sed 's/^\$ //' "$work/example" >"$work/command" ;;
    *) return 1 ;;
    esac
    (cd "$work/box" && PATH=$work/bin:$PATH timeout 120 sh "$work/command") >"$work/out" 2>"$work/err"
}

while read -r number name; do
    code=$(printf 'M%04d' "$number")
    "$moec" explain "$code" >"$work/text" || fail "explain $code fails"
    head -n 1 "$work/text" | grep -q "^$code: ." || fail "explain $code: $(head -n 1 "$work/text")"
    [ "$(awk 'length > n { n = length } END { print n + 0 }' "$work/text")" -le 120 ] || fail "explain $code: long lines"
    for which in Wrong Right; do
        example $which >"$work/example"
        [ -s "$work/example" ] || fail "$code has no example '$which'"
        head -n 1 "$work/example" | grep -q '^\(# moec\|{ "moec_adapter"\|\$ \)' || continue
        try ''
        grep -o '\[M[0-9]*\]$' "$work/err" | tr -d '[]' >"$work/codes"
        grep -qx "$code" "$work/codes"
        found=$?
        [ $which = Wrong ] && { ran=$((ran + 1)); [ $found = 0 ] || fail "$name: the wrong example gives: $(head -n 3 "$work/err")"; }
        [ $which = Right ] && [ $found = 0 ] && fail "$name: the right example gives: $(grep "$code" "$work/err")"
        [ $which = Wrong ] && [ "$number" -lt 1100 ] || continue
        try --diagnostics-format=json
        sed -n 's/^{"severity":"[a-z]*","code":"\(M[0-9]*\)","file":.*"message":".*"}$/\1/p' "$work/err" | cmp -s - "$work/codes" ||
            fail "$name: as JSON: $(cat "$work/err")"
    done
done <"$work/rows"
[ $ran -ge 40 ] || fail "only $ran examples were run"

# ---- files of other formats ----

# refuse CODE COMMAND...: a diagnostic of that code, in a folder with t5/ and mov10.json.
refuse() {
    code=$1
    shift
    "$moec" "$@" >"$work/out" 2>"$work/err"
    [ $? = 1 ] && grep -q "\[$code\]\$" "$work/err" || fail "$* gives no $code: $(cat "$work/err")"
}
# tensors HEADER DATA: a safetensors file, w.safetensors.
tensors() { { printf "\\$(printf %o ${#1})\0\0\0\0\0\0\0%s" "$1"; printf "$2"; } >w.safetensors; }
rm -rf "$work/box"
mkdir "$work/box"
cp -r examples/t5-tiny "$work/box/t5"
cp examples/t5-tiny/mov10.json "$work/box"
cp -r tests/fixtures/peft/lora-qv/peft "$work/box/lora"
cp -r tests/fixtures/peft/ia3/peft "$work/box/ia3"
cd "$work/box" || exit 1
tensors '{}' ''
refuse M0405 info t5 --adapter w.safetensors
refuse M0406 dump t5 --adapter mov10.json --adapter-weights w.safetensors -o x.ir
tensors '{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,12]}}' '\0\0\0\0\0\0\0\0\0\0\0\0'
refuse M0502 dump t5 --adapter mov10.json --adapter-weights w.safetensors -o x.ir
tensors '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' '\0\0\0\0'
refuse M0407 dump t5 --adapter mov10.json --adapter-weights w.safetensors -o x.ir
refuse M0503 dump t5 --base-weights w.safetensors -o x.ir
tensors '{"encoder.0.self.k.scale":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' '\0\0\0\0'
refuse M0408 dump t5 --adapter mov10.json --adapter-weights w.safetensors -o x.ir
refuse M0509 adapter import lora ia3 --model t5 -o x.safetensors
refuse M0511 adapter import ia3 ia3 -o x.safetensors
mv lora/adapter_config.json config.json
sed 's/"use_dora": false/"use_dora": true/' config.json >lora/adapter_config.json
refuse M0506 adapter import lora -o x.safetensors
sed 's/"rank_pattern": {}/"rank_pattern": {"(?=x)q": 4}/' config.json >lora/adapter_config.json
refuse M0507 adapter import lora -o x.safetensors
sed 's/"r": [0-9]*/"r": 3/' config.json >lora/adapter_config.json
refuse M0508 adapter import lora -o x.safetensors
mv lora/adapter_model.safetensors lora/adapter_model.bin
refuse M0505 adapter import lora -o x.safetensors
cd "$root" || exit 1

# ---- usage errors, locations ----

usage() {
    want=$1
    shift
    "$moec" "$@" >"$work/out" 2>"$work/err"
    [ $? = 2 ] && [ "$(cat "$work/err")" = "$want" ] || fail "$*: $(cat "$work/err")"
}
usage "moec dump: unknown option '--x'; \`moec dump --help\` lists what there is [M1102]" dump --x --diagnostics-format=json
usage "{\"severity\":\"error\",\"code\":\"M1102\",\"file\":null,\"message\":\"unknown option '--x\\\\303\\\\251'; \`moec dump --help\` lists what there is\"}" \
    dump --diagnostics-format json --x$(printf '\303\251')
usage "moec dump: --diagnostics-format wants text or json, not 'xml'; \`moec dump --help\` lists what there is [M1103]" dump --diagnostics-format=xml x.ir
located() {
    want=$1
    shift
    "$moec" "$@" --diagnostics-format=json >"$work/out" 2>"$work/err"
    [ $? = 1 ] && [ "$(cat "$work/err")" = "$want" ] || fail "$*: $(cat "$work/err")"
}
cd "$work" || exit 1
printf 'func @main entry (%%x : f32[2]) {\n  %%y = nothing %%x : f32[2]\n  return %%y "y"\n}\n' >a.ir
located '{"severity":"error","code":"M0602","file":"a.ir","line":2,"column":15,"message":"there is no op nothing"}' opt a.ir
printf 'func @main entry (%%x : f32[2,3]) {\n  %%y = matmul %%x, %%x : f32[2,3]\n  return %%y "y"\n}\n' >b.ir
printf '{\n  "moec_adapter": 1, "method": "mov",\n  "expert": 2\n}\n' >é.json
located '{"severity":"error","code":"M0302","file":"\u00e9.json","line":3,"message":"key '"'expert'"': unknown key; the closest known one is '"'experts'"'"}' \
    info "$root/examples/t5-tiny" --adapter é.json
located '{"severity":"error","code":"M0701","file":"b.ir","context":["function @main","node 0 (matmul)"],"message":"the inner extents differ"}' opt b.ir
echo "diagnostics: $(wc -l <"$work/rows") codes, $ran examples, $failed failures"
[ $failed = 0 ]
