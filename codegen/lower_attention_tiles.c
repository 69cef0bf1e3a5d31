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

#include "../compiler/pack.h"

#include <math.h>

enum { QUERIES = PANEL_COLUMNS, KEYS = 128 };

typedef struct Tile {
    Attend *t;
    const LBuf *q, *s, *o, *bias; /* Q^T, S^T and P^T, O^T, and the bias of a block by its diagonals */
    const LBuf *max, *sum, *shrink; /* of each query: m, sum, and what m shrinks the sum by */
    const LExpr *j0, *keys;         /* the block */
} Tile;

static const LExpr *number(Lower *l, int64_t v) {
    return le_int(l->k, v);
}

/* A loop over the tile's queries; l->block moves inside. */
static const LExpr *each_query(Lower *l) {
    LStmt *s = ls_lanes(l->k, l->block, number(l, QUERIES), "q");
    l->block = &s->body;
    return le_var(l->k, s->var);
}

static const LExpr *each(Lower *l, const LExpr *extent, const char *hint) {
    LStmt *s = ls_for(l->k, l->block, extent, hint);
    l->block = &s->body;
    return le_var(l->k, s->var);
}

static const LExpr *in_line(Lower *l, const LExpr *line, const LExpr *q) {
    return li_add(l->k, li_mul(l->k, line, number(l, QUERIES)), q);
}

static const LExpr *line_of(Lower *l, const LBuf *b, const LExpr *line, const LExpr *q) {
    return le_load(l->k, b, in_line(l, line, q));
}

static const LBuf *array(Lower *l, const char *hint) {
    LBuf *b = loop_buf(l->k, LB_LOCAL, DT_F32, str_c(hint));
    b->count = QUERIES;
    return b;
}

static void fill(Lower *l, const LBuf *b, double value) {
    LBlock *back = l->block;
    const LExpr *q = each_query(l);
    ls_store(l->k, l->block, b, q, le_num(l->k, DT_F32, value));
    l->block = back;
}

static LMatrix head(Lower *l, const Attend *t, const View *w, const LExpr *b, const LExpr *row, const LExpr *apart) {
    const LExpr *at[3] = {b, row, li_mul(l->k, t->h, apart)};
    return (LMatrix){w->buf, view_index(l, w, at), le_dim(l->k, w->stride[1]), false};
}

/* From query i of the tile on, of the queries or the result. */
static LMatrix query_head(Lower *l, const Attend *t, const View *w, const LExpr *i, const LExpr *width) {
    return head(l, t, w, t->q_example, li_add(l->k, t->q_first, li_add(l->k, t->i0, i)), width);
}

static LMatrix key_head(Lower *l, const Attend *t, const View *w, const LExpr *j, Dim apart) {
    return head(l, t, w, t->k_example, li_add(l->k, t->k_first, j), le_dim(l->k, apart));
}

static void multiply(Lower *l, const LMatrix *a, Left left, const LBuf *b, const LBuf *c, const LExpr *rows,
                     const LExpr *depth, bool add) {
    LoopKernel *k = l->k;
    const LArg arg[] = {
        {a->buf, a->offset},      {b, number(l, 0)},      {c, number(l, 0)},         {NULL, rows}, {NULL, depth}, {NULL, a->ld},
        {NULL, number(l, QUERIES)}, {NULL, number(l, add)}, {NULL, number(l, 1)},
    };
    ls_call(k, l->block, panel_routine(l->o->routines, (PanelProduct){QUERIES, left, WEIGHT_F32, false}), arg);
}

/* ---- the tile's queries ------------------------------------------------------------------------------- */

/* Q^T, zeros behind the last query. */
static void pack_queries(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *i = each(l, t->rows, "i");
    LMatrix row = query_head(l, t, &t->q, i, t->width);
    const LExpr *d = each(l, t->width, "d");
    ls_store(k, l->block, x->q, in_line(l, d, i), le_load(k, row.buf, li_add(k, row.offset, d)));
    l->block = back;
    LStmt *few = ls_if(k, back, le_op2(k, LO_LT, DT_BOOL, t->rows, number(l, QUERIES)));
    l->block = &few->body;
    d = each(l, t->width, "d");
    i = each(l, li_sub(k, number(l, QUERIES), t->rows), "i");
    ls_store(k, l->block, x->q, in_line(l, d, li_add(k, t->rows, i)), le_num(k, DT_F32, 0));
    l->block = back;
}

static void clear_output(Lower *l, const Tile *x) {
    LBlock *back = l->block;
    const LExpr *d = each(l, x->t->value_width, "d"), *q = each_query(l);
    ls_store(l->k, l->block, x->o, in_line(l, d, q), le_num(l->k, DT_F32, 0));
    l->block = back;
}

/* O of each query, its sum 1. */
static void store_output(Lower *l, const Tile *x, const View *to) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *i = each(l, t->rows, "i"), *sum = le_load(k, x->sum, i), *zero = le_num(k, DT_F32, 0);
    const LExpr *share = le_select(k, le_op2(k, LO_EQ, DT_BOOL, sum, zero), zero, /* without keys */
                                   le_op2(k, LO_DIV, DT_F32, le_num(k, DT_F32, 1), sum));
    share = le_var(k, ls_let(k, l->block, DT_F32, share, "share"));
    LMatrix row = query_head(l, t, to, i, t->value_width);
    const LExpr *d = each(l, t->value_width, "d");
    ls_store(k, l->block, row.buf, li_add(k, row.offset, d), le_op2(k, LO_MUL, DT_F32, line_of(l, x->o, d, i), share));
    l->block = back;
}

/* ---- a block of keys -------------------------------------------------------------------------------------- */

/* The bias of key j and query q stands at q - j + keys - 1: what is the same along a diagonal is looked up once. */
static void pack_bias(Lower *l, const Tile *x) {
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

static const LExpr *let_once(Lower *l, const LExpr *e, const char *hint) {
    return le_var(l->k, ls_let(l->k, l->block, e->type, e, hint));
}

static Key open_key(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    Key y = {.j = each(l, x->keys, "j")};
    y.position = let_once(l, li_add(k, x->j0, y.j), "key");
    const LExpr *at[2] = {t->b, y.position};
    if (t->keep != NONE)
        y.keep = let_once(l, lower_pull(l, t->keep, at), "keep");
    if (t->k_segment != NONE)
        y.segment = let_once(l, lower_pull(l, t->k_segment, at), "segment");
    if (t->bias.buf)
        y.bias = let_once(l, li_sub(k, li_sub(k, x->keys, number(l, 1)), y.j), "diagonal");
    return y;
}

static const LExpr *score(Lower *l, const Tile *x, const Key *y, const LExpr *q) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    const LExpr *s = line_of(l, x->s, y->j, q), *lowest = attend_lowest(l);
    if (y->bias)
        s = le_op2(k, LO_ADD, DT_F32, s, le_load(k, x->bias, li_add(k, y->bias, q)));
    if (y->keep)
        s = le_select(k, y->keep, s, lowest);
    if (y->segment) {
        const LExpr *last = li_sub(k, t->queries, number(l, 1));
        const LExpr *at[2] = {t->b, li_min(k, li_add(k, t->i0, q), last)};
        s = le_select(k, le_op2(k, LO_EQ, DT_BOOL, lower_pull(l, t->q_segment, at), y->segment), s, lowest);
    }
    if (node_int(t->n, AT_causal, 0))
        s = le_select(k, le_op2(k, LO_LE, DT_BOOL, y->position, li_add(k, t->query, q)), s, lowest);
    return s;
}

/* Scores in full, and each query's m so far. */
static void find_max(Lower *l, const Tile *x) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    Key y = open_key(l, x);
    const LExpr *q = each_query(l);
    const LExpr *s = le_var(k, ls_let(k, l->block, DT_F32, score(l, x, &y, q), "s"));
    ls_store(k, l->block, x->s, in_line(l, y.j, q), s);
    ls_store(k, l->block, x->max, q, le_op2(k, LO_MAX, DT_F32, le_load(k, x->max, q), s));
    l->block = back;
}

static void keep_max(Lower *l, const Tile *x) {
    LBlock *back = l->block;
    const LExpr *q = each_query(l);
    ls_store(l->k, l->block, x->shrink, q, le_load(l->k, x->max, q));
    l->block = back;
}

/* To what m is now. */
static void shrink(Lower *l, const Tile *x) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *q = each_query(l), *d;
    const LExpr *e = le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, le_load(k, x->shrink, q), le_load(k, x->max, q)));
    e = le_var(k, ls_let(k, l->block, DT_F32, e, "e"));
    ls_store(k, l->block, x->shrink, q, e);
    ls_store(k, l->block, x->sum, q, le_op2(k, LO_MUL, DT_F32, le_load(k, x->sum, q), e));
    l->block = back;
    d = each(l, x->t->value_width, "d");
    q = each_query(l);
    ls_store(k, l->block, x->o, in_line(l, d, q), le_op2(k, LO_MUL, DT_F32, line_of(l, x->o, d, q), le_load(k, x->shrink, q)));
    l->block = back;
}

static void exponentiate(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = each(l, x->keys, "j"), *q = each_query(l);
    const LExpr *p = le_op1(k, LO_EXP, DT_F32, le_op2(k, LO_SUB, DT_F32, line_of(l, x->s, j, q), le_load(k, x->max, q)));
    p = le_var(k, ls_let(k, l->block, DT_F32, p, "p"));
    ls_store(k, l->block, x->sum, q, le_op2(k, LO_ADD, DT_F32, le_load(k, x->sum, q), p));
    if (t->seed) {
        const LExpr *line = li_add(k, t->linear, li_mul(k, q, t->keys));
        p = attend_dropped(l, t, li_add(k, line, li_add(k, x->j0, j)), p);
    }
    ls_store(k, l->block, x->s, in_line(l, j, q), p);
    l->block = back;
}

static void attend_block(Lower *l, const Tile *x) {
    const Attend *t = x->t;
    LMatrix keys = key_head(l, t, &t->k, x->j0, t->k_head), values = key_head(l, t, &t->v, x->j0, t->v_head);
    multiply(l, &keys, LEFT_ROWS, x->q, x->s, x->keys, t->width, false);
    pack_bias(l, x);
    keep_max(l, x);
    find_max(l, x);
    shrink(l, x);
    exponentiate(l, x);
    multiply(l, &values, LEFT_COLUMNS, x->s, x->o, t->value_width, x->keys, true);
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static const LBuf *lines(Lower *l, const LExpr *n, const char *hint) {
    int64_t bytes = 0;
    bool ok = n->kind == LE_INT ? mul_i64(n->i, 4 * QUERIES, &bytes)
                                : n->kind == LE_DIM && mul_i64(dim_upper(l->t, n->dim), 4 * QUERIES, &bytes);
    const LBuf *b = ok ? loop_scratch(l->k, DT_F32, bytes, str_c(hint)) : NULL;
    if (!b)
        diag_error(l->d, DIAG_SHAPE_UNBOUNDED, NULL, "attention over heads of unbounded width; give it a bound with --dim NAME=1..N");
    return b;
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
    const LExpr *from[2] = {each(l, t->batch, "e"), zero}, *to[2] = {from[0], number(l, 1)}, *here = le_var(k, end);
    ls_check(k, l->block, le_op2(k, LO_SUB, DT_I64, lower_pull(l, t->spans, from), here), number(l, 1), "from");
    const LExpr *own = le_var(k, ls_check(k, l->block, le_op2(k, LO_SUB, DT_I64, lower_pull(l, t->spans, to), here),
                                          li_sub(k, li_add(k, all, number(l, 1)), here), "own"));
    const LExpr *tiles = let_once(l, tiles_of(l, own), "tiles"), *at = le_var(k, left);
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

/* Example, head and tile of queries of the task; t->query: position of its first query among the keys. */
static void open_task(Lower *l, Attend *t, const LExpr *task) {
    LoopKernel *k = l->k;
    const LExpr *tiles = le_is_int(t->blocks, 0) ? number(l, 1) : t->blocks; /* never entered */
    const LExpr *tile = li_mod(k, task, tiles);
    t->q_first = t->k_first = number(l, 0);
    t->h = let_once(l, li_mod(k, li_div(k, task, tiles), t->heads), "h");
    if (t->packed) {
        t->b = number(l, 0);
        find_example(l, t, tile);
    } else {
        t->b = let_once(l, li_div(k, task, li_mul(k, t->heads, tiles)), "b");
        t->i0 = let_once(l, li_mul(k, tile, number(l, QUERIES)), "i0");
    }
    t->q_example = t->b;
    t->k_example = t->spans == NONE ? t->b : number(l, 0);
    if (t->spans != NONE && !t->packed)
        attend_span(l, t);
    t->rows = let_once(l, li_min(k, number(l, QUERIES), li_sub(k, t->queries, t->i0)), "mq");
    const Attr *offset = node_attr(t->n, AT_offset);
    t->query = offset ? let_once(l, li_add(k, t->i0, le_dim(k, offset->d)), "query") : t->i0;
    attend_dropout(l, t);
    if (t->seed) {
        const LExpr *head = li_add(k, li_mul(k, t->b, t->heads), t->h);
        t->linear = let_once(l, li_mul(k, li_add(k, li_mul(k, head, t->queries), t->i0), t->keys), "linear");
    }
}

bool lower_attention_tiles(Lower *l, Attend *t, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, count_tasks(l, t), "p");
    l->block = &p->body;
    Tile x = {.t = t, .q = lines(l, t->width, "q"), .s = lines(l, number(l, KEYS), "s"), .o = lines(l, t->value_width, "o")};
    if (!x.q || !x.s || !x.o)
        return false;
    if (t->bias.buf)
        x.bias = loop_scratch(k, DT_F32, (KEYS + QUERIES) * 4, str_c("bias"));
    open_task(l, t, le_var(k, p->var));
    if (t->packed)
        l->block = &ls_if(k, l->block, le_op2(k, LO_GT, DT_BOOL, t->rows, number(l, 0)))->body;
    pack_queries(l, &x);
    clear_output(l, &x);
    x.max = array(l, "max");
    x.sum = array(l, "sum");
    x.shrink = array(l, "shrink");
    fill(l, x.max, -(double)INFINITY);
    fill(l, x.sum, 0);
    const LExpr *blocks = li_div(k, li_add(k, t->keys, number(l, KEYS - 1)), number(l, KEYS));
    LBlock *task = l->block;
    x.j0 = let_once(l, li_mul(k, each(l, blocks, "block"), number(l, KEYS)), "j0");
    x.keys = let_once(l, li_min(k, number(l, KEYS), li_sub(k, t->keys, x.j0)), "keys");
    attend_block(l, &x);
    l->block = task;
    store_output(l, &x, to);
    l->block = back;
    return true;
}
