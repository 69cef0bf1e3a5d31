/* Routines that kernels call: matrix products by register tiles, for panels of a packed weight.
 *
 * A weight W [K,N] in panels of `width` columns is [P,K,width] (compiler/pack.h): a panel's rows follow each other, so a
 * product reads it from end to end. A routine keeps a tile of C, some rows by a panel's columns, in registers while it
 * goes down k, and adds every element's products in the order of k whatever the tile: results do not depend on
 * how rows are divided. One or two rows go down several panels side by side. */
#ifndef MOEC_TILE_H
#define MOEC_TILE_H

#include "../compiler/pack.h"
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
/* A new one: its texts and versions, all of which are made. */
const LRoutine *routine_new(Routines *r, LRoutine made);
/* The next number that the caller gives. */
const LExpr *routine_number(LoopKernel *k, const char *name);

/* Panels side by side where rows are few: memory delivers more of several streams at once. */
enum { PANEL_STREAMS = 4 };

/* What makes of a word the weight that is not scaled yet. */
extern const LOp weight_element[WEIGHT_FORMATS];

/* A number of f32 as bytes, for products with bytes: signed digits to the base 256, the highest first, of how many 127 * 65536ths
 * of its row's largest magnitude it is. Their products are exact, so a sum has no more error than one of f32 that grows as large. */
enum { DIGITS = 3 };

/* What a routine multiplies by. */
typedef struct PanelProduct {
    uint32_t width; /* of a panel; PANEL_COLUMNS where the format is not f32 */
    Left left;      /* LEFT_ROWS where the format is not f32 */
    WeightFormat format;
    bool dot;       /* A is in words, too: bf16, or for int8 and int4 int8 with a scale a row (`quantize`) */
    uint32_t digits; /* bytes that a number of such an A has: 1, or DIGITS, each in words of its own; 0: it is of no bytes */
} PanelProduct;

/* C[rows,panels width] (+)= A B[panels,.,width]. Arguments: a, b, c; of formats with scales B's; of integers by integers the
 * scales of A's rows, and what sums begin with: f32[rows], i32[rows,blocks,digits]; then rows, depth (rows of a panel), lda,
 * ldc, add, panels. A row of A has all words of a digit after those of the one before. */
const LRoutine *panel_routine(Routines *r, PanelProduct p);
/* C[columns,rows] = A[rows,columns] turned around. Arguments: a, c; rows, columns, lda, ldc. */
const LRoutine *turn_routine(Routines *r);

#endif
