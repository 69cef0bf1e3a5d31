/* Loop IR: what every lowering decision ends in and every printer starts from.
 *
 * A LoopKernel is a function over flat buffers and run-time symbols: statements (loops, stores, matmul calls)
 * over scalar expressions. It is a tree in an arena. Buffers are row-major memory with an element type; an index
 * is one i64 expression counting elements. Nothing here knows of tensors, ops or C.
 *
 * A kernel has one optional parallel loop at its top. Statements before and after it run once; scratch filled before it
 * belongs to all workers, scratch filled inside is a worker's own. Loops marked `lanes` have independent iterations and
 * unit stride: printers may vectorise them. */
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
    uint32_t id;      /* position among the kernel's buffers */
    int64_t count;    /* elements; LOCAL, TABLE */
    Dim bytes;        /* SCRATCH: upper bound in bytes as a constant Dim */
    int64_t offset;   /* SCRATCH: bytes from the worker's scratch */
    const Tensor *data; /* TABLE */
    Str hint;         /* readable part of the name: [a-z0-9_]* */
} LBuf;

/* ---- expressions ------------------------------------------------------------------------------ */

/* Scalar functions. The element types and exact meaning are those of the graph op of the same name; of the vocabulary of
 * generated code (runtime/moec_kernel.h) it is moec_<name>_<type>. UNIFORM and SPLIT_SEED take a seed and an index, i64. */
#define LOOP_OPS(X)                                                                                                      \
    X(NEG, neg) X(ABS, abs) X(SQRT, sqrt) X(RSQRT, rsqrt) X(RECIP, recip) X(EXP, exp) X(LOG, log) X(TANH, tanh)           \
    X(ERF, erf) X(RELU, relu) X(SIGMOID, sigmoid) X(GELU, gelu) X(GELU_GRAD, gelu_grad) X(FLOOR, floor) X(CEIL, ceil)     \
    X(ROUND, round) X(SIGN, sign) X(NOT, not) X(ISINF, isinf) X(ISNAN, isnan)                                             \
    X(ADD, add) X(SUB, sub) X(MUL, mul) X(DIV, div) X(MOD, mod) X(FMOD, fmod) X(POW, pow) X(MIN, min) X(MAX, max)         \
    X(EQ, eq) X(NE, ne) X(LT, lt) X(LE, le) X(GT, gt) X(GE, ge) X(AND, and) X(OR, or) X(XOR, xor)                         \
    X(UNIFORM, uniform) X(SPLIT_SEED, split_seed)

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
    LE_LOAD
} LExprKind;

typedef struct LExpr LExpr;
struct LExpr {
    LExprKind kind;
    DType type;
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
    LS_LET,      /* var = a, once */
    LS_SET,      /* var = a, again */
    LS_STORE,    /* buf[index] = a */
    LS_IF,       /* if a then body else other */
    LS_MATMUL,   /* C[m,n] (+)= A[m,k] B[k,n], f32 */
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
    Str note;
};

/* ---- kernels -------------------------------------------------------------------------------------- */

typedef struct LVar {
    DType type;
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
    uint32_t n_args;     /* the first n_args buffers are arguments: inputs, then outputs */
    bool uses_matmul, may_fault, parallel; /* parallel: it has its loop */
} LoopKernel;

LoopKernel *loop_kernel_new(Module *m, Arena *a, Str name);
LBuf *loop_buf(LoopKernel *k, LBufKind kind, DType t, Str hint);
/* Scratch of `bytes` bytes at most (a constant Dim or one with an upper bound); NULL when it has no bound. */
LBuf *loop_scratch(LoopKernel *k, DType t, int64_t bytes, Str hint);

const LExpr *le_int(LoopKernel *k, int64_t v);
const LExpr *le_num(LoopKernel *k, DType t, double v);
const LExpr *le_dim(LoopKernel *k, Dim d);
const LExpr *le_var(LoopKernel *k, uint32_t var);
const LExpr *le_op1(LoopKernel *k, LOp op, DType t, const LExpr *a);
const LExpr *le_op2(LoopKernel *k, LOp op, DType t, const LExpr *a, const LExpr *b);
const LExpr *le_cast(LoopKernel *k, DType t, const LExpr *a);
const LExpr *le_select(LoopKernel *k, const LExpr *c, const LExpr *a, const LExpr *b);
const LExpr *le_load(LoopKernel *k, const LBuf *b, const LExpr *index);
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
void ls_set(LoopKernel *k, LBlock *b, uint32_t var, const LExpr *a);
void ls_store(LoopKernel *k, LBlock *b, const LBuf *buf, const LExpr *index, const LExpr *a);
LStmt *ls_if(LoopKernel *k, LBlock *b, const LExpr *cond);
LStmt *ls_matmul(LoopKernel *k, LBlock *b, LMatrix a, LMatrix w, LMatrix c, const LExpr *m, const LExpr *n,
                 const LExpr *kk, bool accumulate);
uint32_t ls_check(LoopKernel *k, LBlock *b, const LExpr *a, const LExpr *extent, const char *hint);
void ls_note(LoopKernel *k, LBlock *b, Str text);

/* Takes away the variables that nothing reads; after it nothing may be added. */
void loop_prune(LoopKernel *k);

/* ---- lowering (lower*.c) -------------------------------------------------------------------------- */

typedef struct LowerOptions {
    int64_t tile_rows; /* rows of a tile of a row-local kernel */
    uint32_t func_line;        /* of the IR file; 0: there is none */
    const uint32_t *node_line; /* the same for each node; NULL: there is none */
} LowerOptions;

/* Lowers one FR_KERNEL function. NULL after reporting (an op without a lowering, scratch without bounds). */
LoopKernel *lower_kernel(Module *m, const Func *f, const LowerOptions *o, Arena *a, Diag *d);

#endif
