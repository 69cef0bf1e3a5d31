/* Reductions, softmax and their kin: one row of elements folded at a time.
 *
 * Sums and maxima of a row run in LANES independent accumulators joined in a fixed order, so that compilers vectorise
 * them without being allowed to reorder floating point, and results do not depend on the vector width. */
#include "lower_ops.h"

#include <math.h>

enum { LANES = 16 };

typedef struct Fold {
    LOp op; /* LO_ADD, LO_MUL, LO_MAX, LO_MIN */
    double start;
} Fold;

static const LExpr *fold_start(Lower *l, DType t, const Fold *f) {
    if (dtype_is_float(t) || !isinf(f->start)) return le_num(l->k, t, f->start);
    static const int64_t lowest[DT_COUNT] = {[DT_I8] = INT8_MIN, [DT_I16] = INT16_MIN, [DT_I32] = INT32_MIN, [DT_I64] = INT64_MIN};
    static const int64_t highest[DT_COUNT] = {[DT_BOOL] = 1,          [DT_U8] = UINT8_MAX,  [DT_I8] = INT8_MAX,  [DT_U16] = UINT16_MAX,
                                              [DT_I16] = INT16_MAX, [DT_I32] = INT32_MAX, [DT_I64] = INT64_MAX};
    LExpr *e = (LExpr *)le_num(l->k, t, 0);
    e->i = f->start < 0 ? lowest[t] : highest[t];
    return e;
}

/* Folds extent elements and returns a variable that holds the result. */
static const LExpr *fold_row(Lower *l, const Fold *f, DType t, const LExpr *extent, RowScore *element, void *ctx) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LBuf *acc = loop_buf(k, LB_LOCAL, t, str_c("acc"));
    acc->count = LANES;
    LStmt *s = ls_lanes(k, back, le_int(k, LANES), "l");
    ls_store(k, &s->body, acc, le_var(k, s->var), fold_start(l, t, f));

    const LExpr *whole = li_div(k, extent, le_int(k, LANES)), *lane, *x;
    if (!le_is_int(whole, 0)) {
        LStmt *blocks = ls_for(k, back, whole, "v");
        s = ls_lanes(k, &blocks->body, le_int(k, LANES), "l");
        l->block = &s->body;
        lane = le_var(k, s->var);
        x = element(l, ctx, li_add(k, li_mul(k, le_var(k, blocks->var), le_int(k, LANES)), lane));
        ls_store(k, l->block, acc, lane, le_op2(k, f->op, t, le_load(k, acc, lane), le_cast(k, t, x)));
    }
    const LExpr *rest = li_mod(k, extent, le_int(k, LANES));
    if (!le_is_int(rest, 0)) {
        s = ls_for(k, back, rest, "l");
        l->block = &s->body;
        lane = le_var(k, s->var);
        x = element(l, ctx, li_add(k, li_sub(k, extent, rest), lane));
        ls_store(k, l->block, acc, lane, le_op2(k, f->op, t, le_load(k, acc, lane), le_cast(k, t, x)));
    }
    for (int half = LANES / 2; half > 1; half /= 2) {
        s = ls_lanes(k, back, le_int(k, half), "l");
        lane = le_var(k, s->var);
        ls_store(k, &s->body, acc, lane,
                 le_op2(k, f->op, t, le_load(k, acc, lane), le_load(k, acc, li_add(k, lane, le_int(k, half)))));
    }
    l->block = back;
    const LExpr *last = le_op2(k, f->op, t, le_load(k, acc, le_int(k, 0)), le_load(k, acc, le_int(k, 1)));
    return le_var(k, ls_let(k, back, t, last, "r"));
}

static const Fold fold_sum = {LO_ADD, 0}, fold_max = {LO_MAX, -INFINITY};

const LExpr *lower_fold(Lower *l, LOp op, DType t, const LExpr *extent, RowScore *element, void *ctx) {
    return fold_row(l, op == LO_MAX ? &fold_max : &fold_sum, t, extent, element, ctx);
}

/* Extent of one or several axes as a number of type t. */
static const LExpr *as_number(Lower *l, DType t, const LExpr *extent) {
    return le_cast(l->k, t, extent);
}

/* ---- reduce_* ------------------------------------------------------------------------------------ */

typedef struct ReduceRule {
    Op op;
    Fold fold;
} ReduceRule;

static const ReduceRule reduce_rules[] = {
    {OP_reduce_sum, {LO_ADD, 0}},          {OP_reduce_mean, {LO_ADD, 0}},        {OP_reduce_max, {LO_MAX, -INFINITY}},
    {OP_reduce_min, {LO_MIN, INFINITY}},   {OP_reduce_prod, {LO_MUL, 1}},
};

typedef struct RowCtx {
    ValueId x;
    int axis;
    const LExpr *idx[MOEC_MAX_RANK];
} RowCtx;

static const LExpr *row_element(Lower *l, void *ctx, const LExpr *i) {
    RowCtx *c = ctx;
    c->idx[c->axis] = i;
    return lower_pull(l, c->x, c->idx);
}

typedef struct Reduce {
    ValueId x;
    const Fold *fold;
    DType type;
    int rank;
    bool mean, keep, reduced[MOEC_MAX_RANK];
    const LExpr *out[MOEC_MAX_RANK]; /* the result's index */
} Reduce;

static Reduce reduce_begin(const Lower *l, const Node *n) {
    Reduce r = {.x = n->in[0], .type = l->f->value[n->out].type.dtype, .mean = n->op == OP_reduce_mean};
    bool chooses = n->op == OP_reduce_max || n->op == OP_reduce_min;
    if (!dtype_is_float(r.type) && !chooses) r.type = DT_I64; /* sums of integers are cut to their type once */
    for (size_t i = 0; i < sizeof reduce_rules / sizeof *reduce_rules; i++)
        if (reduce_rules[i].op == n->op) r.fold = &reduce_rules[i].fold;
    const Attr *axes = node_attr(n, AT_axes);
    int drop = l->row[r.x] ? l->n_row - 1 : 0;
    r.rank = lower_rank(l, r.x);
    r.keep = node_int(n, AT_keep, 0) != 0;
    for (uint32_t i = 0; i < axes->ints.n; i++) r.reduced[axes->ints.v[i] - drop] = true;
    return r;
}

static const LExpr *reduced_count(Lower *l, const Reduce *r) {
    const LExpr *count = le_int(l->k, 1);
    for (int a = 0; a < r->rank; a++)
        if (r->reduced[a]) count = li_mul(l->k, count, lower_extent(l, r->x, a));
    return count;
}

/* Opens loops over the kept axes below `to`; the first may be the kernel's parallel one. */
static void open_kept(Lower *l, Reduce *r, int to, bool spread, const LExpr **idx) {
    int o = 0;
    for (int a = 0; a < r->rank; a++) {
        if (r->reduced[a]) {
            if (r->keep) r->out[o++] = le_int(l->k, 0);
            continue;
        }
        if (a >= to) continue;
        const LExpr *extent = lower_extent(l, r->x, a);
        LStmt *s = spread ? ls_parallel(l->k, l->block, extent, "i") : ls_for(l->k, l->block, extent, "i");
        spread = false;
        idx[a] = r->out[o++] = le_var(l->k, s->var);
        l->block = &s->body;
    }
}

static bool kept_below(const Reduce *r, int to) {
    for (int a = 0; a < to; a++)
        if (!r->reduced[a]) return true;
    return false;
}

enum { COLUMNS = 64 };

static void columns_start(Lower *l, const LBuf *acc, const Reduce *r) {
    LStmt *s = ls_lanes(l->k, l->block, le_int(l->k, acc->count), "c");
    ls_store(l->k, &s->body, acc, le_var(l->k, s->var), fold_start(l, r->type, r->fold));
}

/* The last axis is kept: blocks of columns side by side, each over all rows in order, so that memory is read along its rows.
 * Every run along the innermost reduced axis has a sum of its own, which long sums need to stay exact. */
static bool reduce_columns(Lower *l, Reduce *r, int innermost, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    const LExpr *idx[MOEC_MAX_RANK], *extent = lower_extent(l, r->x, r->rank - 1);
    bool spread = lower_may_spread(l) && to->buf->kind == LB_ARG, outer = kept_below(r, r->rank - 1);
    int64_t block = extent->kind == LE_INT && extent->i < COLUMNS ? extent->i + !extent->i : COLUMNS;
    const LExpr *size = le_int(k, block), *blocks = li_div(k, li_add(k, extent, le_int(k, block - 1)), size);
    open_kept(l, r, r->rank - 1, spread && outer, idx);
    LStmt *b = spread && !outer ? ls_parallel(k, l->block, blocks, "block") : ls_for(k, l->block, blocks, "block");
    l->block = &b->body;
    const LExpr *c0 = le_var(k, ls_let(k, l->block, DT_I64, li_mul(k, le_var(k, b->var), size), "c0")), *columns = size;
    if (!le_is_int(li_mod(k, extent, size), 0))
        columns = le_var(k, ls_let(k, l->block, DT_I64, li_min(k, size, li_sub(k, extent, c0)), "columns"));
    LBuf *sum = loop_buf(k, LB_LOCAL, r->type, str_c("sum")), *part = loop_buf(k, LB_LOCAL, r->type, str_c("part"));
    sum->count = part->count = block;
    columns_start(l, sum, r);
    LBlock *whole = l->block, *run = whole;
    for (int a = 0; a <= innermost; a++) {
        if (!r->reduced[a]) continue;
        if (a == innermost) {
            run = l->block;
            columns_start(l, part, r);
        }
        LStmt *s = ls_for(k, l->block, lower_extent(l, r->x, a), "i");
        idx[a] = le_var(k, s->var);
        l->block = &s->body;
    }
    LStmt *s = ls_lanes(k, l->block, columns, "c");
    const LExpr *c = le_var(k, s->var);
    l->block = &s->body;
    idx[r->rank - 1] = li_add(k, c0, c);
    const LExpr *e = lower_pull(l, r->x, idx);
    ls_store(k, l->block, part, c, le_op2(k, r->fold->op, r->type, le_load(k, part, c), le_cast(k, r->type, e)));
    l->block = run;
    s = ls_lanes(k, l->block, columns, "c");
    c = le_var(k, s->var);
    ls_store(k, &s->body, sum, c, le_op2(k, r->fold->op, r->type, le_load(k, sum, c), le_load(k, part, c)));
    l->block = whole;
    s = ls_lanes(k, l->block, columns, "c");
    c = le_var(k, s->var);
    e = le_load(k, sum, c);
    if (r->mean) e = le_op2(k, LO_DIV, r->type, e, as_number(l, r->type, reduced_count(l, r)));
    r->out[to->rank - 1] = li_add(k, c0, c);
    ls_store(k, &s->body, to->buf, view_index(l, to, r->out), e);
    l->block = back;
    return true;
}

/* One element of the result after another, each from runs along the innermost reduced axis. */
static bool reduce_rows(Lower *l, Reduce *r, int innermost, const View *to) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    RowCtx c = {.x = r->x, .axis = innermost};
    open_kept(l, r, r->rank, false, c.idx);
    LBlock *row = l->block;
    const LExpr *e;
    if (innermost < 0) e = lower_pull(l, r->x, c.idx);
    else {
        /* outer reduced axes loop around rows; their partial results meet in one variable */
        uint32_t sum = ls_let(k, row, r->type, fold_start(l, r->type, r->fold), "sum");
        for (int a = 0; a < innermost; a++) {
            if (!r->reduced[a]) continue;
            LStmt *s = ls_for(k, l->block, lower_extent(l, r->x, a), "i");
            c.idx[a] = le_var(k, s->var);
            l->block = &s->body;
        }
        const LExpr *part = fold_row(l, r->fold, r->type, lower_extent(l, r->x, innermost), row_element, &c);
        ls_set(k, l->block, sum, le_op2(k, r->fold->op, r->type, le_var(k, sum), part));
        l->block = row;
        e = le_var(k, sum);
        if (r->mean) e = le_op2(k, LO_DIV, r->type, e, as_number(l, r->type, reduced_count(l, r)));
    }
    ls_store(k, l->block, to->buf, view_index(l, to, r->out), e);
    l->block = back;
    return true;
}

bool lower_reduce(Lower *l, const Node *n, const View *to) {
    Reduce r = reduce_begin(l, n);
    int innermost = -1;
    for (int a = 0; a < r.rank; a++)
        if (r.reduced[a]) innermost = a;
    bool columns = innermost >= 0 && innermost < r.rank - 1 && !le_is_int(lower_extent(l, r.x, r.rank - 1), 1);
    return (columns ? reduce_columns : reduce_rows)(l, &r, innermost, to);
}

/* ---- softmax --------------------------------------------------------------------------------------- */

/* Loops over all axes of x but one; idx of that one is left open. */
static LBlock *loops_but(Lower *l, ValueId x, int axis, const LExpr **idx) {
    LBlock *back = l->block;
    for (int a = 0; a < lower_rank(l, x); a++) {
        if (a == axis) continue;
        LStmt *s = ls_for(l->k, l->block, lower_extent(l, x, a), "i");
        idx[a] = le_var(l->k, s->var);
        l->block = &s->body;
    }
    return back;
}

static int collapsed_axis(const Lower *l, ValueId x, int64_t axis) {
    return (int)axis - (l->row[x] ? l->n_row - 1 : 0);
}

/* The element to store is evaluated once, into the result's storage, while the row's maximum is found. */
typedef struct SoftmaxCtx {
    const View *to;
    const LExpr *idx[MOEC_MAX_RANK];
    int axis;
    const LExpr *max;
    RowScore *score;
    void *ctx;
} SoftmaxCtx;

static const LExpr *stored_at(Lower *l, SoftmaxCtx *c, const LExpr *i, const LExpr **at) {
    c->idx[c->axis] = i;
    *at = view_index(l, c->to, c->idx);
    return le_load(l->k, c->to->buf, *at);
}

static const LExpr *store_score(Lower *l, void *ctx, const LExpr *i) {
    SoftmaxCtx *c = ctx;
    const LExpr *at, *x = c->score(l, c->ctx, i), *stored = stored_at(l, c, i, &at);
    ls_store(l->k, l->block, c->to->buf, at, x);
    return stored;
}

static const LExpr *exp_of(Lower *l, void *ctx, const LExpr *i) {
    SoftmaxCtx *c = ctx;
    const LExpr *at, *x = stored_at(l, c, i, &at);
    return le_op1(l->k, LO_EXP, x->type, le_op2(l->k, LO_SUB, x->type, x, c->max));
}

static const LExpr *store_exp(Lower *l, void *ctx, const LExpr *i) {
    SoftmaxCtx *c = ctx;
    const LExpr *at, *e = exp_of(l, ctx, i), *stored = stored_at(l, c, i, &at);
    ls_store(l->k, l->block, c->to->buf, at, e);
    return stored;
}

/* stored = op(stored, y) along the row */
static void apply_row(Lower *l, SoftmaxCtx *c, const LExpr *extent, LOp op, const LExpr *y) {
    LStmt *s = ls_lanes(l->k, l->block, extent, "j");
    const LExpr *at, *x = stored_at(l, c, le_var(l->k, s->var), &at);
    ls_store(l->k, &s->body, c->to->buf, at, le_op2(l->k, op, x->type, x, y));
}

static const LExpr *lane_of(Lower *l, void *ctx, const LExpr *i) {
    return le_load(l->k, ctx, i);
}

/* A row that fills no more than the lanes, as that of a router's logits: behind its end what adds nothing, so that nothing is done
 * element by element but in and out. */
static void softmax_in_lanes(Lower *l, SoftmaxCtx *c, const LExpr *extent) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    DType t = c->to->buf->dtype;
    const LExpr *lanes = le_int(k, LANES), *at;
    LBuf *row = loop_buf(k, LB_LOCAL, t, str_c("row"));
    row->count = LANES;
    LStmt *s = ls_lanes(k, back, lanes, "l");
    ls_store(k, &s->body, row, le_var(k, s->var), le_num(k, t, -INFINITY));
    s = ls_for(k, back, extent, "l");
    l->block = &s->body;
    const LExpr *score = c->score(l, c->ctx, le_var(k, s->var));
    ls_store(k, l->block, row, le_var(k, s->var), score);
    l->block = back;
    const LExpr *max = fold_row(l, &fold_max, t, lanes, lane_of, row);
    s = ls_lanes(k, back, lanes, "l");
    const LExpr *x = le_op2(k, LO_SUB, t, le_load(k, row, le_var(k, s->var)), max);
    ls_store(k, &s->body, row, le_var(k, s->var), le_op1(k, LO_EXP, t, x));
    const LExpr *sum = fold_row(l, &fold_sum, t, lanes, lane_of, row);
    const LExpr *inv = le_var(k, ls_let(k, back, t, le_op2(k, LO_DIV, t, le_num(k, t, 1), sum), "inv"));
    s = ls_lanes(k, back, extent, "j");
    stored_at(l, c, le_var(k, s->var), &at);
    ls_store(k, &s->body, c->to->buf, at, le_op2(k, LO_MUL, t, le_load(k, row, le_var(k, s->var)), inv));
}

void lower_softmax_of(Lower *l, const View *to, const LExpr *const *idx, int axis, const LExpr *extent, RowScore *score,
                      void *ctx) {
    SoftmaxCtx c = {.to = to, .axis = axis, .score = score, .ctx = ctx};
    for (int a = 0; a < to->rank; a++) c.idx[a] = idx[a];
    DType t = to->buf->dtype;
    if (extent->kind == LE_INT && extent->i <= LANES) {
        softmax_in_lanes(l, &c, extent);
        return;
    }
    c.max = fold_row(l, &fold_max, t, extent, store_score, &c);
    const LExpr *sum = fold_row(l, &fold_sum, t, extent, store_exp, &c);
    const LExpr *inv = le_op2(l->k, LO_DIV, t, le_num(l->k, t, 1), sum);
    apply_row(l, &c, extent, LO_MUL, le_var(l->k, ls_let(l->k, l->block, t, inv, "inv")));
}

static void log_softmax_of(Lower *l, const View *to, const LExpr *const *idx, int axis, const LExpr *extent,
                           RowScore *score, void *ctx) {
    SoftmaxCtx c = {.to = to, .axis = axis, .score = score, .ctx = ctx};
    for (int a = 0; a < to->rank; a++) c.idx[a] = idx[a];
    DType t = to->buf->dtype;
    c.max = fold_row(l, &fold_max, t, extent, store_score, &c);
    const LExpr *sum = fold_row(l, &fold_sum, t, extent, exp_of, &c);
    const LExpr *z = le_op2(l->k, LO_ADD, t, c.max, le_op1(l->k, LO_LOG, t, sum));
    apply_row(l, &c, extent, LO_SUB, le_var(l->k, ls_let(l->k, l->block, t, z, "z")));
}

bool lower_softmax(Lower *l, const Node *n, const View *to) {
    ValueId x = n->in[0];
    RowCtx c = {.x = x, .axis = collapsed_axis(l, x, node_int(n, AT_axis, 0))};
    LBlock *back = loops_but(l, x, c.axis, c.idx);
    (n->op == OP_softmax ? lower_softmax_of : log_softmax_of)(l, to, c.idx, c.axis, lower_extent(l, x, c.axis), row_element, &c);
    l->block = back;
    return true;
}

/* ---- RMS norm ------------------------------------------------------------------------------------------ */

static const LExpr *square_element(Lower *l, void *ctx, const LExpr *i) {
    const LExpr *x = row_element(l, ctx, i);
    if (x->kind != LE_LOAD && x->kind != LE_VAR) x = le_var(l->k, ls_let(l->k, l->block, x->type, x, "x"));
    return le_op2(l->k, LO_MUL, x->type, x, x);
}

bool lower_rms(Lower *l, const Node *n, const View *to) {
    ValueId x = n->in[0];
    LoopKernel *k = l->k;
    DType t = to->buf->dtype;
    int last = lower_rank(l, x) - 1;
    RowCtx c = {.x = x, .axis = last};
    const LExpr *extent = lower_extent(l, x, last);
    LBlock *back = loops_but(l, x, last, c.idx);
    const LExpr *sum = fold_row(l, &fold_sum, t, extent, square_element, &c);
    const LExpr *mean = le_op2(k, LO_DIV, t, sum, as_number(l, t, extent));
    const LExpr *f = le_op1(k, LO_RSQRT, t, le_op2(k, LO_ADD, t, mean, le_num(k, t, node_float(n, AT_eps, 0))));
    if (n->op == OP_rms_factor) {
        c.idx[last] = le_int(k, 0);
        ls_store(k, l->block, to->buf, view_index(l, to, c.idx), f);
    } else {
        f = le_var(k, ls_let(k, l->block, t, f, "f"));
        LStmt *s = ls_lanes(k, l->block, extent, "j");
        l->block = &s->body;
        c.idx[last] = le_var(k, s->var);
        const LExpr *g = lower_pull(l, n->in[1], &c.idx[last]);
        const LExpr *y = le_op2(k, LO_MUL, t, le_op2(k, LO_MUL, t, lower_pull(l, x, c.idx), f), g);
        ls_store(k, l->block, to->buf, view_index(l, to, c.idx), y);
    }
    l->block = back;
    return true;
}

/* ---- argmax, top_k_mask, cumsum ------------------------------------------------------------------------ */

typedef struct Best {
    ValueId x;
    int axis;
    DType type;
    bool last; /* of equal ones; else the first */
    const LExpr *idx[MOEC_MAX_RANK], *out[MOEC_MAX_RANK]; /* of x but for the axis, and of the result */
} Best;

/* An element and its place. */
typedef struct Found {
    const LExpr *value, *at;
} Found;

static const LExpr *either(Lower *l, LOp op, const LExpr *a, const LExpr *b) {
    return le_op2(l->k, op, DT_BOOL, a, b);
}

/* x is the larger one, NaN larger than all numbers. */
static const LExpr *is_larger(Lower *l, DType t, const LExpr *x, const LExpr *than) {
    const LExpr *larger = either(l, LO_GT, x, than);
    if (!dtype_is_float(t))
        return larger;
    const LExpr *number = le_op1(l->k, LO_NOT, DT_BOOL, le_op1(l->k, LO_ISNAN, DT_BOOL, than));
    return either(l, LO_OR, larger, either(l, LO_AND, le_op1(l->k, LO_ISNAN, DT_BOOL, x), number));
}

/* x is to be found rather than `than`, wherever each stands. */
static const LExpr *is_better(Lower *l, const Best *b, const Found *x, const Found *than) {
    const LExpr *no = either(l, LO_OR, is_larger(l, b->type, x->value, than->value), is_larger(l, b->type, than->value, x->value));
    const LExpr *tie = either(l, LO_AND, le_op1(l->k, LO_NOT, DT_BOOL, no), either(l, b->last ? LO_GT : LO_LT, x->at, than->at));
    return either(l, LO_OR, is_larger(l, b->type, x->value, than->value), tie);
}

/* The better one of what is there and of `count` others, which are found one after the other. */
typedef Found Candidate(Lower *l, void *ctx, const LExpr *i);

static Found choose(Lower *l, const Best *b, Found first, const LExpr *count, Candidate *candidate, void *ctx) {
    LoopKernel *k = l->k;
    uint32_t value = ls_let(k, l->block, b->type, first.value, "best"), at = ls_let(k, l->block, DT_I64, first.at, "at");
    const Found best = {le_var(k, value), le_var(k, at)};
    LBlock *back = l->block;
    LStmt *s = ls_for(k, back, count, "j");
    l->block = &s->body;
    Found x = candidate(l, ctx, le_var(k, s->var));
    x.value = le_var(k, ls_let(k, l->block, b->type, x.value, "x"));
    LStmt *yes = ls_if(k, l->block, is_better(l, b, &x, &best));
    ls_set(k, &yes->body, value, x.value);
    ls_set(k, &yes->body, at, x.at);
    l->block = back;
    return best;
}

static Found element_of(Lower *l, void *ctx, const LExpr *j) {
    Best *b = ctx;
    b->idx[b->axis] = j;
    return (Found){lower_pull(l, b->x, b->idx), j};
}

/* The best of each of LANES lanes so far: of the elements 16 i + l from `first` on, and i. */
typedef struct BestLanes {
    Best *b;
    const LBuf *value, *step;
    const LExpr *first;
} BestLanes;

static Found best_of_lane(Lower *l, void *ctx, const LExpr *lane) {
    const BestLanes *x = ctx;
    LoopKernel *k = l->k;
    const LExpr *step = le_cast(k, DT_I64, le_load(k, x->step, lane));
    return (Found){le_load(k, x->value, lane), li_add(k, li_add(k, li_mul(k, step, le_int(k, LANES)), lane), x->first)};
}

/* `lanes` lanes at step i. */
static void update_lanes(Lower *l, const BestLanes *x, const LExpr *i, const LExpr *lanes) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *s = ls_lanes(k, back, lanes, "l");
    l->block = &s->body;
    const LExpr *lane = le_var(k, s->var), *j = li_add(k, li_add(k, li_mul(k, i, le_int(k, LANES)), lane), x->first);
    const LExpr *e = le_var(k, ls_let(k, l->block, x->b->type, element_of(l, x->b, j).value, "x"));
    const LExpr *best = le_var(k, ls_let(k, l->block, x->b->type, le_load(k, x->value, lane), "was"));
    const LExpr *step = le_var(k, ls_let(k, l->block, DT_I32, le_load(k, x->step, lane), "at"));
    const LExpr *yes = x->b->last ? le_op1(k, LO_NOT, DT_BOOL, is_larger(l, x->b->type, best, e)) : is_larger(l, x->b->type, e, best);
    ls_store(k, l->block, x->value, lane, le_select(k, yes, e, best));
    ls_store(k, l->block, x->step, lane, le_select(k, yes, le_cast(k, DT_I32, i), step));
    l->block = back;
}

/* The best of `count` elements from `first` on: at least LANES of them. */
static Found best_by_lanes(Lower *l, Best *b, const LExpr *first, const LExpr *count) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LBuf *value = loop_buf(k, LB_LOCAL, b->type, str_c("best")), *step = loop_buf(k, LB_LOCAL, DT_I32, str_c("step"));
    value->count = step->count = LANES;
    BestLanes x = {b, value, step, first};
    LStmt *s = ls_lanes(k, back, le_int(k, LANES), "l");
    l->block = &s->body;
    ls_store(k, l->block, value, le_var(k, s->var), element_of(l, b, li_add(k, first, le_var(k, s->var))).value);
    s = ls_lanes(k, back, le_int(k, LANES), "l");
    ls_store(k, &s->body, step, le_var(k, s->var), le_int(k, 0));
    s = ls_for(k, back, li_div(k, count, le_int(k, LANES)), "v");
    l->block = &s->body;
    update_lanes(l, &x, le_var(k, s->var), le_int(k, LANES));
    l->block = back;
    if (!le_is_int(li_mod(k, count, le_int(k, LANES)), 0))
        update_lanes(l, &x, li_div(k, count, le_int(k, LANES)), li_mod(k, count, le_int(k, LANES)));
    return choose(l, b, best_of_lane(l, &x, le_int(k, 0)), le_int(k, LANES), best_of_lane, &x);
}

/* Where the best of each part of a row is. */
typedef struct BestParts {
    const LBuf *value, *at;
    const LExpr *row;
} BestParts;

enum { PARTS = 16, LONG = 4096 };

static Found best_of_part(Lower *l, void *ctx, const LExpr *part) {
    const BestParts *x = ctx;
    const LExpr *i = li_add(l->k, li_mul(l->k, x->row, le_int(l->k, PARTS)), part);
    return (Found){le_load(l->k, x->value, i), le_load(l->k, x->at, i)};
}

/* Long rows of a kernel by rows: their parts are blocks, all of the same length; the last one begins where that fits. */
static bool argmax_of_parts(Lower *l, Best *b, int64_t n, const View *to) {
    LoopKernel *k = l->k;
    int64_t part = (n + PARTS * LANES - 1) / (PARTS * LANES) * LANES;
    BestParts x = {loop_scratch(k, b->type, PARTS * l->tile_max * (int64_t)dtype_bytes(b->type), str_c("best")),
                   loop_scratch(k, DT_I64, PARTS * l->tile_max * 8, str_c("at")), NULL};
    if (!x.value || !x.at)
        return false;
    const LExpr *block;
    l->block = &lower_blocks(l, le_int(k, (n + part - 1) / part), &block)->body;
    LStmt *m = ls_for(k, l->block, l->tile, "m");
    l->block = &m->body;
    b->idx[0] = le_var(k, m->var);
    const LExpr *first = li_min(k, li_mul(k, block, le_int(k, part)), le_int(k, n - part));
    first = le_var(k, ls_let(k, l->block, DT_I64, first, "first"));
    Found best = best_by_lanes(l, b, first, le_int(k, part));
    const LExpr *i = li_add(k, li_mul(k, b->idx[0], le_int(k, PARTS)), block);
    ls_store(k, l->block, x.value, i, best.value);
    ls_store(k, l->block, x.at, i, best.at);
    l->block = lower_serial(l);
    m = ls_for(k, l->block, l->tile, "m");
    l->block = &m->body;
    x.row = b->out[0] = le_var(k, m->var);
    best = choose(l, b, best_of_part(l, &x, le_int(k, 0)), le_int(k, (n + part - 1) / part), best_of_part, &x);
    b->out[1] = le_int(k, 0);
    ls_store(k, l->block, to->buf, view_index(l, to, b->out), best.at);
    l->block = lower_serial(l);
    return true;
}

bool lower_argmax(Lower *l, const Node *n, const View *to) {
    LoopKernel *k = l->k;
    Best b = {.x = n->in[0], .type = l->f->value[n->in[0]].type.dtype, .last = node_int(n, AT_last, 0)};
    b.axis = collapsed_axis(l, b.x, node_int(n, AT_axis, 0));
    const LExpr *extent = lower_extent(l, b.x, b.axis);
    View stored;
    bool rows = l->n_row && l->row[b.x] && lower_rank(l, b.x) == 2 && b.axis == 1 && l->block == lower_serial(l);
    if (rows && extent->kind == LE_INT && extent->i >= LONG && lower_view(l, b.x, &stored))
        return argmax_of_parts(l, &b, extent->i, to);
    LBlock *back = loops_but(l, b.x, b.axis, b.idx);
    int o = 0;
    for (int a = 0; a < lower_rank(l, b.x); a++)
        if (a != b.axis) b.out[o++] = b.idx[a];
        else if (node_int(n, AT_keep, 0)) b.out[o++] = le_int(k, 0);
    Found best = extent->kind == LE_INT && extent->i >= LANES
                     ? best_by_lanes(l, &b, le_int(k, 0), extent)
                     : choose(l, &b, element_of(l, &b, le_int(k, 0)), extent, element_of, &b);
    ls_store(k, l->block, to->buf, view_index(l, to, b.out), best.at);
    l->block = back;
    return true;
}

/* An element is kept when fewer than k others come before it: larger ones, and equal ones of lower index. */
bool lower_top_k_mask(Lower *l, const Node *n, const View *to) {
    ValueId x = n->in[0];
    LoopKernel *k = l->k;
    DType t = l->f->value[x].type.dtype;
    int last = lower_rank(l, x) - 1;
    const LExpr *idx[MOEC_MAX_RANK], *other[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, x, 0, last + 1, idx);
    for (int a = 0; a < last; a++) other[a] = idx[a];
    const LExpr *e = le_var(k, ls_let(k, l->block, t, lower_pull(l, x, idx), "x"));
    uint32_t before = ls_let(k, l->block, DT_I64, le_int(k, 0), "before");
    LStmt *s = ls_for(k, l->block, lower_extent(l, x, last), "o");
    LBlock *inner = l->block;
    l->block = &s->body;
    other[last] = le_var(k, s->var);
    const LExpr *y = le_var(k, ls_let(k, l->block, t, lower_pull(l, x, other), "y"));
    const LExpr *more = le_op2(k, LO_GT, DT_BOOL, y, e), *same = le_op2(k, LO_EQ, DT_BOOL, y, e);
    if (dtype_is_float(t)) { /* NaN is larger than any number */
        const LExpr *nan_y = le_op1(k, LO_ISNAN, DT_BOOL, y), *nan_e = le_op1(k, LO_ISNAN, DT_BOOL, e);
        more = le_op2(k, LO_OR, DT_BOOL, more, le_op2(k, LO_AND, DT_BOOL, nan_y, le_op1(k, LO_NOT, DT_BOOL, nan_e)));
        same = le_op2(k, LO_OR, DT_BOOL, same, le_op2(k, LO_AND, DT_BOOL, nan_y, nan_e));
    }
    const LExpr *tie = le_op2(k, LO_AND, DT_BOOL, same, le_op2(k, LO_LT, DT_BOOL, le_var(k, s->var), idx[last]));
    const LExpr *first = le_op2(k, LO_OR, DT_BOOL, more, tie);
    ls_set(k, l->block, before, li_add(k, le_var(k, before), le_cast(k, DT_I64, first)));
    l->block = inner;
    ls_store(k, l->block, to->buf, view_index(l, to, idx),
             le_op2(k, LO_LT, DT_BOOL, le_var(k, before), le_int(k, node_int(n, AT_k, 1))));
    l->block = back;
    return true;
}

bool lower_cumsum(Lower *l, const Node *n, const View *to) {
    ValueId x = n->in[0];
    LoopKernel *k = l->k;
    DType t = dtype_is_float(to->buf->dtype) ? to->buf->dtype : DT_I64;
    const LExpr *idx[MOEC_MAX_RANK];
    int axis = collapsed_axis(l, x, node_int(n, AT_axis, 0));
    const LExpr *extent = lower_extent(l, x, axis);
    LBlock *back = loops_but(l, x, axis, idx), *row = l->block;
    uint32_t sum = ls_let(k, row, t, le_num(k, t, 0), "sum");
    LStmt *s = ls_for(k, row, extent, "j");
    l->block = &s->body;
    idx[axis] = le_var(k, s->var);
    if (node_int(n, AT_reverse, 0)) idx[axis] = li_sub(k, li_sub(k, extent, le_int(k, 1)), idx[axis]);
    const LExpr *e = le_var(k, ls_let(k, l->block, t, le_cast(k, t, lower_pull(l, x, idx)), "x"));
    const LExpr *next = le_op2(k, LO_ADD, t, le_var(k, sum), e), *at = view_index(l, to, idx);
    bool exclusive = node_int(n, AT_exclusive, 0) != 0;
    if (exclusive) ls_store(k, l->block, to->buf, at, le_var(k, sum));
    ls_set(k, l->block, sum, next);
    if (!exclusive) ls_store(k, l->block, to->buf, at, le_var(k, sum));
    l->block = back;
    return true;
}
