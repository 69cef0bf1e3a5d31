/* Intermediate values made visible. */
#ifndef MOEC_EXPOSE_H
#define MOEC_EXPOSE_H

#include "ir.h"

/* Makes every result of every node of an entry function one of the function's outputs, named as in a dump,
 * behind those it has; but for rows appended to a cache, which live in the cache's storage. What code is made
 * of the nodes does not change; where results are kept does: a module that was planned has to be planned
 * again. */
void expose_results(Module *m);

#endif
