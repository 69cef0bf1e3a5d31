/* Gradient rules of ops that move elements, and of contractions. */
#include "grad_impl.h"

/* ---- movement ---- */

bool vjp_reshape(Grad *g, const Node *n) {
    Type t = *grad_type(g, n->in[0]);
    grad_add(g, n->in[0], grad_reshape(g, grad_of(g, n, 0), &t));
    return true;
}

bool vjp_broadcast(Grad *g, const Node *n) {
    grad_add(g, n->in[0], grad_of(g, n, 0)); /* which sums along repeated axes */
    return true;
}

bool vjp_transpose(Grad *g, const Node *n) {
    int64_t back[MOEC_MAX_RANK];
    const Attr *perm = node_attr(n, AT_perm);
    for (uint32_t i = 0; i < perm->ints.n; i++)
        back[perm->ints.v[i]] = i;
    grad_add(g, n->in[0], grad_transpose(g, grad_of(g, n, 0), back));
    return true;
}

/* a with `before` and `after` zeros put around it along an axis. */
static ValueId pad(Grad *g, ValueId a, int axis, Dim before, Dim after) {
    Dim zero = dim_const(g->m->dims, 0), around[2] = {before, after};
    ValueId part[3];
    uint32_t n = 0;
    for (int i = 0; i < 2; i++) {
        Type t = *grad_type(g, a);
        t.dim[axis] = around[i];
        if (i == 1)
            part[n++] = a;
        if (around[i] != zero)
            part[n++] = grad_zeros(g, &t);
    }
    return build_concat(g->m, g->f, part, n, axis, g->origin);
}

/* a with step - 1 zeros put behind every element along an axis; a's rank is below MOEC_MAX_RANK. */
static ValueId dilate(Grad *g, ValueId a, int axis, int64_t step) {
    DimTable *t = g->m->dims;
    Type wide = *grad_type(g, a), joined = wide;
    for (int i = wide.rank; i > axis + 1; i--)
        wide.dim[i] = wide.dim[i - 1];
    wide.dim[axis + 1] = dim_const(t, 1);
    wide.rank++;
    joined.dim[axis] = dim_mul(t, joined.dim[axis], dim_const(t, step));
    return grad_reshape(
        g, pad(g, grad_reshape(g, a, &wide), axis + 1, dim_const(t, 0), dim_const(t, step - 1)), &joined);
}

static ValueId reversed(Grad *g, ValueId a, int axis) {
    Type t = *grad_type(g, a);
    Dim start[MOEC_MAX_RANK];
    int64_t step[MOEC_MAX_RANK];
    for (int i = 0; i < t.rank; i++) {
        start[i] =
            i == axis ? dim_sub(g->m->dims, t.dim[i], dim_const(g->m->dims, 1)) : dim_const(g->m->dims, 0);
        step[i] = i == axis ? -1 : 1;
    }
    Attr attrs[2] = {attr_dims(AT_start, start, (uint32_t)t.rank),
                     attr_ints(AT_step, step, (uint32_t)t.rank)};
    return func_node_typed(g->m, g->f, OP_slice, &a, 1, attrs, 2, &t, 1, g->origin);
}

/* Zeros stand where the slice took nothing. */
bool vjp_slice(Grad *g, const Node *n) {
    DimTable *t = g->m->dims;
    Type whole = *grad_type(g, n->in[0]);
    const Attr *start = node_attr(n, AT_start), *step = node_attr(n, AT_step);
    ValueId share = grad_of(g, n, 0);
    for (int i = 0; i < whole.rank; i++) {
        int64_t by = step ? step->ints.v[i] : 1;
        Dim taken = grad_type(g, share)->dim[i], first = start->dims.v[i];
        if (dim_upper(t, taken) <= 1)
            by = 1; /* no second element: the step says nothing and may be anything */
        if (taken == whole.dim[i] && by == 1)
            continue;
        if (by != 1 && by != -1 && whole.rank == MOEC_MAX_RANK)
            return grad_refuse(g, n, "slices in steps have a gradient up to one axis less");
        if (by < 0) { /* the same elements in ascending order */
            share = reversed(g, share, i);
            first = dim_add(t, first, dim_mul(t, dim_sub(t, taken, dim_const(t, 1)), dim_const(t, by)));
            by = -by;
        }
        if (by > 1) {
            share = dilate(g, share, i, by);
            Dim end =
                dim_add(t, dim_mul(t, dim_sub(t, taken, dim_const(t, 1)), dim_const(t, by)), dim_const(t, 1));
            share = build_slice(g->m, g->f, share, i, dim_const(t, 0), end, g->origin);
            taken = end;
        }
        share = pad(g, share, i, first, dim_sub(t, whole.dim[i], dim_add(t, first, taken)));
    }
    grad_add(g, n->in[0], share);
    return true;
}

bool vjp_concat(Grad *g, const Node *n) {
    int axis = (int)node_int(n, AT_axis, 0);
    Dim at = dim_const(g->m->dims, 0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        Dim extent = grad_type(g, n->in[i])->dim[axis];
        if (grad_wants(g, n->in[i]))
            grad_add(g, n->in[i], build_slice(g->m, g->f, grad_of(g, n, 0), axis, at, extent, g->origin));
        at = dim_add(g->m->dims, at, extent);
    }
    return true;
}

bool vjp_append(Grad *g, const Node *n) {
    return vjp_concat(g, n);
}

/* ---- gathers: adjoints of what was picked are added up where it was picked ---- */

/* Indices from 0 on; negative ones count from the end of an axis of extent d. */
static ValueId counted(Grad *g, ValueId index, Dim d) {
    ValueId end = build_cast(g->m, g->f, grad_extent(g, index, d), grad_type(g, index)->dtype, g->origin);
    ValueId negative = grad_binary(g, OP_lt, index, grad_number(g, index, 0));
    return grad_select(g, negative, grad_binary(g, OP_add, index, end), index);
}

static ValueId scatter_sum(Grad *g, const Type *to, ValueId indices, ValueId updates) {
    ValueId in[3] = {grad_zeros(g, to), indices, updates};
    Attr kind = attr_s(AT_kind, str_c("sum"));
    return func_node(g->m, g->f, OP_scatter_nd, in, 3, &kind, 1, g->origin);
}

/* y [pre.., index.., post..] of x [pre.., axis, post..]: the axis goes first, then rows are added up by index. */
bool vjp_gather(Grad *g, const Node *n) {
    Type x = *grad_type(g, n->in[0]), index = *grad_type(g, n->in[1]);
    int axis = (int)node_int(n, AT_axis, 0);
    int64_t front[MOEC_MAX_RANK], back[MOEC_MAX_RANK];
    int rank = grad_type(g, n->out)->rank, k = 0;
    if (!grad_wants(g, n->in[0]))
        return true;
    if (index.rank == MOEC_MAX_RANK)
        return grad_refuse(g, n, "indices have a gradient up to one axis less");
    for (int i = 0; i < index.rank; i++)
        front[k++] = axis + i;
    for (int i = 0; i < rank; i++)
        if (i < axis || i >= axis + index.rank)
            front[k++] = i;
    Type first = x;
    first.dim[0] = x.dim[axis];
    for (int i = 0; i < axis; i++)
        first.dim[i + 1] = x.dim[i];
    for (int i = 0; i < x.rank; i++)
        back[i] = i == axis ? 0 : i < axis ? i + 1 : i;
    Type column = index;
    column.dtype = DT_I64;
    column.dim[column.rank++] = dim_const(g->m->dims, 1);
    ValueId at = build_cast(g->m, g->f, counted(g, n->in[1], x.dim[axis]), DT_I64, g->origin);
    at = grad_reshape(g, at, &column);
    ValueId sum = scatter_sum(g, &first, at, grad_transpose(g, grad_of(g, n, 0), front));
    grad_add(g, n->in[0], grad_transpose(g, sum, back));
    return true;
}

/* Positions along the leading `batch` axes stand before the indices, then the rows are added up by them. */
static ValueId batched_indices(Grad *g, const Node *n, ValueId indices) {
    int64_t batch = node_int(n, AT_batch, 0);
    ValueId part[MOEC_MAX_RANK + 1];
    Type column = *grad_type(g, indices);
    int last = column.rank - 1;
    column.dim[last] = dim_const(g->m->dims, 1);
    for (int64_t i = 0; i < batch; i++) {
        Attr axis = attr_i(AT_axis, i);
        Type t = column;
        t.dtype = DT_I64;
        ValueId v = func_node_typed(g->m, g->f, OP_iota, NULL, 0, &axis, 1, &t, 1, g->origin);
        part[i] = build_cast(g->m, g->f, v, column.dtype, g->origin);
    }
    part[batch] = indices;
    return build_concat(g->m, g->f, part, (uint32_t)batch + 1, last, g->origin);
}

bool vjp_gather_nd(Grad *g, const Node *n) {
    Type x = *grad_type(g, n->in[0]);
    if (grad_wants(g, n->in[0]))
        grad_add(g, n->in[0], scatter_sum(g, &x, batched_indices(g, n, n->in[1]), grad_of(g, n, 0)));
    return true;
}

/* Updates get dy from where they went; what was overwritten gets none. */
bool vjp_scatter_nd(Grad *g, const Node *n) {
    const Attr *kind = node_attr(n, AT_kind);
    bool sum = kind && str_is(kind->s, "sum");
    if (kind && !sum)
        return grad_refuse(g, n, "only plain and summing scatters have a gradient");
    if (grad_wants(g, n->in[2])) {
        ValueId in[2] = {grad_of(g, n, 0), n->in[1]};
        Attr batch = attr_i(AT_batch, 0);
        grad_add(g, n->in[2], func_node(g->m, g->f, OP_gather_nd, in, 2, &batch, 1, g->origin));
    }
    if (grad_wants(g, n->in[0]) && sum)
        grad_add(g, n->in[0], grad_of(g, n, 0));
    else if (grad_wants(g, n->in[0])) {
        Type t = *grad_type(g, n->in[2]);
        ValueId in[3] = {grad_of(g, n, 0), n->in[1], grad_zeros(g, &t)};
        grad_add(g, n->in[0], func_node(g->m, g->f, OP_scatter_nd, in, 3, NULL, 0, g->origin));
    }
    return true;
}

/* ---- matmul: y = A B with A = op(a), B = op(b) ---- */

static ValueId product(Grad *g, ValueId a, bool ta, ValueId b, bool tb) {
    ValueId in[2] = {a, b};
    Attr attrs[2];
    uint32_t n = 0;
    if (ta)
        attrs[n++] = attr_i(AT_ta, 1);
    if (tb)
        attrs[n++] = attr_i(AT_tb, 1);
    return func_node(g->m, g->f, OP_matmul, in, 2, attrs, n, g->origin);
}

/* v [lead.., shared.., m, k] as [shared.., lead.. m, k]: the axes that b lacks become rows, to be summed over by a
 * product. `lead` axes go. */
static ValueId rows_of(Grad *g, ValueId v, int lead) {
    Type t = *grad_type(g, v), to = t;
    int64_t perm[MOEC_MAX_RANK];
    int shared = t.rank - 2 - lead, k = 0;
    for (int i = 0; i < shared; i++)
        perm[k++] = lead + i;
    for (int i = 0; i < lead; i++)
        perm[k++] = i;
    perm[k++] = t.rank - 2;
    perm[k++] = t.rank - 1;
    if (shared)
        v = grad_transpose(g, v, perm);
    to.rank = shared + 2;
    for (int i = 0; i < shared; i++)
        to.dim[i] = t.dim[lead + i];
    to.dim[shared] = t.dim[t.rank - 2];
    for (int i = 0; i < lead; i++)
        to.dim[shared] = dim_mul(g->m->dims, to.dim[shared], t.dim[i]);
    to.dim[shared + 1] = t.dim[t.rank - 1];
    return grad_reshape(g, v, &to);
}

/* Elements of a weight's gradient that are no more than one task of a product. */
enum { FEW = 4096 };

/* The weight of y = A B has so few elements that a product over all rows would be a single task, and the rows' last axis is a
 * number, as that of heads: each of them has a product of its own, and they are added up. */
static bool sums_apart(Grad *g, ValueId a, ValueId b) {
    const Type *t = grad_type(g, a), *w = grad_type(g, b);
    int64_t elements, apart;
    if (w->rank != 2 || t->rank < 4 || t->rank + 1 > MOEC_MAX_RANK || !dim_is_const(g->m->dims, t->dim[t->rank - 2], &apart))
        return false;
    return apart > 1 && dim_is_const(g->m->dims, type_count(g->m->dims, w), &elements) && elements <= FEW;
}

/* v [.., m, k] as [.., m, 1, k]. */
static ValueId apart(Grad *g, ValueId v) {
    Type t = *grad_type(g, v);
    t.dim[t.rank] = t.dim[t.rank - 1];
    t.dim[t.rank - 1] = dim_const(g->m->dims, 1);
    t.rank++;
    return grad_reshape(g, v, &t);
}

bool vjp_matmul(Grad *g, const Node *n) {
    ValueId a = n->in[0], b = n->in[1], dy = grad_of(g, n, 0);
    bool ta = node_int(n, AT_ta, 0) != 0, tb = node_int(n, AT_tb, 0) != 0;
    if (grad_wants(g, a))
        grad_add(g, a, ta ? product(g, b, tb, dy, true) : product(g, dy, false, b, !tb));
    if (!grad_wants(g, b))
        return true;
    int lead = grad_type(g, a)->rank - grad_type(g, b)->rank;
    if (lead > 0 && !ta && grad_type(g, dy)->rank == grad_type(g, a)->rank) {
        if (sums_apart(g, a, b)) {
            a = apart(g, a);
            dy = apart(g, dy);
        }
        a = rows_of(g, a, lead);
        dy = rows_of(g, dy, lead);
    }
    grad_add(g, b, tb ? product(g, dy, true, a, ta) : product(g, a, !ta, dy, false));
    return true;
}

/* ---- attention, cross entropy ---- */

/* One node computes all shares, from the operands alone. */
bool vjp_attention(Grad *g, const Node *n) {
    enum { MOST = 10 };
    ValueId in[MOST] = {grad_of(g, n, 0)};
    if (n->n_in > 9 && n->in[9] != NONE)
        return grad_refuse(g, n, "packed keys are for inference");
    CHECK(n->n_attrs < 8);
    uint32_t n_in = n->n_in < MOST ? n->n_in : MOST - 1;
    for (uint32_t i = 0; i < n_in; i++)
        in[i + 1] = n->in[i];
    bool bias = n->n_in > 3 && grad_wants(g, n->in[3]);
    Attr attrs[8];
    uint32_t n_attrs = 0;
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!attr_annotates(n->attrs[i].key))
            attrs[n_attrs++] = n->attrs[i];
    attrs[n_attrs++] = attr_i(AT_k, bias ? 4 : 3);
    ValueId d = func_node(g->m, g->f, OP_attention_grad, in, n_in + 1, attrs, n_attrs, g->origin);
    for (uint32_t i = 0; i < 3; i++)
        grad_add(g, n->in[i], d + i);
    if (bias)
        grad_add(g, n->in[3], d + 3);
    return true;
}

bool vjp_cross_entropy(Grad *g, const Node *n) {
    if (grad_of(g, n, 1) != NONE)
        return grad_refuse(g, n, "log Z is for its gradient alone");
    ValueId in[7] = {n->in[0], n->in[1], n->in[2], n->in[3], n->in[4], n->out + 1, grad_of(g, n, 0)};
    const Attr *tb = node_attr(n, AT_tb);
    if (grad_wants(g, n->in[3]) || grad_wants(g, n->in[4]))
        return grad_refuse(g, n, "its weights are given, not learnt");
    if (grad_wants(g, n->in[0]))
        grad_add(g, n->in[0], func_node(g->m, g->f, OP_cross_entropy_dx, in, 7, tb, tb ? 1 : 0, g->origin));
    if (grad_wants(g, n->in[1]))
        grad_add(g, n->in[1], func_node(g->m, g->f, OP_cross_entropy_dw, in, 7, tb, tb ? 1 : 0, g->origin));
    return true;
}
