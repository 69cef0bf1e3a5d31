/* What the files of `fold` share. */
#ifndef MOEC_FOLD_IMPL_H
#define MOEC_FOLD_IMPL_H

#include "ir.h"
#include "pass.h"

/* Bounds of an integer value's elements; DIM_BAD: none known. */
typedef struct Range {
    Dim lo, hi;
    uint32_t depth; /* ops behind it: long chains are given up */
} Range;

typedef struct Folder {
    Module *m;
    Func *f;
    Vec(Range) range; /* by value of f */
    uint32_t depth;
} Folder;

/* A node about to be made: one result. */
typedef struct Make {
    Op op;
    const ValueId *in;
    uint32_t n;
    const Attr *attrs;
    uint32_t n_attrs;
    Type type;
    Str origin;
} Make;

/* Simplifies, or appends the node: always gives a value of k->type. Operands are already simplified. */
ValueId fold_make(Folder *x, const Make *k);

/* ---- fold_rules.c: a value equal to the node, or NONE ---- */
ValueId fold_rule(Folder *x, const Make *k);

/* ---- fold_move.c ---- */
ValueId fold_reshape(Folder *x, const Make *k);
ValueId fold_transpose(Folder *x, const Make *k);
ValueId fold_broadcast(Folder *x, const Make *k);
ValueId fold_slice(Folder *x, const Make *k);
ValueId fold_concat(Folder *x, const Make *k);
ValueId fold_gather(Folder *x, const Make *k);
ValueId fold_gather_nd(Folder *x, const Make *k);
ValueId fold_scatter_nd(Folder *x, const Make *k);
ValueId fold_iota(Folder *x, const Make *k);

/* ---- fold_range.c ---- */
Range fold_range_of(Folder *x, ValueId v);
void fold_learn(Folder *x, ValueId v); /* sets the range of a new value */
/* a < b for all elements: 1 always, 0 never, -1 unknown. */
int fold_less(Folder *x, ValueId a, ValueId b);

/* ---- helpers ---- */
const Type *fold_type(const Folder *x, ValueId v);
bool fold_is_one(const Folder *x, Dim d);
/* All elements equal this known number (a literal of one element, or a broadcast of one). */
bool fold_number(const Folder *x, ValueId v, double *out);
ValueId fold_const(Folder *x, const Type *type, double v, Str origin); /* a literal, spread to the type */
ValueId fold_unary(Folder *x, Op op, ValueId a, const Make *k);        /* result of k's type */
ValueId fold_binary(Folder *x, Op op, ValueId a, ValueId b, const Make *k);
ValueId fold_to(Folder *x, Op op, ValueId a, const Dim *dim, int rank, Str origin); /* reshape or broadcast */
const Attr *make_attr(const Make *k, AttrKey key);

/* ---- fold_init.c: big results become parameters with an init function ---- */
void fold_inits(Module *m, const FuncId *funcs, uint32_t n_funcs);

#endif
