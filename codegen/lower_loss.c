/* Token cross entropy and its gradients. The logits of a batch are never stored whole: bands of 32 tokens, a vector lane each,
 * meet chunks of the vocabulary, and one such block of logits is in a worker's scratch at a time.
 *
 *     L^T[chunk,32] = W^T X^T    dX^T[d,32] += W dL^T    dW^T[chunk,d] += dL^T X
 *
 *   cross_entropy      tiles of a few bands in parallel; over the chunks, each token's running maximum, sum of
 *                      e^(logit - maximum), sum of logits and label's logit
 *   cross_entropy_dx   tiles in parallel; each block is computed again and becomes its gradient in place
 *   cross_entropy_dw   chunks in parallel, over the tiles of tokens
 *
 * A weight is read as it lies, in panels (compiler/pack.h), by rows or by columns; one whose elements do not lie like a matrix or
 * are no floats is copied a chunk at a time. Which sums meet in which order depends on shapes alone. */
#include "lower_panel.h"

#include "../compiler/pack.h"

#include <math.h>

/* Tokens of a band, and columns of a chunk: what a chunk has of the weight stays in cache for all bands of a tile. */
enum { BAND = PANEL_COLUMNS, CHUNK = 128 };

enum { IGNORED = -100 };

typedef struct Loss {
    Lower *l;
    const Node *n;
    ValueId x, w, labels, log_z, dloss;
    bool tb;                                    /* w is [V,d] */
    Panels p;
    const LBuf *panels;                         /* w, or its chunk, in panels of `columns` columns; NULL: it is none */
    int64_t columns;
    const LExpr *tokens, *time, *width, *vocab; /* B*T, T, d, V */
    const LExpr *smoothing, *z;
    const LExpr *tile, *chunk;            /* tokens and columns of whole ones */
    const LBuf *lanes, *logits, *w_copy;  /* X^T of a tile, band after band; L^T of a block */
    const LBuf *label;                    /* of each token of the tile; -1 where it is ignored */
    const LExpr *row0, *m, *col0, *cols;  /* the tile and the chunk */
    const LExpr *first, *count;           /* the band: tokens of the tile */
    LMatrix mx, mw;                       /* x [m,d] where it lies like one, w [d,cols] */
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

/* The band's tokens, as tokens of the tile, those behind the last one as well. */
static LBlock *for_lanes(Loss *c, const LExpr **lane, const LExpr **token) {
    LBlock *back = open_loop(c, ls_lanes(c->l->k, c->l->block, le_int(c->l->k, BAND), "lane"), lane);
    *token = li_add(c->l->k, c->first, *lane);
    return back;
}

static LBlock *for_columns(Loss *c, const LExpr **j) {
    return open_loop(c, ls_for(c->l->k, c->l->block, c->cols, "j"), j);
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

static bool w_is_panels(Loss *c) {
    const Lower *l = c->l;
    if (c->tb || !panels_of_weight(l, value_node(l->f, c->w), &c->p) || l->f->value[c->p.from].type.rank != 3)
        return false;
    c->columns = c->p.width;
    c->panels = c->p.format ? scratch(c, DT_F32, c->p.depth, CHUNK, "w_chunk") : l->view[c->p.from].buf;
    return c->panels;
}

static bool loss_begin(Lower *l, const Node *n, const View *to, Loss *c) {
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
    int64_t tile = (at_most(l, tokens, l->o->tile_rows) + BAND - 1) / BAND * BAND, columns = at_most(l, vocab, CHUNK);
    int64_t width = dim_upper(l->t, x->dim[2]);
    c->tokens = le_dim(l->k, tokens);
    c->time = le_dim(l->k, x->dim[1]);
    c->width = le_dim(l->k, x->dim[2]);
    c->vocab = le_dim(l->k, vocab);
    c->tile = le_int(l->k, tile);
    c->chunk = le_int(l->k, columns);
    LMatrix any;
    if (!(c->lanes = scratch(c, DT_F32, tile, width, "x")) || !(c->logits = scratch(c, DT_F32, BAND, CHUNK, "logits")) ||
        !(c->label = scratch(c, DT_I64, tile, 1, "label")))
        return false;
    return w_is_panels(c) || w_is_matrix(c, &any) || (c->w_copy = scratch(c, DT_F32, width, columns, "w_chunk"));
}

/* smoothing and z, once a task. */
static void load_scalars(Loss *c) {
    c->smoothing = let(c, DT_F32, lower_pull(c->l, c->n->in[3], NULL), "smoothing");
    c->z = let(c, DT_F32, lower_pull(c->l, c->n->in[4], NULL), "z");
}

/* X^T of the band, 0 behind the last token. */
static void pack_band(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *d, *at[3];
    LBlock *back = c->l->block;
    LMatrix lines = lower_lines(c->l, c->lanes, li_mul(k, li_div(k, c->first, le_int(k, BAND)), c->width));
    if (x_is_matrix(c, &c->mx) && !c->mx.transposed) {
        LMatrix rows = c->mx;
        rows.offset = li_add(k, rows.offset, li_mul(k, c->first, rows.ld));
        lower_turn(c->l, &rows, &lines, c->count, c->width);
    } else {
        open_loop(c, ls_for(k, c->l->block, c->count, "i"), &i);
        token_of(c, li_add(k, c->first, i), at);
        open_loop(c, ls_for(k, c->l->block, c->width, "d"), &d);
        at[2] = d;
        ls_store(k, c->l->block, c->lanes, li_add(k, li_add(k, lines.offset, li_mul(k, d, le_int(k, BAND))), i),
                 lower_pull(c->l, c->x, at));
        c->l->block = back;
    }
    LStmt *few = ls_if(k, back, le_op2(k, LO_LT, DT_BOOL, c->count, le_int(k, BAND)));
    c->l->block = &few->body;
    open_loop(c, ls_for(k, c->l->block, c->width, "d"), &d);
    open_loop(c, ls_for(k, c->l->block, li_sub(k, le_int(k, BAND), c->count), "i"), &i);
    const LExpr *line = li_add(k, lines.offset, li_mul(k, d, le_int(k, BAND)));
    ls_store(k, c->l->block, c->lanes, li_add(k, line, li_add(k, c->count, i)), number(c, 0));
    c->l->block = back;
}

static void copy_w(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *at[2];
    LBlock *back = open_loop(c, ls_for(k, c->l->block, c->width, "i"), &i);
    open_loop(c, ls_lanes(k, c->l->block, c->cols, "j"), &j);
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

static LBlock *for_bands(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *band, *size = le_int(k, BAND);
    LBlock *back = open_loop(c, ls_for(k, c->l->block, blocks(c, c->m, size), "band"), &band);
    c->first = let(c, DT_I64, li_mul(k, band, size), "first");
    c->count = let(c, DT_I64, li_min(k, size, li_sub(k, c->m, c->first)), "count");
    return back;
}

static void set_tile(Loss *c, const LExpr *tile) {
    LoopKernel *k = c->l->k;
    c->row0 = let(c, DT_I64, li_mul(k, tile, c->tile), "row0");
    c->m = let(c, DT_I64, li_min(k, c->tile, li_sub(k, c->tokens, c->row0)), "rows");
    load_labels(c);
    LBlock *back = for_bands(c);
    pack_band(c);
    c->l->block = back;
}

/* The chunk's panels: their number, and elements from one to the next. */
static const LExpr *chunk_panels(Loss *c) {
    return blocks(c, c->cols, le_int(c->l->k, c->columns));
}

static const LExpr *panel_size(Loss *c) {
    return li_mul(c->l->k, c->width, le_int(c->l->k, c->columns));
}

static const LExpr *first_panel(Loss *c) {
    if (c->p.format)
        return le_int(c->l->k, 0);
    return li_mul(c->l->k, li_div(c->l->k, c->col0, le_int(c->l->k, c->columns)), panel_size(c));
}

/* The chunk of a weight in words. */
static void expand_chunk(Loss *c) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *first = li_div(k, c->col0, le_int(k, c->columns));
    LBlock *back = open_loop(c, ls_for(k, c->l->block, chunk_panels(c), "panel"), &i);
    panel_expand(c->l, &c->p, li_add(k, first, i), le_int(k, 0), le_int(k, c->p.rows), c->panels, li_mul(k, i, panel_size(c)));
    c->l->block = back;
}

static void set_chunk(Loss *c, const LExpr *chunk) {
    LoopKernel *k = c->l->k;
    c->col0 = let(c, DT_I64, li_mul(k, chunk, c->chunk), "col0");
    c->cols = let(c, DT_I64, li_min(k, c->chunk, li_sub(k, c->vocab, c->col0)), "cols");
    if (c->panels && c->p.format)
        expand_chunk(c);
    else if (!c->panels && !w_is_matrix(c, &c->mw))
        copy_w(c);
}

/* X^T of the band, and the block's logits. */
static LMatrix band_lines(Loss *c) {
    LoopKernel *k = c->l->k;
    return lower_lines(c->l, c->lanes, li_mul(k, li_div(k, c->first, le_int(k, BAND)), c->width));
}

/* ---- products with the weight ---- */

/* Panels are zero behind the last column, and so are the logits there. */
static void compute_logits(Loss *c) {
    LoopKernel *k = c->l->k;
    LMatrix x = band_lines(c), logits = lower_lines(c->l, c->logits, le_int(k, 0));
    if (!c->panels) {
        lower_multiply_lines(c->l, c->mw.transposed ? LEFT_ROWS : LEFT_COLUMNS, &c->mw, &x, &logits, c->cols, c->width, false);
        return;
    }
    const LExpr *p, *size = le_int(k, c->columns);
    LBlock *back = open_loop(c, ls_for(k, c->l->block, chunk_panels(c), "panel"), &p);
    LMatrix panel = {c->panels, li_add(k, first_panel(c), li_mul(k, p, panel_size(c))), size, false};
    logits = lower_lines(c->l, c->logits, li_mul(k, p, size));
    lower_multiply_lines(c->l, LEFT_COLUMNS, &panel, &x, &logits, size, c->width, false);
    c->l->block = back;
}

/* Lines dX^T += W dL^T of the block. */
static void add_dx(Loss *c, const LMatrix *dx) {
    LoopKernel *k = c->l->k;
    LMatrix logits = lower_lines(c->l, c->logits, le_int(k, 0));
    if (c->panels) {
        LMatrix panels = {c->panels, first_panel(c), panel_size(c), false};
        lower_multiply_lines(c->l, c->columns == PANEL_NARROW ? LEFT_NARROW : LEFT_PANELS, &panels, &logits, dx, c->width,
                             chunk_panels(c), true);
    } else
        lower_multiply_lines(c->l, c->mw.transposed ? LEFT_COLUMNS : LEFT_ROWS, &c->mw, &logits, dx, c->width, c->cols, true);
}

static const LExpr *logit_index(Loss *c, const LExpr *j, const LExpr *lane) {
    return li_add(c->l->k, li_mul(c->l->k, j, le_int(c->l->k, BAND)), lane);
}

/* Statements for the band's tokens whose label is in the chunk; *spot: its logit's place. */
static LBlock *for_labels_here(Loss *c, const LExpr **token, const LExpr **spot) {
    LoopKernel *k = c->l->k;
    const LExpr *i;
    LBlock *back = open_loop(c, ls_for(k, c->l->block, c->count, "i"), &i);
    *token = li_add(k, c->first, i);
    const LExpr *at = let(c, DT_I64, li_sub(k, at_row(c->label, c, *token), c->col0), "at");
    const LExpr *here = le_op2(k, LO_AND, DT_BOOL, le_op2(k, LO_GE, DT_BOOL, at_row(c->label, c, *token), c->col0),
                               le_op2(k, LO_LT, DT_BOOL, at, c->cols));
    c->l->block = &ls_if(k, c->l->block, here)->body;
    *spot = logit_index(c, at, i);
    return back;
}

/* ---- forward ---- */

/* What is known of each token after the chunks so far. */
typedef struct Running {
    const LBuf *max, *sum, *total, *picked; /* sum of e^(logit - max); sum of logits; the label's logit */
    const LBuf *most, *part, *all;          /* the same three with the block at hand, of its own columns */
} Running;

static const LBuf *array(Loss *c, const char *hint) {
    LBuf *b = loop_buf(c->l->k, LB_LOCAL, DT_F32, str_c(hint));
    b->count = BAND;
    return b;
}

static bool running_new(Loss *c, Running *r) {
    CHECK(c->tile);
    int64_t rows = c->tile->i;
    *r = (Running){.most = array(c, "most"), .part = array(c, "part"), .all = array(c, "all")};
    return (r->max = scratch(c, DT_F32, rows, 1, "max")) && (r->sum = scratch(c, DT_F32, rows, 1, "sum")) &&
           (r->total = scratch(c, DT_F32, rows, 1, "total")) &&
           (r->picked = scratch(c, DT_F32, rows, 1, "picked"));
}

static void running_start(Loss *c, const Running *r) {
    LoopKernel *k = c->l->k;
    const LExpr *lane, *i;
    LBlock *back = for_bands(c);
    for_lanes(c, &lane, &i);
    ls_store(k, c->l->block, r->max, i, number(c, -INFINITY));
    ls_store(k, c->l->block, r->sum, i, number(c, 0));
    ls_store(k, c->l->block, r->total, i, number(c, 0));
    ls_store(k, c->l->block, r->picked, i, number(c, 0));
    c->l->block = back;
}

/* to[lane] = e */
static void set_array(Loss *c, const LBuf *to, const LBuf *from) {
    LoopKernel *k = c->l->k;
    const LExpr *lane, *i;
    LBlock *back = for_lanes(c, &lane, &i);
    ls_store(k, c->l->block, to, lane, from ? at_row(from, c, i) : number(c, 0));
    c->l->block = back;
}

static void running_add(Loss *c, const Running *r) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *lane, *spot;
    set_array(c, r->most, r->max);
    set_array(c, r->all, NULL);
    set_array(c, r->part, NULL);
    LBlock *back = for_columns(c, &j);
    for_lanes(c, &lane, &i);
    const LExpr *e = let(c, DT_F32, le_load(k, c->logits, logit_index(c, j, lane)), "e");
    ls_store(k, c->l->block, r->most, lane, f32(c, LO_MAX, at_row(r->most, c, lane), e));
    ls_store(k, c->l->block, r->all, lane, f32(c, LO_ADD, at_row(r->all, c, lane), e));
    c->l->block = back;
    for_columns(c, &j);
    for_lanes(c, &lane, &i);
    e = le_op1(k, LO_EXP, DT_F32, f32(c, LO_SUB, le_load(k, c->logits, logit_index(c, j, lane)), at_row(r->most, c, lane)));
    ls_store(k, c->l->block, r->part, lane, f32(c, LO_ADD, at_row(r->part, c, lane), e));
    c->l->block = back;
    for_lanes(c, &lane, &i);
    const LExpr *scale = le_op1(k, LO_EXP, DT_F32, f32(c, LO_SUB, at_row(r->max, c, i), at_row(r->most, c, lane)));
    ls_store(k, c->l->block, r->sum, i, f32(c, LO_ADD, f32(c, LO_MUL, at_row(r->sum, c, i), scale), at_row(r->part, c, lane)));
    ls_store(k, c->l->block, r->total, i, f32(c, LO_ADD, at_row(r->total, c, i), at_row(r->all, c, lane)));
    ls_store(k, c->l->block, r->max, i, at_row(r->most, c, lane));
    c->l->block = back;
    for_labels_here(c, &i, &spot);
    ls_store(k, c->l->block, r->picked, i, le_load(k, c->logits, spot));
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
    if (!loss_begin(l, n, to, &c) || !running_new(&c, &r))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(l->k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    if (to[0].buf) load_scalars(&c); /* log Z alone needs none */
    set_tile(&c, i);
    running_start(&c, &r);
    LBlock *tile = open_loop(&c, ls_for(l->k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    set_chunk(&c, i);
    for_bands(&c);
    compute_logits(&c);
    running_add(&c, &r);
    l->block = tile;
    running_end(&c, &r, &to[0], &to[1]);
    l->block = back;
    return true;
}

/* ---- backward ---- */

/* dL = slope e^(logit - log_z) - all, and at the label - own; nothing where a token is not live. Of each token of the tile. */
typedef struct Slope {
    const LBuf *log_z, *slope, *all, *own, *live;
} Slope;

static bool slope_new(Loss *c, Slope *s) {
    CHECK(c->tile);
    int64_t rows = c->tile->i;
    return (s->log_z = scratch(c, DT_F32, rows, 1, "log_z")) && (s->slope = scratch(c, DT_F32, rows, 1, "slope")) &&
           (s->all = scratch(c, DT_F32, rows, 1, "all")) && (s->own = scratch(c, DT_F32, rows, 1, "own")) &&
           (s->live = scratch(c, DT_F32, rows, 1, "live"));
}

/* With d = dloss: slope = d (1 + 2 z log_z), all = d s / V, own = d (1 - s). */
static void set_slope(Loss *c, const Slope *s) {
    LoopKernel *k = c->l->k;
    const LBuf *const none[] = {s->log_z, s->slope, s->all, s->own, s->live};
    const LExpr *i, *lane, *at[2];
    LBlock *back = for_bands(c);
    for_lanes(c, &lane, &i);
    for (size_t b = 0; b < sizeof none / sizeof *none; b++)
        ls_store(k, c->l->block, none[b], i, number(c, 0));
    c->l->block = back;
    for_rows(c, &i);
    c->l->block = &ls_if(k, c->l->block, le_op2(k, LO_GE, DT_BOOL, at_row(c->label, c, i), le_int(k, 0)))->body;
    token_of(c, i, at);
    const LExpr *d = let(c, DT_F32, lower_pull(c->l, c->dloss, at), "d");
    const LExpr *z = let(c, DT_F32, lower_pull(c->l, c->log_z, at), "log_z");
    const LExpr *slope = f32(c, LO_ADD, number(c, 1), f32(c, LO_MUL, f32(c, LO_MUL, number(c, 2), c->z), z));
    ls_store(k, c->l->block, s->log_z, i, z);
    ls_store(k, c->l->block, s->slope, i, f32(c, LO_MUL, d, slope));
    ls_store(k, c->l->block, s->all, i, f32(c, LO_DIV, f32(c, LO_MUL, d, c->smoothing), le_cast(k, DT_F32, c->vocab)));
    ls_store(k, c->l->block, s->own, i, f32(c, LO_MUL, d, f32(c, LO_SUB, number(c, 1), c->smoothing)));
    ls_store(k, c->l->block, s->live, i, number(c, 1));
    c->l->block = back;
}

/* Zeros in lines from `first` to `end`. */
static void clear(Loss *c, const LBuf *b, const LExpr *first, const LExpr *end) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *lane;
    LBlock *back = open_loop(c, ls_for(k, c->l->block, li_sub(k, end, first), "i"), &i);
    open_loop(c, ls_lanes(k, c->l->block, le_int(k, BAND), "lane"), &lane);
    ls_store(k, c->l->block, b, logit_index(c, li_add(k, first, i), lane), number(c, 0));
    c->l->block = back;
}

/* The block's logits become dL^T, zeros in panels behind the last column. */
static void logits_to_gradient(Loss *c, const Slope *s) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *j, *lane, *spot;
    LBlock *back = for_columns(c, &j);
    for_lanes(c, &lane, &i);
    spot = logit_index(c, j, lane);
    const LExpr *p = le_op1(k, LO_EXP, DT_F32, f32(c, LO_SUB, le_load(k, c->logits, spot), at_row(s->log_z, c, i)));
    const LExpr *d = let(c, DT_F32, f32(c, LO_SUB, f32(c, LO_MUL, at_row(s->slope, c, i), p), at_row(s->all, c, i)), "d");
    d = le_select(k, le_op2(k, LO_GT, DT_BOOL, at_row(s->live, c, i), number(c, 0)), d, number(c, 0));
    ls_store(k, c->l->block, c->logits, spot, d);
    c->l->block = back;
    for_labels_here(c, &i, &spot);
    ls_store(k, c->l->block, c->logits, spot, f32(c, LO_SUB, le_load(k, c->logits, spot), at_row(s->own, c, i)));
    c->l->block = back;
    if (c->panels && !le_is_int(li_mod(k, c->vocab, le_int(k, c->columns)), 0))
        clear(c, c->logits, c->cols, li_mul(k, chunk_panels(c), le_int(k, c->columns)));
}

/* dX^T of a tile, band after band as X^T. */
static LMatrix band_of(Loss *c, const LBuf *b) {
    LMatrix m = band_lines(c);
    m.buf = b;
    return m;
}

static void store_dx(Loss *c, const LBuf *dx, const View *to) {
    LoopKernel *k = c->l->k;
    LBlock *back = for_bands(c);
    LMatrix lines = band_of(c, dx);
    LMatrix rows = {to->buf, li_add(k, to->offset, li_mul(k, li_add(k, c->row0, c->first), c->width)), c->width, false};
    lower_turn(c->l, &lines, &rows, c->width, c->count);
    c->l->block = back;
}

bool lower_cross_entropy_dx(Lower *l, const Node *n, const View *to) {
    Loss c;
    Slope s;
    const LExpr *i;
    const LBuf *dx;
    if (!loss_begin(l, n, to, &c) || !slope_new(&c, &s) ||
        !(dx = scratch(&c, DT_F32, c.tile->i, dim_upper(l->t, l->f->value[c.x].type.dim[2]), "dx")))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(l->k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    load_scalars(&c);
    set_tile(&c, i);
    set_slope(&c, &s);
    clear(&c, dx, le_int(l->k, 0), li_mul(l->k, blocks(&c, c.m, le_int(l->k, BAND)), c.width));
    LBlock *tile = open_loop(&c, ls_for(l->k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    set_chunk(&c, i);
    for_bands(&c);
    compute_logits(&c);
    logits_to_gradient(&c, &s);
    LMatrix lines = band_of(&c, dx);
    add_dx(&c, &lines);
    l->block = tile;
    store_dx(&c, dx, to);
    l->block = back;
    return true;
}

/* ---- of the weight ---- */

/* The band's rows of X in panels of columns, [d / BAND, BAND, BAND]. */
static void pack_columns(Loss *c, const LBuf *to) {
    LoopKernel *k = c->l->k;
    const LExpr *i, *p, *j, *at[3], *size = le_int(k, BAND);
    LBlock *back = open_loop(c, ls_for(k, c->l->block, c->count, "i"), &i);
    token_of(c, li_add(k, c->first, i), at);
    open_loop(c, ls_for(k, c->l->block, blocks(c, c->width, size), "panel"), &p);
    open_loop(c, ls_lanes(k, c->l->block, li_min(k, size, li_sub(k, c->width, li_mul(k, p, size))), "j"), &j);
    at[2] = li_add(k, li_mul(k, p, size), j);
    ls_store(k, c->l->block, to, logit_index(c, li_add(k, li_mul(k, p, size), i), j), lower_pull(c->l, c->x, at));
    c->l->block = back;
}

/* dW^T [d / BAND, chunk, BAND] += dL^T X of the block. */
static void add_dw(Loss *c, const LBuf *rows, const LBuf *dw) {
    LoopKernel *k = c->l->k;
    const LExpr *p;
    LBlock *back = open_loop(c, ls_for(k, c->l->block, blocks(c, c->width, le_int(k, BAND)), "panel"), &p);
    LMatrix logits = lower_lines(c->l, c->logits, le_int(k, 0)), x = lower_lines(c->l, rows, li_mul(k, p, le_int(k, BAND)));
    LMatrix sum = lower_lines(c->l, dw, li_mul(k, p, c->chunk));
    lower_multiply_lines(c->l, LEFT_ROWS, &logits, &x, &sum, c->cols, c->count, true);
    c->l->block = back;
}

static void store_dw(Loss *c, const LBuf *dw, const View *to) {
    LoopKernel *k = c->l->k;
    const LExpr *p, *i, *j, *size = le_int(k, BAND);
    LBlock *back = open_loop(c, ls_for(k, c->l->block, blocks(c, c->width, size), "panel"), &p);
    const LExpr *d = let(c, DT_I64, li_mul(k, p, size), "d"), *some = let(c, DT_I64, li_min(k, size, li_sub(k, c->width, d)), "some");
    LMatrix lines = lower_lines(c->l, dw, li_mul(k, p, c->chunk));
    if (!c->tb) {
        LMatrix columns = {to->buf, li_add(k, li_add(k, to->offset, li_mul(k, d, c->vocab)), c->col0), c->vocab, false};
        lower_turn(c->l, &lines, &columns, c->cols, some);
        c->l->block = back;
        return;
    }
    open_loop(c, ls_for(k, c->l->block, c->cols, "i"), &i);
    open_loop(c, ls_lanes(k, c->l->block, some, "j"), &j);
    const LExpr *at = li_add(k, to->offset, li_mul(k, li_add(k, c->col0, i), c->width));
    ls_store(k, c->l->block, to->buf, li_add(k, li_add(k, at, d), j), le_load(k, dw, li_add(k, lines.offset, logit_index(c, i, j))));
    c->l->block = back;
}

bool lower_cross_entropy_dw(Lower *l, const Node *n, const View *to) {
    Loss c;
    Slope s;
    LoopKernel *k = l->k;
    const LExpr *i;
    const LBuf *rows, *dw;
    if (!loss_begin(l, n, to, &c) || !slope_new(&c, &s))
        return false;
    int64_t panels = (dim_upper(l->t, l->f->value[c.x].type.dim[2]) + BAND - 1) / BAND;
    if (!(rows = scratch(&c, DT_F32, panels, BAND * BAND, "rows")) || !(dw = scratch(&c, DT_F32, panels * BAND, c.chunk->i, "dw")))
        return false;
    LBlock *back = open_loop(&c, ls_parallel(k, l->block, blocks(&c, c.vocab, c.chunk), "chunk"), &i);
    load_scalars(&c);
    set_chunk(&c, i);
    clear(&c, dw, le_int(k, 0), li_mul(k, blocks(&c, c.width, le_int(k, BAND)), c.chunk));
    LBlock *chunk = open_loop(&c, ls_for(k, l->block, blocks(&c, c.tokens, c.tile), "tile"), &i);
    set_tile(&c, i);
    set_slope(&c, &s);
    for_bands(&c);
    compute_logits(&c);
    logits_to_gradient(&c, &s);
    pack_columns(&c, rows);
    add_dw(&c, rows, dw);
    l->block = chunk;
    store_dw(&c, dw, to);
    l->block = back;
    return true;
}
