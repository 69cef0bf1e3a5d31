/* Attention of one query, as a decoder that has the past in caches asks for.
 *
 * A task is a head of an example: its keys are read once and so are its values, each from end to end where the caches are stored
 * head by head. They come in blocks: scores of a block, each a sum in lanes, then m and the sum of e^(score - m), which are those of
 * the keys so far; when m grows, what has been added up shrinks by e^(old m - new m). */
#include "lower_attention.h"

#include <math.h>

enum { KEYS = 128, WIDEST = 256 };

typedef struct One {
    Attend *t;
    const LBuf *s, *o;         /* scores of a block, then what e makes of them; the sum of values so far */
    const LExpr *q, *k, *v;    /* where in their buffers those of the head begin */
    const LExpr *j0, *keys;    /* the block */
    const LExpr *j;            /* a key in it */
    uint32_t max, sum;
    const LExpr *now;          /* m with the block's scores */
} One;

static const LExpr *number(Lower *l, int64_t v) {
    return le_int(l->k, v);
}

static const LExpr *let_once(Lower *l, const LExpr *e, const char *hint) {
    return le_var(l->k, ls_let(l->k, l->block, e->type, e, hint));
}

static const LExpr *each(Lower *l, const LExpr *extent, const char *hint) {
    LStmt *s = ls_for(l->k, l->block, extent, hint);
    l->block = &s->body;
    return le_var(l->k, s->var);
}

static const LExpr *each_lane(Lower *l, const LExpr *extent, const char *hint) {
    LStmt *s = ls_lanes(l->k, l->block, extent, hint);
    l->block = &s->body;
    return le_var(l->k, s->var);
}

/* An array of zeros, the task's own. */
static const LBuf *array(Lower *l, int64_t count, const char *hint) {
    LBlock *back = l->block;
    LBuf *b = loop_buf(l->k, LB_LOCAL, DT_F32, str_c(hint));
    b->count = count;
    const LExpr *i = each_lane(l, number(l, count), "i");
    ls_store(l->k, l->block, b, i, le_num(l->k, DT_F32, 0));
    l->block = back;
    return b;
}

/* The first element of the head's row `row` of w. */
static const LExpr *row_of(Lower *l, const View *w, const LExpr *begin, const LExpr *row) {
    return li_add(l->k, begin, li_mul(l->k, row, le_dim(l->k, w->stride[1])));
}

/* ---- scores ------------------------------------------------------------------------------------------- */

static const LExpr *product(Lower *l, void *ctx, const LExpr *d) {
    const One *x = ctx;
    const Attend *t = x->t;
    const LExpr *key = row_of(l, &t->k, x->k, li_add(l->k, x->j0, x->j));
    return le_op2(l->k, LO_MUL, DT_F32, le_load(l->k, t->q.buf, li_add(l->k, x->q, d)), le_load(l->k, t->k.buf, li_add(l->k, key, d)));
}

/* q k of every key of the block. */
static void make_products(Lower *l, One *x) {
    LBlock *back = l->block;
    x->j = each(l, x->keys, "j");
    const LExpr *sum = lower_fold(l, LO_ADD, DT_F32, x->t->width, product, x);
    ls_store(l->k, l->block, x->s, x->j, sum);
    l->block = back;
}

/* x where the query sees key `at`, else the lowest score. */
static const LExpr *where_seen(Lower *l, const One *x, const LExpr *at, const LExpr *s) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *key[2] = {t->b, at}, *query[2] = {t->b, number(l, 0)}, *lowest = attend_lowest(l);
    if (t->keep != NONE)
        s = le_select(k, lower_pull(l, t->keep, key), s, lowest);
    if (t->k_segment != NONE)
        s = le_select(k, le_op2(k, LO_EQ, DT_BOOL, lower_pull(l, t->q_segment, query), lower_pull(l, t->k_segment, key)), s, lowest);
    return node_int(t->n, AT_causal, 0) ? le_select(k, le_op2(k, LO_LE, DT_BOOL, at, t->query), s, lowest) : s;
}

/* The score of key j of the block in full, which is kept. */
static const LExpr *score(Lower *l, void *ctx, const LExpr *j) {
    const One *x = ctx;
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *at = li_add(k, x->j0, j), *s = le_load(k, x->s, j);
    if (t->bias.buf) {
        const LExpr *place[2] = {t->h, attend_bias_column(l, t, li_sub(k, at, t->query))};
        s = le_op2(k, LO_ADD, DT_F32, s, le_load(k, t->bias.buf, view_index(l, &t->bias, place)));
    }
    ls_store(k, l->block, x->s, j, where_seen(l, x, at, s));
    return le_load(k, x->s, j);
}

/* e^(score - m) of key j, which is kept. */
static const LExpr *exponential(Lower *l, void *ctx, const LExpr *j) {
    const One *x = ctx;
    LoopKernel *k = l->k;
    ls_store(k, l->block, x->s, j, le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, le_load(k, x->s, j), x->now)));
    return le_load(k, x->s, j);
}

/* ---- the sum of values ---------------------------------------------------------------------------------- */

static void scale_output(Lower *l, const One *x, const LExpr *by) {
    LBlock *back = l->block;
    const LExpr *d = each_lane(l, x->t->value_width, "d");
    ls_store(l->k, l->block, x->o, d, le_op2(l->k, LO_MUL, DT_F32, le_load(l->k, x->o, d), by));
    l->block = back;
}

static void add_values(Lower *l, const One *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = each(l, x->keys, "j"), *at = li_add(k, x->j0, j), *row = row_of(l, &t->v, x->v, at);
    const LExpr *p = le_load(k, x->s, j);
    if (t->seed)
        p = attend_dropped(l, t, li_add(k, t->linear, at), p);
    p = let_once(l, p, "p");
    const LExpr *d = each_lane(l, t->value_width, "d"), *value = le_load(k, t->v.buf, li_add(k, row, d));
    ls_store(k, l->block, x->o, d, le_op2(k, LO_ADD, DT_F32, le_load(k, x->o, d), le_op2(k, LO_MUL, DT_F32, p, value)));
    l->block = back;
}

static void attend_block(Lower *l, One *x) {
    LoopKernel *k = l->k;
    const LExpr *before = le_var(k, x->max), *sum = le_var(k, x->sum);
    make_products(l, x);
    x->now = let_once(l, le_op2(k, LO_MAX, DT_F32, before, lower_fold(l, LO_MAX, DT_F32, x->keys, score, x)), "now");
    const LExpr *shrink = let_once(l, le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, before, x->now)), "shrink");
    ls_set(k, l->block, x->max, x->now);
    const LExpr *block = lower_fold(l, LO_ADD, DT_F32, x->keys, exponential, x);
    ls_set(k, l->block, x->sum, le_op2(k, LO_ADD, DT_F32, le_op2(k, LO_MUL, DT_F32, sum, shrink), block));
    scale_output(l, x, shrink);
    add_values(l, x);
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

bool attend_is_one(const Attend *t) {
    bool narrow = t->width->kind == LE_INT && t->value_width->kind == LE_INT && t->width->i <= WIDEST && t->value_width->i <= WIDEST;
    return le_is_int(t->queries, 1) && !t->packed && narrow;
}

/* Example and head of the task, and where they begin. */
static void open_task(Lower *l, One *x, const LExpr *task) {
    Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *zero = number(l, 0);
    t->b = let_once(l, li_div(k, task, t->heads), "b");
    t->h = let_once(l, li_mod(k, task, t->heads), "h");
    t->k_example = t->b;
    t->k_first = zero;
    if (t->spans != NONE) {
        t->k_example = zero;
        attend_span(l, t);
    }
    const Attr *offset = node_attr(t->n, AT_offset);
    t->query = offset ? le_dim(k, offset->d) : zero;
    attend_dropout(l, t);
    if (t->seed)
        t->linear = let_once(l, li_mul(k, task, t->keys), "linear");
    const LExpr *q[3] = {t->b, zero, li_mul(k, t->h, t->width)};
    const LExpr *key[3] = {t->k_example, t->k_first, li_mul(k, t->h, le_dim(k, t->k_head))};
    const LExpr *value[3] = {t->k_example, t->k_first, li_mul(k, t->h, le_dim(k, t->v_head))};
    x->q = let_once(l, view_index(l, &t->q, q), "q");
    x->k = let_once(l, view_index(l, &t->k, key), "k");
    x->v = let_once(l, view_index(l, &t->v, value), "v");
}

static void store_output(Lower *l, const One *x, const View *to) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *zero = le_num(k, DT_F32, 0), *sum = le_var(k, x->sum);
    const LExpr *share = le_select(k, le_op2(k, LO_EQ, DT_BOOL, sum, zero), zero, /* without keys */
                                   le_op2(k, LO_DIV, DT_F32, le_num(k, DT_F32, 1), sum));
    share = let_once(l, share, "share");
    const LExpr *place[3] = {t->b, number(l, 0), li_mul(k, t->h, t->value_width)}, *at = view_index(l, to, place);
    const LExpr *d = each_lane(l, t->value_width, "d");
    ls_store(k, l->block, to->buf, li_add(k, at, d), le_op2(k, LO_MUL, DT_F32, le_load(k, x->o, d), share));
}

bool lower_attention_one(Lower *l, Attend *t, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, li_mul(k, t->batch, t->heads), "p");
    One x = {.t = t};
    l->block = &p->body;
    open_task(l, &x, le_var(k, p->var));
    x.s = array(l, KEYS, "s");
    x.o = array(l, t->value_width->i, "o");
    LBlock *task = l->block;
    x.max = ls_let(k, task, DT_F32, le_num(k, DT_F32, -(double)INFINITY), "max");
    x.sum = ls_let(k, task, DT_F32, le_num(k, DT_F32, 0), "sum");
    const LExpr *blocks = li_div(k, li_add(k, t->keys, number(l, KEYS - 1)), number(l, KEYS));
    x.j0 = let_once(l, li_mul(k, each(l, blocks, "block"), number(l, KEYS)), "j0");
    x.keys = let_once(l, li_min(k, number(l, KEYS), li_sub(k, t->keys, x.j0)), "keys");
    attend_block(l, &x);
    l->block = task;
    store_output(l, &x, to);
    l->block = back;
    return true;
}
