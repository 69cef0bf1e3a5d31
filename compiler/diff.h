/* What two modules differ in, for people: names of values, numbers in the names of kernels, the order of
 * functions and origins are no difference; ops, operands, attributes, types, the order of nodes, parameters
 * and symbols are. */
#ifndef MOEC_DIFF_H
#define MOEC_DIFF_H

#include "ir.h"

typedef struct DiffOptions {
    const char *func; /* nothing but the function of this name; NULL: everything */
    bool stat;        /* counts instead of lines */
} DiffOptions;

/* Adds the differences to `out` as the lines of a unified diff, `-` for a, `+` for b, with the names of a
 * where values correspond; a value that b alone has, under a name a uses for another, is shown with a '
 * behind it. Functions that are called from others pair by structure first. True when there is no difference,
 * and then nothing is added. Both modules have to be valid. */
bool module_diff(const Module *a, const Module *b, const DiffOptions *o, Text *out);

#endif
