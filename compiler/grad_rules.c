/* Gradient rules of pointwise ops, reductions and norms. In formulas x (or a, b) is the operand, y the result, dy its
 * adjoint. */
#include "grad_impl.h"

#include <math.h>

static ValueId mul(Grad *g, ValueId a, ValueId b) {
    return grad_binary(g, OP_mul, a, b);
}

static ValueId sub(Grad *g, ValueId a, ValueId b) {
    return grad_binary(g, OP_sub, a, b);
}

static ValueId quotient(Grad *g, ValueId a, ValueId b) {
    return grad_binary(g, OP_div, a, b);
}

static ValueId neg(Grad *g, ValueId a) {
    return grad_unary(g, OP_neg, a);
}

/* ---- one operand ---- */

static bool give(Grad *g, const Node *n, ValueId share) {
    grad_add(g, n->in[0], share);
    return true;
}

bool vjp_neg(Grad *g, const Node *n) {
    return give(g, n, neg(g, grad_of(g, n, 0)));
}

bool vjp_abs(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), grad_unary(g, OP_sign, n->in[0])));
}

/* dy / 2y */
bool vjp_sqrt(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), quotient(g, grad_number(g, n->out, 0.5), n->out)));
}

/* -dy y^3 / 2 */
bool vjp_rsqrt(Grad *g, const Node *n) {
    return give(g, n,
                mul(g, grad_of(g, n, 0),
                    mul(g, mul(g, mul(g, n->out, n->out), n->out), grad_number(g, n->out, -0.5))));
}

/* -dy y^2 */
bool vjp_recip(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), neg(g, mul(g, n->out, n->out))));
}

bool vjp_exp(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), n->out));
}

bool vjp_log(Grad *g, const Node *n) {
    return give(g, n, quotient(g, grad_of(g, n, 0), n->in[0]));
}

/* dy (1 - y^2) */
bool vjp_tanh(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), sub(g, grad_number(g, n->out, 1), mul(g, n->out, n->out))));
}

/* dy 2/sqrt(pi) e^(-x^2) */
bool vjp_erf(Grad *g, const Node *n) {
    ValueId bell = grad_unary(g, OP_exp, neg(g, mul(g, n->in[0], n->in[0])));
    return give(g, n, mul(g, grad_of(g, n, 0), mul(g, bell, grad_number(g, n->out, M_2_SQRTPI))));
}

bool vjp_relu(Grad *g, const Node *n) {
    return give(g, n,
                grad_select(g, grad_binary(g, OP_gt, n->in[0], grad_number(g, n->out, 0)), grad_of(g, n, 0),
                            grad_number(g, n->out, 0)));
}

/* dy y (1 - y) */
bool vjp_sigmoid(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), mul(g, n->out, sub(g, grad_number(g, n->out, 1), n->out))));
}

bool vjp_gelu(Grad *g, const Node *n) {
    return give(g, n, mul(g, grad_of(g, n, 0), grad_unary(g, OP_gelu_grad, n->in[0])));
}

bool vjp_cast(Grad *g, const Node *n) {
    return give(g, n, build_cast(g->m, g->f, grad_of(g, n, 0), grad_type(g, n->in[0])->dtype, g->origin));
}

/* ---- two and three operands ---- */

bool vjp_add(Grad *g, const Node *n) {
    grad_add(g, n->in[0], grad_of(g, n, 0));
    grad_add(g, n->in[1], grad_of(g, n, 0));
    return true;
}

bool vjp_sub(Grad *g, const Node *n) {
    grad_add(g, n->in[0], grad_of(g, n, 0));
    if (grad_wants(g, n->in[1]))
        grad_add(g, n->in[1], neg(g, grad_of(g, n, 0)));
    return true;
}

bool vjp_mul(Grad *g, const Node *n) {
    for (int i = 0; i < 2; i++)
        if (grad_wants(g, n->in[i]))
            grad_add(g, n->in[i], mul(g, grad_of(g, n, 0), n->in[1 - i]));
    return true;
}

/* da = dy / b, db = -dy y / b */
bool vjp_div(Grad *g, const Node *n) {
    ValueId da = quotient(g, grad_of(g, n, 0), n->in[1]);
    grad_add(g, n->in[0], da);
    if (grad_wants(g, n->in[1]))
        grad_add(g, n->in[1], neg(g, mul(g, da, n->out)));
    return true;
}

/* da = dy b a^(b-1), db = dy y log a */
bool vjp_pow(Grad *g, const Node *n) {
    ValueId a = n->in[0], b = n->in[1];
    if (grad_wants(g, a)) {
        ValueId less = grad_binary(g, OP_pow, a, sub(g, b, grad_number(g, b, 1)));
        grad_add(g, a,
                 mul(g, grad_of(g, n, 0),
                     mul(g, build_cast(g->m, g->f, b, grad_type(g, a)->dtype, g->origin), less)));
    }
    if (grad_wants(g, b))
        grad_add(g, b,
                 build_cast(g->m, g->f, mul(g, grad_of(g, n, 0), mul(g, n->out, grad_unary(g, OP_log, a))),
                            grad_type(g, b)->dtype, g->origin));
    return true;
}

/* The operand that was taken gets dy; equal ones half each. */
static bool chosen(Grad *g, const Node *n, Op better) {
    for (int i = 0; i < 2; i++) {
        ValueId own = n->in[i], other = n->in[1 - i];
        if (!grad_wants(g, own))
            continue;
        ValueId tie = grad_select(g, grad_binary(g, OP_eq, own, other), grad_number(g, n->out, 0.5),
                                  grad_number(g, n->out, 0));
        ValueId part = grad_select(g, grad_binary(g, better, own, other), grad_number(g, n->out, 1), tie);
        grad_add(g, own, mul(g, grad_of(g, n, 0), part));
    }
    return true;
}

bool vjp_min(Grad *g, const Node *n) {
    return chosen(g, n, OP_lt);
}

bool vjp_max(Grad *g, const Node *n) {
    return chosen(g, n, OP_gt);
}

bool vjp_select(Grad *g, const Node *n) {
    if (grad_wants(g, n->in[1]))
        grad_add(g, n->in[1], grad_select(g, n->in[0], grad_of(g, n, 0), grad_number(g, n->out, 0)));
    if (grad_wants(g, n->in[2]))
        grad_add(g, n->in[2], grad_select(g, n->in[0], grad_number(g, n->out, 0), grad_of(g, n, 0)));
    return true;
}

/* ---- reductions ---- */

/* v, a result of n or its adjoint, with the reduced axes back, of extent 1. */
static ValueId with_axes(Grad *g, const Node *n, ValueId v) {
    Type t = *grad_type(g, n->in[0]);
    const Attr *axes = node_attr(n, AT_axes);
    for (uint32_t i = 0; i < axes->ints.n; i++)
        t.dim[axes->ints.v[i]] = dim_const(g->m->dims, 1);
    t.dtype = grad_type(g, v)->dtype;
    return grad_reshape(g, v, &t);
}

static ValueId spread(Grad *g, const Node *n, ValueId v) {
    Type t = *grad_type(g, n->in[0]);
    return grad_broadcast(g, with_axes(g, n, v), &t);
}

bool vjp_reduce_sum(Grad *g, const Node *n) {
    return give(g, n, spread(g, n, grad_of(g, n, 0)));
}

bool vjp_reduce_mean(Grad *g, const Node *n) {
    const Attr *axes = node_attr(n, AT_axes);
    Dim count = dim_const(g->m->dims, 1);
    for (uint32_t i = 0; i < axes->ints.n; i++)
        count = dim_mul(g->m->dims, count, grad_type(g, n->in[0])->dim[axes->ints.v[i]]);
    return give(g, n, spread(g, n, quotient(g, grad_of(g, n, 0), grad_extent(g, n->out, count))));
}

/* Elements equal to the result share dy. */
static bool extreme(Grad *g, const Node *n) {
    ValueId is = grad_binary(g, OP_eq, n->in[0], with_axes(g, n, n->out));
    ValueId one = build_cast(g->m, g->f, is, grad_type(g, n->out)->dtype, g->origin);
    bool axis[MOEC_MAX_RANK] = {false};
    const Attr *axes = node_attr(n, AT_axes);
    for (uint32_t i = 0; i < axes->ints.n; i++)
        axis[axes->ints.v[i]] = true;
    return give(g, n,
                mul(g, one, quotient(g, with_axes(g, n, grad_of(g, n, 0)), grad_sum(g, one, axis, true))));
}

bool vjp_reduce_max(Grad *g, const Node *n) {
    return extreme(g, n);
}

bool vjp_reduce_min(Grad *g, const Node *n) {
    return extreme(g, n);
}

/* y (dy - sum y dy) */
bool vjp_softmax(Grad *g, const Node *n) {
    ValueId sum = grad_sum_last(g, mul(g, grad_of(g, n, 0), n->out), node_int(n, AT_axis, 0));
    return give(g, n, mul(g, n->out, sub(g, grad_of(g, n, 0), sum)));
}

/* dy - e^y sum dy */
bool vjp_log_softmax(Grad *g, const Node *n) {
    ValueId sum = grad_sum_last(g, grad_of(g, n, 0), node_int(n, AT_axis, 0));
    return give(g, n, sub(g, grad_of(g, n, 0), mul(g, grad_unary(g, OP_exp, n->out), sum)));
}

/* The running sum from the other end. */
bool vjp_cumsum(Grad *g, const Node *n) {
    Attr attrs[3] = {attr_i(AT_axis, node_int(n, AT_axis, 0)),
                     attr_i(AT_exclusive, node_int(n, AT_exclusive, 0)),
                     attr_i(AT_reverse, !node_int(n, AT_reverse, 0))};
    ValueId dy = grad_of(g, n, 0);
    return give(g, n, func_node(g->m, g->f, OP_cumsum, &dy, 1, attrs, 3, g->origin));
}

/* ---- norms ---- */

static ValueId factor_of(Grad *g, const Node *n) {
    Attr eps = attr_f(AT_eps, node_float(n, AT_eps, 0));
    return func_node(g->m, g->f, OP_rms_factor, n->in, 1, &eps, 1, g->origin);
}

static ValueId mean_last(Grad *g, ValueId v) {
    int64_t last = grad_type(g, v)->rank - 1;
    Attr attrs[2] = {attr_ints(AT_axes, &last, 1), attr_i(AT_keep, 1)};
    return func_node(g->m, g->f, OP_reduce_mean, &v, 1, attrs, 2, g->origin);
}

/* y = f x gain, f the row's factor. With u = dy gain: dx = f u - x f^3 mean(u x); dgain = sum over rows of dy f x. */
bool vjp_rms_norm(Grad *g, const Node *n) {
    ValueId x = n->in[0], gain = n->in[1], f = factor_of(g, n);
    if (grad_wants(g, x)) {
        ValueId u = mul(g, grad_of(g, n, 0), gain);
        ValueId pull = mul(g, mul(g, mul(g, f, f), f), mean_last(g, mul(g, u, x)));
        grad_add(g, x, sub(g, mul(g, u, f), mul(g, x, pull)));
    }
    if (grad_wants(g, gain))
        grad_add(g, gain, mul(g, mul(g, grad_of(g, n, 0), x), f));
    return true;
}

/* y = (mean x^2 + eps)^(-1/2): dx = -dy y^3 x / extent */
bool vjp_rms_factor(Grad *g, const Node *n) {
    const Type *t = grad_type(g, n->in[0]);
    ValueId width = grad_extent(g, n->out, t->dim[t->rank - 1]);
    ValueId cube = mul(g, mul(g, n->out, n->out), n->out);
    return give(g, n, mul(g, n->in[0], neg(g, quotient(g, mul(g, grad_of(g, n, 0), cube), width))));
}
