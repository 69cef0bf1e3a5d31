/* Differences of tensors, relative to their norm: sums of many products are as exact as that, whatever single
 * ones are. */
#include "compare.h"

#include <math.h>
#include <string.h>

#define MASK 1e30

static bool same_type(const Tensor *a, const Tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

static Departure integers_depart(const Tensor *got, const Tensor *want, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (tensor_get_i64(got, i) != tensor_get_i64(want, i))
            return (Departure){INFINITY, i, (double)tensor_get_i64(got, i), (double)tensor_get_i64(want, i)};
    return (Departure){.at = -1};
}

double tensor_rms(const Tensor *t) {
    double sum = 0;
    int64_t count = 0;
    if (!dtype_is_float(t->dtype) || !tensor_count(t, &count) || !count)
        return 0;
    for (int64_t i = 0; i < count; i++) {
        double v = tensor_get_f64(t, i);
        sum += fabs(v) < MASK ? v * v : 0; /* a NaN is not less */
    }
    return sqrt(sum / (double)count);
}

Departure tensors_depart(const Tensor *got, const Tensor *want, double least) {
    Departure x = {.at = -1};
    double diff = 0, norm = 0, worst = 0;
    int64_t count = 0;
    if (!same_type(got, want) || !tensor_count(want, &count))
        return (Departure){INFINITY, -1, 0, 0};
    if (!dtype_is_float(want->dtype))
        return integers_depart(got, want, count);
    for (int64_t i = 0; i < count; i++) {
        double a = tensor_get_f64(got, i), b = tensor_get_f64(want, i);
        if (a == b || (isnan(a) && isnan(b))) {
            norm += fabs(b) < MASK ? b * b : 0;
            continue;
        }
        if (!isfinite(a) || !isfinite(b))
            return (Departure){INFINITY, i, a, b};
        diff += (a - b) * (a - b);
        norm += b * b;
        if (x.at < 0 || fabs(a - b) > worst) {
            worst = fabs(a - b);
            x = (Departure){0, i, a, b};
        }
    }
    if (norm < (double)count * least * least)
        norm = (double)count * least * least;
    x.relative = sqrt(norm > 0 ? diff / norm : diff);
    return x;
}
