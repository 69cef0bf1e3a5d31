/* Where values are stored and how one element of an inlined value is computed. */
#include "lower.h"

#include "../compiler/pack.h"

#include <string.h>

static const Type *type_of(const Lower *l, ValueId v) {
    return &l->f->value[v].type;
}

int lower_rank(const Lower *l, ValueId v) {
    int rank = type_of(l, v)->rank;
    return l->row[v] ? rank - l->n_row + 1 : rank;
}

Dim lower_dim(const Lower *l, ValueId v, int axis) {
    if (!l->row[v]) return type_of(l, v)->dim[axis];
    return axis == 0 ? DIM_BAD : type_of(l, v)->dim[axis - 1 + l->n_row];
}

const LExpr *lower_extent(const Lower *l, ValueId v, int axis) {
    Dim d = lower_dim(l, v, axis);
    return d == DIM_BAD ? l->tile : le_dim(l->k, d);
}

View lower_contiguous(const Lower *l, ValueId v, const LBuf *buf, const LExpr *offset) {
    View w = {.buf = buf, .offset = offset, .rank = lower_rank(l, v)};
    Dim step = dim_const(l->t, 1);
    for (int a = w.rank - 1; a >= 0; a--) {
        w.stride[a] = step;
        Dim d = lower_dim(l, v, a);
        if (d != DIM_BAD) step = dim_mul(l->t, step, d);
    }
    return w;
}

/* Room for the last axis of v in scratch: a product's panels fit whole. */
static Dim last_room(const Lower *l, ValueId v) {
    const Node *made = value_node(l->f, v);
    Dim d = lower_dim(l, v, lower_rank(l, v) - 1);
    int64_t n;
    if (!made || !lower_by_panels(l, made) || !dim_is_const(l->t, d, &n))
        return d;
    int64_t width = n <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS;
    return dim_const(l->t, (n + width - 1) / width * width);
}

/* Distances between the elements of v in scratch. Rows are no multiple of 4 KiB apart: their lines would all meet in the same
 * places of a cache. */
static void scratch_strides(const Lower *l, ValueId v, View *out) {
    Dim step = dim_const(l->t, 1);
    int64_t row;
    for (int a = out->rank - 1; a >= 0; a--) {
        if (a == 0 && l->row[v] && out->rank == 2 && dim_is_const(l->t, step, &row) && row > 0 && row % 1024 == 0)
            step = dim_const(l->t, row + 16);
        out->stride[a] = step;
        Dim d = a == out->rank - 1 ? last_room(l, v) : lower_dim(l, v, a);
        if (d != DIM_BAD) step = dim_mul(l->t, step, d);
    }
}

bool lower_scratch(Lower *l, ValueId v, View *out) {
    *out = lower_contiguous(l, v, NULL, le_int(l->k, 0));
    if (out->rank) scratch_strides(l, v, out);
    int64_t count = 1, bytes = 0, hi;
    bool ok = true;
    for (int a = 0; a < out->rank; a++) { /* the axis that reaches furthest */
        int64_t n = l->row[v] && a == 0 ? l->tile_max : dim_upper(l->t, lower_dim(l, v, a)), reach;
        hi = dim_upper(l->t, out->stride[a]);
        ok = ok && n != DIM_UNBOUNDED && hi != DIM_UNBOUNDED && mul_i64(n, hi, &reach);
        if (ok && reach > count) count = reach;
    }
    ok = ok && mul_i64(count, (int64_t)dtype_bytes(type_of(l, v)->dtype), &bytes);
    const Node *made = value_node(l->f, v);
    Str hint = l->f->value[v].name.n || !made ? l->f->value[v].name : str_c(op_info(made->op)->name);
    LBuf *b = ok ? loop_scratch(l->k, type_of(l, v)->dtype, bytes, hint) : NULL;
    if (!b)
        return diag_error(
            l->d, DIAG_SHAPE_UNBOUNDED, NULL,
            "a value inside kernel '%.*s' has no bound on its size; give one with --dim NAME=1..N",
            (int)l->f->name.n, l->f->name.p);
    out->buf = b;
    return true;
}

const LExpr *view_index(const Lower *l, const View *w, const LExpr *const *idx) {
    const LExpr *e = w->offset;
    if (w->run) {
        const LExpr *row = li_add(l->k, l->row0, idx[0]);
        e = li_add(l->k, e, li_mul(l->k, li_div(l->k, row, w->run), le_dim(l->k, w->apart)));
        e = li_add(l->k, e, li_mul(l->k, li_mod(l->k, row, w->run), le_dim(l->k, w->stride[0])));
    }
    for (int a = w->run ? 1 : 0; a < w->rank; a++) e = li_add(l->k, e, li_mul(l->k, idx[a], le_dim(l->k, w->stride[a])));
    return w->origin ? li_sub(l->k, e, w->origin) : e;
}

/* ---- views ------------------------------------------------------------------------------------- */

/* Pairs runs of source axes with runs of result axes of equal size: [a0,a1) <-> [b0,b1). Leading 1s pair with an
 * empty run. False at the end. */
typedef struct Group {
    int a0, a1, b0, b1;
} Group;

static bool next_group(const Lower *l, ValueId a, ValueId b, Group *g) {
    int na = lower_rank(l, a), nb = lower_rank(l, b);
    g->a0 = g->a1;
    g->b0 = g->b1;
    if (g->a0 >= na && g->b0 >= nb) return false;
    if (l->row[a] && g->a0 == 0 && g->b0 == 0) {
        g->a1 = g->b1 = 1;
        return true;
    }
    Dim one = dim_const(l->t, 1), pa = one, pb = one;
    do {
        int64_t x, y;
        bool ca = dim_is_const(l->t, pa, &x), cb = dim_is_const(l->t, pb, &y);
        bool take_a = g->a1 < na && (g->b1 >= nb || g->a1 == g->a0);
        bool take_b = g->b1 < nb && (g->a1 >= na || g->b1 == g->b0);
        if (!take_a && !take_b) {
            if (ca && cb) take_a = x < y, take_b = !take_a;
            else take_a = ca || dim_upper(l->t, pa) < dim_upper(l->t, pb), take_b = !take_a;
            if (g->a1 >= na) take_a = false, take_b = true;
            if (g->b1 >= nb) take_b = false, take_a = true;
        }
        if (take_a && g->a1 < na) pa = dim_mul(l->t, pa, lower_dim(l, a, g->a1++));
        if (take_b && g->b1 < nb) pb = dim_mul(l->t, pb, lower_dim(l, b, g->b1++));
    } while (pa != pb && (g->a1 < na || g->b1 < nb));
    return true;
}

static bool reshape_view(Lower *l, ValueId a, ValueId b, const View *w, View *out) {
    Group g = {0, 0, 0, 0};
    out->rank = lower_rank(l, b);
    while (next_group(l, a, b, &g)) {
        /* axes of extent 1 do not matter to where elements lie */
        Dim inner = dim_const(l->t, 1), run = DIM_BAD;
        for (int i = g.a1 - 1; i >= g.a0; i--) {
            Dim d = lower_dim(l, a, i);
            if (d != DIM_BAD && dim_is(l->t, d, 1)) continue;
            if (run == DIM_BAD) inner = w->stride[i];
            else if (w->stride[i] != run) return false;
            run = d == DIM_BAD ? DIM_BAD : dim_mul(l->t, w->stride[i], d);
        }
        for (int i = g.b1 - 1; i >= g.b0; i--) {
            out->stride[i] = inner;
            Dim d = lower_dim(l, b, i);
            if (d != DIM_BAD) inner = dim_mul(l->t, inner, d);
        }
    }
    return true;
}

static bool slice_view(Lower *l, const Node *n, const View *w, View *out) {
    const Attr *start = node_attr(n, AT_start), *step = node_attr(n, AT_step);
    int drop = l->row[n->out] ? l->n_row - 1 : 0;
    for (int a = 0; a < w->rank; a++) {
        out->stride[a] = w->stride[a];
        if (l->row[n->out] && a == 0) continue;
        Dim s = start->dims.v[a + drop];
        out->offset = li_add(l->k, out->offset, le_dim(l->k, dim_mul(l->t, s, w->stride[a])));
        if (step) out->stride[a] = dim_mul(l->t, w->stride[a], dim_const(l->t, step->ints.v[a + drop]));
    }
    return true;
}

bool lower_view(Lower *l, ValueId v, View *out) {
    if (l->view[v].buf) {
        *out = l->view[v];
        return true;
    }
    const Node *n = value_node(l->f, v);
    if (!n || n->n_in != 1) return false;
    View w;
    bool ok = false;
    if (n->op != OP_reshape && n->op != OP_transpose && n->op != OP_slice) return false;
    if (!lower_view(l, n->in[0], &w)) return false;
    *out = w;
    if (n->op == OP_reshape) ok = reshape_view(l, n->in[0], v, &w, out);
    else if (n->op == OP_slice) ok = slice_view(l, n, &w, out);
    else {
        const Attr *p = node_attr(n, AT_perm);
        int drop = l->row[v] ? l->n_row - 1 : 0;
        for (int a = 0; a < w.rank; a++) {
            int from = (int)p->ints.v[a + drop] - drop;
            out->stride[a] = w.stride[l->row[v] && a == 0 ? 0 : from];
        }
        ok = true;
    }
    if (ok) l->view[v] = *out;
    return ok;
}

bool lower_stored(Lower *l, ValueId v, View *out) {
    if (lower_view(l, v, out)) return true;
    if (!lower_scratch(l, v, out) || !lower_into(l, v, out)) return false;
    l->view[v] = *out;
    return true;
}

/* ---- elements ------------------------------------------------------------------------------------- */

void lower_broadcast_index(const Lower *l, ValueId operand, ValueId r, const LExpr *const *idx, const LExpr **out) {
    int ro = lower_rank(l, operand), rr = lower_rank(l, r);
    for (int a = 0; a < ro; a++) {
        Dim d = lower_dim(l, operand, a);
        int at = a + rr - ro;
        out[a] = at < 0 || (d != DIM_BAD && dim_is(l->t, d, 1)) ? le_int(l->k, 0) : idx[at];
    }
}

static const LExpr *pull_reshape(Lower *l, const Node *n, const LExpr *const *idx) {
    const LExpr *at[MOEC_MAX_RANK] = {NULL};
    Group g = {0, 0, 0, 0};
    while (next_group(l, n->in[0], n->out, &g)) {
        const LExpr *lin = le_int(l->k, 0);
        for (int i = g.b0; i < g.b1; i++) {
            Dim d = lower_dim(l, n->out, i);
            lin = d == DIM_BAD ? idx[i] : li_add(l->k, li_mul(l->k, lin, le_dim(l->k, d)), idx[i]);
        }
        if (g.a1 - g.a0 > 1 && lin->kind == LE_INDEX) lin = le_var(l->k, ls_let(l->k, l->block, DT_I64, lin, "at"));
        for (int i = g.a1 - 1; i >= g.a0; i--) {
            Dim d = lower_dim(l, n->in[0], i);
            if (i == g.a0) at[i] = d != DIM_BAD && dim_is(l->t, d, 1) ? le_int(l->k, 0) : lin;
            else {
                at[i] = li_mod(l->k, lin, le_dim(l->k, d));
                lin = li_div(l->k, lin, le_dim(l->k, d));
            }
        }
    }
    return lower_pull(l, n->in[0], at);
}

/* Behind the last column a zero; what is loaded in its place is the last one. */
static const LExpr *pull_pack(Lower *l, const Node *n, const LExpr *const *idx) {
    LoopKernel *k = l->k;
    const LExpr *at[MOEC_MAX_RANK] = {NULL};
    int r = lower_rank(l, n->in[0]);
    const LExpr *columns = lower_extent(l, n->in[0], r - 1);
    const LExpr *column = li_add(k, li_mul(k, idx[r - 2], lower_extent(l, n->out, r)), idx[r]);
    for (int a = 0; a < r - 2; a++) at[a] = idx[a];
    at[r - 2] = idx[r - 1];
    at[r - 1] = li_min(k, column, li_sub(k, columns, le_int(k, 1)));
    const LExpr *e = lower_pull(l, n->in[0], at);
    return le_select(k, le_op2(k, LO_LT, DT_BOOL, column, columns), e, le_num(k, e->type, 0));
}

/* Of words the weight in the one that its row is in, times the scale of its block. */
static const LExpr *pull_unpack(Lower *l, const Node *n, const LExpr *const *idx) {
    LoopKernel *k = l->k;
    const WeightFormatInfo *f = &weight_formats[node_format(n)];
    int rank = lower_rank(l, n->out);
    const LExpr *at[MOEC_MAX_RANK] = {NULL}, *width = le_dim(k, lower_dim(l, n->in[0], rank)), *row = idx[rank - 2];
    for (int a = 0; a < rank - 2; a++) at[a] = idx[a];
    at[rank - 2] = li_div(k, idx[rank - 1], width);
    at[rank - 1] = f->per_word ? li_div(k, row, le_int(k, f->per_word)) : row;
    at[rank] = li_mod(k, idx[rank - 1], width);
    const LExpr *e = lower_pull(l, n->in[0], at);
    if (!f->per_word) return e;
    e = le_op2(k, weight_element[node_format(n)], DT_F32, e, li_mod(k, row, le_int(k, f->per_word)));
    if (!f->block) return e;
    at[rank - 1] = li_div(k, row, le_int(k, f->block));
    return le_op2(k, LO_MUL, DT_F32, e, lower_pull(l, n->in[1], at));
}

static const LExpr *pull_move(Lower *l, const Node *n, const LExpr *const *idx) {
    const LExpr *at[MOEC_MAX_RANK] = {NULL};
    int rank = lower_rank(l, n->out), drop = l->row[n->out] ? l->n_row - 1 : 0;
    bool row = l->row[n->out];
    switch (n->op) {
    case OP_reshape: return pull_reshape(l, n, idx);
    case OP_broadcast: lower_broadcast_index(l, n->in[0], n->out, idx, at); break;
    case OP_transpose:
        for (int a = 0; a < rank; a++) {
            int from = (int)node_attr(n, AT_perm)->ints.v[a + drop] - drop;
            at[row && a == 0 ? 0 : from] = idx[a];
        }
        break;
    case OP_slice:
        for (int a = 0; a < rank; a++) {
            at[a] = idx[a];
            if (row && a == 0) continue;
            const Attr *st = node_attr(n, AT_step);
            if (st) at[a] = li_mul(l->k, at[a], le_int(l->k, st->ints.v[a + drop]));
            at[a] = li_add(l->k, at[a], le_dim(l->k, node_attr(n, AT_start)->dims.v[a + drop]));
        }
        break;
    case OP_unpack: return pull_unpack(l, n, idx);
    case OP_pack: return pull_pack(l, n, idx);
    default: BUG("%s is not inlined", op_info(n->op)->name);
    }
    return lower_pull(l, n->in[0], at);
}

typedef struct ScalarRule {
    Op op;
    LOp scalar;
} ScalarRule;

static const ScalarRule scalar_rules[] = {
    {OP_neg, LO_NEG},     {OP_abs, LO_ABS},     {OP_sqrt, LO_SQRT},   {OP_rsqrt, LO_RSQRT}, {OP_recip, LO_RECIP},
    {OP_exp, LO_EXP},     {OP_log, LO_LOG},     {OP_tanh, LO_TANH},   {OP_erf, LO_ERF},     {OP_relu, LO_RELU},
    {OP_sigmoid, LO_SIGMOID}, {OP_gelu, LO_GELU}, {OP_gelu_grad, LO_GELU_GRAD}, {OP_floor, LO_FLOOR}, {OP_ceil, LO_CEIL}, {OP_round, LO_ROUND},
    {OP_sign, LO_SIGN},   {OP_not, LO_NOT},     {OP_isinf, LO_ISINF}, {OP_isnan, LO_ISNAN}, {OP_add, LO_ADD},
    {OP_sub, LO_SUB},     {OP_mul, LO_MUL},     {OP_div, LO_DIV},     {OP_mod, LO_MOD},     {OP_fmod, LO_FMOD},
    {OP_pow, LO_POW},     {OP_min, LO_MIN},     {OP_max, LO_MAX},     {OP_eq, LO_EQ},       {OP_ne, LO_NE},
    {OP_lt, LO_LT},       {OP_le, LO_LE},       {OP_gt, LO_GT},       {OP_ge, LO_GE},       {OP_and, LO_AND},
    {OP_or, LO_OR},       {OP_xor, LO_XOR},
};

static bool scalar_rule(Op op, LOp *out) {
    for (size_t i = 0; i < sizeof scalar_rules / sizeof *scalar_rules; i++)
        if (scalar_rules[i].op == op) {
            *out = scalar_rules[i].scalar;
            return true;
        }
    return false;
}

/* Whether the result is a number: not so of comparisons, tests and logic. */
static bool is_arithmetic(LOp op) {
    return op != LO_NOT && op != LO_AND && op != LO_OR && op != LO_XOR && op != LO_ISINF && op != LO_ISNAN && op != LO_EQ && op != LO_NE &&
           op != LO_LT && op != LO_LE && op != LO_GT && op != LO_GE;
}

/* Ops that have little to do on integers; NULL: n is none. */
static const LExpr *pull_integer(Lower *l, const Node *n, const LExpr *e) {
    if (dtype_is_float(e->type)) return NULL;
    if (n->op == OP_floor || n->op == OP_ceil || n->op == OP_round) return e;
    return n->op == OP_isnan || n->op == OP_isinf ? le_num(l->k, DT_BOOL, 0) : NULL;
}

static const LExpr *pull_pointwise(Lower *l, const Node *n, const LExpr *const *idx) {
    const LExpr *e[3] = {NULL, NULL, NULL};
    for (uint32_t i = 0; i < n->n_in; i++) {
        const LExpr *at[MOEC_MAX_RANK] = {NULL};
        lower_broadcast_index(l, n->in[i], n->out, idx, at);
        e[i] = lower_pull(l, n->in[i], at);
    }
    CHECK(e[0]);
    DType t = type_of(l, n->out)->dtype;
    LOp op;
    const LExpr *whole = pull_integer(l, n, e[0]);
    if (whole) return whole;
    if (n->op == OP_pow && e[1] && e[1]->type != t && (dtype_is_float(t) || dtype_is_float(e[1]->type))) {
        DType in = dtype_is_float(t) ? t : DT_F64;
        return le_cast(l->k, t, le_op2(l->k, LO_POW, in, le_cast(l->k, in, e[0]), le_cast(l->k, in, e[1])));
    }
    if (n->op == OP_dropout || n->op == OP_jitter) return e[0];
    if (n->op == OP_cast) return le_cast(l->k, t, e[0]);
    if (n->op == OP_select) return le_select(l->k, e[0], e[1], e[2]);
    if (!scalar_rule(n->op, &op)) BUG("no scalar form of %s", op_info(n->op)->name);
    bool numbers = t == DT_BOOL && is_arithmetic(op);
    if (numbers) t = DT_I64; /* arithmetic on bools is that of 0 and 1; the result is whether it is 0 */
    const LExpr *r = n->n_in == 1 ? le_op1(l->k, op, t, e[0]) : le_op2(l->k, op, t, e[0], e[1]);
    return numbers ? le_cast(l->k, DT_BOOL, r) : r;
}

static const LExpr *literal(Lower *l, const Tensor *t) {
    if (dtype_is_float(t->dtype)) return le_num(l->k, t->dtype, tensor_get_f64(t, 0));
    LExpr *e = (LExpr *)le_num(l->k, t->dtype, 0);
    e->i = tensor_get_i64(t, 0);
    return e;
}

/* The index is the element's position in the whole tensor, whatever the tile. */
static const LExpr *pull_random(Lower *l, const Node *n, const LExpr *const *idx) {
    LoopKernel *k = l->k;
    const LExpr *at = le_int(k, 0);
    for (int a = 0; a < lower_rank(l, n->out); a++) {
        Dim d = lower_dim(l, n->out, a);
        at = d == DIM_BAD ? li_add(k, l->row0, idx[a]) : li_add(k, li_mul(k, at, le_dim(k, d)), idx[a]);
    }
    return le_op2(k, LO_UNIFORM, DT_F32, lower_pull(l, n->in[0], NULL), at);
}

const LExpr *lower_pull(Lower *l, ValueId v, const LExpr *const *idx) {
    static const LExpr *const of_scalar[MOEC_MAX_RANK];
    idx = idx ? idx : of_scalar;
    const Node *n = value_node(l->f, v);
    if (n && n->op == OP_const) {
        const Tensor *t = &node_attr(n, AT_value)->t;
        int64_t count;
        if (tensor_count(t, &count) && count == 1) return literal(l, t);
    }
    View w;
    if (lower_view(l, v, &w)) return le_load(l->k, w.buf, view_index(l, &w, idx));
    if (!n) BUG("value %u of a kernel is not stored", v);
    if (n->op == OP_dim) return le_dim(l->k, node_attr(n, AT_dim)->d);
    if (n->op == OP_iota) return idx[node_int(n, AT_axis, 0)];
    if (op_info(n->op)->klass == OC_POINTWISE) return pull_pointwise(l, n, idx);
    if (n->op == OP_random) return pull_random(l, n, idx);
    return pull_move(l, n, idx);
}

bool lower_may_spread(const Lower *l) {
    if (l->n_row || l->block != &l->k->body) return false;
    for (const LStmt *s = l->k->body.first; s; s = s->next)
        if (s->kind != LS_NOTE) return false;
    return l->f->n_outputs == 1;
}

LBlock *lower_loops(Lower *l, ValueId v, int from, int to, const LExpr **idx) {
    LBlock *back = l->block;
    for (int a = from; a < to; a++) {
        const LExpr *extent = lower_extent(l, v, a);
        if (le_is_int(extent, 1)) {
            idx[a] = le_int(l->k, 0);
            continue;
        }
        char hint[2] = {(char)(lower_dim(l, v, a) == DIM_BAD ? 'm' : 'i' + (a > 9 ? 9 : a)), 0};
        LStmt *s = a == to - 1 ? ls_lanes(l->k, l->block, extent, hint) : ls_for(l->k, l->block, extent, hint);
        idx[a] = le_var(l->k, s->var);
        l->block = &s->body;
    }
    return back;
}
