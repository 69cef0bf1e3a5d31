/* Matrix products by register tiles: the routines that kernels call for a panel of a packed weight.
 *
 * A weight W [K,N] in panels of `width` columns is f32[P,K,width] (compiler/pack.h): a panel's rows follow each other, so a
 * product reads it from end to end. A routine keeps a tile of C, some rows by a panel's columns, in registers while it
 * goes down k, and adds every element's products in the order of k whatever the tile: results do not depend on
 * how rows are divided. */
#ifndef MOEC_TILE_H
#define MOEC_TILE_H

#include "loop.h"

/* The routines that the kernels of a program use so far. */
typedef struct Routines {
    Module *m;
    Arena *arena;
    Vec(LRoutine *) item;
} Routines;

/* C[rows,width] (+)= A[rows,k] B[k,width]. Arguments: a, b, c; rows, k, lda, ldc, add. transposed: A is stored as [k,rows]. */
const LRoutine *panel_routine(Routines *r, uint32_t width, bool transposed);

#endif
