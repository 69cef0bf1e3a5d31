/* Static ops in `bind`: symbols that must agree are made to, what is known is not computed, the rest is
 * emitted.
 *
 * Values that a model keeps in f16 are computed in f32 here. PyTorch's guard against f16 overflow (clamp to
 * the finite range when anything is infinite) then does nothing, and is dropped. */
#include "bind_impl.h"
#include "const_eval.h"

#include <math.h>

/* Clamps beyond this do not touch a value that fitted f16: 65504 and PyTorch's 65504 - 1000. */
#define HALF_GUARD 64504.0

static bool agree_matmul(Binder *b, const BVal *in, const Attr *attrs, uint32_t n_attrs) {
    const Attr *ta = attr_in(attrs, n_attrs, AT_ta), *tb = attr_in(attrs, n_attrs, AT_tb);
    const Type x = bound_at(b, in[0])->type, y = bound_at(b, in[1])->type;
    Dim one = dim_const(b->m->dims, 1);
    if (x.rank < 2 || y.rank < 2)
        return diag_error(b->d, DIAG_SHAPE_MISFIT, b->file, "matmul: operands of rank %d and %d", x.rank,
                          y.rank);
    if (!bind_unify(b, x.dim[x.rank - (ta && ta->i ? 2 : 1)], y.dim[y.rank - (tb && tb->i ? 1 : 2)],
                    "matmul"))
        return false;
    for (int i = 3; i <= x.rank && i <= y.rank; i++) {
        Dim p = x.dim[x.rank - i], q = y.dim[y.rank - i];
        if (p != one && q != one && !bind_unify(b, p, q, "matmul"))
            return false;
    }
    return true;
}

static bool agree_concat(Binder *b, const BVal *in, uint32_t n, int64_t axis) {
    const Type first = bound_at(b, in[0])->type;
    for (uint32_t i = 1; i < n; i++) {
        const Type ty = bound_at(b, in[i])->type;
        if (ty.rank != first.rank)
            return diag_error(b->d, DIAG_SHAPE_MISFIT, b->file, "concat: operands of rank %d and %d",
                              first.rank, ty.rank);
        for (int k = 0; k < ty.rank; k++)
            if (k != axis && !bind_unify(b, first.dim[k], ty.dim[k], "concat"))
                return false;
    }
    return true;
}

/* The rows of indices against what they choose from: the leading axes of data (gather), the updates
 * (scatter). */
static bool agree_indices(Binder *b, Op op, const BVal *in, const Attr *attrs, uint32_t n_attrs) {
    const Type data = bound_at(b, in[0])->type, at = bound_at(b, in[1])->type;
    const Attr *batch = attr_in(attrs, n_attrs, AT_batch);
    int64_t width;
    if (at.rank < 1 || !dim_is_const(b->m->dims, at.dim[at.rank - 1], &width))
        return diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file,
                          "the last extent of the indices is not known; give its symbol one value");
    for (int64_t i = 0; op == OP_gather_nd && batch && i < batch->i && i < data.rank && i < at.rank; i++)
        if (!bind_unify(b, data.dim[i], at.dim[i], "gather_nd"))
            return false;
    if (op == OP_gather_nd)
        return true;
    const Type up = bound_at(b, in[2])->type;
    if (width < 1 || width > data.rank || up.rank != at.rank - 1 + data.rank - width)
        return diag_error(b->d, DIAG_SHAPE_MISFIT, b->file,
                          "scatter_nd: the updates do not fit indices and data");
    for (int i = 0; i < up.rank; i++) {
        Dim want = i < at.rank - 1 ? at.dim[i] : data.dim[i - (at.rank - 1) + width];
        if (!bind_unify(b, up.dim[i], want, "scatter_nd"))
            return false;
    }
    return true;
}

/* Known indices are inside a known extent. */
static bool agree_gather(Binder *b, const BVal *in, int64_t axis) {
    const Bound *index = bound_at(b, in[1]);
    const Type *data = &bound_at(b, in[0])->type;
    int64_t count = type_small_count(b->m->dims, &index->type), extent, c;
    if (!index->elem || axis < 0 || axis >= data->rank || !dim_is_const(b->m->dims, data->dim[axis], &extent))
        return true;
    for (int64_t i = 0; i < count; i++)
        if (index->elem[i] != ELEM_UNKNOWN && dim_is_const(b->m->dims, index->elem[i], &c) &&
            (c < -extent || c >= extent))
            return diag_error(b->d, DIAG_SHAPE_INDEX, b->file, "index %lld is outside an axis of extent %lld",
                              (long long)c, (long long)extent);
    return true;
}

/* Makes the operands' extents agree where the op asks for it. */
static bool agree(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs) {
    Dims out;
    if (op_info(op)->klass == OC_POINTWISE)
        return bind_broadcast_dims(b, in, n, &out);
    if (op == OP_matmul)
        return agree_matmul(b, in, attrs, n_attrs);
    if (op == OP_gather) {
        const Attr *axis = attr_in(attrs, n_attrs, AT_axis);
        return agree_gather(b, in, axis ? axis->i : 0);
    }
    if (op == OP_concat || op == OP_append) {
        const Attr *axis = attr_in(attrs, n_attrs, AT_axis);
        return axis && agree_concat(b, in, n, axis->i);
    }
    if (op == OP_gather_nd || op == OP_scatter_nd)
        return agree_indices(b, op, in, attrs, n_attrs);
    return true;
}

/* The one value all elements have: the value itself when it has one element. */
static BVal splat_of(Binder *b, BVal v) {
    const Bound *x = bound_at(b, v);
    Tensor t;
    if (x->splat != BV_NONE)
        return x->splat;
    return type_small_count(b->m->dims, &x->type) == 1 && bound_constant(b, v, &t) ? v : BV_NONE;
}

static bool splat_number(Binder *b, BVal v, double *out) {
    BVal s = splat_of(b, v);
    Tensor t;
    if (s == BV_NONE || !bound_constant(b, s, &t))
        return false;
    *out = tensor_get_f64(&t, 0);
    return true;
}

static BVal filled(Binder *b, BVal scalar, const Type *type) {
    Dims none = {.n = 0}, s = {.n = type->rank};
    for (int i = 0; i < s.n; i++)
        s.d[i] = type->dim[i];
    scalar = bind_to_shape(b, scalar, &none);
    return scalar == BV_NONE ? BV_NONE : bind_to_broadcast(b, scalar, &s);
}

static BVal zero_of(Binder *b, DType dtype) {
    return bind_scalar(b, dtype, 0);
}

/* Results that follow from all elements being equal, or from f16 promotion. BV_NONE: nothing of the kind. */
static BVal shortcut(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                     const Type *type) {
    const Bound *x = n ? bound_at(b, in[0]) : NULL;
    double c;
    if (x && op == OP_isinf && x->half)
        return filled(b, zero_of(b, DT_BOOL), type);
    if ((op == OP_max || op == OP_min) && n == 2)
        for (int i = 0; i < 2; i++) {
            const Bound *v = bound_at(b, in[i]);
            bool same = v->type.rank == type->rank && type_eq(&v->type, type);
            if (same && v->half && splat_number(b, in[1 - i], &c) && (op == OP_max ? -c : c) >= HALF_GUARD)
                return in[i];
        }
    if (op == OP_select && splat_number(b, in[0], &c)) {
        Dims s = {.n = type->rank};
        for (int i = 0; i < s.n; i++)
            s.d[i] = type->dim[i];
        return bind_to_broadcast(b, in[c != 0 ? 1 : 2], &s);
    }
    OpClass klass = op_info(op)->klass;
    if (klass == OC_POINTWISE) {
        BVal part[3] = {BV_NONE, BV_NONE, BV_NONE}, r;
        bool spread = false;
        for (uint32_t i = 0; i < n; i++) {
            part[i] = splat_of(b, in[i]);
            spread |= bound_at(b, in[i])->splat != BV_NONE;
            if (part[i] == BV_NONE)
                return BV_NONE;
        }
        if (!spread || !bind_static(b, op, part, n, attrs, n_attrs, NULL, false, &r, 1))
            return BV_NONE;
        return filled(b, r, type);
    }
    bool keeps = op == OP_reduce_max || op == OP_reduce_min || op == OP_reduce_mean;
    if (!x || !(keeps || op == OP_reduce_sum) || x->splat == BV_NONE || !splat_number(b, in[0], &c) ||
        (!keeps && c != 0))
        return BV_NONE;
    for (int i = 0; i < x->type.rank; i++) /* nothing is folded over no elements */
        if (dim_lower(b->m->dims, x->type.dim[i]) < 1)
            return BV_NONE;
    return filled(b, x->splat, type);
}

static bool evaluate(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                     const Type *type, BVal *out) {
    Tensor *t = arena_array(b->scratch, n ? n : 1, sizeof *t), r;
    if (op == OP_const || op == OP_dim || type_small_count(b->m->dims, type) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (in[i] == BV_NONE || !bound_constant(b, in[i], &t[i]))
            return false;
    if (!const_eval(b->m, op, t, n, attrs, n_attrs, type, 1, &r))
        return false;
    Attr a = attr_t(AT_value, r);
    *out = bind_emit(b, OP_const, NULL, 0, &a, 1);
    return *out != BV_NONE;
}

static bool infer_one(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                      Type *type) {
    ValueId *ids = arena_array(b->scratch, n ? n : 1, sizeof *ids);
    const char *why = "operands do not fit";
    Type types[8];
    uint32_t n_out = 8;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = in[i] == BV_NONE ? NONE : bound_id(b, in[i]);
    if (!node_infer(b->m, b->f, op, ids, n, attrs, n_attrs, types, &n_out, &why))
        return diag_error(b->d, DIAG_SHAPE_MISFIT, b->file, "%s: %s", op_info(op)->name, why);
    *type = types[0];
    return true;
}

bool bind_static(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                 const Type *given, bool half, BVal *out, uint32_t n_out) {
    Type type = {0};
    Dim elem[CONTENT_MAX];
    if (!agree(b, op, in, n, attrs, n_attrs))
        return false;
    if (n_out != 1)
        return bind_emit_many(b, op, in, n, attrs, n_attrs, out);
    if (given)
        type = *given;
    else if (!infer_one(b, op, in, n, attrs, n_attrs, &type))
        return false;

    if (evaluate(b, op, in, n, attrs, n_attrs, &type, out))
        return true;
    size_t errors = diag_errors(b->d);
    BVal known = shortcut(b, op, in, n, attrs, n_attrs, &type); /* out may be one of in */
    if (known != BV_NONE) {
        *out = known;
        return true;
    }
    if (b->restart || diag_errors(b->d) != errors)
        return false;

    bool some = content_of(b, op, in, n, attrs, n_attrs, &type, elem), all = some;
    int64_t count = some ? type_small_count(b->m->dims, &type) : 0;
    for (int64_t i = 0; i < count; i++)
        all &= elem[i] != ELEM_UNKNOWN;
    if (all) {
        *out = bound_content(b, type, elem);
        return true;
    }
    BVal v =
        given ? bind_emit_typed(b, op, in, n, attrs, n_attrs, type) : bind_emit(b, op, in, n, attrs, n_attrs);
    if (v == BV_NONE)
        return false;
    BVal same = op == OP_broadcast || op == OP_reshape || op == OP_transpose || op == OP_slice
                    ? splat_of(b, in[0])
                    : BV_NONE;
    Bound *r = bound_at(b, v);
    if (some)
        r->elem = bind_copy(b, elem, (size_t)count, sizeof *elem);
    r->half = half;
    r->splat = same;
    *out = v;
    return true;
}
