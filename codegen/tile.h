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

/* How a routine's left operand is stored. */
typedef enum Left {
    LEFT_ROWS,    /* [rows,depth], lda between rows */
    LEFT_COLUMNS, /* [depth,rows], lda between steps of depth */
    LEFT_PANELS,  /* [depth,.,PANEL_COLUMNS]: rows of panels, each of as many steps; lda between panels, depth counts them */
    LEFT_NARROW   /* the same of PANEL_NARROW */
} Left;

/* C[rows,width] (+)= A B[.,width]. Arguments: a, b, c; rows, depth, lda, ldc, add. */
const LRoutine *panel_routine(Routines *r, uint32_t width, Left left);

#endif
