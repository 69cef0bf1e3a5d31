/* Questions about a program's tables. A program gives its extents as a function of the symbols; their form
 * (constant, symbol, symbol plus something) is found by asking at several points. */
#include "internal.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned bytes;
} dtypes[] = {
    [MOEC_BOOL] = {"bool", 1}, [MOEC_U8] = {"u8", 1},   [MOEC_I8] = {"i8", 1},   [MOEC_U16] = {"u16", 2},
    [MOEC_I16] = {"i16", 2},   [MOEC_I32] = {"i32", 4}, [MOEC_I64] = {"i64", 8}, [MOEC_F16] = {"f16", 2},
    [MOEC_F32] = {"f32", 4},   [MOEC_F64] = {"f64", 8},
};

size_t moec_dtype_bytes(unsigned dtype) {
    return dtype <= MOEC_F64 ? dtypes[dtype].bytes : 0;
}

const char *moec_dtype_name(unsigned dtype) {
    return dtype <= MOEC_F64 ? dtypes[dtype].name : "?";
}

int moec_find_function(const moec_program *p, const char *name) {
    for (uint32_t i = 0; p && name && i < p->n_functions; i++)
        if (!strcmp(p->function[i].name, name))
            return (int)i;
    return -1;
}

int moec_find_symbol(const moec_program *p, const char *name) {
    for (uint32_t i = 0; p && name && i < p->n_symbols; i++)
        if (!strcmp(p->symbol[i].name, name))
            return (int)i;
    return -1;
}

static int find_value(const moec_function *f, uint32_t from, uint32_t to, const char *name) {
    for (uint32_t i = from; i < to; i++)
        if (!strcmp(f->value[i].name, name))
            return (int)i;
    return -1;
}

int moec_find_input(const moec_function *f, const char *name) {
    return find_value(f, 0, f->n_inputs, name);
}

int moec_find_output(const moec_function *f, const char *name) {
    return find_value(f, f->n_inputs, f->n_inputs + f->n_outputs, name);
}

void moec_symbols_low(const moec_program *p, int64_t *sym) {
    for (uint32_t i = 0; i < p->n_symbols; i++)
        sym[i] = p->symbol[i].lo;
}

void moec_symbols_high(const moec_program *p, int64_t *sym) {
    for (uint32_t i = 0; i < p->n_symbols; i++)
        sym[i] = p->symbol[i].hi;
}

void moec_symbols_of(const moec_program *p, int64_t rows, int64_t source, int64_t target, int64_t *sym) {
    const int symbol[] = {p->seq2seq->batch, p->seq2seq->source, p->seq2seq->target};
    const int64_t extent[] = {rows, source, target};
    moec_symbols_low(p, sym);
    for (int k = 0; k < 3; k++)
        if (symbol[k] >= 0)
            sym[symbol[k]] = extent[k];
}

/* The k-th value at which a symbol is tried; distinct points of its range first. */
static int64_t probe(const moec_symbol *s, int k) {
    int64_t room = s->hi - s->lo;
    const int64_t at[] = {0, 1, room, room / 2, room / 3};
    return s->lo + (at[k] < room ? at[k] : room);
}
enum { PROBES = 5 };

moec_axis moec_axis_of(const moec_program *p, const moec_function *f, uint32_t value, int axis) {
    int64_t sym[MOEC_SYMBOLS], low[MOEC_RANK], e[MOEC_RANK];
    moec_axis a = {-1, 0, 0};
    moec_symbols_low(p, sym);
    f->shape(sym, value, low);
    a.base = low[axis];
    for (uint32_t s = 0; s < p->n_symbols; s++) {
        int64_t lo = p->symbol[s].lo, slope = 0;
        for (int k = 1; k < PROBES && p->symbol[s].hi > lo; k++) {
            sym[s] = probe(&p->symbol[s], k);
            f->shape(sym, value, e);
            int64_t d = sym[s] - lo;
            if (d == 0)
                continue;
            if (k == 1)
                slope = (e[axis] - low[axis]) / d;
            if (e[axis] - low[axis] != slope * d)
                a.symbol = -2;
        }
        sym[s] = lo;
        if (slope && a.symbol == -1)
            a = (moec_axis){(int)s, slope, low[axis] - slope * lo};
        else if (slope)
            a.symbol = -2;
    }
    return a;
}

int moec_is_packed(const moec_program *p, const moec_function *f, uint32_t value) {
    int64_t sym[MOEC_SYMBOLS], low[MOEC_RANK] = {0}, e[MOEC_RANK] = {0};
    if (!p->seq2seq || p->seq2seq->tokens < 0)
        return 0;
    moec_symbols_low(p, sym);
    f->shape(sym, value, low);
    sym[p->seq2seq->tokens] = p->symbol[p->seq2seq->tokens].hi;
    f->shape(sym, value, e);
    return memcmp(low, e, sizeof e) != 0;
}

int moec_row_symbol(const moec_program *p, const moec_function *f) {
    int rows = -1, spans = moec_find_input(f, "spans") >= 0;
    for (uint32_t v = 0, first = 1; v < f->n_inputs + f->n_outputs; v++) {
        if (spans && moec_is_packed(p, f, v))
            continue;
        if (f->value[v].rank == 0 || f->value[v].grow_axis == 0)
            return -1;
        moec_axis a = moec_axis_of(p, f, v, 0);
        if (a.symbol < 0 || a.scale != 1 || a.base != 0 || (!first && a.symbol != rows))
            return -1;
        rows = a.symbol;
        first = 0;
        for (int axis = 1; axis < f->value[v].rank; axis++) {
            a = moec_axis_of(p, f, v, axis);
            if (a.symbol == rows || a.symbol == -2)
                return -1;
        }
    }
    return rows;
}

uint64_t moec_symbols_used(const moec_program *p, const moec_function *f) {
    uint64_t used = 0;
    int64_t sym[MOEC_SYMBOLS], low[MOEC_RANK], e[MOEC_RANK];
    moec_symbols_low(p, sym);
    for (uint32_t v = 0; v < f->n_inputs + f->n_outputs; v++) {
        f->shape(sym, v, low);
        for (uint32_t s = 0; s < p->n_symbols; s++) {
            for (int k = 1; k < PROBES; k++) {
                sym[s] = probe(&p->symbol[s], k);
                f->shape(sym, v, e);
                for (int axis = 0; axis < f->value[v].rank; axis++)
                    if (e[axis] != low[axis])
                        used |= (uint64_t)1 << s;
            }
            sym[s] = p->symbol[s].lo;
        }
    }
    return used;
}

int moec_value_bytes(const moec_function *f, uint32_t value, const int64_t *sym, uint64_t *bytes) {
    const moec_value *v = &f->value[value];
    int64_t e[MOEC_RANK];
    f->shape(sym, value, e);
    if (v->grow_axis >= 0)
        e[v->grow_axis] = v->capacity;
    uint64_t total = moec_dtype_bytes(v->dtype);
    for (int axis = 0; axis < v->rank; axis++) {
        if (e[axis] < 0 || (e[axis] > 0 && total > ((uint64_t)1 << 47) / (uint64_t)e[axis]))
            return 0;
        total *= (uint64_t)e[axis];
    }
    *bytes = total;
    return 1;
}
