/* match: rms_norm, gelu and linear layers.
 *
 * A product is read as a list of factors, so operand order and grouping do not matter: the norm is the
 * factors x, rsqrt(mean(x^2) + eps) and possibly a gain; gelu is the factors 1/2, x and 1 + tanh(polynomial
 * of x). */
#include "match_impl.h"

#include <math.h>
#include <string.h>

ValueId match_strip(const Func *f, ValueId v) {
    const Node *n;
    while ((n = value_node(f, v)) && n->op == OP_cast &&
           f->value[n->in[0]].type.dtype == f->value[v].type.dtype)
        v = n->in[0];
    return v;
}

bool match_const(const Matcher *mt, ValueId v, double *out) {
    v = match_strip(mt->f, v);
    const Node *n = value_node(mt->f, v);
    for (int i = 0; i < 4 && n && (n->op == OP_broadcast || n->op == OP_reshape); i++)
        n = value_node(mt->f, v = n->in[0]);
    return value_scalar(mt->m, mt->f, v, out);
}

/* ---- products ---------------------------------------------------------------------------------------- */

enum { MAX_FACTORS = 8 };

typedef struct Factor {
    ValueId v;
    bool under; /* a divisor */
} Factor;

/* The factors of v, not looking into `leaf` (NONE: none). False when there are too many. */
static bool factors_of(const Func *f, ValueId v, ValueId leaf, Factor *out, uint32_t *n) {
    Factor work[MAX_FACTORS * 2] = {{v, false}};
    uint32_t left = 1;
    *n = 0;
    while (left) {
        Factor c = work[--left];
        c.v = match_strip(f, c.v);
        const Node *d = c.v == leaf ? NULL : value_node(f, c.v);
        if (d && (d->op == OP_mul || d->op == OP_div)) {
            if (left + 2 > MAX_FACTORS)
                return false;
            work[left++] = (Factor){d->in[1], d->op == OP_div ? !c.under : c.under};
            work[left++] = (Factor){d->in[0], c.under};
        } else if (d && d->op == OP_recip) {
            work[left++] = (Factor){d->in[0], !c.under};
        } else {
            if (*n == MAX_FACTORS)
                return false;
            out[(*n)++] = c;
        }
    }
    return true;
}

/* ---- rms_norm ------------------------------------------------------------------------------------------ */

/* x^2 as pow(x, 2) or mul(x, x). */
static bool square_of(const Matcher *mt, ValueId v, ValueId *x) {
    const Node *n = value_node(mt->f, match_strip(mt->f, v));
    double e;
    if (n && n->op == OP_pow && match_const(mt, n->in[1], &e) && e == 2)
        return *x = match_strip(mt->f, n->in[0]), true;
    if (n && n->op == OP_mul && match_strip(mt->f, n->in[0]) == match_strip(mt->f, n->in[1]))
        return *x = match_strip(mt->f, n->in[0]), true;
    return false;
}

/* mean(x^2, last axis) + eps */
static bool mean_square(const Matcher *mt, ValueId v, ValueId *x, double *eps) {
    const Func *f = mt->f;
    const Node *add = value_node(f, match_strip(f, v));
    if (!add || add->op != OP_add)
        return false;
    for (int i = 0; i < 2; i++) {
        const Node *mean = value_node(f, match_strip(f, add->in[i]));
        if (!mean || mean->op != OP_reduce_mean || !match_const(mt, add->in[1 - i], eps))
            continue;
        const Attr *axes = node_attr(mean, AT_axes);
        int rank = f->value[mean->in[0]].type.rank;
        if (axes && axes->ints.n == 1 && axes->ints.v[0] == rank - 1 && node_int(mean, AT_keep, 0) &&
            square_of(mt, mean->in[0], x))
            return true;
    }
    return false;
}

static bool no_norm(Matcher *mt, const Node *root, const char *why) {
    return match_missed(mt, R_no_rms_norm, root, why, NULL);
}

/* A factor that is rsqrt(mean(x^2) + eps), however it is spelled. */
static bool norm_factor(const Matcher *mt, Factor c, ValueId *x, double *eps) {
    const Node *n = value_node(mt->f, c.v);
    return n && n->op == (c.under ? OP_sqrt : OP_rsqrt) && mean_square(mt, n->in[0], x, eps);
}

bool match_rms_norm(Matcher *mt, const Node *n) {
    const Func *f = mt->f;
    if ((n->op != OP_mul && n->op != OP_div) || f->value[n->out].type.dtype != DT_F32)
        return false;
    Factor c[MAX_FACTORS];
    uint32_t n_c;
    ValueId x = NONE;
    double eps = 0;
    if (!factors_of(f, n->out, NONE, c, &n_c))
        return false;
    const Node *root = NULL;
    for (uint32_t i = 0; i < n_c && x == NONE; i++) {
        root = value_node(f, c[i].v);
        if (!norm_factor(mt, c[i], &x, &eps))
            x = NONE;
    }
    if (x == NONE)
        return false;
    if (!type_eq(&f->value[x].type, &f->value[n->out].type))
        return no_norm(mt, root, "what is normalised has another type than the product with it");
    if (!factors_of(f, n->out, x, c, &n_c))
        return no_norm(mt, root, "a product of more than 8 factors");
    ValueId gain = NONE;
    bool has_x = false, has_norm = false;
    for (uint32_t i = 0; i < n_c; i++) {
        ValueId same;
        double e;
        if (c[i].v == x && !c[i].under && !has_x)
            has_x = true;
        else if (!has_norm && norm_factor(mt, c[i], &same, &e) && same == x && e == eps)
            has_norm = true;
        else if (gain == NONE && !c[i].under)
            gain = c[i].v;
        else
            return no_norm(mt, root,
                           c[i].under ? "the product is divided by something else"
                                      : "the product has more factors than x, the root and a gain");
    }
    if (!has_x || !has_norm)
        return no_norm(mt, root, "the product lacks the value whose mean square it is");
    ValueId nx = remap_value(&mt->r, x);
    Attr at = attr_f(AT_eps, eps);
    if (gain == NONE) {
        ValueId s = func_node(mt->m, mt->r.f, OP_rms_factor, &nx, 1, &at, 1, n->origin);
        match_found(mt, R_rms_norm, n, build_binary(mt->m, mt->r.f, OP_mul, nx, s, n->origin),
                    "rms_factor: a norm without a gain");
        return true;
    }
    const Type *tx = &f->value[x].type, *tg = &f->value[gain].type;
    if (tg->rank < 1 || tg->dtype != tx->dtype || tg->dim[tg->rank - 1] != tx->dim[tx->rank - 1])
        return no_norm(mt, root, "the gain is no vector of the normalised axis");
    for (int i = 0; i + 1 < tg->rank; i++)
        if (!dim_is(mt->m->dims, tg->dim[i], 1))
            return no_norm(mt, root, "the gain has more than one axis");
    ValueId g = remap_value(&mt->r, gain);
    if (tg->rank != 1)
        g = build_reshape(mt->m, mt->r.f, g, 1, &tg->dim[tg->rank - 1], n->origin);
    ValueId in[2] = {nx, g};
    match_found(mt, R_rms_norm, n, func_node(mt->m, mt->r.f, OP_rms_norm, in, 2, &at, 1, n->origin),
                "rms_norm, in any order and grouping of its factors");
    return true;
}

/* ---- gelu -----------------------------------------------------------------------------------------------
 */

enum { POLY = 4 };

/* v as a polynomial of x of degree below POLY, by its tree of at most `*fuel` nodes. */
static bool poly_of(const Matcher *mt, ValueId v, ValueId x, double *c, int *fuel) {
    const Func *f = mt->f;
    memset(c, 0, POLY * sizeof *c);
    v = match_strip(f, v);
    if (v == x)
        return c[1] = 1, true;
    if (match_const(mt, v, &c[0]))
        return true;
    const Node *n = value_node(f, v);
    if (!n || --*fuel < 0)
        return false;
    double a[POLY], b[POLY], e;
    if (n->op == OP_neg) {
        if (!poly_of(mt, n->in[0], x, a, fuel))
            return false;
        for (int i = 0; i < POLY; i++)
            c[i] = -a[i];
        return true;
    }
    if (n->op == OP_pow) {
        if (match_strip(f, n->in[0]) != x || !match_const(mt, n->in[1], &e) || (e != 2 && e != 3))
            return false;
        return c[(int)e] = 1, true;
    }
    if ((n->op != OP_add && n->op != OP_sub && n->op != OP_mul) || !poly_of(mt, n->in[0], x, a, fuel) ||
        !poly_of(mt, n->in[1], x, b, fuel))
        return false;
    for (int i = 0; i < POLY; i++) {
        if (n->op != OP_mul)
            c[i] = n->op == OP_add ? a[i] + b[i] : a[i] - b[i];
        for (int k = 0; n->op == OP_mul && k < POLY; k++) {
            if (i + k < POLY)
                c[i + k] += a[i] * b[k];
            else if (a[i] * b[k] != 0)
                return false;
        }
    }
    return true;
}

/* The value a polynomial is about: the base of the first power found. */
static ValueId poly_base(const Matcher *mt, ValueId v) {
    ValueId queue[24] = {match_strip(mt->f, v)};
    uint32_t n = 1;
    for (uint32_t i = 0; i < n; i++) {
        const Node *d = value_node(mt->f, queue[i]);
        ValueId x;
        double e;
        if (d && d->op == OP_pow && match_const(mt, d->in[1], &e))
            return match_strip(mt->f, d->in[0]);
        if (square_of(mt, queue[i], &x))
            return x;
        if (!d || (d->op != OP_add && d->op != OP_mul && d->op != OP_sub))
            continue;
        for (uint32_t k = 0; k < 2 && n < 24; k++)
            queue[n++] = match_strip(mt->f, d->in[k]);
    }
    return NONE;
}

/* Equal to the constant of the formula, or to its rounding to f16 in models that were f16. */
static bool is_constant(double v, double c) {
    double half = f16_to_f32(f16_from_f32((float)c));
    return fabs(v - c) <= 2e-6 * fabs(c) || fabs(v - half) <= 1e-6 * fabs(c);
}

/* 1 + tanh(u) */
static bool one_plus_tanh(const Matcher *mt, ValueId v, ValueId *u) {
    const Node *n = value_node(mt->f, match_strip(mt->f, v));
    double one;
    for (int i = 0; n && n->op == OP_add && i < 2; i++) {
        const Node *t = value_node(mt->f, match_strip(mt->f, n->in[i]));
        if (t && t->op == OP_tanh && match_const(mt, n->in[1 - i], &one) && one == 1)
            return *u = t->in[0], true;
    }
    return false;
}

/* The tanh of 1 + tanh(u) that a product has. */
static const Node *tanh_reading(const Func *f, ValueId u) {
    for (NodeId i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_tanh && f->node[i].in[0] == u)
            return &f->node[i];
    BUG("a tanh that was read is gone");
}

static bool no_gelu(Matcher *mt, const Node *core, const char *why) {
    return match_missed(mt, R_no_gelu, core, why, NULL);
}

bool match_gelu(Matcher *mt, const Node *n) {
    const Func *f = mt->f;
    if (n->op != OP_mul || !dtype_is_float(f->value[n->out].type.dtype))
        return false;
    Factor c[MAX_FACTORS];
    uint32_t n_c;
    ValueId u = NONE, x = NONE;
    if (!factors_of(f, n->out, NONE, c, &n_c))
        return false;
    for (uint32_t i = 0; i < n_c && u == NONE; i++)
        if (c[i].under || !one_plus_tanh(mt, c[i].v, &u))
            u = NONE;
    if (u == NONE)
        return false;
    const Node *tanh_of = tanh_reading(f, u);
    if ((x = poly_base(mt, u)) == NONE)
        return no_gelu(mt, tanh_of, "tanh is of no polynomial with a power of x");
    if (!factors_of(f, n->out, x, c, &n_c) || !type_eq(&f->value[x].type, &f->value[n->out].type))
        return no_gelu(mt, tanh_of, "x and the product have different types");
    double p[POLY], scale = 1, k;
    int fuel = 32;
    bool has_x = false, has_t = false;
    if (!poly_of(mt, u, x, p, &fuel) || p[0] != 0 || p[2] != 0 || !is_constant(p[1], 0.7978845608028654) ||
        !is_constant(p[3] / p[1], 0.044715))
        return no_gelu(mt, tanh_of, "the polynomial is not sqrt(2/pi) (x + 0.044715 x^3)");
    for (uint32_t i = 0; i < n_c; i++) {
        ValueId w;
        if (match_const(mt, c[i].v, &k))
            scale = c[i].under ? scale / k : scale * k;
        else if (c[i].v == x && !c[i].under && !has_x)
            has_x = true;
        else if (!c[i].under && !has_t && one_plus_tanh(mt, c[i].v, &w) && w == u)
            has_t = true;
        else
            return no_gelu(mt, tanh_of, "the product has more factors than x, 1/2 and 1 + tanh");
    }
    if (!has_x || !has_t || scale != 0.5)
        return no_gelu(mt, tanh_of, "the product lacks a factor of x, 1/2 and 1 + tanh");
    match_found(mt, R_gelu, n, build_unary(mt->m, mt->r.f, OP_gelu, remap_value(&mt->r, x), n->origin),
                "gelu, tanh form");
    return true;
}

/* ---- linear ---------------------------------------------------------------------------------------------
 */

/* Whether q is computed as the transpose of p: made for another use of p before. */
static bool is_transpose_of(const Module *m, ParamId q, ParamId p) {
    const Func *g = m->param[q].init == NONE ? NULL : module_func(m, m->param[q].init);
    ParamId from;
    return g && g->n_nodes == 1 && g->node[0].op == OP_transpose && value_param(g, g->node[0].in[0], &from) &&
           from == p && m->param[q].rank == 2;
}

/* matmul x, transpose(param): the transpose becomes a parameter of its own. */
bool match_linear(Matcher *mt, const Node *n) {
    Module *m = mt->m;
    ParamId p;
    if (n->op != OP_matmul)
        return false;
    const Node *t = value_node(mt->f, n->in[1]);
    bool swapped = node_int(n, AT_tb, 0) != 0;
    const Attr *perm = t && t->op == OP_transpose ? node_attr(t, AT_perm) : NULL;
    ValueId w = perm ? t->in[0] : n->in[1];
    if ((!perm && !swapped) || (perm && swapped) || !value_param(mt->f, w, &p) || m->param[p].rank != 2 ||
        node_int(n, AT_ta, 0) || (perm && (perm->ints.n != 2 || perm->ints.v[0] != 1)))
        return false;
    Str name =
        str_c(arena_printf(m->arena, "%.*s.t", (int)(m->param[p].name.n > 1000 ? 1000 : m->param[p].name.n),
                           m->param[p].name.p));
    ParamId q;
    if (!module_find_param(m, name, &q) || !is_transpose_of(m, q, p)) {
        Func *g = func_begin(m, name, FR_INIT);
        ValueId from = func_param(m, g, p);
        func_output(m, g, build_transpose(m, g, from, (int64_t[]){1, 0}, n->origin), str_c("value"));
        Param made = m->param[p];
        made.name = name;
        made.data = NULL;
        made.dim[0] = m->param[p].dim[1];
        made.dim[1] = m->param[p].dim[0];
        made.init = func_end(m, g, NONE);
        q = module_param(m, made);
    }
    ValueId out =
        build_matmul(m, mt->r.f, remap_value(&mt->r, n->in[0]), func_param(m, mt->r.f, q), n->origin);
    match_found(mt, R_linear, n, out,
                arena_printf(mt->a, "the transpose of its weight \"%.*s\" is a parameter of its own",
                             (int)m->param[p].name.n, m->param[p].name.p));
    return true;
}
