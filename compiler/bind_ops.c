/* Dynamic ops that shape, index and join: each becomes static ops with Dim extents. */
#include "bind_impl.h"

#include <math.h>

static DimTable *dims_of(Binder *b) {
    return b->m->dims;
}

static Dims dims_at(Binder *b, BVal v) {
    const Type *ty = &bound_at(b, v)->type;
    Dims s = {.n = ty->rank};
    for (int i = 0; i < s.n; i++)
        s.d[i] = ty->dim[i];
    return s;
}

static Dim konst(Binder *b, int64_t v) {
    return dim_const(dims_of(b), v);
}

static Dim product(Binder *b, const Dim *d, int n) {
    Dim p = konst(b, 1);
    for (int i = 0; i < n; i++)
        p = dim_mul(dims_of(b), p, d[i]);
    return p;
}

static bool done(BVal v, BVal *out) {
    *out = v;
    return v != BV_NONE;
}

/* Axes by attribute or by operand 1; *n = -1 when neither is there. */
static bool axes_of(Binder *b, const Node *n, const BVal *in, int rank, int *count, int *axes) {
    const Attr *a = node_attr(n, AT_axes);
    const int64_t *v = NULL;
    uint32_t have = 0;
    *count = -1;
    if (n->n_in > 1 && in[1] != BV_NONE) {
        if (!bind_need_ints(b, in[1], &have, &v, "the axes"))
            return false;
    } else if (a) {
        v = a->ints.v;
        have = a->ints.n;
    } else {
        return true;
    }
    bool seen[MOEC_MAX_RANK] = {false};
    for (uint32_t i = 0; i < have; i++) {
        int axis;
        if (!bind_axis(b, v[i], rank, &axis))
            return false;
        if (seen[axis])
            return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "axis %d is named twice", axis);
        seen[axis] = true;
    }
    *count = 0;
    for (int i = 0; i < rank; i++)
        if (seen[i])
            axes[(*count)++] = i;
    return true;
}

bool bind_shape(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims s = dims_at(b, in[0]);
    const Attr *a = node_attr(n, AT_start);
    int64_t start = 0, k = node_int(n, AT_k, INT32_MAX);
    if (a && a->dims.n == 1)
        dim_is_const(dims_of(b), a->dims.v[0], &start);
    start = start < -s.n ? 0 : start < 0 ? start + s.n : start > s.n ? s.n : start;
    k = k < 0 ? 0 : k > s.n - start ? s.n - start : k;
    Dim count = konst(b, k);
    return done(bound_content(b, type_ranked(DT_I64, 1, &count), s.d + start), out);
}

bool bind_dyn_reshape(Binder *b, const Node *n, const BVal *in, BVal *out) {
    DimTable *t = dims_of(b);
    Dims from = dims_at(b, in[0]), to = {0};
    uint32_t count;
    int hole = -1;
    bool allowzero = node_int(n, AT_allowzero, 0) != 0;
    const Dim *want = bind_need(b, in[1], &count, "a shape");
    if (!want)
        return false;
    if (count > MOEC_MAX_RANK)
        return diag_error(b->d, DIAG_LIMIT, b->file, "a shape of rank %u; the limit is %d", count,
                          MOEC_MAX_RANK);
    to.n = (int)count;
    for (int i = 0; i < to.n; i++) {
        to.d[i] = want[i];
        if (dim_is(t, want[i], -1)) {
            if (hole >= 0)
                return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "the shape has more than one -1");
            hole = i;
        } else if (dim_is(t, want[i], 0) && !allowzero) {
            if (i >= from.n)
                return diag_error(b->d, DIAG_SHAPE_VALUE, b->file,
                                  "the shape copies axis %d of a value of rank %d", i, from.n);
            to.d[i] = from.d[i];
        } else if (dim_lower(t, want[i]) < 0) {
            return diag_error(b->d, DIAG_SHAPE_UNBOUNDED, b->file, "extent %d of the shape may be negative",
                              i);
        }
    }
    Dim total = product(b, from.d, from.n);
    if (total == DIM_BAD)
        return diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "the value has too many elements");
    if (hole >= 0) {
        to.d[hole] = konst(b, 1);
        Dim rest = product(b, to.d, to.n);
        if (dim_is(t, rest, 0))
            return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "-1 in a shape that holds no elements");
        Dim q = dim_floordiv(t, total, rest);
        to.d[hole] = q;
        if (q == DIM_BAD || dim_mul(t, q, rest) != total)
            return bind_unify(b, total, dim_mul(t, q, rest), "reshape");
    } else if (!bind_unify(b, total, product(b, to.d, to.n), "reshape")) {
        return false;
    }
    return done(bind_to_shape(b, in[0], &to), out);
}

bool bind_dyn_broadcast(Binder *b, const Node *n, const BVal *in, BVal *out) {
    (void)n;
    uint32_t count;
    const Dim *want = bind_need(b, in[1], &count, "a shape");
    if (!want)
        return false;
    if (count > MOEC_MAX_RANK)
        return diag_error(b->d, DIAG_LIMIT, b->file, "a shape of rank %u; the limit is %d", count,
                          MOEC_MAX_RANK);
    BVal pair[2] = {in[0], bound_new(b, type_ranked(DT_I64, (int)count, want), NONE)};
    Dims to;
    for (uint32_t i = 0; i < count; i++)
        if (dim_lower(dims_of(b), want[i]) < 0)
            return diag_error(b->d, DIAG_SHAPE_UNBOUNDED, b->file, "extent %u of the shape may be negative",
                              i);
    return bind_broadcast_dims(b, pair, 2, &to) && done(bind_to_broadcast(b, in[0], &to), out);
}

bool bind_dyn_fill(Binder *b, const Node *n, const BVal *in, BVal *out) {
    const Attr *value = node_attr(n, AT_value);
    Tensor one = {.dtype = DT_F32, .rank = 0};
    uint32_t count;
    const Dim *want = bind_need(b, in[0], &count, "a shape");
    if (!want)
        return false;
    if (count > MOEC_MAX_RANK)
        return diag_error(b->d, DIAG_LIMIT, b->file, "a shape of rank %u; the limit is %d", count,
                          MOEC_MAX_RANK);
    Dims to = {.n = (int)count};
    for (int i = 0; i < to.n; i++) {
        to.d[i] = want[i];
        if (dim_lower(dims_of(b), want[i]) < 0)
            return diag_error(b->d, DIAG_SHAPE_UNBOUNDED, b->file, "extent %d of the shape may be negative",
                              i);
    }
    if (value)
        one.dtype = value->t.dtype == DT_F16 ? DT_F32 : value->t.dtype;
    CHECK(tensor_alloc(b->m->arena, &one));
    if (value && dtype_is_float(one.dtype))
        tensor_set_f64(&one, 0, tensor_get_f64(&value->t, 0));
    else if (value)
        tensor_set_i64(&one, 0, tensor_get_i64(&value->t, 0));
    Attr a = attr_t(AT_value, one);
    BVal scalar = bind_emit(b, OP_const, NULL, 0, &a, 1);
    if (scalar == BV_NONE || !done(bind_to_broadcast(b, scalar, &to), out))
        return false;
    bound_at(b, *out)->splat = scalar;
    return true;
}

/* max(0, ceil((limit - start) / delta)) for a constant delta. */
static bool range_extent(Binder *b, Dim start, Dim limit, int64_t delta, Dim *out) {
    DimTable *t = dims_of(b);
    Dim span = delta > 0 ? dim_sub(t, limit, start) : dim_sub(t, start, limit);
    int64_t by = delta > 0 ? delta : -delta;
    if (delta == 0 || delta == INT64_MIN || span == DIM_BAD)
        return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "a range cannot have step %lld", (long long)delta);
    span = dim_max(t, span, konst(b, 0));
    *out = by == 1 ? span : dim_floordiv(t, dim_add(t, span, konst(b, by - 1)), konst(b, by));
    return *out != DIM_BAD || diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "a range is too long");
}

/* iota * delta + start, in the operands' type. */
static bool range_from(Binder *b, Dim count, const BVal *in, bool unit, bool from_zero, BVal *out) {
    DType dtype = bound_at(b, in[0])->type.dtype;
    Dims none = {0};
    Attr axis = attr_i(AT_axis, 0);
    BVal v;
    Type type = type_ranked(DT_I64, 1, &count);
    if (!bind_static(b, OP_iota, NULL, 0, &axis, 1, &type, false, &v, 1))
        return false;
    v = bind_cast_to(b, v, dtype);
    if (v != BV_NONE && !unit) {
        BVal delta = bind_to_shape(b, in[2], &none);
        v = delta == BV_NONE ? BV_NONE : bind_binary(b, OP_mul, v, delta);
    }
    if (v != BV_NONE && !from_zero) {
        BVal start = bind_to_shape(b, in[0], &none);
        v = start == BV_NONE ? BV_NONE : bind_binary(b, OP_add, v, start);
    }
    return done(v, out);
}

bool bind_dyn_range(Binder *b, const Node *n, const BVal *in, BVal *out) {
    (void)n;
    Tensor start, limit, delta;
    for (int i = 0; i < 3; i++)
        if (type_small_count(dims_of(b), &bound_at(b, in[i])->type) != 1)
            return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "a range takes scalars");
    if (dtype_is_float(bound_at(b, in[0])->type.dtype) && bound_constant(b, in[0], &start) &&
        bound_constant(b, in[1], &limit) && bound_constant(b, in[2], &delta)) {
        double by = tensor_get_f64(&delta, 0), from = tensor_get_f64(&start, 0);
        double count = ceil((tensor_get_f64(&limit, 0) - from) / by);
        if (by == 0 || !(count < (double)MOEC_MAX_TENSOR))
            return diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "a range from %g by %g is too long", from, by);
        return range_from(b, konst(b, count > 0 ? (int64_t)count : 0), in, by == 1, from == 0, out);
    }
    uint32_t one;
    int64_t by;
    Dim count;
    const Dim *s = bind_need(b, in[0], &one, "a range"), *l = s ? bind_need(b, in[1], &one, "a range") : NULL;
    const Dim *d = l ? bind_need(b, in[2], &one, "a range") : NULL;
    if (!d)
        return false;
    if (!dim_is_const(dims_of(b), d[0], &by))
        return diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file,
                          "the step of a range must not depend on a symbolic extent");
    bool from_zero = dim_is(dims_of(b), s[0], 0);
    return range_extent(b, s[0], l[0], by, &count) && range_from(b, count, in, by == 1, from_zero, out);
}

/* ---- slice ---------------------------------------------------------------------------------------- */

/* A start or end counted from the front, clamped to lo..hi of the axis; far values mean `to the end`. */
static bool slice_bound(Binder *b, Dim v, Dim extent, Dim lo, Dim hi, Dim *out) {
    DimTable *t = dims_of(b);
    int64_t c;
    if (dim_is_const(t, v, &c) && (c >= INT32_MAX || c <= -INT32_MAX)) {
        *out = c > 0 ? hi : lo;
        return true;
    }
    if (dim_upper(t, v) < 0)
        v = dim_add(t, v, extent);
    else if (dim_lower(t, v) < 0)
        return diag_error(b->d, DIAG_SHAPE_UNBOUNDED, b->file,
                          "a bound of the slice may count from either end: give the symbols in it bounds");
    *out = dim_max(t, lo, dim_min(t, v, hi));
    return *out != DIM_BAD ||
           diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "a bound of the slice is out of range");
}

static bool slice_axis(Binder *b, Dim extent, Dim start, Dim end, int64_t step, Dim *from, Dim *count) {
    DimTable *t = dims_of(b);
    Dim zero = konst(b, 0), minus = konst(b, -1), last = dim_sub(t, extent, konst(b, 1));
    if (step == 0 || step == INT64_MIN)
        return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "a slice cannot have step %lld", (long long)step);
    if (step > 0 ? !slice_bound(b, start, extent, zero, extent, from) ||
                       !slice_bound(b, end, extent, zero, extent, &end)
                 : !slice_bound(b, start, extent, zero, last, from) ||
                       !slice_bound(b, end, extent, minus, last, &end))
        return false;
    return range_extent(b, *from, end, step, count);
}

bool bind_dyn_slice(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims from = dims_at(b, in[0]), to = from;
    Dim start[MOEC_MAX_RANK];
    int64_t step[MOEC_MAX_RANK];
    uint32_t count, n_ends, n_axes = 0, n_steps = 0;
    const int64_t *axes = NULL, *steps = NULL;
    const Dim *starts = bind_need(b, in[1], &count, "a slice");
    const Dim *ends = starts ? bind_need(b, in[2], &n_ends, "a slice") : NULL;
    if (!ends)
        return false;
    bool has_axes = n->n_in > 3 && in[3] != BV_NONE, has_steps = n->n_in > 4 && in[4] != BV_NONE;
    if ((has_axes && !bind_need_ints(b, in[3], &n_axes, &axes, "the axes")) ||
        (has_steps && !bind_need_ints(b, in[4], &n_steps, &steps, "the steps")))
        return false;
    if (n_ends != count || (has_axes && n_axes != count) || (has_steps && n_steps != count) ||
        count > (uint32_t)from.n)
        return diag_error(b->d, DIAG_SHAPE_VALUE, b->file,
                          "starts, ends, axes and steps of a slice differ in length");
    for (int i = 0; i < from.n; i++) {
        start[i] = konst(b, 0);
        step[i] = 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        int axis;
        if (!bind_axis(b, has_axes ? axes[i] : (int64_t)i, from.n, &axis))
            return false;
        step[axis] = has_steps ? steps[i] : 1;
        if (!slice_axis(b, from.d[axis], starts[i], ends[i], step[axis], &start[axis], &to.d[axis]))
            return false;
        if (dim_is(dims_of(b), to.d[axis], 0) ||
            dim_is(dims_of(b), to.d[axis], 1)) { /* one form for one meaning */
            step[axis] = 1;
            start[axis] = dim_is(dims_of(b), to.d[axis], 0) ? konst(b, 0) : start[axis];
        }
    }
    return done(bind_sliced(b, in[0], start, step, &to), out);
}

bool bind_dyn_split(Binder *b, const Node *n, const BVal *in, BVal *out) {
    DimTable *t = dims_of(b);
    Dims s = dims_at(b, in[0]);
    uint32_t count = n->n_out;
    const Dim *sizes = NULL;
    int axis;
    if (!bind_axis(b, node_int(n, AT_axis, 0), s.n, &axis))
        return false;
    if (n->n_in > 1 && in[1] != BV_NONE && !(sizes = bind_need(b, in[1], &count, "the parts of a split")))
        return false;
    if (count != n->n_out)
        return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "a split into %u parts has %u results", count,
                          n->n_out);
    Dim extent = s.d[axis], at = konst(b, 0);
    Dim chunk = dim_floordiv(t, dim_add(t, extent, konst(b, count - 1)), konst(b, count));
    Dim exact = dim_floordiv(t, extent, konst(b, count));
    if (dim_mul(t, exact, konst(b, count)) == extent)
        chunk = exact;
    for (uint32_t i = 0; i < count; i++) {
        Dim start[MOEC_MAX_RANK];
        int64_t step[MOEC_MAX_RANK];
        Dims part = s;
        Dim left = dim_sub(t, extent, at);
        part.d[axis] = sizes ? sizes[i] : i + 1 == count ? left : chunk;
        if (dim_lower(t, part.d[axis]) < 0 || dim_lower(t, dim_sub(t, left, part.d[axis])) < 0)
            return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "the parts of the split do not fit the axis");
        for (int k = 0; k < s.n; k++) {
            start[k] = k == axis ? at : konst(b, 0);
            step[k] = 1;
        }
        out[i] = bind_sliced(b, in[0], start, step, &part);
        if (out[i] == BV_NONE)
            return false;
        at = dim_add(t, at, part.d[axis]);
    }
    return bind_unify(b, at, extent, "split");
}

/* ---- movement ----------------------------------------------------------------------------------------- */

bool bind_dyn_tile(Binder *b, const Node *n, const BVal *in, BVal *out) {
    (void)n;
    DimTable *t = dims_of(b);
    Dims s = dims_at(b, in[0]), apart = {0}, wide = {0}, to = s;
    uint32_t count;
    const Dim *times = bind_need(b, in[1], &count, "the repeats of a tile");
    if (!times)
        return false;
    if ((int)count != s.n)
        return diag_error(b->d, DIAG_SHAPE_VALUE, b->file, "%u repeats for a value of rank %d", count, s.n);
    for (int i = 0; i < s.n; i++) {
        if (dim_lower(t, times[i]) < 0)
            return diag_error(b->d, DIAG_SHAPE_UNBOUNDED, b->file, "repeat %d of the tile may be negative",
                              i);
        to.d[i] = dim_mul(t, s.d[i], times[i]);
        if (apart.n + 2 > MOEC_MAX_RANK)
            return diag_error(b->d, DIAG_LIMIT, b->file, "a tile over so many axes is not supported");
        if (!dim_is(t, times[i], 1) && !dim_is(t, s.d[i], 1)) {
            apart.d[apart.n++] = konst(b, 1);
            wide.d[wide.n++] = times[i];
            wide.d[wide.n++] = s.d[i];
        } else {
            wide.d[wide.n++] = to.d[i];
        }
        apart.d[apart.n++] = s.d[i];
    }
    BVal v = bind_to_shape(b, in[0], &apart);
    v = v == BV_NONE ? v : bind_to_broadcast(b, v, &wide);
    return done(v == BV_NONE ? v : bind_to_shape(b, v, &to), out);
}

bool bind_dyn_squeeze(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims s = dims_at(b, in[0]), to = {0};
    int axes[MOEC_MAX_RANK], count;
    Dim one = konst(b, 1);
    if (!axes_of(b, n, in, s.n, &count, axes))
        return false;
    for (int i = 0; i < s.n; i++) {
        bool drop = count < 0 && s.d[i] == one;
        for (int k = 0; k < count; k++)
            drop |= axes[k] == i;
        if (drop && !bind_unify(b, s.d[i], one, "squeeze"))
            return false;
        if (!drop)
            to.d[to.n++] = s.d[i];
    }
    return done(bind_to_shape(b, in[0], &to), out);
}

bool bind_dyn_unsqueeze(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims s = dims_at(b, in[0]), to = {0};
    int axes[MOEC_MAX_RANK], count, have = 0;
    const Attr *a = node_attr(n, AT_axes);
    int64_t more = n->n_in > 1 && in[1] != BV_NONE ? type_small_count(dims_of(b), &bound_at(b, in[1])->type)
                   : a                             ? (int64_t)a->ints.n
                                                   : -1;
    if (more < 0 || s.n + more > MOEC_MAX_RANK)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "the axes to insert are missing or too many");
    to.n = s.n + (int)more;
    if (!axes_of(b, n, in, to.n, &count, axes))
        return false;
    for (int i = 0, k = 0; i < to.n; i++) {
        bool insert = k < count && axes[k] == i;
        k += insert;
        to.d[i] = insert ? konst(b, 1) : s.d[have++];
    }
    return done(bind_to_shape(b, in[0], &to), out);
}

bool bind_dyn_transpose(Binder *b, const Node *n, const BVal *in, BVal *out) {
    int rank = bound_at(b, in[0])->type.rank;
    const Attr *a = node_attr(n, AT_perm);
    int64_t perm[MOEC_MAX_RANK];
    bool seen[MOEC_MAX_RANK] = {false};
    if (a && (int)a->ints.n != rank)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "a permutation of %u axes for a value of rank %d",
                          a->ints.n, rank);
    for (int i = 0; i < rank; i++) {
        int axis;
        if (!bind_axis(b, a ? a->ints.v[i] : rank - 1 - i, rank, &axis))
            return false;
        if (seen[axis])
            return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "the permutation names axis %d twice", axis);
        seen[axis] = true;
        perm[i] = axis;
    }
    return done(bind_transposed(b, in[0], perm), out);
}

bool bind_dyn_concat(Binder *b, const Node *n, const BVal *in, BVal *out) {
    int axis;
    return bind_axis(b, node_int(n, AT_axis, 0), bound_at(b, in[0])->type.rank, &axis) &&
           done(bind_joined(b, in, n->n_in, axis), out);
}

bool bind_dyn_gather(Binder *b, const Node *n, const BVal *in, BVal *out) {
    int axis;
    if (!bind_axis(b, node_int(n, AT_axis, 0), bound_at(b, in[0])->type.rank, &axis))
        return false;
    Attr a = attr_i(AT_axis, axis);
    return bind_static(b, OP_gather, in, 2, &a, 1, NULL, bound_at(b, in[0])->half, out, 1);
}

bool bind_dyn_flatten(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims s = dims_at(b, in[0]), to = {.n = 2};
    int64_t axis = node_int(n, AT_axis, 1);
    if (axis < -s.n || axis > s.n)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "axis %lld is outside rank %d", (long long)axis,
                          s.n);
    axis += axis < 0 ? s.n : 0;
    to.d[0] = product(b, s.d, (int)axis);
    to.d[1] = product(b, s.d + axis, s.n - (int)axis);
    return done(bind_to_shape(b, in[0], &to), out);
}

bool bind_dyn_axis(Binder *b, const Node *n, const BVal *in, BVal *out) {
    Dims v = dims_at(b, in[0]), to = {0};
    int64_t axis = node_int(n, AT_axis, 1);
    bool has_data = n->n_in > 1 && in[1] != BV_NONE;
    int at;
    if (dim_is(dims_of(b), product(b, v.d, v.n), 1))
        return done(bind_to_shape(b, in[0], &to), out);
    if (v.n != 1)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file,
                          "a vector or scalar is needed, not a value of rank %d", v.n);
    to.n = has_data                             ? bound_at(b, in[1])->type.rank
           : axis < 0 && axis >= -MOEC_MAX_RANK ? (int)-axis
           : axis >= 0 && axis < MOEC_MAX_RANK  ? (int)axis + 1
                                                : 0;
    if (!bind_axis(b, axis, to.n, &at) ||
        (has_data && !bind_unify(b, v.d[0], bound_at(b, in[1])->type.dim[at], "per-axis vector")))
        return false;
    for (int i = 0; i < to.n; i++)
        to.d[i] = i == at ? v.d[0] : konst(b, 1);
    return done(bind_to_shape(b, in[0], &to), out);
}
