/* Token cross entropy and its two gradients: the logits of one token at a time, in double. */
#include "interp.h"

#include <math.h>
#include <string.h>

enum { IGNORED = -100 };

typedef struct Loss {
    const Tensor *x, *w, *labels, *log_z, *dloss;
    double smoothing, z;
    int64_t rows, width, vocab;
    bool swapped;                 /* w is [V,d] */
    double *token, *line, *logit; /* one block: x of a token, a row of w, the token's logits */
} Loss;

/* t is [B,T] as x is [B,T,d]; NULL: it is not there. */
static bool per_token(const Tensor *t, const Tensor *x) {
    return !t || (t->rank == 2 && t->dim[0] == x->dim[0] && t->dim[1] == x->dim[1]);
}

static bool loss_begin(Step *s, Loss *t) {
    *t = (Loss){.x = step_in(s, 0),
                .w = step_in(s, 1),
                .labels = step_in(s, 2),
                .log_z = step_in(s, 5),
                .dloss = step_in(s, 6),
                .swapped = node_int(s->n, AT_tb, 0) != 0};
    if (t->x->rank != 3 || t->w->rank != 2 || t->w->dim[t->swapped ? 1 : 0] != t->x->dim[2] ||
        step_in(s, 3)->rank != 0 || step_in(s, 4)->rank != 0 || !per_token(t->labels, t->x) ||
        !per_token(t->log_z, t->x) || !per_token(t->dloss, t->x))
        return step_error(s, DIAG_SHAPE_MISFIT, "the operands' extents do not agree");
    t->rows = t->x->dim[0] * t->x->dim[1];
    t->width = t->x->dim[2];
    t->vocab = t->w->dim[t->swapped ? 0 : 1];
    t->smoothing = tensor_get_f64(step_in(s, 3), 0);
    t->z = tensor_get_f64(step_in(s, 4), 0);
    int64_t longest = t->width > t->vocab ? t->width : t->vocab;
    t->token = mem_alloc((size_t)(t->width + longest + t->vocab + 1) * sizeof *t->token);
    t->line = t->token + t->width;
    t->logit = t->line + longest;
    return true;
}

/* The token's label, or -1 where its loss is ignored. */
static bool loss_label(Step *s, const Loss *t, int64_t row, int64_t *label) {
    *label = tensor_get_i64(t->labels, row);
    if (*label == IGNORED)
        *label = -1;
    else if (*label < 0 || *label >= t->vocab)
        return step_error(s, DIAG_SHAPE_INDEX, "label %lld is outside a vocabulary of %lld",
                          (long long)*label, (long long)t->vocab);
    return true;
}

static void loss_logits(const Loss *t, int64_t row) {
    load_f64(t->x, row * t->width, 1, t->width, t->token);
    memset(t->logit, 0, (size_t)t->vocab * sizeof *t->logit);
    if (!t->swapped)
        for (int64_t k = 0; k < t->width; k++) {
            load_f64(t->w, k * t->vocab, 1, t->vocab, t->line);
            for (int64_t v = 0; v < t->vocab; v++)
                t->logit[v] += t->token[k] * t->line[v];
        }
    else
        for (int64_t v = 0; v < t->vocab; v++) {
            load_f64(t->w, v * t->width, 1, t->width, t->line);
            for (int64_t k = 0; k < t->width; k++)
                t->logit[v] += t->token[k] * t->line[k];
        }
}

static double loss_log_z(const Loss *t, double *sum) {
    double most = -INFINITY, total = 0;
    *sum = 0;
    for (int64_t v = 0; v < t->vocab; v++)
        most = t->logit[v] > most || t->logit[v] != t->logit[v] ? t->logit[v] : most;
    for (int64_t v = 0; v < t->vocab; v++) {
        total += exp(t->logit[v] - most);
        *sum += t->logit[v];
    }
    return most + log(total);
}

bool interp_cross_entropy(Step *s) {
    Loss t;
    if (!loss_begin(s, &t))
        return false;
    Tensor *loss = step_out(s, 0, t.x->dtype, 2, t.labels->dim);
    Tensor *log_z = loss ? step_out(s, 1, t.x->dtype, 2, t.labels->dim) : NULL;
    bool ok = log_z != NULL;
    for (int64_t row = 0; ok && row < t.rows; row++) {
        int64_t label;
        double sum;
        ok = loss_label(s, &t, row, &label);
        if (!ok || label < 0)
            continue;
        loss_logits(&t, row);
        double z = loss_log_z(&t, &sum);
        tensor_set_f64(log_z, row, z);
        tensor_set_f64(loss, row,
                       (1 - t.smoothing) * (z - t.logit[label]) + t.smoothing * (z - sum / (double)t.vocab) +
                           t.z * z * z);
    }
    mem_free(t.token);
    return ok;
}

/* The token's logits become what the step's loss changes by when each of them does. False: the token is
 * ignored. */
static bool loss_dlogits(const Loss *t, int64_t row, int64_t label) {
    if (label < 0)
        return false;
    loss_logits(t, row);
    double z = tensor_get_f64(t->log_z, row), d = tensor_get_f64(t->dloss, row);
    for (int64_t v = 0; v < t->vocab; v++)
        t->logit[v] = d * ((1 + 2 * t->z * z) * exp(t->logit[v] - z) - t->smoothing / (double)t->vocab);
    t->logit[label] -= d * (1 - t->smoothing);
    return true;
}

bool interp_cross_entropy_dx(Step *s) {
    Loss t;
    if (!loss_begin(s, &t))
        return false;
    Tensor *dx = step_out(s, 0, t.x->dtype, 3, t.x->dim);
    bool ok = dx != NULL;
    for (int64_t row = 0; ok && row < t.rows; row++) {
        int64_t label;
        ok = loss_label(s, &t, row, &label);
        if (!ok || !loss_dlogits(&t, row, label))
            continue;
        for (int64_t k = 0; k < t.width; k++) {
            double sum = 0;
            load_f64(t.w, t.swapped ? k : k * t.vocab, t.swapped ? t.width : 1, t.vocab, t.line);
            for (int64_t v = 0; v < t.vocab; v++)
                sum += t.logit[v] * t.line[v];
            tensor_set_f64(dx, row * t.width + k, sum);
        }
    }
    mem_free(t.token);
    return ok;
}

bool interp_cross_entropy_dw(Step *s) {
    Loss t;
    if (!loss_begin(s, &t))
        return false;
    Tensor *dw = step_out(s, 0, t.x->dtype, 2, t.w->dim);
    double *sum = mem_alloc((size_t)(t.width * t.vocab + 1) * sizeof *sum);
    bool ok = dw != NULL;
    for (int64_t row = 0; ok && row < t.rows; row++) {
        int64_t label;
        ok = loss_label(s, &t, row, &label);
        if (!ok || !loss_dlogits(&t, row, label))
            continue;
        for (int64_t k = 0; k < t.width; k++)
            for (int64_t v = 0; v < t.vocab; v++)
                sum[t.swapped ? v * t.width + k : k * t.vocab + v] += t.token[k] * t.logit[v];
    }
    if (ok)
        store_f64(dw, 0, t.width * t.vocab, sum);
    mem_free(sum);
    mem_free(t.token);
    return ok;
}
