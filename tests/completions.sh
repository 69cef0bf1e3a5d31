#!/bin/sh
# moec describe: bash, zsh and fish offer what the option table has, the parser takes every choice that is offered and names
# them where it refuses one, and the manual page is clean. Programs that are not installed are skipped.
moec=${MOEC:-build/moec}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "completions: $*" >&2; status=1; }
have() { command -v "$1" >/dev/null 2>&1 || { echo "$1: not installed, skipped"; return 1; }; }
for kind in bash zsh fish man; do
    "$moec" describe $kind >"$work/moec.$kind" && [ -s "$work/moec.$kind" ] || fail "describe $kind"
done
passes=$("$moec" opt --help | awk '/^passes/ { list = 1; next } list && NF { printf "%s ", $1 }')
[ "$(echo "$passes" | wc -w)" -ge 5 ] || fail "passes of opt --help: $passes"
# words COMMAND OPTION: what --help lists.
words() { "$moec" "$1" --help | sed -n "s/^  $2[= ]\\([a-z0-9|]*\\).*/\\1/p" | tr '|' ' '; }
emits=$(words compile --emit)
backends=$(words run --backend)
[ "$(echo "$emits $backends" | wc -w)" -ge 8 ] || fail "--emit and --backend in --help: $emits, $backends"

# ---- what is typed, up to the cursor | the words offered, without what stands before the last = : or comma
mkdir -p "$work/at/t5" "$work/at/golden" && cd "$work/at" || exit 1
for file in t5.onnx spec.json; do : >$file; done
cat >"$work/cases" <<END
moec comp|compile
moec adapter |export import
moec adapter im|import
moec describe |bash fish man zsh
moec describe f|fish
moec compile --em|--embed-weights --emit
moec compile --emit=|$emits
moec compile --emit s|shared
moec compile --matmul=na|native
moec compile t5 --golden|
moec run x.ir --backend=|$backends
moec verify --golden=|golden t5
moec opt x.ir --stop-after=f|fold fuse
moec compile -march=ge|generic
moec compile -march n|native
moec opt x.ir --passes=bind,fo|fold
moec opt x.ir --dump-ir=after:|$passes
moec opt x.ir --dump-ir before:pl|plan
moec opt x.ir --dump-ch|--dump-changed
moec opt x.ir --dump-changed=|diff
moec diff a.ir t5.|t5.onnx
moec compile t5 --adapter=spec|spec.json
moec compile --adapter spec|spec.json
moec compile t|t5 t5.onnx
moec compile -o t5.|t5.onnx
moec info --value mask=t5.|t5.onnx
moec adapter import go|golden
moec compile --emit c --matm|--matmul
END

# The lines of a shell's answer, made comparable: no description, no suffix, nothing that stands before.
plain() { sed 's/\t.*//; s/[ /=]*$//; s/.*[=:,]//; /^$/d' | sort -u | tr '\n' ' '; }
# compare SHELL COMMAND...: COMMAND gets a typed line and prints what is offered, one a line.
compare() {
    shell=$1
    shift
    while IFS='|' read -r typed want; do
        want=$(echo "$want" | tr ' ' '\n' | plain)
        got=$("$@" "$typed" 2>"$work/err" </dev/null | plain)
        [ "$got" = "$want" ] && [ ! -s "$work/err" ] || fail "$shell: '$typed': '$got' is not '$want' $(head -c 300 "$work/err")"
    done <"$work/cases"
    echo "$shell: $(wc -l <"$work/cases") cases"
}

# Bash gives the function words that are split at the breaks, which are words of their own.
cat >"$work/ask.bash" <<'END'
source "$1"
COMP_WORDBREAKS=$2
read -ra raw <<<"$3"
[[ $3 == *' ' ]] && raw+=('')
COMP_WORDS=()
for word in "${raw[@]}"; do
    while [[ -n $2 && $word =~ ^([^=:]*)([=:])(.*)$ ]]; do
        [[ -n ${BASH_REMATCH[1]} ]] && COMP_WORDS+=("${BASH_REMATCH[1]}")
        COMP_WORDS+=("${BASH_REMATCH[2]}")
        word=${BASH_REMATCH[3]}
        [[ -z $word ]] && continue 2
    done
    COMP_WORDS+=("$word")
done
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_moec moec "${COMP_WORDS[COMP_CWORD]}" ''
printf '%s\n' "${COMPREPLY[@]}"
END
if have bash; then
    bash -n "$work/moec.bash" || fail "moec.bash is no bash"
    compare bash bash --norc "$work/ask.bash" "$work/moec.bash" "=:"
    compare "bash without breaks" bash --norc "$work/ask.bash" "$work/moec.bash" ""
    got=$(bash --norc "$work/ask.bash" "$work/moec.bash" "=:" "moec opt x.ir --dump-ir=after:pl")
    [ "$got" = plan ] || fail "bash: what stands before a break is offered again: $got"
fi

cat >"$work/ask.fish" <<'END'
source $argv[1]
complete -C $argv[2]
END
if have fish; then
    fish -n "$work/moec.fish" || fail "moec.fish is no fish"
    HOME=$work XDG_CONFIG_HOME=$work XDG_DATA_HOME=$work compare fish fish "$work/ask.fish" "$work/moec.fish"
fi

# Zsh completes in a line editor alone: one on a terminal of its own, whose matches go to a file.
cat >"$work/ask.zsh" <<'END'
zmodload zsh/zpty
out=$1.out
: >$out
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -Uz compinit; compinit -u -D; source $1; compadd() { local -a hits; builtin compadd -O hits \"\$@\"; print -rl -- \$hits >>$out; builtin compadd \"\$@\" }
ask() { BUFFER=${(q)2}; CURSOR=\$#BUFFER; zle complete-word; print done >>$out.done; exit }; zle -N ask; bindkey ^T ask; print ready >>$out.ready"
for ((i = 0; i < 200; i++)); do [[ -e $out.ready ]] && break; sleep 0.05; zpty -rt shell got; done
zpty -w -n shell $'\C-t'
for ((i = 0; i < 100; i++)); do [[ -e $out.done ]] && break; sleep 0.05; zpty -rt shell got; done
[[ -e $out.done ]] || print -u2 "no answer: $got"
rm -f $out.ready $out.done
zpty -d shell
cat $out
END
if have zsh; then
    zsh -n "$work/moec.zsh" || fail "moec.zsh is no zsh"
    compare zsh zsh -f "$work/ask.zsh" "$work/moec.zsh"
fi

# ---- what the table offers the parser takes, and the refusal of anything else lists it
: >x.ir
usage() { # EXPECTED WORDS...: exit code 2 and, in the message, EXPECTED
    want=$1
    shift
    "$moec" "$@" >"$work/out" 2>&1
    code=$?
    [ $code = 2 ] && grep -qF -e "$want" "$work/out" || fail "moec $*: exit $code, not 2 with '$want': $(head -c 300 "$work/out")"
}
usage "--emit wants exe, obj, lib, " compile t5 --emit=exes
usage "--matmul wants auto, native or openblas, not 'blas'" compile t5 --matmul blas
usage "--backend wants interp" run x.ir --backend=llvmish
usage "--verify wants each or none" dump x.ir --verify=
usage "-O wants 0, 1, 2 or 3" dump x.ir -O4
usage "--stop-after wants PASS (passes: bind, " dump x.ir --stop-after=fusion
usage "--passes wants PASS,..." opt x.ir --passes=fold,fusion
usage "--dump-ir wants all, before:PASS or after:PASS (passes: " opt x.ir --dump-ir=during:fold
usage "--dump-changed wants diff, not 'some'" dump x.ir --dump-changed=some
usage "wants bash, zsh, fish or man, not 'csh'" describe csh
takes() { # WORDS...: anything but a usage error
    "$moec" "$@" >"$work/out" 2>&1
    [ $? -lt 2 ] || fail "moec $*: $(head -c 300 "$work/out")"
}
for k in 0 1 2 3; do takes dump missing.ir -O$k; done
for k in $backends; do takes run missing.ir --backend=$k; done
for k in each none; do takes dump missing.ir --verify=$k; done
takes dump --dump-changed missing.ir
takes dump missing.ir --dump-changed=diff
for k in $emits; do takes compile missing.ir --emit=$k; done
for k in native generic armv9-a; do takes compile missing.ir -march=$k; done
for k in $passes; do takes dump missing.ir --stop-after=$k --dump-ir=before:$k --dump-ir after:$k; done
takes opt missing.ir --passes= --dump-ir=all

# ---- the manual page: every command and option, and no complaint
for name in $("$moec" --help | awk '$1 == "moec" && NF > 2 { print $2 }'); do
    grep -q "^\.SS moec $name\$" "$work/moec.man" || fail "moec.1 lacks the command $name"
    "$moec" "$name" --help | sed -n 's/^  \(--*[a-zA-Z-]*\).*/\1/p' | sed 's/-/\\-/g' | while read -r option; do
        sed -n "/^\.SS moec $name\$/,/^\.S[SH] /p" "$work/moec.man" | grep -qF -e "\\fB$option\\fR" || echo "$name $option"
    done
done >"$work/missing"
[ ! -s "$work/missing" ] || fail "moec.1 lacks: $(cat "$work/missing")"
if have groff; then
    groff -man -Tutf8 -ww "$work/moec.man" >"$work/page" 2>"$work/err" && [ ! -s "$work/err" ] || fail "groff: $(head -c 300 "$work/err")"
    grep -q 'Completion in the shell' "$work/page" || fail "moec.1 is cut short"
fi
if have mandoc; then
    mandoc -T lint -W style "$work/moec.man" >"$work/err" || fail "mandoc: $(head -c 300 "$work/err")"
fi
exit $status
