/* The command line program: options, what commands share, and the commands themselves.
 *
 * A command is `int cmd_NAME(const Options *o)` in cmd_NAME.c; it returns the exit code: EXIT_DONE, EXIT_INPUT (after
 * reporting) or EXIT_USAGE. A bug in moec ends in BUG(), code 70. */
#ifndef MOEC_DRIVER_H
#define MOEC_DRIVER_H

#include "../adapter.h"
#include "../pass.h"
#include "../remark.h"
#include "../../frontends/config.h"
#include "../../frontends/onnx.h"
#include "../../frontends/safetensors.h"

enum { EXIT_DONE = 0, EXIT_INPUT = 1, EXIT_USAGE = 2 };

/* ---- options (options.c; the table is options.def) -------------------------------------------- */

typedef enum Command {
#define COMMAND(name, argument, most, doc) COMMAND_##name,
#include "options.def"
    COMMAND_COUNT
} Command;

/* Verbs of the commands that have some. */
typedef enum SubCommand {
#define SUBCOMMAND(command, name, argument, most, doc) SUB_##command##_##name,
#include "options.def"
    SUB_COUNT
} SubCommand;

typedef struct TextList {
    const char **item;
    size_t count, room;
} TextList;

typedef struct Options {
    Command command;
    const char *program; /* argv[0] */
    SubCommand sub;      /* SUB_COUNT where the command has none */
    const char *model;   /* the first positional argument */
    TextList argument;   /* all of them */
#define FIELD_FLAG bool
#define FIELD_TEXT const char *
#define FIELD_WORD int
#define FIELD_BARE int
#define FIELD_NUMBER int64_t
#define FIELD_LIST TextList
#define OPTION(kind, field, spelling, argument, commands, doc) FIELD_##kind field;
#include "options.def"
} Options;

/* What a WORD's field may be, in the order of its words. */
typedef enum EmitKind { EMIT_EXE, EMIT_OBJ, EMIT_LIB, EMIT_SHARED, EMIT_C, EMIT_HEADER, EMIT_ASM, EMIT_LLVM, EMIT_BC, EMIT_COUNT } EmitKind;
enum { MATMUL_AUTO, MATMUL_NATIVE, MATMUL_OPENBLAS };
/* Products are OpenBLAS's. */
bool products_are_library(const Options *o);
enum { REPORT_AUTO, REPORT_TEXT, REPORT_JSON };
enum { BACKEND_C, BACKEND_LLVM };
enum { EXECUTOR_INTERP, EXECUTOR_C, EXECUTOR_LLVM };
enum { VERIFY_EACH, VERIFY_NONE };

/* Reads argv; *exit_code says what to do when it returns false (help was shown, or a usage error reported). */
bool options_parse(int argc, char **argv, Options *o, int *exit_code);
void options_free(Options *o);
/* One line on stderr that ends a command over its arguments: `return usage_error(o, code, "...")`. */
int usage_error(const Options *o, DiagCode code, const char *fmt, ...) MOEC_PRINTF(3, 4);

/* ---- models (load.c) -------------------------------------------------------------------------------- */

/* What the positional argument and the options around it name, read and judged, passes not yet run. */
typedef struct Model {
    Arena *arena;
    Module *m;
    const char *path;
    const char *dir;     /* the model's directory, for config.json and spiece.model; NULL for single files */
    bool text;           /* text IR */
    bool has_config;
    bool ids_given;      /* token ids are known, not assumed */
    T5Config config;
    AdapterSpec *spec;   /* NULL without an adapter */
    OnnxFiles *files;
    Remarks *remarks;    /* NULL without --opt-report */
    SafeFile base;       /* weights in the place of the model's own; empty without */
    PassOptions options; /* for the passes; points into the arena */
    bool (*around)(const Module *m, PassId p, bool done, void *context, Diag *d); /* as in PassRun */
    void *around_context;
} Model;

/* MODEL is a directory as exporters leave it, an .onnx file, or an .ir file. False after reporting; *out is to be
 * closed in either case. */
bool model_load(const Options *o, Model *out, Diag *d);
void model_close(Model *model);
/* The config alone: of a directory, or the .json file that `path` names. False after reporting. */
bool model_config(Arena *a, const char *path, T5Config *out, Diag *d);
/* Runs the pipeline as the options say (--stop-after, --dump-ir, ...); `stop_after` where the option is not given;
 * `list` NULL = all passes
 * that are left. */
bool model_passes(Model *model, const Options *o, const char *stop_after, const PassId *list, uint32_t n, Diag *d);

/* A tensor from an .npy file or an ONNX TensorProto (.pb). */
bool tensor_load(const char *path, Arena *a, Tensor *out, Diag *d);
/* Parses "a,b,c" into passes; the names are known to be some. False after reporting that they are too many. */
bool pass_list_parse(const char *text, PassId *list, uint32_t room, uint32_t *n, Diag *d);
/* `NAME=REST`; false when there is no `=`. */
bool split_assignment(const char *text, Str *name, const char **rest);
/* Bytes, or with K, M or G behind them 1024, 1024^2 or 1024^3 of them; none is no size. */
bool size_parse(const char *text, int64_t *n);

/* Prints what was collected; EXIT_DONE when ok and no error was reported, else EXIT_INPUT. Frees d. */
int diag_finish(Diag *d, bool ok);

/* ---- files ---------------------------------------------------------------------------------------------- */

/* Writes under a temporary name in the same directory, then renames; path "-" or NULL is stdout. */
bool text_write(const char *path, const Text *text, Diag *d);

/* The runtime's sources and archives that moec carries: names relative to runtime/, or lib*.a. Ends with a NULL name. */
typedef struct EmbeddedFile {
    const char *name;
    const unsigned char *data;
    uint64_t size;
} EmbeddedFile;
extern const EmbeddedFile driver_embedded[];
const EmbeddedFile *embedded_find(const char *name); /* NULL when moec was built without it */

/* ---- commands --------------------------------------------------------------------------------------------- */

#define COMMAND(name, argument, most, doc) int cmd_##name(const Options *o);
#include "options.def"

#endif
