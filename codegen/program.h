/* A compiled model as data: what both the C printer and the LLVM builder translate.
 *
 *   kernels      loop IR, in the order of their first call
 *   functions    one an entry function, and `prepare`: lists of kernel calls, every argument a place
 *   size rules   extents and byte counts as functions of the run-time symbols
 *   tables       the constants of moec_rt.h, row by row; each names only what stands before it
 *
 * With an IR file (CodegenOptions.ir_file) kernels, statements, calls and functions also have its lines, 1-based, 0 where
 * none is known: a debugger shows the line, and on it the ONNX node. What has no line belongs to no node.
 *
 * Printers make no decision: names, order and values are all here. */
#ifndef MOEC_PROGRAM_H
#define MOEC_PROGRAM_H

#include "codegen.h"
#include "loop.h"

/* ---- calls --------------------------------------------------------------------------------------- */

typedef enum PlaceWhere {
    PLACE_WEIGHTS, /* the weights file */
    PLACE_ADAPTER, /* the adapter block */
    PLACE_DERIVED, /* what `prepare` computes from it */
    PLACE_ARENA,
    PLACE_ARG      /* the caller's buffer number `at` */
} PlaceWhere;

typedef struct Place {
    PlaceWhere where;
    DType dtype;
    uint64_t at; /* bytes from the start; PLACE_ARG: which */
    Str name;    /* of the parameter, input or output; empty in the arena */
} Place;

typedef struct KernelCall {
    const LoopKernel *kernel;
    const Place *place; /* one a kernel argument */
    uint32_t n_places;
    Str origin; /* the ONNX node or adapter site it comes from */
    uint32_t line;
} KernelCall;

/* void symbol(const moec_frame *f). With CodegenOptions.profile it calls moec_profile_begin(f) first, and behind each call
 * moec_profile_mark(f, the call's number). */
typedef struct CallList {
    const char *symbol;
    Str name; /* of the entry function */
    const KernelCall *call;
    uint32_t n_calls;
    uint32_t first; /* number of its first call among the program's */
    uint32_t line; /* `prepare` has none: its calls have those of init functions */
} CallList;

/* ---- sizes ---------------------------------------------------------------------------------------- */

typedef struct SizeRow {
    const Dim *dim;
    uint32_t n;
} SizeRow;

/* out[k] = dim[k] of row i: void symbol(const int64_t *sym, uint32_t i, int64_t *out); with one row,
 * void symbol(const int64_t *sym, uint64_t *out). */
typedef struct SizeRule {
    const char *symbol;
    bool selects; /* takes i */
    const SizeRow *row;
    uint32_t n_rows;
} SizeRule;

/* ---- tables ---------------------------------------------------------------------------------------- */

typedef enum CellKind { CELL_U8, CELL_I16, CELL_I32, CELL_U32, CELL_I64, CELL_U64, CELL_HASH /* u64 */, CELL_TEXT, CELL_REF } CellKind;

typedef struct Field {
    const char *name;
    CellKind kind;
    uint32_t count; /* cells side by side: an array when more than one */
    size_t offset;  /* in the runtime's struct */
} Field;

/* A struct of moec_rt.h. */
typedef struct Record {
    const char *type;
    const Field *field;
    uint32_t n_fields;
    size_t size;
} Record;

typedef struct Cell {
    int64_t i;
    Str text;        /* CELL_TEXT */
    const char *ref; /* CELL_REF: a table, function or array by its symbol; NULL: no object */
} Cell;

typedef struct Table {
    const Record *record;
    const char *symbol;
    bool single; /* one struct, referred to by its address; else an array */
    const Cell *cell; /* n_rows times the record's cells */
    uint32_t n_rows;
} Table;

/* ---- the program ------------------------------------------------------------------------------------- */

typedef struct Program {
    Module *m;
    const Image *im;
    const CodegenOptions *o;
    Arena *arena;
    Text ir;             /* the module before it was lowered, where o->ir_file asks for it */
    ModuleLines lines;   /* of its functions; none without */
    LoopKernel **kernel;
    LRoutine **routine;  /* that kernels call */
    uint32_t n_routines;
    const Func **kernel_func; /* what each was lowered from */
    uint32_t n_kernels;
    CallList *function;  /* in the order of the table of functions; `prepare`, if any, is another */
    uint32_t n_functions;
    CallList *prepare;   /* NULL without derived parameters */
    SizeRule *size_rule;
    uint32_t n_size_rules;
    Table *table;        /* the last is the program itself */
    uint32_t n_tables;
    const char *weights; /* symbol of the embedded weights file; NULL without */
    int64_t scratch, arena_bytes;
    const uint32_t *symbol; /* run-time symbols by their position in moec_frame.sym */
    uint32_t n_symbols;
    const uint32_t *slot;   /* the reverse; NONE: not a symbol of the program */
} Program;

/* The text of CELL_REF to the adapter spec's bytes, an array of char that ends in 0. */
#define PROGRAM_SPEC "spec"
/* And to the name of the variant that the code is, with CodegenOptions.dispatch. */
#define PROGRAM_VARIANT "variant"

/* Lowers a planned module and lays out its tables. NULL after reporting. The image has been written: the program
 * carries its hash. Sets im->scratch_bytes. */
Program *program_lower(Module *m, Image *im, const CodegenOptions *o, Diag *d);
void program_free(Program *p);

/* The texts of model.c and model.h. */
void program_print_c(const Program *p, Text *c);
void program_print_header(const Program *p, Text *h);

/* One file of C; its name, and for its reader what it holds. */
typedef struct Source {
    const char *name, *what;
    Text text;
} Source;

typedef struct Sources {
    Source *item;
    uint32_t count;
} Sources;

/* PREFIX.h and PREFIX.c; where that would be longer than `large` bytes, kernels and functions stand in files by kind of
 * layer (sources.c). False after reporting: a single kernel or table is longer than `most`, which no file is. The texts are
 * the caller's, to be freed with sources_free; the rest is in a. */
bool program_sources(const Program *p, Arena *a, size_t large, size_t most, Sources *out, Diag *d);
void sources_free(Sources *s);

#endif
