/* What a folder of sources has besides sources: Makefile, CMakeLists.txt, README.md. */
#include "folder.h"

#include <string.h>

/* With -march=generic nothing but C99 is asked for. */
static bool is_generic(const Folder *f) {
    return !f->n_variants && f->b->o->march && strcmp(f->b->o->march, "generic") == 0;
}

/* Options that make the program fast, of which a compiler need not know one: C11 brings atomic counters. */
static const char fast_flags[] = "-std=c11 -ffp-contract=fast -fno-math-errno -fno-trapping-math";

/* With a blank behind it; empty where any CPU will do. */
static const char *fast_march(const Folder *f) {
    const char *march = f->b->o->march ? f->b->o->march : f->n_variants ? "generic" : "native";
    return strcmp(march, "generic") == 0 ? "" : arena_printf(f->b->a, "-march=%s ", march);
}

/* What a variant takes besides: options for a C compiler, each behind a blank. */
static void print_variant_flags(const CodeVariant *v, Text *t) {
    text_printf(t, " -DMOEC_VARIANT=%s", v->name);
    if (v->march) text_printf(t, " -march=%s", v->march);
    if (v->flags) text_printf(t, " %s", v->flags);
}

static char optimise(const Folder *f) {
    return f->b->o->level == 0 ? '0' : f->b->o->level == 1 ? '1' : '3';
}

static bool is_source(const FolderFile *file) {
    return name_ends(file->name, ".c") || name_ends(file->name, ".cc") || name_ends(file->name, ".S");
}

/* Sources of the program, of the variants, or all others. */
static FileUse part_of(const FolderFile *file) {
    return file->use == USE_PROGRAM || file->use == USE_VARIANT ? file->use : USE_MODEL;
}

/* ` \` newline, indent after so many. */
static void print_names(const Folder *f, FileUse part, bool objects, Text *t) {
    size_t n = 0;
    for (size_t i = 0; i < f->file.count; i++) {
        const FolderFile *file = &f->file.item[i];
        if (!is_source(file) || part_of(file) != part) continue;
        const char *sep = n++ % 6 ? " " : objects ? " \\\n    " : "\n    ";
        if (objects) text_printf(t, "%s%.*s.o", sep, (int)strcspn(file->name, "."), file->name);
        else text_printf(t, "%s%s", sep, file->name);
    }
}

/* ---- Makefile ------------------------------------------------------------------------------------------ */

/* Objects of the model's own files, each file once a variant. */
static void print_make_variants(const Folder *f, Text *t) {
    if (!f->n_variants) return;
    text_printf(t, "\n\n# The model, compiled once a variant.\nVARIANTS =");
    for (uint32_t i = 0; i < f->n_variants; i++) text_printf(t, " %s", f->variant[i]->name);
    for (uint32_t i = 0; i < f->n_variants; i++) {
        text_printf(t, "\nFLAGS_%s =", f->variant[i]->name);
        print_variant_flags(f->variant[i], t);
    }
    text_printf(t, "\nVARIED =");
    print_names(f, USE_VARIANT, true, t);
    text_printf(t, "\nMODEL += $(foreach v,$(VARIANTS),$(VARIED:.o=.$v.o))\n"
                   "define compile_variant\n%%.$(1).o: %%.c $$(wildcard *.h)\n\t$$(CC) -std=c99 $$(CFLAGS) $$(FLAGS_$(1)) -c -o $$@ $$<\nendef\n"
                   "$(foreach v,$(VARIANTS),$(eval $(call compile_variant,$v)))");
}

void folder_makefile(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix, *define = f->b->o->train ? "" : " -DMOEC_NO_TRAINING";
    text_printf(t, "# make: the program %s. make lib%s.a: all that another program links to use the model.\n"
                   "# make CC=clang CFLAGS=-O2: other compilers, other flags.\nCC ?= cc\n", x, x);
    const char *debug = f->b->codegen.ir_file ? "-g " : "";
    if (is_generic(f)) text_printf(t, "CFLAGS ?= %s-O%c\n", debug, optimise(f));
    else
        text_printf(t, "ifeq ($(origin CFLAGS),undefined)\n# As many of these as the compiler knows.\nFAST = %s%s\n"
                       "CFLAGS := %s-O%c $(foreach f,$(FAST),$(shell $(CC) $f -E -x c /dev/null >/dev/null 2>&1 && echo $f))\nendif\n",
                    fast_march(f), fast_flags, debug, optimise(f));
    if (f->text) text_printf(t, "CXX ?= c++\nCXXFLAGS ?= -O%c\nLINK = $(CXX)\n", optimise(f));
    else text_printf(t, "LINK = $(CC)\n");
    text_printf(t, "LDLIBS = %s%s-lm -lpthread\nMODEL =", f->b->codegen.plain_matmul ? "" : "-lopenblas ", f->text ? "-lsentencepiece " : "");
    print_names(f, USE_MODEL, true, t);
    text_printf(t, "\nPROGRAM =");
    print_names(f, USE_PROGRAM, true, t);
    print_make_variants(f, t);
    text_printf(t, "\n\n%s: $(PROGRAM) $(MODEL)\n\t$(LINK) $(LDFLAGS) -o $@ $(PROGRAM) $(MODEL) $(LDLIBS)\n\n", x);
    text_printf(t, "lib%s.a: $(MODEL)\n\t$(AR) rcs $@ $(MODEL)\n\n", x);
    text_printf(t, "%%.o: %%.c $(wildcard *.h)\n\t$(CC) -std=c99 $(CFLAGS)%s -c -o $@ $<\n\n", define);
    if (f->text) text_printf(t, "%%.o: %%.cc $(wildcard *.h)\n\t$(CXX) -std=c++17 $(CXXFLAGS) -c -o $@ $<\n\n");
    if (f->b->codegen.embed_weights) text_printf(t, "weights.o: weights.S %s\n\t$(CC) -c -o $@ weights.S\n\n", f->weights);
    text_printf(t, "clean:\n\trm -f $(PROGRAM) $(MODEL) %s lib%s.a\n\n.PHONY: clean\n", x, x);
}

/* ---- CMakeLists.txt ------------------------------------------------------------------------------------- */

/* Object libraries, one a variant. */
static void print_cmake_variants(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix;
    for (uint32_t i = 0; i < f->n_variants; i++) {
        const char *target = arena_printf(f->b->a, "%s_%s", x, f->variant[i]->name);
        text_printf(t, "\nadd_library(%s OBJECT", target);
        print_names(f, USE_VARIANT, false, t);
        text_printf(t, ")\nlist(APPEND variants %s)\ntarget_sources(%s_model PRIVATE $<TARGET_OBJECTS:%s>)\n", target, x, target);
    }
}

/* Behind all other options: the last -march counts. */
static void print_cmake_variant_flags(const Folder *f, Text *t) {
    for (uint32_t i = 0; i < f->n_variants; i++) {
        text_printf(t, "%starget_compile_options(%s_%s PRIVATE", i ? "" : "\n", f->b->codegen.prefix, f->variant[i]->name);
        if (f->b->codegen.ir_file) text_printf(t, " -g");
        print_variant_flags(f->variant[i], t);
        text_printf(t, ")\n");
    }
}

void folder_cmake(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix;
    bool embeds = f->b->codegen.embed_weights;
    text_printf(t, "# Program %s and library lib%s.a: cmake -S . -B build && cmake --build build\ncmake_minimum_required(VERSION 3.18)\n"
                   "project(%s_model LANGUAGES C%s%s)\n\n", x, x, x, embeds ? " ASM" : "", f->text ? " CXX" : "");
    text_printf(t, "if(NOT CMAKE_BUILD_TYPE)\n    set(CMAKE_BUILD_TYPE Release)\nendif()\n"
                   "set(CMAKE_C_STANDARD %s)\nset(CMAKE_C_EXTENSIONS OFF)\n%sfind_package(Threads REQUIRED)\n\n",
                is_generic(f) ? "99" : "11", f->text ? "set(CMAKE_CXX_STANDARD 17)\n" : "");
    text_printf(t, "add_library(%s_model STATIC", x);
    print_names(f, USE_MODEL, false, t);
    text_printf(t, ")\nset_target_properties(%s_model PROPERTIES OUTPUT_NAME %s)\n", x, x);
    text_printf(t, "target_include_directories(%s_model PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})\n", x);
    text_printf(t, "target_link_libraries(%s_model PUBLIC %sThreads::Threads m)\n", x, f->b->codegen.plain_matmul ? "" : "openblas ");
    if (embeds)
        text_printf(t, "set_source_files_properties(weights.S PROPERTIES COMPILE_OPTIONS -I${CMAKE_CURRENT_SOURCE_DIR}\n"
                       "    OBJECT_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/%s)\n", f->weights);
    print_cmake_variants(f, t);
    if (f->b->codegen.ir_file) text_printf(t, "target_compile_options(%s_model PRIVATE $<$<COMPILE_LANGUAGE:C>:-g>)\n", x);
    text_printf(t, "\nadd_executable(%s_program", x);
    print_names(f, USE_PROGRAM, false, t);
    text_printf(t, ")\nset_target_properties(%s_program PROPERTIES OUTPUT_NAME %s)\n", x, x);
    text_printf(t, "target_link_libraries(%s_program PRIVATE %s_model%s)\n", x, x, f->text ? " sentencepiece" : "");
    if (!f->b->o->train) text_printf(t, "target_compile_definitions(%s_program PRIVATE MOEC_NO_TRAINING)\n", x);
    if (!is_generic(f))
        text_printf(t, "\n# As many of these as the compiler knows.\ninclude(CheckCCompilerFlag)\nforeach(flag %s%s)\n"
                       "    string(MAKE_C_IDENTIFIER \"${flag}\" known)\n    check_c_compiler_flag(${flag} %s_HAS${known})\n"
                       "    if(%s_HAS${known})\n        foreach(target %s_model %s_program%s)\n"
                       "            target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:${flag}>)\n"
                       "        endforeach()\n    endif()\nendforeach()\n", fast_march(f), strchr(fast_flags, ' ') + 1, x, x, x, x, f->n_variants ? " ${variants}" : "");
    print_cmake_variant_flags(f, t);
    if (embeds && !f->text) return;
    text_printf(t, "\n# The program finds these beside itself.\nforeach(file%s%s%s%s)\n", embeds ? "" : " ", embeds ? "" : f->weights,
                f->text ? " " : "", f->text ? f->text : "");
    text_printf(t, "    add_custom_command(TARGET %s_program POST_BUILD COMMAND ${CMAKE_COMMAND} -E create_symlink\n"
                   "        ${CMAKE_CURRENT_SOURCE_DIR}/${file} $<TARGET_FILE_DIR:%s_program>/${file})\nendforeach()\n", x, x);
}

/* ---- README.md --------------------------------------------------------------------------------------------- */

static void print_building(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix;
    text_printf(t, "# %s\n\nA model compiled to C by moec. `make` builds the program `%s`", x, x);
    if (f->text) text_printf(t, "; the tokenizer takes a C++ compiler and libsentencepiece");
    if (!f->b->codegen.plain_matmul) text_printf(t, "; matrix products are OpenBLAS's");
    text_printf(t, ".\n%s C99 compiler, libc, libm and pthreads are all it needs, on little-endian Linux. `make CC=clang`,\n"
                   "%sand any `CFLAGS` do; so does CMake: `cmake -S . -B build && cmake --build build`.\n\n",
                f->text || !f->b->codegen.plain_matmul ? "Otherwise a" : "A", f->n_variants ? "" : "`make CC=aarch64-linux-gnu-gcc` ");
    if (f->n_variants)
        text_printf(t, "The model is compiled once a variant, for several CPUs of an x86-64. The program runs the best variant that its CPU has the\n"
                       "vectors for; `MOEC_VARIANT=base` in its environment, or another one's name, asks for that one, `info` says which it is.\n"
                       "Without `%s_variants.c` the same files are a model of one variant, for any compiler and machine.\n\n", x);
    text_printf(t, "    make\n");
    text_printf(t, "    ./%s info                                       # functions, extents, memory, adapter\n", x);
}

static void print_running(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix;
    if (!f->b->model->m->s2s.present) {
        text_printf(t, "    ./%s run main --in NAME=FILE.npy ...             # its inputs and outputs as NumPy stores them\n\n", x);
        return;
    }
    if (f->text) text_printf(t, "    ./%s --text \"Is it raining?\"                    # generates; the same as ./%s generate --text ...\n", x, x);
    text_printf(t, "    ./%s --ids \"5 9 12 1\"                           # token ids in and out\n", x);
    text_printf(t, "    ./%s score --ids \"5 9 12 1\" --targets \"7 1\"     # log-probability of a given answer\n", x);
    if (f->b->o->train)
        text_printf(t, "    ./%s train --data train.jsonl --steps 1000 --out run    # %s\n", x,
                    f->text ? "lines of {\"inputs\": text, \"targets\": text}" : "lines of {\"input_ids\": [...], \"labels\": [...]}");
    text_printf(t, "    ./%s --help\n\n", x);
}

static void print_embedding(const Folder *f, Text *t) {
    const char *x = f->b->codegen.prefix;
    bool embeds = f->b->codegen.embed_weights, s2s = f->b->model->m->s2s.present;
    text_printf(t, "## In another program\n\n`make lib%s.a`, or compile all files but those marked \"program\" below, with the rest.\n\n", x);
    text_printf(t, "    #include \"%s.h\"\n\n    char text[256];\n    moec_options o = {%s.message = text, .message_room = sizeof text};\n", x,
                embeds ? "" : arena_printf(f->b->a, ".weights = \"%s\", ", f->weights));
    text_printf(t, "    moec_instance *m;\n    if (moec_open(%s_program(), &o, &m)) { puts(text); return 1; }\n", x);
    if (s2s)
        text_printf(t, "    moec_generate_options g = {.max_length = 20, .eos = -1};\n"
                       "    moec_generate(m, 1, n, ids, mask, NULL, &g, tokens, &steps, NULL, NULL);     /* ids, mask: [1, n] */\n");
    text_printf(t, "    moec_run(m, moec_find_function(%s_program(), \"%s\"), sym, arg);     /* any function; info lists them */\n", x,
                s2s ? "encode" : "main");
    text_printf(t, "    moec_load_adapter(m, \"other.safetensors\", text, sizeof text);     /* other experts, no recompiling */\n    moec_close(m);\n\n");
    if (f->b->o->train) text_printf(t, "`moec_train.h` has what training in another program takes.\n");
    text_printf(t, "A model of another folder links into the same program: add its files marked \"model\"; those marked \"runtime\"\nare the same in every folder of one moec; one that trains, or has variants, has more of them.\n\n");
}

void folder_readme(const Folder *f, Text *t) {
    static const char *const use[] = {[USE_MODEL] = "model", [USE_VARIANT] = "model", [USE_RUNTIME] = "runtime", [USE_PROGRAM] = "program", [USE_OTHER] = ""};
    print_building(f, t);
    print_running(f, t);
    print_embedding(f, t);
    text_printf(t, "## Files\n\n| file | part | what |\n|---|---|---|\n");
    for (size_t i = 0; i < f->file.count; i++)
        text_printf(t, "| `%s` | %s | %s |\n", f->file.item[i].name, use[f->file.item[i].use], f->file.item[i].what);
}
