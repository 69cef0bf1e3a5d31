#!/bin/sh
# The examples of embedding, built as their first lines say and run; what they print is compared with what the command line
# of the same model prints. Each is complete in under 80 lines. Models are compiled with -O1 here, for time.
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "examples: $*" >&2; status=1; }
for name in embed-c embed-cmake python-ctypes train-c; do
    lines=$(cat "$root/examples/$name"/* | wc -l)
    [ "$lines" -lt 80 ] || fail "$name has $lines lines"
    grep -q "\`$name/\`" "$root/examples/README.md" || fail "README.md does not name $name"
    cp -r "$root/examples/$name" "$work"
done
cp -r "$root/examples/t5-tiny" "$work"
printf '#!/bin/sh\nexec "%s" "$@" -O1\n' "$moec" >"$work/moec" && chmod +x "$work/moec"
cd "$work" || exit 1
flags="-O1 -std=c99 -Wall -Wextra -Wshadow -Werror -pedantic"
"$moec" compile t5-tiny --adapter t5-tiny/mov10.json --matmul=native -O1 -o t5 || exit 1

# ---- train-c: task 7 is new to the model ----------------------------------------------------------------

(cd train-c && make MOEC="$work/moec" CFLAGS="$flags" >/dev/null && ./teach smallest.safetensors >out) || { fail train-c; exit 1; }
awk '$1 == "step" && $3 == "loss" { n++; if (n == 1) first = $4; last = $4 }
     END { exit !(n == 4 && first > 3 && last < 0.5) }' train-c/out || fail "train-c: $(cat train-c/out)"
learnt=$work/train-c/smallest.safetensors
(cd train-c && ./teach again.safetensors >/dev/null && cmp again.safetensors smallest.safetensors) || fail "train-c: two runs differ"
(cd train-c && ./teach no/such/folder/x 1 >out 2>&1) && fail "train-c: a file that cannot be written goes unnoticed"
grep -q "^no/such/folder/x: error: " train-c/out || fail "train-c: $(cat train-c/out)"
prompts="7,200,31,120,77,1 7,90,80,70,1 7,150,160,33,210,1 7,99,120,240,1"
right=0
for prompt in $prompts; do
    least=$(echo "$prompt" | tr , '\n' | sed '1d;$d' | sort -n | head -1)
    [ "$(./t5 generate --ids "$prompt" --adapter "$learnt")" != "$least 1" ] || right=$((right + 1))
done
[ $right -ge 3 ] || fail "train-c: $right of 4 prompts are right"

# ---- embed-c ----------------------------------------------------------------------------------------------

(cd embed-c && make MOEC="$work/moec" CFLAGS="$flags" >/dev/null) || { fail embed-c; exit 1; }
# same WANTED ARGUMENTS...
same() {
    want=$1
    shift
    got=$("$@" 2>err)
    [ -n "$want" ] && [ "$got" = "$want" ] || fail "$*: '$got', not '$want'"
}
[ "$(./t5 generate --ids 6,90,80,70,1)" = "70 80 90 1" ] || fail "the model does not sort"
same "$(./t5 generate --ids 6,90,80,70,1)" embed-c/ask 6,90,80,70,1
same "$(./t5 generate --ids 7,200,31,120,77,1 --adapter "$learnt")" embed-c/ask 7,200,31,120,77,1 "$learnt"
grep -q '^memory: [0-9.]* MiB' err || fail "embed-c: $(cat err)"
embed-c/ask 6,300,1 >out 2>err && fail "embed-c: a token outside the vocabulary is taken"
grep -q '^ask: error: an index' err || fail "embed-c: $(cat err)"
embed-c/ask 6,x >out 2>err && fail "embed-c: text that is no ids is taken"

# ---- python-ctypes ----------------------------------------------------------------------------------------

if command -v python3 >/dev/null 2>&1; then
    cd python-ctypes || exit 1
    "$work/moec" compile ../t5-tiny --adapter ../t5-tiny/mov10.json --matmul=native --emit=shared --prefix=t5 -o t5.so || fail "t5.so"
    same "$(../t5 generate --ids 6,90,80,70,1)" python3 t5.py t5.so 6,90,80,70,1
    for prompt in 6,90,80,70,1 7,200,31,120,77,1 7,90,80,70,1; do
        adapter=
        [ "${prompt#7,9}" = "$prompt" ] && [ "${prompt#6}" = "$prompt" ] && adapter="--adapter $learnt"
        # shellcheck disable=SC2086
        ../t5 generate --ids $prompt $adapter
    done >want
    python3 t5.py t5.so 6,90,80,70,1 7,200,31,120,77,1 7,90,80,70,1 "$learnt" >rows || fail "t5.py with two adapters"
    sed 's/\( 0\)*$//' rows | cmp -s - want || fail "t5.py with two adapters: $(cat rows)"
    python3 t5.py t5.so 6,90,80,70,1 t5.weights.safetensors >out 2>&1 && fail "t5.py takes an adapter that is not there"
    grep -q "RuntimeError: t5.weights.safetensors: error: cannot be opened" out || fail "t5.py: $(cat out)"
    cd ..
else
    echo "python3: not installed, skipped"
fi

# ---- embed-cmake: with moec as installed ------------------------------------------------------------------

if [ -f "$root/cmake/moecConfig.cmake.in" ]; then
    cmake --install "$build" --prefix "$work/installed" >log 2>&1 &&
        cmake -S embed-cmake -B built -DCMAKE_PREFIX_PATH="$work/installed" -DCMAKE_C_FLAGS="$flags" >log 2>&1 &&
        cmake --build built >log 2>&1 || { cat log; fail "embed-cmake does not build"; }
    built/similar >alike || fail "embed-cmake"
    # The same of the states that the command line prints: one row a token, a blank line between inputs.
    ./t5 encode --ids 6,90,80,70,1 --ids 6,80,90,70,1 --ids 3,200,11,54,33,1 | awk '
        BEGIN { RS = ""; FS = "\n" }
        {
            for (t = 1; t <= NF; t++) {
                n = split($t, x, " ")
                for (i = 1; i <= n; i++) mean[NR, i] += x[i] / NF
            }
        }
        END {
            for (r = 2; r <= NR; r++) {
                ab = aa = bb = 0
                for (i = 1; i <= n; i++) {
                    ab += mean[1, i] * mean[r, i]
                    aa += mean[1, i] ^ 2
                    bb += mean[r, i] ^ 2
                }
                printf "0 and %d: %.3f\n", r - 1, ab / sqrt(aa * bb)
            }
        }' >want
    [ "$(wc -l <want)" = 2 ] && cmp -s alike want || fail "embed-cmake: '$(cat alike)' is not '$(cat want)'"
else
    echo "embed-cmake: no CMake package in this tree, skipped"
fi
[ $status = 0 ] && echo "examples: built, run and right"
exit $status
