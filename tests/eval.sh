#!/bin/sh
# The eval command: accuracies against choices ranked here from what `score` says, pairs against `score` and `generate`;
# ties, normalisation, batches, text, sentence vectors; the table and JSON say the same; bad lines are located, or skipped.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
adapters=$root/tests/fixtures/adapters
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "eval: $*" >&2; status=1; }
same() { cmp -s "$2" "$3" || fail "$1: $(head -c 400 "$2") ... $(head -c 400 "$3")"; }

mkdir "$work/t5"
cp "$tiny"/*.json "$tiny"/*.onnx "$root/tests/fixtures/tokenizer/spiece.model" "$work/t5"
exe=$work/m
"$moec" compile "$work/t5" --adapter "$adapters/mov-e4/spec.json" --adapter-weights "$adapters/mov-e4/adapter.safetensors" \
    --matmul=native -O1 -o "$exe" || exit 1

# ---- choices of token ids ---------------------------------------------------------------------------------------

# Questions; the same as a line for each choice; and what each is: task, prompt, label, then the choices' lengths.
awk -v questions="$work/q.jsonl" -v rows="$work/rows.jsonl" -v key="$work/key" '
function random(n) { seed = (seed * 1103 + 12345) % 65536; return int(seed / 7) % n }
function numbers(n,   s) { for (s = ""; n-- > 0;) s = s (10 + random(240)) ", "; return s }
BEGIN {
    seed = 5
    for (i = 0; i < 60; i++) {
        input = "[" (3 + i % 4) ", " numbers(1 + random(12)) "1]"
        n = 1 + random(5)
        label = random(n)
        task = "task" i % 3
        prompt = "p" random(3 + i % 3)
        list = lengths = ""
        for (k = 0; k < n; k++) {
            length_ = random(6)
            choice = "[" numbers(length_) "1]"
            list = list (k ? ", " : "") choice
            lengths = lengths " " length_ + 1
            print "{\"input_ids\": " input ", \"labels\": " choice "}" > rows
        }
        printf "{\"prompt\": \"%s\", \"%s\": [%s], \"label\": %d, \"input_ids\": %s, \"task\": \"%s\", \"labels\": [999]}\n",
            prompt, i % 2 ? "choices" : "choices_ids", list, label, input, task > questions
        print task, prompt, label lengths > key
    }
}'
"$exe" score --jsonl "$work/rows.jsonl" >"$work/scores" || fail "score"

# rank HOW: "task prompt examples accuracy", the table to be, from the scores and the key.
rank() {
    awk -v how="$1" -v scores="$work/scores" '
    function median(v, n,   i, j, t) {
        for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    {
        best = -1
        for (k = 0; k < NF - 3; k++) {
            getline line < scores
            split(line, f, " ")
            s = f[1] / (how == "length" ? $(k + 4) : 1)
            if (best < 0 || s > most) { best = k; most = s }
        }
        if (!($1 in prompts)) task[++tasks] = $1
        if (!(($1, $2) in n)) name[$1, ++prompts[$1]] = $2
        n[$1, $2]++
        right[$1, $2] += best == $3
    }
    END {
        for (i = 1; i <= tasks; i++) {
            t = task[i]
            all = sum = 0
            for (p = 1; p <= prompts[t]; p++) {
                a[p] = right[t, name[t, p]] / n[t, name[t, p]]
                sum += a[p]
                all += n[t, name[t, p]]
                printf "%s %s %d %.4f\n", t, name[t, p], n[t, name[t, p]], a[p]
            }
            m = median(a, prompts[t])
            printf "%s median %d %.4f\n%s mean %d %.4f\n", t, all, m, t, all, sum / prompts[t]
            medians += m / tasks
            means += sum / prompts[t] / tasks
        }
        printf "all mean of medians %d %.4f\nall mean of means %d %.4f\n", NR, medians, NR, means
    }' "$work/key"
}
# The table with each task named in each line; JSON as the same lines.
table() { awk 'NR > 1 { if ($0 ~ /^ /) $0 = task " " $0; task = $1; $1 = $1; print }' "$1"; }
json() {
    awk '
    function value(key,   s) { s = $0; if (!sub(".*\"" key "\": ", "", s)) return ""; sub(/^"/, "", s); sub(/[",}].*/, "", s); return s }
    function flush() { if (task != "") print last; task = "" }
    /"choices": / { tail = sprintf("all mean of medians %d %.4f\nall mean of means %d %.4f",
        value("examples"), value("mean_of_medians"), value("examples"), value("mean_of_means")) }
    /"task": / {
        flush()
        task = value("task")
        last = sprintf("%s median %d %.4f\n%s mean %d %.4f", task, value("examples"), value("median"), task, value("examples"), value("mean"))
    }
    /"prompt": / { printf "%s %s %d %.4f\n", task, value("prompt"), value("examples"), value("accuracy") }
    END { flush(); print tail }' "$1"
}

for how in none length; do
    rank $how >"$work/want"
    for batch in 1 3 8 64; do
        "$exe" eval --data "$work/q.jsonl" --normalize $how --batch $batch --json "$work/r.json" >"$work/out" || fail "eval --batch $batch"
        table "$work/out" >"$work/table"
        same "--normalize $how --batch $batch: score and the table" "$work/want" "$work/table"
        json "$work/r.json" >"$work/json"
        same "--normalize $how --batch $batch: score and JSON" "$work/want" "$work/json"
    done
    grep -q "\"normalize\": \"$how\"" "$work/r.json" || fail "JSON does not say --normalize $how"
    cp "$work/want" "$work/want.$how"
    cp "$work/r.json" "$work/r.$how"
done
[ "$(wc -l <"$work/want")" -gt 12 ] || fail "too few prompts: $(cat "$work/want")"
cmp -s "$work/want.none" "$work/want.length" && fail "lengths make no difference: the questions are too easy"
"$exe" eval --data "$work/q.jsonl" --json - >"$work/out" || fail "eval --json -"
same "JSON in a file and on standard output" "$work/r.none" "$work/out"
"$exe" eval --data - <"$work/q.jsonl" >"$work/out" || fail "eval of standard input"
table "$work/out" >"$work/table"
same "standard input" "$work/want.none" "$work/table"
head -n 30 "$work/q.jsonl" >"$work/q1.jsonl"
tail -n +31 "$work/q.jsonl" >"$work/q2.jsonl"
"$exe" eval --data "$work/q1.jsonl" --data "$work/q2.jsonl" --json - >"$work/out" || fail "eval of two files"
same "two files" "$work/r.none" "$work/out"
"$exe" eval --data "$work/q1.jsonl" --json - >"$work/a"
"$exe" eval --data "$work/q.jsonl" --limit 30 --json - >"$work/b"
same "--limit" "$work/a" "$work/b"
# Another adapter is as good as one compiled in; so is a batch that the program fixes.
"$moec" compile "$tiny" --adapter "$adapters/mov-e4/spec.json" --matmul=native -O1 -o "$work/fresh" &&
    "$work/fresh" eval --data "$work/q.jsonl" --adapter "$adapters/mov-e4/adapter.safetensors" --json - >"$work/out"
same "--adapter" "$work/r.none" "$work/out"
"$moec" compile "$tiny" --adapter "$adapters/mov-e4/spec.json" --adapter-weights "$adapters/mov-e4/adapter.safetensors" \
    --dim batch_size=5 --matmul=native -O1 -o "$work/five" && "$work/five" eval --data "$work/q.jsonl" --json - >"$work/out"
same "a batch of exactly 5" "$work/r.none" "$work/out"

# Ties go to the first, whatever batch they fall into.
for label in 0 1 2; do
    echo "{\"input_ids\": [6, 90, 80, 1], \"choices\": [[80, 90, 1], [80, 90, 1], [80, 90, 1]], \"label\": $label, \"prompt\": \"$label\"}"
done >"$work/ties.jsonl"
for batch in 1 2 4; do
    "$exe" eval --data "$work/ties.jsonl" --batch $batch >"$work/out"
    table "$work/out" | head -n 3 | awk '{ printf "%s ", $4 }' | grep -q '^1.0000 0.0000 0.0000 $' || fail "ties, --batch $batch: $(cat "$work/out")"
done

# ---- pairs ------------------------------------------------------------------------------------------------------------

awk 'BEGIN {
    for (i = 0; i < 20; i++) { # some references are what the model says, some are not
        a = 20 + i * 7; b = a + 40; c = a + 3
        print "{\"input_ids\": [4, " a ", " b ", " c ", 1], \"labels\": [" c ", " (i % 3 ? b : a) ", " a (i % 5 ? ", 1" : "") "], \"task\": \"r" i % 2 "\"}"
    }
}' >"$work/pairs.jsonl"
"$exe" generate --jsonl "$work/pairs.jsonl" --max-length 8 >"$work/made" && "$exe" score --jsonl "$work/pairs.jsonl" >"$work/scores" || fail "generate, score"
sed 's/.*"labels": \[//; s/\].*//; s/,//g' "$work/pairs.jsonl" | awk -v made="$work/made" -v scores="$work/scores" '
{
    getline text < made
    n = split(text, m, " ")
    getline text < scores
    split(text, s, " ")
    body = $NF == 1 ? NF - 1 : NF
    end = m[n] == 1 ? n - 1 : n
    exact = end == body
    for (i = 1; i <= body; i++) exact = exact && m[i] == $i
    for (i = 1; i <= NF; i++) hits[NR % 2] += i <= n && m[i] == $i
    right[NR % 2] += exact; tokens[NR % 2] += NF; loss[NR % 2] -= s[1]
}
function total(name, n, t, l, r, h) { printf "%s %d %d %.4f %.4f %.4f\n", name, n, t, l / t, r / n, h / t }
END {
    total("r0", NR / 2, tokens[1], loss[1], right[1], hits[1])
    total("r1", NR / 2, tokens[0], loss[0], right[0], hits[0])
    total("all", NR, tokens[0] + tokens[1], loss[0] + loss[1], right[0] + right[1], hits[0] + hits[1])
}' >"$work/want"
awk '$1 == "all" { exit !($5 > 0.1 && $5 < 0.9 && $6 > $5) }' "$work/want" || fail "the pairs prove nothing: $(cat "$work/want")"
for batch in 1 7; do
    "$exe" eval --data "$work/pairs.jsonl" --batch $batch >"$work/out" || fail "eval of pairs"
    awk 'NR > 1 { $1 = $1; print }' "$work/out" >"$work/table"
    same "pairs, --batch $batch" "$work/want" "$work/table"
done
# Ignored labels: padding at the end, a token that may be anything, a mask that hides what is not there.
made=$("$exe" generate --ids 4,60,70,80,90,1 | sed 's/ /, /g')
rest=${made#*, }
echo "{\"input_ids\": [4, 60, 70, 80, 90, 1], \"labels\": [$made]}" >"$work/a.jsonl"
echo "{\"input_ids\": [4, 60, 70, 80, 90, 1, 99], \"attention_mask\": [1, 1, 1, 1, 1, 1, 0], \"labels\": [$made, -100, -100]}" >"$work/b.jsonl"
echo "{\"input_ids\": [4, 60, 70, 80, 90, 1], \"labels\": [-100, $rest]}" >"$work/c.jsonl"
for f in a b c; do "$exe" eval --data "$work/$f.jsonl" >"$work/out.$f" || fail "eval of $f.jsonl"; done
same "padding" "$work/out.a" "$work/out.b"
# A mask with a hole is the padded functions', and so is its batch; the numbers are those of the lines alone.
echo "{\"input_ids\": [4, 60, 70, 80, 90, 1], \"attention_mask\": [1, 1, 0, 1, 1, 1], \"labels\": [$made]}" >"$work/hole.jsonl"
cat "$work/a.jsonl" "$work/hole.jsonl" "$work/b.jsonl" >"$work/mixed.jsonl"
for batch in 1 3; do "$exe" eval --data "$work/mixed.jsonl" --batch $batch --json "$work/hole.$batch" >/dev/null || fail "eval of mixed.jsonl"; done
same "a mask with a hole, in a batch" "$work/hole.1" "$work/hole.3"
"$exe" eval --data "$work/hole.jsonl" >"$work/out.hole" || fail "eval of hole.jsonl"
cmp -s "$work/out.a" "$work/out.hole" && fail "a hole in a mask makes no difference"
tokens=$(echo "$rest" | awk '{ print NF }')
[ "$tokens" -gt 2 ] && [ "$(awk 'END { print $2, $3, $5, $6 }' "$work/out.c")" = "1 $tokens 1.0000 1.0000" ] || fail "an ignored label: $(cat "$work/out.c")"
# Files of both kinds give both tables, as one each.
"$exe" eval --data "$work/q.jsonl" --data "$work/pairs.jsonl" >"$work/both" || fail "both kinds"
{ "$exe" eval --data "$work/q.jsonl"; echo; "$exe" eval --data "$work/pairs.jsonl"; } >"$work/out"
same "both kinds" "$work/out" "$work/both"

# ---- text ---------------------------------------------------------------------------------------------------------------

loss() { "$exe" eval --data "$work/$1.jsonl" $2 | awk 'END { print $3, $4 }'; }
echo '{"inputs": "abc a", "targets": "zq"}' >"$work/text.jsonl"
want=$("$exe" score --jsonl "$work/text.jsonl" | awk '{ printf "%d %.4f", NF - 1, -$1 / (NF - 1) }')
[ "$(loss text --input-eos)" = "$want" ] || fail "text: score says $want, eval $(loss text --input-eos)"
# The id of "a": the one that scores like the text.
echo '{"inputs": "a", "targets": "a"}' >"$work/a.jsonl"
awk 'BEGIN { for (i = 0; i < 256; i++) print "{\"input_ids\": [" i ", 1], \"labels\": [" i ", 1]}" }' >"$work/all.jsonl"
"$exe" score --jsonl "$work/a.jsonl" >"$work/one"
"$exe" score --jsonl "$work/all.jsonl" | awk -v one="$work/one" '
    BEGIN { getline want < one; split(want, w, " ") }
    ($1 - w[1]) ^ 2 < 1e-8 && ($2 - w[2]) ^ 2 < 1e-8 { print NR - 1 }' >"$work/id"
[ "$(wc -l <"$work/id")" = 1 ] || fail "no single id scores like \"a\": $(cat "$work/id")"
a=$(cat "$work/id")
echo "{\"input_ids\": [$a], \"labels\": [$a, 1]}" >"$work/b.jsonl"
echo "{\"input_ids\": [$a, 1], \"labels\": [$a, 1]}" >"$work/c.jsonl"
[ "$(loss a)" = "$(loss b)" ] || fail "text without end of sequence: $(loss a), not $(loss b)"
[ "$(loss a --input-eos)" = "$(loss c)" ] || fail "text with end of sequence: $(loss a --input-eos), not $(loss c)"
[ "$(loss b)" != "$(loss c)" ] || fail "an end of sequence makes no difference"
# What the model says to a text matches, blanks apart; so do its ids; another text does not.
said=
for text in zq q z "z q" "a z" k; do
    [ -n "$said" ] || { said=$("$exe" generate --text "$text" --max-length 8) asked=$text; }
done
[ -n "$said" ] || fail "the model says nothing"
says() {
    printf '{"inputs": "%s", "targets": "%s"}\n' "$asked" "$2" >"$work/a.jsonl"
    "$exe" eval --data "$work/a.jsonl" --input-eos >"$work/out" || fail "eval of text"
    [ "$(awk 'END { print $5 }' "$work/out")" = "$1.0000" ] || fail "'$said', for '$2': $(cat "$work/out")"
}
says 1 "$said"
says 1 "  $said "
says 0 "$said x"
says 0 ""
for c in '"yes"' '""'; do
    printf '{"inputs": "abc", "choices": ["a b", %s, "zq abc"], "label": 1, "task": "\\u001b[31mt\\u00e9\\"\\\\"}\n' "$c" >"$work/a.jsonl"
    for k in '"a b"' "$c" '"zq abc"'; do echo "{\"inputs\": \"abc\", \"targets\": $k}"; done >"$work/b.jsonl"
    "$exe" score --jsonl "$work/b.jsonl" | awk 'NR == 1 || $1 > most { most = $1; best = NR } END { printf "%.4f\n", best == 2 }' >"$work/want"
    "$exe" eval --input-eos --data "$work/a.jsonl" --json "$work/r.json" >"$work/out" || fail "choices of text"
    awk 'NR == 2 { print $NF }' "$work/out" >"$work/table"
    same "choices of text" "$work/want" "$work/table"
    LC_ALL=C grep -q '[^ -~]' "$work/out" "$work/r.json" && fail "names are printed raw: $(cat "$work/out")"
    grep -qF '"task": "\u001b[31mt\u00e9\u0022\u005c"' "$work/r.json" || fail "a name in JSON: $(cat "$work/r.json")"
done

# ---- sentence vectors ---------------------------------------------------------------------------------------------------

case=$adapters/mov-sentence
"$moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --matmul=native -O1 -o "$work/s" || exit 1
head -n 4 "$work/pairs.jsonl" >"$work/four.jsonl"
"$work/s" score --jsonl "$work/four.jsonl" --sentence "$case/short.sentence.npy" |
    awk '{ s -= $1; n += NF - 1 } END { printf "%d %.4f\n", n, s / n }' >"$work/want"
"$work/s" eval --data "$work/four.jsonl" --sentence "$case/short.sentence.npy" --batch 3 >"$work/out" || fail "eval --sentence"
awk 'END { print $3, $4 }' "$work/out" >"$work/table"
same "--sentence" "$work/want" "$work/table"
head -n 3 "$work/pairs.jsonl" >"$work/three.jsonl"
for n in four,four three; do
    data=$(echo "$n" | sed "s#\([a-z]*\)#--data $work/\1.jsonl#g; s/,/ /")
    # shellcheck disable=SC2086
    "$work/s" eval $data --sentence "$case/short.sentence.npy" >"$work/out" 2>"$work/err" && fail "$n: vectors and lines differ in number"
    grep -q 'vector' "$work/err" || fail "$n: $(cat "$work/err")"
done

# ---- refusals ---------------------------------------------------------------------------------------------------------------

good='{"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1}'
pair='{"input_ids": [5, 1], "labels": [7, 1]}'
mkdir "$work/left"
# refuse CODE WORD OPTIONS...
refuse() {
    code=$1 word=$2
    shift 2
    (cd "$work/left" && "$exe" eval "$@") >"$work/out" 2>"$work/err"
    got=$?
    [ $got = "$code" ] || fail "$*: exit code $got, not $code"
    [ ! -s "$work/out" ] || fail "$*: writes to standard output"
    [ "$(wc -l <"$work/err")" = 1 ] && grep -qF -e "$word" "$work/err" || fail "$*: '$word' is not in: $(cat "$work/err")"
    [ -z "$(ls -A "$work/left")" ] || fail "$*: leaves $(ls -A "$work/left")"
    rm -f "$work/left"/*
}
"$exe" eval --data "$work/q.jsonl" --json - >"$work/whole"
# bad FIRST WORD LINE: the line is refused behind a good one, and passed over with --skip-bad.
bad() {
    printf '%s\n%s\n%s\n' "$1" "$3" "$1" >"$work/bad.jsonl"
    refuse 1 "bad.jsonl:2: error: " --data "$work/bad.jsonl" --json r.json
    grep -qF -e "$2" "$work/err" || fail "$3: '$2' is not in: $(cat "$work/err")"
    printf '%s\n%s\n' "$1" "$1" >"$work/good.jsonl"
    "$exe" eval --data "$work/good.jsonl" >"$work/want"
    "$exe" eval --data "$work/bad.jsonl" --skip-bad >"$work/out" 2>"$work/err" || fail "--skip-bad: $3"
    same "--skip-bad: $3" "$work/want" "$work/out"
    grep -q "skipped: 1; the first: .*bad.jsonl:2: " "$work/err" && grep -qF -e "$2" "$work/err" || fail "--skip-bad: $(cat "$work/err")"
}
while read -r word line; do bad "$good" "$word" "$line"; done <<'END'
column {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1
twice {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1, "label": 1}
object [5, 1]
inputs {"choices_ids": [[7, 1], [8, 1]], "label": 1}
input_ids {"input_ids": 5, "choices_ids": [[7, 1], [8, 1]], "label": 1}
token {"input_ids": [], "choices_ids": [[7, 1], [8, 1]], "label": 1}
token {"input_ids": [5, "x"], "choices_ids": [[7, 1], [8, 1]], "label": 1}
256 {"input_ids": [5, 256], "choices_ids": [[7, 1], [8, 1]], "label": 1}
-1 {"input_ids": [5, -1], "choices_ids": [[7, 1], [8, 1]], "label": 1}
exclude {"input_ids": [5, 1], "inputs": "a", "choices_ids": [[7, 1], [8, 1]], "label": 1}
exclude {"input_ids": [5, 1], "choices": ["a"], "choices_ids": [[7, 1], [8, 1]], "label": 1}
choices {"input_ids": [5, 1], "label": 1}
choices {"input_ids": [5, 1], "labels": [7, 1]}
empty {"input_ids": [5, 1], "choices": [], "label": 0}
choices {"input_ids": [5, 1], "choices": "a", "label": 0}
choices[1] {"input_ids": [5, 1], "choices": ["a", [5]], "label": 0}
choices[1] {"input_ids": [5, 1], "choices": [[5], "a"], "label": 0}
choices_ids[0] {"input_ids": [5, 1], "choices_ids": ["a"], "label": 0}
choices_ids[1] {"input_ids": [5, 1], "choices_ids": [[7, 1], []], "label": 1}
choices_ids[1] {"input_ids": [5, 1], "choices_ids": [[7, 1], [-100]], "label": 1}
choices_ids[1] {"input_ids": [5, 1], "choices_ids": [[7, 1], [300]], "label": 1}
label {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]]}
label {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 2}
label {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": -1}
label {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1.0}
label {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": "1"}
task {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1, "task": 5}
prompt {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1, "prompt": null}
attention_mask {"input_ids": [5, 1], "attention_mask": [1], "choices_ids": [[7, 1], [8, 1]], "label": 1}
attention_mask {"input_ids": [5, 1], "attention_mask": [1, 2], "choices_ids": [[7, 1], [8, 1]], "label": 1}
attention_mask {"input_ids": [5, 1], "attention_mask": [0, 0], "choices_ids": [[7, 1], [8, 1]], "label": 1}
END
bad "$good" UTF-8 "$(printf '{"inputs": "\377", "choices": ["b"], "label": 0}')"
while read -r word line; do bad "$pair" "$word" "$line"; done <<'END'
choices {"input_ids": [5, 1], "choices_ids": [[7, 1], [8, 1]], "label": 1}
targets {"input_ids": [5, 1]}
labels {"input_ids": [5, 1], "labels": [-100, -100]}
labels {"input_ids": [5, 1], "labels": [7, -5]}
targets {"input_ids": [5, 1], "targets": 7}
exclude {"input_ids": [5, 1], "targets": "a", "labels": [7, 1]}
END
printf '%s\n\n%s\n' "$pair" "$pair" >"$work/gap.jsonl"
refuse 1 "gap.jsonl:2: error: the line is empty" --data "$work/gap.jsonl"
printf '%s\n\n\n' "$pair" >"$work/end.jsonl"
"$exe" eval --data "$work/end.jsonl" >"$work/out" || fail "blank lines at the end"
awk 'BEGIN { printf "{\"input_ids\": [5"; for (i = 0; i < 1100; i++) printf ", 5"; print "], \"labels\": [1]}" }' >"$work/long.jsonl"
refuse 1 "long.jsonl:1: error: input_ids holds 1101 tokens" --data "$work/long.jsonl"
: >"$work/empty.jsonl"
refuse 1 "empty.jsonl: error: holds no example" --data "$work/empty.jsonl"
echo '{}' >"$work/none.jsonl"
refuse 1 "none.jsonl: error: holds no example but bad ones" --data "$work/none.jsonl" --skip-bad
refuse 1 nothere.jsonl --data "$work/nothere.jsonl"
refuse 1 "at most 64" --data "$work/q.jsonl" --batch 65
refuse 1 sentence --data "$work/q.jsonl" --sentence "$case/short.sentence.npy"
refuse 1 r.json --data "$work/q.jsonl" --json no/such/r.json
refuse 2 "--data" --normalize length
refuse 2 "--normalize" --data "$work/q.jsonl" --normalize tokens
refuse 2 "takes no --ids" --data "$work/q.jsonl" --ids 5
[ $status = 0 ] && echo "eval: choices and pairs as score and generate have them, text, names, refusals"
exit $status
