/* The inside of a DimTable, shared by its arithmetic (dim.c) and its text (dim_text.c). */
#ifndef MOEC_DIM_IMPL_H
#define MOEC_DIM_IMPL_H

#include "dim.h"

enum { DIM_MAX_DEGREE = 8, DIM_MAX_TERMS = 64 };

typedef enum AtomKind { ATOM_SYM, ATOM_FLOORDIV, ATOM_MOD, ATOM_MIN, ATOM_MAX } AtomKind;

typedef struct Atom {
    AtomKind kind;
    uint32_t a, b; /* SYM: symbol; else operand Dims */
} Atom;

/* coef * product of atoms, in structural order. Terms of a polynomial are ordered by degree (high first),
 * then atoms, and no coefficient is 0. */
typedef struct Term {
    int64_t coef;
    uint32_t degree;
    uint32_t atom[DIM_MAX_DEGREE];
} Term;

typedef struct Poly {
    uint32_t n;
    uint32_t size, depth; /* all symbols and terms down through the atoms; nesting of opaque atoms */
    Term *term;
} Poly;

struct DimTable {
    Arena *arena;
    Vec(Poly) poly; /* by Dim; like the others in the arena, not on the heap */
    Vec(Atom) atom;
    Vec(DimSym) sym;
    uint32_t *bucket; /* open addressing over poly, UINT32_MAX = empty */
    size_t room;
};

static inline const Poly *dim_poly(const DimTable *t, Dim d) {
    return &t->poly.item[d];
}

#endif
