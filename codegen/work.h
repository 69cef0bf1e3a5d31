/* How much a kernel does, as functions of the run-time symbols. For reports: nothing is decided by it. */
#ifndef MOEC_WORK_H
#define MOEC_WORK_H

#include "../compiler/ir.h"

/* Additions and multiplications of products: matmul, attention (as if nothing were masked), the loss. 0: none, or too many
 * to say. */
Dim work_flops(const Module *m, const Func *f);
/* Bytes of what is read and written, each counted once; of a table that is gathered from what is taken, of a cache that is
 * appended to the new rows. 0: too many to say. */
Dim work_bytes(const Module *m, const Func *f);

#endif
