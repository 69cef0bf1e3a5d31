/* A case through the functions without padding. */
#include "verify.h"

#include <string.h>

/* Ones in front of zeros; 0: it is anything else. */
static int64_t row_length(const Tensor *mask, int64_t row) {
    int64_t n = 0, all = mask->dim[1];
    while (n < all && tensor_get_i64(mask, row * all + n) == 1)
        n++;
    for (int64_t i = n; i < all; i++)
        if (tensor_get_i64(mask, row * all + i) != 0)
            return 0;
    return n;
}

static bool room(Verify *v, Tensor *t, DType dtype, int rank, const int64_t *dim) {
    *t = (Tensor){.dtype = dtype, .rank = rank};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    return tensor_alloc(v->a, t) || diag_error(v->d, DIAG_GOLDEN_ARRAY, v->dir, "an array is too large");
}

/* Spans of the rows; *tokens 0: they cannot be packed. */
static bool find_spans(Verify *v, const Tensor *mask, Tensor *spans, int64_t *tokens) {
    int64_t rows = mask->dim[0];
    *tokens = 0;
    if (!room(v, spans, DT_I64, 2, (int64_t[]){rows, 2}))
        return false;
    for (int64_t b = 0; b < rows; b++) {
        int64_t n = row_length(mask, b);
        if (n == 0) {
            *tokens = 0;
            break;
        }
        tensor_set_i64(spans, 2 * b, *tokens);
        *tokens += n;
        tensor_set_i64(spans, 2 * b + 1, *tokens);
    }
    return true;
}

/* Elements of `width` bytes between [B,S,..] and [1,N,..]. */
static void move_rows(const Tensor *spans, const Tensor *padded, const Tensor *packed, size_t width, bool pack) {
    for (int64_t b = 0; b < spans->dim[0]; b++) {
        int64_t from = tensor_get_i64(spans, 2 * b), n = tensor_get_i64(spans, 2 * b + 1) - from;
        char *x = (char *)padded->data + (size_t)(b * padded->dim[1]) * width, *y = (char *)packed->data + (size_t)from * width;
        memcpy(pack ? y : x, pack ? x : y, (size_t)n * width);
    }
}

bool verify_packed(Verify *v, const VerifyCase *c, VerifyPacked *out) {
    const moec_seq2seq *q = v->n.program->seq2seq;
    Tensor spans, ids, hidden, kv, scored[2];
    int64_t n;
    *out = (VerifyPacked){0};
    if (!q || q->tokens < 0 || q->encode_packed < 0)
        return true;
    if (!find_spans(v, c->mask, &spans, &n) || n == 0)
        return n == 0;
    v->sym[q->tokens] = n;
    if (!room(v, &ids, DT_I64, 2, (int64_t[]){1, n}) || !room(v, &out->hidden, DT_F32, 3, (int64_t[]){c->ids->dim[0], c->ids->dim[1], q->width}))
        return false;
    move_rows(&spans, c->ids, &ids, sizeof(int64_t), true);
    VerifyInput encode[] = {{"packed_ids", &ids}, {"spans", &spans}};
    if (!verify_call(v, "encode_packed", encode, 2, &hidden))
        return false;
    move_rows(&spans, &out->hidden, &hidden, (size_t)q->width * sizeof(float), false);
    if (!c->targets)
        return true;
    VerifyInput cross[] = {{"packed_hidden", &hidden}, {"spans", &spans}};
    if (!verify_call(v, "cross_packed", cross, 2, &kv))
        return false;
    VerifyInput score[] = {
        {"decoder_input_ids", c->targets}, {"packed_kv", &kv}, {"spans", &spans}, {"labels", c->labels}};
    if (!verify_call(v, "score_packed", score, 4, scored))
        return false;
    out->logprob = scored[0];
    out->logits = scored[1];
    return true;
}
