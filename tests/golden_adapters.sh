#!/bin/sh
# Every adapter case of the complete reference data, in inference and training.
. "${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}/tests/golden_shared.inc"

for case in "$shared"/adapters/*/; do
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
echo "passed $passed, failed $failed"
[ "$failed" = 0 ]
