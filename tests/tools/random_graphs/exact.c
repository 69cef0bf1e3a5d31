/* Which values come out as the same bits from every correct implementation, whatever it fuses, reorders or keeps in wider
 * registers: integers; floats that were only moved or chosen; sums and products of small multiples of a power of two. */
#include "graphs.h"

#include <math.h>

static int limit_of(DType t) { /* bits of the significand, one kept free */
    return t == DT_F16 ? 10 : t == DT_F32 ? 23 : t == DT_F64 ? 52 : 63;
}

static Exact plain(void) {
    return (Exact){.exact = true, .bits = 63};
}

static Exact on_grid(DType t, int bits, int frac) {
    Exact e = {.exact = true, .grid = bits <= limit_of(t), .bits = bits, .frac = frac};
    e.exact = e.grid || !dtype_is_float(t);
    return e;
}

Exact exact_source(DType t, Fill fill) {
    if (!dtype_is_float(t)) {
        Exact e = plain();
        if (t == DT_BOOL) e.bits = 1;
        else if (fill == FILL_SMALL) e.bits = 3;
        else if (fill == FILL_INDEX || fill == FILL_LABEL) e.bits = 17;
        e.grid = e.bits < 63;
        return e;
    }
    if (fill == FILL_GRID) return on_grid(t, 5, 2);
    Exact e = plain();
    e.wild = fill == FILL_WILD;
    return e;
}

Exact exact_param(const Param *p) {
    Tensor t = {.dtype = p->dtype, .rank = p->rank, .data = (void *)(uintptr_t)p->data};
    int64_t n = 0;
    for (int i = 0; i < p->rank; i++) t.dim[i] = p->dim[i];
    if (!p->data || !tensor_count(&t, &n)) return (Exact){0};
    if (!dtype_is_float(p->dtype)) return exact_source(p->dtype, FILL_EXTREME);
    for (int64_t i = 0; i < n; i++) {
        double v = tensor_get_f64(&t, i) * 4;
        if (!(fabs(v) <= 16) || v != floor(v)) return exact_source(p->dtype, FILL_WILD);
    }
    return on_grid(p->dtype, 5, 2);
}

static int log2_up(int64_t n) {
    int b = 0;
    while (b < 62 && ((int64_t)1 << b) < n) b++;
    return b;
}

static int elements_bits(const Module *m, const Type *t) {
    Dim d = type_count(m->dims, t);
    return d == DIM_BAD ? 62 : log2_up(dim_upper(m->dims, d));
}

bool op_jumps(Op op, DType operand, DType result) {
    if (!dtype_is_float(operand)) return false;
    return !dtype_is_float(result) || op == OP_floor || op == OP_ceil || op == OP_round || op == OP_sign || op == OP_mod ||
           op == OP_fmod;
}

/* The operands together: what only moves or chooses among them has these properties. */
static Exact together(const Func *f, const Node *n, const Exact *of) {
    Exact e = {.exact = true, .grid = true};
    int whole = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == NONE) continue;
        const Exact *x = &of[n->in[i]];
        if ((op_info(n->op)->klass == OC_GATHER && i == 1) || f->value[n->in[i]].type.dtype == DT_BOOL) {
            e.exact = e.exact && x->exact; /* an index, a condition */
            continue;
        }
        e.exact = e.exact && x->exact;
        e.grid = e.grid && x->grid;
        e.wild = e.wild || x->wild;
        if (x->bits - x->frac > whole) whole = x->bits - x->frac;
        if (x->frac > e.frac) e.frac = x->frac;
    }
    e.bits = whole + e.frac;
    if (!e.grid) e.bits = 63, e.frac = 0;
    return e;
}

static Exact widened(DType t, Exact e, int more) {
    if (!dtype_is_float(t)) {
        e.bits = e.grid && e.bits + more < 40 ? e.bits + more : 63;
        e.grid = e.bits < 63;
        return e;
    }
    if (!e.exact || !e.grid) return (Exact){.wild = e.wild};
    return on_grid(t, e.bits + more, e.frac);
}

static Exact product(DType t, Exact a, Exact b, int more) {
    Exact e = {.exact = a.exact && b.exact, .grid = a.grid && b.grid, .wild = a.wild || b.wild};
    e.bits = a.bits + b.bits;
    e.frac = a.frac + b.frac;
    return widened(t, e, more);
}

static Exact cast_of(DType to, DType from, Exact e) {
    if (!e.exact) return (Exact){.exact = !dtype_is_float(to), .bits = 63, .wild = e.wild};
    if (!dtype_is_float(to)) {
        Exact r = plain();
        r.bits = e.grid && e.bits - e.frac < 6 && e.bits - e.frac > 0 ? e.bits - e.frac : 63;
        r.grid = r.bits < 63;
        return r;
    }
    e.grid = e.grid && e.bits <= limit_of(to);
    e.exact = e.grid || limit_of(to) >= limit_of(from) || to != DT_F16;
    e.wild = e.wild && dtype_is_float(from);
    return e;
}

static Exact pointwise(const Func *f, const Node *n, const Exact *of) {
    DType t = f->value[n->out].type.dtype, from = f->value[n->in[0]].type.dtype;
    Exact all = together(f, n, of);
    switch (n->op) {
    case OP_cast: return cast_of(t, from, of[n->in[0]]);
    case OP_neg:
    case OP_abs:
    case OP_relu:
    case OP_floor:
    case OP_ceil:
    case OP_round:
    case OP_min:
    case OP_max:
    case OP_select:
    case OP_dropout:
    case OP_jitter:
    case OP_mod:
    case OP_fmod: return dtype_is_float(t) ? all : widened(t, all, 1);
    case OP_sign: return dtype_is_float(t) && all.wild ? all : on_grid(t, 2, 0);
    case OP_add:
    case OP_sub: return widened(t, all, 1);
    case OP_mul: return product(t, of[n->in[0]], of[n->in[1]], 0);
    default: break;
    }
    if (!dtype_is_float(t)) {
        Exact e = plain();
        e.exact = all.exact;
        return e;
    }
    return (Exact){.wild = all.wild};
}

Exact exact_node(const Module *m, const Func *f, const Node *n, uint32_t result, const Exact *of) {
    const Type *out = &f->value[n->out + result].type;
    DType t = out->dtype;
    Exact all = together(f, n, of);
    if (t == DT_BOOL) return (Exact){.exact = all.exact, .grid = true, .bits = 1};
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE: return pointwise(f, n, of);
    case OC_MOVE: return all;
    case OC_CALL: return (Exact){.wild = true};
    case OC_RANDOM: return plain();
    case OC_SOURCE: {
        Exact e = plain();
        if (n->op == OP_const) {
            const Tensor *c = &node_attr(n, AT_value)->t;
            Param p = {.dtype = c->dtype, .rank = c->rank, .data = c->data};
            for (int i = 0; i < c->rank; i++) p.dim[i] = c->dim[i];
            return exact_param(&p);
        }
        e.bits = 17;
        e.grid = true;
        return e;
    }
    case OC_GATHER: {
        const Attr *kind = node_attr(n, AT_kind);
        if (!kind || str_is(kind->s, "max") || str_is(kind->s, "min")) return all;
        if (str_is(kind->s, "sum")) return widened(t, all, elements_bits(m, &f->value[n->in[2]].type));
        if (dtype_is_float(t)) return (Exact){.wild = all.wild};
        return plain();
    }
    default: break;
    }
    switch (n->op) {
    case OP_reduce_max:
    case OP_reduce_min: { /* of nothing: an infinity, or the end of the range */
        if (!dtype_is_float(t)) all.bits = 63, all.grid = false;
        else all.wild = true, all.grid = false;
        return all;
    }
    case OP_reduce_sum:
    case OP_cumsum: return widened(t, all, elements_bits(m, &f->value[n->in[0]].type));
    case OP_matmul: {
        const Type *a = &f->value[n->in[0]].type;
        return product(t, of[n->in[0]], of[n->in[1]],
                       log2_up(dim_upper(m->dims, a->dim[a->rank - (node_int(n, AT_ta, 0) ? 2 : 1)])));
    }
    default: break;
    }
    Exact e = plain();
    if (dtype_is_float(t)) e = (Exact){.wild = true};
    else e.exact = all.exact;
    if (n->op == OP_argmax) e.bits = 17, e.grid = true;
    return e;
}

Exact *exact_func(const Graph *g, const Module *m, const Func *f, Arena *a) {
    Exact *of = arena_array(a, f->n_values + 1, sizeof *of);
    for (ValueId v = 0; v < f->n_values; v++) {
        const Value *x = &f->value[v];
        if (x->kind == VK_PARAM) of[v] = exact_param(&m->param[x->def]);
        if (x->kind != VK_INPUT) continue;
        const InputSource *s = source_of(g, x->name);
        if (s) of[v] = s->fill == FILL_TENSOR ? s->known : exact_source(x->type.dtype, s->fill);
    }
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_out; k++)
            of[f->node[i].out + k] = exact_node(m, f, &f->node[i], k, of);
    return of;
}
