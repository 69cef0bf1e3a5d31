/* The gradient of attention, by tiles of 32 queries, a vector lane each, which meet all keys at once: nothing of extent
 * [B,H,T,S] is ever in memory, and no probability is kept for it by the forward pass. For the tile, with its dropout mask M
 * (what is kept is scaled) and probabilities P:
 *
 *     S^T = K Q^T    G^T = V dY^T    D = G M    dS = P (D - sum of P D), 0 where hidden
 *     dQ^T = K^T dS^T    dK += dS^T Q    dV += (P M)^T dY
 *
 * Every tile adds to the same keys and values: parallel over examples and heads. */
#include "lower_attention.h"

#include <math.h>

typedef struct Backward {
    Attend t;
    Tile x;                           /* x.s: S^T, then e^(S - m), below 0 where dropped, then (P M)^T; x.o: dQ^T */
    View dy, dq, dk, dv, dbias;       /* without a buffer where nobody reads it */
    const LBuf *dy_lanes, *grad;      /* dY^T; G^T, then D^T, then dS^T */
    const LBuf *q_panels, *dy_panels; /* the tile's rows in panels of columns, as many steps as there are queries */
    const LBuf *k_sum, *v_sum;        /* dK and dV in panels of columns */
    const LBuf *diagonals;            /* of dS, as those of the bias */
    const LBuf *dot;                  /* of each query: the sum of P D */
    int64_t most;                     /* keys */
} Backward;

static const LExpr *number(Lower *l, int64_t v) {
    return le_int(l->k, v);
}

static const LExpr *f32(Lower *l, LOp op, const LExpr *a, const LExpr *b) {
    return le_op2(l->k, op, DT_F32, a, b);
}

static LMatrix first_lines(Lower *l, const LBuf *b) {
    return lower_lines(l, b, number(l, 0));
}

static const LExpr *panels_of(Lower *l, const LExpr *width) {
    return li_div(l->k, li_add(l->k, width, number(l, QUERIES - 1)), number(l, QUERIES));
}

static const LExpr *columns_of(Lower *l, const LExpr *width, const LExpr *panel) {
    return li_min(l->k, number(l, QUERIES), li_sub(l->k, width, li_mul(l->k, panel, number(l, QUERIES))));
}

/* ---- scratch --------------------------------------------------------------------------------------------- */

/* Panels of a head's columns by `rows`; 0 bytes are none. */
static const LBuf *panels(Lower *l, const LExpr *width, int64_t rows, const char *hint) {
    int64_t most = attend_most(l, width), lines;
    bool ok = most != DIM_UNBOUNDED && rows != DIM_UNBOUNDED && mul_i64((most + QUERIES - 1) / QUERIES, rows, &lines);
    return attend_lines(l, ok ? lines : DIM_UNBOUNDED, hint);
}

static bool open_sums(Lower *l, Backward *y) {
    Attend *t = &y->t;
    if (y->dk.buf && !((y->k_sum = panels(l, t->width, y->most, "dk")) && (y->q_panels = panels(l, t->width, QUERIES, "q_rows"))))
        return false;
    if (y->dv.buf && !((y->v_sum = panels(l, t->value_width, y->most, "dv")) &&
                       (y->dy_panels = panels(l, t->value_width, QUERIES, "dy_rows"))))
        return false;
    return !y->dq.buf || (y->x.o = attend_lines(l, attend_most(l, t->width), "dq"));
}

static bool open_scratch(Lower *l, Backward *y) {
    y->most = attend_most(l, y->t.keys);
    y->x = (Tile){.t = &y->t, .j0 = number(l, 0), .keys = y->t.keys};
    if (!attend_tile(l, &y->x, y->most) || !open_sums(l, y))
        return false;
    y->dy_lanes = attend_lines(l, attend_most(l, y->t.value_width), "dy");
    y->grad = y->dy_lanes ? attend_lines(l, y->most, "grad") : NULL;
    if (y->grad && y->dbias.buf)
        y->diagonals = loop_scratch(l->k, DT_F32, (y->most + QUERIES) * 4, str_c("diagonals"));
    y->x.max = attend_array(l, "max");
    y->x.sum = attend_array(l, "sum");
    y->dot = attend_array(l, "dot");
    return y->grad;
}

static void clear(Lower *l, const LBuf *b, const LExpr *lines) {
    LBlock *back = l->block;
    if (!b)
        return;
    const LExpr *i = attend_each(l, lines, "i"), *q = attend_each_query(l);
    ls_store(l->k, l->block, b, attend_in_line(l, i, q), le_num(l->k, DT_F32, 0));
    l->block = back;
}

/* ---- a tile ------------------------------------------------------------------------------------------------ */

/* e^(S - m) of each query and key, below 0 (or -0) where it is dropped, and its sum. */
static void exponentiate(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = attend_each(l, t->keys, "j"), *q = attend_each_query(l), *max = le_load(k, y->x.max, q);
    const LExpr *p = attend_let(l, le_op1(k, LO_EXP, DT_F32, f32(l, LO_SUB, attend_line(l, y->x.s, j, q), max)), "p");
    ls_store(k, l->block, y->x.sum, q, f32(l, LO_ADD, le_load(k, y->x.sum, q), p));
    if (t->seed) {
        const LExpr *index = li_add(k, li_add(k, t->linear, li_mul(k, q, t->keys)), j);
        const LExpr *u = attend_let(l, le_op2(k, LO_UNIFORM, DT_F32, t->seed, index), "u");
        const LExpr *dropped = attend_let(l, le_op1(k, LO_NEG, DT_F32, p), "dropped");
        p = le_select(k, le_op2(k, LO_GE, DT_BOOL, u, t->drop), p, dropped);
    }
    ls_store(k, l->block, y->x.s, attend_in_line(l, j, q), p);
    l->block = back;
}

/* x where e^(S - m) of the element was kept, else 0. */
static const LExpr *where_kept(Lower *l, const Backward *y, const LExpr *p, const LExpr *x) {
    LoopKernel *k = l->k;
    const LExpr *zero = le_num(k, DT_F32, 0);
    return y->t.seed ? le_select(k, le_op2(k, LO_LT, DT_BOOL, p, zero), zero, x) : x;
}

static const LExpr *magnitude(Lower *l, const Backward *y, const LExpr *p) {
    return y->t.seed ? attend_let(l, le_op1(l->k, LO_ABS, DT_F32, p), "a") : p;
}

/* G becomes D. */
static void drop(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = attend_each(l, t->keys, "j"), *q = attend_each_query(l), *at = attend_in_line(l, j, q);
    const LExpr *p = attend_let(l, le_load(k, y->x.s, at), "p"), *d = le_load(k, y->grad, at);
    d = attend_let(l, t->seed ? f32(l, LO_MUL, d, t->scale) : d, "d");
    if (t->seed) {
        d = attend_let(l, where_kept(l, y, p, d), "d");
        ls_store(k, l->block, y->grad, at, d);
    }
    ls_store(k, l->block, y->dot, q, f32(l, LO_ADD, le_load(k, y->dot, q), f32(l, LO_MUL, magnitude(l, y, p), d)));
    l->block = back;
}

/* Of each query: m and the sum become what makes P of e^(S - m) in dS and in P M. Where m is the score of hidden keys, all
 * are. */
static void divide(Lower *l, const Backward *y) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *q = attend_each_query(l), *zero = le_num(k, DT_F32, 0);
    const LExpr *share = attend_let(l, attend_share(l, le_load(k, y->x.sum, q)), "share");
    const LExpr *hidden = le_op2(k, LO_LE, DT_BOOL, le_load(k, y->x.max, q), attend_lowest(l));
    ls_store(k, l->block, y->dot, q, f32(l, LO_MUL, le_load(k, y->dot, q), share));
    ls_store(k, l->block, y->x.max, q, le_select(k, hidden, zero, share));
    ls_store(k, l->block, y->x.sum, q, y->t.seed ? f32(l, LO_MUL, share, y->t.scale) : share);
    l->block = back;
}

/* D becomes dS, e^(S - m) P M. */
static void slope(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *j = attend_each(l, t->keys, "j"), *q = attend_each_query(l), *at = attend_in_line(l, j, q);
    const LExpr *p = attend_let(l, le_load(k, y->x.s, at), "p");
    const LExpr *d = f32(l, LO_SUB, le_load(k, y->grad, at), le_load(k, y->dot, q));
    ls_store(k, l->block, y->grad, at, f32(l, LO_MUL, f32(l, LO_MUL, magnitude(l, y, p), le_load(k, y->x.max, q)), d));
    if (y->dv.buf)
        ls_store(k, l->block, y->x.s, at, f32(l, LO_MUL, attend_let(l, where_kept(l, y, p, p), "kept"), le_load(k, y->x.sum, q)));
    l->block = back;
}

/* ---- what a tile adds ------------------------------------------------------------------------------------------ */

/* The tile's rows of a head in panels of columns. */
static void pack_columns(Lower *l, const Attend *t, const View *w, const LExpr *width, const LBuf *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *p = attend_each(l, panels_of(l, width), "panel"), *i = attend_each(l, t->rows, "i");
    LMatrix from = attend_query_head(l, t, w, i, width);
    LStmt *s = ls_lanes(k, l->block, columns_of(l, width, p), "d");
    const LExpr *d = le_var(k, s->var), *line = li_add(k, li_mul(k, p, number(l, QUERIES)), i);
    const LExpr *e = le_load(k, from.buf, li_add(k, li_add(k, from.offset, li_mul(k, p, number(l, QUERIES))), d));
    ls_store(k, &s->body, to, attend_in_line(l, line, d), e);
    l->block = back;
}

/* sum [keys,width] += left [keys,queries] rows. */
static void add_rows(Lower *l, const Backward *y, const LBuf *left, const LBuf *rows, const LBuf *sum, const LExpr *width) {
    const Attend *t = &y->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *p = attend_each(l, panels_of(l, width), "panel");
    LMatrix a = first_lines(l, left), b = lower_lines(l, rows, li_mul(k, p, number(l, QUERIES)));
    LMatrix c = lower_lines(l, sum, li_mul(k, p, t->keys));
    lower_multiply_lines(l, LEFT_ROWS, &a, &b, &c, t->keys, t->rows, true);
    l->block = back;
}

/* dS along the diagonals of the tile, then where the bias of each is. */
static void add_bias(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *n = attend_let(l, li_add(k, t->keys, number(l, QUERIES - 1)), "n");
    LStmt *s = ls_lanes(k, l->block, n, "u");
    ls_store(k, &s->body, y->diagonals, le_var(k, s->var), le_num(k, DT_F32, 0));
    const LExpr *j = attend_each(l, t->keys, "j");
    const LExpr *first = attend_let(l, li_sub(k, li_sub(k, t->keys, number(l, 1)), j), "first");
    const LExpr *q = attend_each_query(l), *at = li_add(k, first, q);
    ls_store(k, l->block, y->diagonals, at, f32(l, LO_ADD, le_load(k, y->diagonals, at), attend_line(l, y->grad, j, q)));
    l->block = back;
    const LExpr *u = attend_each(l, n, "u"), *distance = li_sub(k, li_sub(k, n, number(l, QUERIES)), li_add(k, u, t->query));
    const LExpr *place[3] = {t->b, t->h, attend_bias_column(l, t, distance)};
    const LExpr *to = attend_let(l, view_index(l, &y->dbias, place), "at");
    ls_store(k, l->block, y->dbias.buf, to, f32(l, LO_ADD, le_load(k, y->dbias.buf, to), le_load(k, y->diagonals, u)));
    l->block = back;
}

static void add_tile(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    if (y->dbias.buf)
        add_bias(l, y);
    if (y->dq.buf) {
        LMatrix keys = attend_key_head(l, t, &t->k, number(l, 0), t->k_head), grad = first_lines(l, y->grad);
        LMatrix lines = first_lines(l, y->x.o), rows = attend_query_head(l, t, &y->dq, number(l, 0), t->width);
        lower_multiply_lines(l, LEFT_COLUMNS, &keys, &grad, &lines, t->width, t->keys, false);
        lower_turn(l, &lines, &rows, t->width, t->rows);
    }
    if (y->dk.buf) {
        pack_columns(l, t, &t->q, t->width, y->q_panels);
        add_rows(l, y, y->grad, y->q_panels, y->k_sum, t->width);
    }
    if (y->dv.buf) {
        pack_columns(l, t, &y->dy, t->value_width, y->dy_panels);
        add_rows(l, y, y->x.s, y->dy_panels, y->v_sum, t->value_width);
    }
}

static void do_tile(Lower *l, const Backward *y) {
    const Attend *t = &y->t;
    const LExpr *zero = number(l, 0);
    LMatrix keys = attend_key_head(l, t, &t->k, zero, t->k_head), values = attend_key_head(l, t, &t->v, zero, t->v_head);
    LMatrix q = first_lines(l, y->x.q), s = first_lines(l, y->x.s), dy = first_lines(l, y->dy_lanes), grad = first_lines(l, y->grad);
    attend_pack(l, t, &t->q, t->width, y->x.q);
    attend_pack(l, t, &y->dy, t->value_width, y->dy_lanes);
    lower_multiply_lines(l, LEFT_ROWS, &keys, &q, &s, t->keys, t->width, false);
    lower_multiply_lines(l, LEFT_ROWS, &values, &dy, &grad, t->keys, t->value_width, false);
    attend_pack_bias(l, &y->x);
    attend_fill(l, y->x.max, -INFINITY);
    attend_fill(l, y->x.sum, 0);
    attend_fill(l, y->dot, 0);
    attend_find_max(l, &y->x);
    exponentiate(l, y);
    drop(l, y);
    divide(l, y);
    slope(l, y);
    add_tile(l, y);
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

/* Sums of a head's keys into their place. */
static void store_sums(Lower *l, const Attend *t, const View *to, const LBuf *sum, const LExpr *width, Dim apart) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    if (!to->buf)
        return;
    const LExpr *p = attend_each(l, panels_of(l, width), "panel"), *j = attend_each(l, t->keys, "j");
    LMatrix row = attend_key_head(l, t, to, j, apart);
    LStmt *s = ls_lanes(k, l->block, columns_of(l, width, p), "d");
    const LExpr *d = le_var(k, s->var), *at = li_add(k, li_add(k, row.offset, li_mul(k, p, number(l, QUERIES))), d);
    ls_store(k, &s->body, to->buf, at, attend_line(l, sum, li_add(k, li_mul(k, p, t->keys), j), d));
    l->block = back;
}

static void clear_bias(Lower *l, const Backward *y) {
    LoopKernel *k = l->k;
    if (!y->dbias.buf)
        return;
    LStmt *s = ls_lanes(k, l->block, lower_extent(l, attend_operand(&y->t, 3), 1), "u");
    const LExpr *at[3] = {y->t.b, y->t.h, le_var(k, s->var)};
    ls_store(k, &s->body, y->dbias.buf, view_index(l, &y->dbias, at), le_num(k, DT_F32, 0));
}

bool lower_attention_grad(Lower *l, const Node *n, const View *to) {
    LoopKernel *k = l->k;
    Backward y = {.dq = to[0], .dk = to[1], .dv = to[2]};
    Attend *t = &y.t;
    if (!attend_open(l, n, 1, t) || !attend_rows(l, n->in[0], &y.dy))
        return false;
    if (n->n_out > 3)
        y.dbias = to[3];
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, li_mul(k, t->batch, t->heads), "p");
    l->block = &p->body;
    if (!open_scratch(l, &y))
        return false;
    t->b = attend_let(l, li_div(k, le_var(k, p->var), t->heads), "b");
    t->h = attend_let(l, li_mod(k, le_var(k, p->var), t->heads), "h");
    t->q_example = t->k_example = t->b;
    t->q_first = t->k_first = number(l, 0);
    attend_dropout(l, t);
    clear(l, y.k_sum, li_mul(k, panels_of(l, t->width), t->keys));
    clear(l, y.v_sum, li_mul(k, panels_of(l, t->value_width), t->keys));
    clear_bias(l, &y);
    LBlock *task = l->block;
    const LExpr *tiles = li_div(k, li_add(k, t->queries, number(l, QUERIES - 1)), number(l, QUERIES));
    t->i0 = attend_let(l, li_mul(k, attend_each(l, tiles, "tile"), number(l, QUERIES)), "i0");
    attend_place(l, t);
    attend_pack_segments(l, t);
    do_tile(l, &y);
    l->block = task;
    store_sums(l, t, &y.dk, y.k_sum, t->width, t->k_head);
    store_sums(l, t, &y.dv, y.v_sum, t->value_width, t->v_head);
    l->block = back;
    return true;
}
