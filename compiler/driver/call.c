/* Functions called with what is given and seeded values for the rest. */
#include "call.h"

#include <string.h>

/* Text IR names large weights without carrying them: they get small seeded values, the same for the same
 * name. */
bool seed_weights(Module *m, uint64_t seed, const char *file, Diag *d) {
    uint32_t n = 0;
    for (ParamId i = 0; i < m->n_params; i++) {
        Param *p = &m->param[i];
        int64_t count = 0;
        if (p->data || p->init != NONE)
            continue;
        Tensor t = {.dtype = p->dtype, .rank = p->rank};
        memcpy(t.dim, p->dim, sizeof t.dim);
        if (!tensor_count(&t, &count) || !tensor_alloc(m->arena, &t))
            return diag_error(d, DIAG_SHAPE_SIZE, file, "parameter @%s is too large", diag_show(d, p->name));
        uint64_t state = hash_bytes(seed, p->name.p, p->name.n);
        for (int64_t k = 0; k < count; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
            tensor_set_f64(&t, k,
                           dtype_is_float(t.dtype) ? ((double)(state >> 40) * 0x1p-24 - 0.5) * 0.25 : 0.0);
        }
        p->data = t.data;
        n++;
    }
    if (n)
        diag_warn(d, DIAG_RUN_NO_DATA, file, "%u parameters come without data: seeded values stand for them", n);
    return true;
}

/* Symbols that given inputs decide are those; the others are seeded, then the inputs that are left. */
bool complete_inputs(const Module *m, const PassOptions *o, const Func *f, const bool *given, Tensor *in,
                     int64_t *syms, Arena *a, Diag *d) {
    Tensor *seeded = arena_array(a, f->n_inputs + 1u, sizeof *seeded);
    bool all = true;
    seed_symbols(m, o, syms);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Type *t = &f->value[f->input[i]].type;
        uint32_t sym;
        all &= given[i];
        for (int k = 0; given[i] && k < t->rank && k < in[i].rank; k++)
            if (dim_as_sym(m->dims, t->dim[k], &sym))
                syms[sym] = in[i].dim[k];
    }
    if (!all && !seed_inputs(m, f, syms, o->seed, seeded, a, d))
        return false;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (!given[i])
            in[i] = seeded[i];
        if (in[i].dtype == DT_F16 && v->type.dtype == DT_F32) { /* bind computes f16 models in f32 */
            Tensor wide = in[i];
            int64_t count = 0;
            wide.dtype = DT_F32;
            if (!tensor_count(&wide, &count) || !tensor_alloc(a, &wide))
                return diag_error(d, DIAG_SHAPE_SIZE, NULL, "input %s is too large", diag_show(d, v->name));
            for (int64_t k = 0; k < count; k++)
                tensor_set_f64(&wide, k, tensor_get_f64(&in[i], k));
            in[i] = wide;
        }
    }
    return func_bind_dims(m, f, in, syms, d);
}

/* ---- native code ----------------------------------------------------------------------------- */

/* Copies between dense data and storage whose axis `axis` has room for more: outer * extent * inner. */
static void copy_grown(const Tensor *t, int axis, int64_t capacity, void *dense, void *storage,
                       bool to_storage) {
    size_t inner = dtype_bytes(t->dtype);
    int64_t outer = 1;
    for (int i = 0; i < t->rank; i++) {
        if (i < axis)
            outer *= t->dim[i];
        else if (i > axis)
            inner *= (size_t)t->dim[i];
    }
    size_t row = inner * (size_t)t->dim[axis], room = inner * (size_t)capacity;
    for (int64_t i = 0; i < outer; i++) {
        char *d = (char *)dense + (size_t)i * row, *s = (char *)storage + (size_t)i * room;
        memcpy(to_storage ? s : d, to_storage ? d : s, row);
    }
}

static bool grown_input(const moec_value *v, Tensor *t, Arena *a, Diag *d) {
    Tensor room = *t;
    room.dim[v->grow_axis] = v->capacity;
    if (t->dim[v->grow_axis] > v->capacity || !tensor_alloc(a, &room))
        return diag_error(d, DIAG_SHAPE_SIZE, NULL, "input %s is too large", diag_show(d, str_c(v->name)));
    copy_grown(t, v->grow_axis, v->capacity, t->data, room.data, true);
    t->data = room.data;
    return true;
}

bool call_compiled(Native *n, const Module *m, const Func *f, const int64_t *syms, Tensor *in, Tensor *out,
                   Arena *a) {
    int index = native_function(n, arena_printf(a, "%.*s", (int)f->name.n, f->name.p));
    if (index < 0)
        return diag_error(n->d, DIAG_RUN_FUNCTION, NULL, "function @%s is no entry of the compiled model",
                          diag_show(n->d, f->name));
    const moec_function *p = &n->program->function[index];
    int64_t *sym = arena_array(a, n->program->n_symbols + 1, sizeof *sym);
    for (size_t i = 0; i < dim_sym_count(m->dims); i++) {
        Str name = dim_sym_at(m->dims, (uint32_t)i)->name;
        int k = native_symbol(n, arena_printf(a, "%.*s", (int)name.n, name.p));
        if (k >= 0)
            sym[k] = syms[i];
    }
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (p->value[i].grow_axis >= 0 && !grown_input(&p->value[i], &in[i], a, n->d))
            return false;
    if (!native_run(n, index, sym, in, out, a))
        return false;
    for (uint32_t i = 0; i < p->n_outputs; i++) {
        const moec_value *v = &p->value[p->n_inputs + i];
        if (v->alias < 0)
            continue;
        Tensor dense = out[i];
        int axis = p->value[v->alias].grow_axis;
        if (!tensor_alloc(a, &dense))
            return diag_error(n->d, DIAG_SHAPE_SIZE, NULL, "output %s is too large", diag_show(n->d, str_c(v->name)));
        if (axis >= 0) {
            copy_grown(&dense, axis, p->value[v->alias].capacity, dense.data, out[i].data, false);
            out[i] = dense;
        }
    }
    return true;
}
