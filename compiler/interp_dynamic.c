/* Dynamic ops: extents and axes are operands, as ONNX has them before bind.
 *
 * Here every operand is concrete, so each rule works out the static form and moves the elements. Extents
 * come from files: they are checked before use. */
#include "interp.h"

#include <math.h>
#include <string.h>

enum { LIST_MAX = 2 * MOEC_MAX_RANK };

/* A short list of integers that a node states. */
typedef struct List {
    int n;
    int64_t v[LIST_MAX];
} List;

static bool list_operand(Step *s, uint32_t operand, List *out) {
    const Tensor *t = step_in(s, operand);
    int64_t count;
    if (!t || t->rank > 1 || dtype_arith(t->dtype) != AR_I64 || !tensor_count(t, &count) || count > LIST_MAX)
        return step_error(s, DIAG_SHAPE_VALUE, "operand %u is not a short list of integers", operand);
    load_i64(t, 0, 1, count, out->v);
    out->n = (int)count;
    return true;
}

/* The axes: by operand if it is there, else by attribute; *given tells whether either is. */
static bool list_axes(Step *s, uint32_t operand, List *out, bool *given) {
    const Attr *attr = node_attr(s->n, AT_axes);
    out->n = 0;
    *given = step_in(s, operand) || attr;
    if (step_in(s, operand))
        return list_operand(s, operand, out);
    if (!attr)
        return true;
    if (attr->ints.n > LIST_MAX)
        return step_error(s, DIAG_SHAPE_SIZE, "too many axes");
    out->n = (int)attr->ints.n;
    for (int i = 0; i < out->n; i++)
        out->v[i] = attr->ints.v[i];
    return true;
}

/* Flags over `rank` axes; an axis may be negative, none may come twice. */
static bool flag_axes(Step *s, const List *axes, int rank, bool *flag) {
    memset(flag, 0, MOEC_MAX_RANK * sizeof *flag);
    for (int i = 0; i < axes->n; i++) {
        int axis;
        if (!step_axis(s, axes->v[i], rank, &axis))
            return false;
        if (flag[axis])
            return step_error(s, DIAG_SHAPE_AXIS, "axis %d is named twice", axis);
        flag[axis] = true;
    }
    return true;
}

static bool check_extents(Step *s, const List *shape) {
    if (shape->n > MOEC_MAX_RANK)
        return step_error(s, DIAG_LIMIT, "the result would have %d axes, at most %d are supported", shape->n,
                          MOEC_MAX_RANK);
    for (int i = 0; i < shape->n; i++)
        if (shape->v[i] < 0)
            return step_error(s, DIAG_SHAPE_VALUE, "extent %lld", (long long)shape->v[i]);
    return true;
}

/* ---- shapes ------------------------------------------------------------------------------------------- */

bool interp_shape(Step *s) {
    const Tensor *a = step_in(s, 0);
    const Attr *start = node_attr(s->n, AT_start);
    int64_t from = 0, k;
    if (start && start->dims.n > 0 && !step_dim(s, start->dims.v[0], &from))
        return false;
    from = from < 0 ? from + a->rank : from;
    from = from < 0 ? 0 : from > a->rank ? a->rank : from;
    k = node_int(s->n, AT_k, a->rank - from);
    if (k < 0 || k > a->rank - from)
        k = a->rank - from;
    Tensor *out = step_out(s, 0, DT_I64, 1, &k);
    if (!out)
        return false;
    memcpy(out->data, a->dim + from, (size_t)k * sizeof(int64_t));
    return true;
}

bool interp_dyn_reshape(Step *s) {
    const Tensor *a = step_in(s, 0);
    bool zero = node_int(s->n, AT_allowzero, 0) != 0;
    List to = {0};
    int64_t count = 0, rest = 1;
    int guess = -1;
    if (!list_operand(s, 1, &to))
        return false;
    CHECK(tensor_count(a, &count));
    for (int i = 0; i < to.n; i++) {
        if (to.v[i] == -1) {
            if (guess >= 0)
                return step_error(s, DIAG_SHAPE_VALUE, "more than one extent is left to be found");
            guess = i;
            continue;
        }
        if (to.v[i] == 0 && !zero) {
            if (i >= a->rank)
                return step_error(s, DIAG_SHAPE_VALUE, "extent %d copies an axis that is not there", i);
            to.v[i] = a->dim[i];
        }
        if (!mul_i64(rest, to.v[i], &rest))
            return step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
    }
    if (guess >= 0) {
        if (rest == 0 && count == 0)
            to.v[guess] = 0;
        else if (rest <= 0 || count % rest != 0)
            return step_error(s, DIAG_SHAPE_VALUE, "%lld elements do not divide by %lld", (long long)count,
                              (long long)rest);
        else
            to.v[guess] = count / rest;
    }
    return check_extents(s, &to) && step_alias(s, 0, 0, to.n, to.v);
}

bool interp_dyn_squeeze(Step *s) {
    const Tensor *a = step_in(s, 0);
    List axes = {0};
    bool given, drop[MOEC_MAX_RANK];
    int64_t dim[MOEC_MAX_RANK] = {0};
    int rank = 0;
    if (!list_axes(s, 1, &axes, &given) || !flag_axes(s, &axes, a->rank, drop))
        return false;
    for (int i = 0; i < a->rank; i++) {
        if (!given)
            drop[i] = a->dim[i] == 1;
        if (drop[i] && a->dim[i] != 1)
            return step_error(s, DIAG_SHAPE_MISFIT, "axis %d has extent %lld, not 1", i,
                              (long long)a->dim[i]);
        if (!drop[i])
            dim[rank++] = a->dim[i];
    }
    return step_alias(s, 0, 0, rank, dim);
}

bool interp_dyn_unsqueeze(Step *s) {
    const Tensor *a = step_in(s, 0);
    List axes = {0};
    bool given, added[MOEC_MAX_RANK];
    int64_t dim[MOEC_MAX_RANK] = {0};
    if (!list_axes(s, 1, &axes, &given))
        return false;
    int rank = a->rank + axes.n, at = 0;
    if (rank > MOEC_MAX_RANK)
        return step_error(s, DIAG_LIMIT, "the result would have %d axes, at most %d are supported", rank,
                          MOEC_MAX_RANK);
    if (!flag_axes(s, &axes, rank, added))
        return false;
    for (int i = 0; i < rank; i++)
        dim[i] = added[i] ? 1 : a->dim[at++];
    return step_alias(s, 0, 0, rank, dim);
}

bool interp_dyn_flatten(Step *s) {
    const Tensor *a = step_in(s, 0);
    int64_t axis = node_int(s->n, AT_axis, 1);
    if (axis < -(int64_t)a->rank || axis > a->rank)
        return step_error(s, DIAG_SHAPE_AXIS, "axis %lld does not fit a tensor of %d axes", (long long)axis,
                          a->rank);
    int at = (int)(axis < 0 ? axis + a->rank : axis);
    int64_t dim[2] = {extents_count(a->dim, 0, at), extents_count(a->dim, at, a->rank)};
    return step_alias(s, 0, 0, 2, dim);
}

bool interp_dyn_axis(Step *s) {
    const Tensor *a = step_in(s, 0), *data = step_in(s, 1);
    int64_t axis = node_int(s->n, AT_axis, 1), count, dim[MOEC_MAX_RANK];
    CHECK(tensor_count(a, &count));
    if (count == 1)
        return step_alias(s, 0, 0, 0, dim);
    if (a->rank != 1)
        return step_error(s, DIAG_SHAPE_AXIS, "neither a scalar nor a vector");
    int at, rank = data ? data->rank : (int)(axis < 0 && axis >= -MOEC_MAX_RANK ? -axis : axis + 1);
    if (!step_axis(s, axis, rank, &at))
        return false;
    if (data && data->dim[at] != count)
        return step_error(s, DIAG_SHAPE_VALUE, "%lld entries for an axis of extent %lld", (long long)count,
                          (long long)data->dim[at]);
    for (int i = 0; i < rank; i++)
        dim[i] = i == at ? count : 1;
    return step_alias(s, 0, 0, rank, dim);
}

/* ---- fills ----------------------------------------------------------------------------------------------
 */

/* Result 0 of the stated extents, filled from a through its strides under them. */
static bool copy_to(Step *s, const Tensor *a, const int64_t *from, int rank, const int64_t *dim,
                    int64_t start) {
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    Strides to;
    if (!out)
        return false;
    strides_dense(rank, dim, to);
    size_t e = dtype_bytes(a->dtype);
    if (extents_count(dim, 0, rank) > 0)
        copy_strided(out->data, to, (const char *)a->data + (size_t)start * e, from, rank, dim, e);
    return true;
}

bool interp_dyn_broadcast(Step *s) {
    const Tensor *a = step_in(s, 0);
    List to = {0};
    Strides from;
    Tensor want = {0};
    int rank = 0;
    int64_t dim[MOEC_MAX_RANK] = {0};
    if (!list_operand(s, 1, &to) || !check_extents(s, &to))
        return false;
    want.rank = to.n;
    memcpy(want.dim, to.v, (size_t)to.n * sizeof(int64_t));
    if (!extents_broadcast(&want, &rank, dim) || !extents_broadcast(a, &rank, dim))
        return step_error(s, DIAG_SHAPE_MISFIT, "the operand does not broadcast with the shape");
    strides_broadcast(a, rank, dim, from);
    return copy_to(s, a, from, rank, dim, 0);
}

bool interp_dyn_fill(Step *s) {
    const Attr *v = node_attr(s->n, AT_value);
    Strides none = {0};
    List to = {0};
    Tensor zero = {.dtype = DT_F32, .data = &(float){0}};
    if (!list_operand(s, 0, &to) || !check_extents(s, &to))
        return false;
    const Tensor *one = v ? &v->t : &zero;
    int64_t count;
    if (!tensor_count(one, &count) || count != 1)
        return step_error(s, DIAG_SHAPE_VALUE, "the value is not one element");
    return copy_to(s, one, none, to.n, to.v, 0);
}

bool interp_dyn_range(Step *s) {
    const Tensor *t = step_in(s, 0);
    for (uint32_t i = 0; i < 3; i++) {
        int64_t n;
        const Tensor *x = step_in(s, i);
        if (!x || x->dtype != t->dtype || !tensor_count(x, &n) || n != 1)
            return step_error(s, DIAG_OPERAND_TYPE,
                              "start, limit and delta are not three numbers of one type");
    }
    int64_t count = 0;
    if (dtype_arith(t->dtype) == AR_I64) {
        int64_t start = tensor_get_i64(t, 0), limit = tensor_get_i64(step_in(s, 1), 0),
                delta = tensor_get_i64(step_in(s, 2), 0);
        if (delta == 0)
            return step_error(s, DIAG_SHAPE_VALUE, "delta is 0");
        bool up = delta > 0;
        if (up ? limit > start : limit < start) {
            uint64_t span = up ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
            uint64_t by = up ? (uint64_t)delta : 0 - (uint64_t)delta;
            uint64_t n = (span - 1) / by + 1;
            if (n > (uint64_t)MOEC_MAX_TENSOR)
                return step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
            count = (int64_t)n;
        }
        Tensor *out = step_out(s, 0, t->dtype, 1, &count);
        if (!out)
            return false;
        for (int64_t i = 0; i < count; i++)
            tensor_set_i64(out, i, (int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)delta));
        return true;
    }
    double start = tensor_get_f64(t, 0), limit = tensor_get_f64(step_in(s, 1), 0),
           delta = tensor_get_f64(step_in(s, 2), 0);
    double n = ceil((limit - start) / delta);
    if (n != n || delta == 0)
        return step_error(s, DIAG_SHAPE_VALUE, "start, limit and delta make no range");
    if (n >= (double)MOEC_MAX_TENSOR)
        return step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
    count = n > 0 ? (int64_t)n : 0;
    Tensor *out = step_out(s, 0, t->dtype, 1, &count);
    if (!out)
        return false;
    for (int64_t i = 0; i < count; i++)
        tensor_set_f64(out, i, start + (double)i * delta);
    return true;
}

/* ---- movement ---------------------------------------------------------------------------------------------
 */

/* ONNX's clamping: a negative bound counts from the end, then both are brought into the axis. */
static int64_t clamp_bound(int64_t v, int64_t n, int64_t lo, int64_t hi) {
    v = v < 0 ? v + n : v;
    return v < lo ? lo : v > hi ? hi : v;
}

bool interp_dyn_slice(Step *s) {
    const Tensor *a = step_in(s, 0);
    List starts = {0}, ends = {0}, axes = {0}, steps = {0};
    Strides from;
    int64_t dim[MOEC_MAX_RANK] = {0}, at = 0;
    bool flag[MOEC_MAX_RANK], by_axis = step_in(s, 3), by_step = step_in(s, 4);
    if (!list_operand(s, 1, &starts) || !list_operand(s, 2, &ends))
        return false;
    if (by_axis && !list_operand(s, 3, &axes))
        return false;
    if (by_step && !list_operand(s, 4, &steps))
        return false;
    if (ends.n != starts.n || (by_axis && axes.n != starts.n) || (by_step && steps.n != starts.n))
        return step_error(s, DIAG_SHAPE_VALUE, "starts, ends, axes and steps differ in length");
    if (!by_axis) {
        axes.n = starts.n;
        for (int i = 0; i < axes.n; i++)
            axes.v[i] = i;
    }
    if (!flag_axes(s, &axes, a->rank, flag))
        return false;
    strides_dense(a->rank, a->dim, from);
    memcpy(dim, a->dim, sizeof dim);
    for (int i = 0; i < starts.n; i++) {
        int k;
        int64_t step = by_step ? steps.v[i] : 1;
        if (!step_axis(s, axes.v[i], a->rank, &k))
            return false;
        if (step == 0)
            return step_error(s, DIAG_SHAPE_VALUE, "a step is 0");
        int64_t n = a->dim[k], hi = step > 0 ? n : n - 1, end_lo = step > 0 ? 0 : -1;
        int64_t first = clamp_bound(starts.v[i], n, 0, hi), end = clamp_bound(ends.v[i], n, end_lo, hi);
        int64_t span = step > 0 ? end - first : first - end;
        /* |step| beyond the span takes one element; also keeps INT64_MIN from being negated */
        int64_t by = step > n ? n : step < -n ? -n : step;
        by = by == 0 ? 1 : by < 0 ? -by : by;
        dim[k] = n == 0 || span <= 0 ? 0 : (span - 1) / by + 1;
        if (dim[k] == 0)
            continue;
        at += first * from[k];
        from[k] *= dim[k] > 1 ? step : 0;
    }
    return copy_to(s, a, from, a->rank, dim, at);
}

bool interp_dyn_tile(Step *s) {
    const Tensor *a = step_in(s, 0);
    List times = {0};
    int64_t seen[LIST_MAX], dim[MOEC_MAX_RANK];
    Strides own;
    if (!list_operand(s, 1, &times) || !check_extents(s, &times))
        return false;
    if (times.n != a->rank)
        return step_error(s, DIAG_SHAPE_VALUE, "%d repeats for %d axes", times.n, a->rank);
    for (int i = 0; i < a->rank; i++)
        if (!mul_i64(a->dim[i], times.v[i], &dim[i]))
            return step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
    Tensor *out = step_out(s, 0, a->dtype, a->rank, dim);
    Strides to;
    if (!out || extents_count(dim, 0, a->rank) == 0)
        return out != NULL;
    /* The result seen as [repeat, extent] an axis: axis pairs are copied by odometer over the repeats. */
    strides_dense(a->rank, a->dim, own);
    strides_dense(a->rank, dim, to);
    size_t e = dtype_bytes(a->dtype);
    memset(seen, 0, sizeof seen);
    for (;;) {
        int64_t at = 0;
        for (int i = 0; i < a->rank; i++)
            at += seen[i] * a->dim[i] * to[i];
        copy_strided((char *)out->data + (size_t)at * e, to, a->data, own, a->rank, a->dim, e);
        int i = a->rank - 1;
        while (i >= 0 && ++seen[i] == times.v[i])
            seen[i--] = 0;
        if (i < 0)
            return true;
    }
}

bool interp_dyn_transpose(Step *s) {
    const Tensor *a = step_in(s, 0);
    const Attr *perm = node_attr(s->n, AT_perm);
    int64_t dim[MOEC_MAX_RANK] = {0};
    bool seen[MOEC_MAX_RANK] = {false};
    Strides own, from;
    if (perm && perm->ints.n != (uint32_t)a->rank)
        return step_error(s, DIAG_SHAPE_AXIS, "a permutation of %u for %d axes", perm->ints.n, a->rank);
    strides_dense(a->rank, a->dim, own);
    for (int i = 0; i < a->rank; i++) {
        int p;
        if (!step_axis(s, perm ? perm->ints.v[i] : a->rank - 1 - i, a->rank, &p))
            return false;
        if (seen[p])
            return step_error(s, DIAG_SHAPE_AXIS, "the permutation names axis %d twice", p);
        seen[p] = true;
        dim[i] = a->dim[p];
        from[i] = own[p];
    }
    return copy_to(s, a, from, a->rank, dim, 0);
}

bool interp_dyn_trilu(Step *s) {
    const Tensor *a = step_in(s, 0), *kt = step_in(s, 1);
    bool upper = node_int(s->n, AT_upper, 1) != 0;
    int64_t k = 0, n;
    if (a->rank < 2)
        return step_error(s, DIAG_SHAPE_AXIS, "needs two axes");
    if (kt) {
        if (!tensor_count(kt, &n) || n != 1 || dtype_arith(kt->dtype) != AR_I64)
            return step_error(s, DIAG_SHAPE_VALUE, "k is not one integer");
        k = tensor_get_i64(kt, 0);
    }
    Tensor *out = step_out(s, 0, a->dtype, a->rank, a->dim);
    if (!out)
        return false;
    int64_t planes = extents_count(a->dim, 0, a->rank - 2), rows = a->dim[a->rank - 2],
            cols = a->dim[a->rank - 1];
    k = k < -rows ? -rows : k > cols ? cols : k;
    size_t e = dtype_bytes(a->dtype);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++) {
                size_t at = (size_t)((p * rows + i) * cols + j) * e;
                if (upper ? j - i >= k : j - i <= k)
                    memcpy((char *)out->data + at, (const char *)a->data + at, e);
            }
    return true;
}

bool interp_dyn_split(Step *s) {
    const Tensor *a = step_in(s, 0), *sizes = step_in(s, 1);
    uint32_t parts = s->n->n_out;
    int axis;
    int64_t at = 0, n;
    Strides own, to;
    if (!step_axis(s, node_int(s->n, AT_axis, 0), a->rank, &axis))
        return false;
    if (parts == 0)
        return step_error(s, DIAG_SHAPE_VALUE, "no results");
    if (sizes && (sizes->rank != 1 || dtype_arith(sizes->dtype) != AR_I64 || sizes->dim[0] != (int64_t)parts))
        return step_error(s, DIAG_SHAPE_VALUE, "the sizes are not %u integers", parts);
    n = a->dim[axis];
    int64_t each = n / parts + (n % parts != 0);
    strides_dense(a->rank, a->dim, own);
    size_t e = dtype_bytes(a->dtype);
    for (uint32_t i = 0; i < parts; i++) {
        int64_t dim[MOEC_MAX_RANK] = {0}, left = n - at;
        memcpy(dim, a->dim, sizeof dim);
        dim[axis] = sizes ? tensor_get_i64(sizes, i) : each < left ? each : left;
        if (dim[axis] < 0 || dim[axis] > left)
            return step_error(s, DIAG_SHAPE_VALUE, "the sizes exceed the axis");
        Tensor *out = step_out(s, i, a->dtype, a->rank, dim);
        if (!out)
            return false;
        strides_dense(a->rank, dim, to);
        copy_strided(out->data, to, (const char *)a->data + (size_t)(at * own[axis]) * e, own, a->rank, dim,
                     e);
        at += dim[axis];
    }
    return at == n || step_error(s, DIAG_SHAPE_VALUE, "the sizes sum to %lld, the axis has %lld",
                                 (long long)at, (long long)n);
}

/* ---- quantization -------------------------------------------------------------------------------------- */

/* ONNX DynamicQuantizeLinear, in float as the operator's text has it. */
bool interp_dyn_quantize(Step *s) {
    const Tensor *a = step_in(s, 0);
    int64_t count;
    if (a->dtype != DT_F32)
        return step_error(s, DIAG_OPERAND_TYPE, "not defined for %s", dtype_name(a->dtype));
    CHECK(tensor_count(a, &count));
    const float *x = a->data;
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < count; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float scale = (hi - lo) / 255.0f;
    if (scale == 0)
        scale = 1;
    float zero = rintf(-lo / scale);
    zero = zero < 0 ? 0 : zero > 255 ? 255 : zero;
    Tensor *y = step_out(s, 0, DT_U8, a->rank, a->dim), *sc = step_out(s, 1, DT_F32, 0, NULL),
           *zp = step_out(s, 2, DT_U8, 0, NULL);
    if (!y || !sc || !zp)
        return false;
    for (int64_t i = 0; i < count; i++) {
        float q = rintf(x[i] / scale) + zero;
        store_f32(y, i, 1, &q);
    }
    store_f32(sc, 0, 1, &scale);
    store_f32(zp, 0, 1, &zero);
    return true;
}
