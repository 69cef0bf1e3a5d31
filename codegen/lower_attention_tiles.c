/* Attention of many queries, by tiles of 32: a vector lane a query.
 *
 *     S^T[keys,32] = K Q^T    P^T = e^(S^T - m)    O^T[width,32] (+)= V^T P^T
 *
 * The queries of a tile are packed as a panel, keys and values are read as they lie, and a softmax has nothing to add up across
 * lanes. Keys come in blocks: m and the sum of a query are those of the keys so far, and when m grows, what has been added
 * up shrinks by e^(old m - new m). So scratch has the size of one block whatever the lengths, and the order of sums depends on
 * nothing but the keys' positions. */
#include "lower_attention.h"

#include <math.h>

enum { KEYS = 128 };

static const LExpr *number(Lower *l, int64_t v) {
    return le_int(l->k, v);
}

/* A loop over the tile's queries; l->block moves inside. */
const LExpr *attend_each_query(Lower *l) {
    LStmt *s = ls_lanes(l->k, l->block, number(l, QUERIES), "q");
    l->block = &s->body;
    return le_var(l->k, s->var);
}

const LExpr *attend_each(Lower *l, const LExpr *extent, const char *hint) {
    LStmt *s = ls_for(l->k, l->block, extent, hint);
    l->block = &s->body;
    return le_var(l->k, s->var);
}

const LExpr *attend_in_line(Lower *l, const LExpr *line, const LExpr *q) {
    return li_add(l->k, li_mul(l->k, line, number(l, QUERIES)), q);
}

const LExpr *attend_line(Lower *l, const LBuf *b, const LExpr *line, const LExpr *q) {
    return le_load(l->k, b, attend_in_line(l, line, q));
}

const LBuf *attend_array(Lower *l, const char *hint) {
    LBuf *b = loop_buf(l->k, LB_LOCAL, DT_F32, str_c(hint));
    b->count = QUERIES;
    return b;
}

void attend_fill(Lower *l, const LBuf *b, double value) {
    LBlock *back = l->block;
    const LExpr *q = attend_each_query(l);
    ls_store(l->k, l->block, b, q, le_num(l->k, DT_F32, value));
    l->block = back;
}

LMatrix attend_head(Lower *l, const Attend *t, const View *w, const LExpr *from, const LExpr *width) {
    const LExpr *at[3] = {t->b, from, li_mul(l->k, t->h, width)};
    return (LMatrix){w->buf, view_index(l, w, at), le_dim(l->k, w->stride[1]), false};
}

/* ---- the tile's queries ------------------------------------------------------------------------------- */

void attend_pack(Lower *l, const Attend *t, const View *w, const LExpr *width, const LBuf *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LMatrix from = attend_head(l, t, w, t->i0, width), lanes = lower_lines(l, to, number(l, 0));
    lower_turn(l, &from, &lanes, t->rows, width);
    LStmt *few = ls_if(k, back, le_op2(k, LO_LT, DT_BOOL, t->rows, number(l, QUERIES)));
    l->block = &few->body;
    const LExpr *d = attend_each(l, width, "d"), *i = attend_each(l, li_sub(k, number(l, QUERIES), t->rows), "i");
    ls_store(k, l->block, to, attend_in_line(l, d, li_add(k, t->rows, i)), le_num(k, DT_F32, 0));
    l->block = back;
}

static void clear_output(Lower *l, const Tile *x) {
    LBlock *back = l->block;
    const LExpr *d = attend_each(l, x->t->value_width, "d"), *q = attend_each_query(l);
    ls_store(l->k, l->block, x->o, attend_in_line(l, d, q), le_num(l->k, DT_F32, 0));
    l->block = back;
}

const LExpr *attend_share(Lower *l, const LExpr *sum) {
    LoopKernel *k = l->k;
    const LExpr *zero = le_num(k, DT_F32, 0), *share = attend_let(l, le_op2(k, LO_DIV, DT_F32, le_num(k, DT_F32, 1), sum), "share");
    return le_select(k, le_op2(k, LO_EQ, DT_BOOL, sum, zero), zero, share);
}

/* O of each query, its sum 1. */
static void store_output(Lower *l, const Tile *x, const View *to) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *q = attend_each_query(l);
    ls_store(k, l->block, x->sum, q, attend_share(l, le_load(k, x->sum, q)));
    l->block = back;
    const LExpr *d = attend_each(l, t->value_width, "d");
    q = attend_each_query(l);
    ls_store(k, l->block, x->o, attend_in_line(l, d, q), le_op2(k, LO_MUL, DT_F32, attend_line(l, x->o, d, q), le_load(k, x->sum, q)));
    l->block = back;
    LMatrix lanes = lower_lines(l, x->o, number(l, 0)), rows = attend_head(l, t, to, t->i0, t->value_width);
    lower_turn(l, &lanes, &rows, t->value_width, t->rows);
}

/* ---- a block of keys -------------------------------------------------------------------------------------- */

void attend_pack_bias(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    if (!t->bias.buf)
        return;
    LBlock *back = l->block;
    const LExpr *end = li_sub(k, li_add(k, x->j0, x->keys), li_add(k, t->query, number(l, 1)));
    end = le_var(k, ls_let(k, l->block, DT_I64, end, "end"));
    LStmt *s = ls_lanes(k, l->block, li_add(k, x->keys, number(l, QUERIES - 1)), "u");
    l->block = &s->body;
    const LExpr *u = le_var(k, s->var), *at[2] = {t->h, attend_bias_column(l, t, li_sub(k, end, u))};
    ls_store(k, l->block, x->bias, u, le_load(k, t->bias.buf, view_index(l, &t->bias, at)));
    l->block = back;
}

/* What the tile's queries see of key j: computed once a key. */
typedef struct Key {
    const LExpr *j, *position, *keep, *segment, *bias;
} Key;

const LExpr *attend_let(Lower *l, const LExpr *e, const char *hint) {
    return le_var(l->k, ls_let(l->k, l->block, e->type, e, hint));
}

static Key open_key(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    Key y = {.j = attend_each(l, x->keys, "j")};
    y.position = attend_let(l, li_add(k, x->j0, y.j), "key");
    const LExpr *at[2] = {t->b, y.position};
    if (t->keep != NONE)
        y.keep = attend_let(l, lower_pull(l, t->keep, at), "keep");
    if (t->k_segment != NONE)
        y.segment = attend_let(l, lower_pull(l, t->k_segment, at), "segment");
    if (t->bias.buf)
        y.bias = attend_let(l, li_sub(k, li_sub(k, x->keys, number(l, 1)), y.j), "diagonal");
    return y;
}

static const LExpr *score(Lower *l, const Tile *x, const Key *y, const LExpr *q) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *s = attend_line(l, x->s, y->j, q), *lowest = attend_lowest(l);
    if (y->bias)
        s = le_op2(k, LO_ADD, DT_F32, s, le_load(k, x->bias, li_add(k, y->bias, q)));
    if (y->keep)
        s = le_select(k, y->keep, s, lowest);
    if (y->segment) {
        s = le_select(k, le_op2(k, LO_EQ, DT_BOOL, le_load(k, t->segments, q), y->segment), s, lowest);
    }
    if (node_int(t->n, AT_causal, 0))
        s = le_select(k, le_op2(k, LO_LE, DT_BOOL, y->position, li_add(k, t->query, q)), s, lowest);
    return s;
}

/* Scores in full, and each query's m so far. */
void attend_find_max(Lower *l, const Tile *x) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    Key y = open_key(l, x);
    const LExpr *q = attend_each_query(l);
    const LExpr *s = le_var(k, ls_let(k, l->block, DT_F32, score(l, x, &y, q), "s"));
    ls_store(k, l->block, x->s, attend_in_line(l, y.j, q), s);
    ls_store(k, l->block, x->max, q, le_op2(k, LO_MAX, DT_F32, le_load(k, x->max, q), s));
    l->block = back;
}

static void keep_max(Lower *l, const Tile *x) {
    LBlock *back = l->block;
    const LExpr *q = attend_each_query(l);
    ls_store(l->k, l->block, x->shrink, q, le_load(l->k, x->max, q));
    l->block = back;
}

/* To what m is now. */
static void shrink(Lower *l, const Tile *x) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *q = attend_each_query(l), *d;
    const LExpr *e = le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, le_load(k, x->shrink, q), le_load(k, x->max, q)));
    e = le_var(k, ls_let(k, l->block, DT_F32, e, "e"));
    ls_store(k, l->block, x->shrink, q, e);
    ls_store(k, l->block, x->sum, q, le_op2(k, LO_MUL, DT_F32, le_load(k, x->sum, q), e));
    l->block = back;
    d = attend_each(l, x->t->value_width, "d");
    q = attend_each_query(l);
    ls_store(k, l->block, x->o, attend_in_line(l, d, q), le_op2(k, LO_MUL, DT_F32, attend_line(l, x->o, d, q), le_load(k, x->shrink, q)));
    l->block = back;
}

static void exponentiate(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = attend_each(l, x->keys, "j"), *q = attend_each_query(l);
    const LExpr *p = le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, attend_line(l, x->s, j, q), le_load(k, x->max, q)));
    p = le_var(k, ls_let(k, l->block, DT_F32, p, "p"));
    ls_store(k, l->block, x->sum, q, le_op2(k, LO_ADD, DT_F32, le_load(k, x->sum, q), p));
    if (t->seed) {
        const LExpr *line = li_add(k, t->linear, li_mul(k, q, t->keys));
        p = attend_dropped(l, t, li_add(k, line, li_add(k, x->j0, j)), p);
    }
    ls_store(k, l->block, x->s, attend_in_line(l, j, q), p);
    l->block = back;
}

static void attend_block(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LMatrix keys = attend_head(l, t, &t->k, x->j0, t->width), values = attend_head(l, t, &t->v, x->j0, t->value_width);
    LMatrix q = lower_lines(l, x->q, number(l, 0)), s = lower_lines(l, x->s, number(l, 0)), o = lower_lines(l, x->o, number(l, 0));
    lower_multiply_lines(l, LEFT_ROWS, &keys, &q, &s, x->keys, t->width, false);
    attend_pack_bias(l, x);
    keep_max(l, x);
    attend_find_max(l, x);
    shrink(l, x);
    exponentiate(l, x);
    lower_multiply_lines(l, LEFT_COLUMNS, &values, &s, &o, t->value_width, x->keys, true);
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

int64_t attend_most(const Lower *l, const LExpr *n) {
    return n->kind == LE_INT ? n->i : n->kind == LE_DIM ? dim_upper(l->t, n->dim) : DIM_UNBOUNDED;
}

const LBuf *attend_lines(Lower *l, int64_t n, const char *hint) {
    int64_t bytes = 0;
    bool ok = n != DIM_UNBOUNDED && mul_i64(n, 4 * QUERIES, &bytes);
    const LBuf *b = ok ? loop_scratch(l->k, DT_F32, bytes, str_c(hint)) : NULL;
    if (!b)
        diag_error(l->d, DIAG_SHAPE_UNBOUNDED, NULL, "attention over lengths or heads of unbounded width; give them a bound with --dim NAME=1..N");
    return b;
}

/* Those of the queries; behind the last one its own again. */
static void pack_segments(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LBuf *b = loop_buf(k, LB_LOCAL, DT_I64, str_c("segment"));
    b->count = QUERIES;
    const LExpr *q = attend_each_query(l), *at[2] = {t->b, li_min(k, li_add(k, t->i0, q), li_sub(k, t->queries, number(l, 1)))};
    ls_store(k, l->block, b, q, lower_pull(l, t->q_segment, at));
    t->segments = b;
    l->block = back;
}

void attend_queries(Lower *l, Attend *t, const LExpr *i0) {
    LoopKernel *k = l->k;
    t->i0 = attend_let(l, i0, "i0");
    t->rows = attend_let(l, li_min(k, number(l, QUERIES), li_sub(k, t->queries, t->i0)), "mq");
    const Attr *offset = node_attr(t->n, AT_offset);
    t->query = offset ? attend_let(l, li_add(k, t->i0, le_dim(k, offset->d)), "query") : t->i0;
    if (t->q_segment != NONE)
        pack_segments(l, t);
    if (t->seed) {
        const LExpr *head = li_add(k, li_mul(k, t->b, t->heads), t->h);
        t->linear = attend_let(l, li_mul(k, li_add(k, li_mul(k, head, t->queries), t->i0), t->keys), "linear");
    }
}

bool attend_tile(Lower *l, Tile *x, int64_t keys) {
    const Attend *t = x->t;
    x->q = attend_lines(l, attend_most(l, t->width), "q");
    x->s = x->q ? attend_lines(l, keys, "s") : NULL;
    if (x->s && t->bias.buf)
        x->bias = loop_scratch(l->k, DT_F32, (keys + QUERIES) * 4, str_c("bias"));
    return x->s;
}

/* Example, head and tile of queries of the task; t->query: position of its first query among the keys. */
static void open_task(Lower *l, Attend *t, const LExpr *task) {
    LoopKernel *k = l->k;
    const LExpr *tiles = le_is_int(t->blocks, 0) ? number(l, 1) : t->blocks; /* never entered */
    t->b = attend_let(l, li_div(k, task, li_mul(k, t->heads, tiles)), "b");
    t->h = attend_let(l, li_mod(k, li_div(k, task, tiles), t->heads), "h");
    attend_dropout(l, t);
    attend_queries(l, t, li_mul(k, li_mod(k, task, tiles), number(l, QUERIES)));
}

bool lower_attention_tiles(Lower *l, Attend *t, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    t->blocks = li_div(k, li_add(k, t->queries, number(l, QUERIES - 1)), number(l, QUERIES));
    LStmt *p = ls_parallel(k, back, li_mul(k, li_mul(k, t->batch, t->heads), t->blocks), "p");
    l->block = &p->body;
    Tile x = {.t = t};
    if (!attend_tile(l, &x, KEYS) || !(x.o = attend_lines(l, attend_most(l, t->value_width), "o")))
        return false;
    open_task(l, t, le_var(k, p->var));
    attend_pack(l, t, &t->q, t->width, x.q);
    clear_output(l, &x);
    x.max = attend_array(l, "max");
    x.sum = attend_array(l, "sum");
    x.shrink = attend_array(l, "shrink");
    attend_fill(l, x.max, -(double)INFINITY);
    attend_fill(l, x.sum, 0);
    const LExpr *blocks = li_div(k, li_add(k, t->keys, number(l, KEYS - 1)), number(l, KEYS));
    LBlock *task = l->block;
    x.j0 = attend_let(l, li_mul(k, attend_each(l, blocks, "block"), number(l, KEYS)), "j0");
    x.keys = attend_let(l, li_min(k, number(l, KEYS), li_sub(k, t->keys, x.j0)), "keys");
    attend_block(l, &x);
    l->block = task;
    store_output(l, &x, to);
    l->block = back;
    return true;
}
