/* Row-locality: whether nodes can run over tiles of leading axes (tokens) with everything between a kernel's inputs and
 * outputs staying inside a tile. `fuse` groups by it, code generation relies on it. */
#ifndef MOEC_ROWS_H
#define MOEC_ROWS_H

#include "ir.h"

typedef struct Rows {
    const Module *m;
    const Func *f;
    int n; /* row axes */
    Dim dim[MOEC_MAX_RANK];
    bool *row; /* by ValueId: carries the row axes */
    const char *why; /* of the last node that was not row-local */
} Rows;

/* v's leading extents are the rows. */
bool rows_lead(const Rows *r, ValueId v);
/* Whether node n works row by row, given which of its operands carry rows; marks its results. */
bool rows_node(Rows *r, const Node *n);
/* n puts the elements of its operand's rows [A,B,..] elsewhere: a transpose to [A,..,B,..]. A kernel by rows may end in it. */
bool rows_scatters(const Rows *r, const Node *n);
/* What output i of kernel f is made of row by row: the operand of a node that scatters it and is all that reads it, or itself. */
ValueId rows_output(const Func *f, uint32_t i);
/* v stands somewhere as an operand that must be the same for all rows (a weight, a table). */
bool rows_invariant_use(const Func *f, ValueId v);
/* Can f run row by row over the first n_row axes of its outputs, as rows_output has them? Fills row[] (n_values). Else the node that
 * cannot, or NULL where it is none of them, and why. */
bool rows_local(const Module *m, const Func *f, int n_row, bool *row, const Node **node, const char **why);

/* The most row axes under which kernel f is row-local, at least one axis staying inside; 0: none, since *node or *why. */
int rows_choose(const Module *m, const Func *f, bool *row, const Node **node, const char **why);

#endif
