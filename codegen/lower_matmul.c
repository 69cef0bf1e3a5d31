/* Matmul in all its shapes: LS_MATMUL statements over matrices in buffers where shapes allow, plain loops elsewhere. */
#include "lower_ops.h"

#include "../compiler/pack.h"
#include "../compiler/remark.h"

/* ---- matmul --------------------------------------------------------------------------------------- */

/* One axis of the result with the distance between its elements in the result and both operands. */
typedef struct Axis {
    const LExpr *extent;
    Dim c, a, b; /* strides; constant 0 where an operand is broadcast */
} Axis;

typedef struct Contraction {
    View c, a, b;
    int n_batch;
    Axis batch[MOEC_MAX_RANK], m, n;
    const LExpr *k;
    Dim ak, bk;
} Contraction;

bool lower_is_gemm(const Lower *l, const Node *n) {
    if (n->op != OP_matmul || l->f->value[n->out].type.dtype != DT_F32) return false;
    const Type *b = &l->f->value[n->in[1]].type;
    Dim per_row = dim_mul(l->t, b->dim[b->rank - 2], b->dim[b->rank - 1]);
    return dim_upper(l->t, per_row) >= 64;
}

/* Distance along result axis `axis` of rank `rank` in an operand stored as w, 0 where the operand repeats. */
static Dim along(const Lower *l, ValueId operand, const View *w, int axis, int rank) {
    int at = axis - rank + w->rank;
    if (at < 0) return dim_const(l->t, 0);
    Dim d = lower_dim(l, operand, at);
    return d != DIM_BAD && dim_is(l->t, d, 1) ? dim_const(l->t, 0) : w->stride[at];
}

static bool contraction(Lower *l, const Node *n, const View *to, Contraction *x) {
    if (!lower_stored(l, n->in[0], &x->a) || !lower_stored(l, n->in[1], &x->b)) return false;
    x->c = *to;
    int rank = to->rank, ta = (int)node_int(n, AT_ta, 0), tb = (int)node_int(n, AT_tb, 0);
    Dim zero = dim_const(l->t, 0);
    x->n_batch = rank - 2;
    for (int i = 0; i < rank - 2; i++)
        x->batch[i] = (Axis){lower_extent(l, n->out, i), to->stride[i], along(l, n->in[0], &x->a, i, rank),
                             along(l, n->in[1], &x->b, i, rank)};
    int ra = x->a.rank, rb = x->b.rank;
    x->m = (Axis){lower_extent(l, n->out, rank - 2), to->stride[rank - 2], x->a.stride[ra - (ta ? 1 : 2)], zero};
    x->n = (Axis){lower_extent(l, n->out, rank - 1), to->stride[rank - 1], zero, x->b.stride[rb - (tb ? 2 : 1)]};
    x->k = lower_extent(l, n->in[0], ra - (ta ? 2 : 1));
    x->ak = x->a.stride[ra - (ta ? 2 : 1)];
    x->bk = x->b.stride[rb - (tb ? 1 : 2)];
    return true;
}

/* Folds batch axes that continue the M axis in the result and the left operand and do not move the right one; and
 * where M is a single row lets another axis take its place. */
static void merge_rows(Lower *l, Contraction *x) {
    Dim zero = dim_const(l->t, 0);
    for (int i = x->n_batch - 1; i >= 0; i--) {
        Axis *o = &x->batch[i], *m = &x->m;
        if (o->b != zero) continue;
        bool single = le_is_int(m->extent, 1);
        Dim extent;
        if (!single) {
            if (i != x->n_batch - 1) break;
            if (m->extent->kind == LE_INT) extent = dim_const(l->t, m->extent->i);
            else if (m->extent->kind == LE_DIM) extent = m->extent->dim;
            else break;
            if (o->c != dim_mul(l->t, m->c, extent) || o->a != dim_mul(l->t, m->a, extent)) break;
            m->extent = li_mul(l->k, o->extent, m->extent);
        } else
            *m = *o;
        for (int j = i; j + 1 < x->n_batch; j++) x->batch[j] = x->batch[j + 1];
        x->n_batch--;
    }
}

static const LExpr *step(Lower *l, const LExpr *base, const LExpr *i, Dim stride) {
    return li_add(l->k, base, li_mul(l->k, i, le_dim(l->k, stride)));
}

bool lower_matrix(Lower *l, const LBuf *buf, const LExpr *offset, Dim down, Dim across, LMatrix *out) {
    bool rows = dim_is(l->t, across, 1), cols = !rows && dim_is(l->t, down, 1);
    *out = (LMatrix){buf, offset, le_dim(l->k, rows ? down : across), cols};
    return rows || cols;
}

static void plain_loops(Lower *l, const Contraction *x, const LExpr *c, const LExpr *a, const LExpr *b, bool accumulate) {
    LoopKernel *k = l->k;
    DType t = dtype_is_float(x->c.buf->dtype) ? x->c.buf->dtype : DT_I64;
    LStmt *m = ls_for(k, l->block, x->m.extent, "m"), *n = ls_for(k, &m->body, x->n.extent, "n");
    const LExpr *im = le_var(k, m->var), *in = le_var(k, n->var);
    const LExpr *at = step(l, step(l, c, im, x->m.c), in, x->n.c);
    uint32_t sum = ls_let(k, &n->body, t, accumulate ? le_cast(k, t, le_load(k, x->c.buf, at)) : le_num(k, t, 0), "sum");
    LStmt *kk = ls_for(k, &n->body, x->k, "k");
    const LExpr *ik = le_var(k, kk->var);
    const LExpr *ea = le_load(k, x->a.buf, step(l, step(l, a, im, x->m.a), ik, x->ak));
    const LExpr *eb = le_load(k, x->b.buf, step(l, step(l, b, in, x->n.b), ik, x->bk));
    const LExpr *product = le_op2(k, LO_MUL, t, le_cast(k, t, ea), le_cast(k, t, eb));
    ls_set(k, &kk->body, sum, le_op2(k, LO_ADD, t, le_var(k, sum), product));
    ls_store(k, &n->body, x->c.buf, at, le_var(k, sum));
}

/* ---- sums over rows: gradients of weights, x^T dy ---------------------------------------------------- */

/* Rows of a task, and rows that are added up at a time: few enough to stay in cache, far apart as they are. */
enum { ROWS = 256, DEPTH = 64 };

/* An operand as [extent,k]: distances between its rows, along k, and of its rows in the result. */
typedef struct Side {
    const LBuf *buf;
    const LExpr *at, *extent;
    Dim row, step, c;
} Side;

/* rows: read as it lies; lanes: packed, as many of its rows as a line has lanes. */
typedef struct Outer {
    Side rows, lanes;
    bool swapped;           /* rows are the right operand's columns */
    int64_t width;          /* of a line */
    const LExpr *c, *k;     /* the result's place */
    const LExpr *row0, *m, *lane0, *n; /* the task's part of both */
    const LBuf *pack, *tile;
} Outer;

static bool few(const LExpr *e) {
    return e->kind == LE_INT && e->i <= PANEL_COLUMNS;
}

static bool is_unit(const Lower *l, Dim d) {
    return dim_is(l->t, d, 1);
}

/* A product whose left operand is stored transposed. */
static bool sums_rows(const Lower *l, const Contraction *x, Outer *o) {
    *o = (Outer){.rows = {x->a.buf, x->a.offset, x->m.extent, x->m.a, x->ak, x->m.c},
                 .lanes = {x->b.buf, x->b.offset, x->n.extent, x->n.b, x->bk, x->n.c},
                 .c = x->c.offset,
                 .k = x->k};
    bool some = !le_is_int(x->m.extent, 0) && !le_is_int(x->n.extent, 0);
    for (int i = 0; i < x->n_batch; i++)
        some = some && !le_is_int(x->batch[i].extent, 0);
    if (few(o->rows.extent) && !(few(o->lanes.extent) && o->lanes.extent->i <= o->rows.extent->i)) {
        Side s = o->rows;
        o->rows = o->lanes;
        o->lanes = s;
        o->swapped = true;
    }
    o->width = o->lanes.extent->kind == LE_INT && o->lanes.extent->i <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS;
    return some && x->c.buf->dtype == DT_F32 && is_unit(l, x->m.a) && (is_unit(l, x->n.b) || is_unit(l, x->bk)) && is_unit(l, x->n.c);
}

static const LExpr *blocks_of(Lower *l, const LExpr *extent, int64_t size) {
    return li_div(l->k, li_add(l->k, extent, le_int(l->k, size - 1)), le_int(l->k, size));
}

static const LExpr *let(Lower *l, const LExpr *e, const char *hint) {
    return le_var(l->k, ls_let(l->k, l->block, DT_I64, e, hint));
}

/* The last axis of `extent` of what is left of a task; *task: the others. */
static const LExpr *take_axis(Lower *l, const LExpr **task, const LExpr *extent, const char *hint) {
    const LExpr *at = let(l, li_mod(l->k, *task, extent), hint);
    *task = li_div(l->k, *task, extent);
    return at;
}

static void open_part(Lower *l, const Contraction *x, Outer *o) {
    LoopKernel *k = l->k;
    const LExpr *tasks = le_int(k, 1), *blocks = blocks_of(l, o->rows.extent, ROWS), *lines = blocks_of(l, o->lanes.extent, o->width);
    for (int i = 0; i < x->n_batch; i++)
        tasks = li_mul(k, tasks, x->batch[i].extent);
    LStmt *s = ls_parallel(k, l->block, li_mul(k, li_mul(k, tasks, lines), blocks), "task");
    const LExpr *task = le_var(k, s->var);
    l->block = &s->body;
    o->row0 = li_mul(k, take_axis(l, &task, blocks, "block"), le_int(k, ROWS));
    o->lane0 = li_mul(k, take_axis(l, &task, lines, "panel"), le_int(k, o->width));
    o->m = let(l, li_min(k, le_int(k, ROWS), li_sub(k, o->rows.extent, o->row0)), "m");
    o->n = let(l, li_min(k, le_int(k, o->width), li_sub(k, o->lanes.extent, o->lane0)), "n");
    for (int i = x->n_batch - 1; i >= 0; i--) {
        const Axis *b = &x->batch[i];
        const LExpr *v = take_axis(l, &task, b->extent, "h");
        o->c = step(l, o->c, v, b->c);
        o->rows.at = step(l, o->rows.at, v, o->swapped ? b->b : b->a);
        o->lanes.at = step(l, o->lanes.at, v, o->swapped ? b->a : b->b);
    }
    o->rows.at = let(l, step(l, o->rows.at, o->row0, o->rows.row), "rows");
    o->lanes.at = let(l, step(l, o->lanes.at, o->lane0, o->lanes.row), "lanes");
    o->c = let(l, step(l, step(l, o->c, o->row0, o->rows.c), o->lane0, o->lanes.c), "c");
}

static LMatrix lines_of(Lower *l, const Outer *o, const LBuf *b) {
    return (LMatrix){b, le_int(l->k, 0), le_int(l->k, o->width), false};
}

static void clear_lines(Lower *l, const Outer *o, const LBuf *b, const LExpr *rows) {
    LoopKernel *k = l->k;
    LStmt *i = ls_for(k, l->block, rows, "i"), *j = ls_lanes(k, &i->body, le_int(k, o->width), "j");
    ls_store(k, &j->body, b, li_add(k, li_mul(k, le_var(k, i->var), le_int(k, o->width)), le_var(k, j->var)), le_num(k, DT_F32, 0));
}

/* Rows of `n` elements from one matrix into another, or onto it. */
static void copy_rows(Lower *l, const LMatrix *from, const LMatrix *to, const LExpr *rows, const LExpr *n, bool add) {
    LoopKernel *k = l->k;
    LStmt *i = ls_for(k, l->block, rows, "i"), *j = ls_lanes(k, &i->body, n, "j");
    const LExpr *row = le_var(k, i->var), *column = le_var(k, j->var);
    const LExpr *e = le_load(k, from->buf, li_add(k, li_add(k, from->offset, li_mul(k, row, from->ld)), column));
    const LExpr *at = li_add(k, li_add(k, to->offset, li_mul(k, row, to->ld)), column);
    ls_store(k, &j->body, to->buf, at, add ? le_op2(k, LO_ADD, DT_F32, le_load(k, to->buf, at), e) : e);
}

/* The tile's sums over `depth` elements along k, from k0 on. */
static void add_steps(Lower *l, const Outer *o, const LExpr *k0, const LExpr *depth) {
    LoopKernel *k = l->k;
    bool across = is_unit(l, o->lanes.row), columns = is_unit(l, o->rows.row);
    LMatrix lanes = {o->lanes.buf, step(l, o->lanes.at, k0, o->lanes.step), le_dim(k, across ? o->lanes.step : o->lanes.row), false};
    LMatrix rows = {o->rows.buf, step(l, o->rows.at, k0, o->rows.step), le_dim(k, columns ? o->rows.step : o->rows.row), false};
    LMatrix pack = lines_of(l, o, o->pack), tile = lines_of(l, o, o->tile);
    if (across)
        copy_rows(l, &lanes, &pack, depth, o->n, false);
    else
        lower_turn(l, &lanes, &pack, o->n, depth);
    lower_multiply_lines(l, columns ? LEFT_COLUMNS : LEFT_ROWS, &rows, &pack, &tile, o->m, depth, true);
}

static void store_part(Lower *l, const Contraction *x, const Outer *o) {
    LMatrix tile = lines_of(l, o, o->tile);
    bool across = is_unit(l, o->lanes.c);
    LMatrix c = {x->c.buf, o->c, le_dim(l->k, across ? o->rows.c : o->lanes.c), false};
    if (across)
        copy_rows(l, &tile, &c, o->m, o->n, false);
    else
        lower_turn(l, &tile, &c, o->m, o->n);
}

static bool lower_outer(Lower *l, const Contraction *x, Outer *o) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    o->pack = loop_scratch(k, DT_F32, DEPTH * o->width * 4, str_c("pack"));
    o->tile = loop_scratch(k, DT_F32, ROWS * o->width * 4, str_c("tile"));
    open_part(l, x, o);
    LBlock *task = l->block;
    clear_lines(l, o, o->pack, le_int(k, DEPTH));
    clear_lines(l, o, o->tile, o->m);
    LStmt *s = ls_for(k, l->block, blocks_of(l, o->k, DEPTH), "part");
    l->block = &s->body;
    const LExpr *k0 = let(l, li_mul(k, le_var(k, s->var), le_int(k, DEPTH)), "k0");
    add_steps(l, o, k0, let(l, li_min(k, le_int(k, DEPTH), li_sub(k, o->k, k0)), "depth"));
    l->block = task;
    store_part(l, x, o);
    l->block = back;
    return true;
}

/* ---- many rows by a small matrix: an adapter's, where it is not in panels ------------------------------ */

enum { SMALL = 8192 };

/* C (+)= A B of a few columns, packed in front of it. */
typedef struct Small {
    LMatrix a, b, c;
    const LExpr *m;
    int64_t n, k, width;
    const LBuf *pack, *tile;
    bool add;
} Small;

static const LBuf *own_scratch(Lower *l, int64_t lines, int64_t width, const char *hint) {
    const LBuf *b = l->n_row ? loop_own_scratch(l->k, DT_F32, lines * width * 4, str_c(hint))
                             : loop_scratch(l->k, DT_F32, lines * width * 4, str_c(hint));
    CHECK(b);
    return b;
}

/* Where products are not split over the workers anyway. */
static bool is_small(const Lower *l, const Contraction *x) {
    bool known = (l->n_row || l->k->parallel) && x->n.extent->kind == LE_INT && x->k->kind == LE_INT && x->m.extent->kind != LE_INT;
    return known && x->n.extent->i > 0 && x->k->i > 0 && x->n.extent->i <= SMALL && x->k->i <= SMALL / x->n.extent->i;
}

/* Columns from `first` on by tiles that are copied, some of them, to their place. */
static void small_pieces(Lower *l, const Small *x, const LMatrix *pack, const LMatrix *c, const LExpr *some) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *s = ls_for(k, l->block, blocks_of(l, x->m, ROWS), "piece");
    l->block = &s->body;
    const LExpr *row = let(l, li_mul(k, le_var(k, s->var), le_int(k, ROWS)), "row");
    const LExpr *rows = let(l, li_min(k, le_int(k, ROWS), li_sub(k, x->m, row)), "rows");
    LMatrix a = x->a, to = *c, tile = {x->tile, le_int(k, 0), le_int(k, x->width), false};
    a.offset = li_add(k, a.offset, li_mul(k, row, a.transposed ? le_int(k, 1) : a.ld));
    to.offset = li_add(k, to.offset, li_mul(k, row, to.ld));
    lower_multiply_lines(l, a.transposed ? LEFT_COLUMNS : LEFT_ROWS, &a, pack, &tile, rows, le_int(k, x->k), false);
    copy_rows(l, &tile, &to, rows, some, x->add);
    l->block = back;
}

static void small_panel(Lower *l, const Small *x, const LExpr *panel) {
    LoopKernel *k = l->k;
    const LExpr *width = le_int(k, x->width), *first = li_mul(k, panel, width);
    const LExpr *some = li_min(k, width, li_sub(k, le_int(k, x->n), first));
    LMatrix b = x->b, c = x->c, pack = {x->pack, le_int(k, 0), width, false};
    b.offset = li_add(k, b.offset, b.transposed ? li_mul(k, first, b.ld) : first);
    c.offset = li_add(k, c.offset, first);
    if (b.transposed)
        lower_turn(l, &b, &pack, some, le_int(k, x->k));
    else
        copy_rows(l, &b, &pack, le_int(k, x->k), some, false);
    if (x->tile)
        small_pieces(l, x, &pack, &c, some);
    else
        lower_multiply_lines(l, x->a.transposed ? LEFT_COLUMNS : LEFT_ROWS, &x->a, &pack, &c, x->m, le_int(k, x->k), x->add);
}

static void lower_small(Lower *l, Small x) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    x.width = x.n <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS;
    x.pack = own_scratch(l, x.k, x.width, "pack");
    x.tile = x.n % x.width ? own_scratch(l, ROWS, x.width, "tile") : NULL;
    const LExpr *panel = le_int(k, 0);
    if (x.n > x.width) {
        LStmt *s = ls_for(k, l->block, le_int(k, (x.n + x.width - 1) / x.width), "panel");
        l->block = &s->body;
        panel = le_var(k, s->var);
    }
    small_panel(l, &x, panel);
    l->block = back;
}

/* Scratch is a worker's own: what was stored in it in front of a parallel loop is not there inside. */
static bool is_argument(const View *w) {
    return w->buf->kind == LB_ARG;
}

static void tell_product(const Lower *l, const Node *n, bool flat, DType dtype, bool batches) {
    Text t = {0};
    node_print(l->m, l->f, n, &t);
    if (flat)
        remark(l->m, R_product, l->f, NULL, "a product of matrices%s: %.*s",
               batches ? ", one after another for each batch" : "", (int)t.n, t.p);
    else
        remark(l->m, R_no_product, l->f, NULL, "plain loops, %s: %.*s",
               dtype != DT_F32 ? "the matrix kernel takes f32 alone"
                               : "rows of an operand or of the result are not contiguous",
               (int)t.n, t.p);
    text_free(&t);
}

/* A kernel that is a product by batches alone takes the outermost batch axis in parallel. */
bool lower_matmul(Lower *l, const Node *n, const View *to, bool accumulate) {
    Contraction x;
    if (lower_by_panels(l, n)) return lower_panels(l, n, to, accumulate);
    if (!contraction(l, n, to, &x)) return false;
    merge_rows(l, &x);
    LBlock *back = l->block;
    const LExpr *c = x.c.offset, *a = x.a.offset, *b = x.b.offset;
    bool spread = lower_may_spread(l) && is_argument(&x.c) && is_argument(&x.a) && is_argument(&x.b);
    Outer outer;
    if (spread && !accumulate && sums_rows(l, &x, &outer)) {
        if (l->m->remarks)
            tell_product(l, n, true, to->buf->dtype, false);
        return lower_outer(l, &x, &outer);
    }
    for (int i = 0; i < x.n_batch; i++) {
        if (le_is_int(x.batch[i].extent, 1)) continue;
        LStmt *s = spread ? ls_parallel(l->k, l->block, x.batch[i].extent, "h") : ls_for(l->k, l->block, x.batch[i].extent, "h");
        spread = false;
        const LExpr *v = le_var(l->k, s->var);
        l->block = &s->body;
        c = step(l, c, v, x.batch[i].c);
        a = step(l, a, v, x.batch[i].a);
        b = step(l, b, v, x.batch[i].b);
    }
    LMatrix ma, mb, mc;
    bool flat = to->buf->dtype == DT_F32 && lower_matrix(l, x.a.buf, a, x.m.a, x.ak, &ma) &&
                lower_matrix(l, x.b.buf, b, x.bk, x.n.b, &mb) && lower_matrix(l, x.c.buf, c, x.m.c, x.n.c, &mc) && !mc.transposed;
    if (l->m->remarks)
        tell_product(l, n, flat, to->buf->dtype, l->block != back);
    if (flat && is_small(l, &x))
        lower_small(l, (Small){.a = ma, .b = mb, .c = mc, .m = x.m.extent, .n = x.n.extent->i, .k = x.k->i, .add = accumulate});
    else if (flat) ls_matmul(l->k, l->block, ma, mb, mc, x.m.extent, x.n.extent, x.k, accumulate);
    else plain_loops(l, &x, c, a, b, accumulate);
    l->block = back;
    return true;
}
