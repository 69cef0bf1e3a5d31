/* From a planned module to files: sources in a folder, what the C compiler makes of them, the weights. */
#ifndef MOEC_BUILD_H
#define MOEC_BUILD_H

#include "../../codegen/program.h"
#include "../../codegen/variant.h"
#include "driver.h"
#include "tool.h"

typedef struct Build {
    const Options *o;
    Model *model;
    Diag *d;
    Arena *a;
    CodegenOptions codegen;
    Image image;
    Program *program; /* NULL until build_program */
    bool llvm;          /* the LLVM backend: no C compiler is called */
    char *dir;          /* scratch folder, removed by build_close */
    const char *source_dir; /* what debug information says of where sources are; NULL: where the debugger runs */
    const char *text_model; /* spiece.model of the model directory, NULL without one; set by build_text */
    Str text;               /* its bytes, checked */
    const char *target;     /* the machine that code is for, in the words of --cc or --target; NULL: this one */
    bool staging;           /* files of the result wait under temporary names: all of them appear, or none */
    Vec(OutFile) staged;
    Vec(const char *) runtime; /* for another machine: the runtime's objects in the scratch folder */
} Build;

/* Opens a scratch folder and plans the image; prefix: of the generated symbols. */
bool build_open(Build *b, const Options *o, Model *model, const char *prefix, Diag *d);
void build_close(Build *b);
/* Reads and checks the model directory's vocabulary, if it has one: the executable then handles text. */
bool build_text(Build *b);
/* The checked bytes under `to`. */
bool build_install_text(Build *b, const char *to);
/* Writes the weights file that is to stand at `path`; needed before sources, which carry its hash. The caller commits
 * or stages it, so that it appears together with what was built from it. */
bool build_weights(Build *b, const char *path, OutFile *o);
/* Lowers the model, once; the weights have been written. */
bool build_program(Build *b);
/* False after reporting when the IR that -g writes into `dir` would take the place of the model it is made of. */
bool build_spares_input(Build *b, const char *dir);
/* With -g the IR that machine code refers to, as codegen.ir_file in `dir`; without nothing. */
bool build_ir(Build *b, const char *dir);
/* model.h and the runtime's files in the scratch folder; for the C backend model.c, and main.c for executables. */
bool build_sources(Build *b, bool with_main);
/* Compiles and links what build_sources wrote, or the program through LLVM; the result is a file there, whose path comes back. */
bool build_compile(Build *b, EmitKind kind, const char **result);
/* Copies a file of the scratch folder to its place, atomically. */
bool build_install(Build *b, const char *from, const char *to, unsigned mode);
/* From build_stage on what is installed waits for build_settle, and so does a file that the caller wrote; build_close abandons it. */
void build_stage(Build *b);
void build_stage_file(Build *b, const OutFile *f);
bool build_settle(Build *b);
/* The folder of standalone sources (folder.c). */
bool build_folder(Build *b, const char *out);
/* Whether a prefix would meet names of the runtime or of C. */
bool build_prefix_taken(const char *prefix);
/* A valid prefix made of the output's name. */
const char *build_prefix(Arena *a, const char *output);

/* Single files into `dir`: one of the runtime, main.c, the model's .c and .h, weights.S that includes file `weights`. */
const char *build_path(Build *b, const char *dir, const char *name);
bool build_embedded(Build *b, const char *dir, const EmbeddedFile *e);
bool build_main(Build *b, const char *dir, bool with_text);
bool build_model(Build *b, const char *dir);
bool build_weights_asm(Build *b, const char *dir, const char *weights);
/* Runs the C compiler, how: "-c" or "-S"; both files are in the scratch folder. v: as one of several variants, or NULL. */
bool build_object(Build *b, const char *how, const char *source, const char *object, const CodeVariant *v);
/* Puts objects of the scratch folder together into one of them. */
bool build_join(Build *b, const char *const *object, uint32_t n, const char *joined);

/* Other machines (cross.c): sets `target`, from what --cc says it compiles for, or for LLVM from --target; false after
 * reporting that it cannot be used. Then the runtime compiled with --cc, and the archiver for its objects. */
bool build_target(Build *b);
bool build_runtime(Build *b);
const char *build_ar(Build *b);

/* Runs a program, args[0] found on PATH; `hint` tells what to do when it is not there. */
bool build_tool(Build *b, Args *args, const char *hint);

/* --dispatch (build_variants.c): whether it can be had with the other options; false after reporting. Then the variants of
 * the program, of which there are none without the option; the C file that chooses among them, and its text; all of
 * it as model.o, by the C compiler. */
bool build_check_dispatch(Build *b);
uint32_t build_variants(Build *b, const CodeVariant **out);
const char *build_variants_name(Build *b);
bool build_variants_text(Build *b, const char *dir);
bool build_variant_objects(Build *b);

/* The LLVM backend (build_llvm.c): the objects that the kind needs, in the scratch folder; and a linker's call. */
bool build_llvm_objects(Build *b, EmitKind kind);
bool build_llvm_link(Build *b, EmitKind kind, const char *result);

/* moec info --train (info_train.c): adds the memory plan to t. --memory-report is written as well. */
bool info_train(const Options *o, Text *t, Diag *d);
/* moec info FILE.weights (info_weights.c): a command of its own. */
int info_weights(const Options *o);

/* The reports that the options ask for (reports.c): files, or standard output. `b` is what the model was
 * built with, NULL where nothing was: then a planned module is lowered here, for what there is to tell of
 * that. The module must not be printed afterwards. */
bool reports_write(const Options *o, Model *model, Build *b, Diag *d);
/* Whether the options can be had together; a usage error is reported otherwise. `printed`: the command's own
 * result goes to standard output. */
bool reports_check(const Options *o, bool printed, int *exit_code);

#endif
