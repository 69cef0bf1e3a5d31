/* match: attention.
 *
 * The root is the token-major result [B,T,H*D]. Behind it must stand softmax(q k' + added) v, where the
 * layouts of q, k, v and the result are proved with index functions: whatever reshapes and transposes split
 * and merge the heads, element (b, h, t, e) has to be element (b, t, h*D + e) of a token-major value. */
#include "match_impl.h"

#include <inttypes.h>
#include <string.h>

typedef struct Shape {
    Type scores;            /* [B,H,T,S] */
    Dim width;              /* D */
    IxId b, h, i, j, e, he; /* he = h*D + e */
} Shape;

static bool is_move(const Node *n) {
    return n && (n->op == OP_reshape || n->op == OP_transpose);
}

/* The value behind v's reshapes and transposes. */
static ValueId behind_moves(const Func *f, ValueId v) {
    for (;;) {
        v = match_strip(f, v);
        const Node *n = value_node(f, v);
        if (!n || (!is_move(n) && n->op != OP_broadcast))
            return v;
        v = n->in[0];
    }
}

/* Splits scores into the product of queries and keys and what is added to it. */
static bool split_scores(const Func *f, ValueId v, const Node **product, ValueId *leaf, uint32_t *n_leaf) {
    ValueId work[16] = {v};
    uint32_t left = 1;
    *product = NULL;
    *n_leaf = 0;
    while (left) {
        ValueId w = match_strip(f, work[--left]);
        const Node *n = value_node(f, w);
        if (n && n->op == OP_add) {
            if (left + 2 > 16)
                return false;
            work[left++] = n->in[1];
            work[left++] = n->in[0];
        } else if (n && n->op == OP_matmul) {
            if (*product)
                return false;
            *product = n;
        } else {
            if (*n_leaf == 16)
                return false;
            leaf[(*n_leaf)++] = w;
        }
    }
    return *product != NULL;
}

/* The operand of a product that is token-major behind its moves: element `at` of v is element want[] of
 * *from. */
static bool token_major(Matcher *mt, ValueId v, const IxId *at, const IxId *want, Dim tokens, ValueId *from) {
    ValueId w = behind_moves(mt->f, v);
    const Type *t = &mt->f->value[w].type;
    int64_t width;
    if (t->rank != 3 || t->dtype != DT_F32 || t->dim[1] != tokens ||
        !dim_is_const(mt->m->dims, t->dim[2], &width))
        return false;
    IxId e = index_pull(mt->x, v, at, IX_MOVES);
    if (e == IX_FAIL || index_expr(mt->x, e)->kind != IX_ELEM || index_expr(mt->x, e)->value != w)
        return false;
    for (uint32_t k = 0; k < 3; k++)
        if (index_arg(mt->x, e, k) != want[k])
            return false;
    *from = w;
    return true;
}

/* Operand positions of a matmul by row and column, honouring a transposed operand. */
static void swapped(IxId *at, int rank, IxId row, IxId col, bool swap) {
    at[rank - 2] = swap ? col : row;
    at[rank - 1] = swap ? row : col;
}

static bool read_attention(Matcher *mt, const Node *root, const Node *out, const Node *soft, const char **why,
                           const Node **where, ValueId *in, Additive **ad, Shape *s) {
    const Func *f = mt->f;
    Module *m = mt->m;
    const Type *scores = &f->value[soft->in[0]].type, *result = &f->value[root->out].type;
    const Node *product;
    ValueId leaf[16];
    uint32_t n_leaf;
    *where = soft;
    *why = "the softmax is not over the last of four axes [batch, head, query, key]";
    if (scores->rank != 4 || scores->dtype != DT_F32 || node_int(soft, AT_axis, -1) != 3)
        return false;
    *why = "the scores are not one product of queries and keys and terms added to it";
    if (!split_scores(f, soft->in[0], &product, leaf, &n_leaf))
        return false;
    const Type *tq = &f->value[product->in[0]].type, *tv = &f->value[out->in[1]].type;
    *where = product;
    *why = "the product of queries and keys has an unexpected shape";
    if (tq->rank != 4 || f->value[product->in[1]].type.rank != 4 || tv->rank != 4 ||
        !type_eq(&f->value[product->out].type, scores) || node_int(out, AT_ta, 0))
        return false;
    int64_t heads, width, all;
    bool ta = node_int(product, AT_ta, 0), tb = node_int(product, AT_tb, 0), vb = node_int(out, AT_tb, 0);
    s->scores = *scores;
    s->width = tq->dim[ta ? 2 : 3];
    if (!dim_is_const(m->dims, s->width, &width) || !dim_is_const(m->dims, scores->dim[1], &heads) ||
        !dim_is_const(m->dims, result->dim[2], &all) || heads < 1 || width < 1 || heads > all ||
        heads * width != all)
        return false;
    s->b = match_axis(mt, 0, scores->dim[0]);
    s->h = match_axis(mt, 1, scores->dim[1]);
    s->i = match_axis(mt, 2, scores->dim[2]);
    s->j = match_axis(mt, 3, scores->dim[3]);
    s->e = match_axis(mt, 4, s->width);
    DimTable *t = index_dims(mt->x);
    Dim hd = dim_mul(t, index_expr(mt->x, s->h)->d, dim_const(t, width));
    s->he = index_int(mt->x, dim_add(t, hd, index_expr(mt->x, s->e)->d));

    IxId at[4] = {s->b, s->h, 0, 0}, q[3] = {s->b, s->i, s->he}, kv[3] = {s->b, s->j, s->he};
    swapped(at, 4, s->i, s->e, ta);
    *why = "the queries are not heads of a [batch, token, width] value";
    if (!token_major(mt, product->in[0], at, q, scores->dim[2], &in[0]))
        return false;
    swapped(at, 4, s->e, s->j, tb);
    *why = "the keys are not heads of a [batch, token, width] value";
    if (!token_major(mt, product->in[1], at, kv, scores->dim[3], &in[1]))
        return false;
    *where = out;
    swapped(at, 4, s->j, s->e, vb);
    *why = "the values are not heads of a [batch, token, width] value";
    if (!token_major(mt, out->in[1], at, kv, scores->dim[3], &in[2]))
        return false;
    *where = root;
    *why = "the heads are not merged to [batch, token, width]";
    IxId e = index_pull(mt->x, root->out, q, IX_MOVES);
    IxId want[4] = {s->b, s->h, s->i, s->e};
    if (e == IX_FAIL || index_expr(mt->x, e)->kind != IX_ELEM || index_expr(mt->x, e)->value != out->out)
        return false;
    for (uint32_t k = 0; k < 4; k++)
        if (index_arg(mt->x, e, k) != want[k])
            return false;
    *ad = match_additive(mt, leaf, n_leaf, scores);
    *why = (*ad)->why;
    *where = (*ad)->where ? (*ad)->where : n_leaf ? value_node(f, leaf[0]) : soft;
    return (*ad)->ok;
}

static const char *attention_text(Matcher *mt, int64_t heads, const Additive *ad) {
    const char *bias = "no bias";
    int64_t width = 0;
    if (ad->bias != NONE) {
        const Type *t = &mt->r.f->value[ad->bias].type;
        bias =
            dim_is_const(mt->m->dims, t->dim[1], &width)
                ? arena_printf(mt->a, "a bias of %" PRId64 " distances a head instead of one a score", width)
                : "a bias by distance";
    }
    return arena_printf(mt->a, "attention of %" PRId64 " heads, %s, %s%s", heads, bias,
                        ad->causal ? "causal" : "not causal",
                        ad->keep != NONE ? ", with a mask of keys" : "");
}

bool match_attention(Matcher *mt, const Node *n) {
    const Func *f = mt->f;
    Module *m = mt->m;
    if (!is_move(n) || f->value[n->out].type.rank != 3 || f->value[n->out].type.dtype != DT_F32)
        return false;
    const Node *out = value_node(f, behind_moves(f, n->out));
    if (!out || out->op != OP_matmul)
        return false;
    const Node *soft = value_node(f, match_strip(f, out->in[0]));
    if (!soft || soft->op != OP_softmax)
        return false;
    if (!mt->x)
        mt->x = index_new(m, f);
    const char *why;
    const Node *where;
    Additive *ad = NULL;
    Shape s;
    ValueId in[5];
    if (!read_attention(mt, n, out, soft, &why, &where, in, &ad, &s)) {
        return match_missed(mt, R_no_attention, soft, why, where);
    }
    for (int i = 0; i < 3; i++)
        in[i] = remap_value(&mt->r, in[i]);
    in[3] = ad->bias;
    in[4] = ad->keep;
    uint32_t n_in = ad->keep != NONE ? 5 : ad->bias != NONE ? 4 : 3;
    int64_t heads = 1;
    CHECK(dim_is_const(m->dims, s.scores.dim[1], &heads));
    Attr attrs[4] = {attr_i(AT_heads, heads), attr_i(AT_causal, ad->causal),
                     attr_d(AT_offset, dim_const(m->dims, 0)), attr_i(AT_center, ad->center)};
    ValueId now = func_node(m, mt->r.f, OP_attention, in, n_in, attrs, 4, soft->origin);
    match_found(mt, R_attention, n, now, m->remarks ? attention_text(mt, heads, ad) : NULL);
    return true;
}
