/* Strided iteration, copying and element conversion for the interpreter.
 *
 * Everything of size goes through here: runs are moved by memcpy where both sides are contiguous, in
 * square tiles where one side's contiguous axis is not the other's, and never through double. */
#include "interp.h"

#include <string.h>

/* ---- walks -------------------------------------------------------------------------------------- */

static bool mergeable(const Walk *w, int outer, Strides *stride, int axis, int64_t dim) {
    for (int k = 0; k < w->n; k++)
        if (w->stride[k][outer] != stride[k][axis] * dim)
            return false;
    return true;
}

/* Fills w->dim and w->stride with unit axes dropped and adjacent ones merged; false: no elements. */
static bool walk_merge(Walk *w, int n, int rank, const int64_t *dim, Strides *stride) {
    w->n = n;
    w->rank = 0;
    for (int i = 0; i < rank; i++) {
        if (dim[i] == 0)
            return false;
        if (dim[i] == 1)
            continue;
        bool merge = w->rank > 0 && mergeable(w, w->rank - 1, stride, i, dim[i]);
        int at = merge ? w->rank - 1 : w->rank++;
        w->dim[at] = merge ? w->dim[at] * dim[i] : dim[i];
        for (int k = 0; k < n; k++)
            w->stride[k][at] = stride[k][i];
    }
    return true;
}

static void walk_start(Walk *w) {
    memset(w->pos, 0, sizeof w->pos);
    memset(w->off, 0, sizeof w->off);
}

bool walk_begin(Walk *w, int n, int rank, const int64_t *dim, Strides *stride) {
    if (!walk_merge(w, n, rank, dim, stride))
        return false;
    walk_start(w);
    if (w->rank == 0) {
        w->run = 1;
        memset(w->step, 0, sizeof w->step);
        return true;
    }
    w->rank--;
    w->run = w->dim[w->rank];
    for (int k = 0; k < n; k++)
        w->step[k] = w->stride[k][w->rank];
    return true;
}

bool walk_next(Walk *w) {
    for (int i = w->rank - 1; i >= 0; i--) {
        for (int k = 0; k < w->n; k++)
            w->off[k] += w->stride[k][i];
        if (++w->pos[i] < w->dim[i])
            return true;
        w->pos[i] = 0;
        for (int k = 0; k < w->n; k++)
            w->off[k] -= w->stride[k][i] * w->dim[i];
    }
    return false;
}

void strides_dense(int rank, const int64_t *dim, int64_t *stride) {
    uint64_t at = 1; /* beside a zero extent the others may be anything: wraps, unused */
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = (int64_t)at;
        at *= (uint64_t)dim[i];
    }
}

bool strides_broadcast(const Tensor *t, int rank, const int64_t *dim, int64_t *stride) {
    if (t->rank > rank)
        return false;
    Strides own = {0};
    strides_dense(t->rank, t->dim, own);
    int lead = rank - t->rank;
    for (int i = 0; i < lead; i++)
        stride[i] = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] != dim[lead + i] && t->dim[i] != 1)
            return false;
        stride[lead + i] = t->dim[i] == 1 ? 0 : own[i];
    }
    return true;
}

bool extents_broadcast(const Tensor *t, int *rank, int64_t *dim) {
    if (t->rank > *rank) {
        int grow = t->rank - *rank;
        memmove(dim + grow, dim, (size_t)*rank * sizeof *dim);
        for (int i = 0; i < grow; i++)
            dim[i] = 1;
        *rank = t->rank;
    }
    int lead = *rank - t->rank;
    for (int i = 0; i < t->rank; i++) {
        int64_t *have = &dim[lead + i];
        if (*have == t->dim[i] || t->dim[i] == 1)
            continue;
        if (*have != 1)
            return false;
        *have = t->dim[i];
    }
    return true;
}

int64_t extents_count(const int64_t *dim, int from, int to) {
    int64_t n = 1;
    for (int i = from; i < to; i++)
        if (dim[i] == 0)
            return 0;
    for (int i = from; i < to; i++)
        if (!mul_i64(n, dim[i], &n))
            return 0; /* only beside a zero extent outside from..to */
    return n;
}

/* ---- copies --------------------------------------------------------------------------------------- */

enum { TILE = 32 };

/* A plane of rows x cols elements, in tiles so that neither side's cache lines are fetched over and over. */
#define PLANE(T)                                                                                             \
    static void plane_##T(void *dst, int64_t dr, int64_t dc, const void *src, int64_t sr, int64_t sc,        \
                          int64_t rows, int64_t cols) {                                                      \
        for (int64_t i0 = 0; i0 < rows; i0 += TILE)                                                          \
            for (int64_t j0 = 0; j0 < cols; j0 += TILE)                                                      \
                for (int64_t i = i0; i < rows && i < i0 + TILE; i++)                                         \
                    for (int64_t j = j0; j < cols && j < j0 + TILE; j++)                                     \
                        ((T *)dst)[i * dr + j * dc] = ((const T *)src)[i * sr + j * sc];                     \
    }
PLANE(uint8_t)
PLANE(uint16_t)
PLANE(uint32_t)
PLANE(uint64_t)

typedef void PlaneFn(void *, int64_t, int64_t, const void *, int64_t, int64_t, int64_t, int64_t);

static PlaneFn *plane_for(size_t elem) {
    switch (elem) {
    case 1:
        return plane_uint8_t;
    case 2:
        return plane_uint16_t;
    case 4:
        return plane_uint32_t;
    case 8:
        return plane_uint64_t;
    default:
        BUG("element of %zu bytes", elem);
    }
}

static void axis_remove(Walk *w, int axis) {
    size_t rest = (size_t)(w->rank - 1 - axis);
    memmove(&w->dim[axis], &w->dim[axis + 1], rest * sizeof w->dim[0]);
    for (int k = 0; k < w->n; k++)
        memmove(&w->stride[k][axis], &w->stride[k][axis + 1], rest * sizeof w->stride[k][0]);
    w->rank--;
}

void copy_strided(void *dst, const int64_t *dst_stride, const void *src, const int64_t *src_stride, int rank,
                  const int64_t *dim, size_t elem) {
    Walk w;
    Strides stride[2];
    memcpy(stride[0], dst_stride, (size_t)rank * sizeof(int64_t));
    memcpy(stride[1], src_stride, (size_t)rank * sizeof(int64_t));
    if (!walk_merge(&w, 2, rank, dim, stride))
        return;
    int64_t cols = 1, rows = 1, dc = 0, sc = 0, dr = 0, sr = 0;
    if (w.rank > 0) {
        int last = w.rank - 1;
        cols = w.dim[last], dc = w.stride[0][last], sc = w.stride[1][last];
        axis_remove(&w, last);
    }
    bool dense = cols == 1 || (dc == 1 && sc == 1);
    for (int i = 0; !dense && sc != 0 && i < w.rank; i++)
        if (w.stride[1][i] == 1) {
            rows = w.dim[i], dr = w.stride[0][i], sr = w.stride[1][i];
            axis_remove(&w, i);
            break;
        }
    PlaneFn *plane = plane_for(elem);
    walk_start(&w);
    do {
        char *to = (char *)dst + w.off[0] * (int64_t)elem;
        const char *from = (const char *)src + w.off[1] * (int64_t)elem;
        if (dense)
            memcpy(to, from, (size_t)cols * elem);
        else
            plane(to, dr, dc, from, sr, sc, rows, cols);
    } while (walk_next(&w));
}

/* ---- elements --------------------------------------------------------------------------------------- */

Arith dtype_arith(DType t) {
    return t == DT_F64 ? AR_F64 : t == DT_F32 || t == DT_F16 ? AR_F32 : AR_I64;
}

#define LOAD(ctype, conv)                                                                                    \
    {                                                                                                        \
        const ctype *p = (const ctype *)t->data + off;                                                       \
        for (int64_t i = 0; i < n; i++, p += step)                                                           \
            out[i] = conv(*p);                                                                               \
        break;                                                                                               \
    }
#define AS_IS(x)    (x)
#define AS_BOOL(x)  ((x) != 0)
#define AS_FLOAT(x) ((float)(x))

void load_f32(const Tensor *t, int64_t off, int64_t step, int64_t n, float *out) {
    switch (t->dtype) {
    case DT_BOOL:
        LOAD(uint8_t, AS_BOOL)
    case DT_U8:
        LOAD(uint8_t, AS_IS)
    case DT_I8:
        LOAD(int8_t, AS_IS)
    case DT_U16:
        LOAD(uint16_t, AS_IS)
    case DT_I16:
        LOAD(int16_t, AS_IS)
    case DT_I32:
        LOAD(int32_t, AS_FLOAT)
    case DT_I64:
        LOAD(int64_t, AS_FLOAT)
    case DT_F16:
        LOAD(uint16_t, f16_to_f32)
    case DT_F32:
        LOAD(float, AS_IS)
    case DT_F64:
        LOAD(double, AS_FLOAT)
    case DT_COUNT:
        BUG("no such type");
    }
}

void load_f64(const Tensor *t, int64_t off, int64_t step, int64_t n, double *out) {
    switch (t->dtype) {
    case DT_BOOL:
        LOAD(uint8_t, AS_BOOL)
    case DT_U8:
        LOAD(uint8_t, AS_IS)
    case DT_I8:
        LOAD(int8_t, AS_IS)
    case DT_U16:
        LOAD(uint16_t, AS_IS)
    case DT_I16:
        LOAD(int16_t, AS_IS)
    case DT_I32:
        LOAD(int32_t, AS_IS)
    case DT_I64:
        LOAD(int64_t, (double))
    case DT_F16:
        LOAD(uint16_t, f16_to_f32)
    case DT_F32:
        LOAD(float, AS_IS)
    case DT_F64:
        LOAD(double, AS_IS)
    case DT_COUNT:
        BUG("no such type");
    }
}

void load_i64(const Tensor *t, int64_t off, int64_t step, int64_t n, int64_t *out) {
    switch (t->dtype) {
    case DT_BOOL:
        LOAD(uint8_t, AS_BOOL)
    case DT_U8:
        LOAD(uint8_t, AS_IS)
    case DT_I8:
        LOAD(int8_t, AS_IS)
    case DT_U16:
        LOAD(uint16_t, AS_IS)
    case DT_I16:
        LOAD(int16_t, AS_IS)
    case DT_I32:
        LOAD(int32_t, AS_IS)
    case DT_I64:
        LOAD(int64_t, AS_IS)
    case DT_F16:
    case DT_F32:
    case DT_F64:
    case DT_COUNT:
        BUG("%s is not an integer type", dtype_name(t->dtype));
    }
}

/* What each integer type holds. */
static const struct {
    int64_t lo, hi;
} int_range[DT_COUNT] = {
    [DT_BOOL] = {0, 1},
    [DT_U8] = {0, UINT8_MAX},
    [DT_I8] = {INT8_MIN, INT8_MAX},
    [DT_U16] = {0, UINT16_MAX},
    [DT_I16] = {INT16_MIN, INT16_MAX},
    [DT_I32] = {INT32_MIN, INT32_MAX},
    [DT_I64] = {INT64_MIN, INT64_MAX},
};

/* Toward zero, saturating; NaN gives 0. */
static int64_t int_from(DType t, double v) {
    if (t == DT_BOOL)
        return v != 0;
    if (v != v)
        return 0;
    if (v <= (double)int_range[t].lo)
        return int_range[t].lo;
    if (v >= (double)int_range[t].hi)
        return int_range[t].hi;
    return (int64_t)v;
}

/* The wrapping conversion of C, spelled without implementation-defined steps for the signed types. */
static int64_t int_wrap(DType t, int64_t v) {
    if (t == DT_BOOL)
        return v != 0;
    if (t == DT_I64)
        return v;
    uint64_t span = (uint64_t)(int_range[t].hi - int_range[t].lo) + 1;
    uint64_t low = (uint64_t)v & (span - 1);
    return low > (uint64_t)int_range[t].hi ? (int64_t)low - (int64_t)span : (int64_t)low;
}

#define STORE(ctype, expr)                                                                                   \
    {                                                                                                        \
        ctype *p = (ctype *)t->data + off;                                                                   \
        for (int64_t i = 0; i < n; i++)                                                                      \
            p[i] = (ctype)(expr);                                                                            \
        break;                                                                                               \
    }

void store_f32(Tensor *t, int64_t off, int64_t n, const float *v) {
    switch (t->dtype) {
    case DT_BOOL:
        STORE(uint8_t, v[i] != 0)
    case DT_U8:
        STORE(uint8_t, int_from(DT_U8, v[i]))
    case DT_I8:
        STORE(int8_t, int_from(DT_I8, v[i]))
    case DT_U16:
        STORE(uint16_t, int_from(DT_U16, v[i]))
    case DT_I16:
        STORE(int16_t, int_from(DT_I16, v[i]))
    case DT_I32:
        STORE(int32_t, int_from(DT_I32, v[i]))
    case DT_I64:
        STORE(int64_t, int_from(DT_I64, v[i]))
    case DT_F16:
        STORE(uint16_t, f16_from_f32(v[i]))
    case DT_F32:
        STORE(float, v[i])
    case DT_F64:
        STORE(double, v[i])
    case DT_COUNT:
        BUG("no such type");
    }
}

void store_f64(Tensor *t, int64_t off, int64_t n, const double *v) {
    switch (t->dtype) {
    case DT_BOOL:
        STORE(uint8_t, v[i] != 0)
    case DT_U8:
        STORE(uint8_t, int_from(DT_U8, v[i]))
    case DT_I8:
        STORE(int8_t, int_from(DT_I8, v[i]))
    case DT_U16:
        STORE(uint16_t, int_from(DT_U16, v[i]))
    case DT_I16:
        STORE(int16_t, int_from(DT_I16, v[i]))
    case DT_I32:
        STORE(int32_t, int_from(DT_I32, v[i]))
    case DT_I64:
        STORE(int64_t, int_from(DT_I64, v[i]))
    case DT_F16:
        STORE(uint16_t, f16_from_f32((float)v[i]))
    case DT_F32:
        STORE(float, v[i])
    case DT_F64:
        STORE(double, v[i])
    case DT_COUNT:
        BUG("no such type");
    }
}

void store_i64(Tensor *t, int64_t off, int64_t n, const int64_t *v) {
    switch (t->dtype) {
    case DT_BOOL:
        STORE(uint8_t, v[i] != 0)
    case DT_U8:
        STORE(uint8_t, v[i])
    case DT_I8:
        STORE(int8_t, int_wrap(DT_I8, v[i]))
    case DT_U16:
        STORE(uint16_t, v[i])
    case DT_I16:
        STORE(int16_t, int_wrap(DT_I16, v[i]))
    case DT_I32:
        STORE(int32_t, int_wrap(DT_I32, v[i]))
    case DT_I64:
        STORE(int64_t, v[i])
    case DT_F16:
        STORE(uint16_t, f16_from_f32((float)v[i]))
    case DT_F32:
        STORE(float, v[i])
    case DT_F64:
        STORE(double, v[i])
    case DT_COUNT:
        BUG("no such type");
    }
}
