/* Bounds of integer values, as Dims: enough to decide comparisons between positions and extents. */
#include "const_eval.h"
#include "fold_impl.h"

enum { CHAIN_MAX = 24 };

static const Range unknown = {DIM_BAD, DIM_BAD, 0};

Range fold_range_of(Folder *x, ValueId v) {
    if (v >= x->range.count || x->range.item[v].depth > CHAIN_MAX)
        return unknown;
    return x->range.item[v];
}

static bool is_bounded(Range r) {
    return r.lo != DIM_BAD && r.hi != DIM_BAD;
}

static Range literal(Folder *x, const Tensor *t) {
    DimTable *d = x->m->dims;
    int64_t n = 0, lo = INT64_MAX, hi = INT64_MIN;
    CHECK(tensor_count(t, &n));
    for (int64_t i = 0; i < n; i++) {
        int64_t c = tensor_get_i64(t, i);
        lo = c < lo ? c : lo;
        hi = c > hi ? c : hi;
    }
    return n ? (Range){dim_const(d, lo), dim_const(d, hi), 0} : unknown;
}

static Range united(Folder *x, Range a, Range b) {
    DimTable *d = x->m->dims;
    if (!is_bounded(a) || !is_bounded(b))
        return unknown;
    return (Range){dim_min(d, a.lo, b.lo), dim_max(d, a.hi, b.hi), 0};
}

static Range product(Folder *x, Range a, Range b) {
    DimTable *d = x->m->dims;
    int64_t c;
    if (b.lo != b.hi || !dim_is_const(d, b.lo, &c)) {
        Range s = a;
        a = b;
        b = s;
    }
    if (b.lo == b.hi && dim_is_const(d, b.lo, &c)) {
        Dim p = dim_mul(d, a.lo, b.lo), q = dim_mul(d, a.hi, b.lo);
        return c >= 0 ? (Range){p, q, 0} : (Range){q, p, 0};
    }
    if (dim_lower(d, a.lo) >= 0 && dim_lower(d, b.lo) >= 0)
        return (Range){dim_mul(d, a.lo, b.lo), dim_mul(d, a.hi, b.hi), 0};
    return unknown;
}

static Range absolute(Folder *x, Range a) {
    DimTable *d = x->m->dims;
    Dim zero = dim_const(d, 0);
    if (dim_lower(d, a.lo) >= 0)
        return a;
    return (Range){zero, dim_max(d, a.hi, dim_sub(d, zero, a.lo)), 0};
}

static Range range_node(Folder *x, const Node *n, const Type *type) {
    DimTable *d = x->m->dims;
    Dim zero = dim_const(d, 0), one = dim_const(d, 1);
    Range a = n->n_in > 0 ? fold_range_of(x, n->in[0]) : unknown;
    Range b = n->n_in > 1 ? fold_range_of(x, n->in[1]) : unknown;
    if (n->op == OP_dim)
        return (Range){node_attr(n, AT_dim)->d, node_attr(n, AT_dim)->d, 0};
    if (n->op == OP_iota)
        return (Range){zero, dim_sub(d, type->dim[node_int(n, AT_axis, 0)], one), 0};
    if (n->op == OP_select)
        return united(x, b, fold_range_of(x, n->in[2]));
    if (!is_bounded(a))
        return type->dtype == DT_BOOL ? (Range){zero, one, 0} : unknown;
    switch (n->op) {
    case OP_reshape:
    case OP_broadcast:
    case OP_transpose:
    case OP_slice:
    case OP_gather:
    case OP_gather_nd:
    case OP_reduce_max:
    case OP_reduce_min:
        return a;
    case OP_cast:
        return type->dtype == DT_I64 ? a : type->dtype == DT_BOOL ? (Range){zero, one, 0} : unknown;
    case OP_neg:
        return (Range){dim_sub(d, zero, a.hi), dim_sub(d, zero, a.lo), 0};
    case OP_abs:
        return absolute(x, a);
    default:
        break;
    }
    if (!is_bounded(b))
        return unknown;
    switch (n->op) {
    case OP_add:
        return (Range){dim_add(d, a.lo, b.lo), dim_add(d, a.hi, b.hi), 0};
    case OP_sub:
        return (Range){dim_sub(d, a.lo, b.hi), dim_sub(d, a.hi, b.lo), 0};
    case OP_mul:
        return product(x, a, b);
    case OP_min:
        return (Range){dim_min(d, a.lo, b.lo), dim_min(d, a.hi, b.hi), 0};
    case OP_max:
        return (Range){dim_max(d, a.lo, b.lo), dim_max(d, a.hi, b.hi), 0};
    case OP_concat:
        return n->n_in == 2 ? united(x, a, b) : unknown;
    default:
        return unknown;
    }
}

void fold_learn(Folder *x, ValueId v) {
    while (x->range.count <= v)
        vec_push(&x->range, unknown);
    const Type *type = &x->f->value[v].type;
    const Node *n = value_node(x->f, v);
    Tensor t;
    Range r = unknown;
    if (dtype_is_float(type->dtype))
        return;
    if (const_of(x->m, x->f, v, 64, &t))
        r = literal(x, &t);
    else if (n && n->n_out == 1)
        r = range_node(x, n, type);
    for (uint32_t i = 0; n && i < n->n_in; i++)
        if (n->in[i] < x->range.count && x->range.item[n->in[i]].depth >= r.depth)
            r.depth = x->range.item[n->in[i]].depth + 1;
    x->range.item[v] = r.depth > CHAIN_MAX ? (Range){DIM_BAD, DIM_BAD, r.depth} : r;
}

int fold_less(Folder *x, ValueId a, ValueId b) {
    DimTable *d = x->m->dims;
    Range p = fold_range_of(x, a), q = fold_range_of(x, b);
    if (!is_bounded(p) || !is_bounded(q))
        return -1;
    Dim most = dim_sub(d, p.hi, q.lo), least = dim_sub(d, p.lo, q.hi);
    if (most != DIM_BAD && dim_upper(d, most) < 0)
        return 1;
    return least != DIM_BAD && dim_lower(d, least) >= 0 ? 0 : -1;
}
