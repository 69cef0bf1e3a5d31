/* What the files of the index-function analysis share. */
#ifndef MOEC_INDEXFN_IMPL_H
#define MOEC_INDEXFN_IMPL_H

#include "indexfn.h"

/* Budgets: graphs of real models need a few thousand; more is refused, not waited for. */
enum { IX_MAX_EXPRS = 1 << 18, IX_MAX_PULLS = 1 << 20, IX_MAX_PARAM = 1 << 24 };

typedef struct IxPull {
    ValueId v;
    uint32_t at, n; /* positions in `ids` */
    IxDepth depth;
    IxId result; /* IX_FAIL while unknown */
} IxPull;

typedef struct IxVar {
    Dim d;      /* the variable */
    Dim extent; /* 0 <= d < extent, private table */
} IxVar;

typedef struct IxScatter {
    ValueId indices;
    IxId at[MOEC_MAX_RANK];
} IxScatter;

struct Index {
    Module *m;
    const Func *f;
    Arena *arena;
    DimTable *dims;
    uint32_t n_fresh;
    Vec(Dim) imported; /* module Dim -> private Dim + 1, 0 = not yet */
    Vec(IxExpr) expr;
    Vec(IxId) ids; /* pool of argument and position lists */
    Vec(IxPull) memo;
    Vec(uint32_t) stack; /* of memo entries under way */
    Vec(IxVar) vars;
    Vec(IxScatter) scatters;
    Tensor **param; /* evaluated parameters, by ParamId */
    uint32_t n_param;
    uint32_t *expr_hash, *memo_hash; /* open addressing, id + 1 */
    size_t expr_room, memo_room;
    size_t pulls;
    const char *why;
    const Node *where;
};

IxId index_fail(Index *x, const Node *where, const char *why);
IxId index_num(Index *x, DType t, double v);
IxId index_bool(Index *x, bool v);
IxId index_elem(Index *x, ValueId v, DType t, const IxId *at, uint32_t n);
bool index_known(const Index *x, IxId e, IxNum *out); /* a constant */
bool index_poly(const Index *x, IxId e, Dim *out);    /* an integer polynomial, not a bool */

#endif
