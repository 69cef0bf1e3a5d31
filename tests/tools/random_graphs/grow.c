/* A graph grows node by node: every rule asks for operands, which are values that are there or new inputs, parameters and
 * literals, and appends a node. What the op table says of an op decides which rule makes it. */
#include "graphs.h"

#include <stdio.h>
#include <string.h>

/* ---- what the table says ---- */

static const char *const infer_rule[] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) #infer,
#include "compiler/ops.def"
};

static const struct {
    const char *name;
    GrowRule *grow;
} rules[] = {
#define RULE(name) {#name, grow_##name},
#include "rules.def"
};

/* Attributes that rules give; `kind` of dyn_reduce and others of dynamic ops are not among them. */
static const AttrKey given_attrs[] = {AT_axis,   AT_axes,   AT_keep,   AT_perm,  AT_start,  AT_step,    AT_value,     AT_dim,
                                      AT_eps,    AT_batch,  AT_ta,     AT_tb,    AT_heads,  AT_causal,  AT_offset,    AT_center,
                                      AT_to,     AT_func,   AT_kind,   AT_exclusive, AT_reverse, AT_last, AT_k,       AT_then_func,
                                      AT_else_func, AT_width,  AT_format};

static GrowRule *rule_of(Op op) {
    const char *name = strcmp(infer_rule[op], "given") == 0 ? op_info(op)->name : infer_rule[op];
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].name, name) == 0) return rules[i].grow;
    return NULL;
}

/* What is rounded to few bits says nothing of last bits, and scales are made when a model is compiled, not by kernels. */
bool op_generated(Op op) {
    return op_info(op)->klass != OC_DYNAMIC && op != OP_quantize && op != OP_pack_scales;
}

static uint32_t types[OP_COUNT];

uint32_t op_types(Op op) {
    return types[op];
}

static bool attrs_given(Op op) {
    const OpInfo *o = op_info(op);
    for (uint32_t i = 0; i < o->n_attrs; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof given_attrs / sizeof *given_attrs; k++) found |= given_attrs[k] == o->attrs[i];
        if (!found) {
            fprintf(stderr, "random_graphs: op '%s': no generator gives attribute '%s'\n", o->name, attr_name(o->attrs[i]));
            return false;
        }
    }
    return true;
}

/* ---- functions ---- */

const Type *gen_type(const Gen *g, ValueId v) {
    return &g->f->value[v].type;
}

static void know(Gen *g, ValueId v, Exact e) {
    if (v >= g->exact_room) {
        size_t room = 2 * (size_t)v + 64;
        Exact *more = arena_array(g->a, room, sizeof *more);
        if (g->exact_room) memcpy(more, g->exact, g->exact_room * sizeof *more);
        g->exact = more;
        g->exact_room = room;
    }
    g->exact[v] = e;
    g->graph->half |= gen_type(g, v)->dtype == DT_F16;
}

static const char *name_of(Gen *g, const char *kind, uint32_t number) {
    return arena_printf(g->m->arena, "g%llu.%s%u", (unsigned long long)g->graph->seed, kind, number);
}

Dim pick_dim(Gen *g) {
    static const int64_t sizes[] = {1, 1, 2, 3, 4, 5, 7, 8, 8, 16, 17, 33, 64, 65, 0};
    DimTable *t = g->m->dims;
    Dim B = dim_sym(t, str_c("B")), S = dim_sym(t, str_c("S")), T = dim_sym(t, str_c("T")), K = dim_sym(t, str_c("K"));
    switch (rng_below(&g->rng, 20)) {
    case 0:
    case 1: return B;
    case 2:
    case 3: return S;
    case 4: return T;
    case 5: return K;
    case 6: return dim_add(t, S, dim_const(t, 1));
    case 7: return dim_add(t, T, K);
    case 8: return dim_mul(t, B, K);
    case 9: return rng_chance(&g->rng, 50) ? dim_floordiv(t, dim_add(t, S, dim_const(t, 1)), dim_const(t, 2)) : dim_add(t, T, dim_const(t, 2));
    default: return dim_const(t, sizes[rng_below(&g->rng, sizeof sizes / sizeof *sizes)]);
    }
}

Dim pick_filled(Gen *g) {
    for (int i = 0; i < 20; i++) {
        Dim d = rng_chance(&g->rng, 70) ? g->palette[rng_below(&g->rng, 4)] : pick_dim(g);
        if (dim_lower(g->m->dims, d) > 0) return d;
    }
    return dim_const(g->m->dims, 3);
}

static int pick_extents(Gen *g, Want want, Dim *dim) {
    for (int tries = 0;; tries++) {
        int most = want.rank_max < 5 ? want.rank_max : 5, rank = want.rank_min;
        while (rank < most && rng_chance(&g->rng, rank < 3 ? 75 : 25)) rank++;
        for (int i = 0; i < rank; i++) {
            bool own = rng_chance(&g->rng, 80);
            dim[i] = rng_chance(&g->rng, 6) ? dim_const(g->m->dims, 1) : want.nonempty ? pick_filled(g) : own ? g->palette[rng_below(&g->rng, 4)] : pick_dim(g);
            if (tries > 10) dim[i] = dim_const(g->m->dims, 2);
        }
        Type t = type_ranked(DT_F32, rank, dim);
        Dim n = type_count(g->m->dims, &t);
        if (n != DIM_BAD && dim_upper(g->m->dims, n) <= ELEMENTS_MAX / 4) return rank;
    }
}

ValueId make_input(Gen *g, DType t, int rank, const Dim *dim, Fill fill, Dim range) {
    InputSource s = {.name = str_c(arena_printf(g->m->arena, "x%u", g->f->n_inputs)), .fill = fill, .range = range};
    ValueId v = func_input(g->m, g->f, s.name, type_ranked(t, rank, dim));
    vec_push(&g->graph->source, s);
    know(g, v, exact_source(t, fill));
    return v;
}

/* What `moec run` puts in the place of weights that text does not carry. */
static void seed_weights(Str name, Tensor *t, int64_t n) {
    uint64_t state = hash_bytes(0, name.p, name.n);
    for (int64_t k = 0; k < n; k++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        tensor_set_f64(t, k, ((double)(state >> 40) * 0x1p-24 - 0.5) * 0.25);
    }
}

static bool constant_extents(Gen *g, int rank, const Dim *dim, Tensor *t, int64_t *n) {
    t->rank = rank;
    for (int i = 0; i < rank; i++)
        if (!dim_is_const(g->m->dims, dim[i], &t->dim[i])) return false;
    return tensor_count(t, n);
}

static ValueId make_param(Gen *g, Tensor t, int64_t n, Fill fill) {
    static const ParamKind kinds[] = {PK_FROZEN, PK_FROZEN, PK_FROZEN, PK_CONST, PK_ADAPTER};
    Param p = {.name = str_c(name_of(g, "w", g->n_params++)), .dtype = t.dtype, .rank = t.rank, .init = NONE};
    p.kind = kinds[rng_below(&g->rng, 5)];
    if (p.kind == PK_ADAPTER && (t.rank > 4 || t.dtype != DT_F32)) p.kind = PK_FROZEN;
    memcpy(p.dim, t.dim, sizeof p.dim);
    if (!tensor_alloc(g->m->arena, &t)) return NONE;
    if (n > 16 && dtype_is_float(t.dtype)) seed_weights(p.name, &t, n);
    else fill_tensor(&t, fill, 0, rng_next(&g->rng));
    p.data = t.data;
    ValueId v = func_param(g->m, g->f, module_param(g->m, p));
    know(g, v, exact_param(&p));
    return v;
}

ValueId make_weight(Gen *g, int rank, const int64_t *dim) {
    Tensor t = {.dtype = DT_F32, .rank = rank};
    int64_t n = 0;
    memcpy(t.dim, dim, (size_t)rank * sizeof *dim);
    return tensor_count(&t, &n) && n <= 16384 ? make_param(g, t, n, FILL_FLOAT) : NONE;
}

static Fill fill_for(Gen *g, DType t, Want want) {
    uint32_t way = rng_below(&g->rng, 100);
    if (!dtype_is_float(t)) return way < 70 || t == DT_BOOL ? FILL_SMALL : FILL_EXTREME;
    bool tame = want.tame || g->differentiable || t == DT_F16;
    if (want.exact && t == DT_F16) return FILL_GRID;
    if (way < 12 && !tame) return FILL_WILD;
    return way < (want.exact ? 70 : 45) ? FILL_GRID : FILL_FLOAT;
}

ValueId make_source(Gen *g, DType t, int rank, const Dim *dim, Want want) {
    Tensor c = {.dtype = t};
    int64_t n = 0;
    uint32_t way = rng_below(&g->rng, 100);
    Fill fill = fill_for(g, t, want);
    bool constant = constant_extents(g, rank, dim, &c, &n);
    if (constant && way < 25 && n <= 8192) return make_param(g, c, n, fill);
    if (constant && way < 35 && n <= 64 && tensor_alloc(g->m->arena, &c)) {
        fill_tensor(&c, fill, 0, rng_next(&g->rng));
        Attr value = attr_t(AT_value, c);
        return emit(g, OP_const, NULL, 0, &value, 1);
    }
    return make_input(g, t, rank, dim, fill, DIM_BAD);
}

/* ---- values that are there ---- */

bool leads_back(const Gen *g, ValueId v) {
    const Node *n = value_node(g->f, v);
    return !n || n->op != OP_cross_entropy || v == n->out;
}

static bool serves(Gen *g, ValueId v, DType t, Want want) {
    const Type *x = gen_type(g, v);
    if (x->dtype != t || x->rank < want.rank_min || x->rank > want.rank_max || (g->differentiable && !leads_back(g, v))) return false;
    if ((want.exact && !g->exact[v].exact) || (want.tame && g->exact[v].wild)) return false;
    for (int i = 0; want.nonempty && i < x->rank; i++)
        if (dim_lower(g->m->dims, x->dim[i]) < 1) return false;
    return true;
}

/* Whether an old value may be taken; old ones are tried from the end, each with some chance. */
static ValueId find(Gen *g, DType t, Want want, const Type *like) {
    for (int pass = 0; pass < 2; pass++)
        for (ValueId v = g->f->n_values; v-- > 0;) {
            if (!serves(g, v, t, want) || (like && !type_eq(like, gen_type(g, v)))) continue;
            if (pass == 1 || rng_chance(&g->rng, 60)) return v;
        }
    return NONE;
}

ValueId pick(Gen *g, DType t, Want want) {
    ValueId v = rng_chance(&g->rng, 85) ? find(g, t, want, NULL) : NONE;
    if (v != NONE) return v;
    Dim dim[MOEC_MAX_RANK];
    int rank = pick_extents(g, want, dim);
    return make_source(g, t, rank, dim, want);
}

ValueId pick_like(Gen *g, DType t, int rank, const Dim *dim, Want want) {
    Type like = type_ranked(t, rank, dim);
    want.rank_min = want.rank_max = rank;
    ValueId v = rng_chance(&g->rng, 60) ? find(g, t, want, &like) : NONE;
    return v != NONE ? v : make_source(g, t, rank, dim, want);
}

/* ---- nodes ---- */

static bool fits(Gen *g, const Type *t) {
    Dim n = type_count(g->m->dims, t);
    if (n == DIM_BAD || t->rank > 6 || dim_upper(g->m->dims, n) > ELEMENTS_MAX) return false;
    for (int i = 0; i < t->rank; i++)
        if (dim_lower(g->m->dims, t->dim[i]) < 0) return false;
    return true;
}

/* A gradient has to get through, and must not depend on rounding. */
static bool permitted(Gen *g, Op op, const ValueId *in, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (in[i] == NONE) continue;
        const Type *t = gen_type(g, in[i]);
        if (g->differentiable && dtype_is_float(t->dtype) && op_info(op)->grad != GRAD_vjp) return false;
    }
    return true;
}

static ValueId added(Gen *g, ValueId v) {
    const Node *n = v == NONE ? NULL : value_node(g->f, v);
    for (uint32_t k = 0; n && k < n->n_out; k++) {
        know(g, v + k, (Exact){0});
        g->exact[v + k] = exact_node(g->m, g->f, n, k, g->exact);
    }
    return v;
}

ValueId emit(Gen *g, Op op, const ValueId *in, uint32_t n, const Attr *attrs, uint32_t n_attrs) {
    Type out[16];
    uint32_t n_out = 16;
    const char *why;
    for (uint32_t i = 0; i < n; i++)
        if (in[i] == NONE && (int)i < op_info(op)->in_min) return NONE;
    if (!permitted(g, op, in, n) || !node_infer(g->m, g->f, op, in, n, attrs, n_attrs, out, &n_out, &why)) return NONE;
    for (uint32_t i = 0; i < n_out; i++)
        if (out[i].rank == UNRANKED || !fits(g, &out[i])) return NONE;
    for (uint32_t i = 0; i < n; i++)
        if (in[i] != NONE && op_jumps(op, gen_type(g, in[i])->dtype, out[0].dtype) && !g->exact[in[i]].exact) return NONE;
    return added(g, func_node(g->m, g->f, op, in, n, attrs, n_attrs, str_c("")));
}

ValueId emit_typed(Gen *g, Op op, const ValueId *in, uint32_t n, const Attr *attrs, uint32_t n_attrs, Type t) {
    if (!permitted(g, op, in, n) || !fits(g, &t)) return NONE;
    return added(g, func_node_typed(g->m, g->f, op, in, n, attrs, n_attrs, &t, 1, str_c("")));
}

bool grow(Gen *g, Op op, DType t) {
    GrowRule *r = rule_of(op);
    CHECK(r);
    return r(g, op, t);
}

DType pick_type(Gen *g, Op op) {
    static const DType often[] = {DT_F32, DT_F32, DT_F32, DT_F32, DT_F64, DT_I64};
    for (int i = 0; i < 40; i++) {
        DType t = rng_chance(&g->rng, 70) ? often[rng_below(&g->rng, 6)] : (DType)rng_below(&g->rng, DT_COUNT);
        if (g->differentiable && t != DT_F32 && t != DT_F64 && dtype_is_float(t)) continue;
        if (op_types(op) >> t & 1) return t;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (op_types(op) >> t & 1) return (DType)t;
    return DT_F32;
}

/* ---- graphs ---- */

static void gen_open(Gen *g, Graph *graph, Module *m, uint64_t seed) {
    *graph = (Graph){.m = m, .seed = seed};
    *g = (Gen){.m = m, .graph = graph, .rng = {seed}, .a = arena_new()};
    rng_next(&g->rng);
    g->f = func_begin(m, str_c(arena_printf(m->arena, "g%llu", (unsigned long long)seed)), FR_ENTRY);
    for (int i = 0; i < 4; i++) g->palette[i] = pick_dim(g);
}

/* The chains that fuse makes kernels of: products of a norm, side by side, their results worked on row by row and added to
 * what the norm read. */
static void grow_block(Gen *g) {
    DType t = g->differentiable && rng_chance(&g->rng, 30) ? DT_F64 : DT_F32;
    DimTable *dims = g->m->dims;
    static const Op bend[] = {OP_gelu, OP_relu, OP_tanh, OP_sigmoid, OP_exp, OP_neg};
    ValueId x = pick(g, t, (Want){2, 4, false, true, true});
    if (x == NONE) return;
    const Type *tx = gen_type(g, x);
    Dim width = tx->dim[tx->rank - 1], wide = dim_const(dims, 1 + rng_below(&g->rng, 24));
    Want any = {0, 6, false, true, false};
    ValueId in[3] = {x, pick_like(g, t, 1, &width, any), NONE};
    Attr eps = attr_f(AT_eps, 1e-6);
    ValueId h = rng_chance(&g->rng, 70) ? emit(g, OP_rms_norm, in, 2, &eps, 1) : x, y = NONE;
    for (uint32_t i = 0; i < 1 + rng_below(&g->rng, 3) && h != NONE; i++) {
        in[0] = h;
        in[1] = pick_like(g, t, 2, (Dim[]){width, wide}, any);
        ValueId p = emit(g, OP_matmul, in, 2, NULL, 0);
        if (p == NONE) return;
        if (rng_chance(&g->rng, 60)) p = emit(g, bend[rng_below(&g->rng, 6)], &p, 1, NULL, 0);
        in[0] = y, in[1] = p;
        y = y == NONE || p == NONE ? p : emit(g, OP_mul, in, 2, NULL, 0);
    }
    if (y == NONE) return;
    if (rng_chance(&g->rng, 40)) {
        Attr axis = attr_i(AT_axis, gen_type(g, y)->rank - 1);
        ValueId p = emit(g, OP_softmax, &y, 1, &axis, 1);
        in[0] = y, in[1] = p;
        y = rng_chance(&g->rng, 50) ? emit(g, OP_mul, in, 2, NULL, 0) : p;
    }
    in[0] = y;
    in[1] = pick_like(g, t, 2, (Dim[]){wide, width}, any);
    y = emit(g, OP_matmul, in, 2, NULL, 0);
    in[0] = x, in[1] = y;
    if (y != NONE && rng_chance(&g->rng, 70)) emit(g, OP_add, in, 2, NULL, 0);
}

static void grow_any(Gen *g) {
    for (int tries = 0; tries < 4; tries++) {
        if (rng_chance(&g->rng, 6)) {
            grow_block(g);
            return;
        }
        if (rng_chance(&g->rng, 6) && grow_products(g)) return;
        Op op = (Op)rng_below(&g->rng, OP_COUNT);
        bool rare = op_info(op)->klass == OC_CALL && !rng_chance(&g->rng, 20);
        if (op_generated(op) && op != OP_gradient && !rare && grow(g, op, pick_type(g, op))) return;
    }
}

static void set_outputs(Gen *g) {
    uint32_t *uses = func_uses(g->a, g->f), n = 0;
    for (ValueId v = g->f->n_values; v-- > 0 && n < 5;) {
        bool made = g->f->value[v].kind == VK_NODE, extra = rng_chance(&g->rng, made ? 15 : 1);
        if ((made && !uses[v]) || extra) func_output(g->m, g->f, v, str_c(arena_printf(g->m->arena, "y%u", n))), n++;
        if (n && n < 5 && rng_chance(&g->rng, 1)) func_output(g->m, g->f, v, str_c(arena_printf(g->m->arena, "y%u", n))), n++;
    }
    if (!n) func_output(g->m, g->f, g->f->n_values - 1, str_c("y0"));
}

void graph_make(Graph *graph, Module *m, uint64_t seed, Op focus) {
    Gen g;
    gen_open(&g, graph, m, seed);
    g.differentiable = focus == OP_gradient || (focus < OP_COUNT && op_info(focus)->grad == GRAD_vjp && rng_chance(&g.rng, 20));
    uint32_t before = rng_below(&g.rng, 5), after = rng_below(&g.rng, 7);
    for (uint32_t i = 0; i < before; i++) grow_any(&g);
    bool done = focus == OP_COUNT || focus == OP_gradient;
    for (int i = 0; i < 30 && !done; i++) done = grow(&g, focus, pick_type(&g, focus));
    for (uint32_t i = 0; i < after || !g.f->n_nodes; i++) grow_any(&g);
    if (g.differentiable)
        for (int i = 0; i < 10 && !graph->gradient; i++) graph->gradient = grow_gradient(&g, OP_gradient, DT_F32);
    set_outputs(&g);
    graph->id = func_end(m, g.f, NONE);
    arena_free(g.a);
}

void graph_free(Graph *g) {
    vec_free(&g->source);
}

/* ---- which types an op works for ---- */

static bool probe(Op op, DType t) {
    for (uint64_t seed = 1; seed < 12; seed++) {
        Module *m = module_new();
        Graph graph;
        Gen g;
        Diag *quiet = diag_new();
        symbols_declare(m);
        gen_open(&g, &graph, m, seed);
        bool ok = grow(&g, op, t);
        if (ok) {
            func_output(m, g.f, g.f->n_values - 1, str_c("y"));
            graph.id = func_end(m, g.f, NONE);
            int64_t *syms = arena_array(g.a, dim_sym_count(m->dims) + 1, sizeof *syms);
            Tensor *in = arena_array(g.a, module_func(m, graph.id)->n_inputs + 1u, sizeof *in);
            Tensor *out = arena_array(g.a, module_func(m, graph.id)->n_outputs + 1u, sizeof *out);
            symbols_bind(&graph, m, 0, syms);
            ok = inputs_fill(&graph, m, module_func(m, graph.id), 0, syms, in, g.a) &&
                 func_eval(m, graph.id, syms, in, out, g.a, quiet);
        }
        diag_free(quiet);
        graph_free(&graph);
        arena_free(g.a);
        module_free(m);
        if (ok) return true;
    }
    return false;
}

bool ops_probe(void) {
    bool ok = true;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!op_generated((Op)op)) continue;
        if (!rule_of((Op)op)) {
            fprintf(stderr, "random_graphs: op '%s': no generator for type rule '%s' (tests/tools/random_graphs/rules.def)\n",
                    op_info((Op)op)->name, infer_rule[op]);
            ok = false;
            continue;
        }
        ok = attrs_given((Op)op) && ok;
        for (int t = 0; t < DT_COUNT; t++)
            if (probe((Op)op, (DType)t)) types[op] |= 1u << t;
        if (!types[op]) {
            fprintf(stderr, "random_graphs: op '%s': its generator makes nothing that the interpreter takes\n", op_info((Op)op)->name);
            ok = false;
        }
    }
    return ok;
}
