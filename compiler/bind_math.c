/* Dynamic ops that compute: reductions, softmax, matmul, quantisation, triangles. */
#include "bind_impl.h"

#include <string.h>

static bool done(BVal v, BVal *out) {
    *out = v;
    return v != BV_NONE;
}

bool bind_dyn_reduce(Binder *b, const Node *n, const BVal *in, BVal *out) {
    static const struct {
        const char *kind;
        Op op;
    } kinds[] = {{"sum", OP_reduce_sum},
                 {"mean", OP_reduce_mean},
                 {"max", OP_reduce_max},
                 {"min", OP_reduce_min},
                 {"prod", OP_reduce_prod}};
    int rank = bound_at(b, in[0])->type.rank;
    const Attr *kind = node_attr(n, AT_kind), *axes = node_attr(n, AT_axes);
    const int64_t *v = axes ? axes->ints.v : NULL;
    uint32_t count = axes ? axes->ints.n : 0;
    if (n->n_in > 1 && in[1] != BV_NONE && !bind_need_ints(b, in[1], &count, &v, "the axes of a reduction"))
        return false;
    if (count == 0 && node_int(n, AT_noop, 0))
        return done(in[0], out);
    bool folded[MOEC_MAX_RANK] = {false};
    int64_t sorted[MOEC_MAX_RANK];
    uint32_t n_sorted = 0;
    for (uint32_t i = 0; i < count; i++) {
        int axis;
        if (!bind_axis(b, v[i], rank, &axis))
            return false;
        folded[axis] = true;
    }
    for (int i = 0; i < rank; i++)
        if (folded[i] || count == 0)
            sorted[n_sorted++] = i;
    Attr a[2] = {attr_ints(AT_axes, sorted, n_sorted), attr_i(AT_keep, node_int(n, AT_keep, 1))};
    for (size_t i = 0; kind && i < sizeof kinds / sizeof kinds[0]; i++)
        if (str_is(kind->s, kinds[i].kind))
            return bind_static(b, kinds[i].op, in, 1, a, 2, NULL, bound_at(b, in[0])->half, out, 1);
    return diag_error(b->d, DIAG_ONNX_ATTRIBUTE, b->file, "unknown kind of reduction");
}

bool bind_dyn_softmax(Binder *b, const Node *n, const BVal *in, BVal *out) {
    DimTable *t = b->m->dims;
    const Type type = bound_at(b, in[0])->type;
    Dims whole = {.n = type.rank}, flat = {.n = 2, .d = {dim_const(t, 1), dim_const(t, 1)}};
    bool coerced = node_int(n, AT_keep, 0) != 0, half = bound_at(b, in[0])->half;
    int axis;
    if (type.rank == 0)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "softmax of a scalar");
    if (!bind_axis(b, node_int(n, AT_axis, coerced ? 1 : -1), type.rank, &axis))
        return false;
    Attr a = attr_i(AT_axis, axis);
    if (!coerced || axis == type.rank - 1)
        return bind_static(b, OP_softmax, in, 1, &a, 1, NULL, half, out, 1);
    for (int i = 0; i < type.rank; i++) {
        whole.d[i] = type.dim[i];
        flat.d[i >= axis] = dim_mul(t, flat.d[i >= axis], type.dim[i]);
    }
    BVal v = bind_to_shape(b, in[0], &flat);
    a = attr_i(AT_axis, 1);
    return v != BV_NONE && bind_static(b, OP_softmax, &v, 1, &a, 1, NULL, half, &v, 1) &&
           done(bind_to_shape(b, v, &whole), out);
}

bool bind_dyn_argmax(Binder *b, const Node *n, const BVal *in, BVal *out) {
    int axis;
    if (!bind_axis(b, node_int(n, AT_axis, 0), bound_at(b, in[0])->type.rank, &axis))
        return false;
    Attr a[3] = {attr_i(AT_axis, axis), attr_i(AT_keep, node_int(n, AT_keep, 1)),
                 attr_i(AT_last, node_int(n, AT_last, 0))};
    return bind_static(b, OP_argmax, in, 1, a, 3, NULL, false, out, 1);
}

bool bind_dyn_cumsum(Binder *b, const Node *n, const BVal *in, BVal *out) {
    uint32_t count;
    const int64_t *v;
    int axis;
    if (!bind_need_ints(b, in[1], &count, &v, "the axis of a running sum"))
        return false;
    if (count != 1)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "a running sum needs one axis");
    if (!bind_axis(b, v[0], bound_at(b, in[0])->type.rank, &axis))
        return false;
    Attr a[3] = {attr_i(AT_axis, axis), attr_i(AT_exclusive, node_int(n, AT_exclusive, 0)),
                 attr_i(AT_reverse, node_int(n, AT_reverse, 0))};
    return bind_static(b, OP_cumsum, in, 1, a, 3, NULL, bound_at(b, in[0])->half, out, 1);
}

static BVal positions(Binder *b, Dims extents, int axis) {
    Attr a = attr_i(AT_axis, axis);
    Type type = type_ranked(DT_I64, extents.n, extents.d);
    BVal v;
    return bind_static(b, OP_iota, NULL, 0, &a, 1, &type, false, &v, 1) ? v : BV_NONE;
}

bool bind_dyn_trilu(Binder *b, const Node *n, const BVal *in, BVal *out) {
    const Type type = bound_at(b, in[0])->type;
    Dim one = dim_const(b->m->dims, 1);
    bool upper = node_int(n, AT_upper, 1) != 0;
    if (type.rank < 2)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "a triangle of a value of rank %d", type.rank);
    Dims rows = {.n = 2, .d = {type.dim[type.rank - 2], one}},
         cols = {.n = 2, .d = {one, type.dim[type.rank - 1]}};
    BVal row = positions(b, rows, 0), col = positions(b, cols, 1);
    if (n->n_in > 1 && in[1] != BV_NONE && row != BV_NONE) {
        Dims none = {0};
        if (type_small_count(b->m->dims, &bound_at(b, in[1])->type) != 1)
            return diag_error(b->d, DIAG_SHAPE_VALUE, b->file,
                              "the diagonal of a triangle is not one number");
        BVal k = bind_to_shape(b, in[1], &none);
        row = k == BV_NONE ? k : bind_binary(b, OP_add, row, k);
    }
    if (row == BV_NONE || col == BV_NONE)
        return false;
    BVal keep = bind_binary(b, upper ? OP_ge : OP_le, col, row);
    BVal zero = bind_scalar(b, type.dtype, 0);
    if (keep == BV_NONE || zero == BV_NONE)
        return false;
    BVal choose[3] = {keep, in[0], zero};
    return bind_static(b, OP_select, choose, 3, NULL, 0, NULL, bound_at(b, in[0])->half, out, 1);
}

/* A rank 1 operand is a row on the left, a column on the right; its axis is dropped again. */
bool bind_dyn_matmul(Binder *b, const Node *n, const BVal *in, BVal *out) {
    (void)n;
    Dim one = dim_const(b->m->dims, 1);
    const Type x = bound_at(b, in[0])->type, y = bound_at(b, in[1])->type;
    BVal pair[2] = {in[0], in[1]}, v;
    Dims row = {.n = 2, .d = {one, x.dim[0]}}, col = {.n = 2, .d = {y.dim[0], one}}, to = {0};
    if (x.rank < 1 || y.rank < 1)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "matmul of a scalar");
    if (x.rank == 1)
        pair[0] = bind_to_shape(b, in[0], &row);
    if (y.rank == 1)
        pair[1] = bind_to_shape(b, in[1], &col);
    if (pair[0] == BV_NONE || pair[1] == BV_NONE)
        return false;
    bool half = bound_at(b, in[0])->half || bound_at(b, in[1])->half;
    if (!bind_static(b, OP_matmul, pair, 2, NULL, 0, NULL, half, &v, 1))
        return false;
    const Type r = bound_at(b, v)->type;
    for (int i = 0; i < r.rank; i++)
        if (!(x.rank == 1 && i == r.rank - 2) && !(y.rank == 1 && i == r.rank - 1))
            to.d[to.n++] = r.dim[i];
    return done(bind_to_shape(b, v, &to), out);
}

static BVal chain(Binder *b, Op op, BVal x, BVal y) {
    return x == BV_NONE || y == BV_NONE ? BV_NONE : bind_binary(b, op, x, y);
}

static BVal rounded(Binder *b, BVal x) {
    BVal v;
    return x != BV_NONE && bind_static(b, OP_round, &x, 1, NULL, 0, NULL, false, &v, 1) ? v : BV_NONE;
}

static BVal extreme(Binder *b, Op op, BVal x) {
    int64_t axes[MOEC_MAX_RANK];
    int rank = bound_at(b, x)->type.rank;
    for (int i = 0; i < rank; i++)
        axes[i] = i;
    Attr a[2] = {attr_ints(AT_axes, axes, (uint32_t)rank), attr_i(AT_keep, 0)};
    BVal v;
    return bind_static(b, op, &x, 1, a, 2, NULL, false, &v, 1) ? v : BV_NONE;
}

/* ONNX DynamicQuantizeLinear (opset 11): scale = (max(0, max x) - min(0, min x)) / 255, zero point =
 * saturate(round(0 - min / scale)), y = saturate(round(x / scale) + zero point). All zero: scale 1, as ONNX
 * Runtime. */
bool bind_dyn_quantize(Binder *b, const Node *n, const BVal *in, BVal *out) {
    (void)n;
    DType dtype = bound_at(b, in[0])->type.dtype;
    BVal zero = bind_scalar(b, dtype, 0), one = bind_scalar(b, dtype, 1), top = bind_scalar(b, dtype, 255);
    BVal lo = chain(b, OP_min, extreme(b, OP_reduce_min, in[0]), zero);
    BVal hi = chain(b, OP_max, extreme(b, OP_reduce_max, in[0]), zero);
    BVal span = chain(b, OP_div, chain(b, OP_sub, hi, lo), top);
    BVal flat = chain(b, OP_eq, span, zero), pick[3] = {flat, one, span}, scale;
    if (flat == BV_NONE || !bind_static(b, OP_select, pick, 3, NULL, 0, NULL, false, &scale, 1))
        return false;
    BVal point = rounded(b, chain(b, OP_sub, zero, chain(b, OP_div, lo, scale)));
    point = chain(b, OP_min, chain(b, OP_max, point, zero), top);
    BVal y = chain(b, OP_add, rounded(b, chain(b, OP_div, in[0], scale)), point);
    y = chain(b, OP_min, chain(b, OP_max, y, zero), top);
    if (y == BV_NONE)
        return false;
    out[0] = bind_cast_to(b, y, DT_U8);
    out[1] = scale;
    out[2] = bind_cast_to(b, point, DT_U8);
    return out[0] != BV_NONE && out[2] != BV_NONE;
}
