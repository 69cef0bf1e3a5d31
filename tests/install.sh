#!/bin/sh
# What `cmake --install` leaves, moved to another place: complete, naming no path of where it was built, usable through
# find_package(moec) with moec_add_model, through pkg-config, and from the source tree as a part of another project.
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
build=${BUILD_DIR:-$root/build}
tiny=$root/examples/t5-tiny
case=$root/tests/fixtures/adapters/mov-e4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "install: $*" >&2; status=1; }

# ---- the tree, staged by DESTDIR and moved -----------------------------------------------------------------

DESTDIR=$work/stage cmake --install "$build" --prefix /opt/moec >"$work/log" 2>&1 || { cat "$work/log"; fail "cmake --install"; exit 1; }
at=$work/moved/here
mkdir "$work/moved" && mv "$work/stage/opt/moec" "$at" || exit 1
cd "$at" || exit 1
lib=$(dirname "$(find . -name libmoec_rt.a)")
for file in bin/moec $lib/libmoec_rt.a $lib/pkgconfig/moec.pc $lib/cmake/moec/moecConfig.cmake $lib/cmake/moec/moecConfigVersion.cmake \
    $lib/cmake/moec/moecTargets.cmake $lib/cmake/moec/moec_add_model.cmake include/moec/moec_rt.h include/moec/moec_train.h \
    share/man/man1/moec.1 share/bash-completion/completions/moec share/zsh/site-functions/_moec \
    share/fish/vendor_completions.d/moec.fish share/moec/adapter-spec.schema.json; do
    [ -s $file ] || fail "$file is not installed"
done
cmp -s share/moec/adapter-spec.schema.json "$root/frontends/adapter-spec.schema.json" || fail "another JSON Schema is installed"
for kind in man:man/man1/moec.1 bash:bash-completion/completions/moec zsh:zsh/site-functions/_moec fish:fish/vendor_completions.d/moec.fish; do
    bin/moec describe ${kind%%:*} | cmp -s - share/${kind#*:} || fail "share/${kind#*:} is not what moec describe ${kind%%:*} writes"
done
grep -rlF -e "$root" -e "$build" -e /opt/moec include share $lib/cmake $lib/pkgconfig >"$work/log" && fail "paths of the build in: $(cat "$work/log")"
for header in include/moec/*.h; do # each stands alone, in C, and in C++ but for what is of generated code
    echo "#include \"$(basename "$header")\"" >"$work/one.c"
    cp "$work/one.c" "$work/one.cc"
    cc -std=c99 -Wall -Wextra -Werror -pedantic -fsyntax-only -I include/moec "$work/one.c" || fail "$header is not C99"
    [ "$header" = include/moec/moec_kernel.h ] || ! command -v g++ >/dev/null 2>&1 ||
        g++ -Wall -Wextra -Werror -pedantic -fsyntax-only -I include/moec "$work/one.cc" || fail "$header is not C++"
done

# ---- a program that embeds a model -------------------------------------------------------------------------

project=$work/project
mkdir -p "$project/adapter"
cp -r "$tiny" "$project/model"
cp "$case/spec.json" "$case/adapter.safetensors" "$project/adapter"
cat >"$project/use.c" <<'C'
#include MODEL_HEADER
#include "moec_train.h"
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    const moec_program *program = MODEL_PROGRAM();
    char text[256] = "", weights[4096] = "";
    moec_options options = {0};
    moec_instance *m = NULL;
    int64_t ids[6] = {4, 60, 70, 80, 90, 1}, mask[6] = {1, 1, 1, 1, 1, 1}, token[8], steps = 0;
    moec_generate_options o = {8, -1};
    if (!program->embedded) { /* beside the program, or where the first argument says */
        char *slash;
        strncpy(weights, argv[0], sizeof weights - 64);
        slash = strrchr(weights, '/');
        strcpy(slash ? slash + 1 : weights, "tiny.weights");
        options.weights = argc > 1 ? argv[1] : weights;
    }
    options.message = text;
    options.message_room = sizeof text;
    if (moec_open(program, &options, &m) || moec_generate(m, 1, 6, ids, mask, NULL, &o, token, &steps, NULL, NULL)) {
        fprintf(stderr, "%s\n", text);
        return 1;
    }
    for (int64_t i = 0; i < steps; i++) printf(i ? " %d" : "%d", (int)token[i]);
    printf(" %s\n", program->seq2seq->train >= 0 ? "trains" : "does not train");
    moec_close(m);
    return 0;
}
C
cat >"$project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.19)
project(user C)
if(FROM_SOURCE)
    add_subdirectory(\${FROM_SOURCE} moec)
else()
    find_package(moec 0.1 REQUIRED)
endif()
moec_add_model(tiny MODEL model ADAPTER adapter/spec.json DIM B=1..2 S=1..32 T=1..16
    WEIGHTS_DESTINATION bin OPTIONS --adapter-weights=adapter/adapter.safetensors -O0)
moec_add_model(inside-out MODEL model ADAPTER adapter/spec.json MATMUL native PREFIX other EMBED_WEIGHTS TRAIN
    OPTIONS --adapter-weights adapter/adapter.safetensors -O0)
add_executable(use use.c)
target_compile_definitions(use PRIVATE MODEL_HEADER="tiny.h" MODEL_PROGRAM=tiny_program)
target_link_libraries(use PRIVATE tiny)
add_executable(alone use.c)
target_compile_definitions(alone PRIVATE MODEL_HEADER="inside-out.h" MODEL_PROGRAM=other_program)
target_link_libraries(alone PRIVATE inside-out)
install(TARGETS use DESTINATION bin)
get_target_property(weights tiny MOEC_WEIGHTS)
message(STATUS "weights: \${tiny_WEIGHTS} \${weights} '\${inside-out_WEIGHTS}'")
END
"$at/bin/moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --matmul=native -O0 \
    -o "$work/exe" || exit 1
want=$("$work/exe" generate --ids 4,60,70,80,90,1 --max-length 8)
[ -n "$want" ] || fail "the executable generates nothing"
out=$work/out
env -i PATH="$PATH" cmake -S "$project" -B "$out" -DCMAKE_PREFIX_PATH="$at" >"$work/log" 2>&1 || { cat "$work/log"; fail "find_package(moec)"; exit 1; }
grep -qF "weights: $out/tiny.weights $out/tiny.weights ''" "$work/log" || fail "tiny_WEIGHTS: $(grep weights: "$work/log")"
cmake --build "$out" >"$work/log" 2>&1 || { cat "$work/log"; fail "the project does not build"; exit 1; }
[ "$("$out/use")" = "$want does not train" ] || fail "moec_add_model: '$("$out/use")' is not '$want'"
rm -rf "$out/inside-out.moec/"*.weights
[ "$("$out/alone")" = "$want trains" ] || fail "moec_add_model with EMBED_WEIGHTS and TRAIN: '$("$out/alone")' is not '$want'"
cmake --install "$out" --prefix "$work/app" >/dev/null && rm "$out/tiny.weights" && [ "$("$work/app/bin/use")" = "$want does not train" ] ||
    fail "WEIGHTS_DESTINATION: the installed program fails"

# A second build does nothing; one behind a change of the model, of files that options name, or of moec compiles again.
cmake --build "$out" >"$work/log" 2>&1 && grep -q 'moec compile' "$work/log" || fail "lost weights are not made again"
cmake --build "$out" >"$work/log" 2>&1 && ! grep -q 'moec compile' "$work/log" || fail "compiled again without a change: $(cat "$work/log")"
for file in "$project/model/config.json" "$project/adapter/spec.json" "$project/adapter/adapter.safetensors" "$at/bin/moec"; do
    touch "$file"
    cmake --build "$out" --target tiny >"$work/log" 2>&1 && grep -q 'moec compile.*tiny' "$work/log" || fail "not compiled again behind $file"
done

# What is wrong is said when the project is configured.
refuse() { # MESSAGE ARGUMENTS...
    message=$1
    shift
    mkdir -p "$work/wrong"
    printf 'cmake_minimum_required(VERSION 3.19)\nproject(wrong C)\nfind_package(moec REQUIRED)\nmoec_add_model(%s)\n' "$*" >"$work/wrong/CMakeLists.txt"
    cmake -S "$work/wrong" -B "$work/wrong/out" -DCMAKE_PREFIX_PATH="$at" >"$work/log" 2>&1 && fail "moec_add_model($*) is accepted"
    tr -s '\n ' ' ' <"$work/log" | grep -qF -e "$message" || fail "moec_add_model($*): $(cat "$work/log")"
}
refuse "no MODEL given" x
refuse "what is 'ADAPTOR" x MODEL "$tiny" ADAPTOR spec.json
refuse "MODEL '$work/wrong/missing.onnx' does not exist" x MODEL missing.onnx
refuse "MATMUL is native or openblas, not 'blas'" x MODEL "$tiny" MATMUL blas
refuse "compatible with requested version" x MODEL "$tiny" ")" "
find_package(moec 9.0 REQUIRED"

# ---- pkg-config ----------------------------------------------------------------------------------------------

if command -v pkg-config >/dev/null 2>&1; then
    PKG_CONFIG_PATH=$at/${lib#./}/pkgconfig
    export PKG_CONFIG_PATH
    "$at/bin/moec" compile "$tiny" --adapter "$case/spec.json" --adapter-weights "$case/adapter.safetensors" --matmul=native -O0 \
        --emit=obj --prefix=tiny -o "$work/tiny.o" && rm "$work/moec_rt.h" &&
        cc -o "$work/use" -DMODEL_HEADER='"tiny.h"' -DMODEL_PROGRAM=tiny_program -I "$work" "$project/use.c" "$work/tiny.o" \
            $(pkg-config --cflags --libs moec) || fail "pkg-config --cflags --libs moec"
    [ "$("$work/use")" = "$want does not train" ] || fail "pkg-config: '$("$work/use")' is not '$want'"
    [ "moec $(pkg-config --modversion moec)" = "$("$at/bin/moec" --version | sed 's/,.*//')" ] || fail "pkg-config --modversion"
else
    echo "pkg-config: not installed, skipped"
fi

# ---- the source tree in another project: configured, which needs no build of moec ----------------------------------

cmake -S "$project" -B "$work/nested" -DFROM_SOURCE="$root" >"$work/log" 2>&1 || { cat "$work/log"; fail "add_subdirectory"; }
grep -qF "weights: $work/nested/tiny.weights" "$work/log" || fail "add_subdirectory: $(grep weights: "$work/log")"
cmake --build "$work/nested" --target help | grep -qw test_spec && fail "add_subdirectory brings moec's tests"
exit $status
