/* Attention of one query, by blocks of queries: a worker's scratch holds the scores of one block against all keys, so
 * nothing of extent [B,H,T,S] is ever in memory. Parallel over examples, heads and blocks. */
#include "lower_attention.h"

enum { QUERY_BLOCK = 64 };

ValueId attend_operand(const Attend *t, uint32_t i) {
    return t->first + i < t->n->n_in ? t->n->in[t->first + i] : NONE;
}

bool attend_rows(Lower *l, ValueId v, View *out) {
    if (!lower_stored(l, v, out))
        return false;
    return dim_is(l->t, out->stride[2], 1) || (lower_scratch(l, v, out) && lower_into(l, v, out));
}

bool attend_open(Lower *l, const Node *n, uint32_t first, Attend *t) {
    LoopKernel *k = l->k;
    *t = (Attend){.n = n, .first = first};
    ValueId q = attend_operand(t, 0), key = attend_operand(t, 1), value = attend_operand(t, 2), bias = attend_operand(t, 3);
    t->keep = attend_operand(t, 4);
    t->q_segment = attend_operand(t, 5);
    t->k_segment = attend_operand(t, 6);
    DType dtype = l->f->value[q].type.dtype;
    if (dtype != DT_F32)
        return diag_error(l->d, DIAG_LOWER_OP, NULL, "attention in %s is not supported: only f32",
                          dtype_name(dtype));
    if (k->parallel)
        return diag_error(l->d, DIAG_LOWER_OP, NULL, "kernel '%.*s' holds more than one attention",
                          (int)l->f->name.n, l->f->name.p);
    if (!attend_rows(l, q, &t->q) || !attend_rows(l, key, &t->k) || !attend_rows(l, value, &t->v))
        return false;
    if (bias != NONE && !lower_stored(l, bias, &t->bias))
        return false;
    t->heads = le_int(k, node_int(n, AT_heads, 1));
    t->batch = lower_extent(l, q, 0);
    t->queries = lower_extent(l, q, 1);
    t->keys = lower_extent(l, key, 1);
    t->width = li_div(k, lower_extent(l, q, 2), t->heads);
    t->value_width = li_div(k, lower_extent(l, value, 2), t->heads);
    t->blocks = li_div(k, li_add(k, t->queries, le_int(k, QUERY_BLOCK - 1)), le_int(k, QUERY_BLOCK));
    return true;
}

/* A worker's room for one number a query of the block and key. */
static const LBuf *block_scratch(Lower *l, const Attend *t, const char *hint) {
    int64_t bytes, hi = dim_upper(l->t, l->f->value[attend_operand(t, 1)].type.dim[1]);
    bool ok = hi != DIM_UNBOUNDED && mul_i64(hi, QUERY_BLOCK * 4, &bytes);
    const LBuf *b = ok ? loop_scratch(l->k, DT_F32, bytes, str_c(hint)) : NULL;
    if (!b)
        diag_error(l->d, DIAG_SHAPE_UNBOUNDED, NULL,
                   "attention over an unbounded length; give it a bound with --dim NAME=1..N");
    return b;
}

static void open_block(Lower *l, Attend *t, const LExpr *i0) {
    LoopKernel *k = l->k;
    t->i0 = le_var(k, ls_let(k, l->block, DT_I64, i0, "i0"));
    t->rows = le_var(k, ls_let(k, l->block, DT_I64,
                               li_min(k, le_int(k, QUERY_BLOCK), li_sub(k, t->queries, t->i0)), "mq"));
}

/* Head h of rows from `from` on as a matrix. */
static LMatrix head_of(Lower *l, const Attend *t, const View *w, const LExpr *from, const LExpr *width,
                       bool transposed) {
    const LExpr *at[3] = {t->b, from, li_mul(l->k, t->h, width)};
    return (LMatrix){w->buf, view_index(l, w, at), le_dim(l->k, w->stride[1]), transposed};
}

static LMatrix block_of(Lower *l, const Attend *t, const LBuf *b, bool transposed) {
    return (LMatrix){b, le_int(l->k, 0), t->keys, transposed};
}

/* ---- one row of a block ------------------------------------------------------------------------------- */

static const LExpr *at_key(Lower *l, const Attend *t, const LExpr *j) {
    return li_add(l->k, li_mul(l->k, t->row, t->keys), j);
}

/* The loop over the block's rows; what its elements need is computed once a row. Returns the block to go back
 * to. */
static LBlock *open_row(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *i = ls_for(k, back, t->rows, "i");
    const Attr *offset = node_attr(t->n, AT_offset);
    l->block = &i->body;
    t->row = le_var(k, i->var);
    const LExpr *position = li_add(k, t->i0, t->row);
    t->query = offset ? li_add(k, position, le_dim(k, offset->d)) : position;
    if (t->bias.buf || node_int(t->n, AT_causal, 0))
        t->query = le_var(k, ls_let(k, l->block, DT_I64, t->query, "query"));
    if (t->q_segment != NONE) {
        const LExpr *at[2] = {t->b, position};
        t->segment = le_var(k, ls_let(k, l->block, DT_I64, lower_pull(l, t->q_segment, at), "segment"));
    }
    if (t->seed) {
        const LExpr *head = li_add(k, li_mul(k, t->b, t->heads), t->h);
        const LExpr *line = li_add(k, li_mul(k, head, t->queries), position);
        t->linear = le_var(k, ls_let(k, l->block, DT_I64, li_mul(k, line, t->keys), "linear"));
    }
    return back;
}

/* x where the row's query sees key j, else `otherwise`. */
static const LExpr *where_seen(Lower *l, const Attend *t, const LExpr *j, const LExpr *x,
                               const LExpr *otherwise) {
    LoopKernel *k = l->k;
    const LExpr *at[2] = {t->b, j};
    if (t->keep != NONE)
        x = le_select(k, lower_pull(l, t->keep, at), x, otherwise);
    if (t->k_segment != NONE)
        x = le_select(k, le_op2(k, LO_EQ, DT_BOOL, lower_pull(l, t->k_segment, at), t->segment), x,
                      otherwise);
    if (node_int(t->n, AT_causal, 0))
        x = le_select(k, le_op2(k, LO_LE, DT_BOOL, j, t->query), x, otherwise);
    return x;
}

const LExpr *attend_bias_column(Lower *l, const Attend *t, const LExpr *distance) {
    LoopKernel *k = l->k;
    const LExpr *last = li_sub(k, lower_extent(l, attend_operand(t, 3), 1), le_int(k, 1));
    const LExpr *d = li_add(k, distance, le_int(k, node_int(t->n, AT_center, 0)));
    return li_max(k, li_min(k, d, last), le_int(k, 0));
}

static const LExpr *bias_column(Lower *l, const Attend *t, const LExpr *j) {
    return attend_bias_column(l, t, li_sub(l->k, j, t->query));
}

const LExpr *attend_lowest(Lower *l) {
    return le_num(l->k, DT_F32, -3.4028234663852886e+38);
}

static const LExpr *score_at(Lower *l, void *ctx, const LExpr *j) {
    const Attend *t = ctx;
    LoopKernel *k = l->k;
    const LExpr *s = le_load(k, t->scores, at_key(l, t, j));
    if (t->bias.buf) {
        const LExpr *at[2] = {t->h, bias_column(l, t, j)};
        s = le_op2(k, LO_ADD, DT_F32, s, le_load(k, t->bias.buf, view_index(l, &t->bias, at)));
    }
    return where_seen(l, t, j, s, attend_lowest(l));
}

/* q k^T of the block, then what a row's softmax makes of it: the probabilities before dropout. */
static void block_scores(Lower *l, const Attend *t) {
    ls_matmul(l->k, l->block, head_of(l, t, &t->q, t->i0, t->width, false),
              head_of(l, t, &t->k, le_int(l->k, 0), t->width, true), block_of(l, t, t->scores, false),
              t->rows, t->keys, t->width, false);
}

static void row_softmax(Lower *l, Attend *t) {
    View row = {
        .buf = t->scores, .offset = li_mul(l->k, t->row, t->keys), .rank = 1, .stride = {dim_const(l->t, 1)}};
    const LExpr *none[1] = {le_int(l->k, 0)};
    lower_softmax_of(l, &row, none, 0, t->keys, score_at, t);
}

/* ---- dropout ---------------------------------------------------------------------------------------------
 */

void attend_dropout(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    ValueId seed = attend_operand(t, 7), drop = attend_operand(t, 8);
    if (seed == NONE)
        return;
    t->seed = le_var(k, ls_let(k, l->block, DT_I64, lower_pull(l, seed, NULL), "seed"));
    t->drop = le_var(k, ls_let(k, l->block, DT_F32, lower_pull(l, drop, NULL), "drop"));
    const LExpr *one = le_num(k, DT_F32, 1), *kept = le_op2(k, LO_SUB, DT_F32, one, t->drop);
    t->scale = le_var(k, ls_let(k, l->block, DT_F32, le_op2(k, LO_DIV, DT_F32, one, kept), "scale"));
}

const LExpr *attend_dropped(Lower *l, const Attend *t, const LExpr *index, const LExpr *x) {
    if (!t->seed)
        return x;
    LoopKernel *k = l->k;
    const LExpr *u = le_op2(k, LO_UNIFORM, DT_F32, t->seed, index);
    return le_select(k, le_op2(k, LO_GE, DT_BOOL, u, t->drop), le_op2(k, LO_MUL, DT_F32, x, t->scale),
                     le_num(k, DT_F32, 0));
}

/* The same at key j of the row. */
static const LExpr *dropped(Lower *l, const Attend *t, const LExpr *j, const LExpr *x) {
    return t->seed ? attend_dropped(l, t, li_add(l->k, t->linear, j), x) : x;
}

static void drop_row(Lower *l, const Attend *t) {
    if (!t->seed)
        return;
    LoopKernel *k = l->k;
    LStmt *s = ls_lanes(k, l->block, t->keys, "j");
    const LExpr *j = le_var(k, s->var), *at = at_key(l, t, j);
    ls_store(k, &s->body, t->scores, at, dropped(l, t, j, le_load(k, t->scores, at)));
}

/* ---- attention
 * ---------------------------------------------------------------------------------------------- */

bool lower_attention(Lower *l, const Node *n, const View *to) {
    LoopKernel *k = l->k;
    Attend t;
    if (!attend_open(l, n, 0, &t))
        return false;
    if (!le_is_int(t.queries, 1))
        return lower_attention_tiles(l, &t, to);
    LBlock *back = l->block;
    LStmt *p = ls_parallel(k, back, li_mul(k, li_mul(k, t.batch, t.heads), t.blocks), "p");
    l->block = &p->body;
    t.scores = block_scratch(l, &t, "scores");
    if (!t.scores)
        return false;
    const LExpr *task = le_var(k, p->var), *block = le_int(k, QUERY_BLOCK);
    const LExpr *blocks = le_is_int(t.blocks, 0) ? le_int(k, 1) : t.blocks; /* never entered */
    t.b = le_var(k, ls_let(k, l->block, DT_I64, li_div(k, task, li_mul(k, t.heads, blocks)), "b"));
    t.h = le_var(k, ls_let(k, l->block, DT_I64, li_mod(k, li_div(k, task, blocks), t.heads), "h"));
    open_block(l, &t, li_mul(k, li_mod(k, task, blocks), block));
    attend_dropout(l, &t);
    block_scores(l, &t);
    LBlock *whole = open_row(l, &t);
    row_softmax(l, &t);
    drop_row(l, &t);
    l->block = whole;
    ls_matmul(k, l->block, block_of(l, &t, t.scores, false),
              head_of(l, &t, &t.v, le_int(k, 0), t.value_width, false),
              head_of(l, &t, to, t.i0, t.value_width, false), t.rows, t.value_width, t.keys, false);
    l->block = back;
    return true;
}
