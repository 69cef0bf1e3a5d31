/* From a planned module to files: sources in a folder, what the C compiler makes of them, the weights. */
#ifndef MOEC_BUILD_H
#define MOEC_BUILD_H

#include "../../codegen/program.h"
#include "driver.h"

typedef enum EmitKind { EMIT_EXE, EMIT_OBJ, EMIT_LIB, EMIT_SHARED, EMIT_C, EMIT_HEADER, EMIT_COUNT } EmitKind;
bool emit_parse(const char *text, EmitKind *out); /* NULL text: exe */

typedef struct Build {
    const Options *o;
    Model *model;
    Diag *d;
    Arena *a;
    CodegenOptions codegen;
    Image image;
    Program *program; /* NULL until build_program */
    char *dir;          /* scratch folder, removed by build_close */
    const char *text_model; /* spiece.model of the model directory, NULL without one; set by build_text */
    Str text;               /* its bytes, checked */
    const char *target;     /* the machine that the C compiler compiles for, in its words; NULL: this one */
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
 * or abandons it, so that it appears together with what was built from it. */
bool build_weights(Build *b, const char *path, OutFile *o);
/* Lowers the model, once; the weights have been written. */
bool build_program(Build *b);
/* model.c, model.h and the runtime's files in the scratch folder; main.c for executables. */
bool build_sources(Build *b, bool with_main);
/* Runs the C compiler over the scratch folder; the result is a file there, whose path comes back. */
bool build_compile(Build *b, EmitKind kind, const char **result);
/* Copies a file of the scratch folder to its place, atomically. */
bool build_install(Build *b, const char *from, const char *to, unsigned mode);
/* The folder of standalone sources (folder.c). */
bool build_folder(Build *b, const char *out);
/* A valid prefix made of the output's name. */
const char *build_prefix(Arena *a, const char *output);

/* Single files into `dir`: one of the runtime, main.c, the model's .c and .h, weights.S that includes file `weights`. */
const char *build_path(Build *b, const char *dir, const char *name);
bool build_embedded(Build *b, const char *dir, const EmbeddedFile *e);
bool build_main(Build *b, const char *dir, bool with_text);
bool build_object(Build *b, const char *source, const char *object); /* runs the C compiler; both in the scratch folder */

/* Compilers for other machines (cross.c): asks --cc what it compiles for; false after reporting that it cannot be used. Then
 * the runtime compiled with it, and the archiver for its objects. */
bool build_target(Build *b);
bool build_runtime(Build *b);
const char *build_ar(Build *b);
bool build_model(Build *b, const char *dir);
bool build_weights_asm(Build *b, const char *dir, const char *weights);

/* moec info --train (info_train.c): adds the memory plan to t. */
bool info_train(const Options *o, Text *t, Diag *d);

#endif
