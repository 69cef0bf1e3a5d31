/* Index functions: what one element of a value is, as an expression over the element's position.
 *
 * index_pull follows a position backwards through the graph (pointwise ops, reshapes, broadcasts, slices,
 * gathers with computed positions, ...) until it reaches literals, parameters and function inputs. The result
 * is a hash-consed scalar expression, so equal ids are equal functions. Integer parts are canonical
 * polynomials (Dims of a private table that has the module's symbols and one symbol for every index
 * variable), which is what makes facts such as "depends on j - i only" decidable. Nothing is assumed: what is
 * not understood fails with a reason. */
#ifndef MOEC_INDEXFN_H
#define MOEC_INDEXFN_H

#include "ir.h"

typedef uint32_t IxId;
#define IX_FAIL ((IxId)UINT32_MAX)

typedef enum IxKind {
    IX_INT, /* an integer polynomial, or a bool constant 0 or 1 */
    IX_NUM, /* a floating point constant */
    IX_OP,  /* a pointwise op of expressions */
    IX_ELEM /* the element at the argument positions of an input, a parameter, a literal or an opaque value */
} IxKind;

typedef struct IxExpr {
    IxKind kind;
    DType dtype;
    Op op;               /* IX_OP */
    Dim d;               /* IX_INT, of the private table */
    double num;          /* IX_NUM */
    ValueId value;       /* IX_ELEM */
    uint32_t n_arg, arg; /* arguments are index_arg(x, e, 0 .. n_arg - 1) */
} IxExpr;

/* Where pulling stops. */
typedef enum IxDepth {
    IX_WHOLE, /* at inputs, parameters and literals; any other op that is not understood fails */
    IX_MOVES  /* at everything that is not a reshape, transpose, slice or broadcast */
} IxDepth;

typedef struct Index Index;

Index *index_new(Module *m, const Func *f);
void index_free(Index *x);
DimTable *index_dims(Index *x);
Dim index_dim(Index *x, Dim of_module); /* the same Dim in the private table */
/* A fresh variable 0 .. extent - 1 (an extent of the module); the constant 0 when the extent is 1. */
IxId index_var(Index *x, Dim extent);
/* A fresh symbol with given bounds. */
Dim index_symbol(Index *x, int64_t lo, int64_t hi);
IxId index_int(Index *x, Dim d);

IxId index_pull(Index *x, ValueId v, const IxId *at, IxDepth depth); /* at: one position an axis of v */
/* Why the last call failed; *node is where, NULL when unknown. */
const char *index_why(const Index *x, const Node **node);

const IxExpr *index_expr(const Index *x, IxId e);
IxId index_arg(const Index *x, IxId e, uint32_t i);
IxId index_op(Index *x, Op op, DType dtype, const IxId *arg, uint32_t n);
IxId index_subst(Index *x, IxId root, uint32_t sym, Dim by);

/* Everything `root` is made of, operands first. With `leaves`, positions inside elements of inputs are left
 * out. */
typedef struct IxPlan {
    IxId *id;
    uint32_t n;
} IxPlan;
IxPlan index_plan(Index *x, IxId root, bool leaves);

/* A number of some type; `bad`: comes from a position outside its tensor. */
typedef struct IxNum {
    int64_t i;
    double f;
    bool bad;
} IxNum;

/* Evaluates the expressions of a plan (made with leaves = true) in the types' own arithmetic. num has room
 * for every expression of x. syms: values of the private table's symbols. `input` is the value of every
 * element of a function input. With `changed` non-NULL only those expressions are computed anew. False when a
 * parameter has no data. */
bool index_eval(Index *x, const IxPlan *p, const int64_t *syms, double input, const bool *changed,
                IxNum *num);
uint32_t index_count(const Index *x);
double index_number(const Index *x, IxId e, const IxNum *num); /* as a double */

/* ---- shared by indexfn*.c ---- */
bool index_apply(Op op, DType to, DType from, const IxNum *arg, IxNum *out);

#endif
