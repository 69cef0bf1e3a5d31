/* Gathers and scatters: element positions are data, so every index is checked. */
#include "interp.h"

#include <string.h>

/* Index i of `at` into an axis of extent n; negative counts from the end. */
static bool index_at(Step *s, const Tensor *at, int64_t i, int64_t n, int64_t *out) {
    int64_t v = tensor_get_i64(at, i);
    if (v < -n || v >= n)
        return step_error(s, DIAG_SHAPE_INDEX, "index %lld is outside an axis of extent %lld", (long long)v,
                          (long long)n);
    *out = v < 0 ? v + n : v;
    return true;
}

static bool integers(Step *s, const Tensor *t) {
    return (t && dtype_arith(t->dtype) == AR_I64) ||
           step_error(s, DIAG_OPERAND_TYPE, "the indices are not integers");
}

bool interp_gather(Step *s) {
    const Tensor *a = step_in(s, 0), *at = step_in(s, 1);
    int axis, rank = 0;
    int64_t dim[MOEC_MAX_RANK * 2];
    if (!integers(s, at) || !step_axis(s, node_int(s->n, AT_axis, 0), a->rank, &axis))
        return false;
    for (int i = 0; i < axis; i++)
        dim[rank++] = a->dim[i];
    for (int i = 0; i < at->rank; i++)
        dim[rank++] = at->dim[i];
    for (int i = axis + 1; i < a->rank; i++)
        dim[rank++] = a->dim[i];
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    if (!out)
        return false;
    int64_t outer = extents_count(a->dim, 0, axis), inner = extents_count(a->dim, axis + 1, a->rank), n;
    CHECK(tensor_count(at, &n));
    size_t run = (size_t)inner * dtype_bytes(a->dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t from = 0;
        if (!index_at(s, at, i, a->dim[axis], &from))
            return false;
        for (int64_t o = 0; run && o < outer; o++)
            memcpy((char *)out->data + (size_t)(o * n + i) * run,
                   (const char *)a->data + (size_t)(o * a->dim[axis] + from) * run, run);
    }
    return true;
}

bool interp_dyn_gather(Step *s) {
    return interp_gather(s);
}

/* Row `row` of the index tensor as an element offset into axes first.. of a, in units of what they leave. */
static bool index_tuple(Step *s, const Tensor *a, int first, const Tensor *at, int64_t row, int64_t width,
                        int64_t *out) {
    *out = 0;
    for (int64_t k = 0; k < width; k++) {
        int64_t v = 0, n = a->dim[first + k];
        if (!index_at(s, at, row * width + k, n, &v))
            return false;
        *out = *out * n + v;
    }
    return true;
}

bool interp_gather_nd(Step *s) {
    const Tensor *a = step_in(s, 0), *at = step_in(s, 1);
    int64_t batch = node_int(s->n, AT_batch, 0);
    if (!integers(s, at))
        return false;
    if (batch < 0 || at->rank < 1 || batch >= at->rank || batch > a->rank)
        return step_error(s, DIAG_SHAPE_MISFIT, "%lld batch axes do not fit the operands", (long long)batch);
    int b = (int)batch, rank = 0;
    int64_t width = at->dim[at->rank - 1], dim[MOEC_MAX_RANK * 2];
    if (width > a->rank - b)
        return step_error(s, DIAG_SHAPE_AXIS, "indices of %lld axes for %d", (long long)width, a->rank - b);
    for (int i = 0; i < b; i++)
        if (a->dim[i] != at->dim[i])
            return step_error(s, DIAG_SHAPE_MISFIT, "batch axis %d has two extents", i);
    int rest = b + (int)width;
    for (int i = 0; i + 1 < at->rank; i++)
        dim[rank++] = at->dim[i];
    for (int i = rest; i < a->rank; i++)
        dim[rank++] = a->dim[i];
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    if (!out)
        return false;
    int64_t batches = extents_count(at->dim, 0, b), rows = extents_count(at->dim, b, at->rank - 1);
    int64_t block = extents_count(a->dim, b, rest);
    size_t run = (size_t)extents_count(a->dim, rest, a->rank) * dtype_bytes(a->dtype);
    for (int64_t i = 0; i < batches; i++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t from = 0;
            if (!index_tuple(s, a, b, at, i * rows + r, width, &from))
                return false;
            if (run)
                memcpy((char *)out->data + (size_t)(i * rows + r) * run,
                       (const char *)a->data + (size_t)(i * block + from) * run, run);
        }
    return true;
}

/* to[i] = to[i] (op) up[i] for a run, rounded to the type each time. */
static void combine(Str kind, Tensor *to, int64_t at, const Tensor *up, int64_t from, int64_t n) {
    bool add = str_is(kind, "sum"), mul = str_is(kind, "prod"), more = str_is(kind, "max");
    for (int64_t i = 0; i < n; i++) {
        if (dtype_arith(to->dtype) == AR_I64) {
            int64_t a = tensor_get_i64(to, at + i), b = tensor_get_i64(up, from + i);
            int64_t v = add   ? (int64_t)((uint64_t)a + (uint64_t)b)
                        : mul ? (int64_t)((uint64_t)a * (uint64_t)b)
                              : ((a > b) == more ? a : b);
            store_i64(to, at + i, 1, &v);
        } else {
            double a = tensor_get_f64(to, at + i), b = tensor_get_f64(up, from + i);
            double v = add ? a + b : mul ? a * b : a != a ? a : b != b ? b : (a > b) == more ? a : b;
            store_f64(to, at + i, 1, &v);
        }
    }
}

bool interp_scatter_nd(Step *s) {
    const Tensor *a = step_in(s, 0), *at = step_in(s, 1), *up = step_in(s, 2);
    if (!integers(s, at))
        return false;
    if (at->rank < 1 || at->dim[at->rank - 1] > a->rank)
        return step_error(s, DIAG_SHAPE_AXIS, "the indices do not fit a tensor of %d axes", a->rank);
    int64_t width = at->dim[at->rank - 1];
    bool fits = up->dtype == a->dtype && up->rank == at->rank - 1 + a->rank - (int)width;
    for (int i = 0; fits && i + 1 < at->rank; i++)
        fits = up->dim[i] == at->dim[i];
    for (int i = (int)width; fits && i < a->rank; i++)
        fits = up->dim[at->rank - 1 + i - (int)width] == a->dim[i];
    if (!fits)
        return step_error(s, DIAG_SHAPE_MISFIT, "the updates do not fit data and indices");
    Tensor *out = step_out(s, 0, a->dtype, a->rank, a->dim);
    size_t bytes;
    if (!out)
        return false;
    CHECK(tensor_bytes(a, &bytes));
    if (bytes)
        memcpy(out->data, a->data, bytes);
    const Attr *kind = node_attr(s->n, AT_kind);
    int64_t rows = extents_count(at->dim, 0, at->rank - 1), each = extents_count(a->dim, (int)width, a->rank);
    size_t run = (size_t)each * dtype_bytes(a->dtype);
    for (int64_t r = 0; r < rows; r++) {
        int64_t to = 0;
        if (!index_tuple(s, a, 0, at, r, width, &to))
            return false;
        if (kind)
            combine(kind->s, out, to * each, up, r * each, each);
        else if (run)
            memcpy((char *)out->data + (size_t)to * run, (const char *)up->data + (size_t)r * run, run);
    }
    return true;
}
