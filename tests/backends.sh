#!/bin/sh
# The interpreter, compiled C and LLVM's code give the same results: seeded inputs, the same function, numbers compared to
# 2e-5 of the output's norm with the interpreter, and to 1e-6 of it between the two that are compiled.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0

. "$root/tests/both.inc"

all=bind,fold,match,attach,derive,cse,fuse,pack,plan
both shapes "$root/tests/ir/shapes.ir" --passes=$all
both random "$root/tests/ir/random.ir" --passes=$all --dim B=5 --dim T=70
both loss "$root/tests/ir/loss.ir" --passes=$all --dim B=5 --dim T=70
both "loss of one token" "$root/tests/ir/loss.ir" --passes=$all --dim B=1 --dim T=1
for format in f32 bf16 int8 int4; do
    both "loss by panels of $format" "$root/tests/ir/loss_panels.ir" --passes=$all --weights=$format --dim B=3 --dim T=47
done
both attention "$root/tests/ir/attention_grad.ir" --passes=fuse,plan --dim B=3 --dim T=37 --dim S=70
both "attention, few keys" "$root/tests/ir/attention_grad.ir" --passes=fuse,plan --dim B=1 --dim T=1 --dim S=3
both "attention of views" "$root/tests/ir/attention_views.ir" --passes=fuse,plan --dim B=2 --dim T=70 --dim S=45
both "attention of wide heads" "$root/tests/ir/attention_wide.ir" --passes=fuse,plan --dim B=2 --dim T=70 --dim S=133
for dims in "--dim B=1 --dim P=0 --dim S=1" "--dim B=3 --dim P=200 --dim S=145"; do
    # shellcheck disable=SC2086
    both "attention of heads that lie apart, $dims" "$root/tests/ir/attention_heads.ir" --passes=fuse,plan $dims
done
for dims in "--dim B=1 --dim S=1" "--dim B=3 --dim S=70"; do
    # shellcheck disable=SC2086
    both "rows that leave head by head, $dims" "$root/tests/ir/scatter.ir" --passes=fold,cse,fuse,pack,plan $dims
done
both "the largest of long rows" "$root/tests/ir/argmax.ir" --passes=fuse,plan --dim B=3
both gradients "$root/tests/ir/gradients.ir" --passes=$all --dim B=5 --dim T=70
both "gradients of one token" "$root/tests/ir/gradients.ir" --passes=$all --dim B=1 --dim T=1
both "gradients of many tokens" "$root/tests/ir/gradients.ir" --passes=$all --dim B=8 --dim T=300
both "sums of rows" "$root/tests/ir/sums_of_rows.ir" --passes=fold,fuse,pack,plan --dim N=333
both "sums of one row" "$root/tests/ir/sums_of_rows.ir" --passes=fold,fuse,pack,plan --dim N=1
both block "$root/tests/ir/roundtrip.ir" --passes=fold,cse,fuse,pack,plan
for method in mov molora; do
    printf '{"moec_adapter": 1, "method": "%s", "experts": 3%s}\n' $method \
        "$([ $method = molora ] && echo ', "rank": 2')" >"$work/$method.json"
    for func in encode step score; do
        both "t5-tiny $method $func" "$root/examples/t5-tiny" --adapter "$work/$method.json" --passes=$all --func $func
    done
done
exit $status
