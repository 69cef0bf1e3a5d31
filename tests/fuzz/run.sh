#!/bin/sh
# Fuzzers: run.sh [--runs=N] [--seconds=N] [NAME...]: builds and runs all harnesses, or those named, each for so many executions
# (without an option as many as harnesses.def says), as many at once as there are processors. What covers something new is kept
# in BUILD/corpus/NAME for the next time; findings are left in BUILD/findings/. FUZZ_BUILD: the build folder, build/fuzz.
# Exits 1 when there are findings, 77 where clang or its libFuzzer is missing.
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${FUZZ_BUILD:-${BUILD_DIR:-$root/build}/fuzz}
cc=${FUZZ_CC:-clang}
limit= names=
for argument; do
    case $argument in
    --runs=*) limit=-runs=${argument#*=} ;;
    --seconds=*) limit=-max_total_time=${argument#*=} ;;
    -*) sed -n '2,5s/^# //p' "$0" && exit 2 ;;
    *) names="$names $argument" ;;
    esac
done
mkdir -p "$build/findings" "$build/scratch" "$build/log" || exit 2
echo 'int LLVMFuzzerTestOneInput(const char *p, long n); int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n < 0; }' >"$build/scratch/try.c"
"$cc" -fsanitize=fuzzer,address "$build/scratch/try.c" -o "$build/scratch/try" 2>"$build/scratch/try.err" || { echo "fuzz: skipped: $cc has no libFuzzer"; exit 77; }
cmake -S "$root" -B "$build" -DMOEC_FUZZ=ON -DMOEC_LLVM=OFF -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cc++" >/dev/null &&
    cmake --build "$build" -j"$(nproc)" --target fuzzers >"$build/log/build" 2>&1 || { tail -30 "$build/log/build"; exit 2; }
BUILD_DIR=${BUILD_DIR:-$root/build} sh "$root/tests/fuzz/seeds.sh" "$build/seeds" || exit 2

# NAME MOST RUNS: one harness, one line.
cat >"$build/scratch/one.sh" <<'END'
name=$1 most=$2 limit=${LIMIT:--runs=$3}
cd "$BUILD" && mkdir -p "corpus/$name" "seeds/$name" && rm -f "findings/$name-"*
TMPDIR=$BUILD/scratch ASAN_OPTIONS=quarantine_size_mb=16:$ASAN_OPTIONS "fuzzers/fuzz_$name" $limit -max_len="$most" -timeout=10 -report_slow_units=5 \
    -rss_limit_mb=1024 -close_fd_mask=3 -print_final_stats=1 -dict="seeds/$name.dict" -artifact_prefix="findings/$name-" "corpus/$name" "seeds/$name" \
    >"log/$name" 2>&1
code=$?
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "log/$name")
cover=$(sed -n 's/.* cov: \([0-9]*\) ft.*/\1/p' "log/$name" | tail -1)
found=$(find findings -name "$name-*" | wc -l)
[ $code = 0 ] || [ "$found" -gt 0 ] || found=1
printf 'fuzz: %-12s %9s executions, %5s edges, %s findings\n' "$name" "${runs:-0}" "${cover:-0}" "$found"
[ "$found" = 0 ] || grep -aE -A6 'ERROR|runtime error|SUMMARY' "log/$name" | head -20
[ "$found" = 0 ]
END
sed -n 's/^HARNESS(\([a-z_0-9]*\), *[a-z]*, *\([0-9]*\), *\([0-9]*\),.*/\1 \2 \3/p' "$root/tests/fuzz/harnesses.def" |
    while read -r name most runs; do
        case " $names " in "  " | *" $name "*) echo "$name $most $runs" ;; esac
    done | BUILD=$build LIMIT=$limit xargs -P "$(nproc)" -L 1 sh "$build/scratch/one.sh"
code=$?
[ $code = 0 ] || { echo "fuzz: findings are in $build/findings; see tests/fuzz/README.md"; exit 1; }
