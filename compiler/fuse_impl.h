/* What the files of the fuse pass share. */
#ifndef MOEC_FUSE_IMPL_H
#define MOEC_FUSE_IMPL_H

#include "pass.h"

/* Marks values that depend on parameters and literals alone, with at least one parameter behind them. */
bool *param_only(const Module *m, const Func *f, Arena *a);
/* Marks which of those depend on an adapter tensor. */
bool *adapter_only(const Module *m, const Func *f, const bool *only, Arena *a);

/* The graph of two functions is the same: ops, wiring, attributes, types, parameters; names and origins are not looked
 * at, nor the attributes `site` and `place`. */
bool func_same(const Func *a, const Func *b);

/* Appends that are no caches become concatenations (caches.c). */
void keep_caches(Module *m, Func *f);
/* Every parameter-only value that something else uses becomes a parameter with an init function (hoist.c). */
void hoist(Module *m, Func *f);
/* Groups nodes into kernels; f becomes a list of calls (outline.c). */
bool outline(Module *m, Func *f, Diag *d);

#endif
