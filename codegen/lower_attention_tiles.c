/* Attention of many queries, or of heads that are wide: by tiles of 32 queries, a vector lane each.
 *
 *     S^T[keys,32] = K Q^T    P^T = e^(S^T - m)    O^T[width,32] (+)= V^T P^T
 *
 * The queries of a tile are packed as a panel, keys and values are read as they lie, and a softmax has nothing to add up across
 * lanes. Keys come in blocks: m and the sum of a query are those of the keys so far, and when m grows, what has been added
 * up shrinks by e^(old m - new m). So scratch has the size of one block whatever the lengths, and the order of sums depends on
 * nothing but the keys' positions. Packed examples are gone through one by one, each from its own first key and query on: what
 * others are beside it costs nothing and changes nothing. */
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

static LMatrix head(Lower *l, const Attend *t, const View *w, const LExpr *b, const LExpr *row, const LExpr *apart) {
    const LExpr *at[3] = {b, row, li_mul(l->k, t->h, apart)};
    return (LMatrix){w->buf, view_index(l, w, at), le_dim(l->k, w->stride[1]), false};
}

LMatrix attend_query_head(Lower *l, const Attend *t, const View *w, const LExpr *i, const LExpr *width) {
    return head(l, t, w, t->q_example, li_add(l->k, t->q_first, li_add(l->k, t->i0, i)), width);
}

LMatrix attend_key_head(Lower *l, const Attend *t, const View *w, const LExpr *j, Dim apart) {
    return head(l, t, w, t->k_example, li_add(l->k, t->k_first, j), le_dim(l->k, apart));
}

/* ---- the tile's queries ------------------------------------------------------------------------------- */

void attend_pack(Lower *l, const Attend *t, const View *w, const LExpr *width, const LBuf *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LMatrix from = attend_query_head(l, t, w, number(l, 0), width), lanes = lower_lines(l, to, number(l, 0));
    lower_turn(l, &from, &lanes, t->rows, width);
    LStmt *few = ls_if(k, back, le_op2(k, LO_LT, DT_BOOL, t->rows, number(l, QUERIES)));
    l->block = &few->body;
    const LExpr *d = attend_each(l, width, "d"), *i = attend_each(l, li_sub(k, number(l, QUERIES), t->rows), "i");
    ls_store(k, l->block, to, attend_in_line(l, d, li_add(k, t->rows, i)), le_num(k, DT_F32, 0));
    l->block = back;
}

void attend_pack_segments(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    if (t->q_segment == NONE)
        return;
    LBuf *b = loop_buf(k, LB_LOCAL, DT_I64, str_c("segment"));
    b->count = QUERIES;
    const LExpr *q = attend_each_query(l), *at[2] = {t->b, li_min(k, li_add(k, t->i0, q), li_sub(k, t->queries, number(l, 1)))};
    ls_store(k, l->block, b, q, lower_pull(l, t->q_segment, at));
    t->segments = b;
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
    LMatrix lanes = lower_lines(l, x->o, number(l, 0)), rows = attend_query_head(l, t, to, number(l, 0), t->value_width);
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
    const LExpr *o = le_op2(k, LO_MUL, DT_F32, attend_line(l, x->o, d, q), le_load(k, x->shrink, q));
    ls_store(k, l->block, x->o, attend_in_line(l, d, q), o);
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
    LMatrix keys = attend_key_head(l, t, &t->k, x->j0, t->k_head), values = attend_key_head(l, t, &t->v, x->j0, t->v_head);
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
        diag_error(l->d, DIAG_SHAPE_UNBOUNDED, NULL,
                   "attention over an unbounded length or heads of unbounded width; give it a bound with --dim NAME=1..N");
    return b;
}

bool attend_tile(Lower *l, Tile *x, int64_t keys) {
    const Attend *t = x->t;
    x->q = attend_lines(l, attend_most(l, t->width), "q");
    x->s = x->q ? attend_lines(l, keys, "s") : NULL;
    if (x->s && t->bias.buf)
        x->bias = loop_scratch(l->k, DT_F32, (keys + QUERIES) * 4, str_c("bias"));
    return x->s;
}

static const LExpr *tiles_of(Lower *l, const LExpr *queries) {
    return li_div(l->k, li_add(l->k, queries, number(l, QUERIES - 1)), number(l, QUERIES));
}

/* Tasks, tiles of all heads: examples one after the other where they are packed, each with a tile that may not be full. */
static const LExpr *count_tasks(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    if (t->packed) {
        t->blocks = li_add(k, tiles_of(l, t->queries), t->batch);
        return li_mul(k, t->heads, t->blocks);
    }
    t->blocks = tiles_of(l, t->queries);
    return li_mul(k, li_mul(k, t->batch, t->heads), t->blocks);
}

/* The example that has tile number `tile` of all examples, and its queries; no queries: there is no such tile. Spans have to
 * stand one behind the other. */
static void find_example(Lower *l, Attend *t, const LExpr *tile) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *zero = number(l, 0), *all = t->queries;
    uint32_t first = ls_let(k, back, DT_I64, zero, "first"), n = ls_let(k, back, DT_I64, zero, "n");
    uint32_t i0 = ls_let(k, back, DT_I64, zero, "i0"), end = ls_let(k, back, DT_I64, zero, "end");
    uint32_t left = ls_let(k, back, DT_I64, tile, "left");
    const LExpr *from[2] = {attend_each(l, t->batch, "e"), zero}, *to[2] = {from[0], number(l, 1)}, *here = le_var(k, end);
    ls_check(k, l->block, le_op2(k, LO_SUB, DT_I64, lower_pull(l, t->spans, from), here), number(l, 1), "from");
    const LExpr *own = le_var(k, ls_check(k, l->block, le_op2(k, LO_SUB, DT_I64, lower_pull(l, t->spans, to), here),
                                          li_sub(k, li_add(k, all, number(l, 1)), here), "own"));
    const LExpr *tiles = attend_let(l, tiles_of(l, own), "tiles"), *at = le_var(k, left);
    LBlock *example = l->block;
    LStmt *reached = ls_if(k, example, le_op2(k, LO_GE, DT_BOOL, at, zero));
    LStmt *found = ls_if(k, &reached->body, le_op2(k, LO_LT, DT_BOOL, at, tiles));
    ls_set(k, &found->body, first, here);
    ls_set(k, &found->body, n, own);
    ls_set(k, &found->body, i0, li_mul(k, at, number(l, QUERIES)));
    ls_set(k, example, left, li_sub(k, at, tiles));
    ls_set(k, example, end, li_add(k, here, own));
    l->block = back;
    ls_check(k, back, li_sub(k, all, here), number(l, 1), "rest");
    t->q_first = t->k_first = le_var(k, first);
    t->queries = t->keys = le_var(k, n);
    t->i0 = le_var(k, i0);
}

void attend_place(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    t->rows = attend_let(l, li_min(k, number(l, QUERIES), li_sub(k, t->queries, t->i0)), "mq");
    const Attr *offset = node_attr(t->n, AT_offset);
    t->query = offset ? attend_let(l, li_add(k, t->i0, le_dim(k, offset->d)), "query") : t->i0;
    if (t->seed) {
        const LExpr *head = li_add(k, li_mul(k, t->b, t->heads), t->h);
        t->linear = attend_let(l, li_mul(k, li_add(k, li_mul(k, head, t->queries), t->i0), t->keys), "linear");
    }
}

/* Example, head and tile of queries of the task; t->query: position of its first query among the keys. */
static void open_task(Lower *l, Attend *t, const LExpr *task) {
    LoopKernel *k = l->k;
    const LExpr *tiles = le_is_int(t->blocks, 0) ? number(l, 1) : t->blocks; /* never entered */
    const LExpr *tile = li_mod(k, task, tiles);
    t->q_first = t->k_first = number(l, 0);
    t->h = attend_let(l, li_mod(k, li_div(k, task, tiles), t->heads), "h");
    if (t->packed) {
        t->b = number(l, 0);
        find_example(l, t, tile);
    } else {
        t->b = attend_let(l, li_div(k, task, li_mul(k, t->heads, tiles)), "b");
        t->i0 = attend_let(l, li_mul(k, tile, number(l, QUERIES)), "i0");
    }
    t->q_example = t->b;
    t->k_example = t->spans == NONE ? t->b : number(l, 0);
    if (t->spans != NONE && !t->packed)
        attend_span(l, t);
    attend_dropout(l, t);
    attend_place(l, t);
}

bool lower_attention_tiles(Lower *l, Attend *t, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, count_tasks(l, t), "p");
    l->block = &p->body;
    Tile x = {.t = t};
    if (!attend_tile(l, &x, KEYS) || !(x.o = attend_lines(l, attend_most(l, t->value_width), "o")))
        return false;
    open_task(l, t, le_var(k, p->var));
    if (t->packed)
        l->block = &ls_if(k, l->block, le_op2(k, LO_GT, DT_BOOL, t->rows, number(l, 0)))->body;
    attend_pack_segments(l, t);
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
