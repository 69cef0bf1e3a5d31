/* Rules of weights in panels and of formats other than f32 (pack.h). */
#include "interp.h"
#include "pack.h"

#include <math.h>
#include <string.h>

/* Panels [outer,P,rows,width] of a matrix [outer,K,N]; a row stands for `along` of K. */
typedef struct Panels {
    int64_t outer, k, n, p, width, rows, along;
} Panels;

static Panels panels_of(const Tensor *packed, const Tensor *matrix, int along) {
    int r = matrix->rank;
    return (Panels){extents_count(matrix->dim, 0, r - 2), matrix->dim[r - 2], matrix->dim[r - 1],
                    packed->dim[r - 2], packed->dim[r], packed->dim[r - 1], along};
}

/* Where element (o, k, n) stands, or what stands for it. */
static int64_t panel_at(const Panels *x, int64_t o, int64_t k, int64_t n) {
    return ((o * x->p + n / x->width) * x->rows + k / x->along) * x->width + n % x->width;
}

/* The result of a `pack` or `pack_scales`, zeros. */
static Tensor *panels_out(Step *s, DType t, int along) {
    const Tensor *a = step_in(s, 0);
    int r = a->rank;
    int64_t dim[MOEC_MAX_RANK], width = node_int(s->n, AT_width, 0), padded, deep;
    size_t bytes;
    CHECK(r >= 2 && r < MOEC_MAX_RANK && width > 0);
    if (!add_i64(a->dim[r - 1], width - 1, &padded) || !add_i64(a->dim[r - 2], along - 1, &deep)) {
        step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
        return NULL;
    }
    memcpy(dim, a->dim, sizeof dim);
    dim[r] = width;
    dim[r - 1] = deep / along;
    dim[r - 2] = padded / width;
    Tensor *out = step_out(s, 0, t, r + 1, dim);
    if (!out)
        return NULL;
    CHECK(tensor_bytes(out, &bytes));
    memset(out->data, 0, bytes);
    return out;
}

/* ---- blocks of numbers ------------------------------------------------------------------------------ */

/* Whether all weights are multiples of `scale`, to rounding. */
static bool are_multiples(const float *w, int64_t n, int64_t step, float scale) {
    for (int64_t i = 0; i < n; i++) {
        float x = w[i * step] / scale;
        if (!(fabsf(x - nearbyintf(x)) <= 1e-5f * fabsf(x) + 1e-6f))
            return false;
    }
    return true;
}

/* What the weights of a block, n along K and apart by `step`, are multiples of. Weights that are multiples of one number, as
 * those of a model that has been quantised before, stay what they are. Else the one of the largest magnitude is the lowest
 * number where it has no counterpart of the other sign, or either end. */
static float block_scale(const WeightFormatInfo *f, const float *w, int64_t n, int64_t step) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(w[i * step]) > fabsf(most) || isnan(w[i * step]))
            most = w[i * step];
    for (int m = -f->lowest; m > 0 && most != 0; m--) {
        bool fits = m < f->zero || most < 0;
        if (fits && are_multiples(w, n, step, fabsf(most) / (float)m))
            return fabsf(most) / (float)m;
    }
    return (f->lowest == 1 - f->zero ? fabsf(most) : -most) / (float)-f->lowest;
}

/* The number of w, `zero` added. */
static uint32_t number_of(const WeightFormatInfo *f, float w, float scale) {
    float x = scale == 0 ? 0 : nearbyintf(w / scale), most = (float)(f->zero - 1);
    x = x > (float)f->lowest ? x : (float)f->lowest; /* NaN too */
    return (uint32_t)((x < most ? x : most) + (float)f->zero);
}

static uint32_t bf16_bits(float w) {
    uint32_t u;
    memcpy(&u, &w, sizeof u);
    return isnan(w) ? (u >> 16) | 64 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static float bf16_value(uint32_t bits) {
    float f;
    bits <<= 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Where in a word weight i of it begins. */
static int bit_of(WeightFormat f, int64_t i) {
    return (int)(f == WEIGHT_BF16 ? 16 * i : f == WEIGHT_INT8 ? 8 * i : 8 * (i % 4) + i / 4 * 4);
}

/* ---- pack ------------------------------------------------------------------------------------------- */

static void pack_elements(Tensor *out, const Tensor *a) {
    Panels x = panels_of(out, a, 1);
    size_t elem = dtype_bytes(a->dtype);
    const char *from = a->data;
    for (int64_t o = 0; o < x.outer; o++)
        for (int64_t k = 0; k < x.k; k++)
            for (int64_t n = 0; n < x.n; n++, from += elem)
                memcpy((char *)out->data + (size_t)panel_at(&x, o, k, n) * elem, from, elem);
}

/* Zeros behind the last row and column are numbers, too. */
static void pack_words(Tensor *out, const Tensor *a, WeightFormat format) {
    const WeightFormatInfo *f = &weight_formats[format];
    Panels x = panels_of(out, a, f->per_word);
    uint32_t *word = out->data;
    int64_t columns = x.p * x.width, deep = x.rows * x.along, step = f->block ? f->block : 1;
    for (int64_t o = 0; o < x.outer; o++)
        for (int64_t first = 0; first < deep; first += step)
            for (int64_t n = 0; n < columns; n++) {
                int64_t there = n < x.n ? x.k - first : 0, end = deep - first < step ? deep - first : step;
                there = there < end ? there : end;
                const float *w = (const float *)a->data + (o * x.k + first) * x.n + n;
                float scale = f->block ? block_scale(f, w, there, x.n) : 1;
                for (int64_t i = 0; i < end; i++) {
                    float v = i < there ? w[i * x.n] : 0;
                    uint32_t bits = f->block ? number_of(f, v, scale) : bf16_bits(v);
                    word[panel_at(&x, o, first + i, n)] |= bits << bit_of(format, (first + i) % x.along);
                }
            }
}

bool interp_pack(Step *s) {
    const Tensor *a = step_in(s, 0);
    WeightFormat f = node_format(s->n);
    Tensor *out = f ? panels_out(s, DT_I32, weight_formats[f].per_word) : panels_out(s, a->dtype, 1);
    if (!out)
        return false;
    if (f)
        pack_words(out, a, f);
    else
        pack_elements(out, a);
    return true;
}

bool interp_pack_scales(Step *s) {
    const Tensor *a = step_in(s, 0);
    const WeightFormatInfo *f = &weight_formats[node_format(s->n)];
    Tensor *out = panels_out(s, DT_F32, f->block);
    if (!out)
        return false;
    Panels x = panels_of(out, a, f->block);
    for (int64_t o = 0; o < x.outer; o++)
        for (int64_t k = 0; k < x.k; k += f->block)
            for (int64_t n = 0; n < x.n; n++) {
                const float *w = (const float *)a->data + (o * x.k + k) * x.n + n;
                ((float *)out->data)[panel_at(&x, o, k, n)] = block_scale(f, w, x.k - k < f->block ? x.k - k : f->block, x.n);
            }
    return true;
}

/* ---- unpack ----------------------------------------------------------------------------------------- */

static bool are_panels(const Tensor *a, int rank, const int64_t *dim, int along) {
    bool fits = rank >= 2 && a->rank == rank + 1 && a->dim[rank - 1] == (dim[rank - 2] + along - 1) / along && a->dim[rank] > 0 &&
                a->dim[rank - 2] == (dim[rank - 1] + a->dim[rank] - 1) / a->dim[rank];
    for (int i = 0; fits && i < rank - 2; i++)
        fits = a->dim[i] == dim[i];
    return fits;
}

static void unpack_elements(const Tensor *a, Tensor *out) {
    Panels x = panels_of(a, out, 1);
    size_t elem = dtype_bytes(a->dtype);
    char *to = out->data;
    for (int64_t o = 0; o < x.outer; o++)
        for (int64_t k = 0; k < x.k; k++)
            for (int64_t n = 0; n < x.n; n++, to += elem)
                memcpy(to, (const char *)a->data + (size_t)panel_at(&x, o, k, n) * elem, elem);
}

static void unpack_words(const Tensor *a, const Tensor *scales, Tensor *out, WeightFormat format) {
    const WeightFormatInfo *f = &weight_formats[format];
    Panels x = panels_of(a, out, f->per_word), blocks = {0};
    const uint32_t *word = a->data;
    float *to = out->data;
    if (scales)
        blocks = panels_of(scales, out, f->block);
    for (int64_t o = 0; o < x.outer; o++)
        for (int64_t k = 0; k < x.k; k++)
            for (int64_t n = 0; n < x.n; n++) {
                uint32_t bits = word[panel_at(&x, o, k, n)] >> bit_of(format, k % x.along);
                *to++ = scales ? (float)((int)(bits & (2 * (uint32_t)f->zero - 1)) - f->zero) *
                                     ((const float *)scales->data)[panel_at(&blocks, o, k, n)]
                               : bf16_value(bits & 0xffff);
            }
}

bool interp_unpack(Step *s) {
    const Tensor *a = step_in(s, 0), *scales = s->n->n_in > 1 ? step_in(s, 1) : NULL;
    WeightFormat format = node_format(s->n);
    const WeightFormatInfo *f = &weight_formats[format];
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    if (!step_extents(s, 0, &rank, dim))
        return false;
    if (!are_panels(a, rank, dim, format ? f->per_word : 1) || (scales && !are_panels(scales, rank, dim, f->block)))
        return step_error(s, DIAG_SHAPE_MISFIT, "the operand is no panels of the result");
    Tensor *out = step_out(s, 0, format ? DT_F32 : a->dtype, rank, dim);
    if (!out)
        return false;
    if (format)
        unpack_words(a, scales, out, format);
    else
        unpack_elements(a, out);
    return true;
}

/* ---- quantize --------------------------------------------------------------------------------------- */

/* 127ths of the largest magnitude, as f32 has them: kernels scale by the reciprocal. */
static void round_row(const float *a, float *to, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(a[i]) > most || isnan(a[i]))
            most = fabsf(a[i]);
    float scale = most * (1.0f / 127.0f), inverse = most > 1e-30f ? 127.0f / most : 0;
    for (int64_t i = 0; i < n; i++)
        to[i] = nearbyintf(a[i] * inverse) * scale;
}

bool interp_quantize(Step *s) {
    const Tensor *a = step_in(s, 0);
    WeightFormat f = node_format(s->n);
    if (a->dtype != DT_F32 || a->rank < 1)
        return step_error(s, DIAG_IR_TYPE, "needs f32 along an axis");
    Tensor *out = step_out(s, 0, DT_F32, a->rank, a->dim);
    if (!out)
        return false;
    int64_t n = a->dim[a->rank - 1], rows = extents_count(a->dim, 0, a->rank - 1);
    const float *from = a->data;
    float *to = out->data;
    for (int64_t r = 0; f == WEIGHT_INT8 && r < rows; r++)
        round_row(from + r * n, to + r * n, n);
    for (int64_t i = 0; f != WEIGHT_INT8 && i < rows * n; i++)
        to[i] = f == WEIGHT_BF16 ? bf16_value(bf16_bits(from[i])) : from[i];
    return true;
}
