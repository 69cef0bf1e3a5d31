#!/bin/sh
# The complete reference data, where they are (MOEC_SHARED, or ../shared/data): every export against its family's
# goldens and, for training, through all passes; every adapter case. They are too large for this repository; golden.sh
# runs a selection. BACKEND=llvm sh tests/golden_shared.sh: the same through LLVM, by hand.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
shared=${MOEC_SHARED:-$root/../shared/data}
[ -d "$shared/t5" ] || { echo "no reference data: set MOEC_SHARED"; exit 77; }
mov=$root/examples/t5-tiny/mov10.json
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 refused=0

bad() {
    echo "$1: FAILED"
    cat "$work/out" "$work/err"
    failed=$((failed + 1))
}

# verify LABEL MODEL GOLDEN OPTIONS...
verify() {
    label=$1 model=$2 golden=$3
    shift 3
    "$moec" verify "$model" --golden "$golden" -O1 --matmul=native --backend=${BACKEND:-c} "$@" >"$work/out" 2>"$work/err"
}

pass() {
    passed=$((passed + 1))
    echo "$label: $(tail -1 "$work/out")"
}

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

# adapters HALF: every second adapter case, in inference and training; counts go to $work/HALF.count
adapters() {
    half=$1 index=0
    base=$work
    work=$work/$half
    mkdir "$work"
    passed=0 failed=0
    for case in "$shared"/adapters/*/; do
        index=$((index + 1))
        [ $((index % 2)) = "$half" ] || continue
        case=${case%/}
        name=${case##*/}
        set -- --adapter "$case/spec.json" --train
        [ ! -f "$case/adapter.safetensors" ] || set -- "$@" --adapter-weights "$case/adapter.safetensors"
        if verify "$name" "$shared/t5/${name%%-*}/graphs/opt113-op13" "$case" "$@" &&
            grep -q -e 'training loss .* ok$' -e 'losses of the run .* ok$' "$work/out"; then pass
        else bad "$name"; fi
        [ -d "$case/peft" ] || continue # the same from the files of the PEFT library
        if verify "$name/peft" "$shared/t5/${name%%-*}/graphs/opt113-op13" "$case" --adapter "$case/peft"; then pass
        else bad "$name/peft"; fi
    done
    echo "$passed $failed" >"$base/$half.count"
}

adapters 0 >"$work/first" 2>&1 &
(adapters 1)
wait
cat "$work/first"
for half in 0 1; do
    read -r more wrong <"$work/$half.count"
    passed=$((passed + more)) failed=$((failed + wrong))
done
echo "passed $passed, refused $refused, failed $failed"
[ "$failed" = 0 ]
