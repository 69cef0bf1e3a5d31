/* Algebraic rules, one function an op. Float rules change no result but the sign of a zero. */
#include "fold_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef ValueId FoldRule(Folder *x, const Make *k);

/* a, spread to the result's extents if it has fewer. */
static ValueId spread(Folder *x, ValueId a, const Make *k) {
    return fold_to(x, OP_broadcast, a, k->type.dim, k->type.rank, k->origin);
}

static bool is_number(Folder *x, ValueId v, double want) {
    double c;
    return fold_number(x, v, &c) && c == want;
}

static bool is_float(const Make *k) {
    return dtype_is_float(k->type.dtype);
}

static const Node *node_of(Folder *x, ValueId v, Op op) {
    const Node *n = value_node(x->f, v);
    return n && n->op == op ? n : NULL;
}

/* Every value of type a is exact in type b. */
static bool is_lossless(DType a, DType b) {
    static const int bits[DT_COUNT] = {
        [DT_BOOL] = 1, [DT_U8] = 8,   [DT_I8] = 8,   [DT_U16] = 16, [DT_I16] = 16,
        [DT_I32] = 32, [DT_I64] = 64, [DT_F16] = 11, [DT_F32] = 24, [DT_F64] = 53};
    bool is_unsigned = b == DT_U8 || b == DT_U16 || b == DT_BOOL;
    bool from_unsigned = a == DT_U8 || a == DT_U16 || a == DT_BOOL;
    if (dtype_is_float(a))
        return dtype_is_float(b) && bits[a] <= bits[b];
    if (is_unsigned && !from_unsigned)
        return false;
    return bits[a] + (from_unsigned && !is_unsigned && !dtype_is_float(b)) <= bits[b];
}

static ValueId rule_cast(Folder *x, const Make *k) {
    ValueId a = k->in[0];
    DType from = fold_type(x, a)->dtype, to = k->type.dtype;
    const Node *n = node_of(x, a, OP_cast);
    if (from == to)
        return a;
    if (n && is_lossless(fold_type(x, n->in[0])->dtype, from)) {
        if (fold_type(x, n->in[0])->dtype == to)
            return n->in[0];
        Make now = *k;
        now.in = n->in;
        return fold_make(x, &now);
    }
    return NONE;
}

static ValueId rule_neg(Folder *x, const Make *k) {
    const Node *n = node_of(x, k->in[0], OP_neg);
    return n ? n->in[0] : NONE;
}

static ValueId rule_not(Folder *x, const Make *k) {
    const Node *n = node_of(x, k->in[0], OP_not);
    return n ? n->in[0] : NONE;
}

static ValueId rule_recip(Folder *x, const Make *k) {
    const Node *n = node_of(x, k->in[0], OP_sqrt);
    return n ? fold_unary(x, OP_rsqrt, n->in[0], k) : NONE;
}

static ValueId rule_abs(Folder *x, const Make *k) {
    Range r = fold_range_of(x, k->in[0]);
    return !is_float(k) && r.lo != DIM_BAD && dim_lower(x->m->dims, r.lo) >= 0 ? k->in[0] : NONE;
}

static ValueId rule_add(Folder *x, const Make *k) {
    for (int i = 0; i < 2; i++)
        if (is_number(x, k->in[i], 0))
            return spread(x, k->in[1 - i], k);
    return NONE;
}

static ValueId rule_sub(Folder *x, const Make *k) {
    if (is_number(x, k->in[1], 0))
        return spread(x, k->in[0], k);
    return !is_float(k) && k->in[0] == k->in[1] ? fold_const(x, &k->type, 0, k->origin) : NONE;
}

static ValueId rule_mul(Folder *x, const Make *k) {
    for (int i = 0; i < 2; i++) {
        if (is_number(x, k->in[i], 1))
            return spread(x, k->in[1 - i], k);
        if (!is_float(k) && is_number(x, k->in[i], 0))
            return fold_const(x, &k->type, 0, k->origin);
    }
    return NONE;
}

static ValueId rule_div(Folder *x, const Make *k) {
    if (is_number(x, k->in[1], 1))
        return spread(x, k->in[0], k);
    if (is_float(k) && is_number(x, k->in[0], 1) && type_eq(fold_type(x, k->in[1]), &k->type))
        return fold_unary(x, OP_recip, k->in[1], k);
    return NONE;
}

static ValueId rule_pow(Folder *x, const Make *k) {
    ValueId a = k->in[0];
    double c;
    if (!fold_number(x, k->in[1], &c) || !type_eq(fold_type(x, a), &k->type))
        return NONE;
    if (c == 1)
        return a;
    if (c == 2)
        return fold_binary(x, OP_mul, a, a, k);
    if (c == 3)
        return fold_binary(x, OP_mul, fold_binary(x, OP_mul, a, a, k), a, k);
    if (!is_float(k))
        return NONE;
    if (c == 0.5)
        return fold_unary(x, OP_sqrt, a, k);
    if (c == -1)
        return fold_unary(x, OP_recip, a, k);
    return c == -0.5 ? fold_unary(x, OP_rsqrt, a, k) : NONE;
}

static ValueId rule_minmax(Folder *x, const Make *k) {
    bool is_max = k->op == OP_max;
    if (k->in[0] == k->in[1])
        return k->in[0];
    if (is_float(k)) {
        for (int i = 0; i < 2; i++)
            if (is_number(x, k->in[i], is_max ? -INFINITY : INFINITY))
                return spread(x, k->in[1 - i], k);
        return NONE;
    }
    for (int i = 0; i < 2; i++) { /* the other operand is never larger (min) or smaller (max) */
        ValueId a = k->in[i], b = k->in[1 - i];
        if (is_max ? fold_less(x, a, b) == 0 : fold_less(x, b, a) == 0)
            return spread(x, a, k);
    }
    return NONE;
}

static ValueId rule_compare(Folder *x, const Make *k) {
    ValueId a = k->in[0], b = k->in[1];
    if (dtype_is_float(fold_type(x, a)->dtype))
        return NONE;
    int less = fold_less(x, a, b), more = fold_less(x, b, a), known = -1;
    switch (k->op) {
    case OP_lt:
        known = a == b ? 0 : less;
        break;
    case OP_gt:
        known = a == b ? 0 : more;
        break;
    case OP_le:
        known = a == b ? 1 : more < 0 ? -1 : !more;
        break;
    case OP_ge:
        known = a == b ? 1 : less < 0 ? -1 : !less;
        break;
    default:
        known = a == b ? 1 : less == 1 || more == 1 ? 0 : -1;
    }
    if (k->op == OP_ne && known >= 0)
        known = !known;
    return known < 0 ? NONE : fold_const(x, &k->type, known, k->origin);
}

static ValueId rule_logic(Folder *x, const Make *k) {
    for (int i = 0; i < 2; i++) {
        if (is_number(x, k->in[i], k->op == OP_and))
            return spread(x, k->in[1 - i], k);
        if (is_number(x, k->in[i], k->op == OP_or))
            return fold_const(x, &k->type, k->op == OP_or, k->origin);
    }
    return k->in[0] == k->in[1] ? k->in[0] : NONE;
}

static ValueId rule_xor(Folder *x, const Make *k) {
    for (int i = 0; i < 2; i++)
        if (is_number(x, k->in[i], 0))
            return spread(x, k->in[1 - i], k);
    return NONE;
}

static ValueId rule_select(Folder *x, const Make *k) {
    double c;
    if (fold_number(x, k->in[0], &c))
        return spread(x, k->in[c != 0 ? 1 : 2], k);
    return k->in[1] == k->in[2] ? spread(x, k->in[1], k) : NONE;
}

/* Nothing to fold, or axes of extent 1 only: the elements stay. */
static ValueId rule_reduce(Folder *x, const Make *k) {
    const Attr *axes = make_attr(k, AT_axes);
    const Type *t = fold_type(x, k->in[0]);
    for (uint32_t i = 0; axes && i < axes->ints.n; i++)
        if (!fold_is_one(x, t->dim[axes->ints.v[i]]))
            return NONE;
    return axes ? fold_to(x, OP_reshape, k->in[0], k->type.dim, k->type.rank, k->origin) : NONE;
}

static ValueId rule_dim(Folder *x, const Make *k) {
    Tensor t = {.dtype = DT_I64, .rank = 0};
    int64_t v;
    if (!dim_is_const(x->m->dims, make_attr(k, AT_dim)->d, &v))
        return NONE;
    CHECK(tensor_alloc(x->m->arena, &t));
    tensor_set_i64(&t, 0, v);
    Attr a = attr_t(AT_value, t);
    Make now = {OP_const, NULL, 0, &a, 1, k->type, k->origin};
    return fold_make(x, &now);
}

ValueId fold_rule(Folder *x, const Make *k) {
    static FoldRule *const rules[OP_COUNT] = {
        [OP_cast] = rule_cast,
        [OP_neg] = rule_neg,
        [OP_not] = rule_not,
        [OP_recip] = rule_recip,
        [OP_abs] = rule_abs,
        [OP_add] = rule_add,
        [OP_sub] = rule_sub,
        [OP_mul] = rule_mul,
        [OP_div] = rule_div,
        [OP_pow] = rule_pow,
        [OP_min] = rule_minmax,
        [OP_max] = rule_minmax,
        [OP_eq] = rule_compare,
        [OP_ne] = rule_compare,
        [OP_lt] = rule_compare,
        [OP_le] = rule_compare,
        [OP_gt] = rule_compare,
        [OP_ge] = rule_compare,
        [OP_and] = rule_logic,
        [OP_or] = rule_logic,
        [OP_xor] = rule_xor,
        [OP_select] = rule_select,
        [OP_reduce_sum] = rule_reduce,
        [OP_reduce_mean] = rule_reduce,
        [OP_reduce_max] = rule_reduce,
        [OP_reduce_min] = rule_reduce,
        [OP_reduce_prod] = rule_reduce,
        [OP_dim] = rule_dim,
        [OP_iota] = fold_iota,
        [OP_reshape] = fold_reshape,
        [OP_transpose] = fold_transpose,
        [OP_broadcast] = fold_broadcast,
        [OP_slice] = fold_slice,
        [OP_concat] = fold_concat,
        [OP_gather] = fold_gather,
        [OP_gather_nd] = fold_gather_nd,
        [OP_scatter_nd] = fold_scatter_nd,
    };
    return rules[k->op] ? rules[k->op](x, k) : NONE;
}
