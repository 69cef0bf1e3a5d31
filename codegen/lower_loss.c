/* Token cross entropy and its gradients. The logits of a batch are never stored whole: tiles of tokens meet chunks of the
 * vocabulary, and one such block of logits is in a worker's scratch at a time.
 *
 *   cross_entropy      tiles in parallel; over the chunks, each row's running maximum, sum of e^(logit - maximum), sum of
 *                      logits and label's logit
 *   cross_entropy_dx   tiles in parallel; each block is computed again and becomes its gradient in place: dx += block.w^T
 *   cross_entropy_dw   chunks in parallel, over the tiles of tokens: dw += x^T.block
 *
 * Which sums meet in which order depends on shapes alone. A weight or input whose elements do not lie like a matrix is
 * copied a tile at a time. */
#include "lower_ops.h"

#include <math.h>

/* Columns of a block. A chunk of dw is read and written for every tile: it should stay in a cache. */
enum { CHUNK = 2048, CHUNK_DW = 512 };

enum { IGNORED = -100 };

typedef struct Loss {
    Lower *l;
    const Node *n;
    ValueId x, w, labels, log_z, dloss;
    bool tb;                                    /* w is [V,d] */
    const LExpr *tokens, *time, *width, *vocab; /* B*T, T, d, V */
    const LExpr *smoothing, *z;
    const LExpr *tile, *chunk; /* rows and columns of a whole block; the latter is the logits' ld */
    LBuf *logits, *label, *x_copy, *w_copy; /* label: -1 where ignored */
    const LExpr *row0, *m, *col0, *cols;    /* the block at hand */
    LMatrix mx, mw, mlogits;                /* x [m,d], w [d,cols], logits [m,cols] */
} Loss;

static const LExpr *let(Loss *c, DType t, const LExpr *e, const char *hint) {
    return le_var(c->l->k, ls_let(c->l->k, c->l->block, t, e, hint));
}

static const LExpr *f32(Loss *c, LOp op, const LExpr *a, const LExpr *b) {
    return le_op2(c->l->k, op, DT_F32, a, b);
}

static const LExpr *number(Loss *c, double v) {
    return le_num(c->l->k, DT_F32, v);
}

static const LExpr *at_row(const LBuf *b, Loss *c, const LExpr *i) {
    return le_load(c->l->k, b, i);
}

/* Loops of one level; the body is where statements go until l->block is set back to what this returns. */
static LBlock *open_loop(Loss *c, LStmt *s, const LExpr **i) {
    LBlock *back = c->l->block;
    *i = le_var(c->l->k, s->var);
    c->l->block = &s->body;
    return back;
}

static LBlock *for_rows(Loss *c, const LExpr **i) {
    return open_loop(c, ls_for(c->l->k, c->l->block, c->m, "i"), i);
}

static LBlock *for_lanes(Loss *c, const LExpr *extent, const LExpr **j) {
    return open_loop(c, ls_lanes(c->l->k, c->l->block, extent, "j"), j);
}

/* How many blocks of `size` cover `extent`. */
static const LExpr *blocks(Loss *c, const LExpr *extent, const LExpr *size) {
    LoopKernel *k = c->l->k;
    return li_div(k, li_sub(k, li_add(k, extent, size), le_int(k, 1)), size);
}

/* Position of the tile's row i in [B,T]. */
static void token_of(Loss *c, const LExpr *i, const LExpr **at) {
    LoopKernel *k = c->l->k;
    const LExpr *row = let(c, DT_I64, li_add(k, c->row0, i), "row");
    at[0] = let(c, DT_I64, li_div(k, row, c->time), "b");
    at[1] = let(c, DT_I64, li_mod(k, row, c->time), "t");
}

/* ---- blocks ---- */

static LBuf *scratch(Loss *c, DType t, int64_t rows, int64_t cols, const char *hint) {
    int64_t bytes;
    bool ok = mul_i64(rows, cols, &bytes) && mul_i64(bytes, (int64_t)dtype_bytes(t), &bytes);
    LBuf *b = ok ? loop_scratch(c->l->k, t, bytes, str_c(hint)) : NULL;
    if (!b)
        diag_error(c->l->d, DIAG_SHAPE_SIZE, NULL, "'%s': a block of its operands is too large",
                   op_info(c->n->op)->name);
    return b;
}

static int64_t at_most(const Lower *l, Dim d, int64_t most) {
    int64_t hi = dim_upper(l->t, d);
    return hi != DIM_UNBOUNDED && hi < most ? hi > 0 ? hi : 1 : most;
}

/* Rows of x, [B,T] collapsed, as one axis of a matrix. */
static bool token_stride(const Lower *l, ValueId x, const View *v, Dim *out) {
    const Type *t = &l->f->value[x].type;
    bool single = dim_is(l->t, t->dim[1], 1);
    *out = v->stride[single ? 0 : 1];
    return single || dim_is(l->t, t->dim[0], 1) || v->stride[0] == dim_mul(l->t, v->stride[1], t->dim[1]);
}

static bool x_is_matrix(Loss *c, LMatrix *out) {
    Lower *l = c->l;
    View v;
    Dim down;
    if (!lower_view(l, c->x, &v) || !token_stride(l, c->x, &v, &down))
        return false;
    const LExpr *offset =
        c->row0 ? li_add(l->k, v.offset, li_mul(l->k, c->row0, le_dim(l->k, down))) : v.offset;
    return lower_matrix(l, v.buf, offset, down, v.stride[2], out);
}

static bool w_is_matrix(Loss *c, LMatrix *out) {
    Lower *l = c->l;
    View v;
    if (!lower_view(l, c->w, &v))
        return false;
    Dim down = v.stride[c->tb ? 1 : 0], across = v.stride[c->tb ? 0 : 1];
    const LExpr *offset =
        c->col0 ? li_add(l->k, v.offset, li_mul(l->k, c->col0, le_dim(l->k, across))) : v.offset;
    return lower_matrix(l, v.buf, offset, down, across, out);
}

/* What a kernel stores itself is in one worker's scratch: the others would not see it. */
static bool operands_from_outside(Loss *c, const View *to, uint32_t n_to) {
    Lower *l = c->l;
    bool ok = l->block == &l->k->body;
    View v;
    for (uint32_t i = 0; i < c->n->n_in; i++)
        ok = ok && !(lower_view(l, c->n->in[i], &v) && v.buf->kind == LB_SCRATCH);
    for (uint32_t i = 0; i < n_to; i++)
        ok = ok && !(to[i].buf && to[i].buf->kind == LB_SCRATCH);
    return ok || diag_error(l->d, DIAG_LOWER_OP, NULL, "'%s' has no lowering inside a larger kernel",
                            op_info(c->n->op)->name);
}

static bool loss_begin(Lower *l, const Node *n, const View *to, int64_t chunk, Loss *c) {
    *c = (Loss){
        .l = l, .n = n, .x = n->in[0], .w = n->in[1], .labels = n->in[2], .tb = node_int(n, AT_tb, 0) != 0};
    if (n->n_in > 5)
        c->log_z = n->in[5], c->dloss = n->in[6];
    const Type *x = &l->f->value[c->x].type, *w = &l->f->value[c->w].type;
    if (x->dtype != DT_F32)
        return diag_error(l->d, DIAG_LOWER_OP, NULL, "%s in %s is not supported: only f32",
                          op_info(n->op)->name, dtype_name(x->dtype));
    if (!operands_from_outside(c, to, n->n_out))
        return false;
    Dim tokens = dim_mul(l->t, x->dim[0], x->dim[1]), vocab = w->dim[c->tb ? 0 : 1];
    int64_t tile = at_most(l, tokens, l->o->tile_rows), columns = at_most(l, vocab, chunk);
    int64_t width = dim_upper(l->t, x->dim[2]);
    c->tokens = le_dim(l->k, tokens);
    c->time = le_dim(l->k, x->dim[1]);
    c->width = le_dim(l->k, x->dim[2]);
    c->vocab = le_dim(l->k, vocab);
    c->tile = le_int(l->k, tile);
    c->chunk = le_int(l->k, columns);
    c->logits = scratch(c, DT_F32, tile, columns, "logits");
    c->label = c->logits ? scratch(c, DT_I64, tile, 1, "label") : NULL;
    if (!c->label)
        return false;
    LMatrix any;
    if (!x_is_matrix(c, &any) && !(c->x_copy = scratch(c, DT_F32, tile, width, "x_tile")))
        return false;
    if (!w_is_matrix(c, &any) && !(c->w_copy = scratch(c, DT_F32, width, columns, "w_chunk")))
        return false;
    return true;
}

/* smoothing and z, once a task. */
static void load_scalars(Loss *c) {
    c->smoothing = let(c, DT_F32, lower_pull(c->l, c->n->in[3], NULL), "smoothing");
    c->z = let(c, DT_F32, lower_pull(c->l, c->n->in[4], NULL), "z");
}

static void copy_x(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *at[3];
    LBlock *back = for_rows(c, &i);
    token_of(c, i, at);
    for_lanes(c, c->width, &j);
    at[2] = j;
    ls_store(k, c->l->block, c->x_copy, li_add(k, li_mul(k, i, c->width), j), lower_pull(c->l, c->x, at));
    c->l->block = back;
    c->mx = (LMatrix){c->x_copy, le_int(k, 0), c->width, false};
}

static void copy_w(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *at[2];
    LBlock *back = open_loop(c, ls_for(k, c->l->block, c->width, "i"), &i);
    for_lanes(c, c->cols, &j);
    at[c->tb ? 1 : 0] = i;
    at[c->tb ? 0 : 1] = li_add(k, c->col0, j);
    ls_store(k, c->l->block, c->w_copy, li_add(k, li_mul(k, i, c->chunk), j), lower_pull(c->l, c->w, at));
    c->l->block = back;
    c->mw = (LMatrix){c->w_copy, le_int(k, 0), c->chunk, false};
}

static void load_labels(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *at[2];
    LBlock *back = for_rows(c, &i);
    token_of(c, i, at);
    const LExpr *e = let(c, DT_I64, lower_pull(c->l, c->labels, at), "e");
    const LExpr *ignored = le_op2(k, LO_EQ, DT_BOOL, e, le_int(k, IGNORED));
    uint32_t known = ls_check(k, c->l->block, le_select(k, ignored, le_int(k, 0), e), c->vocab, "known");
    ls_store(k, c->l->block, c->label, i, le_select(k, ignored, le_int(k, -1), le_var(k, known)));
    c->l->block = back;
}

static void set_tile(Loss *c, const LExpr *tile) {
    LoopKernel *k = c->l->k;
    c->row0 = let(c, DT_I64, li_mul(k, tile, c->tile), "row0");
    c->m = let(c, DT_I64, li_min(k, c->tile, li_sub(k, c->tokens, c->row0)), "rows");
    if (!x_is_matrix(c, &c->mx))
        copy_x(c);
    load_labels(c);
}

static void set_chunk(Loss *c, const LExpr *chunk) {
    LoopKernel *k = c->l->k;
    c->col0 = let(c, DT_I64, li_mul(k, chunk, c->chunk), "col0");
    c->cols = let(c, DT_I64, li_min(k, c->chunk, li_sub(k, c->vocab, c->col0)), "cols");
    if (!w_is_matrix(c, &c->mw))
        copy_w(c);
    c->mlogits = (LMatrix){c->logits, le_int(k, 0), c->chunk, false};
}

static LMatrix transposed(LMatrix m) {
    m.transposed = !m.transposed;
    return m;
}

static void compute_logits(Loss *c) {
    ls_matmul(c->l->k, c->l->block, c->mx, c->mw, c->mlogits, c->m, c->cols, c->width, false);
}

static const LExpr *logit_index(Loss *c, const LExpr *i, const LExpr *j) {
    return li_add(c->l->k, li_mul(c->l->k, i, c->chunk), j);
}

/* A block of statements for rows whose label is in the chunk; *at is the label's column. */
static LBlock *if_label_here(Loss *c, const LExpr *i, const LExpr **at) {
    LoopKernel *k = c->l->k;
    LBlock *back = c->l->block;
    *at = let(c, DT_I64, li_sub(k, at_row(c->label, c, i), c->col0), "at");
    const LExpr *here = le_op2(k, LO_AND, DT_BOOL, le_op2(k, LO_GE, DT_BOOL, at_row(c->label, c, i), c->col0),
                               le_op2(k, LO_LT, DT_BOOL, *at, c->cols));
    c->l->block = &ls_if(k, back, here)->body;
    return back;
}

/* ---- forward ---- */

/* What is known of each row after the chunks so far. */
typedef struct Running {
    LBuf *max, *sum, *total, *picked; /* sum of e^(logit - max); sum of logits; the label's logit */
} Running;

typedef struct LogitCtx {
    Loss *c;
    const LExpr *i, *max; /* max: NULL for the logit itself */
} LogitCtx;

static const LExpr *logit_element(Lower *l, void *ctx, const LExpr *j) {
    LogitCtx *x = ctx;
    const LExpr *e = le_load(l->k, x->c->logits, logit_index(x->c, x->i, j));
    return x->max ? le_op1(l->k, LO_EXP, DT_F32, f32(x->c, LO_SUB, e, x->max)) : e;
}

static bool running_new(Loss *c, Running *r) {
    int64_t rows = c->tile->i;
    return (r->max = scratch(c, DT_F32, rows, 1, "max")) && (r->sum = scratch(c, DT_F32, rows, 1, "sum")) &&
           (r->total = scratch(c, DT_F32, rows, 1, "total")) &&
           (r->picked = scratch(c, DT_F32, rows, 1, "picked"));
}

static void running_start(Loss *c, const Running *r) {
    LoopKernel *k = c->l->k;
    const LExpr *i;
    LBlock *back = for_rows(c, &i);
    ls_store(k, c->l->block, r->max, i, number(c, -INFINITY));
    ls_store(k, c->l->block, r->sum, i, number(c, 0));
    ls_store(k, c->l->block, r->total, i, number(c, 0));
    ls_store(k, c->l->block, r->picked, i, number(c, 0));
    c->l->block = back;
}

static void running_add(Loss *c, const Running *r) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *at;
    LBlock *back = for_rows(c, &i);
    LogitCtx x = {c, i, NULL};
    const LExpr *here = lower_fold(c->l, LO_MAX, DT_F32, c->cols, logit_element, &x);
    const LExpr *total = lower_fold(c->l, LO_ADD, DT_F32, c->cols, logit_element, &x);
    const LExpr *old = let(c, DT_F32, at_row(r->max, c, i), "old");
    x.max = let(c, DT_F32, f32(c, LO_MAX, here, old), "most");
    const LExpr *part = lower_fold(c->l, LO_ADD, DT_F32, c->cols, logit_element, &x);
    const LExpr *scale = le_op1(k, LO_EXP, DT_F32, f32(c, LO_SUB, old, x.max));
    ls_store(k, c->l->block, r->sum, i, f32(c, LO_ADD, f32(c, LO_MUL, at_row(r->sum, c, i), scale), part));
    ls_store(k, c->l->block, r->total, i, f32(c, LO_ADD, at_row(r->total, c, i), total));
    ls_store(k, c->l->block, r->max, i, x.max);
    LBlock *row = if_label_here(c, i, &at);
    ls_store(k, c->l->block, r->picked, i, le_load(k, c->logits, logit_index(c, i, at)));
    c->l->block = row;
    c->l->block = back;
}

static void store_result(Loss *c, const View *to, const LExpr *const *at, const LExpr *e) {
    if (to->buf)
        ls_store(c->l->k, c->l->block, to->buf, view_index(c->l, to, at), e);
}

static void running_end(Loss *c, const Running *r, const View *loss, const View *log_z) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *at[2];
    LBlock *back = for_rows(c, &i);
    token_of(c, i, at);
    LStmt *s = ls_if(k, c->l->block, le_op2(k, LO_LT, DT_BOOL, at_row(c->label, c, i), le_int(k, 0)));
    c->l->block = &s->body;
    store_result(c, loss, at, number(c, 0));
    store_result(c, log_z, at, number(c, 0));
    c->l->block = &s->other;
    const LExpr *z =
        let(c, DT_F32, f32(c, LO_ADD, at_row(r->max, c, i), le_op1(k, LO_LOG, DT_F32, at_row(r->sum, c, i))),
            "log_z");
    store_result(c, log_z, at, z);
    if (!loss->buf) {
        c->l->block = back;
        return;
    }
    const LExpr *mean = f32(c, LO_DIV, at_row(r->total, c, i), le_cast(k, DT_F32, c->vocab));
    const LExpr *own = f32(c, LO_MUL, f32(c, LO_SUB, number(c, 1), c->smoothing),
                           f32(c, LO_SUB, z, at_row(r->picked, c, i)));
    const LExpr *all = f32(c, LO_MUL, c->smoothing, f32(c, LO_SUB, z, mean));
    const LExpr *square = f32(c, LO_MUL, f32(c, LO_MUL, c->z, z), z);
    store_result(c, loss, at, f32(c, LO_ADD, f32(c, LO_ADD, own, all), square));
    c->l->block = back;
}

bool lower_cross_entropy(Lower *l, const Node *n, const View *to) {
    Loss c;
    Running r;
    const LExpr *i;
    if (!loss_begin(l, n, to, CHUNK, &c) || !running_new(&c, &r))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(l->k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    if (to[0].buf) load_scalars(&c); /* log Z alone needs none */
    set_tile(&c, i);
    running_start(&c, &r);
    LBlock *tile = open_loop(&c, ls_for(l->k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    set_chunk(&c, i);
    compute_logits(&c);
    running_add(&c, &r);
    l->block = tile;
    running_end(&c, &r, &to[0], &to[1]);
    l->block = back;
    return true;
}

/* ---- backward ---- */

/* The block's logits become dloss ((1 + 2 z log_z) e^(logit - log_z) - s/V - (1-s) [column = label]). */
static void logits_to_gradient(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *at[2], *column;
    LBlock *back = for_rows(c, &i);
    LStmt *s = ls_if(k, c->l->block, le_op2(k, LO_LT, DT_BOOL, at_row(c->label, c, i), le_int(k, 0)));
    c->l->block = &s->body;
    for_lanes(c, c->cols, &j);
    ls_store(k, c->l->block, c->logits, logit_index(c, i, j), number(c, 0));
    c->l->block = &s->other;
    token_of(c, i, at);
    const LExpr *d = let(c, DT_F32, lower_pull(c->l, c->dloss, at), "d");
    const LExpr *z = let(c, DT_F32, lower_pull(c->l, c->log_z, at), "log_z");
    const LExpr *slope = f32(c, LO_ADD, number(c, 1), f32(c, LO_MUL, f32(c, LO_MUL, number(c, 2), c->z), z));
    slope = let(c, DT_F32, f32(c, LO_MUL, d, slope), "slope");
    const LExpr *all =
        let(c, DT_F32, f32(c, LO_DIV, f32(c, LO_MUL, d, c->smoothing), le_cast(k, DT_F32, c->vocab)), "all");
    LBlock *row = for_lanes(c, c->cols, &j);
    const LExpr *spot = logit_index(c, i, j);
    const LExpr *p = le_op1(k, LO_EXP, DT_F32, f32(c, LO_SUB, le_load(k, c->logits, spot), z));
    ls_store(k, c->l->block, c->logits, spot, f32(c, LO_SUB, f32(c, LO_MUL, slope, p), all));
    c->l->block = row;
    if_label_here(c, i, &column);
    spot = logit_index(c, i, column);
    const LExpr *own = f32(c, LO_MUL, d, f32(c, LO_SUB, number(c, 1), c->smoothing));
    ls_store(k, c->l->block, c->logits, spot, f32(c, LO_SUB, le_load(k, c->logits, spot), own));
    c->l->block = back;
}

/* A matrix of the result with `down` between its rows, filled with zeros. */
static LMatrix zeros(Loss *c, const View *to, const LExpr *offset, const LExpr *ld, const LExpr *rows,
                     const LExpr *cols) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j;
    LBlock *back = open_loop(c, ls_for(k, c->l->block, rows, "i"), &i);
    for_lanes(c, cols, &j);
    ls_store(k, c->l->block, to->buf, li_add(k, li_add(k, offset, li_mul(k, i, ld)), j), number(c, 0));
    c->l->block = back;
    return (LMatrix){to->buf, offset, ld, false};
}

bool lower_cross_entropy_dx(Lower *l, const Node *n, const View *to) {
    Loss c;
    const LExpr *i;
    if (!loss_begin(l, n, to, CHUNK, &c))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(l->k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    load_scalars(&c);
    set_tile(&c, i);
    LMatrix dx =
        zeros(&c, to, li_add(l->k, to->offset, li_mul(l->k, c.row0, c.width)), c.width, c.m, c.width);
    open_loop(&c, ls_for(l->k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    set_chunk(&c, i);
    compute_logits(&c);
    logits_to_gradient(&c);
    ls_matmul(l->k, l->block, c.mlogits, transposed(c.mw), dx, c.m, c.width, c.cols, true);
    l->block = back;
    return true;
}

bool lower_cross_entropy_dw(Lower *l, const Node *n, const View *to) {
    Loss c;
    LoopKernel *k = l->k;
    const LExpr *i;
    if (!loss_begin(l, n, to, CHUNK_DW, &c))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    load_scalars(&c);
    set_chunk(&c, i);
    const LExpr *ld = c.tb ? c.width : c.vocab,
                *first = li_add(k, to->offset, c.tb ? li_mul(k, c.col0, ld) : c.col0);
    LMatrix dw = zeros(&c, to, first, ld, c.tb ? c.cols : c.width, c.tb ? c.width : c.cols);
    open_loop(&c, ls_for(k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    set_tile(&c, i);
    compute_logits(&c);
    logits_to_gradient(&c);
    if (c.tb)
        ls_matmul(k, l->block, transposed(c.mlogits), c.mx, dw, c.cols, c.width, c.m, true);
    else
        ls_matmul(k, l->block, transposed(c.mx), c.mlogits, dw, c.width, c.cols, c.m, true);
    l->block = back;
    return true;
}
