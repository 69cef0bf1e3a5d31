/* Evaluates one node on concrete operands with the reference interpreter. */
#ifndef MOEC_CONST_EVAL_H
#define MOEC_CONST_EVAL_H

#include "ir.h"

/* `types` are the result types, extents constant. Data of the results live in the module's arena. False
 * without a report when the node cannot be evaluated (an index out of range, for instance): it then stays for
 * the run. */
bool const_eval(Module *m, Op op, const Tensor *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs,
                const Type *types, uint32_t n_out, Tensor *out);

/* Data of a value that is a literal, or a parameter with data of at most max_count elements. */
bool const_of(const Module *m, const Func *f, ValueId v, int64_t max_count, Tensor *out);

#endif
