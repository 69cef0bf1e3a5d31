#!/bin/sh
# Measures compiled models against the limits of this machine; README.md beside this file says what the tables mean.
set -eu

usage() {
    cat <<'USAGE'
usage: sh tests/bench/run.sh [options]

Makes a T5 v1.1 with random weights, compiles it by each variant asked for, and measures them side by side. Without --train
and --openblas, or with --encode or --decode beside them: encoding and decoding.

  --size=SIZE        small, base or large, or KEY=VALUE,... as tools/gen_t5 takes them (base)
  --encode=LIST      BATCHxLENGTH,...; 8x~128: lengths mixed, up to 128; none (1x512,8x128,8x~128)
  --decode=LIST      batches, or none (1,2,4,8,16)
  --source=N         tokens the decoder attends to (32)
  --steps=N          tokens decoded (32)
  --train[=LIST]     training steps, BATCHxSOURCE/TARGET,... (8x256/64)
  --dropout=PERCENT  in training (10)
  --openblas[=LIST]  products of the model's shapes by OpenBLAS's core types and by moec (those this machine runs)
  --rows=LIST        rows of these products (1,8,32,128,512)
  --all              all three

  --adapters=LIST    bare, mov10, molora10, or specs as FILE.json (bare; in training bare,mov10, where bare is the chain
                     of activation gradients alone)
  --backends=LIST    c, llvm (those moec was built with)
  --weights=LIST     formats, given to moec compile; f32 is what it makes unasked (f32)
  --matmul=LIST      what computes products, given to moec compile (what it chooses unasked)
  --compile=OPTIONS  more options of moec compile, apart by blanks
  --threads=N        0: one a core (0)
  --rounds=N         how often each variant is measured (5)
  --patience=N       how often a run is done again that others disturbed (3)
  --profile[=kernels]  time by kind of kernel, =kernels: by kernel, too

  --read-mib=N       size of what is read for the bandwidth (by the caches)
  --help

BUILD_DIR: the built tree, else build/ beside the sources. WORK_DIR: where models and libraries are kept, else bench/ in it.
USAGE
}

fail() {
    echo "run.sh: error: $*" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD_DIR:-$root/build}
work=${WORK_DIR:-$build/bench}
moec=$build/moec

# ---- options ----------------------------------------------------------------------------------------

size=base encode=1x512,8x128,8x~128 decode=1,2,4,8,16 source=32 steps=32 train=8x256/64 dropout=10 rows=1,8,32,128,512
adapters='' backends='' weights='' matmul='' compile='' threads=0 rounds=5 patience=3 profile=none read_mib=0 coretypes=''
infer='' training='' products=''
for option; do
    value=${option#*=}
    case $option in
    --help) usage && exit 0 ;;
    --size=?*) size=$value ;;
    --encode=?*) encode=$value infer=1 ;;
    --decode=?*) decode=$value infer=1 ;;
    --source=?*) source=$value ;;
    --steps=?*) steps=$value ;;
    --train) training=1 ;;
    --train=?*) train=$value training=1 ;;
    --dropout=?*) dropout=$value ;;
    --openblas) products=1 ;;
    --openblas=?*) coretypes=$value products=1 ;;
    --rows=?*) rows=$value ;;
    --all) infer=1 training=1 products=1 ;;
    --adapters=?*) adapters=$value ;;
    --backends=?*) backends=$value ;;
    --weights=?*) weights=$value ;;
    --matmul=?*) matmul=$value ;;
    --compile=?*) compile=$value ;;
    --threads=?*) threads=$value ;;
    --rounds=?*) rounds=$value ;;
    --patience=?*) patience=$value ;;
    --profile) profile=groups ;;
    --profile=kernels) profile=kernels ;;
    --read-mib=?*) read_mib=$value ;;
    *) fail "$option: no such option, or no value; --help lists them" ;;
    esac
done
[ -n "$infer$training$products" ] || infer=1
[ "$encode" != none ] || encode=
[ "$decode" != none ] || decode=

# check_list OPTION VALUE ITEM: the value is one or several of what the expression says, or nothing.
check_list() {
    echo "$2" | grep -qE "^($3(,$3)*)?\$" || fail "--$1=$2: --help says what it takes"
}
number='[1-9][0-9]*'
check_list encode "$encode" "${number}x~?$number"
check_list decode "$decode" "$number"
check_list train "$train" "${number}x$number/$number"
check_list rows "$rows" "$number"
check_list source "$source" "$number"
check_list steps "$steps" "$number"
if [ ! -x "$moec" ] || [ ! -x "$build/tools/bench" ]; then fail "$build: no built tree, which BUILD_DIR names"; fi
if [ -z "$backends" ]; then
    backends=c
    if "$moec" --version | grep -q LLVM; then backends=c,llvm; fi
fi

# OpenBLAS chooses kernels when it is loaded, by the environment or by a list of the CPUs it knows, which recent ones are not in.
here=
if grep -q ' avx2 ' /proc/cpuinfo; then here=Haswell; fi
if grep -q ' avx512bw .*avx512vl' /proc/cpuinfo; then here=Haswell,SkylakeX; fi
coretypes=${coretypes:-$here}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_BLOCK_FACTOR GOTO_NUM_THREADS OMP_NUM_THREADS
if [ -n "$here" ]; then export OPENBLAS_CORETYPE="${here##*,}"; fi
export OPENBLAS_NUM_THREADS=1 # the model has threads of its own

# ---- models -------------------------------------------------------------------------------------------

words() { echo "$1" | tr ',' ' '; }
# most LIST: the largest number at the place $2 of its items.
most() { echo "$1" | tr ',' '\n' | tr 'x~/' '   ' | awk -v k="$2" '$k > m { m = $k } END { print (m > 0 ? m : 1) }'; }
larger() { if [ "$1" -gt "$2" ]; then echo "$1"; else echo "$2"; fi; }

place=$work/$(echo "$size" | tr -c 'a-zA-Z0-9\n' _)
model=$place/model
mkdir -p "$place"
# The configuration is what is written last.
# shellcheck disable=SC2046
[ -f "$model/config.json" ] || "$build/tools/gen_t5" "$model" $(words "$size") || exit 1

# spec ADAPTER: its file, nothing for the base model.
spec() {
    case $1 in
    bare) return ;;
    mov10) set -- "$place/$1.json" '{ "moec_adapter": 1, "method": "mov", "experts": 10 }' ;;
    molora10) set -- "$place/$1.json" '{ "moec_adapter": 1, "method": "molora", "experts": 10, "rank": 4 }' ;;
    chain) # every activation's gradient down to both bottoms, and next to nothing besides
        set -- "$place/$1.json" '{ "moec_adapter": 1, "method": "ia3",
  "sites": [ { "match": "encoder.0.self.{k,v}" }, { "match": "decoder.0.self.{k,v}" } ] }' ;;
    *.json) [ -f "$1" ] || fail "$1: no such spec" && echo "$1" && return ;;
    *) fail "adapter '$1': bare, mov10, molora10 or FILE.json" ;;
    esac
    echo "$2" >"$1"
    echo "$1"
}

# compiled NAME BASE INPUT OPTIONS...: BASE.so and BASE.weights, made again where the command or moec is another.
compiler=$(cksum <"$moec")
compiled() {
    name=$1 base=$2
    shift 2
    if [ -f "$base.so" ] && [ "$(cat "$base.command" 2>/dev/null)" = "$compiler $* $compile" ]; then
        echo "$name: compiled before"
        return
    fi
    rm -f "$base.command"
    start=$(date +%s%N)
    # shellcheck disable=SC2086
    "$moec" compile "$@" $compile --emit=shared --prefix=bench -o "$base.so" || exit 1
    echo "$compiler $* $compile" >"$base.command"
    echo "$name: compiled in $((($(date +%s%N) - start) / 1000000)) ms"
}

# read_by_step BASE OPTIONS...: BASE.read, bytes of the weights that a decoded token reads, each once: as they are in panels, and
# their scales, which the step of the base model names.
read_by_step() {
    base=$1
    shift
    # shellcheck disable=SC2046
    "$moec" dump "$model" "$@" $(words "$compile" | tr ' ' '\n' | grep '^--weights=' || true) --stop-after=pack -o "$base.ir" || exit 1
    awk '
        /^param / {
            type = $0
            sub(/^param @("[^"]*"|[^ ]*) : /, "", type)
            sub(/\].*/, "", type)
            n = split(type, d, /[^0-9]+/) # "", 32, then the extents
            name = $2
            if (name !~ /\.(panels|scales)"?$/) next
            bytes[name] = 4
            for (i = 3; i <= n; i++) bytes[name] *= d[i]
        }
        /^func / { step = $2 == "@step" || $2 == "@step_packed" }
        step {
            n = split($0, word, /[ ,]+/)
            for (i = 1; i <= n; i++) if (word[i] in bytes) { sum += bytes[word[i]]; delete bytes[word[i]] }
        }
        END { printf "%.0f\n", sum }' "$base.ir" >"$base.read"
    rm "$base.ir"
}

# variant PART ADAPTER BACKEND FORMAT PROVIDER INPUT OPTIONS...: compiles one and puts NAME=BASE of it into $list.
variant() {
    part=$1 adapter=$2 backend=$3 format=$4 provider=$5
    shift 5
    variant=$(basename "$adapter" .json)/$backend${weights:+/$format}${matmul:+/$provider}
    [ "$part-$adapter" != train-bare ] || adapter=chain
    file=
    if [ "$part" != products ]; then file=$(spec "$adapter") || exit 2; fi
    [ -z "$file" ] || set -- "$@" --adapter "$file"
    base=$place/$part-$(echo "$variant" | tr / -)
    format_option=
    [ "$format" = f32 ] || format_option=--weights=$format
    [ "$part" != infer ] || read_by_step "$base" ${format_option:+"$format_option"}
    set -- "$@" ${format_option:+"$format_option"}
    [ "$provider" = auto ] || set -- "$@" --matmul="$provider"
    compiled "$variant" "$base" "$@" --backend="$backend"
    list="$list $variant=$base"
}

# variants PART "ADAPTERS" INPUT OPTIONS...: all that were asked for.
variants() {
    part=$1 which=$2
    shift 2
    list=
    for format in $(words "${weights:-f32}"); do
        for provider in $(words "${matmul:-auto}"); do
            for backend in $(words "$backends"); do
                for adapter in $which; do
                    variant "$part" "$adapter" "$backend" "$format" "$provider" "$@"
                done
            done
        done
    done
}

bench() {
    command=$1
    shift
    "$build/tools/bench" "$command" --config="$model/config.json" --threads="$threads" --rounds="$rounds" --patience="$patience" --read-mib="$read_mib" "$@"
}

# ---- what is measured ------------------------------------------------------------------------------------

profiled=
[ "$profile" = none ] || profiled=--profile
echo "T5 v1.1, $size"
if [ -n "$infer" ]; then
    variants infer "$(words "${adapters:-bare}")" "$model" $profiled \
        --dim B=1.."$(larger "$(most "$encode" 1)" "$(most "$decode" 1)")" \
        --dim S=1.."$(larger "$(most "$encode" 2)" "$source")" --dim T=1.."$steps"
    # shellcheck disable=SC2086
    bench infer --encode="$encode" --decode="$decode" --source="$source" --steps="$steps" --profile=$profile $list
fi
if [ -n "$training" ]; then
    variants train "$(words "${adapters:-bare,mov10}")" "$model" --train --profile \
        --dim B=1.."$(most "$train" 1)" --dim S=1.."$(most "$train" 2)" --dim T=1.."$(most "$train" 3)"
    # shellcheck disable=SC2086
    bench train --train="$train" --dropout="$dropout" --profile=$profile $list
fi
if [ -n "$products" ]; then
    bench write --rows="$rows" --dir="$place"
    variants products moec "$place/products.ir" --base-weights "$place/products.safetensors"
    # shellcheck disable=SC2086
    bench products --rows="$rows" --coretypes="$coretypes" $list
fi
