/* Attention and its gradient, one query at a time, in double. */
#include "interp.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef struct Attention {
    const Tensor *q, *k, *v, *bias, *keep, *own, *theirs, *drop, *spans;
    int64_t B, T, S, heads, width, value_width, R, center, offset, seed;
    int64_t first; /* key of the example at hand, where keys are packed */
    bool causal;
    double lowest;
    /* of one query */
    double *score, *mask, *line; /* probabilities; what dropout makes of 1; a row of q, k or v */
    bool *kept;
} Attention;

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void load_row(const Tensor *t, int64_t b, int64_t i, int64_t h, int64_t width, double *to) {
    load_f64(t, (b * t->dim[1] + i) * t->dim[2] + h * width, 1, width, to);
}

/* Key or value j of example b. */
static void load_key(const Attention *t, const Tensor *of, int64_t b, int64_t j, int64_t h, int64_t width, double *to) {
    load_row(of, t->spans ? 0 : b, t->first + j, h, width, to);
}

static int64_t bias_column(const Attention *t, int64_t i, int64_t j) {
    int64_t at = j - (i + t->offset) + t->center;
    return at < 0 ? 0 : at > t->R - 1 ? t->R - 1 : at;
}

static bool sees(const Attention *t, int64_t b, int64_t i, int64_t j) {
    if (t->keep && tensor_get_i64(t->keep, b * t->S + j) == 0)
        return false;
    if (t->own && tensor_get_i64(t->own, b * t->T + i) != tensor_get_i64(t->theirs, b * t->S + j))
        return false;
    return !t->causal || j <= i + t->offset;
}

/* Probabilities of query i over the keys, and what dropout multiplies them by. */
static void attention_row(Attention *t, int64_t b, int64_t h, int64_t i, const double *q) {
    double most = t->lowest, total = 0, drop = t->drop ? tensor_get_f64(t->drop, 0) : 0;
    CHECK(t->kept);
    for (int64_t j = 0; j < t->S; j++) {
        t->kept[j] = sees(t, b, i, j);
        t->score[j] = t->lowest;
        if (!t->kept[j])
            continue;
        load_key(t, t->k, b, j, h, t->width, t->line);
        t->score[j] = dot(q, t->line, t->width);
        if (t->bias)
            t->score[j] += tensor_get_f64(t->bias, h * t->R + bias_column(t, i, j));
    }
    for (int64_t j = 0; j < t->S; j++)
        most = t->score[j] > most || t->score[j] != t->score[j] ? t->score[j] : most;
    for (int64_t j = 0; j < t->S; j++)
        total += t->score[j] = exp(t->score[j] - most);
    for (int64_t j = 0; j < t->S; j++) {
        int64_t at = ((b * t->heads + h) * t->T + i) * t->S + j;
        t->score[j] /= total;
        t->mask[j] = !t->drop ? 1 : (double)uniform_f32(t->seed, at) >= drop ? 1 / (1 - drop) : 0;
    }
}

/* Operands from `first` on. */
static bool attention_open(Step *s, uint32_t first, Attention *t) {
    *t = (Attention){.q = step_in(s, first),
                     .k = step_in(s, first + 1),
                     .v = step_in(s, first + 2),
                     .bias = step_in(s, first + 3),
                     .keep = step_in(s, first + 4),
                     .own = step_in(s, first + 5),
                     .theirs = step_in(s, first + 6),
                     .drop = step_in(s, first + 8),
                     .spans = first ? NULL : step_in(s, 9)};
    const Tensor *seed = step_in(s, first + 7);
    const Attr *offset = node_attr(s->n, AT_offset);
    if (t->q->rank != 3 || t->k->rank != 3 || t->v->rank != 3)
        return step_error(s, DIAG_SHAPE_MISFIT, "q, k and v have three axes each");
    if (offset && !step_dim(s, offset->d, &t->offset))
        return false;
    t->heads = node_int(s->n, AT_heads, 1);
    t->causal = node_int(s->n, AT_causal, 0) != 0;
    t->center = node_int(s->n, AT_center, 0);
    t->lowest = t->q->dtype == DT_F64 ? -DBL_MAX : -(double)FLT_MAX;
    t->seed = seed ? tensor_get_i64(seed, 0) : 0;
    t->B = t->q->dim[0], t->T = t->q->dim[1], t->S = t->k->dim[1];
    int64_t wide = t->q->dim[2], deep = t->v->dim[2];
    bool fits = t->k->dim[0] == (t->spans ? 1 : t->B) && t->v->dim[0] == t->k->dim[0] && t->v->dim[1] == t->S &&
                t->k->dim[2] == wide && t->heads > 0 && wide % t->heads == 0 && deep % t->heads == 0;
    if (t->bias)
        fits = fits && t->bias->rank == 2 && t->bias->dim[0] == t->heads && t->bias->dim[1] > 0;
    if (t->keep)
        fits = fits && t->keep->rank == 2 && t->keep->dim[0] == t->B && t->keep->dim[1] == t->S;
    if (t->own)
        fits = fits && t->theirs && t->own->rank == 2 && t->own->dim[0] == t->B && t->own->dim[1] == t->T &&
               t->theirs->rank == 2 && t->theirs->dim[0] == t->B && t->theirs->dim[1] == t->S;
    if (t->spans) {
        bool own = t->spans->rank == 2 && t->spans->dim[0] == t->B && t->spans->dim[1] == 2;
        fits = fits && t->spans->rank == 2 && t->spans->dim[1] == 2 && (own || (t->B == 1 && t->T == t->S));
        t->B = t->spans->dim[0];
    }
    if (!fits)
        return step_error(s, DIAG_SHAPE_MISFIT, "the operands' extents do not agree");
    t->width = wide / t->heads;
    t->value_width = deep / t->heads;
    t->R = t->bias ? t->bias->dim[1] : 0;
    int64_t line = t->width > t->value_width ? t->width : t->value_width;
    t->score = mem_alloc((size_t)(2 * t->S + line + 1) * sizeof *t->score);
    t->mask = t->score + t->S;
    t->line = t->mask + t->S;
    t->kept = mem_alloc((size_t)t->S + 1);
    return true;
}

static void attention_close(Attention *t) {
    mem_free(t->score);
    mem_free(t->kept);
}

/* Keys of example b, and where queries are packed like them its queries, of which those before `b` were `*queries`. */
static bool attention_example(Step *s, Attention *t, int64_t b, int64_t *queries) {
    if (!t->spans)
        return true;
    int64_t from = tensor_get_i64(t->spans, 2 * b), to = tensor_get_i64(t->spans, 2 * b + 1), all = t->k->dim[1];
    bool packed = t->q->dim[0] != t->B;
    if (from < 0 || to < from || to > all || (packed && (from != *queries || (b == t->B - 1 && to != all))))
        return step_error(s, DIAG_SHAPE_INDEX, "span %lld, %lld .. %lld, does not fit %lld keys", (long long)b,
                          (long long)from, (long long)to, (long long)all);
    t->first = from;
    t->S = to - from;
    *queries = to;
    if (packed)
        t->T = t->S;
    return true;
}

bool interp_attention(Step *s) {
    Attention t;
    if (!attention_open(s, 0, &t))
        return false;
    int64_t before = 0;
    bool ok = true, packed = t.q->dim[0] != t.B;
    Tensor *out = step_out(s, 0, t.q->dtype, 3, (int64_t[]){t.q->dim[0], t.T, t.v->dim[2]});
    double *q = mem_alloc((size_t)(t.width + t.value_width + 1) * sizeof *q), *sum = q + t.width;
    for (int64_t b = 0; out && ok && b < t.B; b++) {
        ok = attention_example(s, &t, b, &before);
        for (int64_t i = 0; ok && i < t.T; i++)
            for (int64_t h = 0; h < t.heads; h++) {
                int64_t row = packed ? t.first + i : b * t.T + i;
                load_row(t.q, 0, row, h, t.width, q);
                attention_row(&t, b, h, i, q);
                memset(sum, 0, (size_t)t.value_width * sizeof *sum);
                for (int64_t j = 0; j < t.S; j++) {
                    double p = t.score[j] * t.mask[j];
                    if (p == 0)
                        continue;
                    load_key(&t, t.v, b, j, h, t.value_width, t.line);
                    for (int64_t c = 0; c < t.value_width; c++)
                        sum[c] += p * t.line[c];
                }
                store_f64(out, (row * t.heads + h) * t.value_width, t.value_width, sum);
            }
    }
    mem_free(q);
    attention_close(&t);
    return out && ok;
}

/* ---- the gradient ---- */

/* Sums over the queries of one example and head. */
typedef struct Adjoints {
    double *q, *dy, *dq, *dk, *dv, *dbias;
} Adjoints;

/* With P the probabilities and M dropout's factors: dS = P (M dy.v - sum P M dy.v), 0 where a key is not seen. */
static void attention_back(Attention *t, int64_t b, int64_t h, int64_t i, Adjoints *a) {
    double sum = 0;
    attention_row(t, b, h, i, a->q);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = 0; j < t->S; j++) {
            load_row(t->v, b, j, h, t->value_width, t->line);
            double dp = dot(a->dy, t->line, t->value_width) * t->mask[j], p = t->score[j];
            if (pass == 0) {
                sum += p * dp;
                continue;
            }
            double ds = t->kept[j] ? p * (dp - sum) : 0;
            for (int64_t c = 0; c < t->value_width; c++)
                a->dv[j * t->value_width + c] += p * t->mask[j] * a->dy[c];
            load_row(t->k, b, j, h, t->width, t->line);
            for (int64_t c = 0; c < t->width; c++) {
                a->dq[c] += ds * t->line[c];
                a->dk[j * t->width + c] += ds * a->q[c];
            }
            if (t->bias)
                a->dbias[bias_column(t, i, j)] += ds;
        }
}

bool interp_attention_grad(Step *s) {
    Attention t;
    if (!attention_open(s, 1, &t))
        return false;
    const Tensor *dy = step_in(s, 0);
    if (dy->rank != 3 || dy->dim[0] != t.B || dy->dim[1] != t.T || dy->dim[2] != t.v->dim[2]) {
        attention_close(&t);
        return step_error(s, DIAG_SHAPE_MISFIT, "the adjoint's extents do not agree");
    }
    Tensor *out[4] = {step_out(s, 0, t.q->dtype, 3, t.q->dim), step_out(s, 1, t.q->dtype, 3, t.k->dim),
                      step_out(s, 2, t.q->dtype, 3, t.v->dim), NULL};
    if (s->n->n_out > 3)
        out[3] = step_out(s, 3, t.q->dtype, 3, (int64_t[]){t.B, t.heads, t.R});
    bool ok = out[0] && out[1] && out[2] && (s->n->n_out == 3 || out[3]);
    int64_t keys = t.S * (t.width + t.value_width);
    double *room = mem_alloc((size_t)(2 * t.width + t.value_width + keys + t.R + 1) * sizeof *room);
    Adjoints a = {.q = room, .dq = room + t.width, .dy = room + 2 * t.width};
    a.dk = a.dy + t.value_width;
    a.dv = a.dk + t.S * t.width;
    a.dbias = a.dv + t.S * t.value_width;
    for (int64_t b = 0; ok && b < t.B; b++)
        for (int64_t h = 0; h < t.heads; h++) {
            memset(a.dk, 0, (size_t)(keys + t.R) * sizeof *room);
            for (int64_t i = 0; i < t.T; i++) {
                load_row(t.q, b, i, h, t.width, a.q);
                load_row(dy, b, i, h, t.value_width, a.dy);
                memset(a.dq, 0, (size_t)t.width * sizeof *room);
                attention_back(&t, b, h, i, &a);
                store_f64(out[0], ((b * t.T + i) * t.heads + h) * t.width, t.width, a.dq);
            }
            for (int64_t j = 0; j < t.S; j++) {
                store_f64(out[1], ((b * t.S + j) * t.heads + h) * t.width, t.width, a.dk + j * t.width);
                store_f64(out[2], ((b * t.S + j) * t.heads + h) * t.value_width, t.value_width,
                          a.dv + j * t.value_width);
            }
            if (out[3])
                store_f64(out[3], (b * t.heads + h) * t.R, t.R, a.dbias);
        }
    mem_free(room);
    attention_close(&t);
    return ok;
}
