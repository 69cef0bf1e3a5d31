/* Rules of movement ops: identities vanish, compositions become one, positions stay `iota`. */
#include "const_eval.h"
#include "fold_impl.h"

enum { COUNT_MAX = 4096 };

static const Node *node_of(Folder *x, ValueId v, Op op) {
    const Node *n = value_node(x->f, v);
    return n && n->op == op ? n : NULL;
}

static ValueId same_or(Folder *x, ValueId a, const Make *k) {
    return type_eq(fold_type(x, a), &k->type) ? a : NONE;
}

static ValueId make_iota(Folder *x, const Type *type, int axis, Str origin) {
    Attr a = attr_i(AT_axis, axis);
    Make k = {OP_iota, NULL, 0, &a, 1, *type, origin};
    return fold_make(x, &k);
}

/* A reshape that only adds or drops axes of extent 1: to[i] is the new axis of axis i, -1 for a dropped one.
 */
static bool unit_reshape(Folder *x, const Type *from, const Type *into, int *to) {
    int k = 0;
    for (int i = 0; i < from->rank; i++) {
        to[i] = -1;
        if (fold_is_one(x, from->dim[i]))
            continue;
        while (k < into->rank && fold_is_one(x, into->dim[k]))
            k++;
        if (k == into->rank || into->dim[k] != from->dim[i])
            return false;
        to[i] = k++;
    }
    while (k < into->rank && fold_is_one(x, into->dim[k]))
        k++;
    return k == into->rank;
}

ValueId fold_iota(Folder *x, const Make *k) {
    return fold_is_one(x, k->type.dim[make_attr(k, AT_axis)->i]) ? fold_const(x, &k->type, 0, k->origin)
                                                                 : NONE;
}

ValueId fold_reshape(Folder *x, const Make *k) {
    ValueId a = k->in[0];
    const Type from = *fold_type(x, a);
    const Node *n = value_node(x->f, a);
    int to[MOEC_MAX_RANK];
    if (type_eq(&from, &k->type))
        return a;
    if (!n)
        return NONE;
    if (n->op == OP_reshape)
        return fold_to(x, OP_reshape, n->in[0], k->type.dim, k->type.rank, k->origin);
    if (n->op == OP_broadcast && fold_type(x, n->in[0])->rank == 0)
        return fold_to(x, OP_broadcast, n->in[0], k->type.dim, k->type.rank, k->origin);
    if ((n->op != OP_iota && n->op != OP_broadcast) || !unit_reshape(x, &from, &k->type, to))
        return NONE;
    if (n->op == OP_iota) {
        int axis = to[node_int(n, AT_axis, 0)];
        return axis < 0 ? fold_const(x, &k->type, 0, k->origin) : make_iota(x, &k->type, axis, k->origin);
    }
    const Type inner = *fold_type(x, n->in[0]);
    ValueId source = n->in[0];
    Dim dim[MOEC_MAX_RANK];
    for (int i = 0; i < k->type.rank; i++)
        dim[i] = dim_const(x->m->dims, 1);
    for (int i = 0; i < inner.rank; i++)
        if (to[from.rank - inner.rank + i] >= 0)
            dim[to[from.rank - inner.rank + i]] = inner.dim[i];
    ValueId v = fold_to(x, OP_reshape, source, dim, k->type.rank, k->origin);
    return fold_to(x, OP_broadcast, v, k->type.dim, k->type.rank, k->origin);
}

ValueId fold_transpose(Folder *x, const Make *k) {
    ValueId a = k->in[0];
    const Type from = *fold_type(x, a);
    const int64_t *perm = make_attr(k, AT_perm)->ints.v;
    const Node *n = value_node(x->f, a);
    bool moves = false;
    int64_t last = -1;
    for (int i = 0; i < from.rank; i++) { /* axes of extent 1 move freely */
        if (fold_is_one(x, from.dim[perm[i]]))
            continue;
        moves |= perm[i] < last;
        last = perm[i];
    }
    if (!moves)
        return fold_to(x, OP_reshape, a, k->type.dim, k->type.rank, k->origin);
    if (n && n->op == OP_transpose) {
        const int64_t *first = node_attr(n, AT_perm)->ints.v;
        int64_t both[MOEC_MAX_RANK];
        for (int i = 0; i < from.rank; i++)
            both[i] = first[perm[i]];
        Attr p = attr_ints(AT_perm, both, (uint32_t)from.rank);
        ValueId source = n->in[0];
        Make now = {OP_transpose, &source, 1, &p, 1, k->type, k->origin};
        return fold_make(x, &now);
    }
    if (n && n->op == OP_iota) {
        int64_t axis = node_int(n, AT_axis, 0);
        for (int i = 0; i < from.rank; i++)
            if (perm[i] == axis)
                return make_iota(x, &k->type, i, k->origin);
    }
    if (n && n->op == OP_broadcast) {
        const Type inner = *fold_type(x, n->in[0]);
        ValueId source = n->in[0];
        Type mid = type_ranked(from.dtype, from.rank, from.dim), out = mid;
        for (int i = 0; i < from.rank; i++)
            mid.dim[i] = i < from.rank - inner.rank ? dim_const(x->m->dims, 1)
                                                    : inner.dim[i - (from.rank - inner.rank)];
        for (int i = 0; i < from.rank; i++)
            out.dim[i] = mid.dim[perm[i]];
        source = fold_to(x, OP_reshape, source, mid.dim, mid.rank, k->origin);
        Make now = {OP_transpose, &source, 1, k->attrs, k->n_attrs, out, k->origin};
        return fold_to(x, OP_broadcast, fold_make(x, &now), k->type.dim, k->type.rank, k->origin);
    }
    return NONE;
}

ValueId fold_broadcast(Folder *x, const Make *k) {
    const Node *n = node_of(x, k->in[0], OP_broadcast);
    if (n)
        return fold_to(x, OP_broadcast, n->in[0], k->type.dim, k->type.rank, k->origin);
    return same_or(x, k->in[0], k);
}

/* ---- slice --------------------------------------------------------------------------------------- */

/* Without the attribute every step is 1. */
static int64_t step_along(const Attr *step, int64_t axis) {
    return step ? step->ints.v[axis] : 1;
}

static ValueId slice_of_iota(Folder *x, const Make *k, const Node *n, const Attr *start, const Attr *step) {
    int64_t axis = node_int(n, AT_axis, 0);
    if (step_along(step, axis) != 1)
        return NONE;
    ValueId v = make_iota(x, &k->type, (int)axis, k->origin);
    if (dim_is(x->m->dims, start->dims.v[axis], 0))
        return v;
    Attr a = attr_d(AT_dim, start->dims.v[axis]);
    Make d = {OP_dim, NULL, 0, &a, 1, type_scalar(DT_I64), k->origin};
    return fold_binary(x, OP_add, v, fold_make(x, &d), k);
}

static ValueId slice_of_slice(Folder *x, const Make *k, const Node *n, const Attr *start, const Attr *step) {
    const Attr *start0 = node_attr(n, AT_start), *step0 = node_attr(n, AT_step);
    Dim at[MOEC_MAX_RANK];
    for (int i = 0; i < k->type.rank; i++) {
        if (step_along(step0, i) != 1)
            return NONE;
        at[i] = dim_add(x->m->dims, start->dims.v[i], start0->dims.v[i]);
    }
    Attr a[2] = {attr_dims(AT_start, at, (uint32_t)k->type.rank)};
    if (step)
        a[1] = *step;
    ValueId source = n->in[0];
    Make now = {OP_slice, &source, 1, a, step ? 2 : 1, k->type, k->origin};
    return fold_make(x, &now);
}

static ValueId slice_of_broadcast(Folder *x, const Make *k, const Node *n, const Attr *start,
                                  const Attr *step) {
    ValueId source = n->in[0];
    const Type inner = *fold_type(x, source);
    int lead = k->type.rank - inner.rank;
    Dim at[MOEC_MAX_RANK], extent[MOEC_MAX_RANK];
    int64_t by[MOEC_MAX_RANK];
    for (int i = 0; i < inner.rank; i++) {
        bool one = fold_is_one(x, inner.dim[i]);
        at[i] = one ? dim_const(x->m->dims, 0) : start->dims.v[lead + i];
        by[i] = one ? 1 : step_along(step, lead + i);
        extent[i] = one ? inner.dim[i] : k->type.dim[lead + i];
    }
    Attr a[2] = {attr_dims(AT_start, at, (uint32_t)inner.rank), attr_ints(AT_step, by, (uint32_t)inner.rank)};
    Make now = {OP_slice, &source, 1, a, 2, type_ranked(inner.dtype, inner.rank, extent), k->origin};
    return fold_to(x, OP_broadcast, fold_make(x, &now), k->type.dim, k->type.rank, k->origin);
}

/* A slice that is exactly one operand of a concat. */
static ValueId slice_of_concat(Folder *x, const Make *k, const Node *n, const Attr *start) {
    int64_t axis = node_int(n, AT_axis, 0);
    Dim at = dim_const(x->m->dims, 0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const Type *part = fold_type(x, n->in[i]);
        if (at == start->dims.v[axis] && type_eq(part, &k->type))
            return n->in[i];
        at = dim_add(x->m->dims, at, part->dim[axis]);
    }
    return NONE;
}

ValueId fold_slice(Folder *x, const Make *k) {
    const Attr *start = make_attr(k, AT_start), *step = make_attr(k, AT_step);
    const Node *n = value_node(x->f, k->in[0]);
    bool dense = true, front = true;
    for (int i = 0; i < k->type.rank; i++) {
        dense &= step_along(step, i) == 1;
        front &= dim_is(x->m->dims, start->dims.v[i], 0);
    }
    if (dense && front && type_eq(fold_type(x, k->in[0]), &k->type))
        return k->in[0];
    if (!n)
        return NONE;
    switch (n->op) {
    case OP_iota:
        return slice_of_iota(x, k, n, start, step);
    case OP_slice:
        return slice_of_slice(x, k, n, start, step);
    case OP_broadcast:
        return slice_of_broadcast(x, k, n, start, step);
    case OP_concat:
        return dense ? slice_of_concat(x, k, n, start) : NONE;
    default:
        return NONE;
    }
}

ValueId fold_concat(Folder *x, const Make *k) {
    int64_t axis = make_attr(k, AT_axis)->i;
    ValueId *in = arena_array(x->m->arena, k->n, sizeof *in);
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n; i++)
        if (!dim_is(x->m->dims, fold_type(x, k->in[i])->dim[axis], 0))
            in[n++] = k->in[i];
    if (n == 1)
        return in[0];
    if (n == 0 || n == k->n)
        return NONE;
    Make now = *k;
    now.in = in;
    now.n = n;
    return fold_make(x, &now);
}

/* ---- data-dependent positions that are plain positions --------------------------------------------- */

/* The axis along which a literal counts, as counting_axis. */
static int counting_literal(const Tensor *t) {
    int64_t count, inner = 1;
    CHECK(tensor_count(t, &count));
    for (int axis = t->rank; axis-- > 0; inner *= t->dim[axis]) {
        bool counts = t->dim[axis] > 1 && !dtype_is_float(t->dtype);
        for (int64_t i = 0; counts && i < count; i++)
            counts = tensor_get_i64(t, i) == i / inner % t->dim[axis];
        if (counts)
            return axis;
    }
    return -1;
}

/* The axis of v along which v's elements count 0, 1, 2, ...; -1: none; -2: v is all zero. */
static int counting_axis(Folder *x, ValueId v) {
    const Node *n = value_node(x->f, v);
    double c;
    Tensor t;
    int lead = 0;
    if (fold_number(x, v, &c))
        return c == 0 ? -2 : -1;
    if (n && n->op == OP_broadcast) {
        lead = fold_type(x, v)->rank - fold_type(x, n->in[0])->rank;
        v = n->in[0];
        n = value_node(x->f, v);
    }
    if (const_of(x->m, x->f, v, COUNT_MAX, &t)) {
        int axis = counting_literal(&t);
        return axis < 0 ? -1 : axis + lead;
    }
    return n && n->op == OP_iota ? (int)node_int(n, AT_axis, 0) + lead : -1;
}

/* Axes counted by the index vectors that `index` holds along its last axis; false unless each counts one
 * axis. */
static bool counting_grid(Folder *x, ValueId index, int64_t depth, int *axis) {
    const Type *t = fold_type(x, index);
    const Node *n = node_of(x, index, OP_concat);
    if (!n && depth == 1)
        return (axis[0] = counting_axis(x, index)) != -1;
    if (!n || n->n_in != depth || node_int(n, AT_axis, 0) != t->rank - 1)
        return false;
    for (int64_t i = 0; i < depth; i++) {
        axis[i] = counting_axis(x, n->in[i]);
        if (axis[i] == -1 || !fold_is_one(x, fold_type(x, n->in[i])->dim[t->rank - 1]))
            return false;
    }
    return true;
}

ValueId fold_gather(Folder *x, const Make *k) {
    int64_t axis = make_attr(k, AT_axis)->i;
    const Type *data = fold_type(x, k->in[0]), *index = fold_type(x, k->in[1]);
    if (index->rank == 1 && index->dim[0] == data->dim[axis] && counting_axis(x, k->in[1]) == 0)
        return k->in[0];
    return NONE;
}

/* data[i, j, ...] at counted positions, in order: data itself, spread over the axes that nothing counts. */
ValueId fold_gather_nd(Folder *x, const Make *k) {
    const Type data = *fold_type(x, k->in[0]), index = *fold_type(x, k->in[1]);
    const Attr *batch = make_attr(k, AT_batch);
    int axis[MOEC_MAX_RANK], last = -1;
    int64_t depth;
    Dim dim[MOEC_MAX_RANK];
    if ((batch && batch->i) || !dim_is_const(x->m->dims, index.dim[index.rank - 1], &depth) ||
        depth > data.rank || !counting_grid(x, k->in[1], depth, axis))
        return NONE;
    for (int i = 0; i < index.rank - 1; i++)
        dim[i] = dim_const(x->m->dims, 1);
    for (int64_t i = 0; i < depth; i++) {
        if (axis[i] == -2 && fold_is_one(x, data.dim[i]))
            continue;
        if (axis[i] <= last || axis[i] >= index.rank - 1 || index.dim[axis[i]] != data.dim[i])
            return NONE;
        last = axis[i];
        dim[last] = data.dim[i];
    }
    for (int64_t i = depth; i < data.rank; i++)
        dim[index.rank - 1 + i - depth] = data.dim[i];
    ValueId v = fold_to(x, OP_reshape, k->in[0], dim, k->type.rank, k->origin);
    return fold_to(x, OP_broadcast, v, k->type.dim, k->type.rank, k->origin);
}

/* Every place written once, in order: the updates. */
ValueId fold_scatter_nd(Folder *x, const Make *k) {
    const Type data = *fold_type(x, k->in[0]), index = *fold_type(x, k->in[1]);
    int axis[MOEC_MAX_RANK];
    int64_t depth;
    if (make_attr(k, AT_kind) || !dim_is_const(x->m->dims, index.dim[index.rank - 1], &depth) ||
        depth > data.rank || index.rank - 1 != depth || !counting_grid(x, k->in[1], depth, axis) ||
        !type_eq(fold_type(x, k->in[2]), &k->type))
        return NONE;
    for (int64_t i = 0; i < depth; i++)
        if (!(axis[i] == i || (axis[i] == -2 && fold_is_one(x, data.dim[i]))) || index.dim[i] != data.dim[i])
            return NONE;
    return k->in[2];
}
