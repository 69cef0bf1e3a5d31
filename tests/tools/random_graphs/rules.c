/* Generator rules of sources, pointwise ops, movement, gathers and reductions. */
#include "graphs.h"

#include <string.h>

static const Want any_shape = {0, 5, false, false, false};

static Want wanting(Gen *g, Op op, DType t, DType result) {
    Want w = any_shape;
    bool folds = op_info(op)->klass == OC_REDUCE || op_info(op)->klass == OC_CONTRACT;
    w.exact = op_jumps(op, t, result);
    w.tame = folds && op != OP_reduce_max && op != OP_reduce_min && op != OP_argmax && rng_chance(&g->rng, 90);
    return w;
}

static Dim number(Gen *g, int64_t v) {
    return dim_const(g->m->dims, v);
}

static bool made(ValueId v) {
    return v != NONE;
}

static int64_t below(Gen *g, int64_t n) {
    return (int64_t)rng_below(&g->rng, (uint32_t)n);
}

/* ---- sources ---- */

bool grow_const(Gen *g, Op op, DType t) {
    Tensor c = {.dtype = t, .rank = (int)below(g, 4)};
    for (int i = 0; i < c.rank; i++) c.dim[i] = 1 + below(g, 5);
    if (!tensor_alloc(g->m->arena, &c)) return false;
    fill_tensor(&c, dtype_is_float(t) ? FILL_GRID : FILL_SMALL, 0, rng_next(&g->rng));
    Attr value = attr_t(AT_value, c);
    return made(emit(g, op, NULL, 0, &value, 1));
}

bool grow_dim(Gen *g, Op op, DType t) {
    Attr dim = attr_d(AT_dim, pick_dim(g));
    return t == DT_I64 && made(emit(g, op, NULL, 0, &dim, 1));
}

static int some_shape(Gen *g, int least, Dim *dim) {
    int rank = least + (int)below(g, 4);
    for (int i = 0; i < rank; i++) dim[i] = rng_chance(&g->rng, 70) ? g->palette[below(g, 4)] : pick_dim(g);
    return rank;
}

bool grow_iota(Gen *g, Op op, DType t) {
    Dim dim[MOEC_MAX_RANK];
    int rank = some_shape(g, 1, dim);
    Attr axis = attr_i(AT_axis, below(g, rank));
    return t == DT_I64 && made(emit_typed(g, op, NULL, 0, &axis, 1, type_ranked(t, rank, dim)));
}

static ValueId scalar(Gen *g, DType t, Fill fill) {
    return make_input(g, t, 0, NULL, fill, DIM_BAD);
}

static ValueId seed(Gen *g) {
    return rng_chance(&g->rng, 50) ? pick(g, DT_I64, (Want){0, 0, false, false, false}) : scalar(g, DT_I64, FILL_EXTREME);
}

bool grow_random(Gen *g, Op op, DType t) {
    Dim dim[MOEC_MAX_RANK];
    int rank = some_shape(g, 0, dim);
    ValueId s = seed(g);
    return t == DT_F32 && made(emit_typed(g, op, &s, 1, NULL, 0, type_ranked(t, rank, dim)));
}

bool grow_split_seed(Gen *g, Op op, DType t) {
    ValueId s = seed(g);
    Attr k = attr_i(AT_k, 1 + below(g, 4));
    return t == DT_I64 && made(emit(g, op, &s, 1, &k, 1));
}

/* ---- pointwise ---- */

/* Values inside the domain of op, most of the time. */
static ValueId in_domain(Gen *g, Op op, ValueId v) {
    bool part = op == OP_sqrt || op == OP_rsqrt || op == OP_log || op == OP_recip || op == OP_div || op == OP_pow;
    if (!part || v == NONE || !dtype_is_float(gen_type(g, v)->dtype)) return v;
    bool given = g->f->value[v].kind != VK_NODE; /* the sign of a computed zero is nobody's business, that of 1 / 0 is */
    if (!g->differentiable && given && rng_chance(&g->rng, 50)) return v;
    Tensor c = {.dtype = gen_type(g, v)->dtype};
    if (!tensor_alloc(g->m->arena, &c)) return NONE;
    tensor_set_f64(&c, 0, 0.5);
    Attr value = attr_t(AT_value, c);
    ValueId in[2];
    in[0] = emit(g, OP_abs, &v, 1, NULL, 0);
    in[1] = emit(g, OP_const, NULL, 0, &value, 1);
    return emit(g, OP_add, in, 2, NULL, 0);
}

bool grow_same(Gen *g, Op op, DType t) {
    ValueId v = in_domain(g, op, pick(g, t, wanting(g, op, t, t)));
    Attr eps = attr_f(AT_eps, 0.01);
    return made(v) && made(emit(g, op, &v, 1, &eps, op_info(op)->n_attrs));
}

bool grow_along(Gen *g, Op op, DType t) {
    const OpInfo *o = op_info(op);
    Attr attrs[4];
    Want w = wanting(g, op, t, t);
    w.rank_min = 1;
    if (op != OP_cumsum) w.nonempty = rng_chance(&g->rng, 90);
    ValueId v = in_domain(g, op, pick(g, t, w));
    if (v == NONE) return false;
    for (uint32_t i = 0; i < o->n_attrs; i++)
        attrs[i] = attr_i(o->attrs[i], below(g, o->attrs[i] == AT_axis ? gen_type(g, v)->rank : 2));
    return made(emit(g, op, &v, 1, attrs, o->n_attrs));
}

bool grow_predicate(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, wanting(g, op, t, DT_BOOL));
    return made(v) && made(emit(g, op, &v, 1, NULL, 0));
}

bool grow_top_k(Gen *g, Op op, DType t) {
    Want w = wanting(g, op, t, DT_BOOL);
    Attr k = attr_i(AT_k, 1 + below(g, 4));
    w.rank_min = 1;
    ValueId v = pick(g, t, w);
    return made(v) && made(emit(g, op, &v, 1, &k, 1));
}

bool grow_cast(Gen *g, Op op, DType t) {
    DType to = rng_chance(&g->rng, 50) ? DT_F32 : (DType)below(g, DT_COUNT);
    if (g->differentiable && (!dtype_is_float(to) || to == DT_F16)) to = DT_F32;
    ValueId v = pick(g, t, wanting(g, op, t, to));
    if (v == NONE || (to == DT_F16 && g->exact[v].wild)) return false;
    Attr attr = attr_i(AT_to, to);
    return made(emit(g, op, &v, 1, &attr, 1));
}

/* An operand that broadcasts with a: some axes 1, leading ones left out. */
static ValueId partner(Gen *g, ValueId a, DType t, Want w) {
    Type x = *gen_type(g, a);
    int drop = rng_chance(&g->rng, 25) ? (int)below(g, x.rank + 1) : 0;
    Dim dim[MOEC_MAX_RANK];
    for (int i = drop; i < x.rank; i++) dim[i - drop] = rng_chance(&g->rng, 15) ? number(g, 1) : x.dim[i];
    return pick_like(g, t, x.rank - drop, dim, w);
}

static bool binary(Gen *g, Op op, DType t, DType second, DType result) {
    Want w = wanting(g, op, t, result);
    ValueId in[2] = {pick(g, t, w), NONE};
    if (in[0] == NONE) return false;
    w.exact = op_jumps(op, second, result);
    in[1] = rng_chance(&g->rng, 8) && t == second ? in[0] : partner(g, in[0], second, w);
    if (in[1] == NONE) return false;
    if (t == second && rng_chance(&g->rng, 40)) {
        ValueId v = in[0];
        in[0] = in[1], in[1] = v;
    }
    if (op == OP_pow) in[0] = in_domain(g, op, in[0]);
    else in[1] = in_domain(g, op, in[1]);
    return made(emit(g, op, in, 2, NULL, 0));
}

bool grow_numeric(Gen *g, Op op, DType t) {
    return binary(g, op, t, t, t);
}

bool grow_logical(Gen *g, Op op, DType t) {
    if (t != DT_BOOL || op_info(op)->in_max == 2) return t == DT_BOOL && binary(g, op, t, t, t);
    ValueId v = pick(g, t, any_shape);
    return made(v) && made(emit(g, op, &v, 1, NULL, 0));
}

bool grow_compare(Gen *g, Op op, DType t) {
    return binary(g, op, t, t, DT_BOOL);
}

bool grow_power(Gen *g, Op op, DType t) {
    DType second = rng_chance(&g->rng, 80) || g->differentiable ? t : (DType)below(g, DT_COUNT);
    return binary(g, op, t, second, t);
}

bool grow_select(Gen *g, Op op, DType t) {
    ValueId a = pick(g, t, any_shape);
    if (a == NONE) return false;
    ValueId b = partner(g, a, t, any_shape), c = partner(g, a, DT_BOOL, any_shape);
    ValueId in[3] = {c, a, b};
    if (rng_chance(&g->rng, 50)) in[1] = b, in[2] = a;
    return made(b) && made(c) && made(emit(g, op, in, 3, NULL, 0));
}

/* ---- movement ---- */

bool grow_transpose(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, any_shape);
    if (v == NONE) return false;
    int64_t perm[MOEC_MAX_RANK] = {0}, rank = gen_type(g, v)->rank;
    for (int64_t i = 0; i < rank; i++) {
        int64_t k = below(g, i + 1);
        if (k < i) perm[i] = perm[k];
        perm[k] = i;
    }
    Attr attr = attr_ints(AT_perm, perm, (uint32_t)rank);
    return made(emit(g, op, &v, 1, &attr, 1));
}

/* Other extents with the same count: axes joined, split, 1s put in and taken away. */
bool grow_reshape(Gen *g, Op op, DType t) {
    DimTable *d = g->m->dims;
    ValueId v = pick(g, t, any_shape);
    if (v == NONE) return false;
    Type x = *gen_type(g, v);
    for (int64_t steps = 1 + below(g, 3); steps > 0; steps--) {
        int at = x.rank ? (int)below(g, x.rank) : 0;
        int64_t n;
        switch (below(g, 4)) {
        case 0: /* joined with the next */
            if (at + 1 >= x.rank) break;
            x.dim[at] = dim_mul(d, x.dim[at], x.dim[at + 1]);
            for (int i = at + 1; i + 1 < x.rank; i++) x.dim[i] = x.dim[i + 1];
            x.rank--;
            break;
        case 1: /* split */
            if (!x.rank || x.rank > 4 || !dim_is_const(d, x.dim[at], &n) || n < 4) break;
            for (int64_t f = 2; f < n; f++) {
                if (n % f) continue;
                for (int i = x.rank; i > at; i--) x.dim[i] = x.dim[i - 1];
                x.dim[at] = number(g, f);
                x.dim[at + 1] = number(g, n / f);
                x.rank++;
                break;
            }
            break;
        case 2:
            if (x.rank > 4) break;
            for (int i = x.rank; i > at; i--) x.dim[i] = x.dim[i - 1];
            x.dim[at] = number(g, 1);
            x.rank++;
            break;
        default:
            if (!x.rank || !dim_is(d, x.dim[at], 1)) break;
            for (int i = at; i + 1 < x.rank; i++) x.dim[i] = x.dim[i + 1];
            x.rank--;
        }
    }
    return made(emit_typed(g, op, &v, 1, NULL, 0, x));
}

bool grow_broadcast(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, any_shape);
    if (v == NONE) return false;
    Type x = *gen_type(g, v), wide = x;
    int lead = x.rank < 4 ? (int)below(g, 2) : 0;
    wide.rank += lead;
    for (int i = 0; i < lead; i++) wide.dim[i] = g->palette[below(g, 4)];
    for (int i = 0; i < x.rank; i++)
        wide.dim[i + lead] = dim_is(g->m->dims, x.dim[i], 1) && rng_chance(&g->rng, 70) ? g->palette[below(g, 4)] : x.dim[i];
    return made(emit_typed(g, op, &v, 1, NULL, 0, wide));
}

/* One axis: what is taken from `extent`. */
static void slice_axis(Gen *g, Dim extent, Dim *start, Dim *count, int64_t *step) {
    DimTable *d = g->m->dims;
    int64_t n, low = dim_lower(d, extent);
    *start = number(g, 0), *count = extent, *step = 1;
    if (rng_chance(&g->rng, 30)) return;
    if (dim_is_const(d, extent, &n)) {
        if (!n) return;
        int64_t from = below(g, n), by = 1 + below(g, 3), most;
        bool back = rng_chance(&g->rng, 35);
        most = (back ? from : n - 1 - from) / by + 1;
        *start = number(g, from);
        *count = number(g, rng_chance(&g->rng, 60) ? most : below(g, most + 1));
        *step = back ? -by : by;
        return;
    }
    switch (below(g, 4)) {
    case 0: /* backwards */
        *start = dim_sub(d, extent, number(g, 1));
        *step = -1;
        break;
    case 1: /* every second */
        *count = dim_floordiv(d, dim_add(d, extent, number(g, 1)), number(g, 2));
        *step = 2;
        break;
    case 2: /* without the first */
        if (low < 1) break;
        *start = number(g, 1);
        *count = dim_sub(d, extent, number(g, 1));
        break;
    default: /* the last one */
        if (low < 1) break;
        *start = dim_sub(d, extent, number(g, 1));
        *count = number(g, 1);
    }
}

bool grow_slice(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, any_shape);
    if (v == NONE) return false;
    Type x = *gen_type(g, v);
    Dim start[MOEC_MAX_RANK];
    int64_t step[MOEC_MAX_RANK];
    for (int i = 0; i < x.rank; i++) {
        Dim count;
        slice_axis(g, x.dim[i], &start[i], &count, &step[i]);
        x.dim[i] = count;
    }
    Attr attrs[2] = {attr_dims(AT_start, start, (uint32_t)x.rank), attr_ints(AT_step, step, (uint32_t)x.rank)};
    return made(emit_typed(g, op, &v, 1, attrs, 2, x));
}

/* A cache is an input that nothing else reads; the result goes out. */
static bool grow_append(Gen *g, Op op, DType t) {
    Dim dim[MOEC_MAX_RANK];
    int rank = 0;
    while (rank < 2 + below(g, 3)) dim[rank++] = pick_filled(g);
    int axis = (int)below(g, rank);
    dim[axis] = dim_sym(g->m->dims, str_c("T"));
    Type cache = type_ranked(t, rank, dim);
    Dim n = type_count(g->m->dims, &cache);
    if (n == DIM_BAD || dim_upper(g->m->dims, n) > ELEMENTS_MAX / 4) return false;
    ValueId in[2] = {make_input(g, t, rank, dim, dtype_is_float(t) ? FILL_FLOAT : FILL_SMALL, DIM_BAD), NONE};
    dim[axis] = rng_chance(&g->rng, 60) ? number(g, 1) : dim_sym(g->m->dims, str_c("K"));
    in[1] = pick_like(g, t, rank, dim, any_shape);
    Attr attr = attr_i(AT_axis, axis);
    ValueId v = in[1] == NONE ? NONE : emit(g, op, in, 2, &attr, 1);
    if (v != NONE) func_output(g->m, g->f, v, str_c(arena_printf(g->m->arena, "cache%u", v)));
    return made(v);
}

bool grow_concat(Gen *g, Op op, DType t) {
    if (op == OP_append) return grow_append(g, op, t);
    ValueId in[4];
    uint32_t n = 1 + rng_below(&g->rng, 4);
    in[0] = pick(g, t, (Want){1, 5, false, false, false});
    if (in[0] == NONE) return false;
    Type x = *gen_type(g, in[0]);
    int axis = (int)below(g, x.rank);
    for (uint32_t i = 1; i < n; i++) {
        if (rng_chance(&g->rng, 40)) x.dim[axis] = pick_dim(g);
        in[i] = pick_like(g, t, x.rank, x.dim, any_shape);
        if (in[i] == NONE) return false;
    }
    Attr attr = attr_i(AT_axis, axis);
    return made(emit(g, op, in, n, &attr, 1));
}

/* ---- gathers ---- */

static ValueId index_input(Gen *g, DType t, int rank, const Dim *dim, Dim range) {
    return make_input(g, t, rank, dim, FILL_INDEX, range);
}

bool grow_gather(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, (Want){1, 4, false, false, true});
    if (v == NONE) return false;
    Type x = *gen_type(g, v);
    int axis = rng_chance(&g->rng, 50) ? 0 : (int)below(g, x.rank), rank = (int)below(g, 3);
    Dim dim[2];
    for (int i = 0; i < 2; i++) dim[i] = g->palette[below(g, 4)];
    ValueId in[2] = {v, index_input(g, rng_chance(&g->rng, 75) ? DT_I64 : DT_I32, rank, dim, x.dim[axis])};
    Attr attr = attr_i(AT_axis, axis);
    return made(emit(g, op, in, 2, &attr, 1));
}

/* Indices [.., q] into axes from.. of x. */
static ValueId tuples(Gen *g, const Type *x, int from, int q, int rank, Dim *dim) {
    Dim range = x->dim[from];
    for (int i = 1; i < q; i++) range = dim_min(g->m->dims, range, x->dim[from + i]);
    dim[rank] = number(g, q);
    return index_input(g, DT_I64, rank + 1, dim, range);
}

bool grow_gather_nd(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, (Want){1, 4, false, false, true});
    if (v == NONE) return false;
    Type x = *gen_type(g, v);
    int batch = (int)below(g, x.rank), q = 1 + (int)below(g, x.rank - batch), rank = batch;
    Dim dim[MOEC_MAX_RANK];
    for (int i = 0; i < batch; i++) dim[i] = x.dim[i];
    for (int64_t i = below(g, 3); i > 0; i--) dim[rank++] = g->palette[below(g, 4)];
    ValueId in[2] = {v, tuples(g, &x, batch, q, rank, dim)};
    Attr attr = attr_i(AT_batch, batch);
    return made(emit(g, op, in, 2, &attr, 1));
}

bool grow_scatter_nd(Gen *g, Op op, DType t) {
    static const char *const kinds[] = {"sum", "prod", "max", "min"};
    ValueId v = pick(g, t, (Want){1, 4, false, false, true});
    if (v == NONE) return false;
    Type x = *gen_type(g, v);
    int q = 1 + (int)below(g, x.rank), rank = 0;
    Dim dim[MOEC_MAX_RANK];
    for (int64_t i = 1 + below(g, 2); i > 0; i--) dim[rank++] = g->palette[below(g, 4)];
    ValueId at = tuples(g, &x, 0, q, rank, dim);
    for (int i = q; i < x.rank; i++) dim[rank++] = x.dim[i];
    ValueId in[3] = {v, at, pick_like(g, t, rank, dim, any_shape)};
    uint32_t way = g->differentiable ? rng_below(&g->rng, 2) : rng_below(&g->rng, 5);
    Attr kind = attr_s(AT_kind, str_c(kinds[way ? way - 1 : 0]));
    return made(in[2]) && made(emit(g, op, in, 3, &kind, way > 0));
}

/* ---- reductions ---- */

bool grow_reduce(Gen *g, Op op, DType t) {
    Want w = wanting(g, op, t, t);
    w.nonempty = g->differentiable || rng_chance(&g->rng, 85);
    ValueId v = pick(g, t, w);
    if (v == NONE) return false;
    int64_t axes[MOEC_MAX_RANK];
    uint32_t n = 0, share = 20 + rng_below(&g->rng, 80);
    for (int i = 0; i < gen_type(g, v)->rank; i++)
        if (rng_chance(&g->rng, share)) axes[n++] = i;
    Attr attrs[2] = {attr_ints(AT_axes, axes, n), attr_i(AT_keep, below(g, 2))};
    return made(emit(g, op, &v, 1, attrs, 2));
}

bool grow_arg(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, (Want){1, 5, true, false, true});
    if (v == NONE) return false;
    int64_t axis = below(g, gen_type(g, v)->rank), keep = below(g, 2), last = below(g, 2);
    Attr attrs[3] = {attr_i(AT_axis, axis), attr_i(AT_keep, keep), attr_i(AT_last, last)};
    return made(emit(g, op, &v, 1, attrs, 3));
}

bool grow_rms_norm(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, (Want){1, 5, false, true, true});
    if (v == NONE) return false;
    const Type *x = gen_type(g, v);
    Dim width = x->dim[x->rank - 1];
    ValueId in[2] = {v, pick_like(g, t, 1, &width, (Want){1, 1, false, true, false})};
    Attr eps = attr_f(AT_eps, rng_chance(&g->rng, 50) ? 1e-6 : 1e-2);
    return made(in[1]) && made(emit(g, op, in, 2, &eps, 1));
}

bool grow_rms_factor(Gen *g, Op op, DType t) {
    ValueId v = pick(g, t, (Want){1, 5, false, true, true});
    Attr eps = attr_f(AT_eps, 1e-6);
    return made(v) && made(emit(g, op, &v, 1, &eps, 1));
}
