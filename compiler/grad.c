/* grad: reverse mode differentiation. Nodes `gradient loss, x` become what they stand for.
 *
 * All gradients of one loss in a function are made together: the forward nodes are kept as they are, then walked
 * backwards from the loss, one rule a node (grad_rules.c, grad_tensor.c), only where a result has an adjoint and an
 * operand leads to something a gradient is wanted of. So no adjoint of a frozen weight is ever built. What rules build
 * carries the attribute `adjoint`, which keeps forward and backward apart in later passes. */
#include "grad_impl.h"

#include <string.h>

#define GRAD_TABLE_vjp(name)    vjp_##name
#define GRAD_TABLE_nograd(name) NULL
#define GRAD_TABLE_expand(name) NULL
static GradRule *const rules[OP_COUNT] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc)                               \
    [OP_##name] = GRAD_TABLE_##grad(name),
#include "ops.def"
};

/* ---- what rules use ---- */

const Type *grad_type(const Grad *g, ValueId v) {
    return &g->f->value[v].type;
}

ValueId grad_of(const Grad *g, const Node *n, uint32_t result) {
    return g->adjoint[n->out + result];
}

bool grad_wants(const Grad *g, ValueId v) {
    return v != NONE && g->wants[v];
}

bool grad_refuse(Grad *g, const Node *n, const char *why) {
    const char *op = op_info(n->op)->name;
    if (n->origin.n)
        return diag_error(g->d, DIAG_GRAD_RULE, NULL, "node '%s': '%s' cannot be trained through: %s",
                          diag_show(g->d, n->origin), op, why);
    return diag_error(g->d, DIAG_GRAD_RULE, NULL, "function '%s': '%s' cannot be trained through: %s",
                      diag_show(g->d, g->f->name), op, why);
}

ValueId grad_unary(Grad *g, Op op, ValueId a) {
    return build_unary(g->m, g->f, op, a, g->origin);
}

ValueId grad_binary(Grad *g, Op op, ValueId a, ValueId b) {
    return build_binary(g->m, g->f, op, a, b, g->origin);
}

ValueId grad_number(Grad *g, ValueId like, double v) {
    return build_scalar(g->m, g->f, grad_type(g, like)->dtype, v);
}

ValueId grad_select(Grad *g, ValueId condition, ValueId yes, ValueId no) {
    ValueId in[3] = {condition, yes, no};
    return func_node(g->m, g->f, OP_select, in, 3, NULL, 0, g->origin);
}

ValueId grad_reshape(Grad *g, ValueId a, const Type *to) {
    if (type_eq(grad_type(g, a), to))
        return a;
    return build_reshape(g->m, g->f, a, to->rank, to->dim, g->origin);
}

ValueId grad_transpose(Grad *g, ValueId a, const int64_t *perm) {
    return build_transpose(g->m, g->f, a, perm, g->origin);
}

ValueId grad_broadcast(Grad *g, ValueId a, const Type *to) {
    if (type_eq(grad_type(g, a), to))
        return a;
    return build_broadcast(g->m, g->f, a, to->rank, to->dim, g->origin);
}

ValueId grad_zeros(Grad *g, const Type *t) {
    return grad_broadcast(g, build_scalar(g->m, g->f, t->dtype, 0), t);
}

ValueId grad_sum(Grad *g, ValueId a, const bool *axis, bool keep) {
    int64_t axes[MOEC_MAX_RANK];
    uint32_t n = 0;
    for (int i = 0; i < grad_type(g, a)->rank; i++)
        if (axis[i])
            axes[n++] = i;
    if (n == 0)
        return a;
    Attr attrs[2] = {attr_ints(AT_axes, axes, n), attr_i(AT_keep, keep)};
    return func_node(g->m, g->f, OP_reduce_sum, &a, 1, attrs, 2, g->origin);
}

ValueId grad_sum_last(Grad *g, ValueId a, int64_t axis) {
    bool axes[MOEC_MAX_RANK] = {false};
    axes[axis] = true;
    return grad_sum(g, a, axes, true);
}

ValueId grad_extent(Grad *g, ValueId like, Dim d) {
    int64_t n;
    if (dim_is_const(g->m->dims, d, &n))
        return grad_number(g, like, (double)n);
    Attr at = attr_d(AT_dim, d);
    ValueId v = func_node(g->m, g->f, OP_dim, NULL, 0, &at, 1, g->origin);
    return build_cast(g->m, g->f, v, grad_type(g, like)->dtype, g->origin);
}

/* The sum over the axes along which an operand of type `to` was repeated. */
static ValueId unbroadcast(Grad *g, ValueId share, const Type *to) {
    Type from = *grad_type(g, share);
    bool axis[MOEC_MAX_RANK] = {false};
    for (int i = 0; i < from.rank; i++) {
        int k = i - (from.rank - to->rank);
        axis[i] = k < 0 || to->dim[k] != from.dim[i];
    }
    return grad_reshape(g, grad_sum(g, share, axis, true), to);
}

void grad_add(Grad *g, ValueId v, ValueId share) {
    if (!grad_wants(g, v) || share == NONE)
        return;
    const Type *to = grad_type(g, v), *from = grad_type(g, share);
    if (!type_eq(to, from) && from->rank <= to->rank) { /* a share that is the same everywhere */
        Type wide;
        CHECK(type_broadcast(g->m->dims, from, to, &wide));
        if (type_eq(&wide, to))
            share = grad_broadcast(g, share, to);
    }
    if (!type_eq(to, grad_type(g, share)))
        share = unbroadcast(g, share, grad_type(g, v));
    ValueId *sum = &g->adjoint[v];
    *sum = *sum == NONE ? share : grad_binary(g, OP_add, *sum, share);
}

/* ---- one loss of one function ---- */

static bool is_gradient_of(const Node *n, ValueId loss) {
    return n->op == OP_gradient && n->in[0] == loss;
}

/* Marks what depends on an operand of the gradients of `loss`. */
static bool *find_wanted(const Func *f, const Remap *r, ValueId loss, Arena *a) {
    bool *wants = arena_array(a, r->f->n_values + 1, sizeof *wants);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (is_gradient_of(&f->node[i], loss) && r->map[f->node[i].in[1]] != NONE)
            wants[r->map[f->node[i].in[1]]] = true;
    for (uint32_t i = 0; i < r->f->n_nodes; i++) {
        const Node *n = &r->f->node[i];
        bool any = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            any |= n->in[k] != NONE && wants[n->in[k]];
        for (uint32_t k = 0; any && k < n->n_out; k++)
            if (dtype_is_float(r->f->value[n->out + k].type.dtype))
                wants[n->out + k] = true;
    }
    return wants;
}

static bool node_backward(Grad *g, const Node *n) {
    bool reached = false;
    for (uint32_t k = 0; k < n->n_out; k++)
        reached |= g->wants[n->out + k] && g->adjoint[n->out + k] != NONE;
    if (!reached)
        return true;
    g->origin = n->origin;
    if (rules[n->op])
        return rules[n->op](g, n);
    return grad_refuse(g, n, "it has no gradient rule");
}

/* Every node from `first` on belongs to the backward pass. */
static void mark_adjoint(Module *m, Func *f, NodeId first) {
    for (NodeId i = first; i < f->n_nodes; i++) {
        Node *n = &f->node[i];
        Attr *attrs = arena_array(m->arena, n->n_attrs + 1, sizeof *attrs);
        if (n->n_attrs)
            memcpy(attrs, n->attrs, n->n_attrs * sizeof *attrs);
        attrs[n->n_attrs++] = attr_i(AT_adjoint, 1);
        n->attrs = attrs;
    }
}

/* The gradients of `loss`, made when the walk over the old function meets the first of them. */
static bool differentiate(Remap *r, ValueId loss, Arena *a, Diag *d) {
    const Func *f = r->old;
    ValueId seed = remap_value(r, loss); /* parameters get their values now */
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (is_gradient_of(&f->node[i], loss))
            remap_value(r, f->node[i].in[1]);
    NodeId forward = r->f->n_nodes;
    Grad g = {.m = r->m, .d = d, .f = r->f, .wants = find_wanted(f, r, loss, a)};
    ValueId known = r->f->n_values;
    g.adjoint = arena_array(a, known + 1, sizeof *g.adjoint);
    memset(g.adjoint, 0xff, (known + 1) * sizeof *g.adjoint);
    if (g.wants[seed])
        g.adjoint[seed] = grad_broadcast(&g, grad_number(&g, seed, 1), grad_type(&g, seed));
    for (NodeId i = forward; i-- > 0;) {
        Node n = r->f->node[i]; /* the array moves as rules build */
        if (!node_backward(&g, &n))
            return false;
    }
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (!is_gradient_of(n, loss))
            continue;
        /* a value made behind the first gradient is nothing that the loss depends on */
        ValueId of = r->map[n->in[1]], made = of < known ? g.adjoint[of] : NONE;
        remap_set(r, n->out, made == NONE ? grad_zeros(&g, &f->value[n->out].type) : made);
    }
    mark_adjoint(r->m, r->f, forward);
    return true;
}

static bool func_grad(Module *m, const Func *f, Diag *d) {
    Arena *a = arena_new();
    Remap r = remap_begin(m, a, f);
    bool ok = true;
    for (uint32_t i = 0; ok && i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->op != OP_gradient)
            remap_node(&r, n);
        else if (r.map[n->out] == NONE)
            ok = differentiate(&r, n->in[0], a, d);
    }
    if (ok)
        remap_end(&r);
    arena_free(a);
    return ok;
}

bool pass_grad(Module *m, const PassOptions *o, Diag *d) {
    (void)o;
    for (FuncId id = 0; id < m->n_funcs; id++) {
        const Func *f = m->func[id];
        bool any = false;
        for (uint32_t i = 0; f && i < f->n_nodes; i++)
            any |= f->node[i].op == OP_gradient;
        if (any && !func_grad(m, f, d))
            return false;
    }
    return true;
}
