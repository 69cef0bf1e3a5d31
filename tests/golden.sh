#!/bin/sh
# Compiled models against stored float64 results: three families of T5, exporters and adapters, in inference and
# training, by moec verify, at every level of optimisation. The complete set is that of
# golden_shared.sh and golden_adapters.sh. BACKEND=llvm: compiled by LLVM.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
t5=$root/tests/fixtures/t5
tiny=$root/examples/t5-tiny
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0

# check LABEL MODEL GOLDEN OPTIONS...: every comparison within 2e-5, and some made.
check() {
    label=$1 model=$2 golden=$3
    shift 3
    if "$moec" verify "$model" --golden "$golden" "$@" >"$work/out" 2>"$work/err" && grep -q '^[1-9][0-9]* compared' "$work/out"; then
        echo "$label: $(tail -1 "$work/out")"
    else
        echo "$label: FAILED"
        cat "$work/out" "$work/err"
        status=1
    fi
}

# A decoder whose two branches are one graph with an `If`; its encoder is the tiny T5's.
mkdir "$work/merged"
cp "$tiny/encoder_model.onnx" "$tiny/config.json" "$t5/t5v11/merged/decoder_model_merged.onnx" "$work/merged"

. "$root/tests/quick.inc"
backend=--backend=${BACKEND:-c}
quick="$quick $backend" base="-O1 --matmul=native $backend"
# shellcheck disable=SC2086
{
    check "T5 v1.1" "$tiny" "$t5/t5v11/golden" $base
    check "T5 v1.1, merged decoder" "$work/merged" "$t5/t5v11/golden" $base
    check "T5 v1.0, one graph" "$t5/t5v10/plain-op17" "$t5/t5v10/golden" $base
    check "FLAN-T5, torch.export" "$t5/flan/torch214-dynamo" "$t5/flan/golden" $base
    check "T5 v1.1, unoptimised" "$tiny" "$t5/t5v11/golden" -O0 --matmul=native $backend
    check "T5 v1.1, OpenBLAS" "$tiny" "$t5/t5v11/golden" -O3 $backend
    for case in "$root"/tests/fixtures/adapters/*/; do
        case=${case%/}
        name=${case##*/}
        case $name in
        mov-e4 | molora-e4-r1-top2-none) set -- -O3 $backend ;;
        molora-e4-r4 | mov-bias) set -- $base ;;
        *) set -- $quick ;;
        esac
        [ ! -f "$case/case.json" ] || set -- "$@" --train
        check "adapter $name" "$tiny" "$case" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" "$@"
    done
}

# A wrong result is noticed: another adapter's goldens.
if "$moec" verify "$tiny" --golden "$root/tests/fixtures/adapters/ia3" $base >"$work/out" 2>&1 ||
    ! grep -q FAILED "$work/out"; then
    echo "goldens of an adapter pass without it"
    status=1
fi

# Reference files that are not what they have to be: one located line.
# broken NAME WORD: with $work/case/NAME replaced.
broken() {
    "$moec" verify "$tiny" --golden "$work/case" --adapter "$work/case/spec.json" --adapter-weights "$work/case/adapter.safetensors" \
        $quick --train >"$work/out" 2>"$work/err"
    [ $? = 1 ] && grep -q "$1: error: .*$2" "$work/err" || { echo "a broken $1 is taken"; cat "$work/out" "$work/err"; status=1; }
    cp "$root/tests/fixtures/adapters/ia3/$1" "$work/case"
}
cp -r "$root/tests/fixtures/adapters/ia3" "$work/case"
cp "$work/case/short.labels.npy" "$work/case/train.labels.npy"
broken train.labels.npy 'is no i64'
half='{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}  '
printf '\070\0\0\0\0\0\0\0%s\0\0' "$half" >"$work/case/grads.safetensors"
broken grads.safetensors "neither F32 nor F64"
exit $status
