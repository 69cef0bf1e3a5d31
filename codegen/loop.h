/* Loop IR: what every lowering decision ends in and every printer starts from.
 *
 * A LoopKernel is a function over flat buffers and run-time symbols: statements (loops, stores, matmul calls)
 * over scalar expressions. It is a tree in an arena. Buffers are row-major memory with an element type; an index
 * is one i64 expression counting elements. Nothing here knows of tensors, ops or C.
 *
 * A kernel over whole tensors has one optional parallel loop at its top. Statements before and after it run once; scratch
 * filled before it belongs to all workers, scratch filled inside is a worker's own.
 *
 * A kernel by rows is a list of phases (LS_PHASE). Each does its part of the work for `rows` rows from `row0` on and, where it
 * has blocks, for one block of columns. Few rows run as a job whose tasks are the blocks of all phases (loop_phases.c); many run
 * in parallel by tiles of rows, each tile through all phases. What later phases read of earlier ones stands in scratch that all
 * workers of a job see; scratch that is `own` lives as long as a block.
 *
 * Values and variables have one lane or several (a vector). Loops marked `lanes` have independent iterations and unit stride:
 * printers may vectorise them. Routines are functions of their own that kernels call, in versions for several kinds of
 * vectors (tile.h). */
#ifndef MOEC_LOOP_H
#define MOEC_LOOP_H

#include "../compiler/ir.h"

/* ---- buffers ------------------------------------------------------------------------------- */

typedef enum LBufKind {
    LB_ARG,     /* a pointer the caller passes */
    LB_SCRATCH, /* bytes that live as long as the kernel runs; a worker's own inside the parallel loop */
    LB_LOCAL,   /* a small array on the stack */
    LB_TABLE    /* constant data of the kernel itself */
} LBufKind;

typedef struct LBuf {
    LBufKind kind;
    DType dtype;
    bool written;     /* ARG: the kernel stores to it */
    bool shared;      /* SCRATCH: filled before the parallel loop, one for all workers */
    bool own;         /* SCRATCH: a worker's own while it works on a block of a phase */
    bool awaited;     /* a phase reads behind a WAIT what other workers store meanwhile: compilers must not read it before */
    uint32_t id;      /* position among the kernel's buffers */
    int64_t count;    /* elements; LOCAL, TABLE */
    int64_t offset, end; /* SCRATCH: bytes from the worker's scratch; of what is own, from where that lies */
    const Tensor *data; /* TABLE */
    Str hint;         /* readable part of the name: [a-z0-9_]* */
} LBuf;

/* ---- expressions ------------------------------------------------------------------------------ */

/* Scalar functions. The element types and exact meaning are those of the graph op of the same name; of the vocabulary of
 * generated code (runtime/moec_kernel.h) it is moec_<name>_<type>. UNIFORM and SPLIT_SEED take a seed and an index, i64.
 *
 * Of words (i32, compiler/pack.h): OF_FORMAT takes a word and which of its weights: the f32 it is before it is scaled.
 * NIBBLES the halves of an int4 word's bytes as bytes: the lower, the upper ones. DOT_BF16 and DOT_INT8 take a sum, f32 or i32, and
 * words of two bf16, or four bytes: unsigned ones of the first, signed of the second. */
#define LOOP_OPS(X)                                                                                                      \
    X(NEG, neg) X(ABS, abs) X(SQRT, sqrt) X(RSQRT, rsqrt) X(RECIP, recip) X(EXP, exp) X(LOG, log) X(TANH, tanh)           \
    X(ERF, erf) X(RELU, relu) X(SIGMOID, sigmoid) X(GELU, gelu) X(GELU_GRAD, gelu_grad) X(FLOOR, floor) X(CEIL, ceil)     \
    X(ROUND, round) X(SIGN, sign) X(NOT, not) X(ISINF, isinf) X(ISNAN, isnan)                                             \
    X(ADD, add) X(SUB, sub) X(MUL, mul) X(DIV, div) X(MOD, mod) X(FMOD, fmod) X(POW, pow) X(MIN, min) X(MAX, max)         \
    X(EQ, eq) X(NE, ne) X(LT, lt) X(LE, le) X(GT, gt) X(GE, ge) X(AND, and) X(OR, or) X(XOR, xor)                         \
    X(UNIFORM, uniform) X(SPLIT_SEED, split_seed)                                                                         \
    X(OF_BF16, of_bf16) X(OF_INT8, of_int8) X(OF_INT4, of_int4) X(NIBBLES, nibbles) X(DOT_BF16, dot_bf16)                  \
    X(DOT_INT8, dot_int8)

typedef enum LOp {
#define X(id, name) LO_##id,
    LOOP_OPS(X)
#undef X
        LO_COUNT
} LOp;

extern const char *const loop_op_name[LO_COUNT];

typedef enum LExprKind {
    LE_INT,    /* i64 literal; also bool and the small integers */
    LE_FLOAT,  /* literal of `type` */
    LE_VAR,    /* loop variable or LET */
    LE_DIM,    /* a Dim of the run-time symbols */
    LE_OP,     /* element operation */
    LE_INDEX,  /* i64 index arithmetic: ADD SUB MUL DIV MOD MIN MAX, operands known not to overflow */
    LE_SELECT, /* a ? b : c */
    LE_CAST,   /* b's value as `type` */
    LE_LOAD,   /* of several lanes: as many elements from the index on */
    LE_SPLAT,  /* a in every lane */
    LE_DOTS,   /* bool: the machine has DOT_INT8 as an instruction, so that three of them cost less than four products of f32 */
    LE_ZIP     /* lanes of a and b in turn, variables both: of their first halves, with i = 1 of their second ones */
} LExprKind;

typedef struct LExpr LExpr;
struct LExpr {
    LExprKind kind;
    DType type;
    uint32_t lanes; /* 1: a scalar; OP takes and gives vectors of as many */
    LOp op;
    int64_t i;
    double f;
    uint32_t var;
    Dim dim;
    const LBuf *buf;
    const LExpr *a, *b, *c; /* LOAD: a = index */
};

/* ---- statements -------------------------------------------------------------------------------- */

typedef enum LStmtKind {
    LS_FOR,      /* for var in 0 .. extent, which the body does not change */
    LS_PARALLEL, /* the same, iterations on the pool's workers */
    LS_PHASE,    /* body for block `var` of `extent` */
    LS_LET,      /* var = a, once */
    LS_SET,      /* var = a, again */
    LS_STORE,    /* buf[index] = a */
    LS_IF,       /* if a then body else other */
    LS_MATMUL,   /* C[m,n] (+)= A[m,k] B[k,n], f32 */
    LS_CALL,     /* of a routine */
    LS_PREFETCH, /* buf[index] will be read soon; it need not be there */
    LS_WAIT,     /* until the first `a` tasks of the job are done */
    LS_CHECK,    /* var = a, must be in 0 .. extent-1, else fault and var = 0 */
    LS_NOTE      /* a comment: an IR line */
} LStmtKind;

typedef struct LStmt LStmt;
typedef struct LBlock {
    LStmt *first, *last;
} LBlock;

typedef struct LMatrix {
    const LBuf *buf;
    const LExpr *offset, *ld;
    bool transposed; /* the stored array is [cols, rows] */
} LMatrix;

/* An argument of a routine: the address of an element, or a number. */
typedef struct LArg {
    const LBuf *buf; /* NULL: a number */
    const LExpr *at;
} LArg;

/* A matrix of which block i of a phase touches columns i width .. (i+1) width of every row, and nothing else. */
typedef struct LColumns {
    struct LColumns *next;
    const LBuf *buf;
    const LExpr *offset;
    Dim row; /* elements from one row to the next */
    int64_t width;
} LColumns;

struct LStmt {
    LStmtKind kind;
    LStmt *next;
    uint32_t line; /* of the IR file: the node it computes; 0: none is known */
    uint32_t var;
    bool lanes;
    const LBuf *buf;
    const LExpr *a, *index, *extent;
    LBlock body, other;
    LMatrix ma, mb, mc;
    const LExpr *m, *n, *k;
    bool accumulate; /* MATMUL: C += */
    bool whole;      /* PHASE: its products are split over all threads, so it is no task of a job */
    LColumns *columns; /* PHASE: what its blocks touch in columns of their own alone */
    int64_t done;    /* PHASE: so many tasks of its job must be done before it begins */
    const struct LRoutine *routine;
    const LArg *arg; /* buffers, then numbers, as the routine says */
    Str note;
};

/* ---- kernels -------------------------------------------------------------------------------------- */

typedef struct LVar {
    DType type;
    uint32_t lanes;
    Str hint;
} LVar;

typedef struct LoopKernel {
    Module *m;
    Arena *arena;
    Str name;            /* [a-z0-9_]* */
    Vec(LBuf *) buf;
    Vec(LVar) var;
    LBlock body;
    uint32_t func_line;  /* of the IR file: where the kernel's function begins; 0: none is known */
    uint32_t line;       /* that new statements get */
    int64_t scratch;     /* bytes a worker needs */
    int64_t own, own_end; /* bytes of blocks' own scratch, of the phase at hand and of the one that needs most */
    uint32_t n_args;     /* the first n_args buffers are arguments: inputs, then outputs */
    bool uses_matmul, may_fault, parallel; /* parallel: it has its loop */
    struct {
        const LExpr *all;     /* rows of a kernel by rows; NULL: it is none */
        uint32_t row0, count; /* variables: of what a phase works on */
        uint32_t job;         /* variable: 1 where blocks are a job's tasks, 0 where phases run one after the other */
        int64_t tile;         /* rows of a tile, at most; up to as many run as a job */
        int64_t most;         /* upper bound of `all` */
    } rows;
    uint32_t n_params; /* of a routine: its first variables, numbers that the caller gives */
    const struct LoopKernel *as; /* whose code it runs, for rows of its own; NULL: its own */
    bool lent;                   /* others run its code: that is a function NAME_any of the number of rows, too */
} LoopKernel;

/* Kinds of vectors that routines have versions for, the widest first; the last one is plain C's: none. */
typedef struct VectorKind {
    const char *name;
    const char *condition; /* of the C preprocessor: the machine has them; NULL: any machine */
    uint32_t lanes;        /* f32 */
    uint32_t rows, vectors; /* a tile's: rows of as many vectors side by side stay in registers */
    uint32_t dot_rows, digit_rows; /* rows of a tile that needs twice the registers, four times as many */
} VectorKind;
enum { VECTOR_KINDS = 5, MAX_LANES = 16 };
extern const VectorKind vector_kinds[VECTOR_KINDS];

/* A function over buffers and numbers that kernels call. */
typedef struct LRoutine {
    const char *name, *what; /* what: for its reader */
    uint32_t n_args, n_params; /* buffers, then numbers */
    uint32_t written;          /* bit i: it stores to argument i */
    bool dots;                 /* it uses DOT_ operations, for which machines have instructions */
    LoopKernel *version[VECTOR_KINDS]; /* all NULL: a function of the vocabulary */
} LRoutine;

LoopKernel *loop_kernel_new(Module *m, Arena *a, Str name);
void loop_kernel_free(LoopKernel *k); /* what is not in the arena; NULL is fine */
LBuf *loop_buf(LoopKernel *k, LBufKind kind, DType t, Str hint);
/* Scratch of `bytes` bytes at most (a constant Dim or one with an upper bound); NULL when it has no bound. */
LBuf *loop_scratch(LoopKernel *k, DType t, int64_t bytes, Str hint);

const LExpr *le_int(LoopKernel *k, int64_t v);
const LExpr *le_num(LoopKernel *k, DType t, double v);
const LExpr *le_dim(LoopKernel *k, Dim d);
const LExpr *le_dots(LoopKernel *k);
const LExpr *le_var(LoopKernel *k, uint32_t var);
const LExpr *le_op1(LoopKernel *k, LOp op, DType t, const LExpr *a);
const LExpr *le_op2(LoopKernel *k, LOp op, DType t, const LExpr *a, const LExpr *b);
const LExpr *le_op3(LoopKernel *k, LOp op, DType t, const LExpr *a, const LExpr *b, const LExpr *c);
/* Whether an operation's first operands are words. */
bool loop_op_of_words(LOp op);
const LExpr *le_cast(LoopKernel *k, DType t, const LExpr *a);
const LExpr *le_select(LoopKernel *k, const LExpr *c, const LExpr *a, const LExpr *b);
const LExpr *le_load(LoopKernel *k, const LBuf *b, const LExpr *index);
const LExpr *le_load_lanes(LoopKernel *k, const LBuf *b, const LExpr *index, uint32_t lanes);
const LExpr *le_splat(LoopKernel *k, const LExpr *a, uint32_t lanes);
const LExpr *le_zip(LoopKernel *k, const LExpr *a, const LExpr *b, bool second);
/* Index arithmetic, folding 0, 1 and constants. */
const LExpr *li_add(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_sub(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_mul(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_div(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_mod(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_min(LoopKernel *k, const LExpr *a, const LExpr *b);
const LExpr *li_max(LoopKernel *k, const LExpr *a, const LExpr *b);
bool le_is_int(const LExpr *e, int64_t v);

/* Statements are appended to a block. FOR and PARALLEL return the statement, whose body is then filled. */
LStmt *ls_for(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint);
LStmt *ls_lanes(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint);
LStmt *ls_parallel(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint);
uint32_t ls_let(LoopKernel *k, LBlock *b, DType t, const LExpr *a, const char *hint);
void ls_bind(LoopKernel *k, LBlock *b, uint32_t var, const LExpr *a); /* LET of a variable that is there */
void ls_set(LoopKernel *k, LBlock *b, uint32_t var, const LExpr *a);
void ls_store(LoopKernel *k, LBlock *b, const LBuf *buf, const LExpr *index, const LExpr *a);
LStmt *ls_if(LoopKernel *k, LBlock *b, const LExpr *cond);
LStmt *ls_matmul(LoopKernel *k, LBlock *b, LMatrix a, LMatrix w, LMatrix c, const LExpr *m, const LExpr *n,
                 const LExpr *kk, bool accumulate);
LStmt *ls_phase(LoopKernel *k, const LExpr *blocks);
/* All that the phase does to the buffer it does to that matrix, by columns. */
void ls_columns(LoopKernel *k, LStmt *phase, LColumns matrix);
void ls_call(LoopKernel *k, LBlock *b, const LRoutine *r, const LArg *arg);
void ls_prefetch(LoopKernel *k, LBlock *b, const LBuf *buf, const LExpr *index);
LStmt *ls_wait(LoopKernel *k, LBlock *b, const LExpr *tasks);
uint32_t ls_arguments(const LStmt *s); /* how many; 0: no CALL */
uint32_t ls_check(LoopKernel *k, LBlock *b, const LExpr *a, const LExpr *extent, const char *hint);
void ls_note(LoopKernel *k, LBlock *b, Str text);

/* A variable that a phase finds set. */
uint32_t loop_var(LoopKernel *k, DType t, const char *hint);
/* Scratch of a block of the phase made last, which other phases' blocks use again. NULL as loop_scratch. */
LBuf *loop_own_scratch(LoopKernel *k, DType t, int64_t bytes, Str hint);

/* Takes away the variables that nothing reads, joins phases that do nothing to others, and places blocks' own scratch;
 * after it nothing may be added. */
void loop_finish(LoopKernel *k);
/* Phases become one whose blocks need not wait for each other, or only for the same block of another, and their blocks tasks of
 * jobs (loop_phases.c). */
void loop_join_phases(LoopKernel *k);
/* Blocks of a PHASE, a constant. */
int64_t loop_blocks(const LStmt *phase);
/* The phase behind the job that begins with this one, and the job's tasks: blocks of all its phases, in order. A job of one task
 * is no job. */
const LStmt *loop_job(const LStmt *first, int64_t *tasks);

bool loop_same_expr(const LExpr *a, const LExpr *b); /* of kernels that are compared, or of one */

/* Whether kernels by rows do the same for each, whatever number of rows they have (loop_same.c). */
bool loop_same_rows(const LoopKernel *a, const LoopKernel *b);

/* ---- lowering (lower*.c) -------------------------------------------------------------------------- */

typedef struct LowerOptions {
    int64_t tile_rows; /* rows of a tile of a row-local kernel */
    struct Routines *routines; /* of the program */
    uint32_t func_line;        /* of the IR file; 0: there is none */
    const uint32_t *node_line; /* the same for each node; NULL: there is none */
} LowerOptions;

/* Lowers one FR_KERNEL function. NULL after reporting (an op without a lowering, scratch without bounds). */
LoopKernel *lower_kernel(Module *m, const Func *f, const LowerOptions *o, Arena *a, Diag *d);

#endif
