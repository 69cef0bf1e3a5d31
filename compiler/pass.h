/* Passes: what they take besides the module, their prototypes, and the runner that alone prints, verifies and
 * times them. A pass returns false after reporting. */
#ifndef MOEC_PASS_H
#define MOEC_PASS_H

#include "pack.h"

typedef struct DimBound { /* --dim NAME=lo..hi; lo == hi turns the symbol into a constant */
    Str name;
    int64_t lo, hi;
} DimBound;

typedef struct InputValue { /* --value INPUT=FILE; an empty func means any entry function */
    Str func, input;
    Tensor value;
} InputValue;

/* --activations: of products whose weights are not f32. By itself bf16 meets bf16, but in training. */
typedef enum Activations { ACTIVATIONS_AUTO, ACTIVATIONS_F32, ACTIVATIONS_BF16, ACTIVATIONS_INT8 } Activations;

/* --weights: of the sites that a pattern matches, or of all. */
typedef struct WeightChoice {
    Str sites; /* empty: all */
    WeightFormat format;
} WeightChoice;

struct AdapterSpec;

typedef struct PassOptions {
    const DimBound *dim;
    uint32_t n_dims;
    const InputValue *value;
    uint32_t n_values;
    const struct AdapterSpec *adapter;
    uint64_t seed;
    int opt_level;
    bool plain; /* not a seq2seq model: one function */
    bool train; /* functions for training, too */
    bool library; /* products are a library's: weights stay as it takes them */
    const WeightChoice *weights; /* how weights are stored: the last that matches; f32 without */
    uint32_t n_weights;
    Activations activations;
    int64_t max_memory; /* bytes that training may take in all; 0: no limit */
} PassOptions;

#define PASS(name, function, doc) bool function(Module *m, const PassOptions *o, Diag *d);
#include "passes.def"

/* ---- runner ------------------------------------------------------------------------------------ */

typedef enum PassId {
#define PASS(name, function, doc) PASS_##name,
#include "passes.def"
    PASS_COUNT
} PassId;

const char *pass_name(PassId p);
const char *pass_doc(PassId p);
bool pass_find(Str name, PassId *out);

enum { DUMP_BEFORE = 1, DUMP_AFTER = 2 };

/* What is dumped of a pass that changed the module's text; in the order of the driver's --dump-changed. */
typedef enum DumpChanged { CHANGED_NOT, CHANGED_TEXT, CHANGED_DIFF } DumpChanged;

typedef struct PassRun {
    const PassOptions *options;
    const PassId *list; /* what to run; NULL: the whole pipeline */
    uint32_t n_list;
    const char *stop_after;          /* name of a pass of the list, or NULL */
    unsigned char dump[PASS_COUNT];  /* DUMP_BEFORE | DUMP_AFTER */
    DumpChanged changed;             /* also names passes that changed nothing */
    const char *dump_dir;            /* numbered files NN-after-PASS.ir (01-before-bind.ir); NULL: dumps go to stdout */
    bool time_passes;                /* table on stderr */
    bool no_verify;
    bool paranoid; /* print -> parse -> print identity; interpreter results before == after on seeded inputs */
    bool bound;    /* the module is already past bind */
    /* Called once types are known; false ends the run. NULL: nothing to do. */
    bool (*after_bind)(const Module *m, void *context, Diag *d);
    /* Called in front of every pass and, `done`, behind it; false ends the run. NULL: nothing to do. */
    bool (*around)(const Module *m, PassId p, bool done, void *context, Diag *d);
    void *context;
    const char *bad_ir_dir; /* where the IR that fails verification is written; NULL: "." */
} PassRun;

/* Runs the list over m. False when a pass refused the input (reported in d). A module that does not verify after a
 * pass is moec's bug: it is written to `moec-bad-<pass>.ir`, and the process exits 70. */
bool passes_run(Module *m, const PassRun *run, Diag *d);
/* What is left of the pipeline for text IR: nothing of a dump after `plan`, `plan` after `fuse`, what follows
 * `attach` where an adapter is attached, else all. list: room for PASS_COUNT; how many there are is returned. */
uint32_t passes_left(const Module *m, PassId *list);
/* Whether every type is ranked and no dynamic op is left: what bind achieves. */
bool module_is_bound(const Module *m);

/* Deterministic inputs for executing a function without any: integers in 0..range, floats in -1..1, masks of ones
 * with a padded tail. Symbols get small values within their bounds and
 * those of the options (which may be NULL). Fills in[], allocated in `a`. */
void seed_symbols(const Module *m, const PassOptions *o, int64_t *syms);
bool seed_inputs(const Module *m, const Func *f, const int64_t *syms, uint64_t seed, Tensor *in, Arena *a, Diag *d);

#endif
