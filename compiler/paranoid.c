/* Seeded inputs, results before and after a pass, and the round trip of the text form. */
#include "paranoid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- seeded inputs --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) /* splitmix64's finaliser: Steele, Lea, Flood 2014 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void seed_symbols(const Module *m, const PassOptions *o, int64_t *syms)
{
    uint64_t seed = o ? o->seed : 0;
    for (size_t i = 0; i < dim_sym_count(m->dims); i++) {
        const DimSym *s = dim_sym_at(m->dims, (uint32_t)i);
        int64_t v = 2 + (int64_t)(mix(seed ^ hash_bytes(0, s->name.p, s->name.n)) % 5);
        syms[i] = v < s->lo ? s->lo : v > s->hi ? s->hi : v;
        for (uint32_t k = 0; o && k < o->n_dims; k++) /* bounds the user set hold even before bind has seen them */
            if (str_eq(o->dim[k].name, s->name)) {
                syms[i] = syms[i] < o->dim[k].lo ? o->dim[k].lo : syms[i];
                syms[i] = syms[i] > o->dim[k].hi ? o->dim[k].hi : syms[i];
            }
    }
}

static bool name_holds(Str s, const char *part)
{
    return s.n >= strlen(part) && memmem(s.p, s.n, part, strlen(part)) != NULL;
}

/* All N tokens are those of some row. */
static void seed_spans(const Module *m, const int64_t *syms, Tensor *t)
{
    int64_t tokens = 0, rows = t->dim[0];
    for (size_t i = 0; i < dim_sym_count(m->dims); i++)
        if (str_is(dim_sym_at(m->dims, (uint32_t)i)->name, "N"))
            tokens = syms[i];
    for (int64_t b = 0; b < rows; b++) {
        tensor_set_i64(t, 2 * b, b * tokens / rows);
        tensor_set_i64(t, 2 * b + 1, (b + 1) * tokens / rows);
    }
}

static void seed_fill(const Module *m, Str name, uint64_t seed, Tensor *t)
{
    int64_t count = 0, row = t->rank ? t->dim[t->rank - 1] : 1;
    uint64_t range = m->s2s.present && m->s2s.vocab > 0 ? (uint64_t)m->s2s.vocab : 16;
    bool mask = name_holds(name, "mask") && !dtype_is_float(t->dtype);
    uint64_t key = seed ^ hash_bytes(1, name.p, name.n);
    tensor_count(t, &count);
    for (int64_t i = 0; i < count; i++) {
        uint64_t r = mix(key + (uint64_t)i);
        if (mask) /* every second row has a padded tail */
            tensor_set_i64(t, i, i % row == 0 || i / row % 2 == 0 || 3 * (i % row) < 2 * row);
        else if (dtype_is_float(t->dtype))
            tensor_set_f64(t, i, (double)(int64_t)(r >> 11) * 0x1p-52 - 1.0);
        else
            tensor_set_i64(t, i, t->dtype == DT_BOOL ? (int64_t)(r & 1) : (int64_t)(r % range));
    }
}

bool seed_inputs(const Module *m, const Func *f, const int64_t *syms, uint64_t seed, Tensor *in, Arena *a, Diag *d)
{
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        in[i] = (Tensor){.dtype = v->type.dtype, .rank = v->type.rank};
        if (v->type.rank == UNRANKED)
            return diag_error(d, DIAG_RUN_INPUT, NULL, "input %s has no rank: give it a value",
                              diag_show(d, v->name));
        for (int k = 0; k < v->type.rank; k++)
            if (!dim_eval(m->dims, v->type.dim[k], syms, &in[i].dim[k]))
                return diag_error(d, DIAG_RUN_INPUT, NULL, "input %s: extents overflow",
                                  diag_show(d, v->name));
        if (!tensor_alloc(a, &in[i]))
            return diag_error(d, DIAG_RUN_INPUT, NULL, "input %s: impossible extents", diag_show(d, v->name));
        if (str_is(v->name, "spans") && in[i].rank == 2)
            seed_spans(m, syms, &in[i]);
        else
            seed_fill(m, v->name, seed, &in[i]);
    }
    return true;
}

/* ---- before and after ---------------------------------------------------------------------------------- */

typedef struct Taken {
    Str name;
    uint32_t n_inputs, n_outputs;
    Str *input_name;
    Tensor *in, *out;
} Taken;

struct Snapshot {
    Arena *a;
    Taken *taken;
    uint32_t n;
};

static bool given_value(const PassOptions *o, const Func *f, Str input, Tensor *out)
{
    for (uint32_t k = 0; o && k < o->n_values; k++)
        if (str_eq(o->value[k].input, input) && (!o->value[k].func.n || str_eq(o->value[k].func, f->name))) {
            *out = o->value[k].value;
            return true;
        }
    return false;
}

/* Gradients before `grad` are differences of results: good enough to compare in f64 alone. */
static bool is_estimate(const Func *f)
{
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_gradient && f->value[f->node[i].out].type.dtype != DT_F64)
            return true;
    return false;
}

static bool take(const Module *m, const PassOptions *o, const Func *f, Taken *t, Arena *a, Diag *quiet)
{
    int64_t *syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *syms);
    *t = (Taken){.name = {arena_strndup(a, f->name.p, f->name.n), f->name.n},
                 .n_inputs = f->n_inputs,
                 .n_outputs = f->n_outputs,
                 .input_name = arena_array(a, f->n_inputs + 1u, sizeof(Str)),
                 .in = arena_array(a, f->n_inputs + 1u, sizeof(Tensor)),
                 .out = arena_array(a, f->n_outputs + 1u, sizeof(Tensor))};
    seed_symbols(m, o, syms);
    if (!seed_inputs(m, f, syms, o ? o->seed : 0, t->in, a, quiet))
        return false;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        Str name = f->value[f->input[i]].name;
        t->input_name[i] = (Str){arena_strndup(a, name.p, name.n), name.n};
        given_value(o, f, name, &t->in[i]);
    }
    return func_bind_dims(m, f, t->in, syms, quiet) && func_eval(m, f->id, syms, t->in, t->out, a, quiet);
}

Snapshot *snapshot_take(const Module *m, const PassOptions *o)
{
    Arena *a = arena_new();
    Snapshot *s = arena_alloc(a, sizeof *s);
    Diag *quiet = diag_new();
    s->a = a;
    s->taken = arena_array(a, m->n_funcs + 1u, sizeof *s->taken);
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY && !is_estimate(m->func[i]) && take(m, o, m->func[i], &s->taken[s->n], a, quiet))
            s->n++;
    diag_free(quiet);
    return s;
}

void snapshot_free(Snapshot *s)
{
    if (s)
        arena_free(s->a);
}

static const Func *same_signature(const Module *m, const Taken *t)
{
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || !str_eq(f->name, t->name))
            continue;
        if (f->role != FR_ENTRY || f->n_inputs != t->n_inputs || f->n_outputs != t->n_outputs)
            return NULL;
        for (uint32_t k = 0; k < f->n_inputs; k++) {
            const Value *v = &f->value[f->input[k]];
            if (!str_eq(v->name, t->input_name[k]) || v->type.rank != t->in[k].rank || v->type.dtype != t->in[k].dtype)
                return NULL;
        }
        return f;
    }
    return NULL;
}

/* Models in f16 are computed in f32 after bind: there the last place may change. */
static bool close_enough(double a, double b, bool half)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    if (a == b)
        return true;
    return fabs(a - b) <= (half ? 4e-3 : 1e-4) * fmax(fabs(a), fabs(b)) + (half ? 1e-3 : 1e-5);
}

static bool tensors_agree(const Tensor *a, const Tensor *b, int64_t *where)
{
    int64_t count = 0;
    *where = -1;
    if (a->rank != b->rank || memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) != 0 ||
        dtype_is_float(a->dtype) != dtype_is_float(b->dtype))
        return false;
    tensor_count(a, &count);
    bool half = a->dtype == DT_F16 || b->dtype == DT_F16;
    for (int64_t i = 0; i < count; i++) {
        bool same = dtype_is_float(a->dtype) ? close_enough(tensor_get_f64(a, i), tensor_get_f64(b, i), half)
                                             : tensor_get_i64(a, i) == tensor_get_i64(b, i);
        if (!same) {
            *where = i;
            return false;
        }
    }
    return true;
}

static bool compare_one(const Taken *t, const Module *m, const Func *f, const int64_t *syms, Arena *a, Diag *d)
{
    Tensor *out = arena_array(a, t->n_outputs + 1u, sizeof *out);
    if (!func_eval(m, f->id, syms, t->in, out, a, d))
        return false;
    for (uint32_t i = 0; i < t->n_outputs; i++) {
        int64_t at;
        if (tensors_agree(&t->out[i], &out[i], &at))
            continue;
        if (at < 0)
            return diag_error(d, DIAG_PARANOID, NULL, "function @%s: output %u changed its type or extents",
                              diag_show(d, f->name), i);
        return diag_error(d, DIAG_PARANOID, NULL, "function @%s: output %u element %lld was %.9g and is %.9g",
                          diag_show(d, f->name), i, (long long)at, tensor_get_f64(&t->out[i], at),
                          tensor_get_f64(&out[i], at));
    }
    return true;
}

bool snapshot_compare(const Snapshot *s, const Module *m, bool free_dims, uint32_t *n, Diag *d)
{
    bool ok = true;
    *n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const Func *f = same_signature(m, &s->taken[i]);
        if (!f)
            continue;
        Arena *a = arena_new();
        Diag *quiet = diag_new();
        int64_t *syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *syms);
        if (func_bind_dims(m, f, s->taken[i].in, syms, free_dims ? quiet : d)) {
            ok = compare_one(&s->taken[i], m, f, syms, a, d) && ok;
            ++*n;
        } else if (!free_dims) {
            ok = false;
        }
        diag_free(quiet);
        arena_free(a);
    }
    return ok;
}

/* ---- round trip ------------------------------------------------------------------------------------------- */

bool roundtrip_check(const Module *m, Diag *d)
{
    Text first = {0}, second = {0};
    module_print(m, &first);
    Module *again = module_parse(d, "<round trip>", first.p, first.n);
    if (again)
        module_print(again, &second);
    bool same = again && first.n == second.n && (!first.n || memcmp(first.p, second.p, first.n) == 0);
    if (again && !same) {
        size_t i = 0, line = 1;
        while (i < first.n && i < second.n && first.p[i] == second.p[i])
            line += first.p[i++] == '\n';
        diag_error(d, DIAG_PARANOID, NULL, "print -> parse -> print changes line %zu", line);
    }
    module_free(again);
    text_free(&first);
    text_free(&second);
    return same;
}
