/* What the files of `grad` share.
 *
 * A rule `bool vjp_<op>(Grad *g, const Node *n)` (vector-Jacobian product) stands for one row of ops.def of gradient kind vjp: it reads the
 * adjoint of n's results with grad_of, builds nodes, and hands every operand its share with grad_add, which sums shares
 * and undoes broadcasting. Shares of operands that lead to nothing wanted are dropped by grad_add; a rule may ask
 * grad_wants first where building them costs. False after reporting. */
#ifndef MOEC_GRAD_IMPL_H
#define MOEC_GRAD_IMPL_H

#include "pass.h"

typedef struct Grad {
    Module *m;
    Diag *d;
    Func *f;           /* the forward nodes, then what rules build */
    const bool *wants; /* by ValueId of the forward nodes: depends on something a gradient is wanted of */
    ValueId *adjoint;  /* by ValueId of the forward nodes; NONE: no share so far */
    Str origin;        /* of the node whose rule runs */
} Grad;

ValueId grad_of(const Grad *g, const Node *n, uint32_t result); /* NONE: nothing reads that result */
bool grad_wants(const Grad *g, ValueId v);
void grad_add(Grad *g, ValueId v, ValueId share);
bool grad_refuse(Grad *g, const Node *n, const char *why); /* reports at the node's origin; false */

/* Short forms that build at the end of g->f. */
ValueId grad_unary(Grad *g, Op op, ValueId a);
ValueId grad_binary(Grad *g, Op op, ValueId a, ValueId b);
ValueId grad_number(Grad *g, ValueId like, double v); /* scalar of like's element type */
ValueId grad_select(Grad *g, ValueId condition, ValueId yes, ValueId no);
ValueId grad_reshape(Grad *g, ValueId a, const Type *to);
ValueId grad_transpose(Grad *g, ValueId a, const int64_t *perm);
ValueId grad_broadcast(Grad *g, ValueId a, const Type *to);
ValueId grad_zeros(Grad *g, const Type *t);
ValueId grad_sum(Grad *g, ValueId a, const bool *axis, bool keep); /* over the marked axes */
ValueId grad_sum_last(Grad *g, ValueId a, int64_t axis);           /* over one axis, kept with extent 1 */
ValueId grad_extent(Grad *g, ValueId like, Dim d);                 /* an extent as a scalar of like's type */
const Type *grad_type(const Grad *g, ValueId v);

typedef bool GradRule(Grad *g, const Node *n);

#define GRAD_DECLARE_vjp(name) GradRule vjp_##name;
#define GRAD_DECLARE_nograd(name)
#define GRAD_DECLARE_expand(name)
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) GRAD_DECLARE_##grad(name)
#include "ops.def"

#endif
