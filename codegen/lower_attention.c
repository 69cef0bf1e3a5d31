/* Attention and its gradient, a block of queries at a time: scores and probabilities of a block are all that is ever in
 * memory. The forward kernel runs over examples, heads and blocks in parallel; the backward one over examples and heads,
 * whose keys and values collect from all blocks of queries in order. */
#include "lower_ops.h"

enum { QUERY_BLOCK = 32 };

/* Operands from `first` on, and where a worker is: head h of example b, queries i0 .. i0 + mq. */
typedef struct Attention {
    const Node *n;
    uint32_t first;
    View q, k, v, bias;
    const LBuf *scores;
    const LExpr *heads, *queries, *keys, *width, *value_width;
    const LExpr *b, *h, *i0, *mq;
    const LExpr *row, *query; /* i of the block; its position, offset included */
    const LExpr *kept;        /* 1 / (1 - drop), NULL without dropout */
} Attention;

static ValueId operand(const Attention *t, uint32_t i) {
    return t->first + i < t->n->n_in ? t->n->in[t->first + i] : NONE;
}

static bool open_attention(Lower *l, const Node *n, uint32_t first, Attention *t) {
    LoopKernel *k = l->k;
    *t = (Attention){.n = n, .first = first};
    ValueId q = operand(t, 0), key = operand(t, 1), v = operand(t, 2), bias = operand(t, 3);
    if (l->f->value[q].type.dtype != DT_F32)
        return diag_error(l->d, NULL, "attention in %s is not supported: only f32", dtype_name(l->f->value[q].type.dtype));
    if (!lower_stored(l, q, &t->q) || !lower_stored(l, key, &t->k) || !lower_stored(l, v, &t->v)) return false;
    if (bias != NONE && !lower_stored(l, bias, &t->bias)) return false;
    t->heads = le_int(k, node_int(n, AT_heads, 1));
    t->queries = lower_extent(l, q, 1);
    t->keys = lower_extent(l, key, 1);
    t->width = li_div(k, lower_extent(l, q, 2), t->heads);
    t->value_width = li_div(k, lower_extent(l, v, 2), t->heads);
    return true;
}

/* [QUERY_BLOCK, keys] of scratch. */
static LBuf *block_scratch(Lower *l, const Attention *t, const char *hint) {
    int64_t bytes, hi = dim_upper(l->t, l->f->value[operand(t, 1)].type.dim[1]);
    LBuf *b = hi != DIM_UNBOUNDED && mul_i64(hi, QUERY_BLOCK * 4, &bytes) ? loop_scratch(l->k, DT_F32, bytes, str_c(hint)) : NULL;
    if (!b) diag_error(l->d, NULL, "attention over an unbounded length; give it a bound with --dim NAME=1..N");
    return b;
}

static const LExpr *let(Lower *l, DType type, const LExpr *e, const char *hint) {
    return le_var(l->k, ls_let(l->k, l->block, type, e, hint));
}

static const LExpr *blocks_of(Lower *l, const Attention *t) {
    return li_div(l->k, li_add(l->k, t->queries, le_int(l->k, QUERY_BLOCK - 1)), le_int(l->k, QUERY_BLOCK));
}

static void place_block(Lower *l, Attention *t, const LExpr *block) {
    t->i0 = let(l, DT_I64, li_mul(l->k, block, le_int(l->k, QUERY_BLOCK)), "i0");
    t->mq = let(l, DT_I64, li_min(l->k, le_int(l->k, QUERY_BLOCK), li_sub(l->k, t->queries, t->i0)), "mq");
}

/* Rows `row` on of head h in a [B,rows,H*width] array. */
static LMatrix head_rows(Lower *l, const Attention *t, const View *w, const LExpr *row, const LExpr *width) {
    const LExpr *at[3] = {t->b, row, li_mul(l->k, t->h, width)};
    return (LMatrix){w->buf, view_index(l, w, at), le_dim(l->k, w->stride[1]), false};
}

static LMatrix block_matrix(Lower *l, const Attention *t, const LBuf *buf, bool transposed) {
    return (LMatrix){buf, le_int(l->k, 0), t->keys, transposed};
}

/* ---- a row of scores ---------------------------------------------------------------------------------------------- */

static const LExpr *in_block(Lower *l, const Attention *t, const LExpr *j) {
    return li_add(l->k, li_mul(l->k, t->row, t->keys), j);
}

/* Whether the query sees key j; NULL when it sees all. */
static const LExpr *sees(Lower *l, const Attention *t, const LExpr *j) {
    LoopKernel *k = l->k;
    const LExpr *all[3], *e = NULL;
    int n = 0;
    if (operand(t, 4) != NONE) {
        const LExpr *at[2] = {t->b, j};
        all[n++] = lower_pull(l, operand(t, 4), at);
    }
    if (operand(t, 5) != NONE) {
        const LExpr *own[2] = {t->b, li_add(k, t->i0, t->row)}, *theirs[2] = {t->b, j};
        all[n++] = le_op2(k, LO_EQ, DT_BOOL, lower_pull(l, operand(t, 5), own), lower_pull(l, operand(t, 6), theirs));
    }
    if (node_int(t->n, AT_causal, 0)) all[n++] = le_op2(k, LO_LE, DT_BOOL, j, t->query);
    for (int i = 0; i < n; i++) e = e ? le_op2(k, LO_AND, DT_BOOL, e, all[i]) : all[i];
    return e;
}

static const LExpr *bias_column(Lower *l, const Attention *t, const LExpr *j) {
    LoopKernel *k = l->k;
    const LExpr *last = li_sub(k, lower_extent(l, operand(t, 3), 1), le_int(k, 1));
    const LExpr *d = li_add(k, li_sub(k, j, t->query), le_int(k, node_int(t->n, AT_center, 0)));
    return li_max(k, li_min(k, d, last), le_int(k, 0));
}

/* What the product at key j becomes before the softmax. */
static const LExpr *score_at(Lower *l, void *ctx, const LExpr *j) {
    const Attention *t = ctx;
    LoopKernel *k = l->k;
    const LExpr *s = le_load(k, t->scores, in_block(l, t, j)), *seen = sees(l, t, j);
    if (t->bias.buf) {
        const LExpr *at[2] = {t->h, bias_column(l, t, j)};
        s = le_op2(k, LO_ADD, DT_F32, s, le_load(k, t->bias.buf, view_index(l, &t->bias, at)));
    }
    return seen ? le_select(k, seen, s, le_num(k, DT_F32, -3.4028234663852886e+38)) : s;
}

/* What dropout multiplies the probability of key j by. */
static const LExpr *mask_at(Lower *l, const Attention *t, const LExpr *j) {
    LoopKernel *k = l->k;
    const LExpr *row = li_add(k, li_mul(k, li_add(k, li_mul(k, t->b, t->heads), t->h), t->queries), li_add(k, t->i0, t->row));
    const LExpr *at = li_add(k, li_mul(k, row, t->keys), j);
    const LExpr *u = le_op2(k, LO_UNIFORM, DT_F32, lower_pull(l, operand(t, 7), NULL), at);
    const LExpr *stays = le_op2(k, LO_GE, DT_BOOL, u, lower_pull(l, operand(t, 8), NULL));
    return le_select(k, stays, t->kept, le_num(k, DT_F32, 0));
}

/* Opens the loop over the block's rows; returns the block to restore. */
static LBlock *open_row(Lower *l, Attention *t) {
    LoopKernel *k = l->k;
    LStmt *i = ls_for(k, l->block, t->mq, "i");
    LBlock *back = l->block;
    const Attr *offset = node_attr(t->n, AT_offset);
    l->block = &i->body;
    t->row = le_var(k, i->var);
    t->query = li_add(k, t->i0, t->row);
    if (offset) t->query = li_add(k, t->query, le_dim(k, offset->d));
    if (t->bias.buf || node_int(t->n, AT_causal, 0)) t->query = let(l, DT_I64, t->query, "query");
    return back;
}

static void find_kept(Lower *l, Attention *t) {
    LoopKernel *k = l->k;
    const LExpr *one = le_num(k, DT_F32, 1);
    if (operand(t, 8) != NONE)
        t->kept = let(l, DT_F32, le_op2(k, LO_DIV, DT_F32, one, le_op2(k, LO_SUB, DT_F32, one, lower_pull(l, operand(t, 8), NULL))), "kept");
}

/* scores = softmax(masked and biased scores) along the row */
static void row_softmax(Lower *l, Attention *t) {
    View rows = {.buf = t->scores, .offset = li_mul(l->k, t->row, t->keys), .rank = 1, .stride = {dim_const(l->t, 1)}};
    const LExpr *none[1] = {le_int(l->k, 0)};
    lower_softmax_of(l, &rows, none, 0, t->keys, score_at, t);
}

static void row_dropout(Lower *l, const Attention *t) {
    LoopKernel *k = l->k;
    if (!t->kept) return;
    LStmt *s = ls_lanes(k, l->block, t->keys, "j");
    const LExpr *j = le_var(k, s->var), *at = in_block(l, t, j);
    ls_store(k, &s->body, t->scores, at, le_op2(k, LO_MUL, DT_F32, le_load(k, t->scores, at), mask_at(l, t, j)));
}

/* ---- attention --------------------------------------------------------------------------------------------------------- */

bool lower_attention(Lower *l, const Node *n, const View *to) {
    LoopKernel *k = l->k;
    Attention t;
    if (!open_attention(l, n, 0, &t) || !(t.scores = block_scratch(l, &t, "scores"))) return false;
    const LExpr *blocks = blocks_of(l, &t), *zero = le_int(k, 0);
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, li_mul(k, li_mul(k, lower_extent(l, n->in[0], 0), t.heads), blocks), "p");
    l->block = &p->body;
    const LExpr *task = le_var(k, p->var);
    t.b = let(l, DT_I64, li_div(k, task, li_mul(k, t.heads, blocks)), "b");
    t.h = let(l, DT_I64, li_mod(k, li_div(k, task, blocks), t.heads), "h");
    place_block(l, &t, li_mod(k, task, blocks));
    find_kept(l, &t);

    LMatrix key = head_rows(l, &t, &t.k, zero, t.width);
    key.transposed = true;
    ls_matmul(k, l->block, head_rows(l, &t, &t.q, t.i0, t.width), key, block_matrix(l, &t, t.scores, false), t.mq, t.keys, t.width, false);
    LBlock *block = open_row(l, &t);
    row_softmax(l, &t);
    row_dropout(l, &t);
    l->block = block;
    ls_matmul(k, l->block, block_matrix(l, &t, t.scores, false), head_rows(l, &t, &t.v, zero, t.value_width),
              head_rows(l, &t, to, t.i0, t.value_width), t.mq, t.value_width, t.keys, false);
    l->block = back;
    return true;
}

/* ---- the gradient --------------------------------------------------------------------------------------------------------- */

typedef struct Backward {
    Attention t;
    const LBuf *dp; /* adjoints of the probabilities, then of the scores */
} Backward;

/* Adjoint of the probability of key j before dropout. */
static const LExpr *dp_at(Lower *l, const Backward *x, const LExpr *j) {
    const LExpr *e = le_load(l->k, x->dp, in_block(l, &x->t, j));
    return x->t.kept ? le_op2(l->k, LO_MUL, DT_F32, e, mask_at(l, &x->t, j)) : e;
}

static const LExpr *weighted_at(Lower *l, void *ctx, const LExpr *j) {
    const Backward *x = ctx;
    return le_op2(l->k, LO_MUL, DT_F32, le_load(l->k, x->t.scores, in_block(l, &x->t, j)), dp_at(l, x, j));
}

/* dp = P (dp - sum P dp), 0 where a key is not seen */
static void row_scores(Lower *l, Backward *x) {
    LoopKernel *k = l->k;
    const LExpr *sum = lower_fold(l, LO_ADD, DT_F32, x->t.keys, weighted_at, x);
    LStmt *s = ls_lanes(k, l->block, x->t.keys, "j");
    LBlock *back = l->block;
    l->block = &s->body;
    const LExpr *j = le_var(k, s->var), *at = in_block(l, &x->t, j), *seen = sees(l, &x->t, j);
    const LExpr *e = le_op2(k, LO_MUL, DT_F32, le_load(k, x->t.scores, at), le_op2(k, LO_SUB, DT_F32, dp_at(l, x, j), sum));
    ls_store(k, l->block, x->dp, at, seen ? le_select(k, seen, e, le_num(k, DT_F32, 0)) : e);
    l->block = back;
}

/* Scores of one distance share a column: one after another. */
static void row_bias(Lower *l, const Backward *x, const View *dbias) {
    LoopKernel *k = l->k;
    LStmt *s = ls_for(k, l->block, x->t.keys, "j");
    LBlock *back = l->block;
    l->block = &s->body;
    const LExpr *j = le_var(k, s->var);
    const LExpr *idx[3] = {x->t.b, x->t.h, let(l, DT_I64, bias_column(l, &x->t, j), "column")};
    const LExpr *at = view_index(l, dbias, idx);
    ls_store(k, l->block, dbias->buf, at, le_op2(k, LO_ADD, DT_F32, le_load(k, dbias->buf, at), le_load(k, x->dp, in_block(l, &x->t, j))));
    l->block = back;
}

/* Zeros in rows x columns of head h, or in its row of the bias. */
static void clear(Lower *l, const Attention *t, const View *w, const LExpr *rows, const LExpr *columns, bool bias) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *row = t->h, *column;
    if (!bias) {
        LStmt *i = ls_for(k, l->block, rows, "i");
        row = le_var(k, i->var);
        l->block = &i->body;
    }
    LStmt *c = ls_lanes(k, l->block, columns, "c");
    column = bias ? le_var(k, c->var) : li_add(k, li_mul(k, t->h, columns), le_var(k, c->var));
    const LExpr *idx[3] = {t->b, row, column};
    ls_store(k, &c->body, w->buf, view_index(l, w, idx), le_num(k, DT_F32, 0));
    l->block = back;
}

bool lower_attention_grad(Lower *l, const Node *n, const View *to) {
    LoopKernel *k = l->k;
    Backward x;
    Attention *t = &x.t;
    View dy;
    if (!open_attention(l, n, 1, t) || !lower_stored(l, n->in[0], &dy) || !(t->scores = block_scratch(l, t, "p")) ||
        !(x.dp = block_scratch(l, t, "dp")))
        return false;
    const View *dq = &to[0], *dk = &to[1], *dv = &to[2], *dbias = n->n_out > 3 && to[3].buf ? &to[3] : NULL;
    const LExpr *zero = le_int(k, 0);
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, li_mul(k, lower_extent(l, n->in[1], 0), t->heads), "p");
    l->block = &p->body;
    t->b = let(l, DT_I64, li_div(k, le_var(k, p->var), t->heads), "b");
    t->h = let(l, DT_I64, li_mod(k, le_var(k, p->var), t->heads), "h");
    find_kept(l, t);
    if (dk->buf) clear(l, t, dk, t->keys, t->width, false);
    if (dv->buf) clear(l, t, dv, t->keys, t->value_width, false);
    if (dbias) clear(l, t, dbias, NULL, lower_extent(l, operand(t, 3), 1), true);

    LStmt *blocks = ls_for(k, l->block, blocks_of(l, t), "block");
    l->block = &blocks->body;
    place_block(l, t, le_var(k, blocks->var));
    LMatrix q = head_rows(l, t, &t->q, t->i0, t->width), key = head_rows(l, t, &t->k, zero, t->width), key_t = key;
    LMatrix v_t = head_rows(l, t, &t->v, zero, t->value_width), dy_rows = head_rows(l, t, &dy, t->i0, t->value_width);
    key_t.transposed = v_t.transposed = true;
    ls_matmul(k, l->block, q, key_t, block_matrix(l, t, t->scores, false), t->mq, t->keys, t->width, false);
    ls_matmul(k, l->block, dy_rows, v_t, block_matrix(l, t, x.dp, false), t->mq, t->keys, t->value_width, false);
    LBlock *block = open_row(l, t);
    row_softmax(l, t);
    row_scores(l, &x);
    if (dbias) row_bias(l, &x, dbias);
    row_dropout(l, t);
    l->block = block;
    if (dq->buf)
        ls_matmul(k, l->block, block_matrix(l, t, x.dp, false), key, head_rows(l, t, dq, t->i0, t->width), t->mq, t->width, t->keys, false);
    if (dk->buf)
        ls_matmul(k, l->block, block_matrix(l, t, x.dp, true), q, head_rows(l, t, dk, zero, t->width), t->keys, t->width, t->mq, true);
    if (dv->buf)
        ls_matmul(k, l->block, block_matrix(l, t, t->scores, true), dy_rows, head_rows(l, t, dv, zero, t->value_width), t->keys, t->value_width, t->mq, true);
    l->block = back;
    return true;
}
