/* match: linear layers on dynamically quantised activations.
 *
 * Exporters of int8 models round every activation to 8 bits over the range it has in this very call, so that
 * a token's result depends on all tokens that happen to be computed with it. The rounding approximates the
 * product with the dequantised weight, and that product is what such a layer becomes here: weights keep their
 * 8 bit values. */
#include "match_impl.h"

/* The two operands of op n in the order for which `first` is the one that `is` accepts. */
static bool either(const Func *f, const Node *n, bool (*is)(const Func *f, ValueId v), ValueId *yes,
                   ValueId *no) {
    for (int i = 0; i < 2; i++)
        if (is(f, match_strip(f, n->in[i]))) {
            *yes = match_strip(f, n->in[i]);
            *no = match_strip(f, n->in[1 - i]);
            return true;
        }
    return false;
}

static const Node *node_of(const Func *f, ValueId v, Op op) {
    const Node *n = value_node(f, match_strip(f, v));
    return n && n->op == op ? n : NULL;
}

static bool is_cast(const Func *f, ValueId v) {
    return node_of(f, v, OP_cast) != NULL;
}

static bool is_round(const Func *f, ValueId v) {
    return node_of(f, v, OP_round) != NULL;
}

static bool is_const_like(const Func *f, ValueId v) {
    return f->value[v].kind == VK_PARAM || node_of(f, v, OP_const) != NULL;
}

/* v = op(w, c) for a constant c of value `want`, either order. */
static bool with_const(const Matcher *mt, ValueId v, Op op, double want, ValueId *w) {
    const Node *n = node_of(mt->f, v, op);
    double c;
    for (int i = 0; n && i < 2; i++)
        if (match_const(mt, n->in[1 - i], &c) && c == want)
            return *w = match_strip(mt->f, n->in[i]), true;
    return false;
}

/* Reduction of x over everything by `op`. */
static bool extreme_of(const Func *f, ValueId v, Op op, ValueId x) {
    const Node *n = node_of(f, v, op);
    const Attr *axes = n ? node_attr(n, AT_axes) : NULL;
    return axes && match_strip(f, n->in[0]) == x && axes->ints.n == (uint32_t)f->value[x].type.rank;
}

/* scale = (max(0, max x) - min(0, min x)) / 255, 1 where that is 0 */
static bool is_range_scale(const Matcher *mt, ValueId scale, ValueId x) {
    const Node *pick = node_of(mt->f, scale, OP_select);
    double one;
    if (!pick || !match_const(mt, pick->in[1], &one) || one != 1)
        return false;
    const Node *span = node_of(mt->f, pick->in[2], OP_div);
    double top;
    if (!span || !match_const(mt, span->in[1], &top) || top != 255)
        return false;
    const Node *sub = node_of(mt->f, span->in[0], OP_sub);
    ValueId hi, lo;
    return sub && with_const(mt, sub->in[0], OP_max, 0, &hi) && with_const(mt, sub->in[1], OP_min, 0, &lo) &&
           extreme_of(mt->f, hi, OP_reduce_max, x) && extreme_of(mt->f, lo, OP_reduce_min, x);
}

/* v: i32 = cast(u8 y) - cast(u8 z), y = saturate(round(x / scale) + z). */
static bool quantised(const Matcher *mt, ValueId v, ValueId *x, ValueId *scale) {
    const Func *f = mt->f;
    const Node *sub = node_of(f, v, OP_sub);
    const Node *y = sub ? node_of(f, sub->in[0], OP_cast) : NULL,
               *z = sub ? node_of(f, sub->in[1], OP_cast) : NULL;
    const Node *y8 = y ? node_of(f, y->in[0], OP_cast) : NULL, *z8 = z ? node_of(f, z->in[0], OP_cast) : NULL;
    if (!y8 || !z8 || f->value[y8->out].type.dtype != DT_U8 || f->value[z8->out].type.dtype != DT_U8)
        return false;
    ValueId clipped, sum, round, zero;
    if (!with_const(mt, y8->in[0], OP_min, 255, &clipped) || !with_const(mt, clipped, OP_max, 0, &sum))
        return false;
    const Node *add = node_of(f, sum, OP_add);
    if (!add || !either(f, add, is_round, &round, &zero) || zero != match_strip(f, z8->in[0]))
        return false;
    const Node *div = node_of(f, value_node(f, round)->in[0], OP_div);
    if (!div)
        return false;
    *x = match_strip(f, div->in[0]);
    *scale = match_strip(f, div->in[1]);
    return is_range_scale(mt, *scale, *x);
}

/* A parameter computed as cast(p, f32) * scale. */
static ParamId dequantised(Module *m, const Func *f, ParamId p, ValueId scale, const Node *at) {
    const Param *w = &m->param[p];
    int shown = w->name.n > 1000 ? 1000 : (int)w->name.n;
    Func *g = func_begin(m, str_c(arena_printf(m->arena, "%.*s.f32", shown, w->name.p)), FR_INIT);
    ValueId v = build_cast(m, g, func_param(m, g, p), DT_F32, at->origin), s;
    ParamId sp;
    if (value_param(f, scale, &sp)) {
        s = func_param(m, g, sp);
    } else {
        const Node *c = value_node(f, scale);
        s = func_node(m, g, OP_const, NULL, 0, c->attrs, c->n_attrs, c->origin);
    }
    v = build_binary(m, g, OP_mul, v, s, at->origin);
    func_output(m, g, v, str_c("value"));
    Param made = {.name = g->name,
                  .kind = w->kind,
                  .dtype = DT_F32,
                  .rank = 2,
                  .dim = {w->dim[0], w->dim[1]},
                  .init = NONE,
                  .origin = w->origin};
    made.init = func_end(m, g, NONE);
    return module_param(m, made);
}

/* mul(cast(matmul(quantised x, W)), mul(scale of x, scale of W)) */
bool match_quantised(Matcher *mt, const Node *n) {
    const Func *f = mt->f;
    ValueId cast, scales, xs, ws, x, scale;
    ParamId w, sp;
    if (n->op != OP_mul || f->value[n->out].type.dtype != DT_F32 || !either(f, n, is_cast, &cast, &scales))
        return false;
    const Node *product = node_of(f, value_node(f, cast)->in[0], OP_matmul),
               *both = node_of(f, scales, OP_mul);
    if (!product || f->value[product->out].type.dtype != DT_I32)
        return false;
    if (!both || product->n_attrs || !value_param(f, product->in[1], &w) || mt->m->param[w].rank != 2 ||
        !either(f, both, is_const_like, &ws, &xs))
        return match_missed(mt, R_no_quantised, product,
                            "not a product with a weight of two axes, times the scales of both", NULL);
    if (!quantised(mt, product->in[0], &x, &scale) || xs != scale || f->value[x].type.dtype != DT_F32)
        return match_missed(mt, R_no_quantised, product, "the activation is not rounded to the range it has",
                            NULL);
    const Type *ts = &f->value[ws].type;
    if (ts->dtype != DT_F32 || ts->rank > 1 || (value_param(f, ws, &sp) && mt->m->param[sp].init != NONE))
        return match_missed(mt, R_no_quantised, product,
                            "the weight's scale is no number or vector of the file", NULL);
    ParamId made = dequantised(mt->m, f, w, ws, n);
    ValueId out =
        build_matmul(mt->m, mt->r.f, remap_value(&mt->r, x), func_param(mt->m, mt->r.f, made), n->origin);
    match_found(mt, R_quantised, n, out,
                "a product in floats with the dequantised weight: activations are not rounded");
    return true;
}
