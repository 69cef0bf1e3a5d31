/* Sources and movement: constants, iota, reshape, broadcast, transpose, slice, concat.
 *
 * Nothing is computed here; elements are copied by their size (copy_strided). */
#include "interp.h"

#include <string.h>

bool interp_const(Step *s) {
    const Attr *v = node_attr(s->n, AT_value);
    CHECK(v);
    Tensor *out = step_out(s, 0, v->t.dtype, v->t.rank, v->t.dim);
    size_t bytes;
    if (!out)
        return false;
    CHECK(tensor_bytes(out, &bytes));
    if (bytes)
        memcpy(out->data, v->t.data, bytes);
    return true;
}

bool interp_dim(Step *s) {
    const Attr *d = node_attr(s->n, AT_dim);
    int64_t v;
    CHECK(d);
    if (!step_dim(s, d->d, &v))
        return false;
    Tensor *out = step_out(s, 0, DT_I64, 0, NULL);
    if (!out)
        return false;
    *(int64_t *)out->data = v;
    return true;
}

bool interp_iota(Step *s) {
    int rank, axis;
    int64_t dim[MOEC_MAX_RANK];
    if (!step_extents(s, 0, &rank, dim) || !step_axis(s, node_int(s->n, AT_axis, 0), rank, &axis))
        return false;
    Tensor *out = step_out(s, 0, DT_I64, rank, dim);
    if (!out)
        return false;
    int64_t outer = extents_count(dim, 0, axis), inner = extents_count(dim, axis + 1, rank);
    int64_t *p = out->data;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < dim[axis]; i++)
            for (int64_t k = 0; k < inner; k++)
                *p++ = i;
    return true;
}

bool interp_reshape(Step *s) {
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    return step_extents(s, 0, &rank, dim) && step_alias(s, 0, 0, rank, dim);
}

bool interp_broadcast(Step *s) {
    const Tensor *a = step_in(s, 0);
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    Strides to, from;
    if (!step_extents(s, 0, &rank, dim))
        return false;
    if (!strides_broadcast(a, rank, dim, from))
        return step_error(s, DIAG_SHAPE_MISFIT, "the operand does not broadcast to the result");
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    if (!out)
        return false;
    strides_dense(rank, dim, to);
    copy_strided(out->data, to, a->data, from, rank, dim, dtype_bytes(a->dtype));
    return true;
}

bool interp_transpose(Step *s) {
    const Tensor *a = step_in(s, 0);
    const Attr *perm = node_attr(s->n, AT_perm);
    CHECK(perm && perm->ints.n == (uint32_t)a->rank);
    int64_t dim[MOEC_MAX_RANK];
    Strides own, from, to;
    strides_dense(a->rank, a->dim, own);
    for (int i = 0; i < a->rank; i++) {
        int64_t p = perm->ints.v[i];
        CHECK(p >= 0 && p < a->rank);
        dim[i] = a->dim[p];
        from[i] = own[p];
    }
    Tensor *out = step_out(s, 0, a->dtype, a->rank, dim);
    if (!out)
        return false;
    strides_dense(a->rank, dim, to);
    copy_strided(out->data, to, a->data, from, a->rank, dim, dtype_bytes(a->dtype));
    return true;
}

bool interp_slice(Step *s) {
    const Tensor *a = step_in(s, 0);
    const Attr *start = node_attr(s->n, AT_start), *step = node_attr(s->n, AT_step);
    int rank;
    int64_t dim[MOEC_MAX_RANK], at = 0;
    Strides own, from, to;
    if (!step_extents(s, 0, &rank, dim))
        return false;
    CHECK(start && rank == a->rank && start->dims.n == (uint32_t)rank);
    CHECK(!step || step->ints.n == (uint32_t)rank);
    strides_dense(rank, a->dim, own);
    for (int i = 0; i < rank; i++) {
        int64_t first, last, by = step ? step->ints.v[i] : 1;
        if (!step_dim(s, start->dims.v[i], &first))
            return false;
        bool fits = dim[i] == 0 || (first >= 0 && first < a->dim[i] && mul_i64(dim[i] - 1, by, &last) &&
                                    add_i64(first, last, &last) && last >= 0 && last < a->dim[i]);
        if (!fits)
            return step_error(s, DIAG_SHAPE_MISFIT,
                              "%lld elements from %lld by %lld leave axis %d of extent %lld",
                              (long long)dim[i], (long long)first, (long long)by, i, (long long)a->dim[i]);
        from[i] = dim[i] > 1 ? own[i] * by : 0;
        at += dim[i] > 0 ? own[i] * first : 0;
    }
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    if (!out)
        return false;
    strides_dense(rank, dim, to);
    size_t elem = dtype_bytes(a->dtype);
    if (extents_count(dim, 0, rank) > 0)
        copy_strided(out->data, to, (const char *)a->data + (size_t)at * elem, from, rank, dim, elem);
    return true;
}

static bool concat_along(Step *s, int axis) {
    const Tensor *first = step_in(s, 0);
    int64_t dim[MOEC_MAX_RANK], sum = 0;
    for (uint32_t i = 0; i < s->n->n_in; i++) {
        const Tensor *t = step_in(s, i);
        if (!t)
            return step_error(s, DIAG_IR_NODE, "operand %u is left out", i);
        bool fits = t->rank == first->rank && t->dtype == first->dtype;
        for (int k = 0; fits && k < t->rank; k++)
            fits = k == axis || t->dim[k] == first->dim[k];
        if (!fits)
            return step_error(s, DIAG_SHAPE_MISFIT,
                              "operand %u does not agree with the first one beside axis %d", i, axis);
        if (!add_i64(sum, t->dim[axis], &sum))
            return step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
    }
    memcpy(dim, first->dim, sizeof dim);
    dim[axis] = sum;
    Tensor *out = step_out(s, 0, first->dtype, first->rank, dim);
    if (!out)
        return false;
    Strides to, from;
    strides_dense(out->rank, dim, to);
    size_t elem = dtype_bytes(out->dtype);
    int64_t at = 0;
    for (uint32_t i = 0; i < s->n->n_in; i++) {
        const Tensor *t = step_in(s, i);
        strides_dense(t->rank, t->dim, from);
        copy_strided((char *)out->data + (size_t)(at * to[axis]) * elem, to, t->data, from, t->rank, t->dim,
                     elem);
        at += t->dim[axis];
    }
    return true;
}

bool interp_concat(Step *s) {
    const Tensor *a = step_in(s, 0);
    int axis;
    if (!a)
        return step_error(s, DIAG_IR_NODE, "operand 0 is left out");
    return step_axis(s, node_int(s->n, AT_axis, 0), a->rank, &axis) && concat_along(s, axis);
}

bool interp_dyn_concat(Step *s) {
    return interp_concat(s);
}
