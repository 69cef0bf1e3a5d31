/* Symbolic dimensions.
 *
 * A Dim is an interned expression over named symbols (batch, sequence lengths): equal Dims are equal
 * expressions. The form is canonical: a polynomial with integer coefficients over atoms, an atom
 * being a symbol or an opaque floor division, remainder, minimum or maximum of two Dims. Every symbol
 * has bounds lo..hi, from which bounds of any Dim follow by interval arithmetic. A Dim may be
 * negative (slice starts); the extents of a type never are. */
#ifndef MOEC_DIM_H
#define MOEC_DIM_H

#include "base.h"

typedef uint32_t Dim; /* index into a DimTable; Dim 0 is the constant 0 */
typedef struct DimTable DimTable;

typedef struct DimSym {
    Str name;
    int64_t lo, hi; /* inclusive; hi = DIM_UNBOUNDED until bind sets it */
} DimSym;
#define DIM_UNBOUNDED INT64_MAX

DimTable *dim_table_new(Arena *a);

Dim dim_const(DimTable *t, int64_t v);
Dim dim_sym(DimTable *t, Str name); /* the same name gives the same symbol; new ones are 0..DIM_UNBOUNDED */
Dim dim_add(DimTable *t, Dim a, Dim b);
Dim dim_sub(DimTable *t, Dim a, Dim b);
Dim dim_mul(DimTable *t, Dim a, Dim b);
Dim dim_floordiv(DimTable *t, Dim a, Dim b); /* exact when b divides a as a polynomial */
Dim dim_mod(DimTable *t, Dim a, Dim b);
Dim dim_min(DimTable *t, Dim a, Dim b); /* decided by the bounds where they can */
Dim dim_max(DimTable *t, Dim a, Dim b);
/* Any constant that overflows int64 makes the result DIM_BAD, which every operation propagates. */
#define DIM_BAD ((Dim)UINT32_MAX)

bool dim_is_const(const DimTable *t, Dim d, int64_t *v); /* v may be NULL */
bool dim_is(const DimTable *t, Dim d, int64_t v);
bool dim_as_sym(const DimTable *t, Dim d, uint32_t *sym);

size_t dim_sym_count(const DimTable *t);
DimSym *dim_sym_at(const DimTable *t, uint32_t sym);
/* syms[i] is the value of symbol i. False when it overflows or divides by zero. */
bool dim_eval(const DimTable *t, Dim d, const int64_t *syms, int64_t *out);
/* Bounds from the symbols' bounds; saturate at DIM_UNBOUNDED / INT64_MIN. */
int64_t dim_lower(const DimTable *t, Dim d);
int64_t dim_upper(const DimTable *t, Dim d);
/* Replaces symbol `sym` by `by` everywhere in d. */
Dim dim_subst(DimTable *t, Dim d, uint32_t sym, Dim by);
/* Calls visit for every symbol in d. */
void dim_visit(const DimTable *t, Dim d, void (*visit)(void *ctx, uint32_t sym), void *ctx);

/* d computed by the caller's own operations, leaves first: what builders of code use. Division and remainder are those of
 * dim_floordiv and dim_mod; extents' operands are not negative. */
typedef enum DimOp { DIM_ADD, DIM_MUL, DIM_FLOORDIV, DIM_MOD, DIM_MIN, DIM_MAX } DimOp;
typedef struct DimAlgebra {
    void *(*constant)(void *ctx, int64_t v);
    void *(*symbol)(void *ctx, uint32_t sym);
    void *(*op)(void *ctx, DimOp op, void *a, void *b);
} DimAlgebra;
void *dim_fold(const DimTable *t, Dim d, const DimAlgebra *how, void *ctx);

/* Text form, exact inverses: `512`, `B`, `P + 1`, `2*B*S - 3`, `floordiv(S, 2)`, `max(S, T)`, `"odd name"`.
 * A symbol whose name is not [A-Za-z_][A-Za-z0-9_.]* is printed quoted. */
void dim_print(const DimTable *t, Dim d, Text *out);
/* The same expression as C99 source: symbol i is spelled by `sym(ctx, i)`; integer division is exact for the
 * non-negative operands that extents have. */
void dim_print_c(const DimTable *t, Dim d, Text *out, const char *(*sym)(void *ctx, uint32_t i), void *ctx);
/* Parses a Dim at *p, advancing it. False when the text is not a Dim; recursion is bounded. */
bool dim_parse(DimTable *t, const char **p, const char *end, Dim *out);

#endif
