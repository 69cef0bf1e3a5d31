/* derive, without padding: the source tokens of all rows of a batch one behind the other, [1,N] in the place of [B,S], and
 * for each row its span of them, spans[b,0] .. spans[b,1] - 1. What each token is made of is the same, so the results are.
 *
 * A proof stands in front: outside attention a token's values depend on that token alone, and attention, whose keys the span
 * says, is all that reads the mask. Where routers read a vector of the whole sentence, or a model mixes tokens otherwise, there
 * are the padded functions alone. */
#include "derive_impl.h"
#include "remark.h"
#include "rows.h"

#include <string.h>

/* ---- the proof ---- */

typedef struct Half {
    Deriver *dv;
    const Func *f;
    Rows rows;
    bool *mark;     /* what is needed of f */
    const bool *at; /* values that are there, NULL: none */
    uint32_t sym[2];
    const Node *node;
    const char *why;
} Half;

static void see_sym(void *ctx, uint32_t sym) {
    uint32_t *x = ctx;
    if (sym == x[0] || sym == x[1])
        x[2] = 1;
}

static bool mentions(const Half *h, Dim d) {
    uint32_t x[3] = {h->sym[0], h->sym[1], 0};
    dim_visit(h->dv->m->dims, d, see_sym, x);
    return x[2] != 0;
}

/* The keys of a packed attention need no mask. */
static bool by_span(const Half *h, const Node *n) {
    return n->op == OP_attention && (h->f == h->dv->enc || h->dv->tag[n->in[1]] < 0);
}

static void mark_needed(Half *h, const ValueId *out, uint32_t n_out) {
    h->mark = arena_array(h->dv->a, h->f->n_values + 1, sizeof *h->mark);
    for (uint32_t i = 0; i < n_out; i++)
        h->mark[out[i]] = true;
    for (NodeId i = h->f->n_nodes; i-- > 0;) {
        const Node *n = &h->f->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= h->mark[n->out + k] && !(h->at && h->at[n->out + k]);
        for (uint32_t k = 0; wanted && k < n->n_in; k++)
            if (n->in[k] != NONE && !(k == KEEP_OPERAND && by_span(h, n)))
                h->mark[n->in[k]] = true;
    }
}

/* Extents of anything but the rows do not tell how many there are. */
static bool says_rows(const Half *h, const Node *n) {
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const Attr *a = &n->attrs[i];
        if (attr_kind(a->key) == AK_DIM && mentions(h, a->d))
            return true;
        for (uint32_t j = 0; attr_kind(a->key) == AK_DIMS && j < a->dims.n; j++)
            if (mentions(h, a->dims.v[j]))
                return true;
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        const Type *t = &h->f->value[n->out + i].type;
        for (int k = h->rows.row[n->out + i] ? 2 : 0; k < t->rank; k++)
            if (mentions(h, t->dim[k]))
                return true;
    }
    return false;
}

static bool attends(Half *h, const Node *n) {
    h->why = "attention of another kind";
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != NONE && k != KEEP_OPERAND && (k < 3) != h->rows.row[n->in[k]])
            return false;
    return h->rows.row[n->out] = n->n_in <= KEEP_OPERAND + 1;
}

/* None of these inputs is needed. */
static bool reads_no_other(Half *h, ValueId mask, ValueId sentence, ValueId hidden) {
    const ValueId other[3] = {mask, sentence, hidden};
    static const char *const why[3] = {"the mask is read outside attention", "routers read the sentence as a whole",
                                       "the decoder reads the encoder's states outside attention"};
    for (int i = 0; i < 3; i++)
        if (other[i] != NONE && h->mark[other[i]]) {
            h->why = why[i];
            return false;
        }
    return true;
}

/* Whether out[] depends on `in` token by token, and on no other input. */
static bool token_by_token(Half *h, const Inputs *inputs, ValueId in, const ValueId *out, uint32_t n_out) {
    const Type *t = &h->f->value[in].type;
    h->why = "its lengths are constants";
    if (!dim_as_sym(h->dv->m->dims, t->dim[0], &h->sym[0]) || !dim_as_sym(h->dv->m->dims, t->dim[1], &h->sym[1]) ||
        h->sym[0] == h->sym[1])
        return false;
    h->rows = (Rows){.m = h->dv->m, .f = h->f, .n = 2, .dim = {t->dim[0], t->dim[1]}};
    h->rows.row = arena_array(h->dv->a, h->f->n_values + 1, sizeof *h->rows.row);
    h->rows.row[in] = true;
    mark_needed(h, out, n_out);
    if (!reads_no_other(h, inputs->mask, inputs->sentence, NONE))
        return false;
    for (NodeId i = 0; i < h->f->n_nodes; i++) {
        const Node *n = h->node = &h->f->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= h->mark[n->out + k];
        if (!wanted)
            continue;
        bool local = n->op == OP_attention ? attends(h, n) : rows_node(&h->rows, n);
        if (!local) {
            h->why = n->op == OP_attention ? h->why : h->rows.why;
            return false;
        }
        h->why = "the number of rows or tokens is part of it";
        if (says_rows(h, n))
            return false;
    }
    h->node = NULL;
    h->why = "what is made does not depend on the tokens";
    for (uint32_t i = 0; i < n_out; i++)
        if (!h->rows.row[out[i]])
            return false;
    return true;
}

static bool encoder_packs(Half *h) {
    Deriver *dv = h->dv;
    ValueId out = unrounded(dv->enc, dv->enc->output[0]);
    return token_by_token(h, &dv->ein, dv->ein.ids, &out, 1);
}

static bool decoder_packs(Half *h, const ValueId *kv, uint32_t n_kv, ValueId logits) {
    Deriver *dv = h->dv;
    if (!token_by_token(h, &dv->din, dv->din.hidden, kv, n_kv))
        return false;
    bool *at = arena_array(dv->a, h->f->n_values + 1, sizeof *at);
    for (uint32_t i = 0; i < n_kv; i++)
        at[kv[i]] = true;
    h->at = at;
    mark_needed(h, &logits, 1);
    return reads_no_other(h, dv->din.mask, dv->din.sentence, dv->din.hidden);
}

/* ---- what stands in the place of what ---- */

static bool find_extents(Deriver *dv, const char **why) {
    DimTable *t = dv->m->dims;
    int64_t rows = dim_upper(t, dv->B), length = dim_upper(t, dv->S), all;
    *why = rows == 1 ? "batches have one row" : "lengths are unbounded";
    if (rows == 1 || rows == DIM_UNBOUNDED || length == DIM_UNBOUNDED || !mul_i64(rows, length, &all))
        return false;
    uint32_t sym;
    dv->N = dim_sym(t, str_c("N"));
    CHECK(dim_as_sym(t, dv->N, &sym));
    dim_sym_at(t, sym)->lo = 1;
    dim_sym_at(t, sym)->hi = all;
    Dim one = dim_const(t, 1);
    const Type *ids = &dv->enc->value[dv->ein.ids].type, *hidden = &dv->dec->value[dv->din.hidden].type;
    rename_add(&dv->enc_packed, t, ids->dim[0], one);
    rename_add(&dv->enc_packed, t, ids->dim[1], dv->N);
    rename_add(&dv->dec_packed, t, hidden->dim[0], one);
    rename_add(&dv->dec_packed, t, hidden->dim[1], dv->N);
    rename_finish(&dv->enc_packed, t);
    rename_finish(&dv->dec_packed, t);
    return true;
}

static void tell_missed(const Deriver *dv, const Half *h, const char *why) {
    const char *op = h && h->node ? op_info(h->node->op)->name : NULL;
    remark(dv->m, R_not_packed, h ? h->f : dv->enc, h ? h->node : NULL, "rows keep their padding: %s%s%s", op ? op : "",
           op ? ": " : "", why);
}

bool packing_find(Deriver *dv, const ValueId *kv, uint32_t n_kv, ValueId logits) {
    Half enc = {.dv = dv, .f = dv->enc}, dec = {.dv = dv, .f = dv->dec};
    const char *why;
    if (!encoder_packs(&enc))
        tell_missed(dv, &enc, enc.why);
    else if (!decoder_packs(&dec, kv, n_kv, logits))
        tell_missed(dv, &dec, dec.why);
    else if (!find_extents(dv, &why))
        tell_missed(dv, NULL, why);
    else {
        remark(dv->m, R_packed, dv->enc, NULL, "tokens of a batch can stand in one row, without padding");
        return true;
    }
    return false;
}

ValueId spans_input(Deriver *dv, Func *f) {
    Dim dim[2] = {dv->B, dim_const(dv->m->dims, 2)};
    return func_input(dv->m, f, str_c("spans"), type_ranked(DT_I64, 2, dim));
}

void packed_attention(Deriver *dv, Copy *c, const Node *n, const ValueId *in) {
    ValueId all[SPANS_OPERAND + 1];
    Attr attrs[12];
    CHECK(n->n_attrs <= 12 && n->n_in <= SPANS_OPERAND);
    for (uint32_t i = 0; i < SPANS_OPERAND; i++)
        all[i] = i < n->n_in && i != KEEP_OPERAND ? in[i] : NONE;
    all[SPANS_OPERAND] = c->spans;
    for (uint32_t i = 0; i < n->n_attrs; i++)
        attrs[i] = rename_attr(dv, n->attrs[i], c->names);
    c->map[n->out] = func_node(dv->m, c->f, OP_attention, all, SPANS_OPERAND + 1, attrs, n->n_attrs, n->origin);
}
