/* A module as a graph in Graphviz' language. */
#ifndef MOEC_DOT_H
#define MOEC_DOT_H

#include "ir.h"

/* One cluster a function; boxes are nodes (op, callee, site), ellipses inputs and outputs, small boxes
 * parameters; edges carry types. `fold`: repeated layers (repeat.h) stand once, in a cluster that says how
 * often, what goes from layer to layer is a dashed edge, inputs, outputs and parameters that every layer has
 * of its own are one; so do kernels and init functions that are alike. `func`: the function of this name
 * alone; NULL: all. Every name of the module is escaped. */
void module_dot(const Module *m, bool fold, const char *func, Text *out);

#endif
