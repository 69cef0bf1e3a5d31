/* Places of an entry function's values in the arena, sized at the upper bounds of its symbols.
 *
 * Only what a function computes and keeps to itself has a place: inputs and outputs are the caller's memory,
 * parameters the weights file's. `reshape` and `append` give their operand's storage another type, and so
 * does a call of a kernel that hands out its operand appended to: such values form one storage, as large as
 * the largest of them. */
#ifndef MOEC_PLAN_H
#define MOEC_PLAN_H

#include "ir.h"

enum { PLAN_ALIGN = 64 };

typedef struct PlanItem {
    ValueId value; /* the first of the values that share this storage */
    int64_t offset, bytes;
    NodeId first, last; /* written at first, read up to last */
} PlanItem;

typedef struct Plan {
    PlanItem *item; /* by offset, then first */
    uint32_t n_items;
    int64_t *offset;   /* by ValueId; -1: not in the arena */
    int64_t bytes;     /* of the arena, a multiple of PLAN_ALIGN */
    int64_t sum, peak; /* of all storages; of those alive at the worst node: no plan is smaller */
    NodeId worst;      /* the first such node */
} Plan;

/* Plans f in `a`. False after reporting a value without an upper bound or an arena beyond MOEC_MAX_TENSOR. */
bool plan_func(const Module *m, const Func *f, Arena *a, Plan *out, Diag *d);
/* The same of a function that is planned, from the `place` of its nodes. False after reporting that it is
 * not. */
bool plan_read(const Module *m, const Func *f, Arena *a, Plan *out, Diag *d);
/* Bytes of v at its symbols' upper bounds; false after reporting that there are none. */
bool plan_value_bytes(const Module *m, const Func *f, ValueId v, int64_t *bytes, Diag *d);
/* Bytes of the arena that serves every entry function of a planned module: the end of the last `place`. */
bool plan_arena_bytes(const Module *m, int64_t *bytes, Diag *d);

#endif
