/* Routines that kernels call: matrix products by register tiles, for a panel of a packed weight.
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

/* The routine of that name; NULL: not used so far. */
const LRoutine *routine_find(const Routines *r, const char *name);
/* A new one, whose versions are still to be made; both texts live on. */
LRoutine *routine_new(Routines *r, const char *name, const char *what);
/* The next number that the caller gives. */
const LExpr *routine_number(LoopKernel *k, const char *name);

/* C[rows,width] (+)= A B[.,width]. Arguments: a, b, c; rows, depth, lda, ldc, add. */
const LRoutine *panel_routine(Routines *r, uint32_t width, Left left);
/* C[columns,rows] = A[rows,columns] turned around. Arguments: a, c; rows, columns, lda, ldc. */
const LRoutine *turn_routine(Routines *r);

#endif
