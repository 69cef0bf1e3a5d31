/* Types, attributes, and short forms for building the nodes passes make most. */
#include "ir.h"

#include <string.h>

/* ---- types ------------------------------------------------------------------------------------ */

Type type_scalar(DType dtype) {
    return (Type){.dtype = dtype, .rank = 0};
}

Type type_ranked(DType dtype, int rank, const Dim *dim) {
    Type t = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    return t;
}

Type type_unranked(DType dtype) {
    return (Type){.dtype = dtype, .rank = UNRANKED};
}

bool type_eq(const Type *a, const Type *b) {
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

static bool provably_one(const DimTable *t, Dim d) {
    return dim_is(t, d, 1) || (dim_lower(t, d) == 1 && dim_upper(t, d) == 1);
}

bool type_broadcast(DimTable *t, const Type *a, const Type *b, Type *out) {
    Type r = {.dtype = a->dtype, .rank = a->rank > b->rank ? a->rank : b->rank};
    Dim one = dim_const(t, 1);
    for (int i = 0; i < r.rank; i++) {
        int ia = i - (r.rank - a->rank), ib = i - (r.rank - b->rank);
        Dim x = ia < 0 ? one : a->dim[ia], y = ib < 0 ? one : b->dim[ib];
        if (x == y || provably_one(t, y))
            r.dim[i] = x;
        else if (provably_one(t, x))
            r.dim[i] = y;
        else
            return false;
    }
    *out = r;
    return true;
}

Dim type_count(DimTable *t, const Type *a) {
    Dim n = dim_const(t, 1);
    for (int i = 0; i < a->rank; i++)
        n = dim_mul(t, n, a->dim[i]);
    return n;
}

/* ---- attributes -------------------------------------------------------------------------------- */

Attr attr_i(AttrKey k, int64_t v) {
    Attr a = {.key = k};
    a.i = v;
    return a;
}

Attr attr_f(AttrKey k, double v) {
    Attr a = {.key = k};
    a.f = v;
    return a;
}

Attr attr_d(AttrKey k, Dim v) {
    Attr a = {.key = k};
    a.d = v;
    return a;
}

Attr attr_s(AttrKey k, Str v) {
    Attr a = {.key = k};
    a.s = v;
    return a;
}

Attr attr_t(AttrKey k, Tensor v) {
    Attr a = {.key = k};
    a.t = v;
    return a;
}

Attr attr_ints(AttrKey k, const int64_t *v, uint32_t n) {
    Attr a = {.key = k};
    a.ints.n = n;
    a.ints.v = v;
    return a;
}

Attr attr_dims(AttrKey k, const Dim *v, uint32_t n) {
    Attr a = {.key = k};
    a.dims.n = n;
    a.dims.v = v;
    return a;
}

/* ---- nodes ---------------------------------------------------------------------------------------- */

ValueId build_unary(Module *m, Func *f, Op op, ValueId a, Str origin) {
    return func_node(m, f, op, &a, 1, NULL, 0, origin);
}

ValueId build_binary(Module *m, Func *f, Op op, ValueId a, ValueId b, Str origin) {
    ValueId in[2] = {a, b};
    return func_node(m, f, op, in, 2, NULL, 0, origin);
}

ValueId build_scalar(Module *m, Func *f, DType dtype, double v) {
    Tensor t = {.dtype = dtype, .rank = 0};
    CHECK(tensor_alloc(m->arena, &t));
    tensor_set_f64(&t, 0, v);
    Attr a = attr_t(AT_value, t);
    return func_node(m, f, OP_const, NULL, 0, &a, 1, (Str){NULL, 0});
}

ValueId build_cast(Module *m, Func *f, ValueId a, DType to, Str origin) {
    if (f->value[a].type.dtype == to)
        return a;
    Attr at = attr_i(AT_to, to);
    return func_node(m, f, OP_cast, &a, 1, &at, 1, origin);
}

static ValueId build_given(Module *m, Func *f, Op op, ValueId a, int rank, const Dim *dim, Str origin) {
    Type t = type_ranked(f->value[a].type.dtype, rank, dim);
    if (type_eq(&t, &f->value[a].type))
        return a;
    return func_node_typed(m, f, op, &a, 1, NULL, 0, &t, 1, origin);
}

ValueId build_reshape(Module *m, Func *f, ValueId a, int rank, const Dim *dim, Str origin) {
    return build_given(m, f, OP_reshape, a, rank, dim, origin);
}

ValueId build_broadcast(Module *m, Func *f, ValueId a, int rank, const Dim *dim, Str origin) {
    return build_given(m, f, OP_broadcast, a, rank, dim, origin);
}

ValueId build_transpose(Module *m, Func *f, ValueId a, const int64_t *perm, Str origin) {
    int rank = f->value[a].type.rank;
    bool identity = true;
    for (int i = 0; i < rank; i++)
        identity = identity && perm[i] == i;
    if (identity)
        return a;
    Attr at = attr_ints(AT_perm, perm, (uint32_t)rank);
    return func_node(m, f, OP_transpose, &a, 1, &at, 1, origin);
}

ValueId build_slice(Module *m, Func *f, ValueId a, int axis, Dim start, Dim extent, Str origin) {
    Type t = f->value[a].type;
    if (dim_is(m->dims, start, 0) && t.dim[axis] == extent)
        return a;
    Dim starts[MOEC_MAX_RANK];
    int64_t steps[MOEC_MAX_RANK];
    for (int i = 0; i < t.rank; i++) {
        starts[i] = i == axis ? start : dim_const(m->dims, 0);
        steps[i] = 1;
    }
    t.dim[axis] = extent;
    Attr at[2] = {attr_dims(AT_start, starts, (uint32_t)t.rank), attr_ints(AT_step, steps, (uint32_t)t.rank)};
    return func_node_typed(m, f, OP_slice, &a, 1, at, 2, &t, 1, origin);
}

ValueId build_concat(Module *m, Func *f, const ValueId *in, uint32_t n, int axis, Str origin) {
    if (n == 1)
        return in[0];
    Attr at = attr_i(AT_axis, axis);
    return func_node(m, f, OP_concat, in, n, &at, 1, origin);
}

ValueId build_matmul(Module *m, Func *f, ValueId a, ValueId b, Str origin) {
    return build_binary(m, f, OP_matmul, a, b, origin);
}
