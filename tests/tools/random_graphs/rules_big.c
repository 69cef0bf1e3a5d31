/* Generator rules of contractions, losses, calls and gradients. */
#include "graphs.h"

static const Want tame = {0, 5, false, true, false};

static int64_t below(Gen *g, int64_t n) {
    return (int64_t)rng_below(&g->rng, (uint32_t)n);
}

static Dim number(Gen *g, int64_t v) {
    return dim_const(g->m->dims, v);
}

bool grow_matmul(Gen *g, Op op, DType t) {
    if (t == DT_F32 && rng_chance(&g->rng, 50)) return grow_products(g);
    ValueId in[2] = {pick(g, t, (Want){2, 5, false, true, false}), NONE};
    if (in[0] == NONE) return false;
    Type a = *gen_type(g, in[0]);
    bool ta = rng_chance(&g->rng, 25), tb = rng_chance(&g->rng, 25);
    Dim k = a.dim[a.rank - (ta ? 2 : 1)], n = rng_chance(&g->rng, 50) ? pick_dim(g) : number(g, 1 + below(g, 40)), dim[MOEC_MAX_RANK];
    int lead = a.rank - 2, rank = 0, drop = rng_chance(&g->rng, 60) ? lead : (int)below(g, lead + 1);
    if (!lead && rng_chance(&g->rng, 15)) dim[rank++] = pick_dim(g);
    for (int i = drop; i < lead; i++) dim[rank++] = rng_chance(&g->rng, 20) ? number(g, 1) : a.dim[i];
    dim[rank++] = tb ? n : k;
    dim[rank++] = tb ? k : n;
    in[1] = pick_like(g, t, rank, dim, tame);
    if (in[1] == NONE) return false;
    Attr attrs[2];
    uint32_t n_attrs = 0;
    if (ta) attrs[n_attrs++] = attr_i(AT_ta, 1);
    if (tb) attrs[n_attrs++] = attr_i(AT_tb, 1);
    return emit(g, op, in, 2, attrs, n_attrs) != NONE;
}

/* ---- attention ---- */

typedef struct Heads {
    ValueId in[10];
    Attr attrs[4];
    uint32_t n_in, n_attrs;
} Heads;

static ValueId rows3(Gen *g, DType t, Dim b, Dim rows, int64_t width) {
    return pick_like(g, t, 3, (Dim[]){b, rows, number(g, width)}, tame);
}

static bool heads_make(Gen *g, DType t, Heads *x) {
    static const int64_t widths[] = {1, 2, 3, 4, 8, 16};
    int64_t heads = 1 + below(g, 3), wide = widths[below(g, 6)], deep = rng_chance(&g->rng, 70) ? wide : widths[below(g, 6)];
    Dim b = pick_filled(g), rows = pick_dim(g), keys = rng_chance(&g->rng, 30) ? rows : pick_filled(g);
    if (dim_lower(g->m->dims, keys) < 1) keys = pick_filled(g);
    *x = (Heads){.n_in = 5};
    for (int i = 0; i < 9; i++) x->in[i] = NONE;
    x->in[0] = rows3(g, t, b, rows, heads * wide);
    x->in[1] = rows3(g, t, b, keys, heads * wide);
    x->in[2] = rows3(g, t, b, keys, heads * deep);
    x->attrs[x->n_attrs++] = attr_i(AT_heads, heads);
    if (rng_chance(&g->rng, 50)) x->attrs[x->n_attrs++] = attr_i(AT_causal, 1);
    if (rng_chance(&g->rng, 40))
        x->attrs[x->n_attrs++] = attr_d(AT_offset, rng_chance(&g->rng, 50) ? dim_sym(g->m->dims, str_c("T")) : number(g, below(g, 4)));
    if (rng_chance(&g->rng, 50)) {
        int64_t columns = 1 + below(g, 12);
        x->in[3] = pick_like(g, t, 2, (Dim[]){number(g, heads), number(g, columns)}, tame);
        x->attrs[x->n_attrs++] = attr_i(AT_center, below(g, columns));
    }
    if (rng_chance(&g->rng, 50)) x->in[4] = pick_like(g, DT_BOOL, 2, (Dim[]){b, keys}, tame);
    if (rng_chance(&g->rng, 40)) {
        x->in[5] = make_input(g, DT_I64, 2, (Dim[]){b, rows}, FILL_SMALL, DIM_BAD);
        x->in[6] = make_input(g, DT_I64, 2, (Dim[]){b, keys}, FILL_SMALL, DIM_BAD);
        x->n_in = 7;
    }
    if (rng_chance(&g->rng, 30)) {
        x->in[7] = make_input(g, DT_I64, 0, NULL, FILL_EXTREME, DIM_BAD);
        x->in[8] = make_input(g, DT_F32, 0, NULL, FILL_SHARE, DIM_BAD);
        x->n_in = 9;
    }
    if (x->n_in == 5 && rng_chance(&g->rng, 50)) x->n_in = x->in[4] != NONE ? 5 : x->in[3] != NONE ? 4 : 3;
    return x->in[0] != NONE && x->in[1] != NONE && x->in[2] != NONE;
}

/* Keys of a few examples packed into a row, of the queries' or a few for each; some are empty. */
static bool grow_spans(Gen *g, Op op, DType t) {
    static const int64_t widths[] = {1, 2, 3, 8, 16};
    int64_t examples = 1 + below(g, 4), heads = 1 + below(g, 3), wide = heads * widths[below(g, 5)], all = 0;
    Tensor spans = {.dtype = DT_I64, .rank = 2, .dim = {examples, 2}};
    ValueId in[10];
    Attr attrs[3] = {attr_i(AT_heads, heads)}, value;
    uint32_t n_attrs = 1;
    if (!tensor_alloc(g->m->arena, &spans)) return false;
    for (int64_t e = 0; e < examples; e++) {
        tensor_set_i64(&spans, 2 * e, all);
        all += e == 0 ? 1 + below(g, 40) : below(g, 40);
        tensor_set_i64(&spans, 2 * e + 1, all);
    }
    for (int i = 0; i < 10; i++) in[i] = NONE;
    bool packed = examples > 1 && rng_chance(&g->rng, 60);
    in[0] = rows3(g, t, number(g, packed ? 1 : examples), packed ? number(g, all) : pick_filled(g), wide);
    in[1] = rows3(g, t, number(g, 1), number(g, all), wide);
    in[2] = rows3(g, t, number(g, 1), number(g, all), wide);
    if (rng_chance(&g->rng, 50)) {
        int64_t columns = 1 + below(g, 30);
        in[3] = pick_like(g, t, 2, (Dim[]){number(g, heads), number(g, columns)}, tame);
        attrs[n_attrs++] = attr_i(AT_center, below(g, columns));
    }
    if (rng_chance(&g->rng, 30)) attrs[n_attrs++] = attr_i(AT_causal, 1);
    value = attr_t(AT_value, spans);
    in[9] = emit(g, OP_const, NULL, 0, &value, 1);
    return in[0] != NONE && in[1] != NONE && in[2] != NONE && in[9] != NONE && emit(g, op, in, 10, attrs, n_attrs) != NONE;
}

bool grow_attention(Gen *g, Op op, DType t) {
    Heads x;
    if (dtype_is_float(t) && !g->differentiable && rng_chance(&g->rng, 30)) return grow_spans(g, op, t);
    return dtype_is_float(t) && heads_make(g, t, &x) && emit(g, op, x.in, x.n_in, x.attrs, x.n_attrs) != NONE;
}

bool grow_attention_grad(Gen *g, Op op, DType t) {
    Heads x;
    ValueId in[10];
    Attr attrs[5];
    if (!dtype_is_float(t) || !heads_make(g, t, &x)) return false;
    Type y = *gen_type(g, x.in[0]);
    y.dim[2] = gen_type(g, x.in[2])->dim[2];
    in[0] = pick_like(g, t, 3, y.dim, tame);
    for (uint32_t i = 0; i < x.n_in; i++) in[i + 1] = x.in[i];
    for (uint32_t i = 0; i < x.n_attrs; i++) attrs[i] = x.attrs[i];
    attrs[x.n_attrs] = attr_i(AT_k, x.in[3] != NONE && rng_chance(&g->rng, 60) ? 4 : 3);
    return in[0] != NONE && emit(g, op, in, x.n_in + 1, attrs, x.n_attrs + 1) != NONE;
}

/* ---- token cross entropy ---- */

typedef struct Loss {
    ValueId in[7];
    Attr tb;
    bool swapped;
} Loss;

static ValueId weight_of_loss(Gen *g, DType t) {
    return make_input(g, t, 0, NULL, FILL_SHARE, DIM_BAD);
}

static bool loss_make(Gen *g, DType t, Loss *x) {
    if (t != DT_F32 && t != DT_F64) return false;
    x->in[0] = pick(g, t, (Want){3, 3, false, true, true});
    if (x->in[0] == NONE) return false;
    Type h = *gen_type(g, x->in[0]);
    Dim vocab = number(g, 1 + below(g, 40));
    x->swapped = rng_chance(&g->rng, 50);
    x->tb = attr_i(AT_tb, 1);
    x->in[1] = pick_like(g, t, 2, x->swapped ? (Dim[]){vocab, h.dim[2]} : (Dim[]){h.dim[2], vocab}, tame);
    x->in[2] = make_input(g, DT_I64, 2, h.dim, FILL_LABEL, vocab);
    x->in[3] = weight_of_loss(g, t);
    x->in[4] = weight_of_loss(g, t);
    return x->in[1] != NONE;
}

bool grow_cross_entropy(Gen *g, Op op, DType t) {
    Loss x;
    return loss_make(g, t, &x) && emit(g, op, x.in, 5, &x.tb, x.swapped) != NONE;
}

static bool loss_gradient(Gen *g, Op op, DType t) {
    Loss x;
    if (g->differentiable || !loss_make(g, t, &x)) return false;
    ValueId loss = emit(g, OP_cross_entropy, x.in, 5, &x.tb, x.swapped);
    if (loss == NONE) return false;
    Type rows = *gen_type(g, loss);
    x.in[5] = loss + 1;
    x.in[6] = pick_like(g, t, 2, rows.dim, tame);
    return x.in[6] != NONE && emit(g, op, x.in, 7, &x.tb, x.swapped) != NONE;
}

bool grow_cross_entropy_dx(Gen *g, Op op, DType t) {
    return loss_gradient(g, op, t);
}

bool grow_cross_entropy_dw(Gen *g, Op op, DType t) {
    return loss_gradient(g, op, t);
}

/* ---- calls ---- */

/* A function of as many inputs as there are operands: the first, worked on. */
static FuncId callee(Gen *g, const ValueId *in, uint32_t n, bool other) {
    const char *name = arena_printf(g->m->arena, "g%llu.f%u", (unsigned long long)g->graph->seed, g->n_funcs++);
    Func *f = func_begin(g->m, str_c(name), FR_BODY);
    ValueId v = NONE;
    for (uint32_t i = 0; i < n; i++) {
        ValueId x = func_input(g->m, f, str_c(arena_printf(g->m->arena, "a%u", i)), *gen_type(g, in[i]));
        v = i ? v : x;
    }
    DType t = f->value[v].type.dtype;
    if (t != DT_BOOL && other) v = build_unary(g->m, f, rng_chance(&g->rng, 50) ? OP_neg : OP_abs, v, str_c(""));
    if (t != DT_BOOL && rng_chance(&g->rng, 50)) v = build_binary(g->m, f, OP_mul, v, build_scalar(g->m, f, t, 2), str_c(""));
    func_output(g->m, f, v, str_c("r"));
    return func_end(g->m, f, NONE);
}

bool grow_call(Gen *g, Op op, DType t) {
    ValueId in[3];
    uint32_t n = 1 + rng_below(&g->rng, 3);
    for (uint32_t i = 0; i < n; i++)
        if ((in[i] = pick(g, i ? DT_F32 : t, tame)) == NONE) return false;
    Attr func = {.key = AT_func};
    func.i = callee(g, in, n, true);
    return emit(g, op, in, n, &func, 1) != NONE;
}

bool grow_if(Gen *g, Op op, DType t) {
    ValueId in[2];
    in[0] = pick(g, DT_BOOL, (Want){0, 0, false, false, false});
    in[1] = pick(g, t, tame);
    if (in[0] == NONE || in[1] == NONE) return false;
    Attr funcs[2] = {{.key = AT_then_func}, {.key = AT_else_func}};
    funcs[0].i = callee(g, in + 1, 1, true);
    funcs[1].i = callee(g, in + 1, 1, false);
    return emit(g, op, in, 2, funcs, 2) != NONE;
}

/* ---- gradients ---- */

/* Marks what v depends on. */
static bool *sources_of(Gen *g, ValueId v) {
    bool *on = arena_array(g->a, g->f->n_values + 1, sizeof *on);
    on[v] = true;
    for (uint32_t i = g->f->n_nodes; i-- > 0;) {
        const Node *n = &g->f->node[i];
        bool used = false;
        for (uint32_t k = 0; k < n->n_out; k++) used |= on[n->out + k];
        for (uint32_t k = 0; used && k < n->n_in; k++)
            if (n->in[k] != NONE) on[n->in[k]] = true;
    }
    return on;
}

/* The mean square of the last float value, with respect to some of the inputs and weights it depends on. */
bool grow_gradient(Gen *g, Op op, DType t) {
    ValueId v = NONE;
    for (ValueId i = g->f->n_values; i-- > 0 && v == NONE;) {
        const Value *x = &g->f->value[i];
        if (x->kind == VK_NODE && (x->type.dtype == DT_F32 || x->type.dtype == DT_F64) && leads_back(g, i) && rng_chance(&g->rng, 70)) v = i;
    }
    (void)t;
    if (v == NONE) v = pick(g, DT_F32, (Want){1, 3, false, true, true});
    if (v == NONE) return false;
    bool *on = sources_of(g, v);
    uint32_t before = g->f->n_values;
    Type x = *gen_type(g, v);
    int64_t axes[MOEC_MAX_RANK];
    for (int i = 0; i < x.rank; i++) axes[i] = i;
    Attr attrs[2] = {attr_ints(AT_axes, axes, (uint32_t)x.rank), attr_i(AT_keep, 0)};
    ValueId square[2] = {v, v}, sum = emit(g, OP_mul, square, 2, NULL, 0);
    ValueId loss = sum == NONE ? NONE : emit(g, OP_reduce_mean, &sum, 1, attrs, 2);
    uint32_t made = 0;
    g->differentiable = false; /* nothing goes through a gradient again */
    for (ValueId i = 0; loss != NONE && i < before && made < 3; i++) {
        const Value *s = &g->f->value[i];
        bool fixed = s->kind == VK_PARAM && g->m->param[s->def].kind != PK_ADAPTER; /* may be folded away: its gradient is none */
        const InputSource *from = s->kind == VK_INPUT ? source_of(g->graph, s->name) : NULL;
        if (from && from->fill == FILL_SHARE) continue; /* weights of losses are given */
        if (!on[i] || s->kind == VK_NODE || fixed || !dtype_is_float(s->type.dtype) || s->type.dtype == DT_F16 || !rng_chance(&g->rng, 70)) continue;
        ValueId in[2] = {loss, i};
        made += emit(g, op, in, 2, NULL, 0) != NONE;
    }
    g->differentiable = !made;
    return made > 0;
}
