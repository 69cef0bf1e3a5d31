/* Generator rules of panels, and products by weights with what stands behind them in kernels: windows of one
 * product, heads, gates, sums of products, others that read it. */
#include "graphs.h"

static const Want tame = {0, 5, false, true, false};

static int64_t below(Gen *g, int64_t n) {
    return (int64_t)rng_below(&g->rng, (uint32_t)n);
}

static Dim number(Gen *g, int64_t v) {
    return dim_const(g->m->dims, v);
}

/* ---- ops ---- */

static ValueId pack(Gen *g, ValueId v) {
    Attr width = attr_i(AT_width, 1 + below(g, 20));
    return v == NONE ? NONE : emit(g, OP_pack, &v, 1, &width, 1);
}

bool grow_pack(Gen *g, Op op, DType t) {
    (void)op;
    return pack(g, pick(g, t, (Want){2, 5, false, false, false})) != NONE;
}

/* Of words and scales. */
static bool grow_unpack_words(Gen *g, Op op) {
    WeightFormat f = (WeightFormat)(1 + below(g, WEIGHT_FORMATS - 1));
    const WeightFormatInfo *w = &weight_formats[f];
    DimTable *t = g->m->dims;
    Dim dim[MOEC_MAX_RANK];
    int rank = 2 + (int)below(g, 2);
    int64_t width = 1 + below(g, 40), columns = 1 + below(g, 50);
    for (int i = 0; i < rank - 1; i++)
        dim[i] = rng_chance(&g->rng, 70) ? g->palette[below(g, 4)] : pick_dim(g);
    dim[rank - 1] = number(g, columns);
    Type matrix = type_ranked(DT_F32, rank, dim);
    Dim deep = dim[rank - 2];
    dim[rank] = number(g, width);
    dim[rank - 2] = number(g, (columns + width - 1) / width);
    dim[rank - 1] = dim_floordiv(t, dim_add(t, deep, number(g, w->per_word - 1)), number(g, w->per_word));
    ValueId in[2] = {pick_like(g, DT_I32, rank + 1, dim, (Want){0, 6, false, false, false}), NONE};
    if (w->block) {
        dim[rank - 1] = dim_floordiv(t, dim_add(t, deep, number(g, w->block - 1)), number(g, w->block));
        in[1] = pick_like(g, DT_F32, rank + 1, dim, (Want){0, 6, false, false, false});
    }
    Attr format = attr_s(AT_format, str_c(w->name));
    return in[0] != NONE && (in[1] != NONE || !w->block) && emit_typed(g, op, in, w->block ? 2 : 1, &format, 1, matrix) != NONE;
}

/* Of panels that `pack` has made, or of any. */
bool grow_unpack(Gen *g, Op op, DType t) {
    if (t == DT_F32 && rng_chance(&g->rng, 40))
        return grow_unpack_words(g, op);
    Dim dim[MOEC_MAX_RANK];
    int rank = 2 + (int)below(g, 3);
    int64_t width = 1 + below(g, 20), columns = 1 + below(g, 50);
    for (int i = 0; i < rank - 1; i++)
        dim[i] = rng_chance(&g->rng, 70) ? g->palette[below(g, 4)] : pick_dim(g);
    dim[rank - 1] = number(g, columns);
    Type matrix = type_ranked(t, rank, dim);
    bool made = rng_chance(&g->rng, 50);
    if (made)
        width = 0;
    dim[rank] = number(g, width);
    dim[rank - 1] = dim[rank - 2];
    dim[rank - 2] = number(g, made ? 0 : (columns + width - 1) / width);
    ValueId v = made ? pack(g, pick_like(g, t, rank, matrix.dim, (Want){0, 5, false, false, false}))
                     : pick_like(g, t, rank + 1, dim, (Want){0, 6, false, false, false});
    return v != NONE && emit_typed(g, op, &v, 1, NULL, 0, matrix) != NONE;
}

/* ---- products by weights ---- */

/* Extents around those of panels. */
static int64_t some_columns(Gen *g) {
    static const int64_t columns[] = {1, 8, 10, 15, 16, 17, 31, 32, 32, 33, 48, 50, 64};
    return columns[below(g, sizeof columns / sizeof *columns)];
}

static ValueId rows(Gen *g) {
    static const int64_t depths[] = {1, 3, 8, 16, 32, 40};
    Dim dim[MOEC_MAX_RANK];
    int rank = 0, lead = 1 + (int)below(g, 3);
    while (rank < lead)
        dim[rank++] = pick_filled(g);
    dim[rank++] = number(g, depths[below(g, 6)]);
    return pick_like(g, DT_F32, rank, dim, (Want){0, 5, false, true, true});
}

static int64_t last_extent(Gen *g, ValueId v) {
    const Type *t = gen_type(g, v);
    int64_t n = 0;
    return t->rank && dim_is_const(g->m->dims, t->dim[t->rank - 1], &n) ? n : 0;
}

/* By a weight; now and then by one for each position of an axis of constant extent, or by several. */
static ValueId product(Gen *g, ValueId x, int64_t columns) {
    const Type *t = gen_type(g, x);
    int64_t dim[3], heads;
    int rank = 0;
    if (t->rank > 2 && dim_is_const(g->m->dims, t->dim[t->rank - 3], &heads) && heads &&
        rng_chance(&g->rng, 50))
        dim[rank++] = heads == 1 ? 1 + below(g, 5) : heads;
    dim[rank++] = last_extent(g, x);
    dim[rank++] = columns;
    ValueId in[2] = {x, make_weight(g, rank, dim)};
    return in[1] == NONE ? NONE : emit(g, OP_matmul, in, 2, NULL, 0);
}

static ValueId unary(Gen *g, ValueId v) {
    static const Op ops[] = {OP_gelu, OP_relu, OP_tanh, OP_neg, OP_abs, OP_sigmoid};
    return v == NONE || rng_chance(&g->rng, 35) ? v : emit(g, ops[below(g, 6)], &v, 1, NULL, 0);
}

static ValueId binary(Gen *g, ValueId a, ValueId b) {
    static const Op ops[] = {OP_add, OP_add, OP_mul, OP_mul, OP_sub, OP_max};
    ValueId in[2] = {a, b};
    if (a == NONE || b == NONE)
        return NONE;
    if (rng_chance(&g->rng, 30))
        in[0] = b, in[1] = a;
    return emit(g, ops[below(g, 6)], in, 2, NULL, 0);
}

static ValueId window(Gen *g, ValueId v, int64_t first, int64_t columns, int64_t by) {
    Type t = *gen_type(g, v);
    Dim start[MOEC_MAX_RANK];
    int64_t step[MOEC_MAX_RANK];
    for (int i = 0; i < t.rank; i++) {
        start[i] = number(g, i + 1 == t.rank ? first : 0);
        step[i] = i + 1 == t.rank ? by : 1;
    }
    t.dim[t.rank - 1] = number(g, columns);
    Attr attrs[2] = {attr_dims(AT_start, start, (uint32_t)t.rank),
                     attr_ints(AT_step, step, (uint32_t)t.rank)};
    return emit_typed(g, OP_slice, &v, 1, attrs, 2, t);
}

/* A product whose windows are worked on, one by one or together. */
static ValueId windows(Gen *g, ValueId x, int64_t columns) {
    int64_t n = 1 + below(g, 3), spare = rng_chance(&g->rng, 30) ? 1 + below(g, 40) : 0,
            by = rng_chance(&g->rng, 10) ? 2 : 1;
    ValueId y = product(g, x, n * columns * by + spare), all = NONE;
    int64_t first = spare && rng_chance(&g->rng, 60) ? below(g, spare) : 0;
    for (int64_t i = 0; y != NONE && i < n; i++) {
        bool whole = n * by == 1 && !spare;
        ValueId v = unary(g, whole ? y : window(g, y, first + i * columns * by, columns, by));
        if (v == NONE)
            return NONE;
        if (all == NONE || rng_chance(&g->rng, 80))
            all = all == NONE ? v : binary(g, all, v);
    }
    return all;
}

/* With a vector, a number a row, a value of its own shape, or another product of x. */
static ValueId with_other(Gen *g, ValueId v, ValueId x) {
    Type t = *gen_type(g, v);
    switch (below(g, 5)) {
    case 0:
        return binary(g, v, pick_like(g, DT_F32, 1, &t.dim[t.rank - 1], tame));
    case 1:
        t.dim[t.rank - 1] = number(g, 1);
        return binary(g, v, pick_like(g, DT_F32, t.rank, t.dim, tame));
    case 2:
        return binary(g, v, pick_like(g, DT_F32, t.rank, t.dim, tame));
    case 3: /* v is read twice */
        return binary(g, unary(g, v), v);
    default:
        return t.rank == gen_type(g, x)->rank && last_extent(g, v)
                   ? binary(g, v, unary(g, product(g, x, last_extent(g, v))))
                   : v;
    }
}

/* The last axis as heads, each with a weight of its own or all with one. */
static ValueId heads(Gen *g, ValueId v) {
    static const int64_t counts[] = {2, 3, 4, 5};
    Type t = *gen_type(g, v), flat = t;
    int64_t columns = last_extent(g, v), n = counts[below(g, 4)];
    if (!columns || columns % n || t.rank > 3)
        return v;
    t.dim[t.rank - 1] = number(g, n);
    bool row = rng_chance(&g->rng, 50);
    if (row)
        t.dim[t.rank++] = number(g, 1);
    t.dim[t.rank++] = number(g, columns / n);
    v = emit_typed(g, OP_reshape, &v, 1, NULL, 0, t);
    if (v != NONE && rng_chance(&g->rng, 60))
        v = unary(g, product(g, v, rng_chance(&g->rng, 50) ? columns / n : some_columns(g)));
    bool flattens = v != NONE && type_eq(gen_type(g, v), &t); /* a product may have more batches */
    if (!flattens || rng_chance(&g->rng, 40))
        return v;
    return unary(g, emit_typed(g, OP_reshape, &v, 1, NULL, 0, flat));
}

static ValueId folded(Gen *g, ValueId v) {
    Attr axis = attr_i(AT_axis, gen_type(g, v)->rank - 1);
    int64_t last = gen_type(g, v)->rank - 1;
    Attr attrs[2] = {attr_ints(AT_axes, &last, 1), attr_i(AT_keep, 1)};
    if (rng_chance(&g->rng, 50))
        return emit(g, OP_softmax, &v, 1, &axis, 1);
    return binary(g, v, emit(g, OP_reduce_max, &v, 1, attrs, 2));
}

bool grow_products(Gen *g) {
    ValueId x = rows(g), y = x;
    for (int64_t i = 1 + below(g, 2); y != NONE && i > 0; i--) {
        ValueId from = y;
        y = windows(g, from, some_columns(g));
        if (y != NONE && rng_chance(&g->rng, 50))
            y = with_other(g, y, from);
        if (y != NONE && rng_chance(&g->rng, 35))
            y = heads(g, y);
        if (y != NONE && rng_chance(&g->rng, 15))
            y = folded(g, y);
        if (y == NONE || !last_extent(g, y))
            break;
    }
    return y != NONE;
}
