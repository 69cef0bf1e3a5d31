#!/bin/sh
# Dumps that the READMEs explain line by line are what the compiler makes. A block stands behind a line
# `<!-- tests/explained.sh: NAME -->`, indented by four; `# ...` at the end of its lines are the explanations, which stand
# nowhere else, or they are lines of their own above a long one. The check takes them away and compares; no line but a
# closing brace may be without one.
#
#   MOEC_BLESS=1 sh tests/explained.sh    writes the blocks anew, each explanation at the line it stood at
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "explained: $*" >&2; status=1; }

echo '{ "moec_adapter": 1, "method": "molora", "experts": 4, "rank": 2, "sites": [ { "match": "encoder.*.self.q" } ] }' >"$work/molora.json"
"$moec" dump "$tiny" --adapter "$tiny/mov10.json" --stop-after=fuse -o "$work/mov.ir" || exit 1
"$moec" dump "$tiny" --adapter "$work/molora.json" --stop-after=fuse -o "$work/molora.ir" || exit 1

# part FILE FUNCTION FROM TO KERNELS: calls of FUNCTION from the first line with FROM to the first with TO, then those of
# the kernels called whose names begin with one of KERNELS (a,b,c), each once. Left out: origins, the types of what calls
# give, steps of 1, digits of floats beyond six; values are numbered.
part() {
    awk -v entry="func @$2 entry " -v from="$3" -v to="$4" -v wanted="$5" '
function short(line,   out) {
    sub(/  !".*$/, "", line)
    if (line ~ / = call /) sub(/} : .*$/, "}", line)
    gsub(/, step = \[1(, 1)*\]/, "", line)
    while (match(line, /[0-9]\.[0-9]+e-[0-9]+/)) {
        out = out substr(line, 1, RSTART - 1) sprintf("%.6g", substr(line, RSTART, RLENGTH))
        line = substr(line, RSTART + RLENGTH)
    }
    return out line
}
# Values by number, but for the inputs.
function numbered(line,   out, name) {
    out = ""
    while (match(line, /%[A-Za-z0-9_.]+/)) {
        name = substr(line, RSTART, RLENGTH)
        if (!(name in input) && !(name in number)) number[name] = values++
        out = out substr(line, 1, RSTART - 1) (name in input ? name : "%" number[name])
        line = substr(line, RSTART + RLENGTH)
    }
    return out line
}
index($0, entry) == 1 {
    inside = 1
    rest = $0
    while (match(rest, /%[A-Za-z0-9_.]+ :/)) { input[substr(rest, RSTART, RLENGTH - 2)] = 1; rest = substr(rest, RSTART + RLENGTH) }
    next
}
/^}/ { inside = 0 }
inside {
    if (index($0, from)) shown = 1
    line = numbered(short($0)) # all of them, for the numbers to be those of the function
    if (shown) {
        print line
        if (match($0, /func = @[a-z0-9_]+/)) {
            name = substr($0, RSTART + 8, RLENGTH - 8)
            n = split(wanted, w, ",")
            for (i = 1; i <= n; i++) if (w[i] != "" && index(name, w[i]) == 1 && !(name in listed)) { listed[name] = 1; order[++kernels] = name }
        }
    }
    if (shown && index($0, to)) inside = shown = 0
}
/^func @.* kernel / { text = ""; name = substr($2, 2); reading = 1 }
reading { text = text "\n" short($0) }
/^}/ { if (reading) body[name] = text; reading = 0 }
END { for (i = 1; i <= kernels; i++) print body[order[i]] }' "$1"
}

# block README NAME: its lines, without the indent.
block() {
    awk -v mark="<!-- tests/explained.sh: $2 -->" '
$0 == mark { inside = 1; next }
inside && /^    / { print substr($0, 5); seen = 1; next }
inside && /^$/ { if (seen) print; next }
inside { exit }' "$1" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
}

# Without explanations: those at the ends of lines, and those that stand above a line.
plain() { sed -e '/^ *# /d' -e 's/ *# .*$//'; }

# check README NAME: what the compiler makes, on standard input.
check() {
    cat >"$work/new"
    block "$root/$1" "$2" >"$work/old"
    [ -s "$work/new" ] || { fail "$2: nothing was made"; return; }
    plain <"$work/old" >"$work/old.plain"
    if [ -z "$MOEC_BLESS" ]; then
        cmp -s "$work/new" "$work/old.plain" || {
            diff "$work/old.plain" "$work/new"
            fail "$1, $2: not what the compiler makes; MOEC_BLESS=1 sh tests/explained.sh writes it anew"
        }
        awk '/^ *# / { above = 1; next } $0 != "}" && $0 != "" && !/# / && !above { print; bare = 1 } { above = 0 } END { exit bare }' "$work/old" ||
            fail "$1, $2: lines without an explanation"
        return
    fi
    # explanations by line, numbers of kernels and weights aside; of equal lines in their order
    awk -v old="$work/old" -v mark="<!-- tests/explained.sh: $2 -->" -v new="$work/new" '
function key(line) { gsub(/_[0-9]+/, "_N", line); return line }
function indent(line) { match(line, /^ */); return sprintf("%*s", RLENGTH, "") }
BEGIN {
    while ((getline line < old) > 0) {
        if (line ~ /^ *# /) { sub(/^ */, "", line); above = above (above == "" ? "" : "\n") line; continue }
        why = above
        above = ""
        if (match(line, / *# .*$/)) { why = substr(line, RSTART); sub(/^ */, "", why); line = substr(line, 1, RSTART - 1) }
        k = key(line)
        says[k, ++had[k]] = why
    }
    while ((getline line < new) > 0) {
        k = key(line)
        why = says[k, ++have[k]]
        if (line == "") { text = text "\n"; continue }
        if (why == "" && line != "}") print "explained: no explanation yet: " line > "/dev/stderr"
        if (length(line) > 70 || why ~ /\n/) {
            n = split(why, w, "\n")
            for (i = 1; i <= n; i++) text = text "    " indent(line) w[i] "\n"
            why = ""
        }
        text = text "    " line (why == "" ? "" : sprintf("%*s", length(line) < 54 ? 56 - length(line) : 2, "") why) "\n"
    }
}
$0 == mark { print; print ""; printf "%s\n", text; skip = 1; next }
skip && (/^    / || /^$/) { next }
{ skip = 0; print }' "$root/$1" >"$work/readme" && cat "$work/readme" >"$root/$1"
}

part "$work/mov.ir" encode "" 'site = "encoder.0.ffn.wi"' encoder_,attention >"$work/made"
check compiler/README.md mov-encoder <"$work/made"
part "$work/mov.ir" cross "" return "" >"$work/made"
check compiler/README.md mov-cross <"$work/made"
part "$work/mov.ir" step 'attention_' 'site = "decoder.0.cross.o"' attention,decoder_cross_q >"$work/made"
check compiler/README.md mov-decoder <"$work/made"
part "$work/molora.ir" encode 'site = "encoder.0.self.q"' 'site = "encoder.0.self.q"' encoder_self_q >"$work/made"
check compiler/README.md molora-q <"$work/made"
part "$work/mov.ir" encode 'site = "encoder.0.ffn.wi"' 'site = "encoder.0.ffn.wi"' encoder_ffn | sed 1,2d >"$work/made"
check README.md ffn <"$work/made"
exit $status
