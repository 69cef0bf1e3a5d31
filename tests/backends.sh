#!/bin/sh
# The interpreter, compiled C and LLVM's code give the same results: seeded inputs, the same function, numbers compared to
# 2e-5 of the output's norm with the interpreter, and to 1e-6 of it between the two that are compiled.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0

if "$moec" --version | grep -q LLVM; then llvm=llvm; else llvm= && echo "LLVM: not built in, skipped"; fi

# same LABEL A B TOLERANCE: every number of both summaries.
same() {
    awk -v label="$1" -v tolerance="$4" '
        function abs(x) { return x < 0 ? -x : x }
        NR == FNR { line[FNR] = $0; n = FNR; next }
        {
            k = split(line[FNR], a, " ")
            if (k != NF) bad = 1
            for (i = 1; i <= NF; i++)
                if (a[i] == "norm") norm = a[i + 1] == a[i + 1] + 0 ? a[i + 1] : 0
            for (i = 1; i <= NF; i++) {
                if (a[i] == $i) continue
                d = abs(a[i] - $i)
                if ($i !~ /^-?[0-9.]+(e[-+]?[0-9]+)?$/ || d > tolerance * (abs(norm) + 1)) bad = 1
            }
        }
        END {
            if (bad || FNR != n || !n) { print label " differ"; exit 1 }
            print label " agree"
        }' "$2" "$3" || { cat "$2" "$3"; status=1; }
}

# both LABEL MODEL OPTIONS...
both() {
    label=$1
    shift
    for backend in interp c $llvm; do
        "$moec" run "$@" --backend=$backend -O1 >"$work/$backend" 2>"$work/err" || { cat "$work/err" >&2; status=1; return; }
    done
    same "$label: interpreter and C" "$work/interp" "$work/c" 2e-5
    [ -z "$llvm" ] || same "$label: C and LLVM" "$work/c" "$work/llvm" 1e-6
}

all=bind,fold,match,attach,derive,cse,fuse,plan
both shapes "$root/tests/ir/shapes.ir" --passes=$all
both random "$root/tests/ir/random.ir" --passes=$all --dim B=5 --dim T=70
both loss "$root/tests/ir/loss.ir" --passes=$all --dim B=5 --dim T=70
both "loss of one token" "$root/tests/ir/loss.ir" --passes=$all --dim B=1 --dim T=1
both attention "$root/tests/ir/attention_grad.ir" --passes=fuse,plan --dim B=3 --dim T=37 --dim S=70
both "attention, few keys" "$root/tests/ir/attention_grad.ir" --passes=fuse,plan --dim B=1 --dim T=1 --dim S=3
both "attention of views" "$root/tests/ir/attention_views.ir" --passes=fuse,plan --dim B=2 --dim T=70 --dim S=45
both gradients "$root/tests/ir/gradients.ir" --passes=$all --dim B=5 --dim T=70
both "gradients of one token" "$root/tests/ir/gradients.ir" --passes=$all --dim B=1 --dim T=1
both "gradients of many tokens" "$root/tests/ir/gradients.ir" --passes=$all --dim B=8 --dim T=300
both block "$root/tests/ir/roundtrip.ir" --passes=fold,cse,fuse,plan
# Dumps of every stage are compiled from there on.
"$moec" run "$root/examples/t5-tiny" --passes=$all --func encode --dump-ir=all --dump-dir="$work/stages" >/dev/null ||
    status=1
for stage in 01-before-bind 04-after-attach; do
    both "dump $stage" "$work/stages/$stage.ir" --func step --passes=$all
done
for stage in 05-after-derive 07-after-fuse 08-after-plan; do
    both "dump $stage" "$work/stages/$stage.ir" --func step
done
for method in mov molora; do
    printf '{"moec_adapter": 1, "method": "%s", "experts": 3%s}\n' $method \
        "$([ $method = molora ] && echo ', "rank": 2')" >"$work/$method.json"
    for func in encode step score; do
        both "t5-tiny $method $func" "$root/examples/t5-tiny" --adapter "$work/$method.json" --passes=$all --func $func
    done
done
exit $status
