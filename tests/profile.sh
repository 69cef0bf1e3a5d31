#!/bin/sh
# --profile: every call of every kernel is counted as often as the functions ran, with its ONNX node; the times fit into the
# run's; the table and the JSON agree; results are those of a program that measures nothing, whose sources are what they
# were; programs that cannot and commands that do not are told so.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "profile: $*" >&2; status=1; }
. "$root/tests/quick.inc"
# shellcheck disable=SC2086
compile() { "$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" $quick "$@"; }

# JSON as lines: LIST FUNCTION KERNEL CALLS NS FLOPS BYTES SITES ORIGIN, - for what a row has not.
cat >"$work/lines.c" <<'C'
#include <jansson.h>
#include <stdio.h>
static const char *text(json_t *o, const char *key) { json_t *v = json_object_get(o, key); return v ? json_string_value(v) : "-"; }
static double number(json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
int main(int argc, char **argv) {
    static const char *const list[] = {"functions", "kernels", "calls"};
    json_error_t e;
    json_t *root = json_load_file(argv[argc - 1], JSON_REJECT_DUPLICATES, &e), *row;
    size_t k;
    if (!root) return fprintf(stderr, "%s:%d: %s\n", argv[1], e.line, e.text), 1;
    printf("elapsed %.0f\nmeasured %.0f\n", number(root, "elapsed_ns"), number(root, "kernels_ns"));
    for (int i = 0; i < 3; i++)
        json_array_foreach(json_object_get(root, list[i]), k, row)
            printf("%s %s %s %.0f %.0f %.0f %.0f %.0f %s\n", list[i], text(row, "function"), text(row, "kernel"), number(row, "calls"),
                   number(row, "ns"), number(row, "flops"), number(row, "bytes"), number(row, "sites"), text(row, "origin"));
    json_decref(root);
    return 0;
}
C
cc -o "$work/lines" "$work/lines.c" -ljansson || exit 1

compile --profile -o "$work/exe" && compile -o "$work/plain" && compile --emit=c --prefix=m -o "$work/c.plain" &&
    compile --profile --emit=c --prefix=m -o "$work/c" || exit 1

# Sources: nothing but marks and tables is added.
awk '
    /^static void work\(|^static const moec_(kernel|call) / { skip = 1 }
    !skip && !/^    (moec_profile_|\.n_kernels = |\.n_calls = |\.kernel = |\.call = |\.work = )/
    /^$/ { skip = 0 }' "$work/c/m.c" | cmp - "$work/c.plain/m.c" || fail "--profile changes more than marks and tables"
grep -q moec_profile "$work/c.plain/m.c" && fail "marks without --profile"

# Three inputs one by one, eight tokens each: 3 encode, 3 cross, 24 step, all without padding. No token ends a sequence.
ids="--ids 4,60,70,80,90,1 --ids 5,9,12,60,70,1 --ids 4,50,51,52,53,1"
start=$(date +%s%N)
# shellcheck disable=SC2086
"$work/exe" generate $ids --batch 1 --eos 255 --max-length 8 --threads 2 --profile --profile-json "$work/p.json" >"$work/got" 2>"$work/table" ||
    fail "generate --profile"
wall=$(($(date +%s%N) - start))
# shellcheck disable=SC2086
"$work/plain" generate $ids --batch 1 --eos 255 --max-length 8 >"$work/want"
cmp "$work/want" "$work/got" || fail "measuring changes what is generated"
[ "$(wc -w <"$work/got")" = 24 ] || fail "not 24 tokens: $(cat "$work/got")"
"$work/lines" "$work/p.json" >"$work/lines.txt" || fail "no JSON"

# Calls of the sources: FUNCTION KERNEL, each call one line; kernels.
awk '/^\/\* function / { f = $3 } /^\/\* what depends on the adapter/ { f = "prepare" } /^}/ { f = "" }
    f && /^    k[0-9].*\(f,/ { sub(/\(.*/, "", $1); print f, $1 }' "$work/c/m.c" | sort >"$work/sites"
awk '$1 == "calls" { print $2, $3 }' "$work/lines.txt" | sort | cmp - "$work/sites" || fail "not every call of the sources has a row"
awk '{ print $2 }' "$work/sites" | sort -u >"$work/kernels"
awk '$1 == "kernels" { print $3 }' "$work/lines.txt" | sort | cmp - "$work/kernels" || fail "not every kernel has a row"
[ "$(wc -l <"$work/kernels")" -ge 15 ] || fail "too few kernels: $(cat "$work/kernels")"

awk -v wall="$wall" '
    function bad(why) { print "profile: " why | "cat >&2"; failed = 1 }
    BEGIN {
        want["encode_packed"] = want["cross_packed"] = 3
        want["step_packed"] = 24
        want["score_packed"] = want["encode"] = want["cross"] = want["step"] = want["score"] = want["routers"] = want["prepare"] = 0
    }
    $1 == "elapsed" { elapsed = $2 }
    $1 == "measured" { measured = $2 }
    $1 == "functions" { seen[$2] = 1; by_function += $5; ns[$2] = $5; if ($4 != want[$2]) bad("function " $2 " ran " $4 " times") }
    $1 == "kernels" { by_kernel += $5; calls[$3] = $4; flops[$3] = $6; bytes[$3] = $7; sites[$3] = $8; if ($5 > last && last != "") bad("not by time"); last = $5 }
    $1 == "calls" {
        by_call += $5; of_function[$2] += $5
        if ($4 != want[$2]) bad("call of " $3 " in " $2 ": " $4 " times")
        sum[$3] += $4; work[$3] += $6; moved[$3] += $7; n[$3]++
        if ($2 != "prepare" && $9 ~ /^\//) onnx++
        if ($2 != "prepare") rows++ # made of the adapter
    }
    END {
        for (f in want) if (!(f in seen)) if (want[f]) bad("no function " f)
        if (by_function != measured || by_kernel != measured || by_call != measured) bad("sums differ")
        for (f in ns) if (ns[f] != of_function[f]) bad("time of " f)
        for (k in calls) if (calls[k] != sum[k] || flops[k] != work[k] || bytes[k] != moved[k] || sites[k] != n[k]) bad("sums of " k)
        if (!(measured > 0 && measured <= elapsed && elapsed <= wall)) bad(measured " ns of " elapsed " of " wall)
        if (onnx < 0.8 * rows) bad("an ONNX node on " onnx " of " rows " rows")
        # x.W of [B,S,64] by [64,64] in two layers, 3 inputs of 6 tokens; in the decoder 1 token in 24 steps
        for (k in flops) if (k ~ /_encoder_self_o_/ && calls[k]) ran++
        if (ran != 1) bad(ran " kernels of encoder_self_o ran")
        for (k in flops) if (k ~ /_encoder_self_o_/ && calls[k] && flops[k] != 2 * 6 * 64 * 64 * 2 * 3) bad(k ": " flops[k] " operations")
        for (k in flops) if (k ~ /_encoder_self_o_/ && calls[k] && bytes[k] != (3 * 6 * 64 + 64 * 64) * 4 * 2 * 3) bad(k ": " bytes[k] " bytes")
        exit failed
    }' "$work/lines.txt" || fail "numbers of $(cat "$work/lines.txt")"
grep -q "^kernels .*_encoder_self_o_.* 2 /block.0/layer.0/SelfAttention/o/MatMul$" "$work/lines.txt" || fail "encoder_self_o: $(grep self_o "$work/lines.txt")"
grep -q "^k[0-9]*_encoder_self_o_.* /block.0/layer.0/SelfAttention/o/MatMul x2$" "$work/table" || fail "table: $(cat "$work/table")"
[ "$(grep -c '^k[0-9]' "$work/table")" = "$(awk '$1 == "kernels" && $4 { n++ } END { print n }' "$work/lines.txt")" ] || fail "kernels of the table"

# LLVM's code counts the same: all but the times.
if "$moec" --version | grep -q LLVM; then
    # shellcheck disable=SC2086
    compile --profile --backend=llvm -o "$work/llvm" && "$work/llvm" generate $ids --batch 1 --eos 255 --max-length 8 --profile-json "$work/l.json" >"$work/got" &&
        cmp "$work/want" "$work/got" && "$work/lines" "$work/l.json" >"$work/l.txt" || fail "--backend=llvm"
    for file in lines l; do awk 'NF > 2 { $5 = ""; print }' "$work/$file.txt" | sort >"$work/$file.counts"; done
    cmp "$work/lines.counts" "$work/l.counts" || fail "LLVM's code counts other calls"
else
    echo "LLVM: not built in, skipped"
fi

# The other commands.
json() { "$work/exe" "$@" --profile-json "$work/q.json" >/dev/null && "$work/lines" "$work/q.json" >"$work/q.txt" || fail "$*"; }
calls() { awk -v f="$1" '$1 == "functions" && $2 == f { print $4 }' "$work/q.txt"; }
json encode --ids 4,60,1
[ "$(calls encode_packed)-$(calls step_packed)" = 1-0 ] || fail "encode: $(cat "$work/q.txt")"
json score --ids 4,60,1 --targets 60,1
[ "$(calls encode_packed)-$(calls cross_packed)-$(calls score_packed)" = 1-1-1 ] || fail "score: $(cat "$work/q.txt")"
echo '{"input_ids": [4, 60, 1], "labels": [60, 1]}' >"$work/data.jsonl"
json eval --data "$work/data.jsonl"
[ "$(calls encode_packed)-$(calls cross_packed)-$(calls score_packed)-$(calls step_packed)" = 2-2-1-2 ] || fail "eval: $(cat "$work/q.txt")"
[ "$("$work/exe" encode --ids 4,60,1 --out "$work/e.npy" --profile-json - | "$work/lines" /dev/stdin | head -1 | cut -d' ' -f1)" = elapsed ] ||
    fail "--profile-json -"
"$work/exe" generate --ids 4,60,1 --profile-calls 2>&1 >/dev/null | grep -q "^step_packed k[0-9]*_decoder_self_o_.* /decoder/block.1/layer.0/SelfAttention/o/MatMul$" ||
    fail "--profile-calls"
# shellcheck disable=SC2086
"$moec" compile "$tiny" --adapter "$tiny/mov10.json" --train --profile $quick --dim batch_size=1..2 \
    --dim encoder_sequence_length=1..8 --dim decoder_sequence_length=1..8 -o "$work/train" &&
    "$work/train" train --data "$work/data.jsonl" --steps 3 --out "$work/run" --profile-json "$work/q.json" >/dev/null 2>&1 &&
    "$work/lines" "$work/q.json" >"$work/q.txt"
[ "$(calls train)-$(calls prepare)" = 3-3 ] || fail "train: $(cat "$work/q.txt")"
grep -q "^calls prepare k[0-9]*_prepare 3 .* encoder.0.self.k.router" "$work/q.txt" || fail "prepare: $(cat "$work/q.txt")"
"$moec" run "$tiny" --backend=c --matmul=native --func encode --profile 2>"$work/table" >/dev/null || fail "moec run --profile"
grep -q "^k[0-9]*_encoder_self_o_.*MatMul x2$" "$work/table" || fail "moec run --profile: $(cat "$work/table")"

# What cannot be: one line, and nothing is left behind.
refuse() {
    code=$1 pattern=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ $got = "$code" ] && [ ! -s "$work/out" ] && grep -q -e "$pattern" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] ||
        fail "$*: exit $got, $(cat "$work/out" "$work/err")"
}
for option in --profile --profile-calls "--profile-json=$work/no.json"; do
    refuse 1 "takes no profile: compile it with --profile" "$work/plain" generate --ids 4,1 "$option"
done
refuse 2 "export takes no --profile" "$work/exe" export --out "$work/a.safetensors" --profile
refuse 1 "no/such.json: error" "$work/exe" generate --ids 4,1 --profile-json "$work/no/such.json"
refuse 1 "outside the vocabulary" "$work/exe" generate --ids 4,999 --profile --profile-json "$work/no.json"
refuse 2 "goes with --backend=c" "$moec" run "$tiny" --func encode --profile
[ ! -e "$work/no.json" ] || fail "JSON of a run that was refused"

# What is emitted compiles without a warning, with lines too.
compile --profile -g --emit=c --prefix=m -o "$work/c" || fail "--profile -g --emit=c"
for cc in gcc clang; do
    command -v $cc >/dev/null 2>&1 || { echo "$cc: not installed, skipped"; continue; }
    $cc -Wall -Wextra -Werror -std=c99 -pedantic -O1 -c -o "$work/m.o" "$work/c/m.c" || fail "$cc: warnings"
done
[ $status = 0 ] && echo "profile: calls, times, origins and work of every kernel"
exit $status
