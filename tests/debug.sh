#!/bin/sh
# moec compile -g: machine code refers to lines of NAME.ir, which hold the node it computes; calls of kernels to lines with
# the ONNX node. The same bytes whatever the folder and the scratch folder, and no path of either in them.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
for tool in objdump addr2line nm; do
    command -v $tool >/dev/null 2>&1 || { echo "skipped: $tool is not installed"; exit 77; }
done
moec=$(cd "$(dirname "$moec")" && pwd)/$(basename "$moec")
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "debug: $*" >&2; status=1; }
compilers=gcc
# addr2line of binutils 2.40 does not see what clang says in DWARF 5 of inlined functions.
if command -v clang >/dev/null 2>&1; then
    compilers="gcc clang"
    printf '#!/bin/sh\nexec clang "$@" -gdwarf-4\n' >"$work/clang"
    chmod +x "$work/clang"
else
    echo "clang: not installed, skipped"
fi
compile() { "$moec" compile "$tiny" --adapter "$case/spec.json" --matmul=native -O1 "$@"; }

# ADDRESS SYMBOL of every instruction of kernels and entry functions; of models in several files, called `split`, without that.
instructions() {
    objdump -d --no-show-raw-insn "$1" | awk '
        /^[0-9a-f]+ <.*>:$/ { name = substr($2, 2, length($2) - 3); sub(/^split_/, "", name); take = name ~ /^(k[0-9]+(_.*)?|run_[0-9]+(_[0-9]+)?)$/ && name !~ /_table$/ }
        take && /^ +[0-9a-f]+:/ { sub(":", "", $1); print $1, name }'
}

# For each instruction but few the frame of the function itself (of what LLVM inlined into it: a parallel loop's body) stands in the lines of that function in the IR; each
# kernel has instructions on lines of nodes, but those that run the code of another (NAME_any); each call of an entry function has some on its line, which names an ONNX node.
# SHARE: of the calls, those with an ONNX node; gradients have none.
check_lines() {
    exe=$1 ir=$2 share=$3
    instructions "$exe" >"$work/instructions"
    [ -s "$work/instructions" ] || { fail "$exe: no kernels"; return; }
    cut -d' ' -f1 "$work/instructions" | addr2line -e "$exe" -a -i -f >"$work/frames"
    awk -v ir="$(basename "$ir")" -v share="$share" '
        function bad(why) { if (failed++ < 5) print "debug: " why | "cat >&2" }
        FILENAME ~ /\.ir$/ {
            text[FNR] = $0
            if (/^func @/) { name = $2; sub("@", "", name); role = $3; first = FNR }
            if (/^}/) { from[name] = first; to[name] = FNR; kind[name] = role }
            if (first && role == "entry" && / call /) calls[FNR] = 1
            next
        }
        FILENAME ~ /instructions$/ { symbol[FNR] = $2; n = FNR; next }
        /^0x/ { at++; frame = ""; next }
        # a frame is its function, then FILE:LINE
        (++half) % 2 == 0 { frame = $1; last[at] = frame; if (!(at in inner) && index(frame, "/" ir ":")) inner[at] = frame }
        END {
            for (i = 1; i <= n; i++) {
                if (symbol[i] !~ /^run_/ && i in inner) last[i] = inner[i] # LLVM puts a task around the loop body
                file = last[i]; sub(/:[0-9?]+$/, "", file); sub(/.*\//, "", file)
                line = last[i]; sub(/.*:/, "", line); line += 0
                s = symbol[i]; name = s; part = sub(/_(task|body|rows|phase|job|any)(\.[0-9]+)?$/, "", name); sub(/^k[0-9]+_/, "", name)
                if (!(name in from)) part += sub(/_[0-9]+$/, "", name) # a phase of C
                if (part) own[name] = 1
                if (file == "moec_kernel.h" || last[i] ~ /\?$/) continue # inlined without a trace; of no line
                if (file != ir) { if (++strays > n / 1000) bad(s " is in " last[i]); continue } # compilers move a few out of what they inline
                known++
                if (s ~ /^run_/) { seen[line] = 1; entries[s] = 1; continue }
                if (name == "prepare") { # made of an init function
                    name = ""
                    for (f in from) if (kind[f] == "init" && from[f] <= line && line <= to[f]) name = f
                }
                if (!(name in from) || line < from[name] || line > to[name]) bad(s " is said to be " last[i] ": " text[line])
                kernels[name] = 1
                if (text[line] ~ / = /) nodes[name]++
            }
            for (k in kernels) { total++; if (!nodes[k] && k in own && (share > 0.5 || kind[k] != "init")) bad(k " has no instruction on the line of a node") }
            for (c in calls) {
                if (!(c in seen)) bad("no instruction on line " c ": " text[c])
                all++
                onnx += text[c] ~ /!"\//
            }
            if (total < 10 || onnx < all * share) bad(total " kernels; an ONNX node on " onnx " of " all " calls")
            if (known < n * 0.6) bad("lines of " known " of " n " instructions")
            exit failed > 0
        }' "$ir" "$work/instructions" "$work/frames" || fail "$exe: lines"
}

if "$moec" --version | grep -q LLVM; then compilers="$compilers llvm"; else echo "LLVM: not built in, skipped"; fi
for cc in $compilers; do
    case $cc in llvm) with=--backend=llvm ;; clang) with=--cc=$work/clang ;; *) with=--cc=$cc ;; esac
    for folder in one another; do
        mkdir -p "$work/$cc.$folder" "$work/scratch.$folder"
        (cd "$work/$cc.$folder" && TMPDIR="$work/scratch.$folder" compile -g $with -o t5) || fail "$cc: compile -g"
    done
    for file in t5 t5.ir; do
        cmp "$work/$cc.one/$file" "$work/$cc.another/$file" || fail "$cc: $file depends on the folder"
        grep -c "$work" "$work/$cc.one/$file" >/dev/null && fail "$cc: $file names the folder"
    done
    check_lines "$work/$cc.one/t5" "$work/$cc.one/t5.ir" 0.8
done

# What a debugger shows, from the folder that has the IR.
if command -v gdb >/dev/null 2>&1; then
    kernel=$(nm "$work/gcc.one/t5" | awk '/ t k[0-9]+_.*attention.*_task$/ { print $3; exit }')
    (cd "$work/gcc.one" && gdb -nx -batch -ex "list $kernel" t5) 2>/dev/null | grep -q "^[0-9]*.func @attention_.* kernel" || fail "gdb does not show the IR"
else
    echo "gdb: not installed, skipped"
fi

# The file is the dump, and IR like any other.
"$moec" dump "$tiny" --adapter "$case/spec.json" -o "$work/dump.ir" && cmp "$work/dump.ir" "$work/gcc.one/t5.ir" || fail "t5.ir is not the dump"

# The folder of sources. addr2line of binutils 2.40 mistakes the first file of DWARF 5 for another.
compile -g --emit=c --prefix=tiny -o "$work/c" && (cd "$work/c" && make tiny.o CFLAGS="-gdwarf-4 -O1" >/dev/null) || fail "--emit=c -g"
check_lines "$work/c/tiny.o" "$work/c/tiny.ir" 0.8
# In C each node's comment stands on the node's line, each matrix product on that of an op that has one.
check_source() { # IR C... # all files of a model
    awk '
        function bad(why) { if (failed++ < 5) print "debug: line " line ": " why " | " text[line] | "cat >&2" }
        FILENAME ~ /\.ir$/ { text[FNR] = $0; next }
        /^#line .*\.ir"$/ { line = $2; next }
        /^#line/ { line = 0; next }
        FNR == 1 { line = 0 }
        / = .* \*\/$/ && /^ *\/\* %?[a-z0-9_.]/ {
            note = $0; sub(/^ *\/\* /, "", note); sub(/ \*\/$/, "", note)
            node = text[line]; gsub(/@/, "%", node) # parameters are arguments of a kernel
            if (node != "  " note && note !~ /\\/) bad(note); else notes++
        }
        /moec_matmul\(|^ +panel_[a-z]*[0-9]+\(/ { if (text[line] ~ / (matmul|attention|attention_grad|cross_entropy[a-z_]*) /) products++; else bad($0) }
        END { if (notes < 30 || products < 10) bad(notes " notes, " products " products"); exit failed > 0 }' "$@" || fail "lines of $2"
}
check_source "$work/c/tiny.ir" "$work/c/tiny.c"
compile --emit=c --prefix=tiny -o "$work/plain" || fail "--emit=c"
[ ! -e "$work/plain/tiny.ir" ] || fail "an IR file without -g"
grep -q '^#line' "$work/plain/tiny.c" && fail "#line without -g"
sed '/^#line/d' "$work/c/tiny.c" | cmp - "$work/plain/tiny.c" || fail "-g changes more than lines"

# The same of a model that is split: each file has lines of its own.
compile -g --emit=c --train --prefix=split -o "$work/split" && (cd "$work/split" && make -j2 CFLAGS="-gdwarf-4 -O1" >"$work/log" 2>&1) || { cat "$work/log"; fail "--emit=c --train -g"; }
[ -f "$work/split/split_encoder.c" ] && [ -f "$work/split/split_train_backward.c" ] || fail "the model stands in one file"
check_lines "$work/split/split" "$work/split/split.ir" 0.3
check_source "$work/split/split.ir" "$work"/split/split*.c
for file in "$work"/split/split*.c; do
    awk -v name="$(basename "$file")" '
        /^#line/ && $3 != "\"split.ir\"" { n++; if ($2 != FNR + 1 || $3 != "\"" name "\"") { print FILENAME ":" FNR ": " $0; bad = 1 } }
        /^#line/ && $3 == "\"split.ir\"" { ir++ }
        END { exit bad || (ir && !n) }' "$file" >&2 || fail "lines of $(basename "$file") itself"
done

# The input is never written over.
cp "$work/dump.ir" "$work/model.ir"
"$moec" compile "$work/model.ir" -g --matmul=native -O0 -o "$work/model" 2>"$work/log" && fail "the input was written over"
grep -q "model.ir: error: is the input" "$work/log" || fail "message: $(cat "$work/log")"
cmp "$work/dump.ir" "$work/model.ir" || fail "the input was changed"
for left in "$work/model" "$work/model.weights" "$work"/scratch.*/*; do [ ! -e "$left" ] || fail "left behind: $left"; done
[ $status = 0 ] && echo "debug: the lines of every instruction, the bytes of every build"
exit $status
