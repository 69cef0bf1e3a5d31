#!/bin/sh
# The train and export commands: learning, the same bits for every thread count and for runs that were interrupted,
# resumed or killed; metrics, evaluation, the plan of memory; adapters that fit the program compiled without training;
# text, sentence vectors, whole models; refusals.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
adapters=$root/tests/fixtures/adapters
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "train: $*" >&2; status=1; }
same() { cmp -s "$2" "$3" || fail "$1: $2 and $3 differ"; }

mkdir "$work/t5"
cp "$tiny"/*.json "$tiny"/*.onnx "$root/tests/fixtures/tokenizer/spiece.model" "$work/t5"
exe=$work/m
compile() {
    "$moec" compile "$@" --matmul=native --dim batch_size=1..8 --dim encoder_sequence_length=1..32 \
        --dim decoder_sequence_length=1..32
}
compile "$work/t5" --adapter "$tiny/mov10.json" --train -O1 -o "$exe" || exit 1
compile "$work/t5" --adapter "$tiny/mov10.json" -O1 -o "$work/inference" || exit 1

# Task 8, which the model does not know: the largest number first. All examples have 8 tokens of input, 7 of target.
awk -v train="$work/train.jsonl" -v dev="$work/dev.jsonl" '
function random(n) { seed = (seed * 1103 + 12345) % 65536; return int(seed / 7) % n }
BEGIN {
    seed = 3
    for (i = 0; i < 340; i++) {
        for (k = 1; k <= 6; k++) v[k] = 10 + random(240)
        list = v[1]
        for (k = 2; k <= 6; k++) list = list ", " v[k]
        for (k = 2; k <= 6; k++) for (j = k; j > 1 && v[j - 1] < v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        out = v[1]
        for (k = 2; k <= 6; k++) out = out ", " v[k]
        print "{\"input_ids\": [8, " list ", 1], \"labels\": [" out ", 1]}" > (i < 320 ? train : dev)
    }
}'
data="--data $work/train.jsonl --lr 0.1"
# run FOLDER OPTIONS...: what it prints goes to FOLDER.txt.
run() {
    out=$1
    shift
    "$exe" train $data --out "$out" "$@" >"$out.txt" 2>"$out.err" || fail "train $*: exit code $?: $(cat "$out.err")"
}
# metric FOLDER STEP KEY
metric() { sed -n "s/^{\"step\":$2,\"epoch\".*\"$3\":\([^,}]*\).*/\1/p" "$1/metrics.jsonl"; }
near() { awk -v a="$2" -v b="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d * d <= 1e-10 * a * a) }' || fail "$1: $2 and $3"; }
folders() { ls "$1" | tr '\n' ' '; }
alike() {
    same "$1" "$2/adapter.safetensors" "$3/adapter.safetensors"
    same "$1" "$2/checkpoint-$4/optimizer.safetensors" "$3/checkpoint-$4/optimizer.safetensors"
    same "$1" "$2/checkpoint-$4/state.json" "$3/checkpoint-$4/state.json"
}

# ---- learning, the same bits again -----------------------------------------------------------------------------------

"$exe" eval --data "$work/dev.jsonl" --json - >"$work/before.json"
run "$work/a" --steps 10 --threads 2 --save-every 4 --eval "$work/dev.jsonl" --eval-every 5 --router-metrics 5 --log-every 3
head -n 1 "$work/a.txt" | grep -q '^19840 trainable / 250240 total (7.9.* %)$' || fail "the first line: $(head -n 1 "$work/a.txt")"
for line in 'step 3/10  loss' 'step 6/10' 'step 9/10' 'step 10/10' 'step 5  .*dev.jsonl: loss .*exact match' 'step 10  .*dev.jsonl' \
    'adapter after 10 steps' 'peak memory .* planned'; do
    grep -q "^.*$line" "$work/a.txt" || fail "no line '$line' in $(cat "$work/a.txt")"
done
[ "$(folders "$work/a")" = "adapter.safetensors checkpoint-10 checkpoint-8 metrics.jsonl " ] || fail "--keep 2: $(folders "$work/a")"
awk -v a="$(metric "$work/a" 1 loss)" -v b="$(metric "$work/a" 10 loss)" 'BEGIN { exit !(b < 0.8 * a) }' ||
    fail "the loss does not fall: $(metric "$work/a" 1 loss), $(metric "$work/a" 10 loss)"
run "$work/b" --steps 10 --threads 1
alike "one thread and two" "$work/a" "$work/b" 10
run "$work/c" --steps 5 --keep 0 --save-every 2
run "$work/c" --steps 10 --resume --keep 0 --save-every 2
grep -q 'goes on from step 5' "$work/c.txt" || fail "resumes silently"
alike "5 steps and 5 more" "$work/a" "$work/c" 10
[ "$(folders "$work/c")" = "adapter.safetensors checkpoint-10 checkpoint-2 checkpoint-4 checkpoint-5 checkpoint-6 checkpoint-8 metrics.jsonl " ] ||
    fail "--keep 0: $(folders "$work/c")"
run "$work/c" --steps 10 --resume
grep -q 'all of 10 steps are done' "$work/c.txt" || fail "done, says: $(cat "$work/c.txt")"
rm "$work/c/adapter.safetensors"
run "$work/c" --steps 7 --resume
alike "done, and the adapter missing" "$work/a" "$work/c" 10
# Back to step 4: what the file of metrics knows beyond is forgotten, a torn line too.
rm -r "$work/c/checkpoint-10" "$work/c/checkpoint-8" "$work/c/checkpoint-6" "$work/c/checkpoint-5"
printf '{"step":11,"lo' >>"$work/c/metrics.jsonl"
run "$work/c" --steps 10 --resume
alike "back to step 4" "$work/a" "$work/c" 10
for f in a c; do sed 's/.*"step":\([0-9]*\),"epoch.*"loss":\([^,]*\).*/\1 \2/; /eval/d' "$work/$f/metrics.jsonl" >"$work/$f.losses"; done
same "metrics of a run that went back" "$work/a.losses" "$work/c.losses"
[ "$(awk '{ print $1 }' "$work/a.losses" | tr '\n' ' ')" = "1 2 3 4 5 6 7 8 9 10 " ] || fail "steps: $(cat "$work/a.losses")"
if command -v python3 >/dev/null; then
    python3 - "$work/a/metrics.jsonl" <<'END' || fail "metrics.jsonl: $(cat "$work/a/metrics.jsonl")"
import json, math, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
steps = [l for l in lines if "eval" not in l]
evals = [l for l in lines if "eval" in l]
keys = {"step", "epoch", "loss", "token_loss", "learning_rate", "grad_norm", "tokens_per_second"}
assert all(set(l) - {"routers", "balance_loss", "router_z_loss"} == keys for l in steps)
assert [l["step"] for l in steps if "routers" in l] == [5, 10]
r = steps[4]["routers"]
assert len(r) == 16, len(r)
for site in r.values():
    assert len(site["load"]) == 10 and abs(sum(site["load"]) - 1) < 1e-4 and 0 < site["entropy"] <= math.log(10) + 1e-4
assert [l["step"] for l in evals] == [5, 10]
assert all(set(l) == {"step", "eval", "eval_loss", "eval_exact_match", "eval_token_accuracy"} for l in evals)
assert abs(steps[9]["epoch"] - 80 / 320) < 1e-9
END
fi
# What is evaluated while training is what the command eval says of the adapter that was kept.
want=$("$exe" eval --data "$work/dev.jsonl" --adapter "$work/a/adapter.safetensors" | awk 'END { print $4 }')
grep -q "step 10  .*dev.jsonl: loss $want," "$work/a.txt" || fail "eval says loss $want: $(grep dev "$work/a.txt")"

# ---- the program without training, and back -----------------------------------------------------------------------------

for command in "score" "generate"; do
    "$work/inference" $command --jsonl "$work/dev.jsonl" --adapter "$work/a/adapter.safetensors" >"$work/1" || fail "$command"
    "$exe" $command --jsonl "$work/dev.jsonl" --adapter "$work/a/adapter.safetensors" >"$work/2"
    "$work/inference" $command --jsonl "$work/dev.jsonl" >"$work/3"
    # the same but for rounding: the two are compiled from different parts of the model
    awk -v other="$work/2" '{
        getline line < other
        n = split(line, v, " ")
        if (n != NF) exit 1
        for (i = 1; i <= n; i++) if ((v[i] - $i) ^ 2 > 1e-9 * (1 + $i ^ 2)) exit 1
    }' "$work/1" || fail "$command with what was trained: $(head -n 1 "$work/1"), $(head -n 1 "$work/2")"
    cmp -s "$work/1" "$work/3" && fail "$command: training changes nothing"
done
"$exe" export --checkpoint "$work/a" --out "$work/x1" || fail "export"
"$exe" export --checkpoint "$work/a/checkpoint-10" --out "$work/x2" || fail "export of one checkpoint"
"$work/inference" export --adapter "$work/a/adapter.safetensors" --out "$work/x3" || fail "export without training"
for k in 1 2 3; do same "export" "$work/a/adapter.safetensors" "$work/x$k"; done
# The loss of a step is what score says of its examples, and packing does not change it.
exact="--dropout 0 --loss-z 0 --no-shuffle --steps 1 --adapter $work/x1"
head -n 32 "$work/train.jsonl" >"$work/32.jsonl"
want=$("$work/inference" score --jsonl "$work/32.jsonl" --adapter "$work/x3" | awk '{ s -= $1; n += NF - 1 } END { printf "%.9g", s / n }')
for options in "--accumulate 4" "--pack --batch 8" "--accumulate 4 --reduce tokens" "--pack --batch 4 --accumulate 2"; do
    rm -rf "$work/p"
    run "$work/p" $exact $options
    near "score and a step, $options" "$want" "$(metric "$work/p" 1 loss)"
done
# Optimisers, schedules; files with weights, whose names may have colons.
cp "$work/32.jsonl" "$work/a:b.jsonl"
for options in "--optimizer adamw --schedule linear --warmup 2 --weight-decay 0.01 --clip 1" "--optimizer sgd --momentum 0.5 --schedule cosine" \
    "--schedule inverse-sqrt --warmup 1 --step-offset 100 --label-smoothing 0.1 --data $work/a:b.jsonl:0.5:10 --data $work/a:b.jsonl:2"; do
    rm -rf "$work/p" "$work/q"
    run "$work/p" $options --steps 4 --seed 7
    run "$work/q" $options --steps 4 --seed 7 --save-every 2
    rm -r "$work/q/checkpoint-4"
    run "$work/q" $options --steps 4 --seed 7 --resume
    alike "$options" "$work/p" "$work/q" 4
    awk -v r="$(metric "$work/p" 4 learning_rate)" 'BEGIN { exit !(r > 0 && r < 0.1) }' || fail "$options: rate $(metric "$work/p" 4 learning_rate)"
done

# ---- interrupted, killed ---------------------------------------------------------------------------------------------------

lines() { cat "$work/s/metrics.jsonl" 2>/dev/null | wc -l; }
# start_until STEPS: starts a long run, or goes on with it, returns when it has made so many steps more.
start_until() {
    before=$(lines)
    "$exe" train $data --steps 100000 --out "$work/s" --resume >"$work/s.txt" 2>"$work/s.err" &
    pid=$!
    for i in $(seq 600); do
        [ "$(lines)" -ge $((before + $1)) ] && return
        sleep 0.05
    done
    fail "no $1 steps in 30 s"
}
for signal in "INT 130 2" "TERM 143 2"; do
    set -- $signal
    # A shell starts what it puts behind with interrupts ignored; the program asks for them all the same.
    start_until "$3"
    kill -s "$1" $pid
    wait $pid
    code=$?
    [ $code = "$2" ] || fail "SIG$1: exit code $code: $(cat "$work/s.err")"
    grep -q "stopped after step .* --resume" "$work/s.err" || fail "SIG$1: $(cat "$work/s.err")"
done
done=$(sed 's/.*after step \([0-9]*\),.*/\1/' "$work/s.err")
[ "$done" -ge 4 ] && [ -d "$work/s/checkpoint-$done" ] || fail "stopped after $done: $(folders "$work/s")"
run "$work/s" --steps $((done + 2)) --resume
run "$work/t" --steps $((done + 2)) --resume
alike "interrupted twice" "$work/s" "$work/t" $((done + 2))
# Stopped while it evaluates: the step is kept, the evaluation is made up for.
for k in $(seq 100); do cat "$work/dev.jsonl"; done >"$work/long.jsonl"
"$exe" train $data --steps 2 --eval "$work/long.jsonl" --eval-every 1 --out "$work/v" >"$work/v.txt" 2>"$work/v.err" &
pid=$!
for i in $(seq 600); do
    [ -s "$work/v/metrics.jsonl" ] && break
    sleep 0.05
done
kill -s INT $pid
wait $pid
code=$?
[ $code = 130 ] && [ "$(grep -c eval "$work/v/metrics.jsonl")" = 0 ] && [ -d "$work/v/checkpoint-1" ] ||
    fail "stopped in an evaluation: exit code $code, $(folders "$work/v"), $(cat "$work/v.err")"
run "$work/v" --steps 2 --eval "$work/long.jsonl" --eval-every 1 --eval-limit 5 --resume
[ "$(sed 's/^{"step":\([12]\),"\([a-z]*\)".*/\1\2/' "$work/v/metrics.jsonl" | tr '\n' ' ')" = "1epoch 1eval 2epoch 2eval " ] ||
    fail "an evaluation made up for: $(cat "$work/v/metrics.jsonl")"
# Killed anywhere up to step 9: behind a checkpoint and in front of dropping the oldest, too, which the next step makes up for.
for k in 1 2 3 4 5 6 7 8 9 10; do
    "$exe" train $data --steps 9 --save-every 1 --out "$work/k" --resume >/dev/null 2>"$work/err" &
    pid=$!
    sleep "0.0$k"
    [ $k -lt 8 ] || sleep 0.2
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ ! -s "$work/err" ] || fail "killed $k times: $(cat "$work/err")"
done
run "$work/k" --steps 10 --save-every 1 --resume
alike "killed" "$work/a" "$work/k" 10
[ "$(ls -A "$work/k" | tr '\n' ' ')" = "adapter.safetensors checkpoint-10 checkpoint-9 metrics.jsonl " ] || fail "killed: $(ls -A "$work/k")"
# A checkpoint with a byte changed is passed over.
cp -r "$work/k" "$work/d"
printf 'x' | dd of="$work/d/checkpoint-10/optimizer.safetensors" bs=1 seek=20000 conv=notrunc 2>/dev/null
run "$work/d" --steps 10 --resume
grep -q 'checkpoint-10/optimizer.safetensors: warning: .*damaged' "$work/d.err" || fail "a damaged checkpoint: $(cat "$work/d.err")"
alike "a damaged checkpoint" "$work/a" "$work/d" 10

# ---- a terminal, the plan ---------------------------------------------------------------------------------------------------

if script -qec true /dev/null >/dev/null 2>&1; then
    script -qec "$exe train $data --steps 10 --out $work/tty" /dev/null >"$work/out" </dev/null || fail "on a terminal"
    grep -q '\[#*\.*\] .*/10  loss .* tokens/s  0:.* left' "$work/out" || fail "no bar: $(cat "$work/out")"
    grep -q '^step 10/10' "$work/out" && fail "lines beside the bar"
fi
"$exe" train --data "$work/train.jsonl" --steps 5 --dry-run --out "$work/dry" >"$work/out" || fail "--dry-run"
[ ! -e "$work/dry" ] || fail "--dry-run makes a folder"
for line in weights adapter activations scratch gradients optimiser data evaluation process total; do
    grep -Eq "^$line.* [0-9.]+ [KMG]iB$" "$work/out" || fail "--dry-run has no $line: $(cat "$work/out")"
done
"$exe" info >"$work/out"
grep -q '^  training: gradients 79360, state of adafactor 79360, adamw 158720, sgd 79360$' "$work/out" || fail "info has no sizes of training"
grep -q '^function train, [1-9][0-9]* bytes of the arena' "$work/out" || fail "info has no size of train"
"$work/inference" info >"$work/out"
grep -q '^function encode, at most [1-9][0-9]* bytes of the arena' "$work/out" || fail "info has no bound of encode"
grep -q training: "$work/out" && fail "info of a program that does not train"
total() { "$exe" train --data "$work/train.jsonl" --steps 5 --dry-run "$@" | awk '/^activations/ { print $2 * ($3 == "MiB" ? 1024 : 1) }'; }
awk -v a="$(total --batch 1)" -v b="$(total --batch 8)" 'BEGIN { exit !(b > 4 * a) }' || fail "activations of 1 and 8 rows: $(total --batch 1), $(total --batch 8)"

# ---- text, sentence vectors, whole models -----------------------------------------------------------------------------------

for i in 1 2 3 4 5 6 7 8; do echo '{"inputs": "abc a", "targets": "zq", "task": "t"}'; done >"$work/text.jsonl"
want=$("$exe" score --jsonl "$work/text.jsonl" | awk 'NR == 1 { printf "%.9g", -$1 / (NF - 1) }')
"$exe" train --data "$work/text.jsonl" --out "$work/x" --steps 1 --dropout 0 --loss-z 0 --input-eos >"$work/out" || fail "text"
near "text" "$want" "$(metric "$work/x" 1 loss)"
case=$adapters/mov-sentence
compile "$tiny" --adapter "$case/spec.json" --train -O0 -o "$work/sentence" || exit 1
head -n 4 "$work/train.jsonl" >"$work/four.jsonl"
"$work/sentence" train --data "$work/four.jsonl" --sentence "$case/short.sentence.npy" --eval "$work/four.jsonl" \
    --eval-sentence "$case/short.sentence.npy" --steps 2 --batch 2 --out "$work/y" >"$work/out" || fail "--sentence"
grep -q 'four.jsonl: loss' "$work/out" || fail "--eval-sentence: $(cat "$work/out")"
echo '{ "moec_adapter": 1, "method": "full" }' >"$work/full.json"
compile "$tiny" --adapter "$work/full.json" --train -O0 -o "$work/full" || exit 1
"$work/full" train --data "$work/train.jsonl" --lr 0.01 --steps 4 --out "$work/z" >"$work/out" || fail "method full"
grep -q '^230400 trainable / 230400 total (100 %)' "$work/out" || fail "method full: $(head -n 1 "$work/out")"
"$work/full" export --base --checkpoint "$work/z" --out "$work/base" && same "export --base" "$work/base" "$work/z/adapter.safetensors"

# ---- refusals -----------------------------------------------------------------------------------------------------------------

mkdir "$work/left"
cat "$work/train.jsonl" "$work/dev.jsonl" >"$work/bigger.jsonl"
# refuse CODE WORD PROGRAM OPTIONS...
refuse() {
    want=$1 word=$2 program=$3
    shift 3
    (cd "$work/left" && "$program" "$@") >"$work/out" 2>"$work/err"
    code=$?
    [ $code = "$want" ] || fail "$*: exit code $code, not $want"
    [ "$(wc -l <"$work/err")" = 1 ] && grep -qF -e "$word" "$work/err" || fail "$*: '$word' is not in: $(cat "$work/err")"
    [ -z "$(ls -A "$work/left")" ] || fail "$*: leaves $(ls -A "$work/left")"
    rm -rf "$work/left"/*
}
t="$work/train.jsonl"
refuse 1 "compile it again with --train" "$work/inference" train --data "$t" --steps 1 --out r
refuse 1 "--resume" "$exe" train --data "$t" --steps 1 --out "$work/a"
refuse 1 "batch 8, now it is 4" "$exe" train $data --steps 20 --out "$work/a" --resume --batch 4
refuse 1 "optimizer" "$exe" train $data --steps 20 --out "$work/a" --resume --optimizer sgd
refuse 1 "seed" "$exe" train $data --steps 20 --out "$work/a" --resume --seed 1
refuse 1 "data-files 1, now it is 2" "$exe" train $data --data "$work/32.jsonl" --steps 20 --out "$work/a" --resume
exec 9<"$work/a"
flock 9
refuse 1 "another run is at work" "$exe" train $data --steps 20 --out "$work/a" --resume
exec 9<&-
for o in "--steps 0" "--lr x" "--lr -1" "--lr nan" "--dropout 1" "--momentum 1.5" "--optimizer adam" "--schedule step" "--accumulate 0" \
    "--weight-decay 0.1" "--eval-every 5" "--reduce sum" "--epsilon 0"; do
    refuse 2 "--" "$exe" train --data "$t" --steps 1 --out r $o
done
refuse 2 "--data" "$exe" train --steps 1 --out r
refuse 2 "--steps" "$exe" train --data "$t" --out r
refuse 2 "--out" "$exe" train --data "$t" --steps 1
refuse 2 "weight" "$exe" train --data "$t:0" --steps 1 --out r
refuse 2 "cap" "$exe" train --data "$t:1:0.5" --steps 1 --out r
refuse 1 "nothere:x" "$exe" train --data nothere:x:1 --steps 1 --out r
tail -n 320 "$work/bigger.jsonl" >"$work/other.jsonl"
refuse 1 "data-hash" "$exe" train --data "$work/other.jsonl" --lr 0.1 --steps 20 --out "$work/a" --resume
refuse 1 "compiled for 1 to 8" "$exe" train --data "$t" --steps 1 --out r --batch 9
"$work/full" train --data "$t" --steps 40 --save-every 1 --out "$work/nan" --optimizer sgd --lr 1e18 >"$work/out" 2>"$work/err"
code=$?
[ $code = 1 ] && grep -q 'error: step 2: the loss is .*lower --lr .*checkpoint of step 1 stays' "$work/err" || fail "no finite loss: $code, $(cat "$work/err")"
[ "$(folders "$work/nan")" = "checkpoint-1 metrics.jsonl " ] || fail "no finite loss: $(folders "$work/nan")"
refuse 2 "--base" "$work/full" export --out r
refuse 2 "--base" "$exe" export --out r --base
refuse 2 "exclude" "$exe" export --out r --adapter x --checkpoint y
refuse 1 "no checkpoint" "$exe" export --out r --checkpoint "$work/t5"
refuse 1 "of no use" "$exe" train --data "$t" --steps 1 --out r --sentence "$case/short.sentence.npy"
{ head -n 1 "$t"; echo '{"input_ids": [5, 300], "labels": [1]}'; tail -n +2 "$t"; } >"$work/bad.jsonl"
refuse 1 "bad.jsonl:2: error:" "$exe" train --data "$work/bad.jsonl" --steps 1 --out r
refuse 1 "bad.jsonl:2: error:" "$exe" train --data "$t" --eval "$work/bad.jsonl" --steps 1 --out r
"$exe" train --data "$work/bad.jsonl" --skip-bad --lr 0.1 --steps 10 --out "$work/e" >"$work/out" 2>"$work/err" || fail "--skip-bad"
grep -q 'skipped: 1; the first: .*bad.jsonl:2: ' "$work/err" || fail "--skip-bad: $(cat "$work/err")"
alike "--skip-bad" "$work/a" "$work/e" 10
awk 'BEGIN { printf "{\"input_ids\": [5"; for (i = 0; i < 40; i++) printf ", 5"; print "], \"labels\": [7, 1]}" }' >"$work/long.jsonl"
refuse 1 "long.jsonl:1: error:" "$exe" train --data "$work/long.jsonl" --steps 1 --out r
"$exe" train --data "$work/long.jsonl" --truncate --steps 1 --out "$work/l" >"$work/out" 2>"$work/err" || fail "--truncate"
grep -q 'truncated: 1 inputs, 0 targets' "$work/err" || fail "--truncate: $(cat "$work/err")"
[ $status = 0 ] && echo "train: learns; the same bits again, interrupted, killed and resumed; metrics, evaluation, plan, export, refusals"
exit $status
