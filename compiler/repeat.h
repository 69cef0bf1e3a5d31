/* Layers found by structure: groups of nodes that stand in a function several times in a row, as isomorphic
 * as a reader wants them. Names play no part.
 *
 * Nodes are alike when they have the same op, types and attributes, annotations and the start of slices left
 * out, and call functions that are alike. A repeat is a run of `times` groups of `period` nodes each: every
 * node is like its counterpart one group on, and so are its operands: they lie at the same place in the same
 * or the group before; or outside the run, where groups may have operands of their own (weights, caches, what
 * another repeat made); or what comes to the first group from outside comes to the others from the group
 * before. Nodes that are like no other of their function may stand between those of a run and do not belong
 * to it. */
#ifndef MOEC_REPEAT_H
#define MOEC_REPEAT_H

#include "ir.h"

typedef struct Repeat {
    uint32_t period, times;
    bool chained; /* a group depends on the one before */
} Repeat;

typedef struct Repeats {
    Repeat *item;
    uint32_t n;
    uint32_t *run;  /* by NodeId: which repeat, or NONE */
    uint32_t *turn; /* by NodeId: which of its groups */
    NodeId *like;   /* by NodeId: its counterpart in the first group; itself outside repeats */
} Repeats;

/* By FuncId, in `a`: equal numbers for functions that are alike in the sense above, operands included. */
uint32_t *func_likeness(const Module *m, Arena *a);
/* The repeats of f that are worth showing once; all arrays in `a`. */
void repeats_find(const Module *m, const Func *f, const uint32_t *likeness, Arena *a, Repeats *out);
/* No repeats: every node stands for itself. */
void repeats_none(const Func *f, Arena *a, Repeats *out);

#endif
