/* Random graphs: what the files of the tool share.
 *
 *   choice.c     the generator of numbers; extents, symbols, fills of inputs
 *   exact.c      which values every correct implementation computes to the same bits
 *   grow.c       a graph grows node by node: operands are found or made
 *   rules.c      one rule for each type rule of ops.def, and for ops whose type is given
 *   rules_big.c  the same for contractions, losses and calls
 *   rules_panel.c  the same for panels, and products by weights
 *   reference.c  the interpreter's results, and how far rounding may move them
 *   backend.c    a planned module as a loaded library
 *   check.c      batches: passes, interpreter and backends in processes of their own
 *   shrink.c     a failing graph made small, and the files that reproduce it
 *   main.c       options, counts
 *
 * A graph follows from its seed alone, whatever stands beside it in a module and whatever the machine and compiler: no two
 * choices stand in one expression, whose parts C orders as it likes. */
#ifndef RANDOM_GRAPHS_H
#define RANDOM_GRAPHS_H

#include "compiler/pass.h"

/* ---- choice.c ---- */

typedef struct Rng {
    uint64_t state;
} Rng;

uint64_t rng_next(Rng *r);
uint32_t rng_below(Rng *r, uint32_t n);   /* 0 .. n-1; n > 0 */
bool rng_chance(Rng *r, uint32_t percent);

typedef enum Fill {
    FILL_GRID,     /* floats: quarters in -4 .. 4: sums and products of a few are exact */
    FILL_FLOAT,    /* floats: any in -2 .. 2 */
    FILL_WILD,     /* floats: FILL_FLOAT, and NaN, infinities, zeros of both signs */
    FILL_POSITIVE, /* floats: 0.5 .. 2 */
    FILL_SMALL,    /* integers: 0 .. 3, signed ones -3 .. 3; bool: both */
    FILL_EXTREME,  /* integers: the ends of the type's range, -1, 0, 1, anything */
    FILL_INDEX,    /* integers: -range .. range - 1 */
    FILL_LABEL,    /* i64: 0 .. range - 1, and -100 */
    FILL_SHARE,    /* floats: 0, 0.1, 0.5 */
    FILL_TENSOR    /* a copy of `value` */
} Fill;

typedef struct Exact {
    bool exact; /* the same bits from every implementation */
    bool grid;  /* |v| < 2^bits / 2^frac, a multiple of 2^-frac: small sums and products stay exact */
    bool wild;  /* may hold NaN or infinities */
    int bits, frac;
} Exact;

/* How one input of a function is filled. */
typedef struct InputSource {
    Str name;
    Fill fill;
    Dim range;
    Tensor value; /* of FILL_TENSOR, and what is known of it */
    Exact known;
} InputSource;

typedef struct Graph {
    Module *m;
    FuncId id;
    uint64_t seed;
    Vec(InputSource) source;
    bool half;     /* some value is f16: computed in f32 after bind */
    bool gradient; /* has gradient nodes */
    const int64_t *syms; /* one binding instead of those of the seed */
    int binding;         /* which of them it was */
} Graph;

enum { BINDINGS = 2 }; /* values of the symbols every graph is run with */
enum { ELEMENTS_MAX = 40000 };

void symbols_declare(Module *m);
/* Values of the module's symbols for one binding of one graph. */
void symbols_bind(const Graph *g, const Module *m, int binding, int64_t *syms);
const InputSource *source_of(const Graph *g, Str input);
/* Tensors for the inputs of f (a form of g's function); false when an extent is impossible. */
bool inputs_fill(const Graph *g, const Module *m, const Func *f, int binding, const int64_t *syms, Tensor *in, Arena *a);
/* One tensor, whose type and extents are set. */
void fill_tensor(Tensor *t, Fill fill, int64_t range, uint64_t key);

/* ---- exact.c ---- */

Exact exact_source(DType t, Fill fill);
Exact exact_param(const Param *p);
/* Of every result of n: the same. `of` holds its operands' by ValueId. */
Exact exact_node(const Module *m, const Func *f, const Node *n, uint32_t result, const Exact *of);
/* All values of f; array in `a`. */
Exact *exact_func(const Graph *g, const Module *m, const Func *f, Arena *a);
/* Small differences of a float operand can make large ones of the result. */
bool op_jumps(Op op, DType operand, DType result);

/* ---- grow.c ---- */

typedef struct Gen {
    Module *m;
    Func *f;
    Graph *graph;
    Rng rng;
    Arena *a;
    Dim palette[4];
    bool differentiable; /* only ops with a gradient rule on floats */
    Exact *exact;        /* by ValueId */
    size_t exact_room;
    uint32_t n_params, n_funcs;
} Gen;

/* Ops and element types that the interpreter computes; by op a set of DType bits. Fails by name when an op of ops.def has no
 * generator or works for no type. */
bool ops_probe(void);
uint32_t op_types(Op op);
/* The ops that a graph can be asked to contain. */
bool op_generated(Op op);

/* Makes graph `seed` in m, with `focus` (OP_COUNT: none) among its ops if that can be. */
void graph_make(Graph *g, Module *m, uint64_t seed, Op focus);
void graph_free(Graph *g);

typedef struct Want {
    int rank_min, rank_max;
    bool exact, tame, nonempty;
} Want;

Dim pick_dim(Gen *g);
Dim pick_filled(Gen *g); /* one that is never 0 */
DType pick_type(Gen *g, Op op);
/* A value of the type: an old one, often the last, or a new one. */
ValueId pick(Gen *g, DType t, Want want);
/* One of exactly this type. */
ValueId pick_like(Gen *g, DType t, int rank, const Dim *dim, Want want);
ValueId make_input(Gen *g, DType t, int rank, const Dim *dim, Fill fill, Dim range);
/* A parameter of f32; NONE where it is too large. */
ValueId make_weight(Gen *g, int rank, const int64_t *dim);
ValueId make_source(Gen *g, DType t, int rank, const Dim *dim, Want want);
/* Appends a node; NONE when its operands do not fit or a result is too large. */
ValueId emit(Gen *g, Op op, const ValueId *in, uint32_t n, const Attr *attrs, uint32_t n_attrs);
ValueId emit_typed(Gen *g, Op op, const ValueId *in, uint32_t n, const Attr *attrs, uint32_t n_attrs, Type t);
const Type *gen_type(const Gen *g, ValueId v);
/* A gradient gets through v's node; not so of log Z. */
bool leads_back(const Gen *g, ValueId v);
/* One node (and what it needs) of the op whose main operand has type t. */
bool grow(Gen *g, Op op, DType t);

/* Products of a value by weights, and what is done with them. */
bool grow_products(Gen *g);

typedef bool GrowRule(Gen *g, Op op, DType t);
#define RULE(name) bool grow_##name(Gen *g, Op op, DType t);
#include "rules.def"

/* ---- reference.c ---- */

typedef struct Reference {
    Module *m;
    const Func *f;   /* what the interpreter is asked; gradients are built where the graph has some */
    FuncId noisy;    /* the same, every inexact operand multiplied by an input near 1 */
    FuncId watched;  /* the same, every rounded value an output */
    bool *exact;     /* by output */
    bool half;
} Reference;

enum { SAMPLES = 4 };

typedef struct Expected {
    Tensor *in, *out, *sample[SAMPLES];
    int64_t *syms;
    bool far; /* some value is so large that its square overflows: in sums of doubles it does not */
} Expected;

/* The graph's function in a module of its own kind, with gradients built. */
bool reference_make(const Graph *g, Reference *r, Arena *a, Diag *d);
bool reference_eval(const Graph *g, const Reference *r, int binding, Expected *e, Arena *a, Diag *d);
/* Compares output i; false with what differs in `why`. */
bool reference_compare(const Reference *r, const Expected *e, uint32_t i, const Tensor *got, char *why, size_t room);

/* ---- backend.c ---- */

typedef struct Library Library;

bool backend_known(const char *name);
/* Builds the planned module in folder `dir` (files NAME.*) and loads it; NULL after reporting. */
typedef struct BuildOptions {
    const char *cc, *flags, *dir;
    int level, threads;
} BuildOptions;
/* The planned module as a program, for what has no lowering; backends only translate it. */
bool lowering_check(Module *m, Diag *d);
Library *backend_load(const char *backend, Module *m, const BuildOptions *o, Arena *a, Diag *d);
/* Runs a function; out are allocated in `a`. False with a reason in `why`. */
bool library_run(Library *l, const Module *m, Str func, const int64_t *syms, const Tensor *in, Tensor *out, Arena *a,
                 char *why, size_t room);
void library_close(Library *l);

/* ---- check.c ---- */

typedef enum Verdict { V_PENDING, V_OK, V_REFUSED, V_FAILED } Verdict;

/* Products of a graph's kernels: all, those by panels, and groups of these that are streamed. */
typedef struct Products {
    uint32_t all, panels, streams;
} Products;

typedef struct Result {
    int verdict;
    char why[400];
    Products products;
} Result;

typedef struct Settings {
    uint64_t seed;
    uint32_t count, batch, jobs, shrink;
    Op focus; /* OP_COUNT: every op in turn */
    const char *backend[4];
    uint32_t n_backends;
    BuildOptions build;
    const char *out;
    bool stat;
} Settings;

Op focus_of(const Settings *s, uint32_t index);
/* Checks all graphs; results in memory that children share. */
void check_all(const Settings *s, Result *result);
/* One graph whose making is the caller's: `make` fills in the graph anew in a module. */
typedef void MakeGraph(void *ctx, Graph *g, Module *m);
Verdict check_one(const Settings *s, MakeGraph *make, void *ctx, char *why, size_t room);

/* ---- shrink.c ---- */

/* Writes OUT/gSEED.ir and its inputs; prints where and the command. */
void shrink(const Settings *s, uint32_t index, const char *why);

#endif
