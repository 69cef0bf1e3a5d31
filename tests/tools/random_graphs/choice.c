/* Choices: numbers from a seed, values of symbols, contents of inputs. */
#include "graphs.h"

#include <math.h>
#include <string.h>

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser: Steele, Lea, Flood 2014 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t rng_next(Rng *r) {
    r->state += 0x9e3779b97f4a7c15u;
    return mix(r->state);
}

uint32_t rng_below(Rng *r, uint32_t n) {
    return (uint32_t)((rng_next(r) >> 32) % n);
}

bool rng_chance(Rng *r, uint32_t percent) {
    return rng_below(r, 100) < percent;
}

/* ---- symbols ---- */

static const struct {
    const char *name;
    int64_t lo, hi;
} symbols[] = {{"B", 1, 4}, {"S", 1, 70}, {"T", 0, 6}, {"K", 1, 9}};

void symbols_declare(Module *m) {
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        uint32_t s;
        CHECK(dim_as_sym(m->dims, dim_sym(m->dims, str_c(symbols[i].name)), &s));
        dim_sym_at(m->dims, s)->lo = symbols[i].lo;
        dim_sym_at(m->dims, s)->hi = symbols[i].hi;
    }
}

/* Mostly small; now and then more than one tile of rows. */
void symbols_bind(const Graph *g, const Module *m, int binding, int64_t *syms) {
    Rng r = {g->seed * 31 + (uint64_t)binding};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        uint32_t s, span = (uint32_t)(symbols[i].hi - symbols[i].lo + 1), way = rng_below(&r, 10);
        uint32_t below = way < 6 && span > 6 ? 6 : span, at = rng_below(&r, below);
        CHECK(dim_as_sym(m->dims, dim_sym(m->dims, str_c(symbols[i].name)), &s));
        syms[s] = g->syms ? g->syms[i] : way == 9 ? symbols[i].hi : symbols[i].lo + at;
    }
}

/* ---- contents ---- */

static int64_t lowest_of(DType t) {
    return t == DT_I8 ? INT8_MIN : t == DT_I16 ? INT16_MIN : t == DT_I32 ? INT32_MIN : t == DT_I64 ? INT64_MIN : 0;
}

static int64_t highest_of(DType t) {
    return t == DT_BOOL ? 1 : t == DT_U8 ? UINT8_MAX : t == DT_I8 ? INT8_MAX : t == DT_U16 ? UINT16_MAX
         : t == DT_I16 ? INT16_MAX : t == DT_I32 ? INT32_MAX : INT64_MAX;
}

static int64_t extreme(DType t, uint64_t r) {
    int64_t lo = lowest_of(t), hi = highest_of(t);
    switch (r % 8) {
    case 0: return lo;
    case 1: return hi;
    case 2: return lo ? -1 : 1;
    case 3: return 0;
    case 4: return lo ? lo + 1 : 1;
    case 5: return 2 % (hi + (hi < INT64_MAX));
    default: return t == DT_I64 ? (int64_t)mix(r) : lo + (int64_t)(mix(r) % ((uint64_t)(hi - lo) + 1));
    }
}

static double unit(uint64_t r) {
    return (double)(r >> 40) * 0x1p-24; /* exact in f32 */
}

static double wild(uint64_t r) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0, -1.0, 0.5};
    return r % 3 ? unit(r) * 4 - 2 : odd[(r >> 8) % 8];
}

static double float_of(Fill fill, uint64_t r) {
    switch (fill) {
    case FILL_GRID: return (double)((int64_t)(r >> 33) % 33 - 16) * 0.25;
    case FILL_WILD: return wild(r);
    case FILL_POSITIVE: return 0.5 + 1.5 * unit(r);
    case FILL_SHARE: return (double[]){0, 0.1, 0.5}[r % 3];
    default: return unit(r) * 4 - 2;
    }
}

static int64_t int_of(DType t, Fill fill, int64_t range, uint64_t r) {
    switch (fill) {
    case FILL_EXTREME: return extreme(t, r);
    case FILL_INDEX: return range > 0 ? (int64_t)((r >> 8) % (uint64_t)(2 * range)) - range : 0;
    case FILL_LABEL: return r % 4 == 0 || range < 1 ? -100 : (int64_t)((r >> 8) % (uint64_t)range);
    default: return t == DT_BOOL ? (int64_t)(r & 1) : lowest_of(t) ? (int64_t)((r >> 8) % 7) - 3 : (int64_t)((r >> 8) % 4);
    }
}

void fill_tensor(Tensor *t, Fill fill, int64_t range, uint64_t key) {
    int64_t n = 0;
    tensor_count(t, &n);
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = mix(key + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u);
        if (dtype_is_float(t->dtype)) tensor_set_f64(t, i, float_of(fill, r));
        else tensor_set_i64(t, i, int_of(t->dtype, fill, range, r));
    }
}

const InputSource *source_of(const Graph *g, Str input) {
    for (size_t i = 0; i < g->source.count; i++)
        if (str_eq(g->source.item[i].name, input)) return &g->source.item[i];
    return NULL;
}

bool inputs_fill(const Graph *g, const Module *m, const Func *f, int binding, const int64_t *syms, Tensor *in, Arena *a) {
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        const InputSource *s = source_of(g, v->name);
        int64_t range = 0;
        if (!s) continue;
        in[i] = (Tensor){.dtype = v->type.dtype, .rank = v->type.rank};
        for (int k = 0; k < v->type.rank; k++)
            if (!dim_eval(m->dims, v->type.dim[k], syms, &in[i].dim[k])) return false;
        if (!tensor_alloc(a, &in[i]) || (s->range != DIM_BAD && !dim_eval(m->dims, s->range, syms, &range))) return false;
        if (s->fill == FILL_TENSOR) {
            int64_t n = 0;
            tensor_count(&in[i], &n);
            for (int64_t k = 0; k < n; k++)
                if (dtype_is_float(in[i].dtype)) tensor_set_f64(&in[i], k, tensor_get_f64(&s->value, k));
                else tensor_set_i64(&in[i], k, tensor_get_i64(&s->value, k));
        } else
            fill_tensor(&in[i], s->fill, range, hash_bytes(g->seed * 2 + (uint64_t)binding, s->name.p, s->name.n));
    }
    return true;
}
