/* Rules that fold axes: reductions, softmax, argmax, top_k_mask, cumsum, RMS norm.
 *
 * Sums are in double (int64 for integers), rounded once when stored. A "row" is the elements along one
 * axis at one position of the others. */
#include "interp.h"

#include <math.h>
#include <string.h>

/* ---- reductions ------------------------------------------------------------------------------------- */

typedef enum Kind { K_SUM, K_MEAN, K_MAX, K_MIN, K_PROD } Kind;

static void fold_f64(Kind k, double *acc, double v) {
    switch (k) {
    case K_SUM:
    case K_MEAN:
        *acc += v;
        break;
    case K_PROD:
        *acc *= v;
        break;
    case K_MAX:
        *acc = v > *acc || v != v ? v : *acc;
        break;
    case K_MIN:
        *acc = v < *acc || v != v ? v : *acc;
        break;
    }
}

static void fold_i64(Kind k, int64_t *acc, int64_t v) {
    switch (k) {
    case K_SUM:
    case K_MEAN:
        *acc = (int64_t)((uint64_t)*acc + (uint64_t)v);
        break;
    case K_PROD:
        *acc = (int64_t)((uint64_t)*acc * (uint64_t)v);
        break;
    case K_MAX:
        *acc = v > *acc ? v : *acc;
        break;
    case K_MIN:
        *acc = v < *acc ? v : *acc;
        break;
    }
}

/* What a reduction over nothing gives. */
static double start_f64(Kind k) {
    return k == K_MAX ? -INFINITY : k == K_MIN ? INFINITY : k == K_PROD ? 1 : 0;
}

static int64_t start_i64(Kind k, DType t) {
    if (k != K_MAX && k != K_MIN)
        return k == K_PROD;
    Tensor one = {.dtype = t};
    int64_t v = 0;
    one.data = &v;
    double far = k == K_MAX ? -1e30 : 1e30;
    store_f64(&one, 0, 1, &far); /* saturates */
    if (t == DT_BOOL)
        return k == K_MIN;
    load_i64(&one, 0, 0, 1, &v);
    return v;
}

/* The sums lie in acc, one an output element; the walk's second operand has stride 0 along reduced axes. */
static void fold(Kind kind, const Tensor *a, Strides *stride, double *f64, int64_t *i64) {
    Walk w;
    CHECK(f64 || i64);
    if (!walk_begin(&w, 2, a->rank, a->dim, stride))
        return;
    do {
        for (int64_t at = 0; at < w.run; at += RUN_MAX) {
            int64_t n = w.run - at < RUN_MAX ? w.run - at : RUN_MAX;
            int64_t to = w.off[1] + at * w.step[1], from = w.off[0] + at * w.step[0];
            if (f64) {
                double v[RUN_MAX];
                load_f64(a, from, w.step[0], n, v);
                for (int64_t i = 0; i < n; i++)
                    fold_f64(kind, &f64[to + i * w.step[1]], v[i]);
            } else {
                int64_t v[RUN_MAX];
                load_i64(a, from, w.step[0], n, v);
                for (int64_t i = 0; i < n; i++)
                    fold_i64(kind, &i64[to + i * w.step[1]], v[i]);
            }
        }
    } while (walk_next(&w));
}

static bool reduce(Step *s, Kind kind, const bool *reduced, bool keep) {
    const Tensor *a = step_in(s, 0);
    int64_t dim[MOEC_MAX_RANK], count, folded = 1;
    int rank = 0;
    Strides stride[2], dense;
    for (int i = 0; i < a->rank; i++)
        if (keep || !reduced[i])
            dim[rank++] = reduced[i] ? 1 : a->dim[i];
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    if (!out)
        return false;
    strides_dense(a->rank, a->dim, stride[0]);
    strides_dense(rank, dim, dense);
    for (int i = 0, k = 0; i < a->rank; i++) {
        stride[1][i] = reduced[i] ? 0 : dense[k];
        k += keep || !reduced[i];
        if (reduced[i] && !mul_i64(folded, a->dim[i], &folded))
            folded = 0;
    }
    CHECK(tensor_count(out, &count));
    if (dtype_arith(a->dtype) != AR_I64) {
        double *acc = mem_alloc((size_t)(count + 1) * sizeof *acc);
        for (int64_t i = 0; i < count; i++)
            acc[i] = start_f64(kind);
        fold(kind, a, stride, acc, NULL);
        for (int64_t i = 0; kind == K_MEAN && i < count; i++)
            acc[i] /= (double)folded;
        store_f64(out, 0, count, acc);
        mem_free(acc);
    } else {
        int64_t *acc = mem_alloc((size_t)(count + 1) * sizeof *acc), start = start_i64(kind, a->dtype);
        for (int64_t i = 0; i < count; i++)
            acc[i] = start;
        fold(kind, a, stride, NULL, acc);
        for (int64_t i = 0; kind == K_MEAN && i < count; i++)
            acc[i] = folded ? acc[i] / folded : 0;
        store_i64(out, 0, count, acc);
        mem_free(acc);
    }
    return true;
}

bool interp_reduce(Step *s) {
    static const struct {
        Op op;
        Kind kind;
    } of[] = {{OP_reduce_sum, K_SUM},
              {OP_reduce_mean, K_MEAN},
              {OP_reduce_max, K_MAX},
              {OP_reduce_min, K_MIN},
              {OP_reduce_prod, K_PROD}};
    const Tensor *a = step_in(s, 0);
    const Attr *axes = node_attr(s->n, AT_axes);
    bool reduced[MOEC_MAX_RANK] = {false};
    CHECK(axes);
    for (uint32_t i = 0; i < axes->ints.n; i++) {
        int axis;
        if (!step_axis(s, axes->ints.v[i], a->rank, &axis))
            return false;
        reduced[axis] = true;
    }
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (of[i].op == s->n->op)
            return reduce(s, of[i].kind, reduced, node_int(s->n, AT_keep, 0) != 0);
    BUG("no reduction");
}

bool interp_dyn_reduce(Step *s) {
    static const char *const kinds[] = {
        [K_SUM] = "sum", [K_MEAN] = "mean", [K_MAX] = "max", [K_MIN] = "min", [K_PROD] = "prod"};
    const Tensor *a = step_in(s, 0), *operand = step_in(s, 1);
    const Attr *axes = node_attr(s->n, AT_axes), *kind = node_attr(s->n, AT_kind);
    bool reduced[MOEC_MAX_RANK] = {false};
    int64_t n = axes ? axes->ints.n : 0;
    CHECK(kind);
    if (operand && (dtype_arith(operand->dtype) != AR_I64 || operand->rank > 1 || !tensor_count(operand, &n)))
        return step_error(s, DIAG_SHAPE_VALUE, "the axes are not a list of integers");
    for (int64_t i = 0; i < n; i++) {
        int axis;
        if (!step_axis(s, operand ? tensor_get_i64(operand, i) : axes->ints.v[i], a->rank, &axis))
            return false;
        reduced[axis] = true;
    }
    if (n == 0 && node_int(s->n, AT_noop, 0) == 0)
        for (int i = 0; i < a->rank; i++)
            reduced[i] = true;
    for (int k = K_SUM; k <= K_PROD; k++)
        if (str_is(kind->s, kinds[k]))
            return reduce(s, (Kind)k, reduced, node_int(s->n, AT_keep, 1) != 0);
    return step_error(s, DIAG_IR_NODE, "unknown reduction '%s'", diag_show(s->run->d, kind->s));
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

/* The rows of t along axes from..to-1 taken as one: `outer` times `inner` rows of n elements, `inner` apart.
 */
typedef struct Rows {
    int64_t outer, n, inner;
} Rows;

static Rows rows_of(const Tensor *t, int from, int to) {
    return (Rows){extents_count(t->dim, 0, from), extents_count(t->dim, from, to),
                  extents_count(t->dim, to, t->rank)};
}

typedef void RowFn(int64_t n, double *v);

/* Applies f to every row, in double. */
static bool map_rows(Step *s, const Tensor *a, int from, int to, RowFn *f) {
    Tensor *out = step_out(s, 0, a->dtype, a->rank, a->dim);
    if (!out)
        return false;
    Rows r = rows_of(a, from, to);
    if (r.outer == 0 || r.n == 0 || r.inner == 0)
        return true;
    double *v = mem_alloc((size_t)r.n * sizeof *v);
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t k = 0; k < r.inner; k++) {
            int64_t off = o * r.n * r.inner + k;
            load_f64(a, off, r.inner, r.n, v);
            f(r.n, v);
            if (r.inner == 1)
                store_f64(out, off, r.n, v);
            else
                for (int64_t i = 0; i < r.n; i++)
                    store_f64(out, off + i * r.inner, 1, &v[i]);
        }
    mem_free(v);
    return true;
}

static double row_max(int64_t n, const double *v) {
    double m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        m = v[i] > m || v[i] != v[i] ? v[i] : m;
    return m;
}

static void softmax_row(int64_t n, double *v) {
    double m = row_max(n, v), sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i] = exp(v[i] - m);
    for (int64_t i = 0; i < n; i++)
        v[i] /= sum;
}

static void log_softmax_row(int64_t n, double *v) {
    double m = row_max(n, v), sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp(v[i] - m);
    for (int64_t i = 0; i < n; i++)
        v[i] = v[i] - m - log(sum);
}

static bool along_axis(Step *s, RowFn *f) {
    const Tensor *a = step_in(s, 0);
    int axis;
    if (!dtype_is_float(a->dtype))
        return step_error(s, DIAG_OPERAND_TYPE, "not defined for %s", dtype_name(a->dtype));
    return step_axis(s, node_int(s->n, AT_axis, -1), a->rank, &axis) && map_rows(s, a, axis, axis + 1, f);
}

bool interp_softmax(Step *s) {
    return along_axis(s, softmax_row);
}

bool interp_log_softmax(Step *s) {
    return along_axis(s, log_softmax_row);
}

bool interp_dyn_softmax(Step *s) {
    const Tensor *a = step_in(s, 0);
    int axis = 0;
    if (node_int(s->n, AT_keep, 0) == 0)
        return along_axis(s, softmax_row);
    int64_t given = node_int(s->n, AT_axis, 1);
    if (given != a->rank && !step_axis(s, given, a->rank, &axis))
        return false;
    return map_rows(s, a, given == a->rank ? a->rank : axis, a->rank, softmax_row);
}

static bool beats(double a, double b, bool ties) {
    if (b != b)
        return ties && a != a;
    return a != a || a > b || (ties && a == b);
}

/* Of elements x and y of t, integers compared as such. */
static bool element_beats(const Tensor *t, int64_t x, int64_t y, bool ties) {
    if (dtype_arith(t->dtype) != AR_I64)
        return beats(tensor_get_f64(t, x), tensor_get_f64(t, y), ties);
    int64_t p = tensor_get_i64(t, x), q = tensor_get_i64(t, y);
    return p > q || (ties && p == q);
}

static bool argmax_along(Step *s, int64_t given, bool keep) {
    const Tensor *a = step_in(s, 0);
    bool last = node_int(s->n, AT_last, 0) != 0;
    int axis, rank = 0;
    int64_t dim[MOEC_MAX_RANK];
    if (!step_axis(s, given, a->rank, &axis))
        return false;
    for (int i = 0; i < a->rank; i++)
        if (keep || i != axis)
            dim[rank++] = i == axis ? 1 : a->dim[i];
    Rows r = rows_of(a, axis, axis + 1);
    if (r.n == 0 && r.outer * r.inner > 0)
        return step_error(s, DIAG_SHAPE_MISFIT, "the maximum of no elements");
    Tensor *out = step_out(s, 0, DT_I64, rank, dim);
    if (!out)
        return false;
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t k = 0; k < r.inner; k++) {
            int64_t off = o * r.n * r.inner + k, best = 0;
            for (int64_t i = 1; i < r.n; i++)
                if (element_beats(a, off + i * r.inner, off + best * r.inner, last))
                    best = i;
            ((int64_t *)out->data)[o * r.inner + k] = best;
        }
    return true;
}

bool interp_argmax(Step *s) {
    return argmax_along(s, node_int(s->n, AT_axis, -1), node_int(s->n, AT_keep, 0) != 0);
}

bool interp_dyn_argmax(Step *s) {
    return argmax_along(s, node_int(s->n, AT_axis, 0), node_int(s->n, AT_keep, 1) != 0);
}

bool interp_top_k_mask(Step *s) {
    const Tensor *a = step_in(s, 0);
    if (a->rank < 1)
        return step_error(s, DIAG_SHAPE_AXIS, "needs an axis");
    int64_t k = node_int(s->n, AT_k, 1);
    Tensor *out = step_out(s, 0, DT_BOOL, a->rank, a->dim);
    if (!out)
        return false;
    Rows r = rows_of(a, a->rank - 1, a->rank);
    for (int64_t o = 0; o < r.outer; o++) {
        uint8_t *taken = (uint8_t *)out->data + o * r.n;
        for (int64_t round = 0; round < k && round < r.n; round++) {
            int64_t best = -1;
            for (int64_t i = 0; i < r.n; i++)
                if (!taken[i] && (best < 0 || element_beats(a, o * r.n + i, o * r.n + best, false)))
                    best = i;
            taken[best] = 1;
        }
    }
    return true;
}

/* ---- running sums ------------------------------------------------------------------------------------- */

static bool cumsum_along(Step *s, int64_t given) {
    const Tensor *a = step_in(s, 0);
    bool exclusive = node_int(s->n, AT_exclusive, 0) != 0, reverse = node_int(s->n, AT_reverse, 0) != 0;
    int axis;
    if (!step_axis(s, given, a->rank, &axis))
        return false;
    Tensor *out = step_out(s, 0, a->dtype, a->rank, a->dim);
    if (!out)
        return false;
    Rows r = rows_of(a, axis, axis + 1);
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t k = 0; k < r.inner; k++) {
            double f = 0;
            int64_t n = 0;
            for (int64_t i = 0; i < r.n; i++) {
                int64_t at = (o * r.n + (reverse ? r.n - 1 - i : i)) * r.inner + k;
                if (dtype_arith(a->dtype) != AR_I64) {
                    double now = f + tensor_get_f64(a, at);
                    store_f64(out, at, 1, exclusive ? &f : &now);
                    f = now;
                } else {
                    int64_t now = (int64_t)((uint64_t)n + (uint64_t)tensor_get_i64(a, at));
                    store_i64(out, at, 1, exclusive ? &n : &now);
                    n = now;
                }
            }
        }
    return true;
}

bool interp_cumsum(Step *s) {
    return cumsum_along(s, node_int(s->n, AT_axis, 0));
}

bool interp_dyn_cumsum(Step *s) {
    const Tensor *axis = step_in(s, 1);
    int64_t count;
    if (!tensor_count(axis, &count) || count != 1 || dtype_arith(axis->dtype) != AR_I64)
        return step_error(s, DIAG_SHAPE_VALUE, "the axis is not one integer");
    return cumsum_along(s, tensor_get_i64(axis, 0));
}

/* ---- RMS norm --------------------------------------------------------------------------------------------
 */

static double rms_of(int64_t n, const double *v, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i] * v[i];
    return 1 / sqrt(sum / (double)n + eps);
}

bool interp_rms_norm(Step *s) {
    const Tensor *a = step_in(s, 0), *g = step_in(s, 1);
    double eps = node_float(s->n, AT_eps, 0);
    int64_t width;
    if (a->rank < 1 || !tensor_count(g, &width) || width != a->dim[a->rank - 1])
        return step_error(s, DIAG_SHAPE_MISFIT, "the gain does not fit the last axis");
    Tensor *out = step_out(s, 0, a->dtype, a->rank, a->dim);
    if (!out)
        return false;
    Rows r = rows_of(a, a->rank - 1, a->rank);
    double *v = mem_alloc((size_t)(2 * r.n + 1) * sizeof *v), *gain = v + r.n;
    load_f64(g, 0, 1, r.n, gain);
    for (int64_t o = 0; o < r.outer; o++) {
        load_f64(a, o * r.n, 1, r.n, v);
        double factor = rms_of(r.n, v, eps);
        for (int64_t i = 0; i < r.n; i++)
            v[i] *= factor * gain[i];
        store_f64(out, o * r.n, r.n, v);
    }
    mem_free(v);
    return true;
}

bool interp_rms_factor(Step *s) {
    const Tensor *a = step_in(s, 0);
    double eps = node_float(s->n, AT_eps, 0);
    int64_t dim[MOEC_MAX_RANK];
    if (a->rank < 1)
        return step_error(s, DIAG_SHAPE_AXIS, "needs an axis");
    memcpy(dim, a->dim, sizeof dim);
    dim[a->rank - 1] = 1;
    Tensor *out = step_out(s, 0, a->dtype, a->rank, dim);
    if (!out)
        return false;
    Rows r = rows_of(a, a->rank - 1, a->rank);
    double *v = mem_alloc((size_t)(r.n + 1) * sizeof *v);
    for (int64_t o = 0; o < r.outer; o++) {
        load_f64(a, o * r.n, 1, r.n, v);
        double factor = rms_of(r.n, v, eps);
        store_f64(out, o, 1, &factor);
    }
    mem_free(v);
    return true;
}
