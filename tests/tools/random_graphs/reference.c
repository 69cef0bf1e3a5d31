/* What the interpreter gives for a graph, and how far from it another correct implementation may come.
 *
 * No tolerance is guessed: the function is evaluated a few times more with every operand of a rounded result multiplied by
 * 1 + e, |e| up to some units in the last place, each use on its own. How far the outputs move tells how far the rounding of
 * other orders of summation, contracted products and recomputed values may move them. Outputs that are exact by exact.c do
 * not move and have to be equal. */
#include "graphs.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MARGIN = 8 };

/* Relative size of the noise: much above the spacing of numbers, so that hardly ever all samples leave a value as it is. */
static double noise_of(DType t) {
    return t == DT_F16 ? 0x1p-7 : t == DT_F32 ? 0x1p-19 : 0x1p-40;
}

/* ---- the noisy function ---- */

typedef struct Noisy {
    Remap r;
    Module *m;
    uint32_t n;
} Noisy;

static ValueId noise_input(Noisy *x, const Type *t, const char *kind) {
    return func_input(x->m, x->r.f, str_c(arena_printf(x->m->arena, "%s%u", kind, x->n++)), *t);
}

static ValueId noisy(Noisy *x, ValueId v) {
    Type t = x->r.f->value[v].type;
    v = build_binary(x->m, x->r.f, OP_mul, v, noise_input(x, &t, "near"), str_c(""));
    /* the spacing of small f16 numbers is no fraction of them */
    return t.dtype == DT_F16 ? build_binary(x->m, x->r.f, OP_add, v, noise_input(x, &t, "tiny"), str_c("")) : v;
}

/* Ops inside which nearly equal numbers are subtracted: their own rounding is no fraction of the result, but of the sizes of
 * their operands. */
static bool cancels(Op op) {
    static const Op ops[] = {OP_gelu, OP_gelu_grad, OP_log_softmax, OP_attention_grad, OP_cross_entropy, OP_cross_entropy_dx, OP_cross_entropy_dw};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i] == op) return true;
    return false;
}

static bool is_float(const Func *f, ValueId v) {
    return v != NONE && dtype_is_float(f->value[v].type.dtype);
}

static bool is_rounded(const Func *f, const Node *n, const Exact *of) {
    for (uint32_t k = 0; k < n->n_out; k++)
        if (is_float(f, n->out + k) && !of[n->out + k].exact) return true;
    return false;
}

/* How many products the numbers are sums of that attention_grad subtracts: the columns of a head of dy. */
static double inner_products(const Module *m, const Func *f, const Node *n) {
    int64_t columns;
    bool known = n->op == OP_attention_grad && dim_is_const(m->dims, f->value[n->in[0]].type.dim[2], &columns);
    return known ? (double)(columns / node_int(n, AT_heads, 1)) : 1;
}

/* The product of the largest magnitudes of n's float operands, none below 1. */
static ValueId size_of_operands(Noisy *x, const Func *f, const Node *n, DType t) {
    ValueId size = build_scalar(x->m, x->r.f, t, inner_products(x->m, f, n));
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!is_float(f, n->in[i]) || f->value[n->in[i]].type.dtype != t || !f->value[n->in[i]].type.rank) continue;
        int64_t axes[MOEC_MAX_RANK];
        uint32_t rank = (uint32_t)f->value[n->in[i]].type.rank;
        for (uint32_t k = 0; k < rank; k++) axes[k] = k;
        Attr attrs[2] = {attr_ints(AT_axes, axes, rank), attr_i(AT_keep, 0)};
        ValueId most = build_unary(x->m, x->r.f, OP_abs, x->r.map[n->in[i]], str_c(""));
        most = func_node(x->m, x->r.f, OP_reduce_max, &most, 1, attrs, 2, str_c(""));
        most = build_binary(x->m, x->r.f, OP_max, most, build_scalar(x->m, x->r.f, t, 1), str_c(""));
        size = build_binary(x->m, x->r.f, OP_mul, size, most, str_c(""));
    }
    return size;
}

static void add_inner(Noisy *x, const Func *f, const Node *n) {
    ValueId size = size_of_operands(x, f, n, f->value[n->out].type.dtype);
    for (uint32_t k = 0; k < n->n_out; k++) {
        ValueId *v = &x->r.map[n->out + k];
        Type t = x->r.f->value[*v].type;
        ValueId e = build_binary(x->m, x->r.f, OP_mul, noise_input(x, &t, "inner"), size, str_c(""));
        *v = build_binary(x->m, x->r.f, OP_add, *v, e, str_c(""));
    }
}

static FuncId noisy_func(Module *m, const Func *f, const Exact *of) {
    Arena *a = arena_new();
    Noisy x = {.m = m, .r = remap_begin(m, a, f)};
    x.r.f->name = str_c(arena_printf(m->arena, "%.*s.noisy", (int)f->name.n, f->name.p));
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        ValueId *kept = arena_array(a, n->n_in + 1u, sizeof *kept);
        bool rounded = is_rounded(f, n, of);
        for (uint32_t k = 0; k < n->n_in; k++) kept[k] = remap_value(&x.r, n->in[k]);
        for (uint32_t k = 0; rounded && k < n->n_in; k++)
            if (is_float(f, n->in[k]) && x.r.map[n->in[k]] == kept[k]) x.r.map[n->in[k]] = noisy(&x, kept[k]);
        remap_node(&x.r, n);
        if (cancels(n->op)) add_inner(&x, f, n);
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != NONE) x.r.map[n->in[k]] = kept[k];
    }
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        ValueId v = remap_value(&x.r, f->output[i]);
        if (is_float(f, f->output[i]) && !of[f->output[i]].exact) v = noisy(&x, v);
        func_output(m, x.r.f, v, f->output_name[i]);
    }
    FuncId id = func_end(m, x.r.f, NONE);
    arena_free(a);
    return id;
}

static FuncId watched_func(Module *m, const Func *f, const Exact *of) {
    Arena *a = arena_new();
    Remap r = remap_begin(m, a, f);
    r.f->name = str_c(arena_printf(m->arena, "%.*s.watched", (int)f->name.n, f->name.p));
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        remap_node(&r, n);
        for (uint32_t k = 0; k < n->n_out; k++)
            if (is_float(f, n->out + k) && !of[n->out + k].exact) func_output(m, r.f, r.map[n->out + k], str_c(arena_printf(m->arena, "v%u", r.f->n_outputs)));
    }
    FuncId id = func_end(m, r.f, NONE);
    arena_free(a);
    return id;
}

bool reference_make(const Graph *g, Reference *r, Arena *a, Diag *d) {
    Module *m = g->m;
    PassOptions o = {.plain = true};
    PassId grad = PASS_grad;
    PassRun run = {.options = &o, .list = &grad, .n_list = 1, .bound = true};
    if (g->gradient && !passes_run(m, &run, d)) return false;
    const Func *f = module_func(m, g->id);
    Exact *of = exact_func(g, m, f, a);
    *r = (Reference){.m = m, .f = f, .exact = arena_array(a, f->n_outputs + 1u, sizeof(bool)), .half = g->half};
    for (uint32_t i = 0; i < f->n_outputs; i++) r->exact[i] = of[f->output[i]].exact;
    r->noisy = noisy_func(m, f, of);
    r->watched = watched_func(m, f, of);
    r->f = module_func(m, g->id);
    return true;
}

/* ---- evaluation ---- */

static bool noise_fill(const Module *m, const Func *f, const int64_t *syms, uint64_t key, Tensor *in, Arena *a) {
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (in[i].data) continue;
        in[i] = (Tensor){.dtype = v->type.dtype, .rank = v->type.rank};
        for (int k = 0; k < v->type.rank; k++)
            if (!dim_eval(m->dims, v->type.dim[k], syms, &in[i].dim[k])) return false;
        int64_t n = 0;
        if (!tensor_alloc(a, &in[i]) || !tensor_count(&in[i], &n)) return false;
        Rng r = {hash_bytes(key, v->name.p, v->name.n)};
        char kind = v->name.p[0];
        for (int64_t k = 0; k < n; k++) {
            double e = (double)(int64_t)(rng_next(&r) >> 11) * 0x1p-52 - 1.0;
            double scale = kind == 't' ? 0x1p-24 : noise_of(v->type.dtype) / (kind == 'i' ? 8 : 1);
            tensor_set_f64(&in[i], k, (kind == 'n') + e * scale);
        }
    }
    return true;
}

static bool is_far(const Tensor *t) {
    int64_t n = 0;
    tensor_count(t, &n);
    for (int64_t k = 0; k < n; k++) {
        double v = fabs(tensor_get_f64(t, k));
        if (isfinite(v) && v > (t->dtype == DT_F64 ? 1e140 : 1e16)) return true;
    }
    return false;
}

bool reference_eval(const Graph *g, const Reference *r, int binding, Expected *e, Arena *a, Diag *d) {
    const Module *m = r->m;
    const Func *f = r->f, *noise = module_func(m, r->noisy);
    *e = (Expected){.syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *e->syms),
                    .in = arena_array(a, f->n_inputs + 1u, sizeof *e->in),
                    .out = arena_array(a, f->n_outputs + 1u, sizeof *e->out)};
    symbols_bind(g, m, binding, e->syms);
    if (!inputs_fill(g, m, f, binding, e->syms, e->in, a) || !func_eval(m, f->id, e->syms, e->in, e->out, a, d)) return false;
    const Func *watched = module_func(m, r->watched);
    Tensor *value = arena_array(a, watched->n_outputs + 1u, sizeof *value);
    if (!func_eval(m, r->watched, e->syms, e->in, value, a, d)) return false;
    for (uint32_t i = 0; i < watched->n_outputs; i++) e->far = e->far || is_far(&value[i]);
    for (int s = 0; s < SAMPLES; s++) {
        Tensor *in = arena_array(a, noise->n_inputs + 1u, sizeof *in);
        e->sample[s] = arena_array(a, noise->n_outputs + 1u, sizeof *e->sample[s]);
        if (!inputs_fill(g, m, noise, binding, e->syms, in, a) || !noise_fill(m, noise, e->syms, g->seed * 8 + (uint64_t)s, in, a) ||
            !func_eval(m, r->noisy, e->syms, in, e->sample[s], a, d))
            return false;
    }
    return true;
}

/* ---- comparison ---- */

/* How far a result may be from v; negative: it may be anything. */
static double tolerance(const Reference *r, const Expected *e, uint32_t i, int64_t k, double v) {
    DType t = e->out[i].dtype;
    double most = 0;
    if (r->exact[i]) return 0;
    if (e->far) return -1;
    for (int s = 0; s < SAMPLES; s++) {
        double w = tensor_get_f64(&e->sample[s][i], k);
        if (isnan(v) != isnan(w) || isinf(v) != isinf(w)) return -1;
        if (isfinite(v) && fabs(w - v) > most) most = fabs(w - v);
    }
    if (r->half && !isfinite(v)) return -1; /* f32 does not overflow where f16 does */
    return isfinite(v) ? MARGIN * most + (t == DT_F64 ? 1e-290 : 1e-33) : 0;
}

bool reference_compare(const Reference *r, const Expected *e, uint32_t i, const Tensor *got, char *why, size_t room) {
    const Tensor *want = &e->out[i];
    int64_t n = 0;
    bool same = got->dtype == want->dtype && got->rank == want->rank;
    for (int k = 0; same && k < want->rank; k++) same = got->dim[k] == want->dim[k];
    if (!same) {
        snprintf(why, room, "output %u is %s of %d axes, or has other extents", i, dtype_name(got->dtype), got->rank);
        return false;
    }
    tensor_count(want, &n);
    for (int64_t k = 0; k < n; k++) {
        if (!dtype_is_float(want->dtype)) {
            int64_t x = tensor_get_i64(got, k), y = tensor_get_i64(want, k);
            if (x == y) continue;
            snprintf(why, room, "element %" PRId64 " of %" PRId64 " of output %u (%s) is %" PRId64 ", the interpreter's %" PRId64, k, n, i,
                     dtype_name(want->dtype), x, y);
            return false;
        }
        double x = tensor_get_f64(got, k), y = tensor_get_f64(want, k), most = tolerance(r, e, i, k, y);
        if (most < 0 || x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= most) continue;
        snprintf(why, room, "element %" PRId64 " of %" PRId64 " of output %u (%s) is %.9g, the interpreter's %.9g, %.3g would do", k, n, i,
                 dtype_name(want->dtype), x, y, most);
        return false;
    }
    return true;
}
