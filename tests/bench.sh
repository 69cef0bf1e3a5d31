#!/bin/sh
# The bench runs and prints its tables, on a tiny model; what it counts as work is what the model's shape says and what the
# compiler counts in its kernels. No time is judged.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
export BUILD_DIR="${BUILD_DIR:-$root/build}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export WORK_DIR="$work/bench"
status=0
fail() {
    echo "bench: $*" >&2
    status=1
}
size=d_model=64,d_ff=96,d_kv=16,heads=4,layers=1,vocab=224
bench() {
    sh "$root/tests/bench/run.sh" --size=$size --backends=c --rounds=1 --patience=0 --read-mib=16 --threads=1 --compile=-O0 "$@" >"$work/table" 2>"$work/err" ||
        fail "$*: $(cat "$work/table" "$work/err")"
}

# row WORK VARIANT AMOUNT [REFERENCE]: the row is there once, its numbers are numbers, and time by rate is AMOUNT (of 1e6).
row() {
    awk -v work="$1" -v variant="$2" -v amount="$3" -v reference="${4:-}" '
        index($0, work " ") == 1 && index($0, " " variant " ") {
            n++
            split(substr($0, index($0, " " variant " ") + length(variant) + 2), v, " ")
            for (i = 1; i <= 5; i++) if (i != 3 && !(v[i] + 0 > 0)) bad = 1
            d = v[1] * v[2] - amount
            if (v[3] !~ /^(GFLOP|GB)\/s$/ || d > 0.02 * amount + 0.01 * v[1] + 0.001 * v[2] || -d > 0.02 * amount + 0.01 * v[1] + 0.001 * v[2]) bad = 1
            if (reference != "" && ($NF != reference || $(NF - 1) !~ /^[+-][0-9.]+%$/ || $(NF - 3) !~ /^[+-][0-9.]+%$/)) bad = 1
        }
        END { exit n != 1 || bad }' "$work/table" || fail "row $1 $2, $3 million: $(grep -e "^$1" "$work/table" "$work/err" || cat "$work/table")"
}

# Weights of the encoder, and those a decoded token reads, the head with them; operations of a sequence.
inner=64 encoder=$((4 * 64 * 64 + 3 * 64 * 96)) decoder=$((6 * 64 * 64 + 3 * 64 * 96 + 64 * 224))
encode() { echo $((2 * $1 * encoder + 4 * $1 * $1 * inner)); }
million() { echo "$1" | awk '{ printf "%.6f", $1 / 1e6 }'; }

bench --adapters=bare,mov10 --encode=2x24,2x~24 --decode=2 --source=8 --steps=4 --profile=kernels
for adapter in bare mov10; do
    reference=
    [ $adapter = bare ] || reference=bare/c
    row "encode 2x24" $adapter/c "$(million $((2 * $(encode 24))))" $reference
    row "encode 2x~24 padded" $adapter/c "$(million $(($(encode 12) + $(encode 24))))" $reference
    row "encode 2x~24 packed" $adapter/c "$(million $(($(encode 12) + $(encode 24))))" $reference
    row "encode 2x~24 by rows" $adapter/c "$(million $(($(encode 12) + $(encode 24))))" $reference
    row "decode 2" $adapter/c "$(million $((4 * decoder)))" $reference
done
# kernels count the same
awk -v want="$((2 * $(encode 24)))" '
    /^encode 2x24 / { here = 1 }
    here && /bare\/c: kernels of encode take/ { here = 0; for (i = 1; i < NF; i++) if ($(i + 1) == "GFLOP") got = $i * 1e9 }
    END { exit !(got > want * 0.99999 && got < want * 1.00001) }' "$work/table" || fail "operations by kernel: $(cat "$work/table")"
for group in 'q, k, v' attention o ffn head embedding; do
    grep -qE "^ +$group +[0-9.]+ +[0-9.]+% +[0-9]+ " "$work/table" || fail "no share of $group: $(cat "$work/table")"
done
grep -qE "^ +k[0-9]+_encoder_ffn_.*%  /block.0/layer.1/" "$work/table" || fail "no kernel of the feed-forward block: $(cat "$work/table")"

# What a token reads is counted as it is stored: scales by blocks of 64 or 32, wo and the head of int8 beside int4.
bench --encode=none --decode=2 --source=8 --steps=4 --weights=int8,int4
small=$((6 * 64 * 64 + 2 * 64 * 96)) scales=$((4 * (6 * 64 + 2 * 96))) above=$((96 * 64 + 4 * 2 * 64 + 64 * 224 + 4 * 224))
row "decode 2" bare/c/int8 "$(million $((small + scales + above)))"
row "decode 2" bare/c/int4 "$(million $((small / 2 + 2 * scales + above)))" bare/c/int8

# The second time nothing is compiled.
bench --adapters=bare,mov10 --encode=none --decode=2 --source=24 --steps=4 --profile
grep -q "^bare/c: compiled before$" "$work/table" || fail "compiled again: $(cat "$work/table")"

# Training: 2 x 16 source and 8 target tokens.
forward=$((2 * (32 * encoder + 16 * decoder + 32 * 2 * 64 * 64) + 2 * 4 * inner * (16 * 16 + 8 * 8 + 8 * 16)))
backward=$((forward - 2 * (32 + 16) * 3 * 64 * 64 + 2 * 4 * inner * (16 * 16 + 8 * 8 + 8 * 16)))
bench --train=2x16/8 --adapters=bare
row "train 2x16/8" bare/c "$(million $((forward + backward)))"
row "  forward" bare/c "$(million $forward)"
row "  backward" bare/c "$(million $backward)"
grep -qE "^ +bare/c +[1-9][0-9]* MiB became resident; planned: " "$work/table" || fail "memory: $(cat "$work/table")"

# Products; OpenBLAS beside them where it is there.
bench --openblas --rows=1,24
grep -qE "^wo 96x64 M=24 +moec/c +[0-9.]+ +[0-9.]+ G" "$work/table" || fail "products: $(cat "$work/table")"

refuse() {
    pattern=$1
    shift
    sh "$root/tests/bench/run.sh" --size=$size --backends=c "$@" >"$work/out" 2>"$work/err"
    got=$?
    if [ $got != 2 ] || ! grep -q -e "$pattern" "$work/err"; then fail "$*: exit $got, $(cat "$work/out" "$work/err")"; fi
}
refuse "--speed=9: no such option" --speed=9
refuse "--encode=8xx" --encode=8xx
refuse "--train=8x16" --train=8x16
refuse "adapter 'mov': bare, mov10" --adapters=mov
[ $status = 0 ] && echo "bench: rows, work, shares, refusals"
exit $status
