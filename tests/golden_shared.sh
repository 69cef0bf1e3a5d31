#!/bin/sh
# Every export of the complete reference data against its family's goldens and, for training, through all passes.
. "${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/tests/golden_shared.inc"
mov=$root/examples/t5-tiny/mov10.json
refused=0

for model in "$shared"/t5/*/graphs/*; do
    family=${model%/graphs/*}
    name=${family##*/}/${model##*/}
    case $name in
    */plain-op11) # invalid: an operator used before it took this type
        if verify "$name" "$model" "$family/golden"; then bad "$name"
        elif [ $? = 1 ] && grep -q "model.onnx: error: node .*Min" "$work/err"; then
            refused=$((refused + 1))
            echo "$name: refused: $(head -1 "$work/err")"
        else bad "$name"; fi
        continue
        ;;
    */*-static) # its extents are those of the case `short`
        if verify "$name" "$model" "$family/golden" && grep -q '^short *logits .* ok$' "$work/out"; then pass
        else bad "$name"; fi
        continue
        ;;
    */opt18-*) # its decoders do not see the encoder's mask: equal where nothing is padded
        verify "$name" "$model" "$family/golden"
        if [ "$(grep -c '^one .* ok$' "$work/out")" = 2 ] && [ "$(grep -c 'encoder states .* ok$' "$work/out")" = 3 ]; then pass
        else bad "$name"; fi
        continue
        ;;
    */*-dynq) set -- --tolerance 0.5 ;;  # int8
    */*-fp16) set -- --tolerance 2e-3 ;; # weights rounded to 11 bits
    *) set -- ;;
    esac
    if verify "$name" "$model" "$family/golden" "$@" && grep -q 'greedy *tokens *equal' "$work/out" &&
        "$moec" dump "$model" --adapter "$mov" --train -o "$work/ir" 2>"$work/err" && grep -q '^func.* @train' "$work/ir"; then pass
    else bad "$name"; fi
done
echo "passed $passed, refused $refused, failed $failed"
[ "$failed" = 0 ]
