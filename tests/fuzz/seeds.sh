#!/bin/sh
# Inputs to begin with: seeds.sh OUT makes OUT/NAME/ for every harness, of tests/fuzz/corpus, tests/fuzz/regressions and what
# the tests have; and OUT/NAME.dict, the words that the readers' sources have.
# BUILD_DIR: where moec and tools/random_graphs are, which make some more where they are there.
set -e
here=$(cd "$(dirname "$0")" && pwd)
tests=$(cd "$here/.." && pwd)
out=$1

# put NAME FILE...: under names that tell where they come from.
put() {
    harness=$1
    shift
    mkdir -p "$out/$harness"
    for file in "$@"; do
        [ ! -f "$file" ] || cp "$file" "$out/$harness/$(printf '%s' "${file#"$tests"/}" | tr / _)"
    done
}

for folder in "$here"/corpus/* "$here"/regressions/*; do put "$(basename "$folder")" "$folder"/*; done
put ir "$tests"/ir/*.ir
put pipeline "$tests"/ir/*.ir
put seq2seq "$here/t5.ir"
for choice in A B C H Q; do sed "1s/.*/#$choice/" "$here/t5.ir" >"$out/seq2seq/t5_$choice.ir"; done # FuzzChoice: train, ...
for harness in onnx model; do
    put $harness "$tests"/fixtures/hostile/*.onnx "$tests"/fixtures/onnx_nodes/*/model.onnx
    find "$out/$harness" -type f -size +8 -exec rm {} +
done
put onnx "$tests"/fixtures/onnx_nodes/*_0/test_data_set_0/input_0.pb
for harness in spec adapter; do put $harness "$tests"/fixtures/adapters/*/spec.json "$tests"/fixtures/peft/*/spec.json; done
put peft "$tests"/fixtures/peft/*/*/adapter_config.json
put config "$tests"/fixtures/t5/*/*/config.json "$tests"/../examples/t5-tiny/config.json
put npy "$tests"/fixtures/adapters/ia3/*.npy
put spiece "$tests"/fixtures/tokenizer/spiece.model

moec=${BUILD_DIR:-build}/moec
if [ -x "$moec" ]; then
    for method in lora mov_small; do
        "$moec" dump "$here/t5.ir" --adapter "$here/corpus/adapter/$method.json" --stop-after=attach |
            sed '1s/^/#A\n/; s/  !".*"$//' >"$out/seq2seq/t5_$method.ir"
    done
fi
graphs=${BUILD_DIR:-build}/tools/random_graphs
if [ -x "$graphs" ]; then
    for seed in $(seq 1 "${MOEC_FUZZ_GRAPHS:-40}"); do
        "$graphs" --print "$seed" >"$out/pipeline/graph_$seed.ir"
        [ "$(wc -c <"$out/pipeline/graph_$seed.ir")" -le 4096 ] || rm "$out/pipeline/graph_$seed.ir"
    done
fi

# words NAME FILE...: short string literals of C, and the names of ops.
words() {
    harness=$1
    shift
    sed 's/%[a-z.*0-9]*/\n/g' "$@" | grep -ohE '"[A-Za-z_0-9.]{2,24}"|^OP\([a-z_0-9]+|^ATTR\([a-z_0-9]+' | sed -E 's/^(OP|ATTR)\((.*)/"\2"/' | sort -u \
        | cat "$here/punctuation.dict" - >"$out/$harness.dict"
}

source=$tests/..
words ir "$source"/compiler/ops.def "$source"/compiler/parse*.c
cp "$out/ir.dict" "$out/pipeline.dict"
cp "$out/ir.dict" "$out/seq2seq.dict"
for harness in onnx model; do words $harness "$source"/frontends/onnx_*.c; done
for harness in spec adapter; do words $harness "$source"/frontends/spec.c "$source"/compiler/adapter.c "$source"/compiler/attach*.c; done
words safetensors "$source"/frontends/safetensors.c "$source"/runtime/safetensors.c "$tests"/unit/fake_program.h
words peft "$source"/frontends/peft*.c
words config "$source"/frontends/config.c
words spiece "$source"/runtime/spiece.c "$source"/runtime/text.cc
words weights "$source"/runtime/rt.c
words checkpoint "$source"/runtime/checkpoint*.c "$source"/runtime/train_options.c
words jsonl "$source"/runtime/dataset.c "$source"/runtime/cli_eval_read.c
words npy "$source"/frontends/npy.c
